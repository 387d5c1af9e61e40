//! Peering's decision: what every member of the acting set must have, given what everybody who was asked has.
//!
//! A pure function of listings. In a replicated pool an acknowledged write is on every member of its acting set, so
//! the newest version that any *authority* lists, a member of some set that acted since the PG was last clean, is at
//! least as new as the last acknowledged one; it becomes the object's version on all of the acting set. What only others
//! have was deleted, or never acknowledged, while they were away: it goes.
//!
//! The first of those sets had all that was ever acknowledged when its epoch began. Who came with a later one may still
//! have, of the time before, what is long deleted: of older versions, only what the first set has counts.

use std::collections::{BTreeMap, BTreeSet};

use trivet_core::keys::{Earlier, History};
use trivet_core::message::Listed;
use trivet_core::{Epoch, ObjectId, OpId, OsdId, Version};

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
    /// Of a tombstone that has to be made: the operations that it remembers.
    pub ops: Vec<OpId>,
    /// It gets a new version on its way: some member has a later one that does not count.
    pub renew: bool,
    /// All have it, but some copies are damaged.
    pub repair: bool,
    /// The newest version was not acknowledged, nor seen by anybody: if no copy of it can be read, this one will do.
    pub fallback: Option<Fallback>,
}

impl Missing {
    /// The object goes everywhere, whoever has it: a tombstone newer than anything takes its place.
    pub(crate) fn deletion(of: Listed, acting: &[OsdId], ops: Vec<OpId>) -> Missing {
        Missing {
            newest: Listed { tombstone: true, ..of },
            sources: Vec::new(),
            lacking: acting.to_vec(),
            ops,
            renew: true,
            repair: false,
            fallback: None,
        }
    }

    /// A member has got it.
    pub(crate) fn now_has(&mut self, osd: OsdId) {
        if !self.is_deletion() && !self.sources.contains(&osd) {
            self.sources.push(osd);
        }
    }

    /// Nobody has the tombstone that all shall have.
    pub(crate) fn is_deletion(&self) -> bool {
        self.sources.is_empty() && self.newest.tombstone
    }
}

/// An older version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fallback {
    /// Which; a tombstone if there is none.
    pub newest: Listed,
    /// Who has it.
    pub sources: Vec<OsdId>,
}

/// Who may know of acknowledged writes: the members of every set that acted since the PG was last clean. Those that acted
/// for a PG of an earlier generation count for the objects of that one alone: of others they may have what is long
/// deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authorities {
    /// Who acted in each epoch, of this PG or of an earlier one.
    acted: BTreeMap<(Epoch, Option<Earlier>), BTreeSet<OsdId>>,
}

impl Authorities {
    /// Those that a history names.
    pub(crate) fn of(history: &History) -> Authorities {
        let mut authorities = Authorities::default();
        for interval in history.intervals.iter().filter(|interval| interval.active) {
            let acted = authorities.acted.entry((interval.epoch, interval.of)).or_default();
            acted.extend(interval.acting.iter().copied());
        }
        authorities
    }

    /// These, for all objects.
    pub(crate) fn everybody(osds: impl Iterator<Item = OsdId>) -> Authorities {
        Authorities {
            acted: BTreeMap::from([((Epoch(0), None), osds.collect())]),
        }
    }

    pub(crate) fn is_nobody(&self) -> bool {
        self.acted.is_empty()
    }

    /// The sets that acted for an object, and in which epochs, ascending.
    fn sets(&self, object: ObjectId) -> impl Iterator<Item = (Epoch, &BTreeSet<OsdId>)> {
        let sets = self.acted.iter().map(|((epoch, of), osds)| (*epoch, *of, osds));
        let sets = sets.filter(move |(_, of, _)| of.is_none_or(|earlier| earlier.has(object)));
        sets.map(|(epoch, _, osds)| (epoch, osds))
    }

    /// Whether a version was surely never acknowledged, nor seen: it is of an epoch that is known, and in that one and in
    /// each later one, when it may have been brought to all, somebody who acted does not have it.
    fn is_unacknowledged(&self, listed: &Listed, listings: &Listings) -> bool {
        let lacks = |osd: &OsdId| listings.get(osd).is_some_and(|listing| is_older(listing, listed));
        let of = listed.version.epoch;
        let mut since = self.sets(listed.object).filter(|(epoch, _)| *epoch >= of).peekable();
        since.peek().is_some_and(|(epoch, _)| *epoch == of) && since.all(|(_, osds)| osds.iter().any(lacks))
    }

