//! The machine: which links there are, which one a message takes, and what the end of a link means.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use trivet_core::keys::OsdState;
use trivet_core::map::Versioned;
use trivet_core::message::Message;
use trivet_core::wire::{decode, encode, needed};
use trivet_core::{NodeId, Now, OsdId};

use crate::fault::Fault;
use crate::hello::{HELLO, Hello};
use crate::link::{Link, State};
use crate::peer::{Entry, Peer, osd_of};
use crate::rules::{allowed, limits};
use crate::{Counters, Effect, LinkId, Me, Next};

/// Bytes unsent on one link beyond which messages are dropped.
const MAX_UNSENT: usize = 64 << 20;
/// A client that leaves so many bytes of answers unread is not read from. OSDs always read from each other: two that
/// wait for each other would wait for ever.
const PAUSE: usize = 16 << 20;
/// It is read from again when no more than this is left.
const RESUME: usize = 4 << 20;
/// Bytes of frames decoded in one call.
const READ_BUDGET: usize = 1 << 20;

/// How a link ends.
enum End {
    /// The network or the peer ended it.
    Broken,
    /// Nobody listens there.
    Refused,
    /// This side ends it.
    Closed(Option<Fault>),
}

/// The carrier of one node. See the crate's documentation.
#[derive(Debug)]
pub struct Carrier {
    me: Me,
    links: BTreeMap<LinkId, Link>,
    peers: BTreeMap<NodeId, Peer>,
    last_link: u64,
    /// Links with bytes unsent.
    busy: Vec<LinkId>,
    counters: Counters,
}

impl Carrier {
    /// A carrier without links, which knows no addresses yet.
    #[must_use]
    pub fn new(me: Me) -> Carrier {
        Carrier {
            me,
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            last_link: 0,
            busy: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let links = self.links.values().filter(|link| link.is_standing()).count() as u64;
        Counters { links, ..self.counters }
    }

    /// The OSDs of the map. Links to one that has left it, or to an earlier start of one, are closed.
    pub fn peers(&mut self, now: Now, osds: &BTreeMap<OsdId, Versioned<OsdState>>, out: &mut Vec<Effect>) {
        let left: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.entry.is_some())
            .map(|(&node, _)| node)
            .collect();
        for node in left {
            if osd_of(node).is_some_and(|osd| !osds.contains_key(&osd)) {
                self.left(now, node, out);
            }
        }
        for (&osd, state) in osds {
            let node = NodeId::Osd(osd);
            if node != self.me.node {
                self.listed(now, node, Entry::of(&state.value), out);
            }
        }
    }

    fn left(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.entry = None;
        peer.probe = false;
        let links: Vec<LinkId> = peer.links.iter().copied().chain(peer.dialing).collect();
        self.drop_waiting(node);
        for link in links {
            self.end(now, link, End::Closed(None), out);
        }
    }

    fn listed(&mut self, now: Now, node: NodeId, entry: Entry, out: &mut Vec<Effect>) {
        let peer = self.peers.entry(node).or_default();
        let before = peer.entry.replace(entry);
        if before == Some(entry) {
            return;
        }
        let mut over = Vec::new();
        if let Some(before) = before {
            if before.address != entry.address {
                over.extend(peer.dialing);
            }
            if before.boot != entry.boot {
                peer.retire(before.boot);
                let links = &self.links;
                let is_old = |link: &LinkId| links[link].boot().is_some_and(|boot| boot != entry.boot);
                over.extend(peer.links.iter().copied().filter(is_old));
            }
        }
        for link in over {
            self.end_for_map(now, link, out);
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.backoff.reset();
        }
        self.dial_if_due(now, node, out);
    }

    /// Ends a link that is not wanted any more.
    fn end_for_map(&mut self, now: Now, id: LinkId, out: &mut Vec<Effect>) {
        match self.links.get(&id) {
            Some(link) if link.is_dialing() => self.give_up(now, id, out),
            _ => self.end(now, id, End::Closed(None), out),
        }
    }

