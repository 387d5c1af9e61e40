//! Connections between users and gateways: ordered streams of bytes, as TCP makes them.
//!
//! Both ends have a kernel that takes in what arrives, whether the process looks at it or not: a stopped gateway finds
//! everything when it goes on, the end of a connection behind what was sent before it. A machine that stood still takes in
//! what came piece by piece when it goes on. Networks cut nothing out of a stream: they hold it up, or the stream ends.
//!
//! The gateway's kernel asks the user's every second whether it is there; what it asks and what it hears take their time,
//! so an answer may be older than an end that is still on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trivet_core::Now;
use trivet_gateway::gateway::ConnKey;

use crate::event::{Event, Life};
use crate::network::{Latency, Place};
use crate::random::Random;
use crate::world::World;

/// Names a connection; never given again.
pub type StreamId = u64;

/// A process looks at what its kernel has after this time.
const LOOK: Duration = Duration::from_micros(20);
/// Who was not told that the other end is gone finds out after this time at least and at most (keepalive).
const FOUND_OUT: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(12));
/// The gateway's kernel asks the user's this often (`cluster/reactor/src/presence.rs`).
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// What a network card has lost is sent again after this time (Linux: 200 ms at first).
const SENT_AGAIN: Duration = Duration::from_millis(200);
/// What came while a machine stood still may be held up on its last way for so long.
const HELD_UP: Duration = Duration::from_millis(400);
/// What came while a machine stood still may all be lost: users send it again within this time after it goes on.
const SENT_ANEW: Duration = Duration::from_secs(1);
/// Bytes of a piece that is cut further.
const LEAST_CUT: usize = 2;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The user's.
    User,
    /// The gateway's.
    Gateway,
}

/// What travels in one direction.
#[derive(Clone, Debug)]
pub enum Segment {
    /// The user wants a connection.
    Open,
    /// The gateway's kernel has accepted it.
    Accepted,
    /// Bytes.
    Data(Bytes),
    /// The gateway's kernel asks whether the user's is there.
    Probe,
    /// It is.
    Here,
    /// Nothing follows.
    End,
    /// The connection is no more.
    Reset,
}

/// How an end is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// What was sent arrives, then the end.
    End,
    /// The connection breaks.
    Reset,
    /// Without a word: the other end finds out by itself.
    Silence,
}

/// What a gateway's kernel and runner know of a connection.
#[derive(Debug, Default)]
struct GatewayEnd {
    /// The process that it belongs to; none before it is accepted.
    life: Option<Life>,
    /// The gateway's name for it.
    key: Option<ConnKey>,
    /// What arrived and was not read.
    inbox: BytesMut,
    /// What the gateway left over.
    leftover: BytesMut,
    /// Nothing more arrives.
    ended: bool,
    /// The gateway does not want to read.
    paused: bool,
    /// The leftover is to be offered again.
    again: bool,
    /// The process is about to look.
    poked: bool,
    /// When the user's kernel was heard last.
    heard: Now,
    /// What came while the machine stood still, and its kernel has not seen.
    card: VecDeque<Segment>,
    closed: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Stream {
    /// Which user's.
    pub user: usize,
    /// Which of its connections.
    pub path: usize,
    /// Which gateway.
    pub gateway: usize,
    end: GatewayEnd,
    user_closed: bool,
    /// When the last segment arrives at either side: later ones do not overtake it.
    last: [Now; 2],
}

/// All connections.
#[derive(Debug)]
pub struct Streams {
    next: StreamId,
    open: BTreeMap<StreamId, Stream>,
    /// Until when nothing passes, by user and gateway.
    cut: BTreeMap<(usize, usize), Now>,
    latency: Latency,
    random: Random,
}

impl Streams {
    /// No connections yet.
    #[must_use]
    pub fn new(latency: Latency, random: Random) -> Streams {
        Streams {
            next: 0,
            open: BTreeMap::new(),
            cut: BTreeMap::new(),
            latency,
            random,
        }
    }

    fn latency(&mut self) -> Duration {
        self.latency.least + self.random.exponential(self.latency.mean)
    }

    /// When something sent now arrives, if nothing holds it up.
    fn when(&mut self, now: Now, id: StreamId, to: Side) -> Option<Now> {
        let when = now + self.latency();
        let last = &mut self.open.get_mut(&id)?.last[to as usize];
        *last = when.max(*last);
        Some(*last)
    }

