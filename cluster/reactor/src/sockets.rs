//! All listeners and connections of a reactor: accepting, flushing once per turn, closing in order.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{SocketFlags, acceptfrom_with, bind, getsockname, listen};

use crate::conn::{Conn, Outcome, Phase, dial, named, stream_socket, tune};
use crate::event::{CloseReason, ConnId, Event, ListenerToken};
use crate::poller::{Poller, Source};
use crate::presence::{Looks, heard, probe};
use crate::slots::Slots;

/// Connections the kernel holds for us before we accept them.
const BACKLOG: i32 = 1024;
/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;
/// How long a listener rests after the process ran out of descriptors or memory, in ns.
const ACCEPT_REST: u64 = 100_000_000;

struct Listener {
    fd: OwnedFd,
    token: ListenerToken,
}

pub(crate) struct Sockets {
    conns: Slots<Conn>,
    listeners: Slots<Listener>,
    dirty: Vec<u64>,
    /// Connections being closed and when patience ends; in order, since all get the same time.
    closing: VecDeque<(u64, u64)>,
    resting: VecDeque<(u64, u64)>,
    nothing: BytesMut,
    pub(crate) looks: Looks,
    read_chunk: usize,
    max_connections: usize,
    linger: u64,
}

impl Sockets {
    pub(crate) fn new(read_chunk: usize, max_connections: usize, linger: u64) -> Sockets {
        Sockets {
            conns: Slots::new(),
            listeners: Slots::new(),
            dirty: Vec::new(),
            closing: VecDeque::new(),
            resting: VecDeque::new(),
            nothing: BytesMut::new(),
            looks: Looks::default(),
            read_chunk,
            max_connections,
            linger,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    pub(crate) fn listen(&mut self, poller: &Poller, addr: SocketAddr, token: ListenerToken) -> io::Result<SocketAddr> {
        let (fd, bound) = bound_socket(addr).map_err(|error| named(error, "cannot listen on", addr))?;
        let key = self.listeners.insert(Listener { fd, token });
        let listener = self.listeners.get(key).expect("just inserted");
        if let Err(error) = poller.add(&listener.fd, Source::Listener(key), EventFlags::IN) {
            self.listeners.remove(key);
            return Err(named(error, "cannot listen on", addr));
        }
        Ok(bound)
    }

    /// Closes the listeners with this token; accepted connections stay.
    pub(crate) fn unlisten(&mut self, token: ListenerToken) {
        self.listeners.retain(|listener| listener.token != token);
    }

    pub(crate) fn connect(&mut self, poller: &Poller, addr: SocketAddr) -> io::Result<ConnId> {
        if self.conns.len() >= self.max_connections {
            return Err(named(io::ErrorKind::QuotaExceeded.into(), "cannot connect to", addr));
        }
        self.adopt(poller, dial(addr)?, Phase::Connecting)
    }

    fn adopt(&mut self, poller: &Poller, fd: OwnedFd, phase: Phase) -> io::Result<ConnId> {
        let key = self.conns.insert(Conn::new(fd, phase, self.read_chunk, self.looks));
        let conn = self.conns.get(key).expect("just inserted");
        if let Err(error) = poller.add(&conn.fd, Source::Conn(key), conn.armed) {
            self.conns.remove(key);
            return Err(error);
        }
        Ok(ConnId(key))
    }

    pub(crate) fn accept(&mut self, poller: &Poller, key: u64, now: u64, out: &mut Vec<Event>) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(key) else {
                return;
            };
            let token = listener.token;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match acceptfrom_with(&listener.fd, flags) {
                Ok((fd, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    if let Some(peer) = peer {
                        out.extend(self.admit(poller, fd, peer, token));
                    }
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    return self.rest(poller, key, now);
                }
                Err(Errno::AGAIN) => return,
                // The peer went away before we came to it, or a network error of its own.
                Err(_) => {}
            }
        }
    }

    fn admit(&mut self, poller: &Poller, fd: OwnedFd, peer: SocketAddr, listener: ListenerToken) -> Option<Event> {
        if self.conns.len() >= self.max_connections {
            return Some(Event::Refused { listener, peer });
        }
        tune(&fd).ok()?;
        let conn = self.adopt(poller, fd, Phase::Open).ok()?;
        Some(Event::Accepted { listener, conn, peer })
    }

    /// Stops listening to a listener for a while: it would be ready again at once.
    fn rest(&mut self, poller: &Poller, key: u64, now: u64) {
        if self.arm_listener(poller, key, EventFlags::empty()) {
            self.resting.push_back((now.saturating_add(ACCEPT_REST), key));
        }
    }

    fn arm_listener(&self, poller: &Poller, key: u64, flags: EventFlags) -> bool {
        let Some(listener) = self.listeners.get(key) else {
            return false;
        };
        poller.modify(&listener.fd, Source::Listener(key), flags).is_ok()
    }

    pub(crate) fn ready(&mut self, poller: &Poller, key: u64, flags: EventFlags, out: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let mut outcomes = [Outcome::Nothing, Outcome::Nothing];
        let mut count = 0;
        conn.ready(flags, self.looks, |outcome| {
            outcomes[count] = outcome;
            count += 1;
        });
        for outcome in outcomes {
            self.settle(poller, key, outcome, out);
        }
    }

    /// Turns an outcome into its event and tells epoll what the connection now wants.
    fn settle(&mut self, poller: &Poller, key: u64, outcome: Outcome, out: &mut Vec<Event>) {
        let conn = ConnId(key);
        match outcome {
            Outcome::Nothing => {}
            Outcome::Connected => {
                out.push(Event::Connected { conn });
                self.mark_dirty(key);
            }
            Outcome::Readable { quiet } => out.push(Event::Readable { conn, quiet }),
            Outcome::Drained => out.push(Event::Drained { conn }),
            Outcome::Finished => return self.end(key, CloseReason::Local, out),
            Outcome::Closed(None) => return self.end(key, CloseReason::Peer, out),
            Outcome::Closed(Some(error)) => {
                return self.end(key, CloseReason::Failed(error.into()), out);
            }
        }
        self.rearm(poller, key, out);
    }

    fn rearm(&mut self, poller: &Poller, key: u64, out: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let wanted = conn.wanted();
        if wanted == conn.armed {
            return;
        }
        if wanted.contains(EventFlags::IN) && !conn.armed.contains(EventFlags::IN) {
            conn.quiet.resumed(self.looks);
        }
        conn.armed = wanted;
        if let Err(error) = poller.modify(&conn.fd, Source::Conn(key), wanted) {
            self.end(key, CloseReason::Failed(error), out);
        }
    }

    fn end(&mut self, key: u64, reason: CloseReason, out: &mut Vec<Event>) {
        if self.conns.remove(key).is_some() {
            out.push(Event::Closed {
                conn: ConnId(key),
                reason,
            });
        }
    }

    fn mark_dirty(&mut self, key: u64) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, segments: impl IntoIterator<Item = Bytes>) {
        let Some(found) = self.conns.get_mut(conn.0) else {
            return;
        };
        if !matches!(found.phase, Phase::Open | Phase::Connecting) {
            return;
        }
        for segment in segments {
            found.outbox.push(segment);
        }
        // A full socket is left alone until epoll says otherwise.
        if !found.stalled && found.outbox.len() > 0 {
            self.mark_dirty(conn.0);
        }
    }

