//! What happens in a run, as data.

use std::fmt;
use std::time::Duration;

use trivet_core::disk::{DiskDone, IoId};
use trivet_core::kv::{LeaseId, Revision, Txn, TxnOutcome};
use trivet_core::message::{Action, Message, PeerBody};
use trivet_core::{NodeId, Now, OsdId};

use crate::exile::Exile;
use crate::handover::Handover;
use crate::network::Place;
use crate::random::mix;
use crate::streams::{Segment, Side, StreamId};
use crate::users::UserEvent;
use crate::workload::Step;

/// Counts the lives of the process at a place: what was meant for an earlier one is nobody's business any more.
pub type Life = u32;

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A tick of a machine.
    Tick(Place, Life),
    /// A process looks after its lease.
    Renew(Place, Life),
    /// A message arrives.
    Deliver(Box<Delivery>),
    /// A process hears that its connection with this OSD broke.
    Lost(Place, Life, OsdId),
    /// A message that a node sent to itself arrives.
    Local(Place, Life, Box<Message>),
    /// A disk executes an operation.
    Disk(Place, Life, IoId),
    /// A process hears that its disk has.
    Done(Place, Life, DiskDone),
    /// A request arrives at the metadata store, on this connection.
    Ask(Place, Life, u32, Now, Ask),
    /// An answer of the metadata store arrives, on this connection.
    Answer(Place, Life, u32, Now, Answer),
    /// Nobody waits for the outcome of a transaction any more.
    GiveUp(Place, Life, u64),
    /// A watch has something to say.
    Watch(Place, Life),
    /// A client thinks of an operation.
    Submit(Place, Life),
    /// A client that goes on finds a request that came while it was stopped.
    Request(Place, Life, u64, Box<Step>),
    /// A client sees that the caller of an operation is still there.
    Seen(Place, Life, u64),
    /// A client hears that the caller of an operation has left.
    Left(Place, Life, u64),
    /// Something arrives at the kernel of one end of a connection between a user and a gateway.
    Arrive(StreamId, Side, Segment),
    /// The kernel of the gateway's end asks whether the user's is there.
    Probe(StreamId),
    /// The network card of a machine that stood still hands on what came for this connection.
    Card(StreamId),
    /// A gateway looks at one of these connections.
    Readable(Place, Life, StreamId),
    /// A user does something by itself.
    User(usize, UserEvent),
    /// A process starts, if this is still the life before it.
    Start(Place, Life),
    /// A process goes on.
    Resume(Place, Life),
    /// A process is killed and starts again after a while.
    Kill(Place, Duration),
    /// What an OSD was doomed to, if this is still the life.
    Doom(Place, Life, Doom),
    /// A disk is replaced, if this is still the life.
    Replace(Place, Life),
    /// A kind of trouble is due.
    Strike(usize),
    /// A trouble ends.
    Undo(Undo),
    /// OSDs are cut off from the others, with a client.
    Exile(Box<Exile>),
    /// The callers of a client leave it, and a primary is killed.
    Handover(Handover),
    /// An image is emptied, and rests until then.
    Empty(Now),
    /// Storm and calm take turns.
    Season,
    /// The world looks after itself.
    Chores,
}

/// A message on its way.
#[derive(Debug)]
pub struct Delivery {
    /// Where it was sent.
    pub from: Place,
    /// Where it goes.
    pub to: Place,
    /// On which connection.
    pub connection: u32,
    /// Who sent it.
    pub sender: NodeId,
    /// Who is to get it.
    pub receiver: NodeId,
    /// What.
    pub message: Message,
}

/// What a process asks of the metadata store.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A transaction of this ticket.
    Txn(u64, Txn),
    /// A lease.
    Grant,
    /// A lease is kept alive.
    Keep(LeaseId),
    /// A lease is given back.
    Revoke(LeaseId),
    /// Which commit was the last one; asked then, by the asker's clock.
    Last(Now),
}

/// What the metadata store answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Ask::Txn`].
    Txn(u64, TxnOutcome),
    /// To [`Ask::Grant`].
    Granted(LeaseId),
    /// To [`Ask::Keep`]: whether it is alive.
    Kept(LeaseId, bool),
    /// To [`Ask::Last`].
    Last(Now, Revision),
}

