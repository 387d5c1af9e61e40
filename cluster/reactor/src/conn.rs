//! One TCP connection: its socket, its phase, and what it wants to hear from epoll.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, connect, ipproto, recv, shutdown, socket_with,
};

use crate::inbox::{Inbox, Received};
use crate::outbox::Outbox;
use crate::presence::{Looks, Quiet};

/// Bytes thrown away per turn while a closing connection waits for the peer's end.
const DISCARD: usize = 16 * 1024;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Outgoing, no answer yet. What is sent waits.
    Connecting,
    /// Both ways.
    Open,
    /// Closed by the user, still sending what was queued.
    Flushing,
    /// All sent and our direction shut; waits for the peer's end, so that closing with unread
    /// data does not reset the connection and take our last bytes with it.
    Draining,
}

pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    pub(crate) phase: Phase,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) paused: bool,
    /// The socket was full at the last send.
    pub(crate) stalled: bool,
    /// Already in the list of connections to flush this turn.
    pub(crate) dirty: bool,
    /// What epoll was last told.
    pub(crate) armed: EventFlags,
    /// Its end is told when it is seen, and what was not received before is dropped.
    pub(crate) ends_at_once: bool,
    pub(crate) quiet: Quiet,
}

/// The end of one readiness event.
pub(crate) enum Outcome {
    Nothing,
    Connected,
    /// More bytes came, none of them before `quiet`.
    Readable {
        quiet: u64,
    },
    Drained,
    /// `None`: the peer ended it in order.
    Closed(Option<Errno>),
    /// A close by the user is complete.
    Finished,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd, phase: Phase, read_chunk: usize, looks: Looks) -> Conn {
        let mut conn = Conn {
            fd,
            phase,
            inbox: Inbox::new(read_chunk),
            outbox: Outbox::new(),
            paused: false,
            stalled: false,
            dirty: false,
            armed: EventFlags::empty(),
            ends_at_once: false,
            quiet: Quiet::new(looks),
        };
        conn.armed = conn.wanted();
        conn
    }

    /// What epoll should report in this state; errors and hang-ups come anyway.
    pub(crate) fn wanted(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::OUT, self.stalled || self.phase == Phase::Connecting);
        let reading = match self.phase {
            Phase::Open => !self.paused,
            Phase::Draining => true,
            Phase::Connecting | Phase::Flushing => false,
        };
        flags.set(EventFlags::IN, reading);
        flags.set(EventFlags::RDHUP, self.ends_at_once && self.phase == Phase::Open);
        flags
    }

    /// Whether queued bytes may go to the socket now.
    pub(crate) fn may_send(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Flushing)
    }

    /// Acts on what epoll reported. At most two outcomes: a drain and whatever reading brought.
    pub(crate) fn ready(&mut self, flags: EventFlags, looks: Looks, mut tell: impl FnMut(Outcome)) {
        match self.phase {
            Phase::Connecting => tell(self.connected()),
            Phase::Open => {
                if flags.contains(EventFlags::OUT) && self.stalled {
                    match self.flush() {
                        Outcome::Nothing => {}
                        closed @ Outcome::Closed(_) => return tell(closed),
                        drained => tell(drained),
                    }
                }
                tell(self.read_or_hang_up(flags, looks));
            }
            Phase::Flushing => {
                tell(if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                    Outcome::Finished
                } else {
                    self.flush()
                });
            }
            Phase::Draining => tell(self.discard()),
        }
    }

    fn read_or_hang_up(&mut self, flags: EventFlags, looks: Looks) -> Outcome {
        if self.ends_at_once && flags.contains(EventFlags::RDHUP) {
            self.throw_away();
            return Outcome::Closed(self.pending_error());
        }
        let gone = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if self.paused {
            // Nothing may be read, and epoll would report this for ever.
            return if gone {
                Outcome::Closed(self.pending_error())
            } else {
                Outcome::Nothing
            };
        }
        if !gone && !flags.contains(EventFlags::IN) {
            return Outcome::Nothing;
        }
        self.quiet.found(looks);
        match self.inbox.receive(&self.fd) {
            Received::Data { drained } => {
                let quiet = self.quiet.at();
                if drained {
                    self.quiet.drained(looks);
                }
                Outcome::Readable { quiet }
            }
            Received::Nothing => Outcome::Nothing,
            Received::End => Outcome::Closed(None),
            Received::Failed(error) => Outcome::Closed(Some(error)),
        }
    }

    /// Takes what the peer sent before its end, so that closing does not reset the connection: the peer may still read.
    fn throw_away(&mut self) {
        let mut sink = [std::mem::MaybeUninit::<u8>::uninit(); DISCARD];
        while matches!(recv(&self.fd, &mut sink[..], RecvFlags::DONTWAIT), Ok((_, taken)) if taken > 0) {}
    }

    fn connected(&mut self) -> Outcome {
        match self.pending_error() {
            Some(error) => Outcome::Closed(Some(error)),
            None => {
                self.phase = Phase::Open;
                Outcome::Connected
            }
        }
    }

    fn pending_error(&self) -> Option<Errno> {
        match socket_error(&self.fd) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        }
    }

    /// Sends what is queued. `Drained` only if the socket had been full before.
    pub(crate) fn flush(&mut self) -> Outcome {
        let was_stalled = self.stalled;
        match self.outbox.flush(&self.fd) {
            Ok(true) => {
                self.stalled = false;
                match self.phase {
                    Phase::Flushing => self.half_close(),
                    _ if was_stalled => Outcome::Drained,
                    _ => Outcome::Nothing,
                }
            }
            Ok(false) => {
                self.stalled = true;
                Outcome::Nothing
            }
            Err(_) if self.phase == Phase::Flushing => Outcome::Finished,
            Err(error) => Outcome::Closed(Some(error)),
        }
    }

    fn half_close(&mut self) -> Outcome {
        if shutdown(&self.fd, Shutdown::Write).is_err() {
            return Outcome::Finished;
        }
        self.phase = Phase::Draining;
        Outcome::Nothing
    }

    fn discard(&mut self) -> Outcome {
        let mut sink = [std::mem::MaybeUninit::<u8>::uninit(); DISCARD];
        match recv(&self.fd, &mut sink[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Outcome::Finished,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Outcome::Nothing,
            Err(_) => Outcome::Finished,
        }
    }
}

/// Sets what every connection has: no delay for small segments, probes for vanished peers.
pub(crate) fn tune(fd: impl AsFd) -> Result<(), Errno> {
    set_tcp_nodelay(fd.as_fd(), true)?;
    set_socket_keepalive(fd.as_fd(), true)
}

/// Starts an outgoing connection; the error names the address.
pub(crate) fn dial(addr: SocketAddr) -> io::Result<OwnedFd> {
    let attempt = || {
        let fd = stream_socket(addr)?;
        tune(&fd)?;
        match connect(&fd, &addr) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(fd),
            Err(error) => Err(error),
        }
    };
    attempt().map_err(|error: Errno| named(error.into(), "cannot connect to", addr))
}

/// A non-blocking TCP socket of the address's family.
pub(crate) fn stream_socket(addr: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
}

/// An error that says what failed on which address.
pub(crate) fn named(error: io::Error, what: &str, addr: SocketAddr) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {addr}: {error}"))
}
