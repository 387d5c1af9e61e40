//! A cluster in one thread: real OSD machines on real stores, a client, disks in memory, a network that keeps the order
//! of each link and nothing else, and a metadata store that is a map.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use trivet_client::{Caller, Client, Effect as FromClient, ImageOp, IoError};
use trivet_core::disk::{DiskDone, DiskOp, DiskOpKind};
use trivet_core::keys::{self, ClientState, OsdConfig, PgPlan, Plan, Pool, Settings};
use trivet_core::kv::{Change, Compare, Event as Kv, KeyValue, LeaseId, Notice, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::{Action, Message};
use trivet_core::usage::ImageUsage;
use trivet_core::{ClientId, ImageId, NodeId, Now, ObjectId, OpId, OsdId, PoolId};
use trivet_osd::{Effect, Event, Identity, Osd};
use trivet_store::api::Output;
use trivet_store::{Format, Options, State, Store, format};

pub const POOL: PoolId = PoolId(1);
pub const PGS: u32 = 4;
const DISK: u64 = 32 << 20;
const CLUSTER: [u8; 16] = [9; 16];

/// xorshift64*: enough to shuffle.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }
}

/// A disk whose writes are durable at once; only written pages take memory.
#[derive(Default)]
struct Disk {
    pages: BTreeMap<u64, Bytes>,
}

impl Disk {
    fn run(&mut self, op: DiskOp) -> DiskDone {
        let result = match op.kind {
            DiskOpKind::Flush => Bytes::new(),
            DiskOpKind::Write { offset, data } => {
                for (i, page) in data.chunks(4096).enumerate() {
                    self.pages
                        .insert(offset / 4096 + i as u64, Bytes::copy_from_slice(page));
                }
                Bytes::new()
            }
            DiskOpKind::Read { offset, len } => {
                let zero = Bytes::from(vec![0; 4096]);
                let pages = (offset / 4096..).take(len / 4096);
                let bytes: Vec<Bytes> = pages.map(|p| self.pages.get(&p).unwrap_or(&zero).clone()).collect();
                Bytes::from(bytes.concat())
            }
        };
        DiskDone {
            id: op.id,
            result: Ok(result),
        }
    }
}

struct Node {
    disk: Disk,
    size: u64,
    osd: Option<Osd>,
    /// Disk operations that the disk has not executed.
    pending: VecDeque<DiskOp>,
}

pub struct World {
    pub random: Random,
    pub now: Now,
    pub client: Client,
    client_id: ClientId,
    pub done: BTreeMap<u64, Result<Vec<Bytes>, IoError>>,
    nodes: BTreeMap<OsdId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    txns: VecDeque<(OsdId, u64, Txn)>,
    kv: BTreeMap<String, (Bytes, u64, Option<LeaseId>)>,
    revision: u64,
    boots: u64,
    ticket: u64,
    pub delivered: u64,
    /// How often another OSD, or itself, removed an OSD's state key.
    pub removals: BTreeMap<OsdId, u32>,
    /// The disk of this OSD does not answer.
    pub frozen: Option<OsdId>,
}

const CLIENT: ClientId = ClientId(77);

impl World {
    /// OSDs 1..=n of the same size, two copies.
    pub fn new(seed: u64, osds: u32) -> World {
        World::with_sizes(seed, &vec![DISK; usize::try_from(osds).unwrap()])
    }

    /// OSDs with disks of these sizes, two copies.
    pub fn with_sizes(seed: u64, sizes: &[u64]) -> World {
        let mut world = World {
            random: Random(seed | 1),
            now: Now(1),
            client: Client::new(CLIENT),
            client_id: CLIENT,
            done: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            txns: VecDeque::new(),
            kv: BTreeMap::new(),
            revision: 0,
            boots: 0,
            ticket: 0,
            delivered: 0,
            removals: BTreeMap::new(),
            frozen: None,
        };
        let pool = Pool {
            name: "test".into(),
            replicas: 2,
            min_size: 1,
            pg_count: PGS,
            ..Pool::default()
        };
        world.put(keys::pool(POOL), encode(&pool), None);
        world.register();
        let osds = || (1..).map(OsdId).zip(sizes.iter().copied());
        for (osd, size) in osds() {
            world.put(
                keys::osd_config(osd),
                encode(&OsdConfig {
                    size,
                    ..OsdConfig::default()
                }),
                None,
            );
            let mut disk = Disk::default();
            let store = [u8::try_from(osd.0).unwrap(); 16];
            let layout = Format {
                size,
                osd,
                cluster: CLUSTER,
                store,
                log_size: Some(1 << 20),
            };
            for op in format(&layout).unwrap() {
                disk.run(op);
            }
            world.nodes.insert(
                osd,
                Node {
                    disk,
                    size,
                    osd: None,
                    pending: VecDeque::new(),
                },
            );
        }
        for (osd, _) in osds() {
            world.start(osd);
        }
        world
    }

