//! What the world does for gateways: the runner around the machine that production runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trivet_core::keys::{self, GatewayState};
use trivet_core::kv::{Change, LeaseId, Notice, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::Message;
use trivet_core::{ClientId, ImageId, NodeId, Now, OsdId, PoolId};
use trivet_gateway::fresh::{Answer, Heard};
use trivet_gateway::gateway::{Clock, ConnKey, Effect, Gateway};
use trivet_gateway::metrics::Protocol;
use trivet_gateway::nfs::{Export, NfsServer, Settings, Squash};
use trivet_namespace::{Attributes, Caller, Context, Namespace, Numbers, Operation, Outcome, ROOT, Time};

use crate::event::{End, Event};
use crate::mutants;
use crate::network::Place;
use crate::sized::{self, Sized};
use crate::streams::Leave;
use crate::tree::TreeWatch;
use crate::users::{SHARED, SIZED, image_name};
use crate::world::{POOL, World};

/// Tickets of the runner's own transactions: those of machines are small.
const PRESENCE: u64 = 1 << 62;
/// Tickets of its beats.
const BEAT: u64 = 1 << 63;
/// The wall clock at the beginning of a run, seconds since 1970.
const EPOCH: i64 = 1_800_000_000;
/// The cluster's number, and the secret that file handles are sealed with.
const CLUSTER: u64 = 5;
const SECRET: [u8; 16] = [3; 16];

/// A place for a gateway: one process after the other, each with an id of its own.
#[derive(Default)]
pub struct GatewaySlot {
    /// Of the gateway that is there now.
    pub id: ClientId,
    machine: Option<Gateway>,
    /// Counts the transactions of the runner that show the gateway.
    shown: u64,
    /// Counts its beats.
    beats: u64,
    effects: Vec<Effect>,
    /// Clients of which it wants to know whether they are there.
    listening: BTreeSet<ConnKey>,
    /// When it ran last, and before that, by its clock.
    turns: (Now, Now),
}

impl GatewaySlot {
    /// Bytes of clients' data that it counts.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        self.machine.as_ref().map_or(0, |machine| machine.memory_used() as u64)
    }

    /// Whether clients' changes of names are under way.
    #[must_use]
    pub fn is_changing_names(&self) -> bool {
        let starts = self.machine.as_ref().map(Gateway::change_starts);
        starts.into_iter().flatten().next().is_some()
    }

    /// Whether clients are served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.machine.as_ref().is_some_and(Gateway::is_ready)
    }
}

/// The wall clock, if it is right.
#[must_use]
pub fn wall(now: Now) -> Time {
    let since = Duration::from_nanos(now.0);
    Time {
        sec: EPOCH + i64::try_from(since.as_secs()).expect("runs are short"),
        nsec: since.subsec_nanos(),
    }
}

/// The whole tree, to everybody.
fn nfs_server(verifier: u64) -> NfsServer {
    let export = Export {
        id: 1,
        path: "/".into(),
        subtree: String::new(),
        clients: "0.0.0.0/0".parse().into_iter().collect(),
        read_only: false,
        squash: Squash::Nobody,
        anonymous: (65_534, 65_534),
        auth_none: false,
        privileged_port: false,
    };
    NfsServer::new(Settings {
        exports: vec![export],
        key: SECRET,
        fsid: CLUSTER,
        verifier: verifier.to_be_bytes(),
    })
}

/// Where a user is.
fn address(user: usize) -> SocketAddr {
    let host = u8::try_from(user + 1).expect("few users");
    ([192, 0, 2, host], 700).into()
}

impl World {
    /// Which gateway is at this place.
    pub(crate) fn gateway_at(&self, place: Place) -> Option<usize> {
        let index = place.checked_sub(self.osds.len() + self.clients.len())?;
        (index < self.gateways.len()).then_some(index)
    }

    pub(crate) fn gateway_place(&self, index: usize) -> Place {
        self.osds.len() + self.clients.len() + index
    }

    pub(crate) fn start_gateway(&mut self, index: usize) {
        let id = ClientId(self.random.draw());
        let clock = self.gateway_clock(index);
        let nfs = nfs_server(self.random.draw());
        let machine = mutants::gateway(self.mutant, Gateway::new(id, clock, nfs, CLUSTER));
        let slot = &mut self.gateways[index];
        slot.id = id;
        slot.machine = Some(machine);
        slot.listening.clear();
        slot.turns = (clock.now, clock.now);
    }

    pub(crate) fn gateway_died(&mut self, index: usize, how: End) {
        self.gateways[index].machine = None;
        let how = if how == End::Power {
            Leave::Silence
        } else {
            Leave::Reset
        };
        self.gateway_gone(index, how);
    }

    pub(crate) fn gateway_looks(&mut self, place: Place, id: crate::streams::StreamId) {
        if let Some(index) = self.gateway_at(place) {
            self.readable(index, id);
        }
    }