    /// What an object was before this version: those know that acted in its epoch and do not have it. When a mutation
    /// begins, the whole acting set has what it rests on.
    fn fallback(&self, listed: &Listed, listings: &Listings) -> Option<Fallback> {
        if !self.is_unacknowledged(listed, listings) {
            return None;
        }
        let acted = self
            .sets(listed.object)
            .filter(|(epoch, _)| *epoch == listed.version.epoch);
        let heard = acted.flat_map(|(_, osds)| osds).filter_map(|osd| listings.get(osd));
        let before = heard.filter(|listing| is_older(listing, listed));
        let older = before.filter_map(|listing| listing.get(&listed.object));
        let Some(newest) = older.max_by_key(|older| older.version) else {
            let newest = Listed {
                tombstone: true,
                ..*listed
            };
            return Some(Fallback {
                newest,
                sources: Vec::new(),
            });
        };
        let has = |osd: &OsdId| listings.get(osd).and_then(|listing| listing.get(&listed.object)) == Some(newest);
        Some(Fallback {
            newest: *newest,
            sources: listings.keys().copied().filter(has).collect(),
        })
    }

    /// Whether what this OSD has of an object counts.
    fn count(&self, osd: OsdId, listed: &Listed) -> bool {
        let mut sets = self.sets(listed.object);
        let Some((first, complete)) = sets.next() else {
            return false;
        };
        complete.contains(&osd) || listed.version.epoch >= first && sets.any(|(_, osds)| osds.contains(&osd))
    }
}

/// Whether somebody who listed this does not have a version, nor a newer one.
fn is_older(listing: &BTreeMap<ObjectId, Listed>, than: &Listed) -> bool {
    listing.get(&than.object).is_none_or(|own| own.version < than.version)
}

type Listings = BTreeMap<OsdId, BTreeMap<ObjectId, Listed>>;

/// The objects that are not equal on all of `acting`.
pub(crate) fn decide(
    acting: &[OsdId],
    authorities: &Authorities,
    listings: &Listings,
    options: &Options,
) -> BTreeMap<ObjectId, Missing> {
    let all = || {
        listings
            .iter()
            .flat_map(|(&osd, listing)| listing.values().map(move |listed| (osd, listed)))
    };
    let counting = all().filter(|(osd, listed)| authorities.count(*osd, listed));
    let newest = newest_versions(counting.map(|(_, listed)| listed), options);
    let everything = newest_versions(all().map(|(_, listed)| listed), options);
    let missing = everything.into_keys().filter_map(|object| {
        let missing = compare(object, newest.get(&object), acting, listings, authorities)?;
        Some((object, missing))
    });
    missing.collect()
}

/// What is to be done about one object; nothing if all have the same.
fn compare(
    object: ObjectId,
    newest: Option<&Listed>,
    acting: &[OsdId],
    listings: &Listings,
    authorities: &Authorities,
) -> Option<Missing> {
    let version = |osd: &OsdId| listings.get(osd)?.get(&object).map(|listed| listed.version);
    let Some(newest) = newest else {
        let strays: Vec<OsdId> = acting.iter().copied().filter(|osd| version(osd).is_some()).collect();
        let newest = Listed {
            object,
            version: strays.iter().filter_map(version).max()?,
            tombstone: true,
        };
        return Some(Missing::deletion(newest, acting, Vec::new()));
    };
    let has = |osd: &OsdId| version(osd) == Some(newest.version);
    let renew = acting.iter().any(|osd| version(osd) > Some(newest.version));
    let lacking: Vec<OsdId> = acting.iter().copied().filter(|osd| renew || !has(osd)).collect();
    (!lacking.is_empty()).then(|| Missing {
        newest: *newest,
        sources: listings.keys().copied().filter(has).collect(),
        lacking,
        ops: Vec::new(),
        renew,
        repair: false,
        fallback: authorities.fallback(newest, listings),
    })
}

