//! The operations of users: begun once, sent as often as it takes, answered once.

use bytes::Bytes;
use trivet_client::{ImageOp, IoError};
use trivet_core::{ImageId, Now};
use trivet_gateway::metrics::Protocol;

use super::UserEvent;
use super::namespace::Asked;
use super::session::{Ask, Found, Refusal};
use super::sizes::SizedOp;
use crate::event::Event;
use crate::register::OpRef;
use crate::stamp;
use crate::tree::model::OK;
use crate::workload::{Action, Step};
use crate::world::{Phase, World};

/// Operations of a user under way at most.
pub(crate) const DEEPEST: usize = 8;
/// One operation in so many is a flush.
const FLUSHES: u64 = 40;
/// One operation of an NFS user in so many is about names.
const NAMES: u64 = 4;

/// An operation without an answer.
pub struct Pending {
    /// What the history calls it; a flush is nothing to it.
    op: Option<OpRef>,
    ask: Ask,
    action: Action,
    /// The image and the first sector.
    place: (u64, u64),
    /// When it was begun.
    pub since: Now,
    /// When it was sent last.
    pub sent: Now,
    /// The connection that it was sent on.
    pub path: Option<usize>,
    /// The gateway that was asked first.
    first: Option<usize>,
    /// Whether another one was asked since.
    elsewhere: bool,
    /// What it is of the file whose size changes, if it is about that.
    sized: Option<SizedOp>,
    /// What the model of the tree calls it, if it is about names.
    pub tree: Option<u64>,
    /// Until when the gateways that were asked knew the tree, the one that knew least.
    knew: Now,
    /// It is not asked again earlier.
    pub(super) not_before: Now,
}

impl Pending {
    /// When it was begun, and where it is: image, sector, and how many bytes.
    pub(super) fn began(&self) -> (Now, (u64, u64, u64)) {
        (self.since, (self.place.0, self.place.1, self.bytes()))
    }

    /// Whether it writes to a file beside its user's image.
    pub(super) fn is_put(&self) -> bool {
        matches!(self.ask, Ask::Put { .. })
    }

    /// Whether it writes to the file whose size changes.
    pub(super) fn writes_sized(&self) -> bool {
        self.sized.is_some() && matches!(self.ask, Ask::Write { .. })
    }

    /// Whether the answer refuses a change of names.
    fn is_refused(&self, answer: &Result<Found, Refusal>) -> bool {
        let is_refusal = matches!(answer, Ok(Found::Name(reply)) if reply.status != OK);
        let changes = matches!(&self.ask, Ask::Name(call) if call.changes());
        is_refusal && changes && self.tree.is_some()
    }

    /// How many bytes it is about.
    pub(super) fn bytes(&self) -> u64 {
        match &self.ask {
            Ask::Read { len, .. } | Ask::Zero { len, .. } => u64::from(*len),
            Ask::Write { data, .. } | Ask::Put { data, .. } => data.len() as u64,
            Ask::Flush | Ask::Name(_) => 0,
        }
    }
}

impl World {
    /// A user thinks of its next operation.
    pub(super) fn user_thinks(&mut self, user: usize) {
        if self.phase != Phase::Safety {
            return;
        }
        let pause = self.workload.pause(self.now);
        self.schedule.at(self.now + pause, Event::User(user, UserEvent::Think));
        let slot = &mut self.users[user];
        if slot.pending.len() >= self.swarm.depth.min(DEEPEST) || slot.paths.iter().all(|path| !path.ready) {
            return;
        }
        if slot.resizes {
            return self.user_resizes(user);
        }
        if slot.random.one_in(FLUSHES) {
            return self.user_begins(user, None, Ask::Flush, Action::Read, (0, 0));
        }
        if slot.protocol == Protocol::Nfs && slot.random.one_in(NAMES) {
            return self.user_names(user);
        }
        let zeroes = slot.protocol != Protocol::Nfs;
        let step = self.workload.next_on(self.now, slot.image, slot.writer, zeroes);
        let op = step.invoke(self.now, &mut self.history);
        self.trace.line(
            self.now,
            format_args!(
                "user {user} begins {:?} of {} {}+{}",
                step.action, step.image, step.first, step.sectors
            ),
        );
        let (action, place) = (step.action, (step.image.0, step.first));
        self.user_begins(user, Some(op), ask(step), action, place);
    }