    /// Sends what was queued since the last turn, one gathering send per connection.
    pub(crate) fn flush(&mut self, poller: &Poller, out: &mut Vec<Event>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            conn.dirty = false;
            let outcome = if conn.may_send() {
                conn.flush()
            } else {
                Outcome::Nothing
            };
            self.settle(poller, key, outcome, out);
        }
        self.dirty = dirty;
    }

    pub(crate) fn close(&mut self, conn: ConnId, now: u64, out: &mut Vec<Event>) {
        let Some(found) = self.conns.get_mut(conn.0) else {
            return;
        };
        match found.phase {
            Phase::Connecting => self.end(conn.0, CloseReason::Local, out),
            Phase::Open => {
                found.phase = Phase::Flushing;
                self.closing.push_back((now.saturating_add(self.linger), conn.0));
                self.mark_dirty(conn.0);
            }
            Phase::Flushing | Phase::Draining => {}
        }
    }

    pub(crate) fn abort(&mut self, conn: ConnId, out: &mut Vec<Event>) {
        self.end(conn.0, CloseReason::Local, out);
    }

    pub(crate) fn pause_reading(&mut self, poller: &Poller, conn: ConnId, pause: bool, out: &mut Vec<Event>) {
        if let Some(found) = self.conns.get_mut(conn.0) {
            found.paused = pause;
            self.rearm(poller, conn.0, out);
        }
    }

    /// From now on the end of a connection is told as soon as it is seen, and the peer is asked whether it is there.
    pub(crate) fn attend(&mut self, poller: &Poller, conn: ConnId, out: &mut Vec<Event>) {
        if let Some(found) = self.conns.get_mut(conn.0) {
            found.ends_at_once = true;
            match probe(&found.fd) {
                Ok(()) => self.rearm(poller, conn.0, out),
                Err(error) => self.end(conn.0, CloseReason::Failed(error.into()), out),
            }
        }
    }

    pub(crate) fn stands(&self, conn: ConnId) -> Option<u64> {
        let found = self.conns.get(conn.0).filter(|found| found.ends_at_once);
        found.map(|_| self.looks.last())
    }

    pub(crate) fn heard(&self, conn: ConnId, now: u64) -> Option<u64> {
        self.conns.get(conn.0).and_then(|found| heard(&found.fd, now))
    }

    pub(crate) fn input(&mut self, conn: ConnId) -> &mut BytesMut {
        match self.conns.get_mut(conn.0) {
            Some(found) => &mut found.inbox.data,
            None => {
                self.nothing.clear();
                &mut self.nothing
            }
        }
    }

    pub(crate) fn set_hint(&mut self, conn: ConnId, bytes: usize) {
        if let Some(found) = self.conns.get_mut(conn.0) {
            found.inbox.set_hint(bytes);
        }
    }

    pub(crate) fn queued(&self, conn: ConnId) -> usize {
        self.conns.get(conn.0).map_or(0, |found| found.outbox.len())
    }

    /// Bytes that all connections have queued.
    pub(crate) fn all_queued(&self) -> usize {
        self.conns.values().map(|conn| conn.outbox.len()).sum()
    }

    /// When [`Sockets::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let closing = self.closing.front().map(|(at, _)| *at);
        let resting = self.resting.front().map(|(at, _)| *at);
        closing.into_iter().chain(resting).min()
    }

    /// Ends closing connections whose time is up and listens again on rested listeners.
    pub(crate) fn expire(&mut self, poller: &Poller, now: u64, out: &mut Vec<Event>) {
        while let Some((at, key)) = self.closing.front().copied() {
            // One that ended by itself is only forgotten.
            if at > now && self.conns.get(key).is_some() {
                break;
            }
            self.closing.pop_front();
            self.end(key, CloseReason::Local, out);
        }
        while let Some((at, key)) = self.resting.front().copied() {
            if at > now {
                break;
            }
            self.resting.pop_front();
            self.arm_listener(poller, key, EventFlags::IN);
        }
    }
}

fn bound_socket(addr: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let fd = stream_socket(addr)?;
    set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &addr)?;
    listen(&fd, BACKLOG)?;
    let bound = SocketAddr::try_from(getsockname(&fd)?)?;
    Ok((fd, bound))
}