fn newest_versions<'a>(listed: impl Iterator<Item = &'a Listed>, options: &Options) -> BTreeMap<ObjectId, Listed> {
    let rank = |version: Version| {
        if mutant!(options, CounterBeforeEpoch) {
            return (version.counter, version.epoch.0);
        }
        (version.epoch.0, version.counter)
    };
    let mut newest: BTreeMap<ObjectId, Listed> = BTreeMap::new();
    for listed in listed {
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
    use trivet_core::ImageId;
    use trivet_core::keys::Interval;

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
        let authorities = Authorities::everybody(lists.iter().map(|l| OsdId(l.0)).filter(|osd| osd.0 < 10));
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

    fn interval(epoch: u64, acting: &[u32], of: Option<(u32, u32)>) -> Interval {
        Interval {
            epoch: Epoch(epoch),
            acting: acting.iter().map(|&osd| OsdId(osd)).collect(),
            active: true,
            of: of.map(|(count, number)| Earlier { count, number }),
        }
    }

    fn decided(intervals: &[Interval], lists: &[(u32, &str)]) -> BTreeMap<u64, Missing> {
        let history = History {
            epoch: Epoch(9),
            intervals: intervals.to_vec(),
        };
        let listing = |text: &str| text.split_whitespace().map(listed).map(|l| (l.object, l)).collect();
        let listings = lists.iter().map(|&(osd, text)| (OsdId(osd), listing(text))).collect();
        let acting = [OsdId(1), OsdId(2)];
        decide(&acting, &Authorities::of(&history), &listings, &Options::default())
            .into_iter()
            .map(|(object, missing)| (object.number, missing))
            .collect()
    }

    #[test]
    fn of_an_earlier_pg_only_those_count_that_acted_for_it() {
        let of = |number: u64| {
            let object = listed(&format!("{number}:1.1")).object;
            (2, object.pg_number(2))
        };
        // Objects 0 and n were in different ones of two PGs.
        let n = (1..).find(|&n| of(n) != of(0)).unwrap();
        let intervals = [interval(3, &[1, 2], Some(of(0))), interval(4, &[3], Some(of(n)))];
        let stale = format!("0:1.1 {n}:4.1");
        let found = decided(&intervals, &[(1, ""), (2, ""), (3, &stale)]);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            [&n],
            "what 3 has of object 0 was deleted"
        );
        assert_eq!(found[&n].newest.version, listed("0:4.1").version);
    }

    #[test]
    fn who_came_later_does_not_bring_back_what_was_deleted_before() {
        let later = [interval(5, &[1], None), interval(6, &[1, 2], None)];
        let found = decided(&later, &[(1, "8:5.3"), (2, "7:1.1 8:6.1")]);
        assert!(found[&7].is_deletion(), "2 has it from before");
        assert_eq!(found[&8].newest.version, listed("8:6.1").version);
        // What was there before and is there still, those know that acted first.
        let found = decided(&later, &[(1, "7:1.1"), (2, "")]);
        assert_eq!(found[&7].newest.version, listed("7:1.1").version);
        // Of several sets that acted for earlier PGs, each was complete for its objects.
        let of = |count, number| Some((count, number));
        let object = listed("7:1.1").object;
        let earlier = of(2, object.pg_number(2));
        let merged = [interval(5, &[1], earlier), interval(9, &[1, 2], None)];
        assert!(decided(&merged, &[(1, ""), (2, "7:4.1")])[&7].is_deletion());
    }

    #[test]
    fn what_was_never_acknowledged_can_be_done_without() {
        let both = [interval(3, &[1, 2], None)];
        let before = [interval(2, &[1, 2], None), interval(3, &[1, 2], None)];
        type Case<'a> = (&'a [Interval], [(u32, &'a str); 2], Option<&'a str>);
        let healed = [interval(3, &[1, 2], None), interval(4, &[1, 3], None)];
        let joined = [interval(5, &[1], None), interval(6, &[1, 2], None)];
        let cases: [Case; 8] = [
            (&both, [(1, "7:3.2"), (2, "7:3.1")], Some("7:3.1 2")),
            (&both, [(1, "7:3.1"), (2, "")], Some("7:3.1x ")),
            (&both, [(1, "7:3.1"), (2, "7:2.5x")], Some("7:2.5x 2")),
            // It may have been acknowledged before the first epoch that is known.
            (&both, [(1, "7:2.2"), (2, "7:2.1")], None),
            (&before, [(1, "7:2.2"), (2, "7:2.1")], Some("7:2.1 2")),
            // In epoch 4 it was brought to 3, and may have been acknowledged there.
            (&healed, [(2, "7:3.1"), (3, "7:3.2")], None),
            // What 2 has of the time before it came is what the write rested on.
            (&joined, [(1, "7:6.1"), (2, "7:1.9")], Some("7:1.9 2")),
            // Only one acted: nobody can contradict.
            (&[interval(3, &[1], None)], [(1, "7:3.2"), (2, "7:2.1")], None),
        ];
        for (intervals, lists, expected) in cases {
            let fallback = decided(intervals, &lists)[&7].fallback.clone().map(|fallback| {
                let end = if fallback.newest.tombstone { "x" } else { "" };
                let sources: Vec<String> = fallback.sources.iter().map(OsdId::to_string).collect();
                format!("7:{}{end} {}", fallback.newest.version, sources.join(","))
            });
            assert_eq!(fallback.as_deref(), expected, "{lists:?}");
        }
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
