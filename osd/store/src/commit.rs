//! Group commit: everything that waits becomes durable with one contiguous write of the log and one flush.
//!
//! One batch is in flight at a time, so a batch in the log proves that all before it were durable. The index
//! changes, and answers are given, only when the flush has completed. What a request may do is decided when
//! it is submitted, against the *projected* object: as it will be when everything queued is durable.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use trivet_core::buffer::aligned;
use trivet_core::mark::{self, Mark};
use trivet_core::mutation::{MAX_OPS, Mutation, Ops};
use trivet_core::{Epoch, ObjectId, PgId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version};

use crate::api::{Changed, Output, Reply, StoreError, Ticket};
use crate::batch::{self, Prefix};
use crate::disk::{BuildMixer, Owner};
use crate::layout::{BLOCK, BLOCK_LEN, Layout};
use crate::mutant::mutant;
use crate::ops;
use crate::policy::{self, MAX_SLOT_BYTES};
use crate::record::{self, WriteHead};
use crate::store::Live;

/// Places in the index that are kept for tombstones, so that deletes go on when nothing else does.
const TOMBSTONE_RESERVE: usize = 512;

/// When nothing was to be done so many times in a row, the last batch is proved.
const QUIET: u32 = 16;

/// What waits for its batch, and the batch in flight.
#[derive(Debug, Default)]
pub struct Commit {
    queue: VecDeque<Pending>,
    flying: Option<Flying>,
    /// Every object as it will be that a queued or flying request changes.
    projected: HashMap<ObjectId, Projected, BuildMixer>,
    /// Epochs that wait.
    epochs: usize,
    /// Operations that may be remembered when everything queued is durable, beyond those that are.
    ops: usize,
    /// The batch that should go next does not fit into the log now.
    pub blocked: bool,
    /// Batches that became durable.
    pub commits: u64,
    /// The last batch has requests, and nothing behind it proves yet that it was durable.
    unproven: bool,
    /// How often nothing was to be done since.
    quiet: u32,
}

#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    record_len: usize,
    /// Units that travel in the batch.
    payload: u64,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Write {
        head: WriteHead,
        mutation: Mutation,
        slot_units: UnitMask,
    },
    Epoch(PgId, Epoch),
    Mark(Mark),
    Forget(ObjectId, Version),
}

#[derive(Debug)]
struct Flying {
    items: Vec<Pending>,
    prefix: Prefix,
    /// Writes that have not completed.
    waiting: usize,
}

/// An object as it will be.
#[derive(Clone, Copy, Debug, Default)]
struct Projected {
    exists: bool,
    version: Version,
    present: UnitMask,
    slot: Option<u32>,
    tombstone: bool,
    /// Requests that wait.
    waiting: usize,
}

impl Commit {
    /// Takes everything that is not answered yet.
    pub fn drain(&mut self) -> impl Iterator<Item = Ticket> + use<> {
        let flying = self.flying.take().map_or_else(Vec::new, |flying| flying.items);
        flying
            .into_iter()
            .chain(std::mem::take(&mut self.queue))
            .map(|pending| pending.ticket)
    }

    fn push(&mut self, ticket: Ticket, record_len: usize, payload: u64, action: Action) {
        self.queue.push_back(Pending {
            ticket,
            record_len,
            payload,
            action,
        });
    }

    fn expect(&mut self, object: ObjectId, projected: Projected) {
        self.projected.insert(
            object,
            Projected {
                waiting: projected.waiting + 1,
                ..projected
            },
        );
    }

    fn fulfil(&mut self, object: ObjectId) {
        let projected = self
            .projected
            .get_mut(&object)
            .expect("a queued request has its object here");
        projected.waiting -= 1;
        if projected.waiting == 0 {
            self.projected.remove(&object);
        }
    }
}

impl Live {
    fn projected(&self, object: ObjectId) -> Projected {
        if let Some(projected) = self.commit.projected.get(&object) {
            return *projected;
        }
        self.index
            .get(object)
            .map_or_else(Projected::default, |entry| Projected {
                exists: true,
                version: entry.version,
                present: entry.present,
                slot: entry.slot(),
                tombstone: entry.tombstone,
                waiting: 0,
            })
    }

