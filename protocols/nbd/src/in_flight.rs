//! The requests that wait for a reply, and the handles that name them.
//!
//! Cookies are chosen by the client and may repeat; handles are ours and never do.

use crate::limits::Limits;
use crate::wire::{Kind, RequestHeader};

/// Names one request of one connection; never reused within the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    sequence: u64,
    slot: usize,
}

/// How much waits for replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Requests.
    pub requests: usize,
    /// Payload bytes: data of WRITE, length of READ.
    pub bytes: u64,
}

/// What the reply to one request needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    /// Bytes of payload in the request or the reply.
    pub(crate) payload: u32,
    pub(crate) is_read: bool,
}

impl Pending {
    pub(crate) fn new(header: &RequestHeader) -> Pending {
        let is_read = header.kind == Some(Kind::Read);
        let carries = is_read || header.kind == Some(Kind::Write);
        Pending {
            cookie: header.cookie,
            offset: header.offset,
            payload: if carries { header.length } else { 0 },
            is_read,
        }
    }
}

/// Slots, reused last in first out, each marked with the sequence number of its tenant.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Option<(u64, Pending)>>,
    free: Vec<usize>,
    next: u64,
    total: InFlight,
}

impl Table {
    pub(crate) fn total(&self) -> InFlight {
        self.total
    }

    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.total.requests >= limits.requests || self.total.bytes >= limits.bytes
    }

    pub(crate) fn insert(&mut self, pending: Pending) -> Handle {
        let sequence = self.next;
        self.next += 1;
        self.total.requests += 1;
        self.total.bytes += u64::from(pending.payload);
        let tenant = Some((sequence, pending));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = tenant;
                slot
            }
            None => {
                self.slots.push(tenant);
                self.slots.len() - 1
            }
        };
        Handle { sequence, slot }
    }

    /// Takes a request out. Panics on a handle that was already used or belongs to another connection: a
    /// mistake of the caller that would put one request's data into another's reply.
    pub(crate) fn remove(&mut self, handle: Handle) -> Pending {
        let tenant = self
            .slots
            .get_mut(handle.slot)
            .and_then(|slot| slot.take_if(|t| t.0 == handle.sequence));
        let (_, pending) = tenant.expect("each request is replied to once, on its own connection");
        self.free.push(handle.slot);
        self.total.requests -= 1;
        self.total.bytes -= u64::from(pending.payload);
        pending
    }
}