/// What strikes an OSD in the middle of its work.
#[derive(Clone, Copy, Debug)]
pub enum Doom {
    /// It ends, and starts again after a while.
    One(End, Duration),
    /// The power of everything fails; of the clients, too, if so.
    All(bool),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is killed, or ends itself.
    Killed,
    /// Its machine loses power.
    Power,
}

/// The end of a trouble.
#[derive(Clone, Debug)]
pub enum Undo {
    /// These directions work again.
    Blocks(Vec<(Place, Place)>),
    /// No messages are lost there any more.
    Loss(Place, Place),
    /// No messages are slow there any more.
    Delay(Place, Place),
    /// A disk is fast again.
    Slow(Place),
    /// The metadata store is back; leases live on.
    Leader,
    /// Answers arrive again.
    Unknown,
    /// The OSD belongs to the placement again.
    Out(OsdId),
    /// Recovery goes on.
    NoRecovery,
    /// A gateway that is cut off from the OSDs knows what it has done: it is cut off from the metadata store, too, for so long.
    Connected(Place, Duration),
    /// An empty metadata store is put back to its last backup, so many commits ahead of what was lost.
    Empty(Revision),
    /// What a gateway sends lies in its machine's queues from a moment ago on: now the machine is paused for so long.
    Queue(Place, Duration),
}

impl Event {
    /// A number per kind, for the trace.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Event::Tick(..) => 1,
            Event::Renew(..) => 2,
            Event::Deliver(..) => 3,
            Event::Local(..) => 4,
            Event::Disk(..) => 5,
            Event::Done(..) => 6,
            Event::Ask(..) => 7,
            Event::Answer(..) => 8,
            Event::GiveUp(..) => 9,
            Event::Watch(..) => 10,
            Event::Submit(..) => 11,
            Event::Start(..) => 12,
            Event::Resume(..) => 13,
            Event::Kill(..) => 14,
            Event::Replace(..) => 15,
            Event::Strike(..) => 16,
            Event::Undo(..) => 17,
            Event::Season => 18,
            Event::Chores => 19,
            Event::Doom(..) => 20,
            Event::Exile(_) => 21,
            Event::Lost(..) => 22,
            Event::Seen(..) => 23,
            Event::Left(..) => 24,
            Event::Request(..) => 25,
            Event::Arrive(..) => 26,
            Event::Readable(..) => 27,
            Event::User(..) => 28,
            Event::Probe(_) => 29,
            Event::Card(_) => 30,
            Event::Handover(_) => 31,
            Event::Empty(_) => 32,
        }
    }

    /// The place whose process it concerns, and the life that it is meant for, if it is one.
    #[must_use]
    pub fn target(&self) -> Option<(Place, Option<Life>)> {
        match self {
            Event::Tick(place, life)
            | Event::Renew(place, life)
            | Event::Local(place, life, _)
            | Event::Done(place, life, _)
            | Event::Answer(place, life, ..)
            | Event::GiveUp(place, life, _)
            | Event::Watch(place, life)
            | Event::Submit(place, life)
            | Event::Request(place, life, ..)
            | Event::Seen(place, life, _)
            | Event::Left(place, life, _)
            | Event::Readable(place, life, _)
            | Event::Lost(place, life, _) => Some((*place, Some(*life))),
            Event::Deliver(delivery) => Some((delivery.to, None)),
            _ => None,
        }
    }

    /// A number that differs if the event does, most likely.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Event::Deliver(delivery) => digest(&delivery.message),
            Event::Local(_, _, message) => digest(message),
            Event::Disk(_, life, id) => u64::from(*life) << 48 ^ id.0,
            Event::Done(_, _, done) => done.id.0 << 1 | u64::from(done.result.is_ok()),
            Event::Ask(_, _, _, _, Ask::Txn(ticket, _)) | Event::Answer(_, _, _, _, Answer::Txn(ticket, _)) => *ticket,
            Event::Strike(index) => *index as u64,
            Event::Request(_, _, ticket, _) | Event::Seen(_, _, ticket) | Event::Left(_, _, ticket) => *ticket,
            Event::Arrive(id, side, segment) => {
                let len = if let Segment::Data(data) = segment {
                    data.len()
                } else {
                    0
                };
                id << 32 ^ (*side as u64) << 31 ^ len as u64
            }
            Event::Readable(_, _, id) | Event::Probe(id) | Event::Card(id) => *id,
            Event::User(user, _) => *user as u64,
            _ => 0,
        }
    }
}