    fn user_begins(&mut self, user: usize, op: Option<OpRef>, ask: Ask, action: Action, place: (u64, u64)) {
        self.begin_pending(
            user,
            Pending {
                op,
                ask,
                action,
                place,
                since: self.now,
                sent: self.now,
                path: None,
                first: None,
                elsewhere: false,
                sized: None,
                tree: None,
                knew: self.now,
                not_before: Now(0),
            },
        );
    }

    /// An operation on the file whose size changes begins.
    pub(super) fn begin_sized(&mut self, user: usize, op: SizedOp, ask: Ask, place: (u64, u64)) {
        let action = match op {
            SizedOp::Change(number) => Action::Write(number),
            SizedOp::Read { .. } => Action::Read,
        };
        self.begin_pending(
            user,
            Pending {
                op: None,
                ask,
                action,
                place,
                since: self.now,
                sent: self.now,
                path: None,
                first: None,
                elsewhere: false,
                sized: Some(op),
                tree: None,
                knew: self.now,
                not_before: Now(0),
            },
        );
    }

    /// A write to some file begins.
    pub(super) fn begin_put(&mut self, user: usize, file: Bytes, offset: u64, data: Bytes) {
        self.user_begins(user, None, Ask::Put { file, offset, data }, Action::Write(0), (0, 0));
    }

    /// An operation on names begins.
    pub(super) fn begin_names(&mut self, user: usize, tree: u64, ask: Ask) {
        self.begin_pending(
            user,
            Pending {
                op: None,
                ask,
                action: Action::Read,
                place: (0, 0),
                since: self.now,
                sent: self.now,
                path: None,
                first: None,
                elsewhere: false,
                sized: None,
                tree: Some(tree),
                knew: self.now,
                not_before: Now(0),
            },
        );
    }

    fn begin_pending(&mut self, user: usize, pending: Pending) {
        let slot = &mut self.users[user];
        slot.number += 1;
        slot.pending.insert(slot.number, pending);
        self.ask_again(user);
    }

    /// What nobody was asked for, or nobody who is still there, is asked for on a connection that is.
    pub(crate) fn ask_again(&mut self, user: usize) {
        let slot = &self.users[user];
        let unasked: Vec<u64> = slot
            .pending
            .iter()
            .filter(|(_, pending)| pending.path.is_none() && pending.not_before <= self.now)
            .map(|(number, _)| *number)
            .collect();
        for number in unasked {
            self.send_operation(user, number);
        }
    }

    fn send_operation(&mut self, user: usize, number: u64) {
        let knows: Vec<Now> = (0..self.gateways.len())
            .map(|gateway| self.knows_until(gateway))
            .collect();
        let slot = &mut self.users[user];
        let ready: Vec<usize> = (0..slot.paths.len()).filter(|path| slot.paths[*path].ready).collect();
        let Some(&path) = slot.random.pick(&ready) else {
            return;
        };
        let (Some(pending), gateway) = (slot.pending.get_mut(&number), slot.paths[path].gateway) else {
            return;
        };
        (pending.path, pending.sent) = (Some(path), self.now);
        pending.knew = pending.knew.min(knows[gateway]);
        if pending.first.is_some() {
            self.traffic.repeats += 1;
            pending.op.into_iter().for_each(|op| self.history.repeat(op));
        }
        pending.elsewhere |= *pending.first.get_or_insert(gateway) != gateway;
        if let Some(SizedOp::Change(number)) = pending.sized {
            self.sized.ask(number);
        }
        let mut out = Vec::new();
        if let Some(session) = &mut slot.paths[path].session {
            session.ask(number, &pending.ask, &mut out);
        }
        self.trace.line(
            self.now,
            format_args!("user {user} asks gateway {gateway} for {number}"),
        );
        self.user_sends(user, path, out);
    }

