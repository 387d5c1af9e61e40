//! Carriers of several OSDs and clients, joined by pipes that split and merge what is sent, break at each end at another
//! time, refuse and swallow dials, while processes crash and start again, under seeded random events.
//!
//! What arrives was sent by that node to this one, in order and once; breaks are told; after the faults all get through.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use trivet_carrier::{Carrier, Effect, LinkId, Me, Next};
use trivet_core::keys::OsdState;
use trivet_core::kv::Revision;
use trivet_core::map::Versioned;
use trivet_core::message::{Action, Message, Op, OpDone, OpError};
use trivet_core::{ClientId, Epoch, ImageId, NodeId, Now, OpId, OsdId, PgId, PoolId, Tick};

const OSDS: usize = 3;
const NODES: usize = 5;
const STEPS: usize = 4000;
const SEEDS: u64 = 30;
const TICK: Duration = Duration::from_millis(100);

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x >> 33) % n as u64).unwrap()
    }
}

/// A process; none while it is down.
struct Process {
    name: NodeId,
    boot: u64,
    carrier: Carrier,
}

/// One side of a connection.
struct Side {
    place: usize,
    boot: u64,
    link: LinkId,
    input: BytesMut,
    /// Bytes on their way to it.
    wire: VecDeque<u8>,
    /// This side has not heard the end.
    open: bool,
    dialed: Option<OsdId>,
}

struct Connection {
    /// The dialer's first; the other one once it was accepted.
    sides: Vec<Side>,
    to: usize,
    swallowed: bool,
}

type Way = (NodeId, u64, NodeId);

struct World {
    random: Random,
    now: Now,
    processes: Vec<Option<Process>>,
    connections: Vec<Connection>,
    boots: u64,
    sequence: u64,
    map: BTreeMap<OsdId, Versioned<OsdState>>,
    sent: BTreeSet<(Way, u64)>,
    arrived: BTreeMap<Way, u64>,
    delivered: u64,
    told: [u64; 2],
}

fn osd(place: usize) -> OsdId {
    OsdId(u32::try_from(place).unwrap() + 1)
}

fn place_of(osd: OsdId) -> usize {
    osd.0 as usize - 1
}

/// A message from which everything about its way can be read.
fn message(from: NodeId, boot: u64, to: NodeId, sequence: u64, filler: usize) -> Message {
    match (from, to) {
        (NodeId::Osd(from), NodeId::Osd(to)) => {
            let pg = |number| PgId::first(PoolId(1), number);
            let first = (pg(from.0 * 100 + to.0), Epoch(boot));
            let rest = (0..filler).map(|_| (pg(0), Epoch(1)));
            let (sent, pgs) = (Now(sequence), std::iter::once(first).chain(rest).collect());
            Message::Ping { sent, pgs }
        }
        (NodeId::Client(client), NodeId::Osd(to)) => Message::Op(Op {
            id: OpId { client, sequence },
            pg: PgId::first(PoolId(1), 0),
            epoch: Epoch(boot),
            settled: u64::from(to.0),
            answered: 1,
            previous: 0,
            stamp: Tick::default(),
            action: Action::List {
                image: ImageId::new(PoolId(1), 1),
                from: 0,
                end: 1,
            },
        }),
        (NodeId::Osd(from), NodeId::Client(client)) => Message::OpDone(OpDone {
            id: OpId { client, sequence },
            result: Err(OpError::OtherEpoch(Epoch(boot * 100 + u64::from(from.0)))),
            tick: Tick::default(),
        }),
        _ => unreachable!("clients do not talk to each other"),
    }
}

