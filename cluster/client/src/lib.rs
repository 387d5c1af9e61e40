//! The client of the cluster: turns operations on images into operations on objects, sends each to the acting
//! primary of its PG, and holds and re-sends them while a PG is between primaries.
//!
//! A pure machine: time comes in as an argument, messages go out as [`Effect`]s. It promises that every
//! operation is answered once, that a repeated send carries the same id (so that it is executed once), and that
//! nothing fails merely because a PG is re-peering. It does not cache data, and it does not order operations:
//! what overlaps in time may be executed in either order, sector by sector.
//!
//! An object remembers [`MAX_OPS`](trivet_core::mutation::MAX_OPS) executed operations, so that a repeated one is not
//! executed again. A client therefore sends at most half as many mutations of one object from the oldest one without
//! an answer on, and tells with each which one that is; more of them wait here, in order.

mod dispatch;
mod job;
mod mutant;
mod purge;
mod split;
mod window;

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashMap;
use trivet_core::kv::{Event, Notice};
use trivet_core::map::ClusterMap;
use trivet_core::message::{LIST_LIMIT, Message, OpDone, OpError, OpValue};
use trivet_core::{ClientId, Epoch, ImageId, Now, Numbering, OsdId, keys};

use dispatch::{Dispatcher, Pending};
use job::Job;
use mutant::mutant;

#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;

/// An operation on the bytes of an image. Ranges may have any alignment and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageOp {
    /// Reads bytes; what was never written is zero.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Writes bytes; answered when they are durable on every acting member.
    Write {
        /// First byte.
        offset: u64,
        /// The bytes, in order.
        data: Vec<Bytes>,
    },
    /// Makes bytes zero and frees the whole units among them.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Deletes every object of the image.
    Purge,
}

/// Why an operation failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The pool is full.
    #[error("no space left in the pool")]
    NoSpace,
    /// The data is damaged beyond what its copies can repair.
    #[error("the data is damaged")]
    Damaged,
    /// The image's pool does not exist.
    #[error("the image's pool does not exist")]
    NoPool,
}

/// Names an operation of the caller.
pub type Ticket = u64;

/// What the caller is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message to an OSD. May be lost.
    Send(OsdId, Message),
    /// An operation ended: the data of a read, nothing for the others.
    Done(Ticket, Result<Vec<Bytes>, IoError>),
}

/// The client machine of one gateway.
#[derive(Debug)]
pub struct Client {
    dispatcher: Dispatcher,
    sequence: u64,
    next_job: u64,
    jobs: HashMap<u64, Job>,
    pending: BTreeMap<u64, Pending>,
}

