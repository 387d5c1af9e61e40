//! The store as its OSD sees it: opening, ready, or failed.

use trivet_core::disk::DiskDone;
use trivet_core::mark::Mark;
use trivet_core::{
    Epoch, Epochs, Numbering, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, PoolId, UNITS_PER_OBJECT, Version,
};

use crate::api::{ObjectInfo, Output, Reply, Request, StoreError, StoreStats, Ticket};
use crate::commit::Commit;
use crate::cycle::Cycle;
use crate::disk::{Disk, Owner};
use crate::index::Index;
use crate::layout::Layout;
#[cfg(any(test, feature = "mutants"))]
use crate::mutant::Mutant;
use crate::mutant::mutant;
use crate::read::{Reads, Wish};
use crate::recovery::Recovery;
use crate::ring::Ring;
use crate::slots::Slots;

/// What the store is able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Reading what is on the disk.
    Opening,
    /// In service.
    Ready,
    /// Out of service for ever, and why.
    Failed(String),
}

/// How to open a store.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Refuse the disk of any other cluster and OSD.
    pub expect: Option<([u8; 16], OsdId)>,
    /// A deliberate bug.
    #[cfg(any(test, feature = "mutants"))]
    pub mutant: Option<Mutant>,
}

impl Options {
    /// Whether this bug is to be had.
    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

/// The store of one OSD.
#[derive(Debug)]
pub struct Store {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Opening(Box<Recovery>),
    Ready(Box<Live>),
    Failed(String),
}

/// A store in service. Its parts are in the modules named like their fields.
#[derive(Debug)]
pub struct Live {
    pub options: Options,
    pub layout: Layout,
    pub secret: [u8; 16],
    pub incarnation: u64,
    /// The last durable batch.
    pub sequence: u64,
    pub disk: Disk,
    pub index: Index,
    pub slots: Slots,
    pub ring: Ring,
    pub epochs: Epochs,
    pub mark: Option<Mark>,
    pub commit: Commit,
    pub reads: Reads,
    pub cycle: Cycle,
}

impl Store {
    /// Starts to open the store on a disk of `size` bytes. [`Store::state`] tells when it is ready.
    pub fn open(size: u64, options: Options, out: &mut Output) -> Store {
        Store {
            phase: Phase::Opening(Box::new(Recovery::start(size, options, out))),
        }
    }

    /// Asks for something. The answer comes in some [`Output`], maybe this one.
    pub fn submit(&mut self, ticket: Ticket, request: Request, out: &mut Output) {
        let live = match &mut self.phase {
            Phase::Ready(live) => live,
            Phase::Opening(_) => return out.done.push((ticket, failed("not open yet"))),
            Phase::Failed(why) => return out.done.push((ticket, failed(why))),
        };
        match request {
            Request::Write { object, mutation } => live.submit_write(ticket, object, mutation, false, out),
            Request::Replace { object, mutation } => live.submit_write(ticket, object, mutation, true, out),
            Request::Read { object, first, count } => live.submit_read(ticket, object, (first, count), Wish::All, out),
            Request::Salvage { object } => live.submit_read(ticket, object, (0, UNITS_PER_OBJECT), Wish::Whatever, out),
            Request::AcceptEpoch { pg, epoch } => live.submit_epoch(ticket, pg, epoch, out),
            Request::KeepMark { mark } => live.submit_mark(ticket, mark, out),
            Request::Forget { object, version } => live.submit_forget(ticket, object, version, out),
        }
    }

    /// A disk operation has ended.
    pub fn completed(&mut self, done: DiskDone, out: &mut Output) {
        match &mut self.phase {
            Phase::Opening(recovery) => match recovery.completed(done, out) {
                Ok(None) => {}
                Ok(Some(live)) => self.phase = Phase::Ready(live),
                Err(why) => self.phase = Phase::Failed(why),
            },
            Phase::Ready(live) => {
                let result = live.completed(done, out);
                self.settle_on(result, out);
            }
            Phase::Failed(_) => {}
        }
    }

    /// To be called after each batch of submits and completions: starts what can be started.
    pub fn pump(&mut self, out: &mut Output) {
        if let Phase::Ready(live) = &mut self.phase {
            live.start_batch(out);
            live.turn(out);
        }
    }

    /// Leaves service if something final has happened.
    fn settle_on(&mut self, result: Result<(), String>, out: &mut Output) {
        if let (Err(why), Phase::Ready(live)) = (result, &mut self.phase) {
            let tickets = live.commit.drain().chain(live.reads.drain());
            out.done.extend(tickets.map(|ticket| (ticket, failed(&why))));
            self.phase = Phase::Failed(why);
        }
    }

