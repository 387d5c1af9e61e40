//! What the store knows about its objects, in memory.
//!
//! Entries live in a slab of stable numbers, so that lists of entries to settle or to checkpoint are lists
//! of numbers, and are found through a hash table of those numbers.

use hashbrown::HashTable;
use trivet_core::mutation::Ops;
use trivet_core::{Numbering, ObjectId, PgId, PoolId, UNITS_PER_OBJECT, UnitMask, Version};

use crate::api::ObjectInfo;
use crate::groups::Groups;
use crate::ops::Remembered;
use crate::record::{NO_SLOT, WriteHead};

/// Entries of one slab chunk; chunks never move.
const CHUNK: usize = 4096;

/// Of an entry whose pool's numbering is not known.
const NO_PLACE: u32 = u32::MAX;

/// Where the units of an object that are in the log are: blocks of the ring.
pub type LogBlocks = [u32; UNITS_PER_OBJECT];

/// One object. 216 bytes.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which object.
    pub object: ObjectId,
    /// Its version.
    pub version: Version,
    /// The client operations that it remembers.
    pub ops: Remembered,
    /// The units that are written.
    pub present: UnitMask,
    /// Those of them whose newest contents are in the log; the others are in the slot.
    pub in_log: UnitMask,
    slot: u32,
    /// Its place in the list of its PG.
    place: u32,
    /// It is in use.
    live: bool,
    /// It is deleted.
    pub tombstone: bool,
    /// Its number is in the list of entries to checkpoint.
    dirty: bool,
    /// Its number is in the list of entries to settle.
    listed: bool,
    /// The sums of the units that are present.
    pub sums: [u32; UNITS_PER_OBJECT],
    blocks: Option<Box<LogBlocks>>,
}

impl Entry {
    fn new(object: ObjectId) -> Entry {
        Entry {
            object,
            version: Version::NONE,
            ops: Remembered::EMPTY,
            present: UnitMask::EMPTY,
            in_log: UnitMask::EMPTY,
            slot: NO_SLOT,
            place: NO_PLACE,
            live: true,
            tombstone: false,
            dirty: false,
            listed: false,
            sums: [0; UNITS_PER_OBJECT],
            blocks: None,
        }
    }

    /// An entry as a checkpoint has it, without sums and log blocks.
    pub fn restored(head: &WriteHead, ops: Remembered, present: UnitMask) -> Entry {
        let mut entry = Entry::new(head.object);
        (entry.ops, entry.present) = (ops, present);
        entry.become_version(head);
        entry
    }

    /// Changes everything but which lists the number is in.
    fn become_other(&mut self, mut other: Entry) {
        (other.dirty, other.listed, other.place) = (self.dirty, self.listed, self.place);
        *self = other;
    }

    /// Takes over all of a write but its patches.
    pub fn begin(&mut self, head: &WriteHead, ops: &Ops) {
        self.ops.apply(ops);
        self.become_version(head);
    }

    fn become_version(&mut self, head: &WriteHead) {
        self.version = head.version;
        self.tombstone = head.tombstone;
        self.slot = head.slot.unwrap_or(NO_SLOT);
        self.present = self.present.minus(head.zero);
        self.leave_log(head.zero);
    }

    /// `sums` are those of the units from `first`, which are in the slot now.
    pub fn put_in_slot(&mut self, first: usize, sums: &[u32]) {
        self.put(first, sums);
        self.leave_log(UnitMask::range(first, sums.len()));
    }

    /// `sums` are those of the units from `first`, which are in the log from `block` on now.
    pub fn put_in_log(&mut self, first: usize, sums: &[u32], block: u32) {
        self.put(first, sums);
        for (unit, block) in (first..first + sums.len()).zip(block..) {
            self.enter_log(unit, block);
        }
    }

    /// One unit is in the log at `block`.
    pub fn enter_log(&mut self, unit: usize, block: u32) {
        self.blocks.get_or_insert_with(|| Box::new([0; UNITS_PER_OBJECT]))[unit] = block;
        self.in_log = self.in_log.union(UnitMask::range(unit, 1));
    }

    fn put(&mut self, first: usize, sums: &[u32]) {
        self.sums[first..first + sums.len()].copy_from_slice(sums);
        self.present = self.present.union(UnitMask::range(first, sums.len()));
    }

    /// The units are not in the log any more.
    pub fn leave_log(&mut self, units: UnitMask) {
        self.in_log = self.in_log.minus(units);
        if self.in_log.is_empty() {
            self.blocks = None;
        }
    }

