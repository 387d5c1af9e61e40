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

mod behind;
mod clocks;
mod dispatch;
mod job;
mod mutant;
mod pace;
mod split;
mod stamps;
mod sweep;
mod turns;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use trivet_core::kv::{Event, Notice, Revision};
use trivet_core::map::ClusterMap;
use trivet_core::mark::Mark;
use trivet_core::message::{LIST_LIMIT, Message, OpDone, OpError, OpValue};
use trivet_core::{ClientId, Epoch, ImageId, Now, Numbering, ObjectId, OsdId, PoolId, keys};

use behind::Behind;
use clocks::Clocks;
use dispatch::{Dispatcher, Pending};
use job::Job;
use mutant::mutant;
use turns::Turns;

#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;
pub use stamps::{Caller, Presence};

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
    /// Deletes every object of the image, and what OSDs bring back that are away: it ends when all PGs were clean.
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

/// Removals that wait for clean PGs look at them this often: there may be many.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Names an operation of the caller.
pub type Ticket = u64;

/// What the caller is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message to an OSD. May be lost.
    Send(OsdId, Message),
    /// An operation ended: the data of a read, nothing for the others.
    Done(Ticket, Result<Vec<Bytes>, IoError>),
    /// A change was not executed for now: its caller has to be seen after this instant.
    Late(Ticket, Late),
    /// The clock of this node stood still for so long at least, until just now: that of an OSD went on. For ever: it may have,
    /// nobody can tell.
    Stood(Duration),
}

/// Why a change came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Its caller was not seen for long: it may have turned to somebody else.
    Outdated,
    /// Another client has changed the same bytes since its caller was seen.
    Overtaken,
}

/// The client machine of one gateway.
#[derive(Debug)]
pub struct Client {
    dispatcher: Dispatcher,
    sequence: u64,
    next_job: u64,
    jobs: HashMap<u64, Job>,
    tickets: HashMap<Ticket, u64>,
    turns: Turns,
    pending: BTreeMap<u64, Pending>,
    clocks: Clocks,
    /// See [`Client::knows_store`].
    store_is_known: bool,
    behind: Behind,
    /// A PG may have become clean since removals were looked at.
    histories_moved: bool,
    /// When that was.
    settled_at: Now,
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
            tickets: HashMap::new(),
            turns: Turns::default(),
            pending: BTreeMap::new(),
            clocks: Clocks::default(),
            store_is_known: false,
            behind: Behind::default(),
            histories_moved: false,
            settled_at: Now(0),
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

    /// Starts an operation for a caller; it ends with an [`Effect::Done`] that carries `ticket`.
    pub fn submit(
        &mut self,
        now: Now,
        ticket: Ticket,
        image: ImageId,
        op: ImageOp,
        caller: Caller,
        out: &mut Vec<Effect>,
    ) {
        match self.dispatcher.map.numbering(image.pool()) {
            Some(numbering) => self.begin(now, Job::new(ticket, image, numbering, op, caller), out),
            None => self.without_pool(ticket, image, op, caller, out),
        }
    }

    /// Asks all PGs of a pool whether they know the metadata store up to a commit. It ends when all do, and nothing of a
    /// client that was not registered then will be executed there any more.
    pub fn barrier(&mut self, now: Now, ticket: Ticket, pool: PoolId, revision: Revision, out: &mut Vec<Effect>) {
        match self.dispatcher.map.numbering(pool) {
            Some(numbering) => self.begin(now, Job::barrier(ticket, pool, numbering, revision), out),
            None => out.push(Effect::Done(ticket, Err(IoError::NoPool))),
        }
    }

    fn begin(&mut self, now: Now, mut job: Job, out: &mut Vec<Effect>) {
        job.moved = now;
        let id = self.next_job;
        self.next_job += 1;
        self.tickets.insert(job.ticket, id);
        self.jobs.insert(id, job);
        self.advance(now, id, out);
    }