    /// The version that the object will have, and whether there will be nothing of it.
    pub fn latest(&self, object: ObjectId) -> (Version, bool) {
        let projected = self.projected(object);
        (projected.version, !projected.exists || projected.tombstone)
    }

    /// Queues a write, or refuses it at once. One that `replaces` may have the version that is there.
    pub fn submit_write(
        &mut self,
        ticket: Ticket,
        object: ObjectId,
        mutation: Mutation,
        replaces: bool,
        out: &mut Output,
    ) {
        assert!(is_well_formed(&mutation), "the OSD submits well-formed mutations");
        assert!(
            !replaces || mutation.zero == UnitMask::ALL,
            "whole objects are replaced"
        );
        debug_assert!(
            mutation.patches.iter().all(|patch| patch.verify(object)),
            "sums do not match"
        );
        let before = self.projected(object);
        match self.admit(object, &mutation, replaces, &before) {
            Ok((slot, slot_units)) => {
                let head = WriteHead::of(object, &mutation, replaces, slot);
                self.queue_write(ticket, head, mutation, before, slot_units);
            }
            Err(error) => out.done.push((ticket, Err(error))),
        }
    }

    /// The slot that the object will have, and the units that go there in parallel with the batch.
    fn admit(
        &mut self,
        object: ObjectId,
        mutation: &Mutation,
        replaces: bool,
        before: &Projected,
    ) -> Result<(Option<u32>, UnitMask), StoreError> {
        let same_is_fine = replaces || mutant!(self.options, EqualVersionOverwrites);
        if mutation.version < before.version || mutation.version == before.version && !same_is_fine {
            return Err(StoreError::StaleVersion {
                object,
                got: mutation.version,
                have: before.version,
            });
        }
        let kept = if mutation.tombstone { 0 } else { TOMBSTONE_RESERVE };
        let entries = self.index.len() + self.commit.projected.len();
        if !before.exists && entries + kept >= self.layout.max_entries() {
            return Err(StoreError::NoSpace);
        }
        if !self.has_room_for_ops(object, &mutation.ops, before) {
            return Err(StoreError::NoSpace);
        }
        if present_after(mutation, before).is_empty() {
            return Ok((None, UnitMask::EMPTY));
        }
        let fresh = policy::fresh_slot_units(mutation, before.slot.is_some());
        match before.slot {
            None => self
                .slots
                .take(false)
                .map(|slot| (Some(slot), fresh))
                .ok_or(StoreError::NoSpace),
            Some(old) if fresh.is_empty() && !replaces => Ok((Some(old), fresh)),
            Some(old) => Ok(self
                .slots
                .take(true)
                .map_or((Some(old), UnitMask::EMPTY), |slot| (Some(slot), fresh))),
        }
    }

    /// New objects that there is room for, in slots and in the index. None if the operations that one may remember
    /// have none.
    pub fn room(&self) -> usize {
        let entries = self.index.len() + self.commit.projected.len() + TOMBSTONE_RESERVE;
        if self.index.ops() + self.commit.ops + MAX_OPS > self.layout.max_ops() {
            return 0;
        }
        let slots = usize::try_from(self.slots.room()).unwrap_or(usize::MAX);
        let entries = self.layout.max_entries().saturating_sub(entries);
        slots.min(entries)
    }

    /// Whether a checkpoint has room for the operations that will be remembered. A list that does not grow always fits.
    fn has_room_for_ops(&self, object: ObjectId, change: &Ops, before: &Projected) -> bool {
        if self.index.ops() + self.commit.ops + ops::growth(change) <= self.layout.max_ops() {
            return true;
        }
        let entry = self.index.get(object).filter(|_| before.waiting == 0);
        entry.is_some_and(|entry| {
            let mut after = entry.ops.clone();
            after.apply(change);
            after.len() <= entry.ops.len()
        })
    }

    fn queue_write(
        &mut self,
        ticket: Ticket,
        head: WriteHead,
        mutation: Mutation,
        before: Projected,
        slot_units: UnitMask,
    ) {
        let WriteHead { object, slot, .. } = head;
        if mutant!(self.options, ReuseSlotEarly) && before.slot != slot {
            before.slot.into_iter().for_each(|old| self.slots.release(old));
        }
        let present = present_after(&mutation, &before);
        let Mutation { version, tombstone, .. } = mutation;
        let after = Projected {
            exists: true,
            version,
            present,
            slot,
            tombstone,
            waiting: before.waiting,
        };
        self.commit.expect(object, after);
        self.commit.ops += ops::growth(&mutation.ops);
        let payload = mutation.payload() / UNIT_SIZE - slot_units.len();
        let record_len = record::write_len(&mutation);
        self.commit.push(
            ticket,
            record_len,
            payload as u64,
            Action::Write {
                head,
                mutation,
                slot_units,
            },
        );
    }