    /// Ends a dial that is not needed; what waits for it waits for another link.
    fn give_up(&mut self, now: Now, id: LinkId, out: &mut Vec<Effect>) {
        let Some(link) = self.links.remove(&id) else { return };
        let peer = link.node;
        if let Some(peer) = peer.and_then(|node| self.peers.get_mut(&node)) {
            peer.remove(now, id);
        }
        let fault = None;
        out.push(Effect::Close { link: id, peer, fault });
    }

    /// Sends a message, or keeps it for the link that is dialed for it. It may be lost, and is dropped at once if there
    /// is no way to the node or too much on the way to it.
    pub fn send(&mut self, now: Now, to: NodeId, message: &Message, out: &mut Vec<Effect>) {
        debug_assert!(
            allowed(self.me.node, to, message),
            "a message to {to:?} that it would not take"
        );
        let Some(peer) = self.peers.get_mut(&to) else {
            self.counters.dropped += 1;
            return;
        };
        if let Some(link) = peer.pick() {
            return self.post(link, message, out);
        }
        let reachable = peer.entry.is_some_and(|entry| entry.address.is_some());
        if !reachable || peer.waiting.is_full() {
            self.counters.dropped += 1;
            return;
        }
        peer.waiting.push(|segments| encode(message, segments));
        self.dial_if_due(now, to, out);
    }

    /// Hands a message over to a link.
    fn post(&mut self, id: LinkId, message: &Message, out: &mut Vec<Effect>) {
        let Some(link) = self.links.get(&id).filter(|link| link.unsent < MAX_UNSENT) else {
            self.counters.dropped += 1;
            return;
        };
        debug_assert!(!link.is_dialing(), "only connected links are picked");
        let bytes = match out.last_mut() {
            Some(Effect::Send(last, segments)) if *last == id => append(message, segments),
            _ => {
                let mut segments = Vec::new();
                let bytes = append(message, &mut segments);
                out.push(Effect::Send(id, segments));
                bytes
            }
        };
        self.count_out(id, bytes, 1);
    }

    fn count_out(&mut self, id: LinkId, bytes: usize, messages: u64) {
        self.counters.messages_out += messages;
        self.counters.bytes_out += bytes as u64;
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.unsent == 0 {
            self.busy.push(id);
        }
        link.unsent += bytes;
    }

    /// Hears how many bytes of the links that were sent on have not left yet. To be called once per turn of the
    /// caller's loop.
    pub fn unsent(&mut self, mut queued: impl FnMut(LinkId) -> usize, out: &mut Vec<Effect>) {
        let links = &mut self.links;
        self.busy.retain(|&id| {
            let Some(link) = links.get_mut(&id) else { return false };
            link.unsent = queued(id);
            let pause = link.unsent > if link.paused { RESUME } else { PAUSE };
            if pause != link.paused && matches!(link.node, Some(NodeId::Client(_))) {
                link.paused = pause;
                out.push(Effect::Pause(id, pause));
            }
            link.unsent > 0
        });
    }

    fn dial_if_due(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        let (Some(osd), Some(peer)) = (osd_of(node), self.peers.get_mut(&node)) else {
            return;
        };
        let Some(address) = peer.dial_due(now) else { return };
        self.last_link += 1;
        let link = LinkId(self.last_link);
        peer.dialing = Some(link);
        peer.probe = false;
        self.links.insert(link, Link::dialing(now, node));
        self.counters.dialed += 1;
        out.push(Effect::Dial(link, osd, address));
    }

