//! The links of this process's nodes to those of others: a carrier for each node, and the sockets that it asks for.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use trivet_carrier::{Carrier, Effect, LinkId, Me, Next};
use trivet_core::kv::{Event as Change, KeyValue, Notice};
use trivet_core::map::ClusterMap;
use trivet_core::message::Message;
use trivet_core::{NodeId, Now, OsdId, keys};
use trivet_reactor::{CloseReason, ConnId, ListenerToken, Reactor};

/// The first token of the listeners of OSDs; the others are the front ends'.
const FIRST_LISTENER: u32 = 1000;

/// The connection of a node with an OSD broke.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Whose connection.
    pub node: NodeId,
    /// With whom.
    pub osd: OsdId,
    /// Nobody listens there.
    pub gone: bool,
}

/// All links of this process.
#[derive(Default)]
pub struct Links {
    cluster: [u8; 16],
    /// Where the OSDs are.
    map: ClusterMap,
    carriers: BTreeMap<NodeId, Carrier>,
    listeners: BTreeMap<ListenerToken, NodeId>,
    conns: HashMap<ConnId, (NodeId, LinkId)>,
    ids: HashMap<(NodeId, LinkId), ConnId>,
    /// Connections whose input may hold more messages.
    again: Vec<ConnId>,
    effects: Vec<Effect>,
    received: Vec<(NodeId, Message)>,
    losses: Vec<Loss>,
}

impl Links {
    /// No nodes yet.
    pub fn new(cluster: [u8; 16]) -> Links {
        Links {
            cluster,
            ..Links::default()
        }
    }

    /// An OSD of this process listens for other nodes; returns where.
    pub fn listen(&mut self, reactor: &mut Reactor, osd: OsdId, address: SocketAddr) -> io::Result<SocketAddr> {
        let token = ListenerToken(FIRST_LISTENER.saturating_add(osd.0));
        let address = reactor.listen(address, token)?;
        self.listeners.insert(token, NodeId::Osd(osd));
        Ok(address)
    }

    /// A node of this process starts. What it says before others can reach it is lost.
    pub fn start(&mut self, reactor: &mut Reactor, now: Now, node: NodeId, boot: u64) {
        self.stop(reactor, node);
        let me = Me {
            node,
            cluster: self.cluster,
            boot,
        };
        let mut carrier = Carrier::new(me);
        carrier.peers(now, &self.map.osds, &mut self.effects);
        self.carriers.insert(node, carrier);
        self.carry_out(reactor, now, node);
    }

