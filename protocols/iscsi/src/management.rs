//! Task management functions (RFC 7143 11.5) and logout (11.14).
//!
//! A task that is aborted is answered never. A function (or logout) is answered when no operation of the tasks it covers is
//! under way in the backend any more: nothing of them executes after the answer.

use bytes::Bytes;
use trivet_scsi::{Sense, decode_lun};

use crate::connection::{Action, Connection, Io, Phase, Reject};
use crate::pdu::{Bhs, opcode};
use crate::task::{Tag, Task};
use crate::wire::Stat;
use crate::{IMMEDIATE, WINDOW};

/// Functions that may wait at once.
const MAX_PENDING: usize = (WINDOW + IMMEDIATE) as usize;

/// Function codes.
const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_TASK_SET: u8 = 4;
const LOGICAL_UNIT_RESET: u8 = 5;
const TARGET_WARM_RESET: u8 = 6;
const TARGET_COLD_RESET: u8 = 7;
const TASK_REASSIGN: u8 = 8;

/// Response codes.
const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_UNIT: u8 = 2;
const NO_REASSIGN: u8 = 4;
const NOT_SUPPORTED: u8 = 5;

/// Logout's reason "remove the connection for recovery", and the answer to it.
const FOR_RECOVERY: u8 = 2;
const NO_RECOVERY: u8 = 2;

/// An answer that waits for tasks to end.
#[derive(Debug)]
pub(crate) struct Pending {
    reply: Bhs,
    waits: Vec<Tag>,
    /// The connection ends with the answer.
    ends: bool,
}

impl Connection {
    /// A task management request.
    pub(crate) fn manage(&mut self, bhs: &Bhs, io: &mut Io<'_>) {
        let Some(target) = self.target else {
            return self.reject(bhs, Reject::NotSupported, io.out);
        };
        if self.management.len() >= MAX_PENDING {
            return self.reject(bhs, Reject::TooManyImmediate, io.out);
        }
        let lun = decode_lun(bhs.lun()).filter(|lun| io.targets.unit(target, *lun).is_some());
        let function = bhs.flags() & 0x7F;
        let (response, waits) = match (function, lun) {
            (ABORT_TASK, _) => match self.tasks.find(bhs.word20()) {
                Some(tag) => (COMPLETE, self.abort(vec![tag])),
                None => (NO_TASK, Vec::new()),
            },
            (ABORT_TASK_SET | CLEAR_TASK_SET | LOGICAL_UNIT_RESET, None) => (NO_UNIT, Vec::new()),
            (ABORT_TASK_SET | CLEAR_TASK_SET, Some(_)) => (COMPLETE, self.abort_where(lun)),
            (LOGICAL_UNIT_RESET, Some(_)) => (COMPLETE, self.reset_by_initiator(target, lun, io)),
            (TARGET_WARM_RESET | TARGET_COLD_RESET, _) => (COMPLETE, self.reset_by_initiator(target, None, io)),
            (TASK_REASSIGN, _) => (NO_REASSIGN, Vec::new()),
            _ => (NOT_SUPPORTED, Vec::new()),
        };
        let reply = Bhs::new(opcode::MANAGEMENT_RESPONSE, 0x80)
            .set(2, [response])
            .put(16, bhs.itt());
        self.await_tasks(
            Pending {
                reply,
                waits,
                ends: function == TARGET_COLD_RESET,
            },
            io.out,
        );
    }

    /// A logout request; reasons 0 and 1 are the same with one connection per session.
    pub(crate) fn logout(&mut self, bhs: &Bhs, io: &mut Io<'_>) {
        let reason = bhs.flags() & 0x7F;
        if reason > FOR_RECOVERY {
            return self.reject(bhs, Reject::Protocol, io.out);
        }
        let refused = reason == FOR_RECOVERY;
        let response = if refused { NO_RECOVERY } else { COMPLETE };
        let reply = Bhs::new(opcode::LOGOUT_RESPONSE, 0x80)
            .set(2, [response])
            .put(16, bhs.itt());
        let waits = if refused { Vec::new() } else { self.abort_where(None) };
        self.await_tasks(
            Pending {
                reply,
                waits,
                ends: !refused,
            },
            io.out,
        );
    }

    fn await_tasks(&mut self, pending: Pending, out: &mut Vec<Bytes>) {
        if pending.ends {
            self.phase = Phase::Closing;
        }
        self.management.push(pending);
        self.settle(out);
    }

    /// Sends the answers that wait for nothing any more, in the order of the requests.
    pub(crate) fn settle(&mut self, out: &mut Vec<Bytes>) {
        let mut index = 0;
        while index < self.management.len() {
            let waits = &mut self.management[index].waits;
            waits.retain(|tag| self.tasks.get(*tag).is_some());
            if !waits.is_empty() {
                index += 1;
                continue;
            }
            let Pending { reply, ends, .. } = self.management.remove(index);
            self.wire.send(reply, Stat::Take, &[], out);
            if ends {
                self.phase = Phase::Ended;
            }
        }
    }

    fn reset_by_initiator(&mut self, target: u64, lun: Option<u64>, io: &mut Io<'_>) -> Vec<Tag> {
        io.actions.push(Action::Reset { target, lun });
        self.reset_units(lun)
    }

    /// Ends the tasks of a unit, or of all, and raises a unit attention.
    pub(crate) fn reset_units(&mut self, lun: Option<u64>) -> Vec<Tag> {
        self.attentions.raise(lun, Sense::DEVICE_RESET);
        self.abort_where(lun)
    }

    /// Aborts the tasks of a unit, or all.
    fn abort_where(&mut self, lun: Option<u64>) -> Vec<Tag> {
        let tags = self.tasks.select(|task: &Task| lun.is_none() || task.number == lun);
        self.abort(tags)
    }

    /// Aborts tasks. Those without operations under way end now; the others are returned.
    fn abort(&mut self, mut tags: Vec<Tag>) -> Vec<Tag> {
        tags.retain(|tag| match self.tasks.get(*tag) {
            Some(task) if task.pending > 0 => {
                task.aborted = true;
                true
            }
            _ => {
                self.release(*tag);
                false
            }
        });
        tags
    }
}
