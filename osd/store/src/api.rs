//! What the OSD asks of its store and hears from it.

use bytes::Bytes;
use trivet_core::disk::DiskOp;
use trivet_core::mark::Mark;
use trivet_core::mutation::Mutation;
use trivet_core::{Epoch, ObjectId, PgId, UnitMask, Version};

/// Names a request of the OSD until the store has answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the OSD can ask. Requests are answered in any order, but writes of one object become durable, and
/// are answered, in the order in which they were asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// Makes the mutation durable. Answered by `Reply::Written` after the flush. The version must be larger
    /// than any given to this object before (else `StoreError::StaleVersion`, nothing changes).
    Write {
        /// Which object.
        object: ObjectId,
        /// What becomes of it.
        mutation: Mutation,
    },
    /// Like a write of a whole object (`zero` has all units), for repair: the version may also be the one that the
    /// object has; then the bytes are the same and only get another place on the disk, if there is one.
    Replace {
        /// Which object.
        object: ObjectId,
        /// All of it.
        mutation: Mutation,
    },
    /// Reads all of an object, as of the last *answered* write, whatever of it can be read: never an error but
    /// `StoreError::Failed`.
    Salvage {
        /// Which object.
        object: ObjectId,
    },
    /// Reads whole units, as of the last *answered* write of the object; verified against their checksums.
    Read {
        /// Which object.
        object: ObjectId,
        /// The first unit.
        first: usize,
        /// How many units, at least 1.
        count: usize,
    },
    /// Remembers, durably, that this epoch of the PG was accepted. Never goes down.
    AcceptEpoch {
        /// Which PG.
        pg: PgId,
        /// The highest epoch accepted.
        epoch: Epoch,
    },
    /// Remembers, durably, the latest mark of the metadata store that was seen. Never goes down.
    KeepMark {
        /// The mark.
        mark: Mark,
    },
    /// Forgets the tombstone of an object if it still has exactly this version.
    Forget {
        /// Which object.
        object: ObjectId,
        /// Its tombstone's version.
        version: Version,
    },
}

/// The answers to requests that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The write is durable.
    Written,
    /// Segments that hold exactly the units asked for; unwritten units are zeroes.
    Data {
        /// The version they belong to.
        version: Version,
        /// In order, without copies.
        segments: Vec<Bytes>,
    },
    /// What there is of an object.
    Salvaged {
        /// The version it belongs to.
        version: Version,
        /// All units in order, without copies; those that are unwritten or damaged are zeroes.
        segments: Vec<Bytes>,
        /// The units that do not match their checksums or could not be read.
        damaged: UnitMask,
    },
    /// The epoch is durable.
    Accepted,
    /// The mark is durable, or a later one.
    Kept,
    /// The tombstone is gone, or there was none of this version.
    Forgotten,
}

/// Why a request failed. After `Failed` the store answers everything with `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room for this write; reads, overwrites and deletes go on.
    #[error("no space left on this OSD")]
    NoSpace,
    /// A version that is not larger than the object's.
    #[error("version {got} of {object} is not newer than {have}")]
    StaleVersion {
        /// Which object.
        object: ObjectId,
        /// Asked for.
        got: Version,
        /// Stored or queued.
        have: Version,
    },
    /// These units do not match their checksums or cannot be read; the others of the object may.
    #[error("units {units:?} of {object} are damaged")]
    Damaged {
        /// Which object.
        object: ObjectId,
        /// The units of the request that are damaged.
        units: UnitMask,
    },
    /// The disk failed a write or flush: final.
    #[error("the disk failed: {0}")]
    Failed(String),
}

/// What is known about an object without reading the disk (durable state only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its version.
    pub version: Version,
    /// The units that are written.
    pub present: UnitMask,
    /// It is deleted.
    pub tombstone: bool,
}

/// Space and activity of one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all data slots.
    pub capacity: u64,
    /// Bytes of slots in use or promised.
    pub used: u64,
    /// Objects, tombstones included.
    pub objects: u64,
    /// Bytes written to the disk since the store was opened.
    pub device_written: u64,
    /// Group commits since the store was opened.
    pub commits: u64,
}

/// Which units of an object are written has changed, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which object.
    pub object: ObjectId,
    /// Before; empty if there was nothing of it.
    pub before: UnitMask,
    /// After; empty if there is nothing of it any more.
    pub after: UnitMask,
}

/// What a step of the store wants done and has to say. The caller drains all of it.
#[derive(Debug, Default)]
pub struct Output {
    /// To be submitted; completions come back through `Store::completed`.
    pub disk: Vec<DiskOp>,
    /// Answers.
    pub done: Vec<(Ticket, Result<Reply, StoreError>)>,
    /// Objects that became larger or smaller since the store is ready, in order.
    pub changed: Vec<Changed>,
}
