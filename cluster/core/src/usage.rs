//! What OSDs say about what pools and images take and how much they are used: the keys below `usage/` and their JSON
//! values. `docs/metadata-keys.md` is the reference, and says what is counted.
//!
//! These keys are not part of the cluster map: only gateways keep a mirror of them. They sort behind all other keys, so
//! that whoever has no use for them can watch what comes before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, OsdId, PoolId};

/// Prefix of all of them.
pub const USAGE: &str = "usage/";

/// Images of one part of an OSD's report, at most: a value has at most some 40 KiB then.
pub const IMAGES_PER_PART: usize = 128;

/// `usage/<osd>/pools`, on the OSD's lease.
#[must_use]
pub fn pools(osd: OsdId) -> String {
    format!("{USAGE}{osd}/pools")
}

/// `usage/<osd>/images/<part>`, on the OSD's lease. An image is in one part at most.
#[must_use]
pub fn images(osd: OsdId, part: u32) -> String {
    format!("{USAGE}{osd}/images/{part}")
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// [`pools`].
    Pools(OsdId),
    /// [`images`].
    Images(OsdId, u32),
}

/// What a key is about; none if it is none of these.
#[must_use]
pub fn parse(key: &str) -> Option<Subject> {
    let mut parts = key.strip_prefix(USAGE)?.split('/');
    let osd = OsdId(parts.next()?.parse().ok()?);
    let subject = match (parts.next()?, parts.next()) {
        ("pools", None) => Subject::Pools(osd),
        ("images", Some(part)) => Subject::Images(osd, part.parse().ok()?),
        _ => return None,
    };
    parts.next().is_none().then_some(subject)
}

/// Value of `usage/<osd>/pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolsUsage {
    /// The pools of which the OSD has anything.
    pub pools: BTreeMap<PoolId, PoolUsage>,
}

/// What one OSD has of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolUsage {
    /// Bytes that are written, of the objects that it is the primary of.
    pub used: u64,
    /// How many these are.
    pub objects: u64,
    /// Copies of objects that are on its disk, whoever is the primary; each takes the room of a whole object.
    pub copies: u64,
}

/// Value of `usage/<osd>/images/<part>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesUsage {
    /// The start of the OSD that its counters belong to.
    pub boot: u64,
    /// By image; the id is hexadecimal.
    #[serde(with = "by_id")]
    pub images: BTreeMap<ImageId, ImageUsage>,
}

/// What one OSD is the primary of, of an image, and the operations on it that it has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageUsage {
    /// Bytes that are written.
    pub used: u64,
    /// Objects.
    pub objects: u64,
    /// Since the OSD's start.
    #[serde(flatten)]
    pub ops: Ops,
}

/// Operations of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ops {
    /// Reads.
    #[serde(skip_serializing_if = "OpCount::is_none")]
    pub read: OpCount,
    /// Writes.
    #[serde(skip_serializing_if = "OpCount::is_none")]
    pub write: OpCount,
    /// Discards and writes of zeroes.
    #[serde(skip_serializing_if = "OpCount::is_none")]
    pub zero: OpCount,
}

/// Operations of one kind: `[count, bytes, microseconds]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct OpCount {
    /// How many.
    pub count: u64,
    /// Bytes that they were about.
    pub bytes: u64,
    /// How long they took, all together.
    pub micros: u64,
}

impl From<[u64; 3]> for OpCount {
    fn from([count, bytes, micros]: [u64; 3]) -> OpCount {
        OpCount { count, bytes, micros }
    }
}

impl From<OpCount> for [u64; 3] {
    fn from(op: OpCount) -> [u64; 3] {
        [op.count, op.bytes, op.micros]
    }
}

impl OpCount {
    fn is_none(&self) -> bool {
        *self == OpCount::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: OpCount) -> OpCount {
        OpCount {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
            micros: self.micros.saturating_add(other.micros),
        }
    }

    /// What was counted since an earlier look at the same counter; none if it began anew since.
    fn since(self, earlier: OpCount) -> Option<OpCount> {
        Some(OpCount {
            count: self.count.checked_sub(earlier.count)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
            micros: self.micros.checked_sub(earlier.micros)?,
        })
    }
}

