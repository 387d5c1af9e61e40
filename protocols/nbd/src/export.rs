//! Exports as the protocol sees them: what a name stands for, and what is told to the client about it.

use crate::limits::MAX_PAYLOAD;
use crate::wire::flag;

/// Smallest length and alignment of a request, bytes: any.
pub(crate) const MIN_BLOCK: u32 = 1;
/// Length and alignment the storage handles without reading first, bytes.
pub(crate) const PREFERRED_BLOCK: u32 = 4096;
/// Largest payload, bytes.
pub(crate) const MAX_BLOCK: u32 = MAX_PAYLOAD;

/// The names that a connection may open, as they are at the time of the call.
pub trait Exports {
    /// The export of this name. The empty name asks for the default export.
    fn find(&self, name: &str) -> Option<Export>;

    /// Calls `each` with every name that may be listed, until it returns false.
    fn names(&self, each: &mut dyn FnMut(&str) -> bool);
}

/// One export. Its size is fixed for the life of a connection: the protocol knows no resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// The caller's own id, handed back with each request.
    pub id: u64,
    /// Bytes.
    pub size: u64,
    /// Refuse everything that writes.
    pub read_only: bool,
    /// Tell the client that seeks are slow.
    pub rotational: bool,
}

impl Export {
    /// Transmission flags. Multi-conn always: a flush covers completed writes of all connections. DF only with
    /// structured replies, as the specification demands.
    pub(crate) fn flags(&self, structured: bool) -> u16 {
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::CAN_MULTI_CONN;
        if self.read_only {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_FUA | flag::SEND_TRIM | flag::SEND_WRITE_ZEROES;
        }
        if self.rotational {
            flags |= flag::ROTATIONAL;
        }
        if structured {
            flags |= flag::SEND_DF;
        }
        flags
    }

    /// True if `length` bytes at `offset` lie within the export.
    pub(crate) fn holds(&self, offset: u64, length: u32) -> bool {
        offset
            .checked_add(u64::from(length))
            .is_some_and(|end| end <= self.size)
    }
}