fn digest(message: &Message) -> u64 {
    match message {
        Message::Op(op) => op.id.sequence,
        Message::OpDone(done) => done.id.sequence << 1 | u64::from(done.result.is_ok()),
        Message::Peer(peer) => {
            let object = object_of(&peer.body).map_or(0, |object| mix(object.image.0 ^ mix(object.number)));
            object ^ u64::from(peer.pg.number) << 32 ^ peer.epoch.0 ^ (name_of(&peer.body).len() as u64) << 56
        }
        Message::Ping { sent, .. } | Message::Pong { sent, .. } => sent.0,
        Message::TickRequest { sent } => sent.0,
        Message::Tick { tick, .. } => tick.0,
    }
}

fn object_of(body: &PeerBody) -> Option<trivet_core::ObjectId> {
    match body {
        PeerBody::Write { object, .. }
        | PeerBody::Push { object, .. }
        | PeerBody::Written { object, .. }
        | PeerBody::Fetch { object }
        | PeerBody::Fetched { object, .. }
        | PeerBody::Scrub { object }
        | PeerBody::Scrubbed { object, .. }
        | PeerBody::Forget { object, .. } => Some(*object),
        _ => None,
    }
}

fn name_of(body: &PeerBody) -> &'static str {
    match body {
        PeerBody::Fence => "fence",
        PeerBody::Listing { .. } => "listing",
        PeerBody::Refused { .. } => "refused",
        PeerBody::Write { .. } => "write",
        PeerBody::Push { .. } => "push",
        PeerBody::Written { .. } => "written",
        PeerBody::Fetch { .. } => "fetch",
        PeerBody::Fetched { .. } => "fetched",
        PeerBody::Scrub { .. } => "scrub",
        PeerBody::Scrubbed { .. } => "scrubbed",
        PeerBody::Stray => "stray",
        PeerBody::Drop => "drop",
        PeerBody::Forget { .. } => "forget",
        #[allow(unreachable_patterns, reason = "messages that are new")]
        _ => "other",
    }
}

/// A message in a few words.
#[derive(Debug)]
pub struct Brief<'a>(pub &'a Message);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Op(op) => {
                write!(f, "op {:x}.{} pg {} ", op.id.client.0, op.id.sequence, op.pg)?;
                match &op.action {
                    Action::Read { object, offset, len } => write!(f, "read {object} {offset}+{len}"),
                    Action::Write { object, offset, data } => {
                        let len: usize = data.iter().map(bytes::Bytes::len).sum();
                        write!(f, "write {object} {offset}+{len}")
                    }
                    other => write!(f, "{other:?}"),
                }
            }
            Message::OpDone(done) => {
                let result = done.result.as_ref().map(|_| "ok");
                write!(f, "done {:x}.{} {result:?}", done.id.client.0, done.id.sequence)
            }
            Message::Peer(peer) => {
                write!(f, "pg {} epoch {} ", peer.pg, peer.epoch)?;
                brief_body(&peer.body, f)
            }
            Message::TickRequest { .. } => write!(f, "what is your clock?"),
            Message::Tick { tick, .. } => write!(f, "clock {}", tick.0),
            Message::Ping { sent, pgs } => write!(f, "ping {} {pgs:?}", sent.0),
            Message::Pong { sent, free, refused } => write!(f, "pong {} free {free} refused {refused:?}", sent.0),
        }
    }
}

fn brief_body(body: &PeerBody, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match body {
        PeerBody::Write {
            object,
            after,
            mutation,
        } => write!(
            f,
            "write {object} {after} -> {}{}",
            mutation.version,
            grave(mutation.tombstone)
        ),
        PeerBody::Push { object, mutation } => {
            write!(f, "push {object} {}{}", mutation.version, grave(mutation.tombstone))
        }
        PeerBody::Fetched { object, whole, damaged } => {
            let version = whole.as_ref().map(|whole| whole.version);
            write!(f, "fetched {object} {version:?} damaged {damaged:?}")
        }
        PeerBody::Listing {
            objects, part, parts, ..
        } => {
            write!(f, "listing {part}/{parts}")?;
            let list = objects.iter().take(200);
            list.into_iter()
                .try_for_each(|o| write!(f, " {}@{}{}", o.object, o.version, grave(o.tombstone)))
        }
        other => write!(f, "{other:?}"),
    }
}

fn grave(tombstone: bool) -> &'static str {
    if tombstone { " deleted" } else { "" }
}