    /// The block of the ring that holds a unit that is in the log.
    pub fn block(&self, unit: usize) -> Option<u32> {
        self.blocks
            .as_ref()
            .filter(|_| self.in_log.has(unit))
            .map(|blocks| blocks[unit])
    }

    /// The object's slot.
    pub fn slot(&self) -> Option<u32> {
        Some(self.slot).filter(|&slot| slot != NO_SLOT)
    }

    /// A fingerprint of all that replicas have in common.
    pub fn digest(&self) -> u64 {
        let Version { epoch, counter } = self.version;
        let state = [epoch.0, counter, u64::from(self.tombstone), u64::from(self.present.0)];
        let sums = self.present.iter().map(|unit| u64::from(self.sums[unit]));
        let ops = self.ops.iter().flat_map(|op| [op.client.0, op.sequence]);
        state.into_iter().chain(sums).chain(ops).fold(1, mix)
    }

    /// What the OSD may know of it.
    pub fn info(&self) -> ObjectInfo {
        ObjectInfo {
            version: self.version,
            present: self.present,
            tombstone: self.tombstone,
        }
    }
}

/// All objects.
#[derive(Debug)]
pub struct Index {
    table: HashTable<u32>,
    chunks: Vec<Vec<Entry>>,
    free: Vec<u32>,
    /// Makes places in the table unpredictable to those who choose object numbers.
    seed: u64,
    /// Entries that changed since they were last written to a checkpoint, each once.
    dirty: Vec<u32>,
    /// Entries that entered the log since the list was last taken, each once.
    logged: Vec<u32>,
    /// Objects that were forgotten since the list was last taken.
    removed: Vec<ObjectId>,
    /// Operations that all objects remember.
    ops: usize,
    groups: Groups,
}