    /// This is known of whoever wants these operations: what came too late is sent again if that says more.
    pub fn seen(&mut self, now: Now, tickets: &[Ticket], presence: Presence, out: &mut Vec<Effect>) {
        self.behind.seen_of(tickets, presence);
        let mut callers: BTreeMap<u64, Caller> = BTreeMap::new();
        for id in tickets.iter().filter_map(|ticket| self.tickets.get(ticket)) {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            if let Caller::Seen(before) = job.caller {
                job.caller = Caller::Seen(before.and(presence));
                callers.insert(*id, job.caller);
            }
        }
        let unanswered = self.unanswered();
        let mut sent: Vec<ObjectId> = Vec::new();
        for (&sequence, pending) in &mut self.pending {
            if let Some(caller) = callers.get(&pending.job) {
                pending.caller = *caller;
                if self.dispatcher.dispatch(now, unanswered, sequence, pending, out) {
                    sent.extend(pending.changes());
                }
            }
        }
        for object in sent {
            self.dispatch_waiting(now, object, out);
        }
    }

    /// An OSD says which mark of the metadata store it has seen last.
    fn hear_mark(&mut self, seen: Option<Mark>) {
        let marks = self.dispatcher.map.mark.as_ref().map(|mark| &mark.value);
        self.store_is_known |= match (marks, seen) {
            (Some(marks), Some(seen)) => marks.contradiction(seen).is_none(),
            (marks, seen) => marks.is_none() && seen.is_none(),
        };
    }

    /// Whether an OSD has told that the metadata store, since this client mirrors it, is the one that the OSD knows, or there
    /// are no OSDs yet. Until then it may be a backup of which nobody has noticed that it was put back.
    #[must_use]
    pub fn knows_store(&self) -> bool {
        self.store_is_known || self.dispatcher.map.members.is_empty()
    }

    /// Nobody wants these operations any more: nothing of them is sent from now on, and they do not end. What is under way
    /// may be executed, but not after anything that this client begins later on the same bytes.
    pub fn forsake(&mut self, now: Now, tickets: &[Ticket], out: &mut Vec<Effect>) {
        self.behind.forsake(tickets);
        let jobs: BTreeSet<u64> = tickets
            .iter()
            .filter_map(|ticket| self.tickets.remove(ticket))
            .collect();
        jobs.iter().for_each(|id| drop(self.jobs.remove(id)));
        let of_them = |pending: &Pending| jobs.contains(&pending.job);
        let gone: Vec<(u64, Pending)> = self.pending.extract_if(.., |_, pending| of_them(pending)).collect();
        for (sequence, pending) in gone {
            self.turns.ended(sequence);
            self.leave_window(now, sequence, &pending, out);
        }
        self.take_turns(now, out);
    }

