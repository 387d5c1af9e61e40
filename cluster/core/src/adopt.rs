//! Adopting a metadata store that is older than the data, after a restore that somebody wanted: what is to be written so
//! that the OSDs take it for theirs, and no data is lost or given to another image.
//!
//! Which copies are the newest the store does not know. So every OSD is asked that has anything of a PG, and every copy
//! counts: the history of each PG names each such OSD as an active set of its own, in an epoch above all that were ever
//! accepted. Then the next primary waits until it has heard all of them, and of each object the newest version wins.
//! Nothing of it is at once: nobody claims anything before the last step, and all of them may be taken again.

use std::collections::BTreeSet;

use crate::ids::{Epoch, ImageId, OBJECT_SIZE, OsdId, PgId, PoolId};
use crate::keys::{self, History, Interval, OsdConfig, Plan, Pool};
use crate::kv::{Change, Compare, Revision, Txn};
use crate::map::{ClusterMap, Versioned, encode};
use crate::mark::{Halted, Mark, Marks};
use crate::time::Now;
use crate::witness::{Head, OfPool, Witnesses};

/// Histories that are written at once, and OSDs that can be given up at once.
const AT_ONCE: usize = 45;

/// Marks that are left out: an OSD that was given up may have seen some that nobody else did, and must not take the store
/// for older when it is started after all.
const SKIPPED_MARKS: u64 = 1000;

/// Epochs that are left out: those that were claimed in that time, and that no member accepted.
const SKIPPED_EPOCHS: u64 = 1 << 20;

/// Image numbers that are left out: those that were given in the time that the store does not know of.
const SKIPPED_NUMBERS: u64 = 1 << 32;

/// Beside these, so many for each mark that ever was, and up to 65,535 times as many more by the draw of the new one: a store
/// that is put back once more, to before an adoption, knows nothing of the numbers that this one skipped, and the OSDs may
/// not have kept its mark yet.
const NUMBERS_PER_MARK: u64 = 1 << 16;

/// Image numbers have 48 bits.
const MAX_NUMBER: u64 = 1 << 48;

/// What an adoption rests on.
#[derive(Clone, Copy, Debug)]
pub struct Adoption<'a> {
    /// The mirror of the store.
    pub map: &'a ClusterMap,
    /// What the OSDs have.
    pub witnesses: &'a Witnesses,
    /// OSDs that are given up, with all that they have.
    pub without: &'a BTreeSet<OsdId>,
}

/// Why a store cannot be adopted (now).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// The store is the right one.
    #[error("nothing is halted: the metadata store is the one that the data belongs to")]
    NotHalted,
    /// OSDs have not said what they have.
    #[error("OSD {0} was not heard: start it, or give it up, with all that only it has, by '--without {0}'")]
    NotHeard(OsdId),
    /// It is not known, or it serves.
    #[error("OSD {0} cannot be given up: there is none that is down with this number")]
    NotDown(OsdId),
    /// More than fit into a transaction.
    #[error("{0} OSDs are more than can be given up at once")]
    TooMany(usize),
    /// There are no more of them.
    #[error("there are not enough image numbers left")]
    NoNumbers,
}