    /// OSDs execute operations of the client.
    fn register(&mut self) {
        self.put(keys::client(self.client_id), encode(&ClientState {}), None);
    }

    pub fn image(number: u64) -> ImageId {
        ImageId::new(POOL, number)
    }

    pub fn is_up(&self, osd: OsdId) -> bool {
        self.nodes[&osd].osd.is_some()
    }

    pub fn start(&mut self, osd: OsdId) {
        self.boots += 1;
        let boot = self.boots;
        let lease = LeaseId(i64::try_from(boot).unwrap());
        let mut output = Output::default();
        let options = Options {
            expect: Some((CLUSTER, osd)),
            ..Options::default()
        };
        let size = self.nodes[&osd].size;
        let store = Store::open(size, options, &mut output);
        let identity = Identity {
            id: osd,
            boot,
            size,
            address: None,
        };
        let machine = Osd::new(identity, trivet_osd::Options::default(), store, output);
        self.nodes.get_mut(&osd).unwrap().osd = Some(machine);
        self.step(osd, Event::Notice(self.snapshot()));
        self.step(osd, Event::Lease(Some(lease)));
    }

    fn snapshot(&self) -> Notice {
        let keys = self.kv.iter().map(|(key, (value, mod_revision, _))| KeyValue {
            key: key.clone(),
            value: value.clone(),
            mod_revision: *mod_revision,
        });
        Notice::Snapshot {
            revision: self.revision,
            keys: keys.collect(),
        }
    }

    /// The client, which has nothing under way, ends; another one takes its place.
    pub fn restart_client(&mut self) {
        self.client_id.0 += 1;
        self.client = Client::new(self.client_id);
        self.register();
        let mut out = Vec::new();
        self.client.notice(self.now, &self.snapshot(), &mut out);
        self.take_client(out);
    }

    /// What all OSDs together count of an image: bytes and objects.
    pub fn counted(&self, image: ImageId) -> (u64, u64) {
        let machines = self.nodes.values().filter_map(|node| node.osd.as_ref());
        let found = machines.filter_map(|machine| machine.image_usage().get(&image).copied());
        found.fold((0, 0), |sum, usage| (sum.0 + usage.used, sum.1 + usage.objects))
    }

    /// What an OSD counts of an image.
    pub fn usage(&self, osd: OsdId, image: ImageId) -> ImageUsage {
        let machine = self.nodes[&osd].osd.as_ref().unwrap();
        machine.image_usage().get(&image).copied().unwrap_or_default()
    }

    /// What the metadata store shows below a prefix, and with which commit.
    pub fn shown(&self, prefix: &str) -> Vec<(String, String, u64)> {
        let text = |value: &Bytes| String::from_utf8(value.to_vec()).unwrap();
        let keys = self.kv.iter().filter(|(key, _)| key.starts_with(prefix));
        keys.map(|(key, (value, revision, _))| (key.clone(), text(value), *revision))
            .collect()
    }

    /// Whether the metadata store shows an OSD.
    pub fn is_shown(&self, osd: OsdId) -> bool {
        self.kv.contains_key(&keys::osd_state(osd))
    }

    /// An OSD is told that nobody listens where another one did.
    pub fn lose(&mut self, at: OsdId, osd: OsdId) {
        self.step(at, Event::Lost { osd, gone: true });
    }

