//! Where an object operation is sent, and when it is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::map::ClusterMap;
use trivet_core::message::{Action, Message, Op};
use trivet_core::{ClientId, Epoch, Now, ObjectId, OpId, OsdId, PgId, Tick};

#[cfg(any(test, feature = "mutants"))]
use crate::Mutant;
use crate::job::Part;
use crate::stamps::{Caller, Stamps};
use crate::window::{Place, Windows};
use crate::{Effect, mutant};

/// An operation that got no answer is sent again after this time. The primary recognises it.
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(1);
/// The time doubles with every repetition to the same primary, up to this.
pub(crate) const RESEND_LIMIT: Duration = Duration::from_secs(5);
/// An operation that was refused by the primary that the map names is not sent to it again earlier.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_millis(100);
/// What a deliberate bug makes a new id of an old one with; no client comes so far.
const AGAIN: u64 = 1 << 63;

/// One object operation on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub job: u64,
    pub part: Part,
    pub pg: PgId,
    pub action: Action,
    /// Who wants it.
    pub caller: Caller,
    /// When it was issued.
    pub since: Now,
    sent: Option<Sent>,
}

/// Those that an operation was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epochs {
    pub first: Epoch,
    pub last: Epoch,
}

impl Epochs {
    /// These and others.
    pub(crate) fn and(self, other: Epochs) -> Epochs {
        Epochs {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// An OSD, and the epoch that an operation is meant for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub osd: OsdId,
    pub epoch: Epoch,
}

/// Where an operation was sent, and when.
#[derive(Clone, Copy, Debug)]
struct Sent {
    to: Target,
    /// The first epoch that it was meant for, wherever.
    first: Epoch,
    at: Now,
    /// When it may be sent there again, after `at`.
    again: Duration,
    /// The OSD refused it.
    refused: bool,
    /// It had been refused there for its epoch before.
    prompted: bool,
    /// What it said of its caller.
    stamp: Tick,
    /// That was too long ago: it waits for another stamp.
    late: bool,
}

impl Sent {
    /// Whether it may be sent to `target` now, with this stamp.
    fn is_due(&self, now: Now, target: Target, stamp: Tick) -> bool {
        if self.late && self.to.osd == target.osd {
            // What was known of the caller may have grown too old meanwhile: then it is asked for anew.
            return self.stamp != stamp || now.since(self.at) >= RESEND_LIMIT;
        }
        now.since(self.at) >= self.pause(target)
    }

    /// Another primary or epoch is tried at once, unless the same OSD has refused one epoch after the other.
    fn pause(&self, target: Target) -> Duration {
        match (self.to == target, self.refused) {
            (true, false) => self.again,
            (true, true) => REFUSED_AFTER,
            (false, true) if self.prompted && self.to.osd == target.osd => REFUSED_AFTER,
            (false, _) => Duration::ZERO,
        }
    }

    /// The same operation goes to `target` now.
    fn repeated(&self, now: Now, target: Target, stamp: Tick) -> Sent {
        let lost = self.to == target && !self.refused;
        Sent {
            again: if lost {
                (self.again * 2).min(RESEND_LIMIT)
            } else {
                RESEND_AFTER
            },
            prompted: self.refused && self.to.osd == target.osd,
            first: self.first.min(target.epoch),
            ..Sent::first(now, target, stamp)
        }
    }

    fn first(now: Now, to: Target, stamp: Tick) -> Sent {
        Sent {
            to,
            first: to.epoch,
            at: now,
            again: RESEND_AFTER,
            refused: false,
            prompted: false,
            stamp,
            late: false,
        }
    }
}

impl Pending {
    pub(crate) fn new(now: Now, job: u64, part: Part, pg: PgId, action: Action, caller: Caller) -> Pending {
        Pending {
            job,
            part,
            pg,
            action,
            caller,
            since: now,
            sent: None,
        }
    }

    /// The object that it changes, if it changes one.
    pub(crate) fn changes(&self) -> Option<ObjectId> {
        self.action.object().filter(|_| self.action.is_mutation())
    }

    /// Whoever executed it did so in one of these epochs; none if it was not sent.
    pub(crate) fn epochs(&self) -> Option<Epochs> {
        self.sent.map(|sent| Epochs {
            first: sent.first,
            last: sent.to.epoch,
        })
    }

    /// It is for another PG now: epochs of the one before say nothing of this one.
    pub(crate) fn move_to(&mut self, pg: PgId) {
        self.pg = pg;
        if let Some(sent) = &mut self.sent {
            sent.first = Epoch(0);
        }
    }

    /// Whether this is the OSD that it was last sent to.
    pub(crate) fn is_at(&self, osd: OsdId) -> bool {
        self.sent.is_some_and(|sent| sent.to.osd == osd)
    }
}

/// What it takes to send operations.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub id: ClientId,
    pub map: ClusterMap,
    pub windows: Windows,
    pub stamps: Stamps,
    /// Epochs beyond those of the map's claims, as the OSDs say that act in them.
    hints: BTreeMap<PgId, Target>,
    #[cfg(any(test, feature = "mutants"))]
    pub mutant: Option<Mutant>,
}

impl Dispatcher {
    pub(crate) fn new(id: ClientId) -> Dispatcher {
        Dispatcher {
            id,
            map: ClusterMap::default(),
            windows: Windows::default(),
            stamps: Stamps::default(),
            hints: BTreeMap::new(),
            #[cfg(any(test, feature = "mutants"))]
            mutant: None,
        }
    }

