//! What the gateway and its three protocol servers say to each other.
//!
//! A session is one client connection: bytes in, bytes out, and requests that it leaves at the [`SessionContext`].
//! Every request is answered once, by [`Session::finished`], in any order. Sessions own no sockets, clocks
//! or threads.

use bytes::{Bytes, BytesMut};
use trivet_client::{ImageOp, IoError};
use trivet_core::{ImageId, Now};
use trivet_namespace::{CallId, Caller, Namespace, NsError, Operation, Outcome, Time};

use crate::fresh::Freshness;
use crate::options::Options;

/// Names a request of one session until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How a connection ends. The gateway logs it with the peer's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The client said good-bye.
    #[error("closed by the client")]
    Graceful,
    /// The client misbehaved; the text says what and where.
    #[error("{0}")]
    Fault(String),
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Finished {
    /// Of [`SessionContext::io`]: the data of a read, nothing for the others; and of a change the image's last truncation when it was
    /// begun, which may be one since it was asked for.
    Io(Result<Vec<Bytes>, IoError>, Option<Time>),
    /// Of [`SessionContext::change`] and [`SessionContext::confirm`].
    Change(Result<Outcome, NsError>),
}

/// How much a session has under way, for backpressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Requests that were not answered yet.
    pub requests: usize,
    /// Bytes of payload they carry or ask for.
    pub bytes: usize,
}

/// One client connection of any protocol.
pub trait Session {
    /// Sends what the server says first.
    fn start(&mut self, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>);

    /// Consumes what it can of `input`; what is left comes again with more behind it.
    ///
    /// # Errors
    /// The connection is to be closed, after what is in `out` has been sent.
    fn receive(
        &mut self,
        input: &mut BytesMut,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending>;

    /// Takes the answer to one request.
    ///
    /// # Errors
    /// As [`Session::receive`].
    fn finished(
        &mut self,
        ticket: Ticket,
        result: Finished,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending>;

    /// Called about once a second: deadlines and pings.
    ///
    /// # Errors
    /// As [`Session::receive`].
    fn tick(&mut self, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) -> Result<(), Ending>;

    /// The client is gone: what has not been begun will not be.
    fn forsaken(&mut self) {}

    /// Whether what it receives next may open something by its name: that waits while the mirror is too old.
    fn opens(&self) -> bool;

    /// The image that it has open, if its protocol opens images.
    fn open_image(&self) -> Option<ImageId> {
        None
    }

    /// How many more bytes the next whole message needs, if that is known: room to receive it in one piece.
    fn hint(&self) -> usize;

    /// What is under way.
    fn in_flight(&self) -> InFlight;

    /// Bytes of memory that what is under way takes.
    fn held(&self) -> usize {
        self.in_flight().bytes
    }
}

/// A request that a session left at the context.
#[derive(Clone, Debug)]
pub enum Request {
    /// An operation on an image's bytes.
    Io {
        /// Which image.
        image: ImageId,
        /// What.
        op: ImageOp,
    },
    /// A change of the tree of names.
    Change {
        /// What.
        operation: Operation,
        /// On whose behalf.
        caller: Caller,
        /// The client's call that it is, if that may come again at another gateway.
        call: Option<CallId>,
        /// When the client asked for it.
        asked: Now,
    },
    /// A client's call is to be refused.
    Confirm {
        /// Which.
        call: CallId,
    },
    /// The image was written: its mtime moves soon (within about a second), without an answer.
    Touch {
        /// Which image.
        image: ImageId,
    },
}

/// What surrounds a session while it handles an event: the time, the tree, and where it leaves its requests.
pub struct SessionContext<'a> {
    /// Monotonic time.
    pub now: Now,
    /// Wall-clock time.
    pub wall: Time,
    /// The tree of names, as of now.
    pub namespace: &'a Namespace,
    /// Where the server's iSCSI portal can be reached by this client (the address it connected to).
    pub local: std::net::SocketAddr,
    /// Answers [`SessionContext::space`].
    pub(crate) space: Space,
    /// Answers [`SessionContext::modified`].
    pub(crate) touched: &'a std::collections::BTreeMap<ImageId, Time>,
    /// Answers [`SessionContext::is_stale`] and [`SessionContext::was_served`].
    pub(crate) freshness: &'a Freshness,
    /// How the gateway behaves.
    pub(crate) options: Options,
    /// Collects the requests; the gateway takes them after the call.
    pub(crate) requests: &'a mut Vec<(Ticket, Request)>,
    /// The next ticket's number.
    pub(crate) next_ticket: &'a mut u64,
}

/// Usable space of the default pool, bytes (after replication).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What is free.
    pub free: u64,
}

impl SessionContext<'_> {
    /// Asks for an operation on an image's bytes. Ranges are the session's to check.
    pub fn io(&mut self, image: ImageId, op: ImageOp) -> Ticket {
        self.leave(Request::Io { image, op })
    }

    /// Asks for a change of the tree of names.
    pub fn change(&mut self, operation: Operation, caller: Caller) -> Ticket {
        self.leave(Request::Change {
            operation,
            caller,
            call: None,
            asked: self.now,
        })
    }

    /// As [`SessionContext::change`], for a call that came at `asked` and may come again at another gateway: it is executed once and
    /// answered the same.
    pub fn change_once(&mut self, operation: Operation, caller: Caller, call: CallId, asked: Now) -> Ticket {
        self.leave(Request::Change {
            operation,
            caller,
            call: Some(call),
            asked,
        })
    }

    /// Asks whether a call may be refused: it may not, and the answer is an error, when any gateway has executed it.
    pub fn confirm(&mut self, call: CallId) -> Ticket {
        self.leave(Request::Confirm { call })
    }

    /// Notes that an image was written.
    pub fn touch(&mut self, image: ImageId) {
        self.leave(Request::Touch { image });
    }

    /// When the image was last written, if the tree of names does not know it yet: the later of the two counts.
    #[must_use]
    pub fn modified(&self, image: ImageId) -> Option<Time> {
        self.touched.get(&image).copied()
    }

    /// Whether the tree of names may be too old to open anything by its name.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.freshness.is_stale(self.now)
    }

    /// Whether an image was read or written lately: for protocols that open nothing.
    #[must_use]
    pub fn was_served(&self, image: ImageId) -> bool {
        self.freshness.was_served(image)
    }

    /// Usable space.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }

    fn leave(&mut self, request: Request) -> Ticket {
        let ticket = Ticket(*self.next_ticket);
        *self.next_ticket += 1;
        self.requests.push((ticket, request));
        ticket
    }
}
