//! The OSD wire messages: what gateways ask primaries, and what OSDs of a PG tell each other.
//!
//! Within a process they travel as they are; between processes [`crate::wire`] encodes them.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{Epoch, ImageId, ObjectId, OpId, OsdId, PgId, UnitMask, Version};
use crate::kv::Revision;
use crate::mark::Mark;
use crate::mutation::Mutation;
use crate::time::{Now, Tick};

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Client to primary.
    Op(Op),
    /// Primary to client.
    OpDone(OpDone),
    /// Client to OSD: what does your clock say?
    TickRequest {
        /// The client's clock when it was sent; comes back.
        sent: Now,
    },
    /// The answer.
    Tick {
        /// As in the [`Message::TickRequest`].
        sent: Now,
        /// The OSD's clock.
        tick: Tick,
        /// The latest mark of the metadata store that the OSD has on its disk.
        mark: Option<Mark>,
    },
    /// Primary to member, or its answer.
    Peer(Peer),
    /// Primary to member: are you there, and are these still the epochs that you accepted?
    Ping {
        /// The primary's clock when it was sent; comes back.
        sent: Now,
        /// What the primary acts for, with this member in the acting set.
        pgs: Vec<(PgId, Epoch)>,
    },
    /// The answer. Where the epoch is the accepted one, the member promises not to let another primary start within
    /// [`LEASE`] from now: the pinging one may answer reads for a little less than that, from `sent` on.
    Pong {
        /// As in the [`Message::Ping`].
        sent: Now,
        /// Bytes that the member's disk has room for.
        free: u64,
        /// Those with another accepted epoch, which comes with them.
        refused: Vec<(PgId, Epoch)>,
    },
}

/// How long a primary may answer reads after a member confirmed its epoch.
pub const LEASE: Duration = Duration::from_millis(600);
/// What a member adds to [`LEASE`] for clocks that do not run alike.
pub const LEASE_MARGIN: Duration = Duration::from_millis(60);
/// A change is not executed if it is not known of its client that it was there within this time of the primary's clock.
pub const STAMP_LIFE: Duration = Duration::from_secs(3);
/// The PGs of one [`Message::Ping`] at most.
pub const PING_LIMIT: usize = 65_536;

/// One client operation on one object (or PG).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// A repeated operation carries the same id.
    pub id: OpId,
    /// The PG, by the client's map.
    pub pg: PgId,
    /// The epoch that it is meant for: a copy that comes late, in another one, is not executed.
    pub epoch: Epoch,
    /// All operations of this client below this sequence were answered: copies of them that come late are passed over.
    pub settled: u64,
    /// Operations of this client on the same object below this sequence were answered and will not be repeated.
    pub answered: u64,
    /// The latest operation of this client on the same object before this one that has no answer; 0 if there is none.
    pub previous: u64,
    /// Of a change: what the OSD that it is sent to said its clock was, before something that shows that whoever wants the
    /// change was still there. Default: nothing is known.
    pub stamp: Tick,
    /// What to do.
    pub action: Action,
}

/// What a client can ask. Byte ranges lie within one object and are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads bytes; what was never written is zero.
    Read {
        /// Which object.
        object: ObjectId,
        /// First byte in the object.
        offset: usize,
        /// Bytes.
        len: usize,
    },
    /// Writes bytes; parts of a unit are merged with what is there, atomically.
    Write {
        /// Which object.
        object: ObjectId,
        /// First byte in the object.
        offset: usize,
        /// The bytes.
        data: Vec<Bytes>,
    },
    /// Makes bytes zero; whole units are freed.
    Zero {
        /// Which object.
        object: ObjectId,
        /// First byte in the object.
        offset: usize,
        /// Bytes.
        len: usize,
    },
    /// Deletes the object.
    Remove {
        /// Which object.
        object: ObjectId,
    },
    /// Lists objects of an image that live in this PG, ascending, of a range of numbers that is not empty.
    List {
        /// Which image.
        image: ImageId,
        /// The first number.
        from: u64,
        /// The number behind the last.
        end: u64,
    },
    /// Changes nothing: is answered when the primary knows the metadata store up to a commit, and nothing of a client that
    /// was not registered then waits or runs in the PG, or ever will.
    Barrier {
        /// Which commit.
        revision: Revision,
    },
}

impl Action {
    /// Whether it changes anything.
    #[must_use]
    pub fn is_mutation(&self) -> bool {
        !matches!(self, Action::Read { .. } | Action::List { .. } | Action::Barrier { .. })
    }

    /// The object that it is about.
    #[must_use]
    pub fn object(&self) -> Option<ObjectId> {
        match *self {
            Action::Read { object, .. }
            | Action::Write { object, .. }
            | Action::Zero { object, .. }
            | Action::Remove { object } => Some(object),
            Action::List { .. } | Action::Barrier { .. } => None,
        }
    }

    /// The units of the object that it reads or changes, wholly or in part.
    #[must_use]
    pub fn units(&self) -> UnitMask {
        match self {
            Action::Read { offset, len, .. } | Action::Zero { offset, len, .. } => UnitMask::touched(*offset, *len),
            Action::Write { offset, data, .. } => UnitMask::touched(*offset, data.iter().map(Bytes::len).sum()),
            Action::Remove { .. } => UnitMask::ALL,
            Action::List { .. } | Action::Barrier { .. } => UnitMask::EMPTY,
        }
    }
}

