//! What the reactor is told once ([`Config`]) and what it tells on every turn ([`Event`]).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::DiskBackend;

/// The settings of a reactor.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest spin before sleeping; zero never spins. Adaptive: see the `spin` module.
    pub spin: Duration,
    /// Bytes of the largest receive buffer of a connection without a hint. Buffers start small and grow
    /// up to this while a connection fills them.
    pub read_chunk: usize,
    /// Connections, incoming and outgoing, that may be open at once.
    pub max_connections: usize,
    /// How long a closing connection may take to send what is queued and to see the peer's end.
    pub linger: Duration,
    /// Operations in the ring at once; more wait in user space. A power of two.
    pub disk_depth: u32,
    /// How disks are driven.
    pub disk_backend: DiskBackend,
    /// Threads of the I/O pool, where the pool is used.
    pub pool_threads: usize,
    /// Bytes read and written inline (tmpfs) in one turn of the loop; the rest waits for the next.
    pub inline_budget: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            spin: Duration::from_micros(50),
            read_chunk: 256 * 1024,
            max_connections: 16 * 1024,
            linger: Duration::from_secs(5),
            disk_depth: 256,
            disk_backend: DiskBackend::Auto,
            pool_threads: 3,
            inline_budget: 4 * 1024 * 1024,
        }
    }
}

/// Names a connection, never reused while the process could confuse it with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) u64);

/// Names an open disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskToken(pub(crate) u64);

/// Names a listening socket; chosen by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerToken(pub u32);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {:x}", self.0)
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A peer connected to a listener.
    Accepted {
        /// As given to `listen`.
        listener: ListenerToken,
        /// The new connection.
        conn: ConnId,
        /// The other end.
        peer: SocketAddr,
    },
    /// A peer was turned away because `max_connections` are open.
    Refused {
        /// As given to `listen`.
        listener: ListenerToken,
        /// The other end.
        peer: SocketAddr,
    },
    /// An outgoing connection stands.
    Connected {
        /// As returned by `connect`.
        conn: ConnId,
    },
    /// More bytes are in `input`.
    Readable {
        /// The connection.
        conn: ConnId,
        /// A time, in ns, at which none of them were here yet.
        quiet: u64,
    },
    /// A connection whose peer did not keep up has sent all that was queued.
    Drained {
        /// The connection.
        conn: ConnId,
    },
    /// The end of a connection, once for each; its id means nothing from here on.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// A disk operation ended.
    Disk {
        /// The disk.
        disk: DiskToken,
        /// As given to `submit_disk`.
        user_id: u64,
        /// The data of a read (its full length), empty for writes and flushes.
        result: io::Result<Bytes>,
    },
    /// Another thread called [`Waker::wake`](crate::Waker::wake) at least once since the last of these.
    Woken,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it.
    #[error("closed by the peer")]
    Peer,
    /// `close` or `abort` was called.
    #[error("closed here")]
    Local,
    /// The network failed it.
    #[error("{0}")]
    Failed(#[source] io::Error),
}