    /// The tree of names: the images that clients work on are files in it.
    pub(crate) fn plant_tree(&mut self) {
        let mut tree = Namespace::default();
        let root = Namespace::bootstrap(wall(self.now));
        self.kv.transact(self.now, &root);
        tree.apply(&self.kv.snapshot());
        let images = self.workload.images().to_vec();
        let mut numbers = Numbers::default();
        numbers.add(1, images.len() as u64 + 3);
        for (index, (image, size)) in images.into_iter().enumerate() {
            let operation = Operation::CreateImage {
                path: image_name(index + 1).into_bytes(),
                size,
            };
            let made = self.plant(&mut tree, &mut numbers, image.pool(), &operation);
            assert_eq!(made, image, "images have the numbers that clients know");
        }
        let operation = Operation::MakeDir {
            parent: ROOT,
            name: SHARED.into(),
            attributes: Attributes::default(),
        };
        let shared = self.plant(&mut tree, &mut numbers, POOL, &operation);
        self.tree = TreeWatch::new(ROOT.0, shared.0, SHARED);
        let operation = Operation::CreateImage {
            path: SIZED.into(),
            size: sized::size_of(sized::BLOCKS),
        };
        self.sized = Sized::new(self.plant(&mut tree, &mut numbers, POOL, &operation));
    }

    fn plant(&mut self, tree: &mut Namespace, numbers: &mut Numbers, pool: PoolId, operation: &Operation) -> ImageId {
        let context = Context {
            caller: Caller::root(),
            now: wall(self.now),
            pool: Some(pool),
            gateway: ClientId(0),
        };
        let plan = tree.plan(operation, &context, numbers);
        let plan = plan.expect("everything can be made in an empty tree");
        self.kv.transact(self.now, &plan.txn);
        tree.apply(&self.kv.snapshot());
        let Outcome::Node(made) = plan.outcome else {
            panic!("{operation:?} makes a node");
        };
        made
    }

    fn gateway_clock(&self, index: usize) -> Clock {
        let now = self.local(self.gateway_place(index));
        Clock {
            now,
            wall: wall(self.now),
        }
    }

    /// One step of the machine, and what comes of it.
    fn gateway_step(&mut self, index: usize, step: impl FnOnce(&mut Gateway, Clock, &mut Vec<Effect>)) {
        let clock = self.gateway_clock(index);
        let slot = &mut self.gateways[index];
        let Some(machine) = slot.machine.as_mut() else {
            return;
        };
        if clock.now > slot.turns.1 {
            slot.turns = (slot.turns.1, clock.now);
        }
        let mut effects = std::mem::take(&mut slot.effects);
        step(machine, clock, &mut effects);
        for effect in effects.drain(..) {
            self.gateway_effect(index, effect);
        }
        self.gateways[index].effects = effects;
    }

    fn gateway_effect(&mut self, index: usize, effect: Effect) {
        let place = self.gateway_place(index);
        match effect {
            Effect::Send(key, bytes) => self.gateway_sends(index, key, bytes),
            Effect::Close(key, ending) => {
                self.trace
                    .line(self.now, format_args!("gateway {index} closes {}: {ending}", key.0));
                self.gateway_leaves(index, key);
            }
            Effect::Pause(key, paused) => self.gateway_pauses(index, key, paused),
            Effect::Again(key) => self.gateway_wants_again(index, key),
            Effect::Listen(key) => drop(self.gateways[index].listening.insert(key)),
            // It begins anew.
            Effect::Fenced => self.schedule.at(self.now, Event::Kill(place, Duration::ZERO)),
            Effect::ToOsd(osd, message) => {
                let me = NodeId::Client(self.gateways[index].id);
                self.send(place, me, NodeId::Osd(osd), message);
            }
            Effect::Txn(ticket, txn) => self.transact(place, ticket, txn),
            Effect::Answered(..) | Effect::Exports(_) => {}
        }
    }

    pub(crate) fn gateway_tick(&mut self, index: usize) {
        self.gateway_step(index, |gateway, clock, out| gateway.tick(clock, out));
        for key in std::mem::take(&mut self.gateways[index].listening) {
            self.gateway_attends(index, key);
        }
    }

    /// The runner says what is known of a client.
    fn gateway_attends(&mut self, index: usize, key: ConnKey) {
        let Some((stands, heard)) = self.heard_of(index, key) else {
            return;
        };
        let place = self.gateway_place(index);
        let heard = heard.map(|when| self.local_at(place, when));
        let mut more = false;
        self.gateway_step(index, |gateway, clock, out| {
            let stood = if stands { clock.now } else { Now(0) };
            more = gateway.attended(clock, key, stood, heard, out);
        });
        if more {
            self.gateways[index].listening.insert(key);
        }
    }

