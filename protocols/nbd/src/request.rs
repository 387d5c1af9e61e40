//! What a connection asks of the storage: requests that passed every check.

use bytes::Bytes;

use crate::in_flight::Handle;
use crate::wire::{Kind, RequestHeader, command_flag};

/// One request. Exactly one [`crate::Connection::reply`] with its handle must follow, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request in the reply.
    pub handle: Handle,
    /// [`crate::Export::id`] of the export.
    pub export: u64,
    /// What to do.
    pub command: Command,
}

/// A command within the bounds of its export. Offsets and lengths in bytes, not aligned, lengths never zero.
/// `fua`: the change must be durable before the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read; the reply carries `len` bytes.
    Read {
        /// Start.
        offset: u64,
        /// Length, at most [`crate::MAX_PAYLOAD`].
        len: u32,
    },
    /// Write.
    Write {
        /// Start.
        offset: u64,
        /// What to write, at most [`crate::MAX_PAYLOAD`]; shares the receive buffer.
        data: Bytes,
        /// Durable before the reply.
        fua: bool,
    },
    /// Make durable every write of this export that was answered before, on any connection.
    Flush,
    /// The content is no longer wanted; reads may return anything that was there or zeroes.
    Trim {
        /// Start.
        offset: u64,
        /// Length, up to 2^32 - 1.
        len: u32,
        /// Durable before the reply.
        fua: bool,
    },
    /// Make the range read as zeroes.
    Zero {
        /// Start.
        offset: u64,
        /// Length, up to 2^32 - 1.
        len: u32,
        /// Keep the space allocated.
        no_hole: bool,
        /// Durable before the reply.
        fua: bool,
    },
}

impl Command {
    /// The command of a checked header; `None` for DISC and unknown ones, which ask nothing of the storage.
    pub(crate) fn new(header: &RequestHeader, data: Bytes) -> Option<Command> {
        let (offset, len) = (header.offset, header.length);
        let fua = header.has(command_flag::FUA);
        Some(match header.kind? {
            Kind::Read => Command::Read { offset, len },
            Kind::Write => Command::Write { offset, data, fua },
            Kind::Flush => Command::Flush,
            Kind::Trim => Command::Trim { offset, len, fua },
            Kind::WriteZeroes => {
                let no_hole = header.has(command_flag::NO_HOLE);
                Command::Zero {
                    offset,
                    len,
                    no_hole,
                    fua,
                }
            }
            Kind::Disconnect => return None,
        })
    }
}
