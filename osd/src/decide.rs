//! Peering's decision: what every member of the acting set must have, given what everybody who was asked has.
//!
//! A pure function of listings. In a replicated pool an acknowledged write is on every member of its acting set, so
//! the newest version that any asked member lists is at least as new as the last acknowledged one; it becomes the
//! object's version on all of the acting set.

use std::collections::BTreeMap;

use trivet_core::message::Listed;
use trivet_core::{ObjectId, OsdId};

/// An object that some member of the acting set lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The newest version, as listed.
    pub newest: Listed,
    /// Who has it.
    pub sources: Vec<OsdId>,
    /// Members of the acting set that do not.
    pub lacking: Vec<OsdId>,
}

/// The objects that are not equal on all of `acting`.
pub(crate) fn decide(
    acting: &[OsdId],
    listings: &BTreeMap<OsdId, BTreeMap<ObjectId, Listed>>,
) -> BTreeMap<ObjectId, Missing> {
    let mut missing = BTreeMap::new();
    for (object, newest) in newest_versions(listings) {
        let has = |osd: &OsdId| {
            listings
                .get(osd)
                .and_then(|l| l.get(&object))
                .is_some_and(|l| l.version == newest.version)
        };
        let lacking: Vec<OsdId> = acting.iter().copied().filter(|osd| !has(osd)).collect();
        if !lacking.is_empty() {
            let sources = listings.keys().copied().filter(has).collect();
            missing.insert(
                object,
                Missing {
                    newest,
                    sources,
                    lacking,
                },
            );
        }
    }
    missing
}

fn newest_versions(listings: &BTreeMap<OsdId, BTreeMap<ObjectId, Listed>>) -> BTreeMap<ObjectId, Listed> {
    let mut newest: BTreeMap<ObjectId, Listed> = BTreeMap::new();
    for listed in listings.values().flat_map(BTreeMap::values) {
        let best = newest.entry(listed.object).or_insert(*listed);
        if listed.version > best.version {
            *best = *listed;
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{Epoch, ImageId, OpId, UnitMask, Version};

    /// "object:epoch.counter" with a trailing x for a tombstone.
    fn listed(text: &str) -> Listed {
        let (number, version) = text.trim_end_matches('x').split_once(':').unwrap();
        let (epoch, counter) = version.split_once('.').unwrap();
        Listed {
            object: ObjectId {
                image: ImageId(1),
                number: number.parse().unwrap(),
            },
            version: Version {
                epoch: Epoch(epoch.parse().unwrap()),
                counter: counter.parse().unwrap(),
            },
            op: OpId::default(),
            present: UnitMask::ALL,
            tombstone: text.ends_with('x'),
        }
    }

    /// The acting set, listings by OSD, and the decision as "object:version sources->lacking".
    type Case<'a> = (&'a [u32], &'a [(u32, &'a str)], &'a str);

    fn run(acting: &[u32], lists: &[(u32, &str)]) -> String {
        let acting: Vec<OsdId> = acting.iter().map(|&n| OsdId(n)).collect();
        let listings = lists
            .iter()
            .map(|&(osd, text)| {
                let objects = text.split_whitespace().map(listed).map(|l| (l.object, l)).collect();
                (OsdId(osd), objects)
            })
            .collect();
        let ids = |osds: &[OsdId]| osds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        decide(&acting, &listings)
            .values()
            .map(|m| {
                let end = if m.newest.tombstone { "x" } else { "" };
                let number = m.newest.object.number;
                format!(
                    "{number}:{}{end} {}->{}",
                    m.newest.version,
                    ids(&m.sources),
                    ids(&m.lacking)
                )
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn golden() {
        let table: &[Case] = &[
            (&[1, 2], &[(1, ""), (2, "")], ""),
            (&[1, 2], &[(1, "7:1.1"), (2, "7:1.1")], ""),
            (&[1, 2], &[(1, "7:1.2"), (2, "7:1.1")], "7:1.2 1->2"),
            (&[1, 2], &[(1, "7:1.1"), (2, "")], "7:1.1 1->2"),
            // A later epoch beats a larger counter of an earlier one.
            (&[1, 2], &[(1, "7:1.900"), (2, "7:2.1")], "7:2.1 2->1"),
            // A deletion that one member missed does not come back.
            (&[1, 2], &[(1, "7:3.1x"), (2, "7:2.9")], "7:3.1x 1->2"),
            // Only a former member has it.
            (
                &[1, 2],
                &[(1, ""), (2, ""), (3, "4:1.1 5:2.1")],
                "4:1.1 3->1,2; 5:2.1 3->1,2",
            ),
            // What former members lack does not matter.
            (&[1, 2], &[(1, "7:1.1"), (2, "7:1.1"), (3, "")], ""),
            (&[2], &[(1, "7:1.3"), (2, "7:1.2 8:1.1")], "7:1.3 1->2"),
        ];
        for (acting, lists, expected) in table {
            assert_eq!(run(acting, lists), *expected, "{acting:?} {lists:?}");
        }
    }
}