/// The way that a message was sent on, and its number.
fn way_of(message: &Message) -> (Way, u64) {
    match message {
        Message::Ping { sent, pgs } => {
            let (pg, Epoch(boot)) = pgs[0];
            let (from, to) = (OsdId(pg.number / 100), OsdId(pg.number % 100));
            ((NodeId::Osd(from), boot, NodeId::Osd(to)), sent.0)
        }
        Message::Op(op) => {
            let to = OsdId(u32::try_from(op.settled).unwrap());
            (
                (NodeId::Client(op.id.client), op.epoch.0, NodeId::Osd(to)),
                op.id.sequence,
            )
        }
        Message::OpDone(done) => {
            let Err(OpError::OtherEpoch(Epoch(both))) = done.result else {
                panic!("{done:?}")
            };
            let from = OsdId(u32::try_from(both % 100).unwrap());
            (
                (NodeId::Osd(from), both / 100, NodeId::Client(done.id.client)),
                done.id.sequence,
            )
        }
        other => panic!("{other:?}"),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            random: Random(seed),
            now: Now(1),
            processes: (0..NODES).map(|_| None).collect(),
            connections: Vec::new(),
            boots: 0,
            sequence: 1000,
            map: BTreeMap::new(),
            sent: BTreeSet::new(),
            arrived: BTreeMap::new(),
            delivered: 0,
            told: [0; 2],
        };
        (0..NODES).for_each(|place| world.start(place));
        world
    }

    fn start(&mut self, place: usize) {
        self.boots += 1;
        let boot = self.boots;
        let name = if place < OSDS {
            NodeId::Osd(osd(place))
        } else {
            NodeId::Client(ClientId(boot))
        };
        let cluster = [1; 16];
        let carrier = Carrier::new(Me {
            node: name,
            cluster,
            boot,
        });
        self.processes[place] = Some(Process { name, boot, carrier });
    }

    fn crash(&mut self, place: usize) {
        self.processes[place] = None;
    }

    /// The map as it is, for one process.
    fn notice(&mut self, place: usize) {
        for at in 0..OSDS {
            let Some(process) = &self.processes[at] else { continue };
            let address = Some(format!("10.0.0.1:{}", at + 1));
            let value = OsdState {
                boot: process.boot,
                size: 0,
                address,
            };
            let revision = Revision::default();
            self.map.insert(osd(at), Versioned { value, revision });
        }
        let map = std::mem::take(&mut self.map);
        self.with(place, |carrier, now, out| carrier.peers(now, &map, out));
        self.map = map;
    }

    /// Calls a carrier and carries out what it wants.
    fn with(&mut self, place: usize, call: impl FnOnce(&mut Carrier, Now, &mut Vec<Effect>)) -> Vec<(OsdId, bool)> {
        let mut out = Vec::new();
        if let Some(process) = &mut self.processes[place] {
            call(&mut process.carrier, self.now, &mut out);
        }
        let mut lost = Vec::new();
        for effect in out {
            match effect {
                Effect::Dial(link, to, address) => self.dial(place, link, to, address.port()),
                Effect::Send(link, segments) => self.put(place, link, &segments.concat()),
                Effect::Close { link, fault, .. } => {
                    if let Some((at, side)) = self.find(place, link) {
                        self.connections[at].sides[side].open = false;
                    }
                    let name = fault.map(|fault| fault.to_string()).unwrap_or_default();
                    assert!(!name.contains("malformed") && !name.contains("checksum"), "{name}");
                }
                Effect::Pause(..) => {}
                Effect::Lost { osd, gone } => {
                    self.told[usize::from(gone)] += 1;
                    lost.push((osd, gone));
                }
            }
        }
        lost
    }

    fn dial(&mut self, place: usize, link: LinkId, to: OsdId, port: u16) {
        assert_eq!(u32::from(port), to.0);
        let boot = self.processes[place].as_ref().unwrap().boot;
        let dialer = Side {
            place,
            boot,
            link,
            input: BytesMut::new(),
            wire: VecDeque::new(),
            open: true,
            dialed: Some(to),
        };
        self.connections.push(Connection {
            sides: vec![dialer],
            to: place_of(to),
            swallowed: false,
        });
    }

    fn find(&self, place: usize, link: LinkId) -> Option<(usize, usize)> {
        let boot = self.processes[place].as_ref()?.boot;
        let is_it = |side: &Side| side.place == place && side.boot == boot && side.link == link && side.open;
        self.connections
            .iter()
            .enumerate()
            .find_map(|(at, connection)| Some((at, connection.sides.iter().position(is_it)?)))
    }

    fn put(&mut self, place: usize, link: LinkId, bytes: &[u8]) {
        if let Some((at, side)) = self.find(place, link) {
            let connection = &mut self.connections[at];
            connection.sides[1 - side].wire.extend(bytes);
        }
    }

    fn is_alive(&self, side: &Side) -> bool {
        side.open
            && self.processes[side.place]
                .as_ref()
                .is_some_and(|process| process.boot == side.boot)
    }

    /// A connection gets on: is accepted or refused, or some bytes arrive at one side, or the end does.
    fn progress(&mut self, at: usize, most: usize) {
        if self.connections[at].sides.len() == 1 {
            return self.accept(at);
        }
        let side = self.random.below(2);
        let over = !self.is_alive(&self.connections[at].sides[1 - side]);
        let receiver = &mut self.connections[at].sides[side];
        let count = self.random.below(most).min(receiver.wire.len());
        receiver.input.extend(receiver.wire.drain(..count));
        if !self.is_alive(&self.connections[at].sides[side]) {
            return;
        }
        if over && self.connections[at].sides[side].wire.is_empty() {
            return self.end(at, side, false);
        }
        self.read(at, side);
    }

    fn accept(&mut self, at: usize) {
        let connection = &self.connections[at];
        let (place, link) = (connection.sides[0].place, connection.sides[0].link);
        if connection.swallowed || !self.is_alive(&connection.sides[0]) {
            return;
        }
        let to = connection.to;
        let Some(process) = &mut self.processes[to] else {
            return self.end(at, 0, true);
        };
        let side = Side {
            place: to,
            boot: process.boot,
            link: process.carrier.accepted(self.now),
            input: BytesMut::new(),
            wire: VecDeque::new(),
            open: true,
            dialed: None,
        };
        self.connections[at].sides.push(side);
        self.with(place, |carrier, now, out| carrier.connected(now, link, out));
    }

    fn read(&mut self, at: usize, side: usize) {
        let side = &mut self.connections[at].sides[side];
        let (place, link) = (side.place, side.link);
        let mut input = std::mem::take(&mut side.input);
        let mut messages = Vec::new();
        self.with(place, |carrier, now, out| {
            while carrier.received(now, link, &mut input, out, &mut messages) == Next::Again {}
        });
        if let Some((at, side)) = self.find(place, link) {
            self.connections[at].sides[side].input = input;
        }
        let me = self.processes[place].as_ref().unwrap().name;
        messages
            .iter()
            .for_each(|(from, message)| self.arrive(me, *from, message));
    }

    fn arrive(&mut self, me: NodeId, from: NodeId, message: &Message) {
        let (way, sequence) = way_of(message);
        assert_eq!((way.0, way.2), (from, me), "sender and receiver");
        assert!(self.sent.contains(&(way, sequence)), "never sent: {message:?}");
        let last = self.arrived.insert(way, sequence);
        assert!(last < Some(sequence), "{way:?}: {sequence} after {last:?}");
        self.delivered += 1;
    }

    /// One side hears that the connection is over; to an OSD that it dialed, it must be told.
    fn end(&mut self, at: usize, side: usize, refused: bool) {
        let side = &mut self.connections[at].sides[side];
        side.open = false;
        let (place, link, dialed) = (side.place, side.link, side.dialed);
        let lost = self.with(place, |carrier, now, out| carrier.closed(now, link, refused, out));
        if let Some(osd) = dialed {
            assert_eq!(lost, [(osd, refused)]);
        }
    }

    fn send(&mut self, from: usize, to: usize, filler: usize) {
        let (Some(sender), Some(receiver)) = (&self.processes[from], &self.processes[to]) else {
            return;
        };
        let (way, receiver) = ((sender.name, sender.boot, receiver.name), receiver.name);
        self.sequence += 1;
        let message = message(way.0, way.1, way.2, self.sequence, filler);
        self.sent.insert((way, self.sequence));
        self.with(from, |carrier, now, out| carrier.send(now, receiver, &message, out));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for place in 0..NODES {
            self.with(place, |carrier, now, out| {
                carrier.unsent(|_| 0, out);
                carrier.tick(now, out);
            });
        }
    }

    fn step(&mut self) {
        let (some, place, count) = (
            self.random.below(NODES),
            self.random.below(NODES),
            self.connections.len(),
        );
        match self.random.below(1000) {
            0..300 if some != place && some.min(place) < OSDS => {
                let filler = [0, 0, 0, 2000][self.random.below(4)];
                self.send(some, place, filler);
            }
            300..900 if count > 0 => {
                let at = self.random.below(count);
                let most = [2, 30, 500, 100_000][self.random.below(4)];
                self.progress(at, most);
            }
            900..940 => {
                let time = self.random.below(200);
                self.pass(Duration::from_millis(time as u64));
            }
            940..960 => self.notice(place),
            960..985 if count > 0 => self.disturb(count),
            985..990 => self.crash(place),
            990.. if self.processes[place].is_none() => self.start(place),
            _ => {}
        }
        let mut at = 0;
        while at < self.connections.len() {
            let dead = self.connections[at].sides.iter().all(|side| !self.is_alive(side));
            if dead {
                self.connections.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// A side hears a reset that nobody sent, or a dial gets no answer.
    fn disturb(&mut self, count: usize) {
        let at = self.random.below(count);
        let sides = self.connections[at].sides.len();
        if sides == 1 {
            self.connections[at].swallowed = true;
            return;
        }
        let side = self.random.below(sides);
        if self.is_alive(&self.connections[at].sides[side]) {
            self.end(at, side, false);
        }
    }

    /// No more faults: everybody hears from everybody.
    fn heal(&mut self) {
        for place in 0..NODES {
            if self.processes[place].is_none() {
                self.start(place);
            }
        }
        (0..NODES).for_each(|place| self.notice(place));
        let since = self.sequence;
        for _ in 0..80 {
            for (from, to) in ways() {
                self.send(from, to, 0);
            }
            for _ in 0..200 {
                let count = self.connections.len();
                let at = self.random.below(count.max(1));
                if count > 0 {
                    self.progress(at, 100_000);
                }
            }
            self.pass(TICK);
        }
        for (from, to) in ways() {
            let [from, to] = [from, to].map(|place| self.processes[place].as_ref().unwrap());
            let last = self.arrived.get(&(from.name, from.boot, to.name)).copied();
            assert!(last > Some(since), "{:?} to {:?}: {last:?}", from.name, to.name);
        }
    }
}

/// Who talks to whom.
fn ways() -> Vec<(usize, usize)> {
    let all = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    all.filter(|&(from, to)| from != to && from.min(to) < OSDS).collect()
}

#[test]
fn messages_keep_sender_order_and_number_under_faults() {
    let (mut delivered, mut told) = (0, [0; 2]);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        delivered += world.delivered;
        told = [told[0] + world.told[0], told[1] + world.told[1]];
    }
    assert!(delivered > SEEDS * 1000, "{delivered} messages arrived");
    assert!(told.iter().all(|&count| count > SEEDS), "lost and gone: {told:?}");
}