    /// Takes a message from an OSD.
    pub fn message(&mut self, now: Now, from: OsdId, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Tick { sent, tick, mark } => {
                self.hear_mark(mark);
                self.clock(now, from, (tick, Some(sent)), out);
            }
            Message::OpDone(done) => {
                self.clock(now, from, (done.tick, None), out);
                self.op_done(now, from, done, out);
            }
            _ => {}
        }
    }

    fn op_done(&mut self, now: Now, from: OsdId, done: OpDone, out: &mut Vec<Effect>) {
        let OpDone { id, result, .. } = done;
        let Some(sequence) = self.dispatcher.sequence(id) else {
            return;
        };
        // An OSD that it was sent on from may have done it: so the next one finds, or does it again. Its answer counts.
        let Some(pending) = self.pending.get_mut(&sequence).filter(|pending| pending.is_at(from)) else {
            return;
        };
        match result {
            Err(OpError::NotPrimary | OpError::Unregistered) => {
                self.dispatcher.refused(from, sequence, pending);
                return;
            }
            Err(OpError::Outdated) => return self.late(now, sequence, Late::Outdated, out),
            Err(OpError::Overtaken) => return self.late(now, sequence, Late::Overtaken, out),
            Err(OpError::OtherEpoch(epoch)) => return self.other_epoch(now, sequence, from, epoch, out),
            _ => {}
        }
        if let Some(pending) = self.pending.remove(&sequence) {
            self.turns.ended(sequence);
            if !self.goes_by_turns(pending.job) {
                self.turns.other_ended(now.since(pending.since));
            }
            self.leave_window(now, sequence, &pending, out);
            self.ended(now, pending, result, out);
        }
    }

    /// The caller of an operation was seen too long ago. This client itself always knows that it is there.
    fn late(&mut self, now: Now, sequence: u64, why: Late, out: &mut Vec<Effect>) {
        let unanswered = self.unanswered();
        let Some(pending) = self.pending.get_mut(&sequence) else {
            return;
        };
        self.dispatcher.is_late(now, sequence, pending);
        match (pending.caller, self.jobs.get(&pending.job)) {
            (Caller::Seen(_), Some(job)) => out.push(Effect::Late(job.ticket, why)),
            _ => {
                self.dispatcher.dispatch(now, unanswered, sequence, pending, out);
            }
        }
    }

    /// Takes in what the metadata store says; waiting operations go to new primaries.
    pub fn notice(&mut self, now: Now, notice: &Notice, out: &mut Vec<Effect>) {
        self.store_is_known &= !matches!(notice, Notice::Replaced { .. });
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
        self.histories_moved |= match notice {
            Notice::Snapshot { .. } | Notice::Replaced { .. } => true,
            Notice::Changes { events, .. } => events.iter().any(concerns_history),
        };
        self.map_moved(now, out);
    }

    /// Removals go on, or end, for which PGs have become clean.
    fn settle_removals(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.histories_moved || now.since(self.settled_at) < SETTLE_EVERY {
            return;
        }
        (self.histories_moved, self.settled_at) = (false, now);
        let map = &self.dispatcher.map;
        let settled = self
            .jobs
            .iter_mut()
            .filter_map(|(&id, job)| job.settle(map).then_some(id));
        let settled: BTreeSet<u64> = settled.collect();
        for id in settled {
            self.advance(now, id, out);
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
                Some(object) => pending.move_to(map.pg_of(object).unwrap_or(pending.pg)),
                None if map.pools.contains_key(&pending.pg.pool) => {
                    *dropped.entry(pending.job).or_default() += 1;
                    self.pending.remove(&sequence);
                    self.turns.ended(sequence);
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
        let asks = !mutant!(self.dispatcher, SweepHalf);
        // All of them before any goes on: whoever goes on may give others their turn, and those must not ask the PGs of before.
        for &(id, numbering) in &jobs {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.renumber(numbering, dropped.get(&id).copied().unwrap_or_default(), asks);
            }
        }
        for (id, _) in jobs {
            self.advance(now, id, out);
        }
    }

    /// The connection to an OSD broke: what was sent there and is not answered may be lost, and is sent again soon.
    pub fn lost(&mut self, osd: OsdId) {
        for (&sequence, pending) in &mut self.pending {
            self.dispatcher.refused(osd, sequence, pending);
        }
    }

    /// Call it several times a second: waiting operations are tried again.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.dispatch_all(now, out);
        self.turns.tick(now);
        self.take_turns(now, out);
        self.settle_removals(now, out);
        self.look_at_clocks(now, out);
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
        let meant = self.dispatcher.refused(from, sequence, pending);
        if meant.is_some_and(|meant| meant < epoch) {
            self.dispatcher.hint(pending.pg, from, epoch);
            let sent = self.dispatcher.dispatch(now, unanswered, sequence, pending, out);
            if let Some(object) = pending.changes().filter(|_| sent) {
                self.dispatch_waiting(now, object, out);
            }
        }
    }

    /// Sends the operations of an object that waited, as far as nothing stands in their way any more.
    fn dispatch_waiting(&mut self, now: Now, object: ObjectId, out: &mut Vec<Effect>) {
        let unanswered = self.unanswered();
        for sequence in self.dispatcher.windows.waiting(object) {
            if let Some(pending) = self.pending.get_mut(&sequence) {
                self.dispatcher.dispatch(now, unanswered, sequence, pending, out);
            }
        }
    }

    /// An operation was answered: those of its object that waited for it go out.
    fn leave_window(&mut self, now: Now, sequence: u64, pending: &Pending, out: &mut Vec<Effect>) {
        let Some(object) = pending.changes() else { return };
        self.dispatcher.windows.answered(object, sequence);
        self.dispatch_waiting(now, object, out);
    }

    fn goes_by_turns(&self, job: u64) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.by_turns)
    }

    /// Issues as many parts of a job as its window allows, or as it has turns, and ends it when all are answered.
    fn advance(&mut self, now: Now, id: u64, out: &mut Vec<Effect>) {
        if self.goes_by_turns(id) {
            self.turns.enter(id);
            self.take_turns(now, out);
        } else {
            while self.issue(now, id, out) {}
        }
        self.conclude(id, out);
    }

    /// Issues another part of a job; false if there is none, or no room for one.
    fn issue(&mut self, now: Now, id: u64, out: &mut Vec<Effect>) -> bool {
        let unanswered = self.unanswered().min(self.sequence + 1);
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let Some((part, pg, action)) = job.next_part() else {
            return false;
        };
        self.sequence += 1;
        let mut pending = Pending::new(now, id, part, pg, action, job.caller);
        if let Some(object) = pending.changes() {
            let units = pending.action.units();
            self.dispatcher.windows.issued(object, self.sequence, units);
        }
        self.dispatcher
            .dispatch(now, unanswered, self.sequence, &mut pending, out);
        self.pending.insert(self.sequence, pending);
        true
    }

    /// Ends a job if all of it is answered.
    fn conclude(&mut self, id: u64, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let early = mutant!(self.dispatcher, AnswerEarly) && job.is_partly_written();
        let unclean = mutant!(self.dispatcher, PurgeUnclean) && job.is_swept();
        if (job.is_complete() || early || unclean)
            && let Some(job) = self.jobs.remove(&id)
        {
            self.tickets.remove(&job.ticket);
            let backwards = mutant!(self.dispatcher, ReadSpliceWrong);
            out.push(Effect::Done(job.ticket, job.into_result(backwards)));
        }
    }

    fn ended(&mut self, now: Now, pending: Pending, result: Result<OpValue, OpError>, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&pending.job) else {
            return;
        };
        job.moved = now;
        if result.is_ok() {
            job.executed(pending.pg, pending.epochs().expect("what was answered was sent"));
        }
        match result {
            Ok(OpValue::Changed | OpValue::Passed) => job.part_done(pending.part, Vec::new()),
            Ok(OpValue::Data(data)) => job.part_done(pending.part, data),
            Ok(OpValue::Objects(numbers)) => {
                job.listed(pending.pg, &numbers, numbers.len() < LIST_LIMIT);
            }
            Err(OpError::NoSpace) => job.part_failed(IoError::NoSpace),
            Err(OpError::Damaged | OpError::Malformed) => job.part_failed(IoError::Damaged),
            Err(
                OpError::NotPrimary
                | OpError::OtherEpoch(_)
                | OpError::Unregistered
                | OpError::Outdated
                | OpError::Overtaken,
            ) => unreachable!("an operation that was sent on has not ended"),
        }
        job.settle(&self.dispatcher.map);
        self.advance(now, pending.job, out);
    }
}

fn key_of(event: &Event) -> &str {
    match event {
        Event::Put(kv) => &kv.key,
        Event::Delete { key, .. } => key,
    }
}

fn concerns_pgs(event: &Event) -> bool {
    let key = key_of(event);
    key.starts_with(keys::PGS) || key.starts_with(keys::POOLS)
}

fn concerns_history(event: &Event) -> bool {
    let key = key_of(event);
    key.starts_with(keys::PGS) && key.ends_with("/history")
}

#[cfg(test)]
mod tests;