    /// `osd` says that it acts for the PG in this epoch, of which the map knows nothing yet.
    pub(crate) fn hint(&mut self, pg: PgId, osd: OsdId, epoch: Epoch) {
        let known = self.map.claims.get(&pg).map(|claim| claim.value.epoch);
        let hinted = self.hints.get(&pg).map(|hint| hint.epoch);
        if known.is_some_and(|known| known.max(hinted.unwrap_or(known)) < epoch) {
            self.hints.insert(pg, Target { osd, epoch });
        }
    }

    /// The map has changed: it knows more than some of the hints.
    pub(crate) fn drop_hints(&mut self) {
        let claims = &self.map.claims;
        self.hints
            .retain(|pg, hint| claims.get(pg).is_some_and(|claim| claim.value.epoch < hint.epoch));
    }

    /// The acting primary of a PG and its epoch, if it serves.
    fn target(&self, pg: PgId) -> Option<Target> {
        let claim = &self.map.claims.get(&pg)?.value;
        let hint = self.hints.get(&pg);
        if let Some(hint) = hint.filter(|hint| hint.osd == claim.primary && hint.epoch > claim.epoch) {
            return Some(*hint);
        }
        claim.active.then_some(Target {
            osd: claim.primary,
            epoch: claim.epoch,
        })
    }

    /// Sends an operation to the acting primary, unless there is none, it is there already, or has to wait for
    /// earlier ones of its object; whether it was sent. All operations below `unanswered` have an answer.
    pub(crate) fn dispatch(
        &mut self,
        now: Now,
        unanswered: u64,
        sequence: u64,
        pending: &mut Pending,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(target) = self.target(pending.pg) else {
            return false;
        };
        let doubted = pending.caller != Caller::Own && self.stamps.doubts(target.osd);
        if doubted && pending.action.is_mutation() {
            return false;
        }
        let stamp = match pending.action.is_mutation() {
            true => self.stamps.stamp(target.osd, pending.caller),
            false => Tick::default(),
        };
        if pending.sent.is_some_and(|sent| !sent.is_due(now, target, stamp)) {
            return false;
        }
        let repeated = pending.sent.is_some();
        if repeated && mutant!(self, ForgetResend) {
            return false;
        }
        let Some((answered, previous)) = self.admit(now, sequence, pending, target) else {
            return false;
        };
        let sent = match &pending.sent {
            Some(sent) => sent.repeated(now, target, stamp),
            None => Sent::first(now, target, stamp),
        };
        pending.sent = Some(sent);
        let op = Op {
            id: self.op_id(sequence, repeated),
            pg: pending.pg,
            epoch: target.epoch,
            settled: unanswered.min(sequence),
            answered,
            previous,
            stamp,
            action: pending.action.clone(),
        };
        out.push(Effect::Send(target.osd, Message::Op(op)));
        true
    }

    /// The smallest sequence of a mutation of the same object that has no answer, and the last one before this; none while
    /// this one has to wait. What changes nothing is not remembered, and claims nothing.
    fn admit(&mut self, now: Now, sequence: u64, pending: &Pending, target: Target) -> Option<(u64, u64)> {
        let Some(object) = pending.changes() else {
            return Some((0, 0));
        };
        let (answered, previous) = self.windows.send(now, object, sequence, target)?;
        if mutant!(self, AnsweredTooHigh) {
            return Some((sequence + 1, previous));
        }
        Some((answered, previous))
    }

    /// `from` does not act for the PG of an operation, or not in its epoch, which then comes back, or what was sent there may
    /// be lost. Only the OSD that it was last sent to can put it back into waiting.
    pub(crate) fn refused(&mut self, from: OsdId, sequence: u64, pending: &mut Pending) -> Option<Epoch> {
        let sent = pending.sent.as_mut().filter(|sent| sent.to.osd == from)?;
        sent.refused = true;
        let epoch = sent.to.epoch;
        self.put(sequence, pending, Place::Here);
        Some(epoch)
    }

    /// What an operation said of its caller was too old: it waits until there is more to say.
    pub(crate) fn is_late(&mut self, now: Now, sequence: u64, pending: &mut Pending) {
        if let Some(sent) = &mut pending.sent {
            sent.late = true;
        }
        self.put(sequence, pending, Place::Late(now));
    }

    fn put(&mut self, sequence: u64, pending: &Pending, place: Place) {
        if let Some(object) = pending.changes() {
            self.windows.moved(object, sequence, place);
        }
    }

    fn op_id(&self, sequence: u64, repeated: bool) -> OpId {
        let sequence = if repeated && mutant!(self, NewIdOnResend) {
            sequence | AGAIN
        } else {
            sequence
        };
        OpId {
            client: self.id,
            sequence,
        }
    }

    /// The sequence of the operation that has this id; none of another client's.
    pub(crate) fn sequence(&self, id: OpId) -> Option<u64> {
        let sequence = if mutant!(self, NewIdOnResend) {
            id.sequence & !AGAIN
        } else {
            id.sequence
        };
        (id.client == self.id).then_some(sequence)
    }
}