    /// Queues an epoch unless it is durable already.
    pub fn submit_epoch(&mut self, ticket: Ticket, pg: PgId, epoch: Epoch, out: &mut Output) {
        let have = self.epochs.get(pg);
        if self.epochs.is_past(pg) || have.is_some_and(|have| have >= epoch) {
            return out.done.push((ticket, Ok(Reply::Accepted)));
        }
        if mutant!(self.options, ForgetEpoch) {
            self.epochs.accept(pg, epoch);
            return out.done.push((ticket, Ok(Reply::Accepted)));
        }
        let is_full = self.epochs.len() + self.commit.epochs >= self.layout.max_epochs();
        let takes_over = self.commit.epochs == 0 && self.epochs.replaces(pg);
        if have.is_none() && is_full && !takes_over {
            return out.done.push((ticket, Err(StoreError::NoSpace)));
        }
        self.commit.epochs += 1;
        self.commit
            .push(ticket, record::epoch_len(), 0, Action::Epoch(pg, epoch));
    }

    /// Queues a mark unless a later one is durable already.
    pub fn submit_mark(&mut self, ticket: Ticket, mark: Mark, out: &mut Output) {
        if self.mark.is_some_and(|have| have.count >= mark.count) {
            return out.done.push((ticket, Ok(Reply::Kept)));
        }
        self.commit.push(ticket, record::mark_len(), 0, Action::Mark(mark));
    }

    /// Queues the end of a tombstone, if there may be one.
    pub fn submit_forget(&mut self, ticket: Ticket, object: ObjectId, version: Version, out: &mut Output) {
        let before = self.projected(object);
        let matches = before.tombstone && before.version == version;
        if before.waiting == 0 && !matches {
            return out.done.push((ticket, Ok(Reply::Forgotten)));
        }
        let after = if matches {
            Projected {
                waiting: before.waiting,
                ..Projected::default()
            }
        } else {
            before
        };
        self.commit.expect(object, after);
        self.commit
            .push(ticket, record::forget_len(), 0, Action::Forget(object, version));
    }

    /// Starts the next batch unless one is in flight, nothing waits, or the log has no room.
    pub fn start_batch(&mut self, out: &mut Output) {
        if self.commit.flying.is_some() {
            return;
        }
        if self.commit.queue.is_empty() {
            return self.prove_last(out);
        }
        let (count, records_len, blocks) = next_batch(&self.commit.queue, &self.layout);
        let Some(position) = self.ring.place(blocks) else {
            self.commit.blocked = true;
            return;
        };
        self.commit.blocked = false;
        self.fly(position, count, records_len, out);
    }

    /// A trace of the next batch proves that the last one was durable: without one, recovery takes damage to it for a
    /// torn write that nobody was promised. So when nothing more comes an empty batch follows.
    fn prove_last(&mut self, out: &mut Output) {
        self.commit.quiet = self.commit.quiet.saturating_add(1);
        if !self.commit.unproven || self.commit.quiet < QUIET || mutant!(self.options, NeverProve) {
            return;
        }
        if let Some(position) = self.ring.place(1) {
            self.fly(position, 0, 0, out);
        }
    }

    /// Writes a batch of the first `count` requests.
    fn fly(&mut self, position: u64, count: usize, records_len: usize, out: &mut Output) {
        let items: Vec<Pending> = self.commit.queue.drain(..count).collect();
        let header_blocks = batch::header_blocks(records_len);
        let payload: u64 = items.iter().map(|item| item.payload).sum();
        let prefix = Prefix {
            sequence: self.sequence + 1,
            incarnation: self.incarnation,
            position,
            blocks: u32::try_from(header_blocks + payload).expect("batches are small"),
            header_blocks: u32::try_from(header_blocks).expect("batches are small"),
            records: u32::try_from(count).expect("batches are small"),
            records_len: u32::try_from(records_len).expect("batches are small"),
        };
        let data = encode(&prefix, &self.secret, &items);
        let offset = self.layout.log_block(self.ring.block(position));
        self.disk.write(Owner::BatchWrite, offset, data, out);
        let waiting = 1 + items.iter().map(|item| self.write_slot(item, out)).sum::<usize>();
        if mutant!(self.options, AckBeforeBatch) {
            out.done
                .extend(items.iter().map(|item| (item.ticket, Ok(item.action.reply()))));
        }
        (self.commit.unproven, self.commit.quiet) = (count > 0, 0);
        self.commit.flying = Some(Flying { items, prefix, waiting });
    }

