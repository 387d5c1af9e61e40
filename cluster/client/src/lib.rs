//! The client of the cluster: turns operations on images into operations on objects, sends each to the acting
//! primary of its PG, and holds and re-sends them while a PG is between primaries.
//!
//! A pure machine: time comes in as an argument, messages go out as [`Effect`]s. It promises that every
//! operation is answered once, that a repeated send carries the same id (so that it is executed once), and that
//! nothing fails merely because a PG is re-peering. It does not cache data, and it does not order operations:
//! what overlaps in time may be executed in either order, sector by sector.

mod job;
mod split;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use trivet_core::kv::{Event, Notice};
use trivet_core::map::ClusterMap;
use trivet_core::message::{Action, LIST_LIMIT, Message, Op, OpDone, OpError, OpValue};
use trivet_core::{ClientId, Epoch, ImageId, Now, OpId, OsdId, PgId, keys};

use job::{Job, Part};

/// An operation that got no answer is sent again after this time. The primary recognises it.
const RESEND_AFTER: Duration = Duration::from_secs(5);

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

/// One object operation on its way.
#[derive(Debug)]
struct Pending {
    job: u64,
    part: Part,
    pg: PgId,
    action: Action,
    sent: Option<Sent>,
}

/// Where an operation was sent, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    to: OsdId,
    epoch: Epoch,
    at: Now,
}

/// The client machine of one gateway.
#[derive(Debug)]
pub struct Client {
    id: ClientId,
    map: ClusterMap,
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
            id,
            map: ClusterMap::default(),
            sequence: 0,
            next_job: 0,
            jobs: HashMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// The mirror of the cluster's state.
    #[must_use]
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Object operations on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Starts an operation; it ends with an [`Effect::Done`] that carries `ticket`.
    pub fn submit(&mut self, now: Now, ticket: Ticket, image: ImageId, op: ImageOp, out: &mut Vec<Effect>) {
        let Some(pool) = self.map.pools.get(&image.pool()) else {
            out.push(Effect::Done(ticket, Err(IoError::NoPool)));
            return;
        };
        let job = Job::new(ticket, image, pool.value.pg_count, op);
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
        if id.client != self.id {
            return;
        }
        let Some(pending) = self.pending.get_mut(&id.sequence) else {
            return;
        };
        if result == Err(OpError::NotPrimary) {
            // Only the OSD that it was last sent to can put it back into waiting.
            if pending.sent.is_some_and(|sent| sent.to == from) {
                pending.sent = None;
            }
            return;
        }
        if let Some(pending) = self.pending.remove(&id.sequence) {
            self.ended(now, pending, result, out);
        }
    }

    /// Takes in what the metadata store says; waiting operations go to new primaries.
    pub fn notice(&mut self, now: Now, notice: &Notice, out: &mut Vec<Effect>) {
        self.map.apply(notice);
        let relevant = match notice {
            Notice::Snapshot { .. } => true,
            Notice::Changes { events, .. } => events.iter().any(concerns_pgs),
        };
        if relevant {
            self.dispatch_all(now, out);
        }
    }

    /// Call it several times a second: waiting operations are tried again.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.dispatch_all(now, out);
    }

    fn dispatch_all(&mut self, now: Now, out: &mut Vec<Effect>) {
        for (&sequence, pending) in &mut self.pending {
            dispatch(&self.map, self.id, now, sequence, pending, out);
        }
    }

    /// Issues as many parts of a job as its window allows, and ends it when all are answered.
    fn advance(&mut self, now: Now, id: u64, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        while let Some((part, pg, action)) = job.next_part() {
            self.sequence += 1;
            let mut pending = Pending {
                job: id,
                part,
                pg,
                action,
                sent: None,
            };
            dispatch(&self.map, self.id, now, self.sequence, &mut pending, out);
            self.pending.insert(self.sequence, pending);
        }
        if job.is_complete()
            && let Some(job) = self.jobs.remove(&id)
        {
            out.push(Effect::Done(job.ticket, job.into_result()));
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
            Err(OpError::Damaged | OpError::Malformed | OpError::NotPrimary) => job.part_failed(IoError::Damaged),
        }
        self.advance(now, pending.job, out);
    }
}

fn concerns_pgs(event: &Event) -> bool {
    let key = match event {
        Event::Put(kv) => &kv.key,
        Event::Delete { key, .. } => key,
    };
    key.starts_with(keys::PGS)
}

/// Sends an operation to the acting primary, unless it is there already.
fn dispatch(map: &ClusterMap, client: ClientId, now: Now, sequence: u64, pending: &mut Pending, out: &mut Vec<Effect>) {
    let Some(claim) = map.claims.get(&pending.pg).map(|claim| &claim.value) else {
        return;
    };
    if !claim.active {
        return;
    }
    let there = pending
        .sent
        .is_some_and(|sent| sent.to == claim.primary && sent.epoch == claim.epoch && now.since(sent.at) < RESEND_AFTER);
    if there {
        return;
    }
    pending.sent = Some(Sent {
        to: claim.primary,
        epoch: claim.epoch,
        at: now,
    });
    let id = OpId { client, sequence };
    let op = Op {
        id,
        pg: pending.pg,
        action: pending.action.clone(),
    };
    out.push(Effect::Send(claim.primary, Message::Op(op)));
}

#[cfg(test)]
mod tests;