impl Ops {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Ops) -> Ops {
        Ops {
            read: self.read.plus(other.read),
            write: self.write.plus(other.write),
            zero: self.zero.plus(other.zero),
        }
    }

    /// What was counted since an earlier look at the same counters; all of it, if they began anew since.
    #[must_use]
    pub fn since(self, earlier: Ops) -> Ops {
        let since = || {
            Some(Ops {
                read: self.read.since(earlier.read)?,
                write: self.write.since(earlier.write)?,
                zero: self.zero.since(earlier.zero)?,
            })
        };
        since().unwrap_or(self)
    }
}

/// Images by their hexadecimal ids, as everywhere that people see them.
mod by_id {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{ImageId, ImageUsage};

    pub(super) fn serialize<S: Serializer>(
        images: &BTreeMap<ImageId, ImageUsage>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(images.iter().map(|(id, usage)| (id.to_string(), usage)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<ImageId, ImageUsage>, D::Error> {
        let named = BTreeMap::<String, ImageUsage>::deserialize(deserializer)?;
        let by_id = named.into_iter().map(|(id, usage)| {
            let number = u64::from_str_radix(&id, 16).map_err(serde::de::Error::custom)?;
            Ok((ImageId(number), usage))
        });
        by_id.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::encode;

    #[test]
    fn every_key_maker_is_parsed() {
        assert_eq!(parse(&pools(OsdId(7))), Some(Subject::Pools(OsdId(7))));
        assert_eq!(parse(&images(OsdId(7), 12)), Some(Subject::Images(OsdId(7), 12)));
        for key in [
            "",
            "usage/",
            "usage/7",
            "usage/x/pools",
            "usage/7/pools/1",
            "usage/7/images",
            "usage/7/images/x",
            "usage/7/images/1/2",
            "osd/7/pools",
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }

    #[test]
    fn values_as_json() {
        let usage = PoolUsage {
            used: 8192,
            objects: 2,
            copies: 5,
        };
        let pools = PoolsUsage {
            pools: BTreeMap::from([(PoolId(3), usage)]),
        };
        let golden = r#"{"pools":{"3":{"used":8192,"objects":2,"copies":5}}}"#;
        assert_eq!(encode(&pools), golden);
        assert_eq!(serde_json::from_str::<PoolsUsage>(golden).unwrap(), pools);

        let busy = ImageUsage {
            used: 4096,
            objects: 1,
            ops: Ops {
                write: OpCount::from([2, 5000, 730]),
                ..Ops::default()
            },
        };
        let idle = ImageUsage {
            used: 8192,
            objects: 2,
            ..ImageUsage::default()
        };
        let images = ImagesUsage {
            boot: 9,
            images: BTreeMap::from([(ImageId::new(PoolId(1), 0x400), busy), (ImageId(1), idle)]),
        };
        let golden = concat!(
            r#"{"boot":9,"images":{"1":{"used":8192,"objects":2},"#,
            r#""1000000000400":{"used":4096,"objects":1,"write":[2,5000,730]}}}"#
        );
        assert_eq!(encode(&images), golden);
        assert_eq!(serde_json::from_str::<ImagesUsage>(golden).unwrap(), images);
        for bad in [r#"{"boot":9,"images":{"x":{}}}"#, r#"{"images":{}}"#] {
            assert!(serde_json::from_str::<ImagesUsage>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_part_is_far_below_what_the_metadata_store_takes() {
        let most = ImageUsage {
            used: u64::MAX,
            objects: u64::MAX,
            ops: Ops {
                read: OpCount::from([u64::MAX; 3]),
                write: OpCount::from([u64::MAX; 3]),
                zero: OpCount::from([u64::MAX; 3]),
            },
        };
        let ids = (0..IMAGES_PER_PART as u64).map(|i| ImageId(u64::MAX - i));
        let part = ImagesUsage {
            boot: u64::MAX,
            images: ids.map(|id| (id, most)).collect(),
        };
        assert!(encode(&part).len() < 48 << 10, "{}", encode(&part).len());
    }

    #[test]
    fn counters_that_began_anew_count_in_full() {
        let ops = |count, micros| Ops {
            read: OpCount::from([count, 8 * count, micros]),
            ..Ops::default()
        };
        for (now, earlier, since) in [
            (ops(5, 50), ops(2, 20), ops(3, 30)),
            (ops(5, 50), Ops::default(), ops(5, 50)),
            (ops(5, 50), ops(5, 50), Ops::default()),
            (ops(3, 50), ops(5, 20), ops(3, 50)),
        ] {
            assert_eq!(now.since(earlier), since);
        }
        assert_eq!(ops(1, 2).plus(ops(3, 4)), ops(4, 6));
    }
}