impl Adoption<'_> {
    /// Whether everybody was heard who is not given up.
    ///
    /// # Errors
    /// Says who was not, or why there is nothing to adopt.
    pub fn check(&self) -> Result<(), Hindrance> {
        self.halted()?;
        let heard: BTreeSet<OsdId> = self.heard().map(|(osd, _)| osd).collect();
        let members = || self.map.members.keys();
        let is_down = |osd: &&OsdId| !self.map.members.contains_key(*osd) || self.map.is_up(**osd);
        if let Some(&osd) = self.without.iter().find(is_down) {
            return Err(Hindrance::NotDown(osd));
        }
        if self.without.len() > AT_ONCE {
            return Err(Hindrance::TooMany(self.without.len()));
        }
        let mut silent = members().filter(|osd| !heard.contains(osd) && !self.without.contains(osd));
        silent.next().map_or(Ok(()), |osd| Err(Hindrance::NotHeard(*osd)))
    }

    fn halted(&self) -> Result<&Versioned<Halted>, Hindrance> {
        self.map.halted.as_ref().ok_or(Hindrance::NotHalted)
    }

    /// Those who have said what they have, since their present start and this halt, and are not given up.
    pub fn heard(&self) -> impl Iterator<Item = (OsdId, &Head)> {
        let halted = self.map.halted.as_ref().map_or(Revision::MAX, |halted| halted.revision);
        self.witnesses.heard(halted).filter(|(osd, head)| {
            let is_other = |state: &Versioned<keys::OsdState>| state.value.boot != head.boot;
            !self.map.osds.get(osd).is_some_and(is_other) && !self.without.contains(osd)
        })
    }

    /// Images of existing pools that there are objects of, and how many bytes they have at most.
    pub fn images(&self) -> impl Iterator<Item = (ImageId, u64)> {
        let images = self.witnesses.of_images(self.heard()).into_iter();
        let images = images.filter(|(image, _)| self.map.pools.contains_key(&image.pool()));
        images.map(|(image, objects)| (image, objects.saturating_mul(OBJECT_SIZE as u64)))
    }

    /// No image of any OSD that was heard has this number or a higher one.
    #[must_use]
    pub fn free_number(&self) -> u64 {
        self.heard().map(|(_, head)| head.next_image).max().unwrap_or(0)
    }

    /// The next transaction before the last one; none when it is time for that.
    ///
    /// # Errors
    /// As [`Adoption::check`].
    pub fn step(&self) -> Result<Option<Txn>, Hindrance> {
        let halted = self.halted()?.revision;
        let generations = self
            .map
            .pools
            .iter()
            .find_map(|(&id, pool)| self.renew_generation(id, pool));
        let step = generations.or_else(|| self.write_histories());
        Ok(step.map(|mut txn| {
            txn.compare.push(Compare::ModRevision(keys::HALTED.to_owned(), halted));
            txn
        }))
    }

    /// What those who were heard have of a pool.
    fn of_pool(&self, pool: PoolId) -> Vec<(OsdId, &OfPool)> {
        let heard = self.heard().map(|(osd, _)| osd);
        let has = heard.filter_map(|osd| Some((osd, self.witnesses.of_pool(osd, pool)?)));
        has.collect()
    }

    /// OSDs accepted epochs of a later generation of the pool's PGs, and would refuse any of this one.
    fn renew_generation(&self, id: PoolId, pool: &Versioned<Pool>) -> Option<Txn> {
        let latest = self.of_pool(id).iter().map(|(_, has)| has.generation).max()?;
        if latest <= pool.value.generation {
            return None;
        }
        let generation = latest.checked_add(1)?;
        let next = Pool {
            generation,
            pgs_before: Some(pool.value.pg_count),
            pgs_wanted: None,
            ..pool.value.clone()
        };
        let mut compare = vec![Compare::ModRevision(keys::pool(id), pool.revision)];
        let mut changes = vec![Change::put(keys::pool(id), encode(&next))];
        if let Some(plan) = self.map.plan(id) {
            let renewed = Plan {
                generation,
                pgs: plan.value.pgs.clone(),
            };
            compare.push(Compare::ModRevision(keys::plan(id), plan.revision));
            changes.push(Change::put(keys::plan(id), encode(&renewed)));
        }
        Some(Txn { compare, changes })
    }

    /// Some of the histories that do not yet name everybody who has anything.
    fn write_histories(&self) -> Option<Txn> {
        let pools = self.map.pools.keys();
        let due = pools.flat_map(|&pool| self.due_histories(pool));
        let mut txn = Txn::default();
        for (pg, history) in due.take(AT_ONCE) {
            let key = keys::history(pg);
            txn.changes.push(Change::put(key.clone(), encode(&history)));
            txn.compare
                .push(same(key, self.map.histories.get(&pg).map(|h| h.revision)));
        }
        (!txn.changes.is_empty()).then_some(txn)
    }

    /// The histories that PGs of a pool must have, where they have others.
    fn due_histories(&self, pool: PoolId) -> impl Iterator<Item = (PgId, History)> {
        let holders = self.of_pool(pool);
        let accepted = holders.iter().map(|(_, has)| has.epoch).max().unwrap_or_default();
        let floor = Epoch(accepted.0.saturating_add(SKIPPED_EPOCHS));
        let pgs = self.map.pgs().filter(move |pg| pg.pool == pool);
        pgs.filter_map(move |pg| {
            let own = self.map.histories.get(&pg).map(|history| &history.value);
            if own.is_some_and(|own| own.epoch >= floor && *own == history(&holders, pg, own.epoch)) {
                return None;
            }
            let before = own.map_or(Epoch(0), |own| own.epoch);
            let epoch = floor.max(Epoch(before.0.saturating_add(1)));
            Some((pg, history(&holders, pg, epoch)))
        })
    }

    /// The last transaction: with it the store is the right one. `by` is who writes it, drawn at random.
    ///
    /// # Errors
    /// As [`Adoption::check`], and `NoNumbers`.
    pub fn last(&self, by: u64, now: Now) -> Result<Txn, Hindrance> {
        let halted = Compare::ModRevision(keys::HALTED.to_owned(), self.halted()?.revision);
        let map = self.map;
        let marks = self.heard().filter_map(|(_, head)| head.mark).map(|mark| mark.count);
        let marks = marks.chain(map.mark.as_ref().map(|marks| marks.value.latest().count));
        let count = marks.max().unwrap_or(0).saturating_add(SKIPPED_MARKS);
        let mark = Mark::made(count, by, now);
        let mut txn = Txn {
            compare: vec![halted, same_as(keys::MARK, map.mark.as_ref())],
            changes: vec![
                Change::Delete(keys::HALTED.to_owned()),
                Change::put(keys::MARK, encode(&Marks::first(mark))),
            ],
        };
        self.skip_numbers(mark, &mut txn)?;
        for &osd in self.without {
            txn.changes.push(Change::Delete(keys::osd_config(osd)));
        }
        let strangers = self.heard().filter(|(osd, _)| !map.members.contains_key(osd));
        for (osd, head) in strangers.take(AT_ONCE) {
            let config = OsdConfig {
                size: head.size,
                ..OsdConfig::default()
            };
            txn.compare.push(Compare::Absent(keys::osd_config(osd)));
            txn.changes.push(Change::put(keys::osd_config(osd), encode(&config)));
        }
        Ok(txn)
    }

    /// Numbers of images and pools that were given in the time that the store does not know of are not given again.
    fn skip_numbers(&self, mark: Mark, txn: &mut Txn) -> Result<(), Hindrance> {
        let map = self.map;
        if let Some(next) = &map.next_image {
            let skipped = next.value.max(self.free_number()).checked_add(skipped(mark));
            let skipped = skipped.filter(|next| *next <= MAX_NUMBER).ok_or(Hindrance::NoNumbers)?;
            txn.compare.push(same_as(keys::NEXT_IMAGE, Some(next)));
            txn.changes.push(Change::put(keys::NEXT_IMAGE, encode(&skipped)));
        }
        let known = self.heard().map(|(_, head)| head.next_pool).max().unwrap_or(0);
        if map.next_pool.as_ref().map_or(1, |next| next.value) < known {
            txn.compare.push(same_as(keys::NEXT_POOL, map.next_pool.as_ref()));
            txn.changes.push(Change::put(keys::NEXT_POOL, encode(&known)));
        }
        Ok(())
    }
}