    /// Transactions of an OSD, without an answer so far, that were to remove another one's state key: they end, and
    /// nobody knows how.
    pub fn forget_removals(&mut self, at: OsdId, osd: OsdId) -> usize {
        let key = keys::osd_state(osd);
        let removes = |txn: &Txn| txn.changes.iter().any(|c| matches!(c, Change::Delete(k) if *k == key));
        let (lost, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.txns)
            .into_iter()
            .partition(|(from, _, txn)| *from == at && removes(txn));
        self.txns = rest.into();
        for (_, ticket, _) in &lost {
            self.step(at, Event::Txn(*ticket, TxnOutcome::Unknown));
        }
        lost.len()
    }

    /// Like kill -9: what was not durable is lost, what was on the network stays lost.
    pub fn stop(&mut self, osd: OsdId) {
        let node = self.nodes.get_mut(&osd).unwrap();
        node.osd = None;
        node.pending.clear();
        self.links
            .retain(|(from, to), _| *from != NodeId::Osd(osd) && *to != NodeId::Osd(osd));
        self.txns.retain(|(from, ..)| *from != osd);
        let state = self.kv.get(&keys::osd_state(osd)).and_then(|(.., lease)| *lease);
        let gone: Vec<String> = self
            .kv
            .iter()
            .filter(|(_, (.., lease))| lease.is_some() && *lease == state)
            .map(|(k, _)| k.clone())
            .collect();
        let events = gone.iter().map(|key| Change::Delete(key.clone())).collect();
        self.commit(events);
        self.replan();
    }

    fn put(&mut self, key: String, value: Bytes, lease: Option<LeaseId>) {
        self.commit(vec![Change::Put { key, value, lease }]);
    }

    /// An OSD's state key goes, whoever removed it; the plan stays.
    pub fn hide(&mut self, osd: OsdId) {
        self.commit(vec![Change::Delete(keys::osd_state(osd))]);
    }

    fn pool(&self) -> Pool {
        self.client.map().pools[&POOL].value.clone()
    }

    /// Nothing is served from now on unless both copies can be reached.
    pub fn require_both(&mut self) {
        let pool = Pool {
            min_size: 2,
            ..self.pool()
        };
        self.put(keys::pool(POOL), encode(&pool), None);
    }

    /// Nothing is healed from now on but what clients work on.
    pub fn heal_nothing(&mut self) {
        let settings = Settings {
            no_recovery: true,
            ..Settings::default()
        };
        self.put(keys::SETTINGS.into(), encode(&settings), None);
    }

    /// Operations that wait for an OSD's disk.
    pub fn waiting(&self, osd: OsdId) -> usize {
        self.nodes[&osd].pending.len()
    }

    /// Writes of clients that are on their way get lost; returns how many.
    pub fn lose_writes(&mut self) -> usize {
        let is_write =
            |message: &Message| matches!(message, Message::Op(op) if matches!(op.action, Action::Write { .. }));
        let lost = |link: &VecDeque<Message>| link.iter().filter(|message| is_write(message)).count();
        let count = self.links.values().map(lost).sum();
        self.links
            .values_mut()
            .for_each(|link| link.retain(|message| !is_write(message)));
        count
    }

    /// The operations that an OSD remembers of an object.
    pub fn remembered(&self, osd: OsdId, object: ObjectId) -> Vec<OpId> {
        let machine = self.nodes[&osd].osd.as_ref().unwrap();
        machine.store().ops(object)
    }

    /// The pool has another number of PGs from now on.
    pub fn renumber(&mut self, pg_count: u32) {
        let old = self.pool();
        let pool = Pool {
            pg_count,
            generation: old.generation + 1,
            pgs_before: Some(old.pg_count),
            ..old
        };
        let changes = [
            (keys::plan(POOL), encode(&self.plan(&pool))),
            (keys::pool(POOL), encode(&pool)),
        ];
        self.commit(
            changes
                .into_iter()
                .map(|(key, value)| Change::put(key, value))
                .collect(),
        );
    }

    fn replan(&mut self) {
        let plan = self.plan(&self.pool());
        self.put(keys::plan(POOL), encode(&plan), None);
    }