    /// The metadata store said what its last commit is; it was asked then, by the gateway's clock.
    pub(crate) fn gateway_hears(&mut self, index: usize, asked: Now, revision: Revision) {
        self.gateway_step(index, |gateway, clock, out| {
            let answer = Answer { revision, full: false };
            let heard = Heard {
                asked,
                took: clock.now.since(asked),
                answer: Ok(answer),
            };
            gateway.heard(clock, &heard, out);
        });
    }

    pub(crate) fn gateway_message(&mut self, index: usize, from: OsdId, message: Message) {
        self.gateway_step(index, |gateway, clock, out| gateway.message(clock, from, message, out));
    }

    pub(crate) fn gateway_lost(&mut self, index: usize, osd: OsdId) {
        self.gateway_step(index, |gateway, _, _| gateway.lost(osd));
    }

    pub(crate) fn gateway_notice(&mut self, index: usize, notice: &Notice) {
        self.gateway_step(index, |gateway, clock, out| gateway.notice(clock, notice, out));
    }

    pub(crate) fn gateway_accepts(&mut self, index: usize, key: ConnKey, user: usize) {
        let protocol = self.users[user].protocol();
        let local = match protocol {
            Protocol::Nbd => ([192, 0, 2, 200], 10_809),
            Protocol::Iscsi => ([192, 0, 2, 200], 3_260),
            Protocol::Nfs => ([192, 0, 2, 200], 2_049),
        };
        self.gateway_step(index, |gateway, clock, out| {
            gateway.accepted(clock, key, protocol, local.into(), address(user), out);
        });
    }

    /// Bytes for the gateway; those that are new, if any are, came after it ran before this time.
    pub(crate) fn gateway_receives(&mut self, index: usize, key: ConnKey, input: &mut BytesMut, new: bool) {
        let clock = self.gateway_clock(index);
        let (before, last) = self.gateways[index].turns;
        let quiet = match (new, last < clock.now) {
            (false, _) => clock.now,
            (true, true) => last,
            (true, false) => before,
        };
        self.gateway_step(index, |gateway, clock, out| {
            gateway.received(clock, key, input, quiet, out);
        });
    }

    pub(crate) fn gateway_hears_end(&mut self, index: usize, key: ConnKey) {
        self.gateway_step(index, |gateway, clock, out| gateway.closed(clock, key, out));
    }

    /// A transaction of a gateway or of its runner has ended.
    pub(crate) fn gateway_outcome(&mut self, index: usize, ticket: u64, outcome: TxnOutcome) {
        if ticket < PRESENCE {
            return self.gateway_step(index, |gateway, clock, out| {
                gateway.txn_ended(clock, ticket, outcome, out)
            });
        }
        let place = self.gateway_place(index);
        if ticket == PRESENCE + self.gateways[index].shown
            && !matches!(outcome, TxnOutcome::Committed(_))
            && let Some(lease) = self.processes[place].lease
        {
            self.show_gateway(index, lease);
        }
    }

    /// The runner has the metadata store show the gateway, again with every new lease.
    pub(crate) fn show_gateway(&mut self, index: usize, lease: LeaseId) {
        let slot = &mut self.gateways[index];
        slot.shown += 1;
        let ticket = PRESENCE + slot.shown;
        let state = GatewayState {
            name: format!("gateway {index}"),
            http: None,
        };
        let change = Change::Put {
            key: keys::gateway_state(slot.id),
            value: encode(&state),
            lease: Some(lease),
        };
        let txn = Txn {
            compare: Vec::new(),
            changes: vec![change],
        };
        self.transact(self.gateway_place(index), ticket, txn);
    }

    /// Where the last commit is somebody else's, of which a watch says nothing, the runner writes a key of its own: what comes
    /// back with it is all that there was before.
    pub(crate) fn beat(&mut self, index: usize, revision: Revision) {
        let place = self.gateway_place(index);
        let process = &self.processes[place];
        let known = process.watch.unwrap_or(0);
        let is_foreign = known < revision && self.kv.own_revision() <= known;
        let Some(lease) = process.lease.filter(|_| is_foreign) else {
            return;
        };
        let slot = &mut self.gateways[index];
        slot.beats += 1;
        let ticket = BEAT + slot.beats;
        let change = Change::Put {
            key: keys::gateway_beat(slot.id),
            value: Bytes::new(),
            lease: Some(lease),
        };
        let txn = Txn {
            compare: Vec::new(),
            changes: vec![change],
        };
        self.transact(place, ticket, txn);
    }

    /// Bytes for a user, as it were from its kernel.
    pub(crate) fn user_sends(&mut self, user: usize, path: usize, bytes: Vec<Bytes>) {
        if let Some(id) = self.users[user].stream(path) {
            self.send_bytes(id, crate::streams::Side::Gateway, bytes);
        }
    }
}