impl Client {
    /// A client without a map: operations wait for the first [`Client::notice`]. `id` must be unique for ever:
    /// random.
    #[must_use]
    pub fn new(id: ClientId) -> Client {
        Client {
            dispatcher: Dispatcher::new(id),
            sequence: 0,
            next_job: 0,
            jobs: HashMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// A client with a deliberate bug.
    #[cfg(any(test, feature = "mutants"))]
    #[must_use]
    pub fn with_mutant(id: ClientId, mutant: Mutant) -> Client {
        let mut client = Client::new(id);
        client.dispatcher.mutant = Some(mutant);
        client
    }

    /// The mirror of the cluster's state.
    #[must_use]
    pub fn map(&self) -> &ClusterMap {
        &self.dispatcher.map
    }

    /// Object operations on their way, or waiting for it.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Starts an operation; it ends with an [`Effect::Done`] that carries `ticket`.
    pub fn submit(&mut self, now: Now, ticket: Ticket, image: ImageId, op: ImageOp, out: &mut Vec<Effect>) {
        let Some(pool) = self.dispatcher.map.pools.get(&image.pool()) else {
            out.push(Effect::Done(ticket, Err(IoError::NoPool)));
            return;
        };
        let job = Job::new(ticket, image, pool.value.numbering(), op);
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, job);
        self.advance(now, id, out);
    }

    /// Takes a message from an OSD.
    pub fn message(&mut self, now: Now, from: OsdId, message: Message, out: &mut Vec<Effect>) {
        let Message::OpDone(OpDone { id, result }) = message else {
            return;
        };
        let Some(sequence) = self.dispatcher.sequence(id) else {
            return;
        };
        // An OSD that it was sent on from may have done it: so the next one finds, or does it again. Its answer counts.
        let Some(pending) = self.pending.get_mut(&sequence).filter(|pending| pending.is_at(from)) else {
            return;
        };
        match result {
            Err(OpError::NotPrimary) => {
                pending.refused(from);
                return;
            }
            Err(OpError::OtherEpoch(epoch)) => return self.other_epoch(now, sequence, from, epoch, out),
            _ => {}
        }
        if let Some(pending) = self.pending.remove(&sequence) {
            self.leave_window(now, sequence, &pending, out);
            self.ended(now, pending, result, out);
        }
    }

    /// Takes in what the metadata store says; waiting operations go to new primaries.
    pub fn notice(&mut self, now: Now, notice: &Notice, out: &mut Vec<Effect>) {
        self.dispatcher.map.apply(notice);
        self.dispatcher.drop_hints();
        let relevant = match notice {
            Notice::Snapshot { .. } | Notice::Replaced { .. } => true,
            Notice::Changes { events, .. } => events.iter().any(concerns_pgs),
        };
        if relevant {
            self.renumber(now, out);
            self.dispatch_all(now, out);
        }
    }

    /// Moves operations of pools whose numbers of PGs changed to the PGs that have their objects now.
    fn renumber(&mut self, now: Now, out: &mut Vec<Effect>) {
        let map = &self.dispatcher.map;
        let stale: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| !map.is_current(pending.pg))
            .map(|(&sequence, _)| sequence)
            .collect();
        let mut dropped: BTreeMap<u64, usize> = BTreeMap::new();
        for sequence in stale {
            let Some(pending) = self.pending.get_mut(&sequence) else {
                continue;
            };
            match pending.action.object() {
                Some(object) => pending.pg = map.pg_of(object).unwrap_or(pending.pg),
                None if map.pools.contains_key(&pending.pg.pool) => {
                    *dropped.entry(pending.job).or_default() += 1;
                    self.pending.remove(&sequence);
                }
                None => {}
            }
        }
        let mut jobs: Vec<(u64, Numbering)> = Vec::new();
        for (&id, job) in &self.jobs {
            let numbering = map.numbering(job.image.pool());
            jobs.extend(numbering.filter(|now| *now != job.numbering).map(|now| (id, now)));
        }
        jobs.sort_unstable();
        for (id, numbering) in jobs {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.renumber(numbering, dropped.get(&id).copied().unwrap_or_default());
            }
            self.advance(now, id, out);
        }
    }

    /// The connection to an OSD broke: what was sent there and is not answered may be lost, and is sent again soon.
    pub fn lost(&mut self, osd: OsdId) {
        for pending in self.pending.values_mut() {
            pending.refused(osd);
        }
    }

    /// Call it several times a second: waiting operations are tried again.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.dispatch_all(now, out);
    }

    fn dispatch_all(&mut self, now: Now, out: &mut Vec<Effect>) {
        let unanswered = self.unanswered();
        for (&sequence, pending) in &mut self.pending {
            self.dispatcher.dispatch(now, unanswered, sequence, pending, out);
        }
    }

    /// The smallest sequence without an answer, or any beyond those issued.
    fn unanswered(&self) -> u64 {
        self.pending.first_key_value().map_or(u64::MAX, |(&first, _)| first)
    }

    /// `from` acts in this epoch. If that is a later one than the operation was meant for, it is asked again for it;
    /// otherwise the map will have to say more.
    fn other_epoch(&mut self, now: Now, sequence: u64, from: OsdId, epoch: Epoch, out: &mut Vec<Effect>) {
        let unanswered = self.unanswered();
        let Some(pending) = self.pending.get_mut(&sequence) else {
            return;
        };
        if pending.refused(from).is_some_and(|meant| meant < epoch) {
            self.dispatcher.hint(pending.pg, from, epoch);
            self.dispatcher.dispatch(now, unanswered, sequence, pending, out);
        }
    }

    /// An operation was answered: those of its object that waited for it go out.
    fn leave_window(&mut self, now: Now, sequence: u64, pending: &Pending, out: &mut Vec<Effect>) {
        let Some(object) = pending.changes() else { return };
        let unanswered = self.unanswered();
        for next in self.dispatcher.windows.answered(object, sequence) {
            if let Some(pending) = self.pending.get_mut(&next) {
                self.dispatcher.dispatch(now, unanswered, next, pending, out);
            }
        }
    }

    /// Issues as many parts of a job as its window allows, and ends it when all are answered.
    fn advance(&mut self, now: Now, id: u64, out: &mut Vec<Effect>) {
        let unanswered = self.unanswered().min(self.sequence + 1);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        while let Some((part, pg, action)) = job.next_part() {
            self.sequence += 1;
            let mut pending = Pending::new(id, part, pg, action);
            if let Some(object) = pending.changes() {
                self.dispatcher.windows.issued(object, self.sequence);
            }
            self.dispatcher
                .dispatch(now, unanswered, self.sequence, &mut pending, out);
            self.pending.insert(self.sequence, pending);
        }
        let early = mutant!(self.dispatcher, AnswerEarly) && job.is_partly_written();
        if (job.is_complete() || early)
            && let Some(job) = self.jobs.remove(&id)
        {
            let backwards = mutant!(self.dispatcher, ReadSpliceWrong);
            out.push(Effect::Done(job.ticket, job.into_result(backwards)));
        }
    }

    fn ended(&mut self, now: Now, pending: Pending, result: Result<OpValue, OpError>, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&pending.job) else {
            return;
        };
        match result {
            Ok(OpValue::Changed) => job.part_done(pending.part, Vec::new()),
            Ok(OpValue::Data(data)) => job.part_done(pending.part, data),
            Ok(OpValue::Objects(numbers)) => {
                job.listed(pending.pg, &numbers, numbers.len() < LIST_LIMIT);
            }
            Err(OpError::NoSpace) => job.part_failed(IoError::NoSpace),
            Err(OpError::Damaged | OpError::Malformed | OpError::NotPrimary | OpError::OtherEpoch(_)) => {
                job.part_failed(IoError::Damaged)
            }
        }
        self.advance(now, pending.job, out);
    }
}

fn concerns_pgs(event: &Event) -> bool {
    let key = match event {
        Event::Put(kv) => &kv.key,
        Event::Delete { key, .. } => key,
    };
    key.starts_with(keys::PGS) || key.starts_with(keys::POOLS)
}

#[cfg(test)]
mod tests;
