//! What OSDs testify while the metadata store is not the one that their data belongs to: the keys below `witness/` and
//! their JSON values. From them it is written what the store has to know (`adopt.rs`).
//!
//! They sort behind the keys that OSDs and monitors watch: only gateways keep a mirror of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, ImageId, OsdId, PoolId};
use crate::kv::{KeyValue, News, Notice, Revision};
use crate::mark::Mark;

/// Prefix of all of them.
pub const WITNESS: &str = "witness/";

/// Images of one part of an OSD's testimony, at most.
pub const IMAGES_PER_PART: usize = 1000;

/// `witness/<osd>/head`, on the OSD's lease; written last.
#[must_use]
pub fn head(osd: OsdId) -> String {
    format!("{WITNESS}{osd}/head")
}

/// `witness/<osd>/pool/<id>`, on the OSD's lease.
#[must_use]
pub fn pool(osd: OsdId, pool: PoolId) -> String {
    format!("{WITNESS}{osd}/pool/{pool}")
}

/// `witness/<osd>/images/<part>`, on the OSD's lease.
#[must_use]
pub fn images(osd: OsdId, part: u32) -> String {
    format!("{WITNESS}{osd}/images/{part}")
}

/// Value of `witness/<osd>/head`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The OSD's start.
    pub boot: u64,
    /// Bytes of its disk.
    pub size: u64,
    /// The latest mark that it saw.
    pub mark: Option<Mark>,
    /// It has no objects of an image with this number or a higher one.
    pub next_image: u64,
    /// It knows of no pool with this id or a higher one.
    pub next_pool: u32,
    /// The pools that there are values for.
    pub pools: Vec<PoolId>,
    /// How many parts of images there are.
    pub parts: u32,
}

/// Value of `witness/<osd>/pool/<id>`: what the OSD has of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPool {
    /// The OSD's start.
    pub boot: u64,
    /// The highest epoch that it accepted of any PG, or has a version of.
    pub epoch: Epoch,
    /// The latest generation of PGs of which it accepted an epoch.
    pub generation: u16,
    /// Into how many PGs it sorted its objects: as many as the store says that the pool has.
    pub count: u32,
    /// Those of which it has any object: a bit each, eight to a pair of hexadecimal digits, the lowest first.
    pub pgs: String,
}

impl OfPool {
    /// The text for `pgs`, of the PGs with these numbers, all below `count`.
    ///
    /// # Panics
    /// If a number is not below `count`.
    #[must_use]
    pub fn bits(count: u32, numbers: impl IntoIterator<Item = u32>) -> String {
        let mut bytes = vec![0_u8; place(count.saturating_sub(1)).0 + 1];
        for number in numbers {
            assert!(number < count, "PG {number} of {count}");
            let (byte, bit) = place(number);
            bytes[byte] |= bit;
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it has any object of the PG with this number.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        let (byte, bit) = place(number);
        let digits = self.pgs.get(2 * byte..2 * byte + 2);
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        value.is_some_and(|value| value & bit != 0)
    }
}

/// The byte, and the bit in it.
fn place(number: u32) -> (usize, u8) {
    let byte = usize::try_from(number / 8).expect("at most 65536 PGs");
    (byte, 1 << (number % 8))
}

/// Value of `witness/<osd>/images/<part>`: images that the OSD has objects of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfImages {
    /// The OSD's start.
    pub boot: u64,
    /// By image, in hexadecimal digits: the number of the first object behind all that it has.
    pub images: BTreeMap<String, u64>,
}

/// A mirror of all of them.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    /// With the commits that wrote them.
    heads: BTreeMap<OsdId, (Revision, Head)>,
    pools: BTreeMap<(OsdId, PoolId), OfPool>,
    images: BTreeMap<(OsdId, u32), OfImages>,
}

/// What a key is about.
enum Subject {
    Head(OsdId),
    Pool(OsdId, PoolId),
    Images(OsdId, u32),
}

