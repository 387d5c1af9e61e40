//! Where an object operation is sent, and when it is sent again.

use std::time::Duration;

use trivet_core::map::ClusterMap;
use trivet_core::message::{Action, Message, Op};
use trivet_core::{ClientId, Epoch, Now, ObjectId, OpId, OsdId, PgId};

#[cfg(any(test, feature = "mutants"))]
use crate::Mutant;
use crate::job::Part;
use crate::window::Windows;
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
    sent: Option<Sent>,
}

/// Where an operation was sent, and when.
#[derive(Clone, Copy, Debug)]
struct Sent {
    to: OsdId,
    epoch: Epoch,
    at: Now,
    /// When it may be sent there again, after `at`.
    again: Duration,
    refused: bool,
}

impl Sent {
    fn is_due(&self, now: Now) -> bool {
        let wait = if self.refused { REFUSED_AFTER } else { self.again };
        now.since(self.at) >= wait
    }
}

impl Pending {
    pub(crate) fn new(job: u64, part: Part, pg: PgId, action: Action) -> Pending {
        Pending {
            job,
            part,
            pg,
            action,
            sent: None,
        }
    }

    /// The object that it changes, if it changes one.
    pub(crate) fn changes(&self) -> Option<ObjectId> {
        self.action.object().filter(|_| self.action.is_mutation())
    }

    /// `from` does not act for the PG. Only the OSD that it was last sent to can put it back into waiting.
    pub(crate) fn refused(&mut self, from: OsdId) {
        if let Some(sent) = &mut self.sent
            && sent.to == from
        {
            sent.refused = true;
        }
    }
}

/// What it takes to send operations.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub id: ClientId,
    pub map: ClusterMap,
    pub windows: Windows,
    #[cfg(any(test, feature = "mutants"))]
    pub mutant: Option<Mutant>,
}

impl Dispatcher {
    pub(crate) fn new(id: ClientId) -> Dispatcher {
        Dispatcher {
            id,
            map: ClusterMap::default(),
            windows: Windows::default(),
            #[cfg(any(test, feature = "mutants"))]
            mutant: None,
        }
    }

    /// Sends an operation to the acting primary, unless there is none, it is there already, or has to wait for
    /// earlier ones of its object.
    pub(crate) fn dispatch(&self, now: Now, sequence: u64, pending: &mut Pending, out: &mut Vec<Effect>) {
        let Some(claim) = self.map.claims.get(&pending.pg).map(|claim| &claim.value) else {
            return;
        };
        let there = pending
            .sent
            .filter(|sent| sent.to == claim.primary && sent.epoch == claim.epoch);
        if !claim.active || there.is_some_and(|sent| !sent.is_due(now)) {
            return;
        }
        let Some(answered) = self.answered(sequence, pending) else {
            return;
        };
        let repeated = pending.sent.is_some();
        if repeated && mutant!(self, ForgetResend) {
            return;
        }
        let again = match there {
            Some(sent) if !sent.refused => (sent.again * 2).min(RESEND_LIMIT),
            _ => RESEND_AFTER,
        };
        pending.sent = Some(Sent {
            to: claim.primary,
            epoch: claim.epoch,
            at: now,
            again,
            refused: false,
        });
        let op = Op {
            id: self.op_id(sequence, repeated),
            pg: pending.pg,
            answered,
            action: pending.action.clone(),
        };
        out.push(Effect::Send(claim.primary, Message::Op(op)));
    }

    /// The smallest sequence of a mutation of the same object that has no answer; none while this one has to wait.
    /// What changes nothing is not remembered, and claims nothing.
    fn answered(&self, sequence: u64, pending: &Pending) -> Option<u64> {
        let Some(object) = pending.changes() else {
            return Some(0);
        };
        let answered = self.windows.unanswered(object, sequence)?;
        if mutant!(self, AnsweredTooHigh) {
            return Some(sequence + 1);
        }
        Some(answered)
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