    /// An operation was answered.
    pub(super) fn user_answered(&mut self, user: usize, path: usize, number: u64, answer: Result<Found, Refusal>) {
        let slot = &mut self.users[user];
        if answer == Err(Refusal::Later) {
            // It is asked again with the next look.
            return self.user_waits(user, number);
        }
        let is_refused = slot
            .pending
            .get(&number)
            .is_some_and(|pending| pending.is_refused(&answer));
        if is_refused && self.loses_refusal(user, path, number) {
            return;
        }
        let slot = &mut self.users[user];
        let gateway = slot.paths[path].gateway;
        let protocol = slot.protocol;
        let Some(pending) = slot.pending.remove(&number) else {
            return self.fail(format!("user {user}: operation {number} answered twice"));
        };
        self.traffic.answered[protocol as usize] += 1;
        self.traffic.taken_over += u64::from(pending.first != Some(gateway));
        let outcome = answer.as_ref().map(|_| "ok");
        self.trace.line(
            self.now,
            format_args!("user {user} is told {number} by {gateway}: {outcome:?}"),
        );
        if let Some(op) = pending.sized {
            return self.user_resized((op, pending.since), answer);
        }
        if let Some((number, Ok(Found::Name(reply)))) = pending.tree.zip(Some(&answer)) {
            let knew = pending.knew.min(self.knows_until(gateway));
            let asked = Asked {
                begun: pending.since,
                knew,
                elsewhere: pending.elsewhere,
            };
            return self.user_named((user, gateway), number, asked, reply);
        }
        match (answer, pending.op) {
            (Err(refusal), op) => self.user_refused(user, &pending, op, &refusal),
            (Ok(Found::Data(data)), Some(op)) => self.user_read(&pending, op, &data),
            (Ok(_), Some(op)) if pending.action != Action::Read => {
                self.written(ImageId(pending.place.0), pending.since);
                self.history.end_ok(op, self.now);
            }
            (Ok(_), Some(_)) => self.fail(format!("user {user}: a read without data")),
            (Ok(_), None) => {}
        }
    }

    fn user_waits(&mut self, user: usize, number: u64) {
        let slot = &mut self.users[user];
        if let Some(mut pending) = slot.pending.remove(&number) {
            // It was not done: asking again is no repetition, and a call of its own, as Linux does it.
            (pending.path, pending.first, pending.elsewhere) = (None, None, false);
            if let Some(SizedOp::Change(number)) = pending.sized {
                self.sized.put_off(number);
            }
            slot.number += 1;
            slot.pending.insert(slot.number, pending);
        }
    }

    fn user_read(&mut self, pending: &Pending, op: OpRef, data: &Bytes) {
        let (image, first) = pending.place;
        let result = match stamp::parse_all(std::slice::from_ref(data), image, first) {
            Err((sector, lie)) => Err(format!("image {image:x} sector {sector}: {lie}")),
            Ok(contents) => {
                let ended = self.history.end_read(op, self.now, &contents);
                ended.map_err(|violation| violation.to_string())
            }
        };
        if let Err(what) = result {
            self.fail(what);
        }
    }

    fn user_refused(&mut self, user: usize, pending: &Pending, op: Option<OpRef>, refusal: &Refusal) {
        if let Some(op) = op {
            self.history.end_failed(op);
        }
        let allowed = match refusal {
            Refusal::NoSpace => self.may_fail(IoError::NoSpace, pending.action, pending.since),
            Refusal::Io => self.may_fail(IoError::Damaged, pending.action, pending.since),
            Refusal::Gone => pending.is_put(),
            Refusal::Later | Refusal::Other(_) => false,
        };
        if !allowed {
            let (image, first) = pending.place;
            let action = pending.action;
            self.fail(format!("user {user}: {action:?} of {image:x} at {first}: {refusal:?}"));
        }
    }
}

/// A step in the words of a protocol.
fn ask(step: Step) -> Ask {
    let len = |len: u64| u32::try_from(len).expect("short operations");
    match step.op {
        ImageOp::Read { offset, len: bytes } => Ask::Read {
            offset,
            len: len(bytes),
        },
        ImageOp::Write { offset, data } => Ask::Write {
            offset,
            data: trivet_core::buffer::join(data),
        },
        ImageOp::Zero { offset, len: bytes } => Ask::Zero {
            offset,
            len: len(bytes),
        },
        ImageOp::Purge => panic!("users remove no images this way"),
    }
}
