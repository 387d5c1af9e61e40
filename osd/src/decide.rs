//! Peering's decision: what every member of the acting set must have, given what everybody who was asked has.
//!
//! A pure function of listings. In a replicated pool an acknowledged write is on every member of its acting set, so
//! the newest version that any *authority* lists, a member of some set that acted since the PG was last clean, is at
//! least as new as the last acknowledged one; it becomes the object's version on all of the acting set. What only others
//! have was deleted, or never acknowledged, while they were away: it goes.

use std::collections::{BTreeMap, BTreeSet};

use trivet_core::message::Listed;
use trivet_core::{ObjectId, OsdId, Version};

use crate::options::{Options, mutant};

/// An object that some member of the acting set lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// What all shall have.
    pub newest: Listed,
    /// Who has it; nobody: it is a tombstone that has to be made.
    pub sources: Vec<OsdId>,
    /// Members of the acting set that do not, or whose copy is damaged.
    pub lacking: Vec<OsdId>,
    /// It gets a new version on its way: some member has a later one that does not count.
    pub renew: bool,
    /// All have it, but some copies are damaged.
    pub repair: bool,
}

type Listings = BTreeMap<OsdId, BTreeMap<ObjectId, Listed>>;

/// The objects that are not equal on all of `acting`.
pub(crate) fn decide(
    acting: &[OsdId],
    authorities: &BTreeSet<OsdId>,
    listings: &Listings,
    options: &Options,
) -> BTreeMap<ObjectId, Missing> {
    let counts = listings.iter().filter(|(osd, _)| authorities.contains(osd));
    let newest = newest_versions(counts.map(|(_, listing)| listing), options);
    let everything = newest_versions(listings.values(), options);
    let missing = everything.into_keys().filter_map(|object| {
        let missing = compare(object, newest.get(&object), acting, listings)?;
        Some((object, missing))
    });
    missing.collect()
}

/// What is to be done about one object; nothing if all have the same.
fn compare(object: ObjectId, newest: Option<&Listed>, acting: &[OsdId], listings: &Listings) -> Option<Missing> {
    let version = |osd: &OsdId| listings.get(osd)?.get(&object).map(|listed| listed.version);
    let Some(newest) = newest else {
        let strays: Vec<OsdId> = acting.iter().copied().filter(|osd| version(osd).is_some()).collect();
        let newest = Listed {
            object,
            version: strays.iter().filter_map(version).max()?,
            tombstone: true,
        };
        return Some(Missing {
            newest,
            sources: Vec::new(),
            lacking: acting.to_vec(),
            renew: true,
            repair: false,
        });
    };
    let has = |osd: &OsdId| version(osd) == Some(newest.version);
    let renew = acting.iter().any(|osd| version(osd) > Some(newest.version));
    let lacking: Vec<OsdId> = acting.iter().copied().filter(|osd| renew || !has(osd)).collect();
    (!lacking.is_empty()).then(|| Missing {
        newest: *newest,
        sources: listings.keys().copied().filter(has).collect(),
        lacking,
        renew,
        repair: false,
    })
}

fn newest_versions<'a>(
    listings: impl Iterator<Item = &'a BTreeMap<ObjectId, Listed>>,
    options: &Options,
) -> BTreeMap<ObjectId, Listed> {
    let rank = |version: Version| {
        if mutant!(options, CounterBeforeEpoch) {
            return (version.counter, version.epoch.0);
        }
        (version.epoch.0, version.counter)
    };
    let mut newest: BTreeMap<ObjectId, Listed> = BTreeMap::new();
    for listed in listings.flat_map(BTreeMap::values) {
        let best = newest.entry(listed.object).or_insert(*listed);
        if rank(listed.version) > rank(best.version) {
            *best = *listed;
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{Epoch, ImageId};

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
            tombstone: text.ends_with('x'),
        }
    }

    /// The acting set, listings by OSD (those of OSDs from 10 on are of no authority), and the decision as
    /// "object:version sources->lacking", with a trailing + where the version is renewed.
    type Case<'a> = (&'a [u32], &'a [(u32, &'a str)], &'a str);

    fn run(acting: &[u32], lists: &[(u32, &str)]) -> String {
        let authorities = lists.iter().map(|l| OsdId(l.0)).filter(|osd| osd.0 < 10).collect();
        let acting: Vec<OsdId> = acting.iter().map(|&n| OsdId(n)).collect();
        let listings = lists
            .iter()
            .map(|&(osd, text)| {
                let objects = text.split_whitespace().map(listed).map(|l| (l.object, l)).collect();
                (OsdId(osd), objects)
            })
            .collect();
        let ids = |osds: &[OsdId]| osds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        decide(&acting, &authorities, &listings, &Options::default())
            .values()
            .map(|m| {
                let end = if m.newest.tombstone { "x" } else { "" };
                let number = m.newest.object.number;
                format!(
                    "{number}:{}{end} {}->{}{}",
                    m.newest.version,
                    ids(&m.sources),
                    ids(&m.lacking),
                    if m.renew { "+" } else { "" }
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
            // What only a stray copy has was deleted while its holder was away.
            (&[1, 10], &[(1, ""), (10, "7:1.1")], "7:1.1x ->1,10+"),
            // A later version that no authority has was never acknowledged.
            (&[1, 10], &[(1, "7:1.1"), (10, "7:1.2")], "7:1.1 1->1,10+"),
            // An equal copy is a copy.
            (&[1, 10], &[(1, "7:1.1"), (10, "7:1.1")], ""),
            // A stray copy that does not act does not matter.
            (&[1, 2], &[(1, ""), (2, ""), (10, "7:1.1")], ""),
        ];
        for (acting, lists, expected) in table {
            assert_eq!(run(acting, lists), *expected, "{acting:?} {lists:?}");
        }
    }
}