    /// Writes those patches of a request that go to its slot; says how many.
    fn write_slot(&mut self, item: &Pending, out: &mut Output) -> usize {
        let Action::Write {
            head: WriteHead { slot: Some(slot), .. },
            mutation,
            slot_units,
        } = &item.action
        else {
            return 0;
        };
        let patches = mutation.patches.iter().filter(|patch| slot_units.has(patch.first));
        let writes = patches.map(|patch| {
            self.disk.write(
                Owner::BatchWrite,
                self.layout.unit(*slot, patch.first),
                patch.data.clone(),
                out,
            );
        });
        writes.count()
    }

    /// One of the batch's writes has completed.
    pub fn batch_written(&mut self, out: &mut Output) {
        let flying = self.commit.flying.as_mut().expect("its writes are in flight");
        flying.waiting -= 1;
        if flying.waiting > 0 {
            return;
        }
        if mutant!(self.options, SkipFlush) {
            return self.batch_durable(out);
        }
        self.disk.flush(Owner::BatchFlush, out);
    }

    /// The batch is durable: the index changes and everybody is answered.
    pub fn batch_durable(&mut self, out: &mut Output) {
        let Flying { items, prefix, .. } = self.commit.flying.take().expect("its flush was in flight");
        self.sequence = prefix.sequence;
        self.ring.head = prefix.end();
        self.commit.commits += u64::from(!items.is_empty());
        let mut payload = self.ring.block(prefix.position) + prefix.header_blocks;
        for item in items {
            out.changed.extend(self.apply(&item.action, payload));
            payload += u32::try_from(item.payload).expect("batches are small");
            if !mutant!(self.options, AckBeforeBatch) {
                out.done.push((item.ticket, Ok(item.action.reply())));
            }
        }
    }

    /// Takes a durable request, whose payload starts at block `payload` of the ring, into the index. Says if other units
    /// of its object are written now.
    fn apply(&mut self, action: &Action, payload: u32) -> Option<Changed> {
        let mut changed = None;
        match action {
            Action::Write {
                head,
                mutation,
                slot_units,
            } => {
                changed = self.apply_write(head, mutation, *slot_units, payload);
                self.commit.fulfil(head.object);
                self.commit.ops -= ops::growth(&mutation.ops);
            }
            Action::Epoch(pg, epoch) => {
                self.epochs.accept(*pg, *epoch);
                self.commit.epochs -= 1;
            }
            Action::Mark(mark) => self.mark = mark::later(self.mark, *mark),
            Action::Forget(object, version) => {
                self.index.forget(*object, *version);
                self.commit.fulfil(*object);
            }
        }
        changed
    }

    fn apply_write(
        &mut self,
        head: &WriteHead,
        mutation: &Mutation,
        slot_units: UnitMask,
        mut payload: u32,
    ) -> Option<Changed> {
        let drops_version = mutant!(self.options, TombstoneDropsVersion);
        let mut freed = None;
        let (mut before, mut after) = (UnitMask::EMPTY, UnitMask::EMPTY);
        self.index.change(head.object, |entry| {
            before = entry.present;
            freed = entry.slot().filter(|&old| Some(old) != head.slot);
            entry.begin(head, &mutation.ops);
            if mutation.tombstone && drops_version {
                entry.version = Version::NONE;
            }
            for patch in &mutation.patches {
                if slot_units.has(patch.first) {
                    entry.put_in_slot(patch.first, &patch.sums);
                } else {
                    entry.put_in_log(patch.first, &patch.sums, payload);
                    payload += u32::try_from(patch.units()).expect("at most 32");
                }
            }
            after = entry.present;
        });
        if !mutant!(self.options, ReuseSlotEarly) {
            freed.into_iter().for_each(|slot| self.slots.release(slot));
        }
        let object = head.object;
        (before != after).then_some(Changed { object, before, after })
    }
}