    /// Nothing passes between this user and this gateway until then.
    pub fn cut(&mut self, user: usize, gateway: usize, until: Now) {
        self.cut.insert((user, gateway), until);
    }

    /// Whether nothing passes between them now.
    #[must_use]
    pub fn is_cut(&self, user: usize, gateway: usize, now: Now) -> bool {
        self.cut.get(&(user, gateway)).is_some_and(|until| now < *until)
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Until when nothing passes on this connection, if so.
    fn held_until(&self, id: StreamId, now: Now) -> Option<Now> {
        let stream = self.open.get(&id)?;
        let until = self.cut.get(&(stream.user, stream.gateway)).copied();
        until.filter(|until| *until > now)
    }

    /// The connection is forgotten when neither side has it any more.
    fn forget_if_over(&mut self, id: StreamId) {
        if self
            .open
            .get(&id)
            .is_some_and(|stream| stream.user_closed && stream.end.closed)
        {
            self.open.remove(&id);
        }
    }

    fn of_gateway(&self, gateway: usize) -> Vec<StreamId> {
        let open = self.open.iter().filter(|(_, stream)| stream.gateway == gateway);
        open.map(|(id, _)| *id).collect()
    }

    /// Whose connections a gateway has, as far as it knows, and whether the user has them, too.
    pub fn users_of(&self, gateway: usize) -> impl Iterator<Item = (usize, bool)> {
        let open = self.open.values().filter(move |stream| stream.gateway == gateway);
        let known = open.filter(|stream| !stream.end.closed);
        known.map(|stream| (stream.user, !stream.user_closed))
    }

    /// A network card has lost what came. Kernels send again all but that they are there.
    fn card_loses(&mut self, id: StreamId) {
        let stream = self.open.get_mut(&id).expect("one of the gateway's");
        stream.end.card.retain(|segment| !matches!(segment, Segment::Here));
    }

    fn by_key(&self, gateway: usize, key: ConnKey) -> Option<StreamId> {
        let mut open = self.open.iter();
        let found = open.find(|(_, stream)| stream.gateway == gateway && stream.end.key == Some(key));
        found.map(|(id, _)| *id)
    }
}

impl World {
    /// A user wants a connection to a gateway.
    pub(crate) fn connect(&mut self, user: usize, path: usize, gateway: usize) -> StreamId {
        self.streams.next += 1;
        let id = self.streams.next;
        let stream = Stream {
            user,
            path,
            gateway,
            end: GatewayEnd::default(),
            user_closed: false,
            last: [self.now; 2],
        };
        self.streams.open.insert(id, stream);
        self.trace.line(
            self.now,
            format_args!("user {user} opens connection {id} to gateway {gateway}"),
        );
        self.pass(id, Side::Gateway, Segment::Open);
        id
    }

    /// A segment goes on its way.
    fn pass(&mut self, id: StreamId, to: Side, segment: Segment) {
        if let Some(when) = self.streams.when(self.now, id, to) {
            self.schedule.at(when, Event::Arrive(id, to, segment));
        }
    }

    /// Bytes go on their way, in pieces that have nothing to do with what they mean.
    pub(crate) fn send_bytes(&mut self, id: StreamId, to: Side, bytes: Vec<Bytes>) {
        for mut piece in bytes {
            while piece.len() > LEAST_CUT && self.streams.random.one_in(6) {
                let first = 1 + self.streams.random.index(piece.len() - 1);
                self.pass(id, to, Segment::Data(piece.split_to(first)));
            }
            self.pass(id, to, Segment::Data(piece));
        }
    }

    /// The user leaves a connection.
    pub(crate) fn user_leaves(&mut self, id: StreamId, how: Leave) {
        self.trace
            .line(self.now, format_args!("connection {id} is left by its user: {how:?}"));
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.user_closed = true;
            self.leave(id, Side::Gateway, how);
        }
    }

    fn leave(&mut self, id: StreamId, tells: Side, how: Leave) {
        match how {
            Leave::End => self.pass(id, tells, Segment::End),
            Leave::Reset => self.pass(id, tells, Segment::Reset),
            Leave::Silence => {
                let later = self.streams.random.duration(FOUND_OUT.0..=FOUND_OUT.1);
                self.schedule
                    .at(self.now + later, Event::Arrive(id, tells, Segment::Reset));
            }
        }
        self.streams.forget_if_over(id);
    }

