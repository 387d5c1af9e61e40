//! A gateway with everything around it: a metadata store in memory, one OSD that holds bytes, clients that keep what they
//! are sent. Nothing moves before [`World::run`] does it, and each road can be held up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use trivet_api::{AdminAnswer, AdminCall, AdminError, AdminResult, CallId, ErrorKind, Status};
use trivet_core::keys::{self, Claim, ClientState, GatewayState, History, Interval, OsdState, Pool};
use trivet_core::kv::{Change, Compare, Event, KeyValue, Notice, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::mark::Mark;
use trivet_core::message::{Action, LIST_LIMIT, Message, Op, OpDone, OpError, OpValue};
use trivet_core::{ClientId, Epoch, ImageId, Now, OBJECT_SIZE, ObjectId, OsdId, PgId, PoolId, Tick};
use trivet_namespace::{Caller, Context, Inode, Namespace, Numbers, Operation, Time};

use crate::fresh::{Answer, Heard};
use crate::gateway::{Clock, ConnKey, Effect, Gateway};
use crate::metrics::Protocol;
use crate::nfs::{Export, NfsServer, Settings, Squash};
use crate::overview::Overview;
use crate::session::Ending;

pub(super) const POOL: PoolId = PoolId(1);
/// The gateway under test, and another one.
pub(super) const OWN: ClientId = ClientId(7);
pub(super) const RIVAL: ClientId = ClientId(8);
pub(super) const PGS: u32 = 2;
pub(super) const OSD: OsdId = OsdId(1);

/// A gateway under test with its metadata store, OSD and clients.
pub(super) struct World {
    pub(super) gateway: Gateway,
    /// What administrators are shown.
    pub(super) overview: Overview,
    pub(super) clock: Clock,
    pub(super) keys: BTreeMap<String, KeyValue>,
    pub(super) revision: u64,
    pub(super) notices: VecDeque<Notice>,
    pub(super) txns: VecDeque<(u64, Txn)>,
    pub(super) outcomes: VecDeque<(u64, TxnOutcome)>,
    pub(super) ops: VecDeque<Op>,
    pub(super) objects: BTreeMap<ObjectId, Vec<u8>>,
    pub(super) effects: Vec<Effect>,
    /// Administrators who wait for an answer.
    pub(super) callers: BTreeMap<CallId, (AdminCall, oneshot::Sender<AdminResult>)>,
    pub(super) calls: u64,
    pub(super) connections: u64,
    /// Input that a session left over.
    pub(super) inputs: BTreeMap<ConnKey, BytesMut>,
    /// What clients were sent and have not looked at.
    pub(super) sent: BTreeMap<ConnKey, Vec<u8>>,
    pub(super) closed: Vec<(ConnKey, Ending)>,
    pub(super) pauses: Vec<bool>,
    /// Clients of which the gateway wanted to know since somebody looked.
    pub(super) listening: BTreeSet<ConnKey>,
    /// How often leftover input was asked for.
    pub(super) again: usize,
    /// How many times something of an object was zeroed.
    pub(super) zeroed: usize,
    /// Transactions that were committed and refused.
    pub(super) committed: usize,
    pub(super) refused: usize,
    pub(super) hold_notices: bool,
    /// For how long the gateway's clock has stood still, nanoseconds.
    pub(super) stood: u64,
    /// The latest mark that the OSD has.
    pub(super) mark_of_osd: Option<Mark>,
    pub(super) hold_txns: bool,
    pub(super) hold_osd: bool,
    /// Notices overtake the outcomes of their transactions.
    pub(super) notices_first: bool,
    /// The control plane hears nothing of the metadata store.
    pub(super) deaf: bool,
    /// The next transactions are lost on their way, which the gateway hears of as unknown.
    pub(super) lose_txns: usize,
    /// The outcomes of the next transactions are lost: they are executed, which the gateway hears of as unknown.
    pub(super) lose_outcomes: usize,
    /// The next transactions are held up on their way, which the gateway hears of as unknown; see [`World::arrive`].
    pub(super) delay_txns: usize,
    pub(super) delayed: Vec<Txn>,
    /// Commits that are not of this cluster follow each of ours.
    pub(super) shared: u64,
    /// The OSD answers all operations with this.
    pub(super) fail: Option<OpError>,
}

/// A settled world with an empty tree.
impl Default for World {
    fn default() -> World {
        World::with_pool(true)
    }
}

impl World {
    pub(super) fn with_pool(pool: bool) -> World {
        let clock = Clock {
            now: Now(0),
            wall: Time { sec: 1_000, nsec: 0 },
        };
        let gateway = Gateway::new(OWN, clock, NfsServer::new(settings()), 1);
        let mut world = World {
            gateway,
            overview: Overview::new(OWN),
            clock,
            keys: BTreeMap::new(),
            revision: 0,
            notices: VecDeque::new(),
            txns: VecDeque::new(),
            outcomes: VecDeque::new(),
            ops: VecDeque::new(),
            objects: BTreeMap::new(),
            effects: Vec::new(),
            callers: BTreeMap::new(),
            calls: 0,
            connections: 0,
            inputs: BTreeMap::new(),
            sent: BTreeMap::new(),
            closed: Vec::new(),
            pauses: Vec::new(),
            listening: BTreeSet::new(),
            again: 0,
            zeroed: 0,
            committed: 0,
            refused: 0,
            hold_notices: false,
            stood: 0,
            mark_of_osd: None,
            hold_txns: false,
            hold_osd: false,
            notices_first: false,
            deaf: false,
            lose_txns: 0,
            lose_outcomes: 0,
            delay_txns: 0,
            delayed: Vec::new(),
            shared: 0,
            fail: None,
        };
        world.commit(&Namespace::bootstrap(clock.wall).changes);
        world.set_up(pool);
        world.snapshot();
        world
    }

    fn set_up(&mut self, pool: bool) {
        self.show(OWN);
        self.show(RIVAL);
        if !pool {
            return;
        }
        let pool = Pool {
            name: "test".into(),
            replicas: 1,
            min_size: 1,
            pg_count: PGS,
            ..Pool::default()
        };
        self.commit(&[Change::put(keys::pool(POOL), encode(&pool))]);
        for number in 0..PGS {
            let claim = Claim {
                primary: OSD,
                epoch: Epoch(1),
                acting: vec![OSD],
                active: true,
                missing: 0,
            };
            self.commit(&[Change::put(keys::claim(PgId::first(POOL, number)), encode(&claim))]);
        }
        self.histories(&[1]);
    }

    /// The PGs have histories that name these epochs.
    pub(super) fn histories(&mut self, epochs: &[u64]) {
        let interval = |&epoch| Interval {
            epoch: Epoch(epoch),
            acting: vec![OSD],
            active: true,
            of: None,
        };
        let history = History {
            epoch: Epoch(1),
            intervals: epochs.iter().map(interval).collect(),
        };
        for number in 0..PGS {
            let key = keys::history(PgId::first(POOL, number));
            self.commit(&[Change::put(key, encode(&history))]);
        }
    }

    /// The OSD shows itself, and is asked for its clock.
    pub(super) fn show_osd(&mut self) {
        let state = OsdState {
            boot: 1,
            size: 1 << 30,
            address: None,
        };
        self.commit(&[Change::put(keys::osd_state(OSD), encode(&state))]);
    }

    /// A gateway shows itself, and OSDs execute operations of it.
    pub(super) fn show(&mut self, id: ClientId) {
        let state = GatewayState {
            name: "g".into(),
            http: None,
        };
        self.commit(&[
            Change::put(keys::gateway_state(id), encode(&state)),
            Change::put(keys::client(id), encode(&ClientState {})),
        ]);
    }

    /// Moves everything until nothing moves that is not held up.
    pub(super) fn run(&mut self) {
        loop {
            self.absorb();
            let overtaken = self.notices_first && self.deliver_notice();
            let moved = overtaken || self.deliver_outcome() || self.deliver_notice();
            if !moved && !self.execute_txn() && !self.execute_op() {
                return;
            }
        }
    }

    fn absorb(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send(conn, bytes) => self.sent.entry(conn).or_default().extend(bytes.concat()),
                Effect::Close(conn, ending) => self.closed.push((conn, ending)),
                Effect::Pause(_, paused) => self.pauses.push(paused),
                Effect::Again(conn) => {
                    self.again += 1;
                    self.send(conn, b"");
                }
                Effect::ToOsd(OSD, Message::Op(op)) => self.ops.push_back(op),
                Effect::Txn(ticket, txn) => self.txns.push_back((ticket, txn)),
                Effect::Answered(call, answer) => {
                    let (call, caller) = self.callers.remove(&call).expect("each call is answered once");
                    let answer = self.seen(&call, answer);
                    // One that has given up is no concern of ours.
                    let _ = caller.send(answer);
                }
                Effect::Listen(conn) => drop(self.listening.insert(conn)),
                Effect::Exports(_) | Effect::Fenced | Effect::ToOsd(_, Message::TickRequest { .. }) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        if !self.effects.is_empty() {
            self.absorb();
        }
    }

    fn deliver_outcome(&mut self) -> bool {
        let Some((ticket, outcome)) = self.outcomes.pop_front() else {
            return false;
        };
        self.gateway.txn_ended(self.clock, ticket, outcome, &mut self.effects);
        true
    }

    fn deliver_notice(&mut self) -> bool {
        if self.hold_notices {
            return false;
        }
        let Some(notice) = self.notices.pop_front() else {
            return false;
        };
        self.overview.notice(&notice);
        self.gateway.notice(self.clock, &notice, &mut self.effects);
        true
    }

    fn execute_txn(&mut self) -> bool {
        if self.hold_txns {
            return false;
        }
        let Some((ticket, txn)) = self.txns.pop_front() else {
            return false;
        };
        let outcome = if take_one(&mut self.lose_txns) {
            TxnOutcome::Unknown
        } else if take_one(&mut self.delay_txns) {
            self.delayed.push(txn);
            TxnOutcome::Unknown
        } else if take_one(&mut self.lose_outcomes) {
            self.transact(&txn);
            TxnOutcome::Unknown
        } else {
            self.transact(&txn)
        };
        self.outcomes.push_back((ticket, outcome));
        true
    }

    /// What was held up on its way to the store arrives; how much of it was executed.
    pub(super) fn arrive(&mut self) -> usize {
        let before = self.committed;
        for txn in std::mem::take(&mut self.delayed) {
            self.transact(&txn);
        }
        self.committed - before
    }

    fn transact(&mut self, txn: &Txn) -> TxnOutcome {
        let holds = |compare: &Compare| match compare {
            Compare::ModRevision(key, at) => self.keys.get(key).is_some_and(|row| row.mod_revision == *at),
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Exists(key) => self.keys.contains_key(key),
            Compare::EmptyPrefix(prefix) => !self.keys.keys().any(|key| key.starts_with(prefix)),
        };
        if !txn.compare.iter().all(holds) {
            self.refused += 1;
            return TxnOutcome::Refused(self.revision);
        }
        self.commit(&txn.changes);
        self.committed += 1;
        let outcome = TxnOutcome::Committed(self.revision);
        self.revision += self.shared;
        outcome
    }

    /// Changes keys unconditionally.
    pub(super) fn commit(&mut self, changes: &[Change]) {
        self.revision += 1;
        let revision = self.revision;
        let mut events = Vec::new();
        for change in changes {
            events.push(match change.clone() {
                Change::Put { key, value, .. } => {
                    let row = KeyValue {
                        key,
                        value,
                        mod_revision: revision,
                    };
                    self.keys.insert(row.key.clone(), row.clone());
                    Event::Put(row)
                }
                Change::Delete(key) => {
                    self.keys.remove(&key);
                    Event::Delete { key, revision }
                }
            });
        }
        self.notices.push_back(Notice::Changes { revision, events });
    }

    /// Everything at once instead of the notices that are under way, however they are held up.
    pub(super) fn snapshot(&mut self) {
        self.read_anew(|revision, keys| Notice::Snapshot { revision, keys });
    }

    /// The store is put back to what it had then.
    pub(super) fn put_back(&mut self, keys: BTreeMap<String, KeyValue>) {
        self.revision = keys.values().map(|row| row.mod_revision).max().unwrap_or(1);
        self.keys = keys;
        self.read_anew(|revision, keys| Notice::Replaced { revision, keys });
    }

    fn read_anew(&mut self, notice: fn(Revision, Vec<KeyValue>) -> Notice) {
        self.notices.clear();
        let notice = notice(self.revision, self.keys.values().cloned().collect());
        self.overview.notice(&notice);
        self.gateway.notice(self.clock, &notice, &mut self.effects);
        self.hear();
        self.run();
    }

    /// The control plane asks the store what its last commit is.
    pub(super) fn hear(&mut self) {
        if self.deaf {
            return;
        }
        let heard = Heard {
            asked: self.clock.now,
            took: Duration::from_millis(1),
            answer: Ok(Answer {
                revision: self.revision,
                full: false,
            }),
        };
        self.gateway.heard(self.clock, &heard, &mut self.effects);
    }

    /// What the OSD's clock shows.
    fn tick_of_osd(&self) -> Tick {
        Tick(self.clock.now.0 + self.stood)
    }

    /// The OSD says what its clock is.
    pub(super) fn hear_clock(&mut self) {
        let tick = Message::Tick {
            sent: self.clock.now,
            tick: self.tick_of_osd(),
            mark: self.mark_of_osd,
        };
        self.gateway.message(self.clock, OSD, tick, &mut self.effects);
        self.run();
    }

    fn execute_op(&mut self) -> bool {
        if self.hold_osd {
            return false;
        }
        let Some(op) = self.ops.pop_front() else { return false };
        let result = match self.fail {
            Some(error) => Err(error),
            None => Ok(self.act(op.pg, op.action)),
        };
        let tick = self.tick_of_osd();
        let done = Message::OpDone(OpDone {
            id: op.id,
            result,
            tick,
        });
        self.gateway.message(self.clock, OSD, done, &mut self.effects);
        true
    }

    /// Operations that the OSD was sent and has not answered.
    pub(super) fn waiting_ops(&self) -> usize {
        self.ops.len()
    }

    /// Lets the OSD answer this many operations.
    pub(super) fn run_ops(&mut self, count: usize) {
        self.run();
        for _ in 0..count {
            self.hold_osd = false;
            self.execute_op();
            self.hold_osd = true;
            self.run();
        }
    }

    fn act(&mut self, pg: PgId, action: Action) -> OpValue {
        match action {
            Action::Read { object, offset, len } => {
                let data = self.objects.get(&object).map_or(Bytes::from(vec![0; len]), |bytes| {
                    Bytes::copy_from_slice(&bytes[offset..offset + len])
                });
                return OpValue::Data(vec![data]);
            }
            Action::Write { object, offset, data } => self.put(object, offset, &data.concat()),
            Action::Zero { object, offset, len } => {
                self.zeroed += 1;
                if len == OBJECT_SIZE {
                    self.objects.remove(&object);
                } else if let Some(bytes) = self.objects.get_mut(&object) {
                    bytes[offset..offset + len].fill(0);
                }
            }
            Action::Remove { object } => drop(self.objects.remove(&object)),
            Action::Barrier { .. } => return OpValue::Passed,
            Action::List { image, from, end } => {
                let numbers = self
                    .objects
                    .keys()
                    .filter(|object| object.image == image && object.pg(trivet_core::Numbering::first(PGS)) == pg);
                let numbers = numbers
                    .map(|object| object.number)
                    .filter(|number| (from..end).contains(number));
                return OpValue::Objects(numbers.take(LIST_LIMIT).collect());
            }
        }
        OpValue::Changed
    }

    fn put(&mut self, object: ObjectId, offset: usize, data: &[u8]) {
        let bytes = self.objects.entry(object).or_insert_with(|| vec![0; OBJECT_SIZE]);
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Operations that wait for the OSD.
    pub(super) fn ops(&self) -> usize {
        self.ops.len()
    }

    /// Transactions that wait for the store.
    pub(super) fn txns(&self) -> usize {
        self.txns.len()
    }

    /// The byte at `offset` of an image, as the OSD has it.
    pub(super) fn byte(&self, image: ImageId, offset: u64) -> u8 {
        let size = OBJECT_SIZE as u64;
        let object = ObjectId {
            image,
            number: offset / size,
        };
        self.objects
            .get(&object)
            .map_or(0, |bytes| bytes[usize::try_from(offset % size).unwrap()])
    }

    /// How many objects an image has.
    pub(super) fn objects(&self, image: ImageId) -> usize {
        self.objects.keys().filter(|object| object.image == image).count()
    }

    /// Lets time pass in steps of a tick.
    pub(super) fn pass(&mut self, time: Duration) {
        const TICK: Duration = Duration::from_millis(250);
        let end = self.clock.now + time;
        while self.clock.now < end {
            self.clock.now = self.clock.now + TICK;
            let since = Duration::from_nanos(self.clock.now.0);
            self.clock.wall = Time {
                sec: 1_000 + i64::try_from(since.as_secs()).unwrap(),
                nsec: since.subsec_nanos(),
            };
            self.hear();
            self.overview.tick(self.clock.now);
            self.gateway.tick(self.clock, &mut self.effects);
            self.run();
        }
    }

    /// What an administrator is told of a change that has ended.
    fn seen(&mut self, call: &AdminCall, answer: AdminResult) -> AdminResult {
        match answer {
            Ok(AdminAnswer::Done {}) => {
                let inside = self.gateway.look(self.clock);
                self.overview.changed(self.clock, call, Some(&inside))
            }
            answer => answer,
        }
    }

    /// What an administrator asks for; the answer may be under way.
    pub(super) fn call(&mut self, call: AdminCall) -> oneshot::Receiver<AdminResult> {
        let (reply, answer) = oneshot::channel();
        if !call.changes() {
            let inside = self.gateway.look(self.clock);
            drop(reply.send(self.overview.answer(self.clock, &call, Some(&inside))));
            return answer;
        }
        self.calls += 1;
        let id = CallId(self.calls);
        self.callers.insert(id, (call.clone(), reply));
        self.gateway.admin(self.clock, id, call, &mut self.effects);
        self.run();
        answer
    }

    /// The same, answered at once.
    pub(super) fn ask(&mut self, call: AdminCall) -> AdminResult {
        self.call(call).try_recv().expect("nothing holds the answer up")
    }

    /// The class of error that it is answered with.
    pub(super) fn error(&mut self, call: AdminCall) -> ErrorKind {
        self.ask(call)
            .map_err(|AdminError { kind, .. }| kind)
            .expect_err("it must fail")
    }

    /// An image of `size` bytes.
    pub(super) fn image(&mut self, path: &str, size: u64) -> ImageId {
        let answer = self.ask(create(path, size));
        assert!(matches!(answer, Ok(AdminAnswer::Image(_))), "{answer:?}");
        self.mirror().resolve(path.as_bytes()).unwrap()
    }

    /// The tree of names as the store has it.
    pub(super) fn mirror(&self) -> Namespace {
        let keys = self.keys.values().cloned().collect();
        let mut namespace = Namespace::default();
        namespace.apply(&Notice::Snapshot {
            revision: self.revision,
            keys,
        });
        namespace
    }

    /// An image's inode as the store has it.
    pub(super) fn inode(&self, image: ImageId) -> Inode {
        self.mirror().inode(image).expect("it exists").clone()
    }

    /// Another gateway changes the tree of names; this one hears of it with [`World::run`].
    pub(super) fn rival(&mut self, operation: &Operation) {
        let mut numbers = Numbers::default();
        numbers.add(1 << 40 | self.revision << 8, 1 << 40 | (self.revision + 1) << 8);
        let context = Context {
            caller: Caller::root(),
            now: self.clock.wall,
            pool: Some(POOL),
            gateway: RIVAL,
        };
        let plan = self
            .mirror()
            .plan(operation, &context, &mut numbers)
            .expect("a plan on what is there");
        self.commit(&plan.txn.changes);
    }

    /// A gateway uses an image, or agrees to its last truncation.
    pub(super) fn uses(&mut self, client: ClientId, image: ImageId) {
        let key = format!("vfs/use/{image}/{:016x}", client.0);
        let value = match self.inode(image).cut {
            Some(Time { sec, nsec }) => format!(r#"{{"agreed":[{sec},{nsec}]}}"#),
            None => "{}".to_owned(),
        };
        self.commit(&[Change::put(key, value)]);
        self.run();
    }

    /// The other gateway dies.
    pub(super) fn rival_dies(&mut self) {
        self.commit(&[Change::Delete(keys::gateway_state(RIVAL))]);
    }

    /// A client connects.
    pub(super) fn connect(&mut self, protocol: Protocol) -> ConnKey {
        self.connections += 1;
        let conn = ConnKey(self.connections);
        let peer = ([192, 0, 2, 1], 900 + u16::try_from(self.connections).unwrap());
        let local = ([192, 0, 2, 9], 10809);
        self.gateway
            .accepted(self.clock, conn, protocol, local.into(), peer.into(), &mut self.effects);
        self.run();
        conn
    }

    /// A client sends bytes.
    pub(super) fn send(&mut self, conn: ConnKey, bytes: &[u8]) {
        self.send_after(conn, bytes, self.clock.now);
    }

    /// Bytes of a client are found that came after this time.
    pub(super) fn send_after(&mut self, conn: ConnKey, bytes: &[u8], quiet: Now) {
        let mut input = self.inputs.remove(&conn).unwrap_or_default();
        input.extend_from_slice(bytes);
        self.gateway
            .received(self.clock, conn, &mut input, quiet, &mut self.effects);
        self.inputs.insert(conn, input);
    }

    /// All administrators give up.
    pub(super) fn give_up_calls(&mut self) {
        for id in 0..=self.calls {
            self.gateway.forsake_call(CallId(id));
        }
    }

    /// The gateway does not run for a while; returns when it ran last.
    pub(super) fn stop(&mut self, time: Duration) -> Now {
        let last = self.clock.now;
        self.clock.now = last + time;
        self.hear();
        self.run();
        last
    }

    /// A client's host acknowledged something after this time; whether the gateway wants to know more of it.
    pub(super) fn hear_of(&mut self, conn: ConnKey, heard: Option<Now>) -> bool {
        let stood = self.clock.now;
        let more = self.gateway.attended(self.clock, conn, stood, heard, &mut self.effects);
        self.run();
        more
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, conn: ConnKey) {
        self.gateway.closed(self.clock, conn, &mut self.effects);
    }

    /// What a client was sent since it looked last.
    pub(super) fn take(&mut self, conn: ConnKey) -> Vec<u8> {
        self.run();
        self.sent.remove(&conn).unwrap_or_default()
    }
}

fn take_one(count: &mut usize) -> bool {
    let any = *count > 0;
    *count -= usize::from(any);
    any
}

/// Everything is exported, to everybody.
pub(super) fn settings() -> Settings {
    let export = Export {
        id: 1,
        path: "/".to_owned(),
        subtree: String::new(),
        clients: vec!["0.0.0.0/0".parse().unwrap()],
        read_only: false,
        squash: Squash::Nobody,
        anonymous: (0, 0),
        auth_none: true,
        privileged_port: false,
    };
    Settings {
        exports: vec![export],
        key: [3; 16],
        fsid: 5,
        verifier: Default::default(),
    }
}

pub(super) fn create(path: &str, size: u64) -> AdminCall {
    AdminCall::ImageCreate {
        path: path.to_owned(),
        size,
        pool: None,
    }
}

/// The gateway's verdict.
pub(super) fn status(world: &mut World) -> Status {
    match world.ask(AdminCall::Status) {
        Ok(AdminAnswer::Status(status)) => *status,
        other => panic!("{other:?}"),
    }
}

pub(super) fn remove(path: &str) -> AdminCall {
    AdminCall::ImageRemove { path: path.to_owned() }
}

pub(super) fn resize(path: &str, size: u64) -> AdminCall {
    AdminCall::ImageResize {
        path: path.to_owned(),
        size,
    }
}

pub(super) fn rename(from: &str, to: &str) -> AdminCall {
    AdminCall::ImageRename {
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

pub(super) fn info(path: &str) -> AdminCall {
    AdminCall::ImageInfo { path: path.to_owned() }
}