    /// A dial succeeded.
    pub fn connected(&mut self, now: Now, id: LinkId, out: &mut Vec<Effect>) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.is_dialing()) else {
            return;
        };
        let Some(node) = link.node else { return };
        link.state = Link::greeting(now);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.dialing = None;
        peer.links.push(id);
        let hello = self.hello(id, node);
        out.push(Effect::Send(id, vec![hello]));
        self.flush(node, out);
    }

    fn hello(&self, link: LinkId, to: NodeId) -> Bytes {
        let hello = Hello {
            from: self.me.node,
            boot: self.me.boot,
            to,
            cluster: self.me.cluster,
            number: link.0,
        };
        hello.encode()
    }

    /// Sends what has waited for a link.
    fn flush(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.waiting.is_empty()) else {
            return;
        };
        let Some(link) = peer.pick() else { return };
        let (segments, bytes, messages) = peer.waiting.take();
        out.push(Effect::Send(link, segments));
        self.count_out(link, bytes, messages);
    }

    /// A connection to this node was accepted. Nothing is sent on it before the peer has greeted.
    pub fn accepted(&mut self, now: Now) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(link, Link::accepted(now));
        link
    }

    /// Takes greeting and messages off what has come on a link. After a fault the link is closed; messages before it
    /// are good.
    pub fn received(
        &mut self,
        now: Now,
        link: LinkId,
        input: &mut BytesMut,
        out: &mut Vec<Effect>,
        messages: &mut Vec<(NodeId, Message)>,
    ) -> Next {
        match self.read(now, link, input, out, messages) {
            Ok(next) => next,
            Err(fault) => {
                input.clear();
                self.end(now, link, End::Closed(Some(fault)), out);
                Next::Wait(0)
            }
        }
    }

    fn read(
        &mut self,
        now: Now,
        id: LinkId,
        input: &mut BytesMut,
        out: &mut Vec<Effect>,
        messages: &mut Vec<(NodeId, Message)>,
    ) -> Result<Next, Fault> {
        let Some(link) = self.links.get(&id) else {
            input.clear();
            return Ok(Next::Wait(0));
        };
        if !link.is_standing() {
            let Some(hello) = Hello::take(input)? else {
                return Ok(Next::Wait(HELLO));
            };
            self.greeted(now, id, &hello, out)?;
        }
        self.frames(id, input, messages)
    }

    fn frames(
        &mut self,
        id: LinkId,
        input: &mut BytesMut,
        messages: &mut Vec<(NodeId, Message)>,
    ) -> Result<Next, Fault> {
        let (from, number) = match self.links.get(&id).map(|link| (link.node, link.state)) {
            Some((Some(from), State::Standing { number, .. })) => (from, number),
            _ => return Ok(Next::Wait(0)),
        };
        let limits = limits(from, self.me.node);
        let before = input.len();
        while before - input.len() < READ_BUDGET {
            let start = input.len();
            let Some(message) = decode(input, &limits)? else {
                return Ok(Next::Wait(if start == 0 { 0 } else { needed(input) }));
            };
            if !allowed(from, self.me.node, &message) {
                return Err(Fault::Message(from));
            }
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.heard(number)?;
            }
            self.counters.messages_in += 1;
            self.counters.bytes_in += (start - input.len()) as u64;
            messages.push((from, message));
        }
        Ok(Next::Again)
    }

    /// The peer's greeting: the link stands, or is not to be.
    fn greeted(&mut self, now: Now, id: LinkId, hello: &Hello, out: &mut Vec<Effect>) -> Result<(), Fault> {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let (incoming, expected) = (link.incoming, link.node);
        self.check(hello, expected)?;
        let node = hello.from;
        if self.peers.entry(node).or_default().greeted(hello.boot)? {
            self.end_others(now, node, id, out, |link| {
                link.boot().is_some_and(|boot| boot != hello.boot)
            });
        }
        if incoming {
            self.check_latest(node, hello)?;
            self.end_others(now, node, id, out, |link| link.incoming);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.node = Some(node);
            link.state = State::Standing {
                boot: hello.boot,
                number: hello.number,
                since: now,
            };
        }
        if incoming {
            out.push(Effect::Send(id, vec![self.hello(id, node)]));
            self.join(now, node, id, out);
        }
        Ok(())
    }

    fn check(&self, hello: &Hello, expected: Option<NodeId>) -> Result<(), Fault> {
        if hello.cluster != self.me.cluster {
            return Err(Fault::Cluster);
        }
        if let Some(expected) = expected
            && hello.from != expected
        {
            return Err(Fault::Answerer(hello.from));
        }
        if hello.to != self.me.node {
            return Err(Fault::Addressee(hello.to));
        }
        if hello.from == self.me.node {
            return Err(Fault::Myself);
        }
        if expected.is_none() && osd_of(self.me.node).is_none() {
            return Err(Fault::Role(hello.from));
        }
        Ok(())
    }

    /// A link that the peer opened before another one of its own comes too late.
    fn check_latest(&self, node: NodeId, hello: &Hello) -> Result<(), Fault> {
        let later = self.peers[&node].links.iter().any(|link| {
            let link = &self.links[link];
            link.incoming && matches!(link.state, State::Standing { number, .. } if number > hello.number)
        });
        if later { Err(Fault::Older) } else { Ok(()) }
    }

    fn end_others(
        &mut self,
        now: Now,
        node: NodeId,
        but: LinkId,
        out: &mut Vec<Effect>,
        which: impl Fn(&Link) -> bool,
    ) {
        let links = &self.links;
        let over = |link: &LinkId| *link != but && links.get(link).is_some_and(&which);
        let over: Vec<LinkId> = self.peers[&node].links.iter().copied().filter(over).collect();
        for link in over {
            self.end(now, link, End::Closed(None), out);
        }
    }

    /// An accepted link stands: messages may go out on it, and no other one is waited for.
    fn join(&mut self, now: Now, node: NodeId, id: LinkId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.links.push(id);
        if !peer.is_sendable() {
            return;
        }
        peer.probe = false;
        if let Some(dial) = peer.dialing {
            self.give_up(now, dial, out);
        }
        self.flush(node, out);
    }

    /// A connection ended, or could not be opened; `refused` if that is because nobody listens there.
    pub fn closed(&mut self, now: Now, link: LinkId, refused: bool, out: &mut Vec<Effect>) {
        let end = match self.links.get(&link) {
            Some(link) if refused && link.is_dialing() => End::Refused,
            _ => End::Broken,
        };
        self.end(now, link, end, out);
    }

    fn end(&mut self, now: Now, id: LinkId, end: End, out: &mut Vec<Effect>) {
        let Some(link) = self.links.remove(&id) else { return };
        let gone = matches!(end, End::Refused);
        let broken = matches!(end, End::Broken);
        if let End::Closed(fault) = end {
            self.counters.faults += u64::from(fault.is_some());
            let peer = link.node;
            out.push(Effect::Close { link: id, peer, fault });
        }
        let Some(node) = link.node else { return };
        self.forget_link(now, node, id, &link, out);
        if let Some(osd) = osd_of(node) {
            out.push(Effect::Lost { osd, gone });
        }
        if broken && link.was_connected() {
            self.probe(now, node, out);
        }
    }

    /// Takes a link that is over out of what is known of its peer.
    fn forget_link(&mut self, now: Now, node: NodeId, id: LinkId, link: &Link, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let useless = peer.remove(now, id);
        if link.was_useful(now) {
            peer.backoff.reset();
        } else {
            peer.backoff.failed(now);
        }
        if link.is_dialing() {
            self.drop_waiting(node);
        }
        for link in useless {
            self.links.remove(&link);
            let (peer, fault) = (Some(node), None);
            out.push(Effect::Close { link, peer, fault });
        }
    }

    /// A link broke: whether its OSD is still there is asked without waiting for a message.
    fn probe(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.probe = !peer.is_sendable() && peer.entry.is_some();
            self.dial_if_due(now, node, out);
        }
    }

    fn drop_waiting(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            let (_, _, messages) = peer.waiting.take();
            self.counters.dropped += messages;
        }
    }

    /// Time passes: to be called every 100 ms or so.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let overdue: Vec<(LinkId, Fault)> = self
            .links
            .iter()
            .filter_map(|(&id, link)| Some((id, link.overdue(now)?)))
            .collect();
        for (link, fault) in overdue {
            self.end(now, link, End::Closed(Some(fault)), out);
        }
        self.peers.retain(|_, peer| !peer.is_forgettable(now));
        let due: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.dial_due(now).is_some())
            .map(|(&node, _)| node)
            .collect();
        for node in due {
            self.dial_if_due(now, node, out);
        }
    }
}

/// Encodes a message and says how many bytes it has.
fn append(message: &Message, segments: &mut Vec<Bytes>) -> usize {
    let first = segments.len();
    encode(message, segments);
    segments[first..].iter().map(Bytes::len).sum()
}