    /// A gateway closes a connection.
    pub(crate) fn gateway_leaves(&mut self, gateway: usize, key: ConnKey) {
        if let Some(id) = self.streams.by_key(gateway, key) {
            self.close_gateway_end(id, Leave::End);
        }
    }

    fn close_gateway_end(&mut self, id: StreamId, how: Leave) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut stream.end.closed, true) {
            self.leave(id, Side::User, how);
        }
    }

    /// The process of a gateway is gone. Its kernel says so, unless the power failed.
    pub(crate) fn gateway_gone(&mut self, gateway: usize, how: Leave) {
        for id in self.streams.of_gateway(gateway) {
            self.close_gateway_end(id, how);
        }
    }

    /// The gateway sends bytes to a client.
    pub(crate) fn gateway_sends(&mut self, gateway: usize, key: ConnKey, bytes: Vec<Bytes>) {
        if let Some(id) = self.streams.by_key(gateway, key) {
            self.send_bytes(id, Side::User, bytes);
        }
    }

    /// The gateway stops reading from a client, or goes on.
    pub(crate) fn gateway_pauses(&mut self, gateway: usize, key: ConnKey, paused: bool) {
        if let Some(id) = self.streams.by_key(gateway, key)
            && let Some(stream) = self.streams.open.get_mut(&id)
        {
            stream.end.paused = paused;
            self.poke(id);
        }
    }

    /// The gateway wants to be offered again what it left.
    pub(crate) fn gateway_wants_again(&mut self, gateway: usize, key: ConnKey) {
        if let Some(id) = self.streams.by_key(gateway, key)
            && let Some(stream) = self.streams.open.get_mut(&id)
        {
            stream.end.again = true;
            self.poke(id);
        }
    }

    /// The process of the gateway will look at the connection.
    fn poke(&mut self, id: StreamId) {
        let first = self.gateway_place(0);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if stream.end.poked || stream.end.closed {
            return;
        }
        if let Some(life) = stream.end.life {
            stream.end.poked = true;
            let place = first + stream.gateway;
            self.schedule.at(self.now + LOOK, Event::Readable(place, life, id));
        }
    }

    /// A segment arrives, unless the network holds it up.
    pub(crate) fn arrive(&mut self, id: StreamId, to: Side, segment: Segment) {
        if let Some(until) = self.streams.held_until(id, self.now) {
            return self.schedule.at(until, Event::Arrive(id, to, segment));
        }
        match to {
            Side::User => self.arrive_at_user(id, segment),
            Side::Gateway => self.arrive_at_gateway(id, segment),
        }
    }

    fn arrive_at_gateway(&mut self, id: StreamId, segment: Segment) {
        let first: Place = self.gateway_place(0);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let stands = self.processes[first + stream.gateway].stands_since.is_some();
        if stands || !stream.end.card.is_empty() {
            return stream.end.card.push_back(segment);
        }
        self.take_in(id, segment);
    }

    /// The machine of a gateway goes on after it stood still.
    pub(crate) fn cards_hand_on(&mut self, gateway: usize) {
        for id in self.streams.of_gateway(gateway) {
            let later = match self.streams.random.index(3) {
                0 => {
                    self.streams.card_loses(id);
                    self.streams.random.duration(Duration::ZERO..=SENT_ANEW)
                }
                1 => self.streams.random.duration(Duration::ZERO..=HELD_UP),
                _ => Duration::ZERO,
            };
            self.schedule.at(self.now + later, Event::Card(id));
        }
    }

    /// One piece after the other reaches the kernel, some after they were sent again.
    pub(crate) fn card_hands_on(&mut self, id: StreamId) {
        let first: Place = self.gateway_place(0);
        let latency = self.streams.latency();
        let lost = self.streams.random.one_in(8);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if self.processes[first + stream.gateway].stands_since.is_some() {
            return;
        }
        let Some(segment) = stream.end.card.pop_front() else {
            return;
        };
        if !stream.end.card.is_empty() {
            let later = if lost { latency + SENT_AGAIN } else { latency };
            self.schedule.at(self.now + later, Event::Card(id));
        }
        self.take_in(id, segment);
    }

    /// The kernel of a gateway's machine takes in what arrived.
    fn take_in(&mut self, id: StreamId, segment: Segment) {
        let first: Place = self.gateway_place(0);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let process = &self.processes[first + stream.gateway];
        let gone = !process.alive || stream.end.life.is_some_and(|life| life != process.life);
        if matches!(segment, Segment::Here) {
            stream.end.heard = self.now;
            return;
        }
        if stream.end.closed || gone {
            stream.end.closed = true;
            return self.leave(id, Side::User, Leave::Reset);
        }
        match segment {
            Segment::Open => {
                stream.end.life = Some(process.life);
                self.pass(id, Side::User, Segment::Accepted);
                let phase = self.streams.random.duration(Duration::ZERO..=PROBE_EVERY);
                self.schedule.at(self.now + phase, Event::Probe(id));
            }
            Segment::Data(bytes) => stream.end.inbox.extend_from_slice(&bytes),
            Segment::End | Segment::Reset => {
                stream.end.ended = true;
                self.trace
                    .line(self.now, format_args!("connection {id} ends at its gateway"));
            }
            Segment::Accepted | Segment::Probe | Segment::Here => {}
        }
        self.poke(id);
    }

    /// The gateway's kernel asks whether the user's is there, though its process may be stopped.
    pub(crate) fn probe(&mut self, id: StreamId) {
        let first: Place = self.gateway_place(0);
        let Some(stream) = self.streams.open.get(&id).filter(|stream| !stream.end.closed) else {
            return;
        };
        let gateway = stream.gateway;
        if self.processes[first + gateway].stands_since.is_none() {
            self.pass(id, Side::User, Segment::Probe);
            self.asked_for_user(gateway);
        }
        self.schedule.at(self.now + PROBE_EVERY, Event::Probe(id));
    }

    fn arrive_at_user(&mut self, id: StreamId, segment: Segment) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if stream.user_closed {
            return;
        }
        let (user, path) = (stream.user, stream.path);
        match segment {
            Segment::Accepted => self.user_connected(user, path),
            Segment::Data(bytes) => self.user_received(user, path, &bytes),
            Segment::End | Segment::Reset => {
                stream.user_closed = true;
                self.streams.forget_if_over(id);
                self.user_lost(user, path);
            }
            Segment::Probe => self.pass(id, Side::Gateway, Segment::Here),
            Segment::Open | Segment::Here => {}
        }
    }

    /// The process of a gateway looks at a connection. What was not read before its end was seen is dropped.
    pub(crate) fn readable(&mut self, gateway: usize, id: StreamId) {
        if !self.gateways[gateway].is_ready() {
            let (place, life) = (
                self.gateway_place(gateway),
                self.processes[self.gateway_place(gateway)].life,
            );
            let later = self.now + crate::world::TICK;
            return self.schedule.at(later, Event::Readable(place, life, id));
        }
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let (user, end) = (stream.user, &mut stream.end);
        end.poked = false;
        if end.closed {
            return;
        }
        let fresh = end.key.is_none();
        let key = *end.key.get_or_insert(ConnKey(id));
        if fresh {
            self.gateway_accepts(gateway, key, user);
        }
        self.offer(gateway, key, id);
    }

    fn offer(&mut self, gateway: usize, key: ConnKey, id: StreamId) {
        let Some(end) = self.streams.open.get_mut(&id).map(|stream| &mut stream.end) else {
            return;
        };
        let again = std::mem::take(&mut end.again);
        if end.closed {
            return;
        }
        if end.ended {
            end.closed = true;
            self.gateway_hears_end(gateway, key);
            return self.streams.forget_if_over(id);
        }
        if end.paused && !again {
            return;
        }
        let more = !end.paused && !end.inbox.is_empty();
        if more {
            let inbox = std::mem::take(&mut end.inbox);
            end.leftover.extend_from_slice(&inbox);
        }
        if (more || again) && !end.leftover.is_empty() {
            let mut input = std::mem::take(&mut end.leftover);
            self.gateway_receives(gateway, key, &mut input, more);
            if let Some(stream) = self.streams.open.get_mut(&id) {
                stream.end.leftover = input;
            }
        }
    }

    /// Whether a connection has no end that the gateway's kernel knows of; and when the user's kernel was heard last, unless
    /// there is something to read.
    pub(crate) fn heard_of(&self, gateway: usize, key: ConnKey) -> Option<(bool, Option<Now>)> {
        let id = self.streams.by_key(gateway, key)?;
        let end = &self.streams.open.get(&id)?.end;
        let heard = Some(end.heard).filter(|_| end.inbox.is_empty() && !end.ended);
        Some((!end.ended, heard))
    }
}
