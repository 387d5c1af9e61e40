//! The carrier: messages between nodes of different processes, as frames over byte streams. `docs/wire-protocol.md`
//! ("Links") has the tables and the rules.
//!
//! A pure machine, one [`Carrier`] per node: the caller owns the sockets and the clock, tells what happens to them, and
//! carries out the [`Effect`]s. A process with several OSDs has a carrier and a listener for each of them; messages
//! between nodes of one process need none.
//!
//! It promises that what arrives was sent by the node that it names, to this node; that the messages of one start of
//! a process arrive in the order in which they were sent, each at most once; that no peer makes it take more memory
//! than its limits; and that the end of a link to an OSD is told at once ([`Effect::Lost`]). It does not promise that
//! a message arrives: what was under way when a link broke is lost, and senders repeat what matters. It does not
//! encrypt, and it knows of a peer's identity only what the peer says.

mod backoff;
mod carrier;
mod fault;
mod hello;
mod link;
mod peer;
mod rules;
#[cfg(test)]
mod tests;
mod waiting;

use std::net::SocketAddr;

use bytes::Bytes;
use trivet_core::{NodeId, OsdId};

pub use carrier::Carrier;
pub use fault::Fault;
pub use hello::{HELLO, Hello, MAGIC};

/// Names a link of one carrier; given by the carrier, rising, never used again. The peer sees it in the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Who a carrier speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Me {
    /// The node.
    pub node: NodeId,
    /// The id of the cluster.
    pub cluster: [u8; 16],
    /// Drawn at random at every start of the process; an OSD writes it to its state key, too.
    pub boot: u64,
}

/// What the caller is to do.
#[derive(Debug)]
pub enum Effect {
    /// Open a TCP connection, then call [`Carrier::connected`], or [`Carrier::closed`] if that fails.
    Dial(LinkId, OsdId, SocketAddr),
    /// Send these segments.
    Send(LinkId, Vec<Bytes>),
    /// Close the connection at once. The link is over: what else happens to it is of no interest.
    Close {
        /// Which one.
        link: LinkId,
        /// The other end, if it is known.
        peer: Option<NodeId>,
        /// For the log; none if everything is as it should be.
        fault: Option<Fault>,
    },
    /// Stop receiving on a link, or go on.
    Pause(LinkId, bool),
    /// What was lately sent to this OSD, or by it, may be lost.
    Lost {
        /// Which one.
        osd: OsdId,
        /// A dial was refused: nobody listens there. Otherwise a link ended, or a dial failed in another way.
        gone: bool,
    },
}

/// What a call of [`Carrier::received`] left in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not a whole frame. The next one has so many bytes, as far as it is known; 0 if nothing is known.
    Wait(usize),
    /// Perhaps more frames: call again, after what else there is to do.
    Again,
}

/// What a carrier counts, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Links that stand now.
    pub links: u64,
    /// Dials that were started.
    pub dialed: u64,
    /// Links that were closed because of a [`Fault`].
    pub faults: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages handed over for sending.
    pub messages_out: u64,
    /// Bytes received, greetings excluded.
    pub bytes_in: u64,
    /// Bytes handed over for sending, greetings excluded.
    pub bytes_out: u64,
    /// Messages that were never handed over: no way to the peer, or too much waiting for it.
    pub dropped: u64,
}