    /// A node of this process has ended: so do its links.
    pub fn stop(&mut self, reactor: &mut Reactor, node: NodeId) {
        if self.carriers.remove(&node).is_none() {
            return;
        }
        let ended: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, (owner, _))| *owner == node)
            .map(|(&conn, _)| conn)
            .collect();
        for conn in ended {
            self.forget(conn);
            reactor.abort(conn);
        }
    }

    /// Whether the listener is one of these.
    pub fn listens(&self, listener: ListenerToken) -> bool {
        self.listeners.contains_key(&listener)
    }

    /// Whether the connection is one of these.
    pub fn owns(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Whether some input may hold more messages.
    pub fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// What broke since the last call.
    pub fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }

    /// The metadata store changed: OSDs may have come or gone.
    pub fn notice(&mut self, reactor: &mut Reactor, now: Now, notice: &Notice) {
        let Some(notice) = about_osds(notice) else { return };
        self.map.apply(&notice);
        let nodes: Vec<NodeId> = self.carriers.keys().copied().collect();
        for node in nodes {
            if let Some(carrier) = self.carriers.get_mut(&node) {
                carrier.peers(now, &self.map.osds, &mut self.effects);
            }
            self.carry_out(reactor, now, node);
        }
    }

    /// A node of this process sends to one of another.
    pub fn send(&mut self, reactor: &mut Reactor, now: Now, (from, to): (NodeId, NodeId), message: &Message) {
        if let Some(carrier) = self.carriers.get_mut(&from) {
            carrier.send(now, to, message, &mut self.effects);
            self.carry_out(reactor, now, from);
        }
    }

    /// Somebody connected to an OSD.
    pub fn accepted(&mut self, reactor: &mut Reactor, now: Now, listener: ListenerToken, conn: ConnId) {
        let node = self.listeners.get(&listener).copied();
        match node.and_then(|node| Some((node, self.carriers.get_mut(&node)?))) {
            Some((node, carrier)) => {
                let link = carrier.accepted(now);
                self.remember(conn, node, link);
            }
            // An OSD that is stopped.
            None => reactor.abort(conn),
        }
    }

    /// A dial succeeded.
    pub fn connected(&mut self, reactor: &mut Reactor, now: Now, conn: ConnId) {
        let Some(&(node, link)) = self.conns.get(&conn) else {
            return;
        };
        if let Some(carrier) = self.carriers.get_mut(&node) {
            carrier.connected(now, link, &mut self.effects);
        }
        self.carry_out(reactor, now, node);
    }

    /// Bytes came: appends the messages in them to `queue`.
    pub fn receive(
        &mut self,
        reactor: &mut Reactor,
        now: Now,
        conn: ConnId,
        queue: &mut impl Extend<(NodeId, NodeId, Message)>,
    ) {
        let Some(&(node, link)) = self.conns.get(&conn) else {
            return;
        };
        let Some(carrier) = self.carriers.get_mut(&node) else {
            return;
        };
        match carrier.received(now, link, reactor.input(conn), &mut self.effects, &mut self.received) {
            Next::Again if self.again.contains(&conn) => {}
            Next::Again => self.again.push(conn),
            Next::Wait(0) => {}
            Next::Wait(bytes) => reactor.set_hint(conn, bytes),
        }
        queue.extend(self.received.drain(..).map(|(from, message)| (from, node, message)));
        self.carry_out(reactor, now, node);
    }

    /// Looks at what was left.
    pub fn receive_again(
        &mut self,
        reactor: &mut Reactor,
        now: Now,
        queue: &mut impl Extend<(NodeId, NodeId, Message)>,
    ) {
        for conn in std::mem::take(&mut self.again) {
            self.receive(reactor, now, conn, queue);
        }
    }

    /// A connection ended.
    pub fn closed(&mut self, reactor: &mut Reactor, now: Now, conn: ConnId, reason: &CloseReason) {
        let Some((node, link)) = self.forget(conn) else { return };
        let refused = matches!(reason, CloseReason::Failed(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        self.link_closed(reactor, now, (node, link), refused);
    }

    fn link_closed(&mut self, reactor: &mut Reactor, now: Now, (node, link): (NodeId, LinkId), refused: bool) {
        if let Some(carrier) = self.carriers.get_mut(&node) {
            carrier.closed(now, link, refused, &mut self.effects);
        }
        self.carry_out(reactor, now, node);
    }

    /// Several times a second.
    pub fn tick(&mut self, reactor: &mut Reactor, now: Now) {
        let nodes: Vec<NodeId> = self.carriers.keys().copied().collect();
        for node in nodes {
            if let Some(carrier) = self.carriers.get_mut(&node) {
                carrier.tick(now, &mut self.effects);
            }
            self.carry_out(reactor, now, node);
        }
    }

    /// Once in a turn of the loop: links that do not keep up are slowed down.
    pub fn look_at_queues(&mut self, reactor: &mut Reactor, now: Now) {
        let nodes: Vec<NodeId> = self.carriers.keys().copied().collect();
        for node in nodes {
            let ids = &self.ids;
            let queued = |link| ids.get(&(node, link)).map_or(0, |&conn| reactor.queued(conn));
            if let Some(carrier) = self.carriers.get_mut(&node) {
                carrier.unsent(queued, &mut self.effects);
            }
            self.carry_out(reactor, now, node);
        }
    }

    fn carry_out(&mut self, reactor: &mut Reactor, now: Now, node: NodeId) {
        // A dial that fails at once makes more effects.
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.carry_out_one(reactor, now, node, effect);
            }
        }
    }

    fn carry_out_one(&mut self, reactor: &mut Reactor, now: Now, node: NodeId, effect: Effect) {
        match effect {
            Effect::Dial(link, osd, address) => match reactor.connect(address) {
                Ok(conn) => self.remember(conn, node, link),
                Err(error) => {
                    tracing::warn!("OSD {osd} at {address}: {error}");
                    if let Some(carrier) = self.carriers.get_mut(&node) {
                        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                        carrier.closed(now, link, refused, &mut self.effects);
                    }
                }
            },
            Effect::Send(link, segments) => {
                if let Some(&conn) = self.ids.get(&(node, link)) {
                    reactor.send(conn, segments);
                }
            }
            Effect::Close { link, peer, fault } => {
                if let Some(fault) = fault {
                    let peer = peer.map_or_else(|| "a stranger".to_owned(), name);
                    tracing::warn!("{}: link with {peer} closed: {fault}", name(node));
                }
                if let Some(conn) = self.ids.get(&(node, link)).copied() {
                    self.forget(conn);
                    reactor.abort(conn);
                }
            }
            Effect::Pause(link, pause) => {
                if let Some(&conn) = self.ids.get(&(node, link)) {
                    reactor.pause_reading(conn, pause);
                }
            }
            Effect::Lost { osd, gone } => self.losses.push(Loss { node, osd, gone }),
        }
    }

    fn remember(&mut self, conn: ConnId, node: NodeId, link: LinkId) {
        self.conns.insert(conn, (node, link));
        self.ids.insert((node, link), conn);
    }

    fn forget(&mut self, conn: ConnId) -> Option<(NodeId, LinkId)> {
        let owner = self.conns.remove(&conn)?;
        self.ids.remove(&owner);
        Some(owner)
    }
}