/// One step of the fingerprint: a multiplication by odd constants, folded.
fn mix(hash: u64, word: u64) -> u64 {
    let x = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn hash(seed: u64, object: ObjectId) -> u64 {
    let mut x = (seed ^ object.image.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ object.number;
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x ^ (x >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// No objects.
    pub fn new(store: &[u8; 16]) -> Index {
        let seed = store
            .iter()
            .fold(0u64, |seed, &byte| seed.rotate_left(8) ^ u64::from(byte));
        Index {
            table: HashTable::new(),
            chunks: Vec::new(),
            free: Vec::new(),
            seed,
            dirty: Vec::new(),
            logged: Vec::new(),
            removed: Vec::new(),
            ops: 0,
            groups: Groups::default(),
        }
    }

    /// How many objects, tombstones included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// How many operations all objects remember.
    pub fn ops(&self) -> usize {
        self.ops
    }

    /// One more than the largest entry number in use.
    pub fn end(&self) -> u32 {
        let entries = self
            .chunks
            .last()
            .map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len());
        u32::try_from(entries).expect("fewer than 2^32 objects")
    }

    /// The number of an object's entry.
    pub fn find(&self, object: ObjectId) -> Option<u32> {
        let same = |&number: &u32| self.raw(number).object == object;
        self.table.find(hash(self.seed, object), same).copied()
    }

    /// An object's entry.
    pub fn get(&self, object: ObjectId) -> Option<&Entry> {
        self.find(object).map(|number| self.raw(number))
    }

    /// The entry of that number, if it is in use.
    pub fn entry(&self, number: u32) -> Option<&Entry> {
        Some(self.raw(number)).filter(|entry| entry.live)
    }

    fn raw(&self, number: u32) -> &Entry {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn raw_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// Changes the object's entry, which is made if there is none.
    pub fn change(&mut self, object: ObjectId, change: impl FnOnce(&mut Entry)) {
        let number = self.find(object).unwrap_or_else(|| self.add(object));
        let entry = self.raw_mut(number);
        let before = entry.ops.len();
        change(entry);
        let after = entry.ops.len();
        self.ops = self.ops + after - before;
        self.note(number);
    }

    /// Puts an entry in the place of the object's one.
    pub fn restore(&mut self, entry: Entry) {
        self.change(entry.object, |old| old.become_other(entry));
    }

    /// Puts the entry onto the lists that it belongs to.
    fn note(&mut self, number: u32) {
        let entry = self.raw_mut(number);
        let dirty = !std::mem::replace(&mut entry.dirty, true);
        let listed = !entry.in_log.is_empty() && !std::mem::replace(&mut entry.listed, true);
        if dirty {
            self.dirty.push(number);
        }
        if listed {
            self.logged.push(number);
        }
    }

    fn add(&mut self, object: ObjectId) -> u32 {
        let number = if let Some(number) = self.free.pop() {
            self.raw_mut(number).become_other(Entry::new(object));
            number
        } else {
            if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            let number = self.end();
            self.chunks.last_mut().expect("just made").push(Entry::new(object));
            number
        };
        let (chunks, seed) = (&self.chunks, self.seed);
        let rehash = |&n: &u32| hash(seed, chunks[n as usize / CHUNK][n as usize % CHUNK].object);
        self.table.insert_unique(hash(seed, object), number, rehash);
        self.add_to_group(number);
        number
    }

    fn add_to_group(&mut self, number: u32) {
        let place = self.groups.add(self.raw(number).object, number);
        self.raw_mut(number).place = place.unwrap_or(NO_PLACE);
    }

    fn remove_from_group(&mut self, number: u32) {
        let Entry { object, place, .. } = *self.raw(number);
        if place != NO_PLACE
            && let Some(moved) = self.groups.remove(object, place)
        {
            self.raw_mut(moved).place = place;
        }
    }

    /// How a pool's PGs are numbered, as far as this store knows.
    pub fn numbering(&self, pool: PoolId) -> Option<Numbering> {
        self.groups.numbering(pool)
    }

    /// The PGs of a pool are numbered so from now on.
    pub fn renumber(&mut self, pool: PoolId, numbering: Numbering) {
        self.groups.renumber(pool, numbering);
        for number in 0..self.end() {
            let is_there = self
                .entry(number)
                .is_some_and(|entry| entry.object.image.pool() == pool);
            if is_there {
                self.add_to_group(number);
            }
        }
    }

    /// The objects of a PG, in an order that only depends on what happened; none if the PG is of another numbering than the
    /// pool's present one.
    pub fn of_pg(&self, pg: PgId) -> impl Iterator<Item = &Entry> {
        self.groups.entries(pg).iter().map(|&number| self.raw(number))
    }

    /// The PGs that have objects here, ascending.
    pub fn pgs(&self) -> impl Iterator<Item = PgId> + '_ {
        self.groups.pgs()
    }

    /// Forgets an object.
    pub fn remove(&mut self, object: ObjectId) {
        let chunks = &self.chunks;
        let same = |&n: &u32| chunks[n as usize / CHUNK][n as usize % CHUNK].object == object;
        let Ok(found) = self.table.find_entry(hash(self.seed, object), same) else {
            return;
        };
        let number = found.remove().0;
        self.remove_from_group(number);
        let entry = self.raw_mut(number);
        entry.live = false;
        entry.leave_log(UnitMask::ALL);
        let forgotten = std::mem::replace(&mut entry.ops, Remembered::EMPTY).len();
        self.ops -= forgotten;
        self.free.push(number);
        self.removed.push(object);
    }

    /// Forgets the object's tombstone if it has this version.
    pub fn forget(&mut self, object: ObjectId, version: Version) {
        if self
            .get(object)
            .is_some_and(|entry| entry.tombstone && entry.version == version)
        {
            self.remove(object);
        }
    }

    /// All objects, in an order that only depends on what happened.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten().filter(|entry| entry.live)
    }

    /// The numbers of all entries that may have units in the log; they may enter the list again.
    pub fn take_logged(&mut self) -> Vec<u32> {
        let list = std::mem::take(&mut self.logged);
        list.iter().for_each(|&number| self.raw_mut(number).listed = false);
        list
    }

    /// Puts an entry back onto that list if it still has units in the log.
    pub fn relist(&mut self, number: u32) {
        let entry = self.raw_mut(number);
        if entry.live && !entry.in_log.is_empty() && !std::mem::replace(&mut entry.listed, true) {
            self.logged.push(number);
        }
    }

    /// The numbers of the entries that changed. Each enters the list again only after [`Index::clean`].
    pub fn take_dirty(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dirty)
    }

    /// Everything is as the checkpoint has it.
    pub fn forget_changes(&mut self) {
        self.take_dirty().into_iter().for_each(|number| self.clean(number));
        self.removed.clear();
    }

    /// The entry is about to be written to a checkpoint as it is now.
    pub fn clean(&mut self, number: u32) {
        self.raw_mut(number).dirty = false;
    }

    /// How many entries changed.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// The objects that were forgotten.
    pub fn take_removed(&mut self) -> Vec<ObjectId> {
        std::mem::take(&mut self.removed)
    }

    /// How many objects were forgotten.
    pub fn removed_len(&self) -> usize {
        self.removed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{Epoch, ImageId};

    fn object(number: u64) -> ObjectId {
        ObjectId {
            image: ImageId(5),
            number,
        }
    }

    fn head(number: u64, counter: u64, tombstone: bool) -> WriteHead {
        let version = Version {
            epoch: Epoch(1),
            counter,
        };
        WriteHead {
            object: object(number),
            version,
            zero: UnitMask::EMPTY,
            tombstone,
            replaces: false,
            slot: Some(1),
        }
    }

    /// Bytes of an object in memory; decision 0003 reckons with them.
    const ENTRY_BYTES: usize = 216;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), ENTRY_BYTES);
    }

    #[test]
    fn units_enter_and_leave_the_log() {
        let mut entry = Entry::new(object(1));
        entry.put_in_log(3, &[7, 8], 100);
        assert_eq!(
            (entry.block(3), entry.block(4), entry.block(5)),
            (Some(100), Some(101), None)
        );
        entry.put_in_slot(4, &[9]);
        assert_eq!(
            (entry.in_log, entry.present, entry.sums[4]),
            (UnitMask(8), UnitMask(0x18), 9)
        );
        let head = WriteHead {
            zero: UnitMask::ALL,
            ..head(1, 2, true)
        };
        entry.begin(&head, &Ops::Exactly(vec![]));
        assert_eq!(
            (entry.in_log, entry.present, entry.block(3)),
            (UnitMask::EMPTY, UnitMask::EMPTY, None)
        );
        assert!(entry.blocks.is_none());
    }

    #[test]
    fn objects_come_and_go() {
        let mut index = Index::new(&[1; 16]);
        for number in 0..10_000 {
            index.change(object(number), |entry| {
                entry.begin(&head(number, 1, number % 2 == 0), &Ops::Exactly(vec![]));
            });
        }
        let version = Version {
            epoch: Epoch(1),
            counter: 1,
        };
        (0..10_000).for_each(|number| index.forget(object(number), version));
        assert_eq!(
            (index.len(), index.iter().count(), index.removed_len()),
            (5000, 5000, 5000)
        );
        assert!(index.get(object(4)).is_none() && index.get(object(5)).is_some());
        index.change(object(4), |entry| {
            entry.begin(&head(4, 9, false), &Ops::Exactly(vec![]))
        });
        assert_eq!((index.len(), index.end()), (5001, 10_000));
    }

    #[test]
    fn each_pg_has_its_objects_whatever_comes_goes_and_is_renumbered() {
        let pool = object(0).image.pool();
        let mut index = Index::new(&[1; 16]);
        let put = |index: &mut Index, numbers: std::ops::Range<u64>| {
            for number in numbers {
                index.change(object(number), |entry| {
                    entry.begin(&head(number, 1, false), &Ops::Exactly(vec![]));
                });
            }
        };
        let check = |index: &Index, numbering: Numbering| {
            let mut found = 0;
            for pg in numbering.pgs(pool) {
                let mut listed: Vec<ObjectId> = index.of_pg(pg).map(|entry| entry.object).collect();
                listed.sort_unstable();
                let all = index.iter().map(|entry| entry.object);
                let mut expected: Vec<ObjectId> = all.filter(|object| object.pg(numbering) == pg).collect();
                expected.sort_unstable();
                assert_eq!(listed, expected, "{pg}");
                assert_eq!(index.pgs().any(|other| other == pg), !listed.is_empty());
                found += listed.len();
            }
            assert_eq!(found, index.len());
        };
        put(&mut index, 0..500);
        let numbering = |generation, count| Numbering { generation, count };
        assert!(index.numbering(pool).is_none() && index.pgs().next().is_none());
        index.renumber(pool, numbering(0, 7));
        check(&index, numbering(0, 7));
        put(&mut index, 500..900);
        (0..700).step_by(3).for_each(|number| index.remove(object(number)));
        put(&mut index, 0..90);
        check(&index, numbering(0, 7));
        index.renumber(pool, numbering(1, 600));
        (0..90).for_each(|number| index.remove(object(number)));
        check(&index, numbering(1, 600));
        assert_eq!(index.of_pg(PgId::first(pool, 1)).count(), 0, "of an earlier numbering");
    }

    #[test]
    fn each_change_is_listed_once() {
        let mut index = Index::new(&[1; 16]);
        index.change(object(1), |entry| entry.put_in_log(0, &[1], 5));
        index.change(object(1), |entry| entry.put_in_log(0, &[2], 6));
        assert_eq!((index.take_dirty(), index.take_logged()), (vec![0], vec![0]));
        index.change(object(1), |entry| entry.put_in_log(0, &[3], 7));
        assert_eq!((index.dirty_len(), index.take_logged()), (0, vec![0]));
        index.clean(0);
        index.change(object(1), |entry| entry.leave_log(UnitMask::ALL));
        assert_eq!((index.take_dirty(), index.take_logged()), (vec![0], vec![]));
    }
}