    /// The simplest plan: PG n lives on OSDs n and n+1; the first that is up leads.
    fn plan(&self, pool: &Pool) -> Plan {
        let count = u32::try_from(self.nodes.len()).unwrap();
        let plan = |number: u32| {
            let osds = vec![OsdId(number % count + 1), OsdId((number + 1) % count + 1)];
            let primary = osds
                .iter()
                .copied()
                .find(|osd| self.kv.contains_key(&keys::osd_state(*osd)));
            PgPlan { osds, primary }
        };
        Plan {
            generation: pool.generation,
            pgs: (0..pool.pg_count).map(plan).collect(),
        }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        let revision = self.revision;
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Put { key, value, lease } => {
                    self.kv.insert(key.clone(), (value.clone(), revision, lease));
                    events.push(Kv::Put(KeyValue {
                        key,
                        value,
                        mod_revision: revision,
                    }));
                }
                Change::Delete(key) => {
                    self.kv.remove(&key);
                    events.push(Kv::Delete { key, revision });
                }
            }
        }
        let notice = Notice::Changes { revision, events };
        for osd in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.step(osd, Event::Notice(notice.clone()));
        }
        let mut out = Vec::new();
        self.client.notice(self.now, &notice, &mut out);
        self.take_client(out);
    }

    fn transact(&mut self, txn: Txn) -> TxnOutcome {
        let holds = |compare: &Compare| match compare {
            Compare::ModRevision(key, revision) => self.kv.get(key).is_some_and(|v| v.1 == *revision),
            Compare::Absent(key) => !self.kv.contains_key(key),
            Compare::Exists(key) => self.kv.contains_key(key),
            Compare::EmptyPrefix(prefix) => !self.kv.keys().any(|key| key.starts_with(prefix)),
        };
        if !txn.compare.iter().all(holds) {
            return TxnOutcome::Refused(self.revision);
        }
        for change in &txn.changes {
            let of = |osd: &&OsdId| matches!(change, Change::Delete(key) if *key == keys::osd_state(**osd));
            if let Some(&osd) = self.nodes.keys().find(of) {
                *self.removals.entry(osd).or_default() += 1;
            }
        }
        let registers = txn.changes.iter().any(|change| change.key().ends_with("/state"));
        self.commit(txn.changes);
        let outcome = TxnOutcome::Committed(self.revision);
        if registers {
            self.replan();
        }
        outcome
    }

    fn step(&mut self, osd: OsdId, event: Event) {
        let Some(node) = self.nodes.get_mut(&osd) else { return };
        let Some(machine) = node.osd.as_mut() else { return };
        let mut out = Vec::new();
        machine.step(self.now, event, &mut out);
        machine.flush(&mut out);
        for effect in out {
            match effect {
                Effect::Send(to, message) => {
                    self.links.entry((NodeId::Osd(osd), to)).or_default().push_back(message);
                }
                Effect::Disk(op) => node.pending.push_back(op),
                Effect::Txn(ticket, txn) => self.txns.push_back((osd, ticket, txn)),
            }
        }
    }

    fn take_client(&mut self, out: Vec<FromClient>) {
        for effect in out {
            match effect {
                FromClient::Send(osd, message) => {
                    let link = (NodeId::Client(self.client_id), NodeId::Osd(osd));
                    self.links.entry(link).or_default().push_back(message);
                }
                FromClient::Late(..) => unreachable!("the caller is the client itself"),
                FromClient::Stood(_) => {}
                FromClient::Done(ticket, result) => {
                    assert!(self.done.insert(ticket, result).is_none(), "answered twice");
                }
            }
        }
    }

    pub fn submit(&mut self, image: ImageId, op: ImageOp) -> u64 {
        self.ticket += 1;
        let mut out = Vec::new();
        self.client
            .submit(self.now, self.ticket, image, op, Caller::Own, &mut out);
        self.take_client(out);
        self.ticket
    }

    /// Something random happens. False if there is nothing that could.
    pub fn turn(&mut self) -> bool {
        let links: Vec<_> = self
            .links
            .iter()
            .filter(|(_, q)| !q.is_empty())
            .map(|(link, _)| *link)
            .collect();
        let disks: Vec<_> = self
            .nodes
            .iter()
            .filter(|(osd, n)| !n.pending.is_empty() && self.frozen != Some(**osd))
            .map(|(osd, _)| *osd)
            .collect();
        let choices = links.len() + disks.len() + usize::from(!self.txns.is_empty());
        if choices == 0 {
            return false;
        }
        self.delivered += 1;
        let choice = self.random.below(choices);
        if let Some(&(from, to)) = links.get(choice) {
            let message = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap();
            self.deliver(from, to, message);
        } else if let Some(&osd) = disks.get(choice - links.len()) {
            let node = self.nodes.get_mut(&osd).unwrap();
            let op = node.pending.pop_front().unwrap();
            let done = node.disk.run(op);
            self.step(osd, Event::Disk(done));
        } else if let Some((osd, ticket, txn)) = self.txns.pop_front() {
            let outcome = self.transact(txn);
            self.step(osd, Event::Txn(ticket, outcome));
        }
        true
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        match (from, to) {
            (_, NodeId::Osd(osd)) => self.step(osd, Event::Message(from, message)),
            (NodeId::Osd(osd), NodeId::Client(id)) if id == self.client_id => {
                let mut out = Vec::new();
                self.client.message(self.now, osd, message, &mut out);
                self.take_client(out);
            }
            (_, NodeId::Client(_)) => {}
        }
    }

    pub fn tick(&mut self) {
        self.now = self.now + Duration::from_millis(100);
        for osd in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.step(osd, Event::Tick);
        }
        let mut out = Vec::new();
        self.client.tick(self.now, &mut out);
        self.take_client(out);
    }

    /// Lets time pass until the operation is answered.
    pub fn finish(&mut self, ticket: u64) -> Result<Vec<u8>, IoError> {
        for _ in 0..2000 {
            while self.turn() {
                if self.done.contains_key(&ticket) {
                    break;
                }
            }
            if let Some(result) = self.done.remove(&ticket) {
                return result.map(|segments| segments.concat());
            }
            self.tick();
        }
        panic!("operation {ticket} was never answered: {}", self.describe());
    }

    pub fn write(&mut self, image: ImageId, offset: u64, data: Vec<u8>) -> Result<Vec<u8>, IoError> {
        let ticket = self.submit(
            image,
            ImageOp::Write {
                offset,
                data: vec![Bytes::from(data)],
            },
        );
        self.finish(ticket)
    }

    pub fn read(&mut self, image: ImageId, offset: u64, len: u64) -> Result<Vec<u8>, IoError> {
        let ticket = self.submit(image, ImageOp::Read { offset, len });
        self.finish(ticket)
    }

    /// Lets time pass until nothing is missing anywhere.
    pub fn heal(&mut self) {
        for _ in 0..2000 {
            while self.turn() {}
            let map = self.client.map();
            let clean = map.pgs().all(|pg| {
                map.claims
                    .get(&pg)
                    .is_some_and(|c| c.value.active && c.value.missing == 0 && c.value.acting.len() == 2)
            });
            if clean {
                return;
            }
            self.tick();
        }
        panic!("not clean: {}", self.describe());
    }

    fn describe(&self) -> String {
        let states: Vec<_> = self
            .nodes
            .values()
            .filter_map(|n| n.osd.as_ref())
            .map(|osd| (osd.state(), osd.status().pgs))
            .collect();
        let claims: Vec<_> = self.client.map().claims.values().map(|c| &c.value).collect();
        format!("{states:?}\nclaims {claims:?}\nin flight {}", self.client.in_flight())
    }

    /// What every OSD holds: object -> version, whether it is a tombstone, and the fingerprint of all that copies have
    /// in common.
    pub fn holdings(&self) -> BTreeMap<OsdId, BTreeMap<ObjectId, (trivet_core::Version, bool, u64)>> {
        let objects = |node: &Node| {
            let osd = node.osd.as_ref();
            osd.into_iter()
                .flat_map(|osd| {
                    osd.objects()
                        .map(|(o, i)| (o, (i.version, i.tombstone, osd.store().digest(o))))
                })
                .collect()
        };
        self.nodes.iter().map(|(&osd, node)| (osd, objects(node))).collect()
    }

    pub fn assert_ready(&self) {
        for node in self.nodes.values() {
            assert!(node.osd.as_ref().is_none_or(|osd| osd.state() == State::Ready));
        }
    }
}