/// What people call a node.
fn name(node: NodeId) -> String {
    match node {
        NodeId::Osd(osd) => format!("OSD {osd}"),
        NodeId::Client(id) => format!("gateway {:016x}", id.0),
    }
}

/// The part of a notice that says which OSDs there are; none if it says nothing of that.
fn about_osds(notice: &Notice) -> Option<Notice> {
    // Not what they say of their space, every few seconds.
    let concerns = |key: &str| key.starts_with(keys::OSDS) && key.ends_with("/state");
    let ours = |keys: &Vec<KeyValue>| keys.iter().filter(|kv| concerns(&kv.key)).cloned().collect();
    match notice {
        Notice::Snapshot { revision, keys } => Some(Notice::Snapshot {
            revision: *revision,
            keys: ours(keys),
        }),
        Notice::Replaced { revision, keys } => Some(Notice::Replaced {
            revision: *revision,
            keys: ours(keys),
        }),
        Notice::Changes { revision, events } => {
            let key = |event: &Change| match event {
                Change::Put(kv) => concerns(&kv.key),
                Change::Delete { key, .. } => concerns(key),
            };
            let events: Vec<Change> = events.iter().filter(|event| key(event)).cloned().collect();
            (!events.is_empty()).then_some(Notice::Changes {
                revision: *revision,
                events,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn kv(key: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Bytes::new(),
            mod_revision: 7,
        }
    }

    fn keys_of(notice: &Notice) -> Vec<&str> {
        match notice {
            Notice::Snapshot { keys, .. } | Notice::Replaced { keys, .. } => {
                keys.iter().map(|kv| kv.key.as_str()).collect()
            }
            Notice::Changes { events, .. } => events
                .iter()
                .map(|event| match event {
                    Change::Put(kv) => kv.key.as_str(),
                    Change::Delete { key, .. } => key.as_str(),
                })
                .collect(),
        }
    }

    #[test]
    fn of_notices_only_what_is_about_osds_counts() {
        let delete = |key: &str| Change::Delete {
            key: key.to_owned(),
            revision: 7,
        };
        let changes = |events| Notice::Changes { revision: 7, events };
        let snapshot = |keys| Notice::Snapshot { revision: 7, keys };
        let put = |key| Change::Put(kv(key));
        let none: Vec<&str> = Vec::new();
        let table = [
            (
                snapshot(vec![kv("osd/1/state"), kv("pg/1/2/claim")]),
                Some(vec!["osd/1/state"]),
            ),
            // Whoever was there before is not there any more.
            (snapshot(vec![kv("pool/1")]), Some(none)),
            (
                changes(vec![
                    put("osd/1/state"),
                    put("osdx"),
                    delete("osd/2/state"),
                    delete("pool/1"),
                ]),
                Some(vec!["osd/1/state", "osd/2/state"]),
            ),
            (changes(vec![put("pg/1/2/claim"), delete("plan/1")]), None),
            (changes(Vec::new()), None),
        ];
        for (notice, kept) in table {
            let about = about_osds(&notice);
            assert_eq!(about.as_ref().map(keys_of), kept, "{notice:?}");
        }
    }
}
