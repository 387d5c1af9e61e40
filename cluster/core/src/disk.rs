//! What a store asks of its disk, as data. Executed by the reactor on a device or file, and by the
//! simulator on a disk that loses and tears.

use bytes::Bytes;

/// Names one disk operation of one store until its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// One disk operation. Offsets and lengths are multiples of 4096 bytes.
#[derive(Clone, Debug)]
pub struct DiskOp {
    /// Comes back with the completion.
    pub id: IoId,
    /// What to do.
    pub kind: DiskOpKind,
}

/// The three things a disk can do.
#[derive(Clone, Debug)]
pub enum DiskOpKind {
    /// Reads `len` bytes at `offset`.
    Read {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Writes `data` at `offset`. Not durable before a later flush completes.
    Write {
        /// Bytes from the start of the disk.
        offset: u64,
        /// A multiple of 4096 bytes; aligned memory saves a copy.
        data: Bytes,
    },
    /// Makes durable every write that completed before this was submitted.
    Flush,
}

/// The end of one disk operation.
#[derive(Clone, Debug)]
pub struct DiskDone {
    /// As in the [`DiskOp`].
    pub id: IoId,
    /// The data of a read (full length), empty for writes and flushes.
    pub result: Result<Bytes, DiskError>,
}

/// Why a disk operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("disk error {errno}: {what}")]
pub struct DiskError {
    /// The system's error number.
    pub errno: i32,
    /// What was being done.
    pub what: String,
}