impl Action {
    /// The answer when it is durable.
    fn reply(&self) -> Reply {
        match self {
            Action::Write { .. } => Reply::Written,
            Action::Epoch(..) => Reply::Accepted,
            Action::Mark(_) => Reply::Kept,
            Action::Forget(..) => Reply::Forgotten,
        }
    }
}

/// Whether the mutation can be written down: patches are whole units, do not overlap, and have a sum per
/// unit; deleted objects have no units; operations are not too many.
fn is_well_formed(mutation: &Mutation) -> bool {
    let mut seen = UnitMask::EMPTY;
    let patches_are = mutation.patches.iter().all(|patch| {
        let units = patch.units();
        let whole = units > 0 && patch.data.len() == units * UNIT_SIZE && patch.sums.len() == units;
        let fits = whole && patch.first + units <= UNITS_PER_OBJECT && !seen.intersects(patch.mask());
        seen = if fits { seen.union(patch.mask()) } else { seen };
        fits
    });
    let ops_are = !matches!(&mutation.ops, Ops::Exactly(ops) if ops.len() > MAX_OPS);
    patches_are && ops_are && (!mutation.tombstone || mutation.zero == UnitMask::ALL && mutation.patches.is_empty())
}

fn present_after(mutation: &Mutation, before: &Projected) -> UnitMask {
    let kept = before.present.minus(mutation.zero);
    mutation
        .patches
        .iter()
        .fold(kept, |mask, patch| mask.union(patch.mask()))
}

/// How many requests make up the next batch, the bytes of their records, and its blocks.
fn next_batch(queue: &VecDeque<Pending>, layout: &Layout) -> (usize, usize, u64) {
    let (mut count, mut records_len, mut payload, mut slot_bytes) = (0, 0, 0, 0);
    for item in queue {
        let longer = records_len + item.record_len;
        let blocks = batch::header_blocks(longer) + payload + item.payload;
        if count > 0 && (blocks > layout.max_batch() || slot_bytes > MAX_SLOT_BYTES) {
            break;
        }
        (count, records_len, payload) = (count + 1, longer, payload + item.payload);
        if let Action::Write { slot_units, .. } = &item.action {
            slot_bytes += slot_units.len() * UNIT_SIZE;
        }
    }
    (count, records_len, batch::header_blocks(records_len) + payload)
}

/// The bytes of a batch.
fn encode(prefix: &Prefix, secret: &[u8; 16], items: &[Pending]) -> Bytes {
    let mut data = aligned(prefix.blocks as usize * BLOCK_LEN);
    prefix.put(secret, &mut data);
    items.iter().for_each(|item| put_record(&mut data, &item.action));
    data.resize(prefix.header_len(), 0);
    batch::seal(&mut data);
    items.iter().for_each(|item| put_payload(&mut data, &item.action));
    debug_assert_eq!(data.len() as u64, u64::from(prefix.blocks) * BLOCK);
    data.freeze()
}

fn put_record(data: &mut BytesMut, action: &Action) {
    match action {
        Action::Write {
            head,
            mutation,
            slot_units,
        } => record::put_write(data, head, mutation, *slot_units),
        Action::Epoch(pg, epoch) => record::put_accept(data, *pg, *epoch),
        Action::Mark(mark) => record::put_seen(data, *mark),
        Action::Forget(object, version) => record::put_forget(data, *object, *version),
    }
}

fn put_payload(data: &mut BytesMut, action: &Action) {
    if let Action::Write {
        mutation, slot_units, ..
    } = action
    {
        let inline = mutation.patches.iter().filter(|patch| !slot_units.has(patch.first));
        inline.for_each(|patch| data.extend_from_slice(&patch.data));
    }
}

/// The first batch of an incarnation: no records, only a header. See [`crate::recovery`].
pub fn empty_batch(secret: &[u8; 16], sequence: u64, incarnation: u64, position: u64) -> (Prefix, Bytes) {
    let prefix = Prefix {
        sequence,
        incarnation,
        position,
        blocks: 1,
        header_blocks: 1,
        records: 0,
        records_len: 0,
    };
    (prefix, encode(&prefix, secret, &[]))
}