    /// What the store is able to do.
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Opening(_) => State::Opening,
            Phase::Ready(_) => State::Ready,
            Phase::Failed(why) => State::Failed(why.clone()),
        }
    }

    fn live(&self) -> Option<&Live> {
        if let Phase::Ready(live) = &self.phase {
            Some(live)
        } else {
            None
        }
    }

    /// The cycle of a store in service.
    #[cfg(test)]
    pub(crate) fn cycle(&mut self) -> Option<&mut Cycle> {
        if let Phase::Ready(live) = &mut self.phase {
            Some(&mut live.cycle)
        } else {
            None
        }
    }

    /// What is durably known of an object; `None` while the store is not ready.
    pub fn info(&self, object: ObjectId) -> Option<ObjectInfo> {
        self.live()?.index.get(object).map(crate::index::Entry::info)
    }

    /// Whether the object remembers that this operation was executed; durable state only.
    pub fn executed(&self, object: ObjectId, op: OpId) -> bool {
        let entry = self.live().and_then(|live| live.index.get(object));
        entry.is_some_and(|entry| entry.ops.remembers(op))
    }

    /// The operations that the object remembers, oldest first; durable state only.
    pub fn ops(&self, object: ObjectId) -> Vec<OpId> {
        let entry = self.live().and_then(|live| live.index.get(object));
        entry.map_or_else(Vec::new, |entry| entry.ops.iter().collect())
    }

    /// How many operations the object remembers; durable state only.
    pub fn remembered(&self, object: ObjectId) -> usize {
        let entry = self.live().and_then(|live| live.index.get(object));
        entry.map_or(0, |entry| entry.ops.len())
    }

    /// The version that the object has when everything that was submitted is durable, and whether there is nothing
    /// of it then: it does not exist, or is deleted.
    pub fn latest(&self, object: ObjectId) -> (Version, bool) {
        self.live().map_or((Version::NONE, true), |live| live.latest(object))
    }

    /// A fingerprint of the object as the index has it: version, units, their sums, operations, whether it is
    /// deleted. Equal for equal replicas; 0 if the object does not exist. Durable state only.
    pub fn digest(&self, object: ObjectId) -> u64 {
        let entry = self.live().and_then(|live| live.index.get(object));
        entry.map_or(0, crate::index::Entry::digest)
    }

    /// All objects, tombstones included; none while the store is not ready.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, ObjectInfo)> {
        self.live()
            .into_iter()
            .flat_map(|live| live.index.iter())
            .map(|entry| (entry.object, entry.info()))
    }

    /// How the PGs of a pool are numbered, as far as this store was told.
    pub fn numbering(&self, pool: PoolId) -> Option<Numbering> {
        self.live()?.index.numbering(pool)
    }

    /// The PGs of a pool are numbered so from now on: looks through all objects, once. Nothing while the store is not ready.
    pub fn renumber(&mut self, pool: PoolId, numbering: Numbering) {
        if let Phase::Ready(live) = &mut self.phase {
            live.index.renumber(pool, numbering);
        }
    }

    /// The objects of a PG, tombstones included, in no particular order, at the cost of what there is of it. None if the PG
    /// is not of the numbering that the store was told last.
    pub fn objects_of(&self, pg: PgId) -> impl Iterator<Item = (ObjectId, ObjectInfo)> {
        let entries = self.live().into_iter().flat_map(move |live| live.index.of_pg(pg));
        entries.map(|entry| (entry.object, entry.info()))
    }

    /// The PGs of which there are objects, ascending: of pools whose numbering the store was told.
    pub fn pgs(&self) -> impl Iterator<Item = PgId> {
        self.live().into_iter().flat_map(|live| live.index.pgs())
    }

    /// The highest epoch that was accepted of each PG.
    pub fn accepted_epochs(&self) -> impl Iterator<Item = (PgId, Epoch)> {
        self.live().into_iter().flat_map(|live| live.epochs.iter())
    }

    /// The latest mark of the metadata store that was kept.
    pub fn mark(&self) -> Option<Mark> {
        self.live()?.mark
    }

    /// Bytes of new objects that there is room for. None when a write was just refused for lack of space.
    pub fn room(&self) -> u64 {
        self.live().map_or(0, |live| live.room() as u64 * OBJECT_SIZE as u64)
    }

    /// Space and activity.
    pub fn stats(&self) -> StoreStats {
        self.live().map_or_else(StoreStats::default, |live| StoreStats {
            capacity: live.slots.capacity(),
            used: live.slots.used(),
            objects: live.index.len() as u64,
            device_written: live.disk.written,
            commits: live.commit.commits,
        })
    }
}

impl Live {
    /// Hands a completion to its owner.
    ///
    /// # Errors
    /// A write or flush failed: nothing more may be promised.
    fn completed(&mut self, done: DiskDone, out: &mut Output) -> Result<(), String> {
        let Some(owner) = self.disk.finished(done.id) else {
            return Ok(());
        };
        match owner {
            Owner::Read(job, extent) => {
                self.read_done(job, extent, done.result, out);
                return Ok(());
            }
            Owner::CheckpointRead => {
                self.copy_read(done.result.ok());
                return Ok(());
            }
            Owner::SettleRead(job, extent) => {
                self.settle_read_done(job, extent, done.result.ok(), out);
                return Ok(());
            }
            _ => {}
        }
        let ignored = owner == Owner::BatchFlush && mutant!(self.options, IgnoreFlushError);
        if let (Err(error), false) = (done.result, ignored) {
            return Err(error.to_string());
        }
        match owner {
            Owner::BatchWrite => self.batch_written(out),
            Owner::BatchFlush => self.batch_durable(out),
            Owner::SettleWrite(job) => self.settle_write_done(job),
            Owner::Checkpoint => self.cycle.finished_one(),
            Owner::Read(..) | Owner::SettleRead(..) | Owner::CheckpointRead | Owner::Recovery => {}
        }
        Ok(())
    }
}

fn failed(why: &str) -> Result<Reply, StoreError> {
    Err(StoreError::Failed(why.into()))
}