impl Witnesses {
    /// Takes in what the metadata store says, of which everything up to `known` is known.
    pub fn apply(&mut self, notice: &Notice, known: Revision) {
        for news in notice.news(known) {
            match news {
                News::All(keys) => {
                    *self = Witnesses::default();
                    keys.iter().for_each(|kv| self.put(kv));
                }
                News::Put(kv) => self.put(kv),
                News::Delete(key) => self.delete(key),
            }
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        // What cannot be read is not heard.
        self.delete(&kv.key);
        match parse(&kv.key) {
            Some(Subject::Head(osd)) => {
                let head = serde_json::from_slice(&kv.value);
                self.heads.extend(head.ok().map(|head| (osd, (kv.mod_revision, head))));
            }
            Some(Subject::Pool(osd, pool)) => insert(&mut self.pools, (osd, pool), kv),
            Some(Subject::Images(osd, part)) => insert(&mut self.images, (osd, part), kv),
            None => {}
        }
    }

    fn delete(&mut self, key: &str) {
        match parse(key) {
            Some(Subject::Head(osd)) => drop(self.heads.remove(&osd)),
            Some(Subject::Pool(osd, pool)) => drop(self.pools.remove(&(osd, pool))),
            Some(Subject::Images(osd, part)) => drop(self.images.remove(&(osd, part))),
            None => {}
        }
    }

    /// The OSDs that have testified all that they have after this commit, with the heads of that. What was said before may
    /// have come back with a backup.
    pub fn heard(&self, since: Revision) -> impl Iterator<Item = (OsdId, &Head)> {
        let later = self.heads.iter().filter(move |(_, (written, _))| *written > since);
        later
            .map(|(&osd, (_, head))| (osd, head))
            .filter(|(osd, head)| self.is_whole(*osd, head))
    }

    fn is_whole(&self, osd: OsdId, head: &Head) -> bool {
        let pool = |pool: &PoolId| {
            self.pools
                .get(&(osd, *pool))
                .is_some_and(|value| value.boot == head.boot)
        };
        let part = |part: u32| {
            self.images
                .get(&(osd, part))
                .is_some_and(|value| value.boot == head.boot)
        };
        head.pools.iter().all(pool) && (0..head.parts).all(part)
    }

    /// What an OSD has of a pool.
    #[must_use]
    pub fn of_pool(&self, osd: OsdId, pool: PoolId) -> Option<&OfPool> {
        self.pools.get(&(osd, pool))
    }

    /// The images that these OSDs have objects of, and for each the number of the first object behind all of them.
    #[must_use]
    pub fn of_images<'a>(&self, heard: impl Iterator<Item = (OsdId, &'a Head)>) -> BTreeMap<ImageId, u64> {
        let mut ends: BTreeMap<ImageId, u64> = BTreeMap::new();
        let parts = heard.flat_map(|(osd, head)| (0..head.parts).map(move |part| (osd, part)));
        let images = parts
            .filter_map(|part| self.images.get(&part))
            .flat_map(|part| &part.images);
        for (image, &objects) in images {
            if let Ok(image) = u64::from_str_radix(image, 16) {
                let end = ends.entry(ImageId(image)).or_default();
                *end = objects.max(*end);
            }
        }
        ends
    }
}

fn insert<K: Ord, T: serde::de::DeserializeOwned>(map: &mut BTreeMap<K, T>, key: K, kv: &KeyValue) {
    if let Ok(value) = serde_json::from_slice(&kv.value) {
        map.insert(key, value);
    }
}

fn parse(key: &str) -> Option<Subject> {
    let mut parts = key.strip_prefix(WITNESS)?.split('/');
    let osd = OsdId(parts.next()?.parse().ok()?);
    let subject = match (parts.next()?, parts.next()) {
        ("head", None) => Subject::Head(osd),
        ("pool", Some(pool)) => Subject::Pool(osd, PoolId(pool.parse().ok()?)),
        ("images", Some(part)) => Subject::Images(osd, part.parse().ok()?),
        _ => return None,
    };
    parts.next().is_none().then_some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Event;
    use crate::map::encode;

    fn kv(key: String, value: &impl Serialize) -> Event {
        Event::Put(KeyValue {
            key,
            value: encode(value),
            mod_revision: 5,
        })
    }

    fn sample_head(boot: u64) -> Head {
        Head {
            boot,
            size: 1 << 30,
            mark: None,
            next_image: 8,
            next_pool: 3,
            pools: vec![PoolId(2)],
            parts: 1,
        }
    }

    fn sample_pool(boot: u64) -> OfPool {
        OfPool {
            boot,
            epoch: Epoch(9),
            generation: 0,
            count: 20,
            pgs: OfPool::bits(20, [0, 9, 19]),
        }
    }

    #[test]
    fn bits_name_pgs() {
        let value = sample_pool(1);
        assert_eq!(value.pgs, "010208");
        let has: Vec<u32> = (0..40).filter(|&number| value.has(number)).collect();
        assert_eq!(has, [0, 9, 19]);
        let broken = OfPool {
            pgs: "é1".to_owned(),
            ..value
        };
        assert!((0..40).all(|number| !broken.has(number)));
    }

    #[test]
    fn only_whole_testimonies_of_one_start_are_heard() {
        let mut witnesses = Witnesses::default();
        let osd = OsdId(4);
        let images = OfImages {
            boot: 1,
            images: [("2000000000007".to_owned(), 12)].into(),
        };
        let told = [
            kv(pool(osd, PoolId(2)), &sample_pool(1)),
            kv(images_key(osd), &images),
            kv(head(osd), &sample_head(1)),
        ];
        for (index, event) in told.into_iter().enumerate() {
            let events = vec![event];
            witnesses.apply(&Notice::Changes { revision: 5, events }, 4);
            assert_eq!(witnesses.heard(0).count(), index / 2);
        }
        let image = ImageId::new(PoolId(2), 7);
        assert_eq!(witnesses.of_images(witnesses.heard(0)), [(image, 12)].into());
        assert_eq!(witnesses.of_pool(osd, PoolId(2)), Some(&sample_pool(1)));
        assert_eq!((witnesses.heard(4).count(), witnesses.heard(5).count()), (1, 0));
        // It started again: what it said before does not count.
        let events = vec![kv(head(osd), &sample_head(2))];
        witnesses.apply(&Notice::Changes { revision: 6, events }, 4);
        assert_eq!(witnesses.heard(0).count(), 0);
    }

    fn images_key(osd: OsdId) -> String {
        images(osd, 0)
    }
}