/// How many objects a [`Action::List`] answers with at most.
pub const LIST_LIMIT: usize = 1024;

/// The answer to an [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpDone {
    /// Which operation.
    pub id: OpId,
    /// Its outcome.
    pub result: Result<OpValue, OpError>,
    /// The OSD's clock.
    pub tick: Tick,
}

/// What an operation yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpValue {
    /// Durable on every member of the acting set.
    Changed,
    /// The bytes asked for.
    Data(Vec<Bytes>),
    /// Object numbers, ascending; fewer than [`LIST_LIMIT`] means that there are no more.
    Objects(Vec<u64>),
    /// The barrier holds.
    Passed,
}

/// Why an operation was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// This OSD does not act for the PG (now): look at the map and ask again.
    #[error("not the acting primary")]
    NotPrimary,
    /// This OSD acts for the PG, but in this epoch: ask again, for this one.
    #[error("not the epoch, which is {0}")]
    OtherEpoch(Epoch),
    /// The client is not registered, as far as the OSD knows: it has just been, or it is fenced.
    #[error("the client is not registered")]
    Unregistered,
    /// Not executed: too long ago, whoever wants the change was known to be there.
    #[error("nothing was heard of the caller lately")]
    Outdated,
    /// Not executed: another client has changed the same bytes since whoever wants the change was known to be there.
    #[error("overtaken by another client")]
    Overtaken,
    /// A disk of the PG is full.
    #[error("no space left")]
    NoSpace,
    /// The data is damaged beyond what the copies can repair.
    #[error("the data is damaged")]
    Damaged,
    /// The range does not lie within an object.
    #[error("malformed operation")]
    Malformed,
}

/// What OSDs of a PG tell each other. Every request carries the sender's epoch; a member refuses all but
/// the highest that it accepted. Messages may be lost, late or repeated, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which PG.
    pub pg: PgId,
    /// The epoch of the primary that asks (echoed in answers).
    pub epoch: Epoch,
    /// What.
    pub body: PeerBody,
}

/// The body of a [`Peer`] message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerBody {
    /// Accept this epoch, durably, and list the PG's objects afterwards.
    Fence,
    /// The epoch is accepted; one part of the listing.
    Listing {
        /// Which part, from 0.
        part: u32,
        /// How many there are, at least 1.
        parts: u32,
        /// What the member promised to another primary, and still has to keep.
        promise: Option<Promise>,
        /// Ascending by object.
        objects: Vec<Listed>,
    },
    /// The request was refused because this higher epoch had been accepted.
    Refused {
        /// What was accepted.
        accepted: Epoch,
    },
    /// Execute a mutation and make it durable, on top of exactly the version before it.
    Write {
        /// Which object.
        object: ObjectId,
        /// The version that the object must have; [`Version::NONE`] where there is nothing (a tombstone is nothing).
        after: Version,
        /// What.
        mutation: Mutation,
    },
    /// Replace the whole object, whatever there is: recovery and repair.
    Push {
        /// Which object.
        object: ObjectId,
        /// `zero` is everything.
        mutation: Mutation,
    },
    /// The end of a [`PeerBody::Write`] or [`PeerBody::Push`].
    Written {
        /// Which object.
        object: ObjectId,
        /// Which mutation.
        version: Version,
        /// Whether it is durable.
        result: Result<(), WriteError>,
    },
    /// Send the whole object.
    Fetch {
        /// Which object.
        object: ObjectId,
    },
    /// The whole object as the mutation that makes it; none if there is nothing, or nothing of it can be read.
    Fetched {
        /// Which object.
        object: ObjectId,
        /// `zero` is everything, patches are what is present and not damaged.
        whole: Option<Mutation>,
        /// Units that are present, but cannot be read.
        damaged: UnitMask,
    },
    /// Read the whole object from the disk, verify it and say what it is.
    Scrub {
        /// Which object.
        object: ObjectId,
    },
    /// The answer to [`PeerBody::Scrub`].
    Scrubbed {
        /// Which object.
        object: ObjectId,
        /// Its version; [`Version::NONE`] if there is no such object.
        version: Version,
        /// Of everything that equal versions must have in common.
        digest: u64,
        /// Units that cannot be read.
        damaged: UnitMask,
    },
    /// The answer to [`PeerBody::Forget`]: the tombstone is durably gone.
    Forgotten {
        /// Which object.
        object: ObjectId,
        /// The tombstone's version.
        version: Version,
    },
    /// I have objects of this PG but no part in it: may I drop them?
    Stray,
    /// Accept this epoch and drop every object of the PG: you have no part in it, and it is clean without you.
    Drop,
    /// Drop a tombstone: no holder can bring the object back.
    Forget {
        /// Which object.
        object: ObjectId,
        /// The tombstone's version.
        version: Version,
    },
}

/// Why a member could not execute a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Its disk is full.
    NoSpace,
    /// It already has a version that is as new.
    Stale,
    /// Its disk failed.
    Failed,
    /// It does not have the version that comes before.
    Behind,
}

/// A promise given with a [`Message::Pong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// To whom; nobody knows after a restart.
    pub to: Option<OsdId>,
    /// How long it still has to be kept.
    pub left: Duration,
}

/// One object in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which object.
    pub object: ObjectId,
    /// The version that is durable.
    pub version: Version,
    /// It is deleted.
    pub tombstone: bool,
}