/// How many image numbers are left out.
fn skipped(mark: Mark) -> u64 {
    let marks = mark.count.saturating_add(u64::from(mark.draw & 0xffff));
    marks.saturating_mul(NUMBERS_PER_MARK).saturating_add(SKIPPED_NUMBERS)
}

/// Each OSD that has anything of the PG is to be heard.
fn history(holders: &[(OsdId, &OfPool)], pg: PgId, epoch: Epoch) -> History {
    let holders = holders.iter().filter(|(_, has)| has.has(pg.number));
    let intervals = holders.map(|(osd, _)| Interval {
        epoch,
        acting: vec![*osd],
        active: true,
        of: None,
    });
    History {
        epoch,
        intervals: intervals.collect(),
    }
}

/// The key is as the mirror has it.
fn same_as<T>(key: &str, known: Option<&Versioned<T>>) -> Compare {
    same(key.to_owned(), known.map(|known| known.revision))
}

fn same(key: String, revision: Option<Revision>) -> Compare {
    match revision {
        Some(revision) => Compare::ModRevision(key, revision),
        None => Compare::Absent(key),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keys::{OsdState, PgPlan};
    use crate::kv::{KeyValue, Notice};
    use crate::witness::{self, OfImages};

    const POOL: PoolId = PoolId(1);

    fn kv(key: impl Into<String>, value: Bytes) -> KeyValue {
        KeyValue {
            key: key.into(),
            value,
            mod_revision: 7,
        }
    }

    /// A store with a pool of two PGs on OSDs 1 and 2, and OSD 3 that was down: as of mark 5 and image number 10.
    fn store() -> Vec<KeyValue> {
        let pool = Pool {
            pg_count: 2,
            ..Pool::default()
        };
        let on = PgPlan {
            osds: vec![OsdId(1), OsdId(2)],
            primary: Some(OsdId(1)),
        };
        let plan = Plan {
            generation: 0,
            pgs: vec![on.clone(), on],
        };
        let halted = Halted {
            reason: "mark 5 < 9".to_owned(),
            by: OsdId(2),
        };
        let mark = Mark { count: 5, draw: 1 };
        let mut keys = vec![
            kv(keys::pool(POOL), encode(&pool)),
            kv(keys::plan(POOL), encode(&plan)),
            kv(keys::HALTED, encode(&halted)),
            kv(keys::MARK, encode(&Marks::first(mark))),
            kv(keys::NEXT_IMAGE, encode(&10_u64)),
        ];
        for osd in 1..=3 {
            keys.push(kv(keys::osd_config(OsdId(osd)), encode(&OsdConfig::default())));
        }
        for osd in 1..=2 {
            let state = OsdState {
                boot: u64::from(osd),
                size: 1,
                address: None,
            };
            keys.push(kv(keys::osd_state(OsdId(osd)), encode(&state)));
        }
        keys
    }

    /// What an OSD testifies that saw mark 9, accepted this epoch in this generation, and has objects of these PGs.
    fn testimony(osd: u32, epoch: u64, generation: u16, pgs: &[u32]) -> Vec<KeyValue> {
        let boot = u64::from(osd);
        let head = Head {
            boot,
            size: 1 << 30,
            mark: Some(Mark { count: 9, draw: 3 }),
            next_image: 12,
            next_pool: 2,
            pools: vec![POOL],
            parts: 1,
        };
        let of_pool = OfPool {
            boot,
            epoch: Epoch(epoch),
            generation,
            count: 2,
            pgs: OfPool::bits(2, pgs.iter().copied()),
        };
        let of_images = OfImages {
            boot,
            images: [(ImageId::new(POOL, 11).to_string(), u64::from(osd))].into(),
        };
        let rows = [
            kv(witness::head(OsdId(osd)), encode(&head)),
            kv(witness::pool(OsdId(osd), POOL), encode(&of_pool)),
            kv(witness::images(OsdId(osd), 0), encode(&of_images)),
        ];
        let after_the_halt = |row| KeyValue { mod_revision: 8, ..row };
        rows.into_iter().map(after_the_halt).collect()
    }

    /// The mirrors of a store with these keys.
    fn mirrors(keys: Vec<KeyValue>) -> (ClusterMap, Witnesses) {
        let notice = Notice::Snapshot { revision: 9, keys };
        let (mut map, mut witnesses) = (ClusterMap::default(), Witnesses::default());
        map.apply(&notice);
        witnesses.apply(&notice, 0);
        (map, witnesses)
    }

    /// The store after a transaction; what it compares is as the mirror has it.
    fn after(mut keys: Vec<KeyValue>, txn: &Txn) -> Vec<KeyValue> {
        for change in &txn.changes {
            keys.retain(|kv| kv.key != change.key());
            if let Change::Put { key, value, .. } = change {
                keys.push(kv(key.clone(), value.clone()));
            }
        }
        keys
    }

    fn check(keys: Vec<KeyValue>, without: &[u32]) -> Result<(), Hindrance> {
        let (map, witnesses) = mirrors(keys);
        let without = without.iter().copied().map(OsdId).collect();
        Adoption {
            map: &map,
            witnesses: &witnesses,
            without: &without,
        }
        .check()
    }

    #[test]
    fn everybody_is_heard_or_given_up() {
        let two = [store(), testimony(1, 4, 0, &[0]), testimony(2, 6, 0, &[1])].concat();
        let three = [two.clone(), testimony(3, 2, 0, &[])].concat();
        let right: Vec<KeyValue> = three.iter().filter(|kv| kv.key != keys::HALTED).cloned().collect();
        let of_a_backup = testimony(3, 2, 0, &[])
            .into_iter()
            .map(|row| KeyValue { mod_revision: 6, ..row });
        let old = [two.clone(), of_a_backup.collect()].concat();
        let table = [
            (old, vec![], Err(Hindrance::NotHeard(OsdId(3)))),
            (store(), vec![], Err(Hindrance::NotHeard(OsdId(1)))),
            (two.clone(), vec![], Err(Hindrance::NotHeard(OsdId(3)))),
            (two.clone(), vec![3], Ok(())),
            (two.clone(), vec![2], Err(Hindrance::NotDown(OsdId(2)))),
            (two, vec![9], Err(Hindrance::NotDown(OsdId(9)))),
            (three, vec![], Ok(())),
            (right, vec![], Err(Hindrance::NotHalted)),
        ];
        for (keys, without, expected) in table {
            assert_eq!(check(keys, &without), expected, "{without:?}");
        }
    }

    /// Takes all steps and the last one; says how the map is then.
    fn adopt(mut keys: Vec<KeyValue>, without: &[u32]) -> ClusterMap {
        let without: BTreeSet<OsdId> = without.iter().copied().map(OsdId).collect();
        for _ in 0..10 {
            let (map, witnesses) = mirrors(keys.clone());
            let adoption = Adoption {
                map: &map,
                witnesses: &witnesses,
                without: &without,
            };
            let Some(txn) = adoption.step().unwrap() else {
                let last = adoption.last(77, Now(1)).unwrap();
                return mirrors(after(keys, &last)).0;
            };
            keys = after(keys, &txn);
        }
        panic!("it never ends")
    }

    #[test]
    fn histories_name_everybody_who_has_anything() {
        let all = [
            store(),
            testimony(1, 4, 0, &[0]),
            testimony(2, 6, 0, &[0, 1]),
            testimony(4, 3, 0, &[1]),
        ];
        let map = adopt(all.concat(), &[3]);
        let epoch = Epoch(6 + SKIPPED_EPOCHS);
        let named = |number: u32| {
            let history = &map.histories[&PgId::first(POOL, number)].value;
            assert_eq!(history.epoch, epoch);
            assert!(history.intervals.iter().all(|i| i.active && i.epoch == epoch));
            let acting = history.intervals.iter().map(|interval| interval.acting.clone());
            acting
                .map(|acting| acting.iter().map(|osd| osd.0).collect())
                .collect::<Vec<Vec<u32>>>()
        };
        assert_eq!(named(0), [[1], [2]]);
        assert_eq!(named(1), [[2], [4]]);
        assert!(map.halted.is_none());
        let marks = &map.mark.unwrap().value;
        assert_eq!(marks.latest().count, 9 + SKIPPED_MARKS);
        assert_eq!(marks.contradiction(Mark { count: 9, draw: 3 }), None);
        let first = skipped(marks.latest());
        assert_eq!(map.next_image.unwrap().value, 12 + first);
        let again = skipped(Mark::made(9 + SKIPPED_MARKS, 77, Now(2)));
        assert!(again.abs_diff(first) >= NUMBERS_PER_MARK, "{again} {first}");
        let members: Vec<u32> = map.members.keys().map(|osd| osd.0).collect();
        assert_eq!(members, [1, 2, 4], "3 is given up, and 4 came after the backup");
    }

    #[test]
    fn pgs_of_a_later_generation_are_over() {
        let all = [store(), testimony(1, 4, 3, &[0]), testimony(2, 6, 2, &[1])];
        let map = adopt(all.concat(), &[3]);
        assert_eq!(map.pools[&POOL].value.generation, 4);
        assert_eq!(map.plan(POOL).unwrap().value.generation, 4);
        assert!(map.pgs().all(|pg| map.histories.contains_key(&pg)));
    }

    #[test]
    fn images_have_the_size_of_their_data() {
        let (map, witnesses) = mirrors([store(), testimony(1, 4, 0, &[0]), testimony(2, 6, 0, &[1])].concat());
        let adoption = Adoption {
            map: &map,
            witnesses: &witnesses,
            without: &BTreeSet::new(),
        };
        let images: Vec<(ImageId, u64)> = adoption.images().collect();
        assert_eq!(images, [(ImageId::new(POOL, 11), 2 * OBJECT_SIZE as u64)]);
        assert_eq!(adoption.free_number(), 12);
    }
}
