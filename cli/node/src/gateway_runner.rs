//! The gateway of a process and its clients' connections: from listening to the answers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use trivet_api::{AdminCall, AdminResult, CallId, ErrorKind};
use trivet_control::{AdminReceiver, AdminReply, Counters, Request, channel};
use trivet_core::kv::{Notice, TxnOutcome};
use trivet_core::message::Message;
use trivet_core::{ClientId, NodeId, Now, OsdId};
use trivet_gateway::fresh::Heard;
use trivet_gateway::gateway::{Clock, ConnKey, Effect, Gateway};
use trivet_gateway::metrics::Protocol;
use trivet_gateway::nfs::{Export, NfsServer, Settings, Squash};
use trivet_gateway::session::Ending;
use trivet_gateway::status::OsdReport;
use trivet_reactor::{ConnId, ListenerToken, Reactor};

use super::channel::{Role, ToControl};
use super::cluster::{ClusterId, random};
use super::data::{GatewayHandles, GatewaySetup};
use super::output::Output;
use super::{listening, log, ready};

/// A client that does not take its answers is not read from beyond this many bytes of them.
const MAX_QUEUED: usize = 16 << 20;
/// So many bytes of answers that a client has not taken are worth counting.
const MUCH_QUEUED: usize = 64 << 10;
/// So many freed bytes are worth giving back to the system: that takes some milliseconds, and so does having them again.
const MUCH_FREED: usize = 64 << 20;
/// The image of a new cluster.
const DEMO: (&str, u64) = ("demo", 1 << 30);

/// The gateway and its clients.
pub struct GatewayRunner {
    gateway: Gateway,
    effects: Vec<Effect>,
    conns: Connections,
    admin: AdminReceiver,
    /// Administrators who wait for an answer.
    callers: HashMap<CallId, AdminReply>,
    next_call: u64,
    counters: Arc<Counters>,
    doors: HashMap<ListenerToken, (Protocol, SocketAddr)>,
    stage: Stage,
    /// How long it waits for PGs before it serves.
    patience: Duration,
    /// What is said before `ready`.
    banner: String,
    /// Connections whose leftover input is to be offered again.
    again: Vec<ConnKey>,
    /// Clients that the gateway wants to know of, and whether one of them is new.
    listening: BTreeSet<ConnKey>,
    listens_anew: bool,
    is_fenced: bool,
    /// Connections whose clients have much to take.
    unsent: HashSet<ConnKey>,
    /// The most that clients' data took since freed memory was given back, bytes.
    peak: usize,
}

/// The gateway's names of connections, and the reactor's.
#[derive(Default)]
struct Connections {
    keys: HashMap<ConnId, ConnKey>,
    ids: HashMap<ConnKey, (ConnId, SocketAddr, Protocol)>,
    /// Those of which the gateway wants no more for now.
    paused: HashSet<ConnKey>,
    next: u64,
}

impl Connections {
    fn note_pause(&mut self, key: ConnKey, pause: bool) {
        if pause {
            self.paused.insert(key);
        } else {
            self.paused.remove(&key);
        }
    }
}

/// A client that came before there was somebody to serve it.
type Early = (ListenerToken, ConnId, SocketAddr);

/// What is still to be done before clients are served.
enum Stage {
    Starting {
        since: Now,
        early: Vec<Early>,
        demo: bool,
    },
    Making {
        early: Vec<Early>,
        made: oneshot::Receiver<AdminResult>,
    },
    Ready,
}

impl GatewayRunner {
    /// A gateway whose doors are in place; they open when the cluster is there.
    pub fn new(
        reactor: &mut Reactor,
        setup: GatewaySetup,
        cluster: &ClusterId,
        clock: Clock,
    ) -> anyhow::Result<(GatewayRunner, GatewayHandles)> {
        let mut doors = HashMap::new();
        for (token, (protocol, flag, address)) in (1..).map(ListenerToken).zip(setup.doors) {
            let listens = reactor.listen(address, token);
            let address = listens.map_err(|error| listening::refused(flag, address, &error))?;
            doors.insert(token, (protocol, address));
        }
        let waker = reactor.waker();
        let (handle, admin) = channel(move || waker.wake());
        let counters = Arc::<Counters>::default();
        let id = ClientId(u64::from_le_bytes(random()?));
        let nfs = nfs_server(cluster)?;
        let handles = GatewayHandles {
            admin: handle,
            counters: Arc::clone(&counters),
            id,
        };
        let mut runner = GatewayRunner {
            gateway: Gateway::new(id, clock, nfs, cluster.number()),
            effects: Vec::new(),
            conns: Connections::default(),
            admin,
            callers: HashMap::new(),
            next_call: 0,
            counters,
            doors,
            stage: Stage::Starting {
                since: clock.now,
                early: Vec::new(),
                demo: setup.demo,
            },
            patience: setup.patience,
            banner: setup.banner,
            again: Vec::new(),
            listening: BTreeSet::new(),
            listens_anew: false,
            is_fenced: false,
            unsent: HashSet::new(),
            peak: 0,
        };
        runner.gateway.set_budget(setup.memory);
        runner.gateway.set_host(crate::cluster::host());
        Ok((runner, handles))
    }

    /// Its name in the cluster.
    pub fn id(&self) -> ClientId {
        self.gateway.id()
    }

    /// Whether some input is to be offered again, or a client to be looked for at once.
    pub fn has_more(&self) -> bool {
        !self.again.is_empty() || self.listens_anew
    }

    /// Whether others take the gateway for dead.
    pub fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Says what is known of the clients that the gateway wants to know of.
    pub fn attend(&mut self, clock: Clock, out: &mut Output<'_>) {
        self.listens_anew = false;
        for key in std::mem::take(&mut self.listening) {
            let Some(&(conn, ..)) = self.conns.ids.get(&key) else {
                continue;
            };
            let stood = Now(out.reactor.stands(conn).unwrap_or(0));
            let heard = out.reactor.heard(conn).map(Now);
            if self.gateway.attended(clock, key, stood, heard, &mut self.effects) {
                self.listening.insert(key);
            }
            self.carry_out(out);
        }
    }

    /// A client connected.
    pub fn accepted(
        &mut self,
        clock: Clock,
        (listener, conn, peer): (ListenerToken, ConnId, SocketAddr),
        out: &mut Output<'_>,
    ) {
        match &mut self.stage {
            Stage::Starting { early, .. } | Stage::Making { early, .. } => early.push((listener, conn, peer)),
            Stage::Ready => self.welcome(clock, (listener, conn, peer), out),
        }
    }

    fn welcome(&mut self, clock: Clock, (listener, conn, peer): Early, out: &mut Output<'_>) {
        let Some(&(protocol, local)) = self.doors.get(&listener) else {
            return out.reactor.abort(conn);
        };
        let key = ConnKey(self.conns.next);
        self.conns.next += 1;
        self.conns.keys.insert(conn, key);
        self.conns.ids.insert(key, (conn, peer, protocol));
        out.reactor.attend(conn);
        self.gateway
            .accepted(clock, key, protocol, local, peer, &mut self.effects);
        self.carry_out(out);
    }

    /// Bytes came from a client.
    pub fn readable(&mut self, clock: Clock, conn: ConnId, quiet: Now, out: &mut Output<'_>) {
        if let Some(&key) = self.conns.keys.get(&conn) {
            self.receive(clock, key, quiet, out);
        }
    }

    /// Offers what the gateway left.
    pub fn receive_again(&mut self, clock: Clock, out: &mut Output<'_>) {
        for key in std::mem::take(&mut self.again) {
            // Nothing is new.
            self.receive(clock, key, clock.now, out);
        }
    }

    fn receive(&mut self, clock: Clock, key: ConnKey, quiet: Now, out: &mut Output<'_>) {
        let Some(&(conn, ..)) = self.conns.ids.get(&key) else {
            return;
        };
        let hint = self
            .gateway
            .received(clock, key, out.reactor.input(conn), quiet, &mut self.effects);
        if hint > 0 {
            out.reactor.set_hint(conn, hint);
        }
        if out.reactor.queued(conn) > MAX_QUEUED {
            out.reactor.pause_reading(conn, true);
        }
        self.carry_out(out);
    }

    /// A client has taken its answers: it is read from again, unless the gateway has enough to do for it.
    pub fn drained(&self, conn: ConnId, reactor: &mut Reactor) {
        let key = self.conns.keys.get(&conn);
        if key.is_some_and(|key| !self.conns.paused.contains(key)) {
            reactor.pause_reading(conn, false);
        }
    }

    /// A client is gone.
    pub fn closed(&mut self, clock: Clock, conn: ConnId, out: &mut Output<'_>) {
        if let Stage::Starting { early, .. } | Stage::Making { early, .. } = &mut self.stage {
            early.retain(|(_, waiting, _)| *waiting != conn);
        }
        if let Some(key) = self.conns.keys.remove(&conn) {
            self.conns.ids.remove(&key);
            self.conns.paused.remove(&key);
            self.listening.remove(&key);
            self.gateway.closed(clock, key, &mut self.effects);
            self.carry_out(out);
        }
    }

    /// The metadata store changed.
    pub fn notice(&mut self, clock: Clock, notice: &Notice, out: &mut Output<'_>) {
        self.gateway.notice(clock, notice, &mut self.effects);
        self.carry_out(out);
    }

    /// The metadata store said something of itself, or did not.
    pub fn heard(&mut self, clock: Clock, heard: &Heard, out: &mut Output<'_>) {
        self.gateway.heard(clock, heard, &mut self.effects);
        self.carry_out(out);
    }

    /// A transaction of the gateway has ended.
    pub fn txn_ended(&mut self, clock: Clock, ticket: u64, outcome: TxnOutcome, out: &mut Output<'_>) {
        self.gateway.txn_ended(clock, ticket, outcome, &mut self.effects);
        self.carry_out(out);
    }

    /// A message came from an OSD.
    pub fn message(&mut self, clock: Clock, from: OsdId, message: Message, out: &mut Output<'_>) {
        self.gateway.message(clock, from, message, &mut self.effects);
        self.carry_out(out);
    }

    /// The connection to an OSD broke.
    pub fn lost(&mut self, osd: OsdId) {
        self.gateway.lost(osd);
    }

    /// What the next administrator wants.
    pub fn next_request(&mut self) -> Option<Request> {
        self.admin.try_recv()
    }

    /// An administrator wants something of the gateway.
    pub fn request(&mut self, clock: Clock, request: Request, out: &mut Output<'_>) {
        match request {
            Request::Change(call, reply) => self.change(clock, call, reply, out),
            // One that has given up is no concern of ours.
            Request::Look(reply) => drop(reply.send(self.gateway.look(clock))),
        }
    }

    fn change(&mut self, clock: Clock, call: AdminCall, reply: AdminReply, out: &mut Output<'_>) {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.callers.insert(id, reply);
        self.gateway.admin(clock, id, call, &mut self.effects);
        self.carry_out(out);
    }

    /// Several times a second, with what the OSDs of this process report.
    pub fn tick(&mut self, clock: Clock, reports: Vec<(OsdId, OsdReport)>, out: &mut Output<'_>) {
        for (osd, report) in reports {
            self.gateway.osd_report(osd, report);
        }
        self.count_unsent(out.reactor);
        let gone = self.callers.iter().filter(|(_, reply)| reply.is_closed());
        gone.for_each(|(id, _)| self.gateway.forsake_call(*id));
        self.gateway.log_lines_lost(log::lost());
        self.gateway.tick(clock, &mut self.effects);
        self.carry_out(out);
        self.peak = self.peak.max(self.held(out.reactor));
        self.progress(clock, out);
    }

    /// Bytes of clients' data, with what is on its way to OSDs of clients that may be gone.
    fn held(&self, reactor: &Reactor) -> usize {
        self.gateway.memory_used() + reactor.all_queued()
    }

    /// Tells the gateway how much clients have not taken.
    fn count_unsent(&mut self, reactor: &Reactor) {
        let (conns, gateway) = (&self.conns, &mut self.gateway);
        self.unsent.retain(|key| {
            let queued = conns.ids.get(key).map_or(0, |(conn, ..)| reactor.queued(*conn));
            gateway.unsent(*key, queued);
            queued > 0
        });
    }

    /// When clients' data took much memory and takes little now, the system gets back what is free. Call it every few
    /// seconds.
    pub fn give_back_memory(&mut self, reactor: &Reactor) {
        let used = self.held(reactor);
        if self.peak.saturating_sub(used) > MUCH_FREED && used < self.peak / 4 {
            trivet_reactor::give_back_freed_buffers();
            self.peak = used;
        }
    }

    /// Carries out what the gateway wants.
    fn carry_out(&mut self, out: &mut Output<'_>) {
        let me = NodeId::Client(self.gateway.id());
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send(key, bytes) => {
                    if let Some(&(conn, ..)) = self.conns.ids.get(&key) {
                        out.reactor.send(conn, bytes);
                        if out.reactor.queued(conn) > MUCH_QUEUED {
                            self.unsent.insert(key);
                        }
                    }
                }
                Effect::Close(key, ending) => self.end(key, &ending, out.reactor),
                Effect::Pause(key, pause) => {
                    if let Some(&(conn, ..)) = self.conns.ids.get(&key) {
                        self.conns.note_pause(key, pause);
                        let full = out.reactor.queued(conn) > MAX_QUEUED;
                        out.reactor.pause_reading(conn, pause || full);
                    }
                }
                Effect::Again(key) => {
                    if self.again.last() != Some(&key) {
                        self.again.push(key);
                    }
                }
                Effect::Listen(key) => self.listens_anew |= self.listening.insert(key),
                Effect::Fenced => self.is_fenced = true,
                Effect::ToOsd(osd, message) => out.queue.push_back((me, NodeId::Osd(osd), message)),
                Effect::Txn(ticket, txn) => {
                    // Without a control plane the process is about to end.
                    let _ = out.control.send(ToControl::Txn(Role::Gateway, ticket, txn));
                }
                Effect::Answered(call, answer) => {
                    if let Some(caller) = self.callers.remove(&call) {
                        // One that has given up is no concern of ours.
                        let _ = caller.send(answer);
                    }
                }
                Effect::Exports(list) => self.counters.list(list),
            }
        }
    }

    fn end(&mut self, key: ConnKey, ending: &Ending, reactor: &mut Reactor) {
        let Some(&(conn, peer, protocol)) = self.conns.ids.get(&key) else {
            return;
        };
        if let Ending::Fault(reason) = ending {
            tracing::warn!("{} {peer}: disconnected: {reason}", protocol.name());
        }
        self.conns.ids.remove(&key);
        self.conns.keys.remove(&conn);
        self.conns.paused.remove(&key);
        reactor.close(conn);
    }

    /// On the way to `ready`: wait for the PGs, make the demo image of a new cluster, let clients in.
    fn progress(&mut self, clock: Clock, out: &mut Output<'_>) {
        match std::mem::replace(&mut self.stage, Stage::Ready) {
            Stage::Starting { since, early, demo } => {
                let late = clock.now.since(since) >= self.patience;
                if !self.gateway.is_ready() || !(self.gateway.all_active() || late) {
                    self.stage = Stage::Starting { since, early, demo };
                } else if demo {
                    let (reply, made) = oneshot::channel();
                    let call = AdminCall::ImageCreate {
                        path: DEMO.0.into(),
                        size: DEMO.1,
                        pool: None,
                    };
                    self.change(clock, call, reply, out);
                    self.stage = Stage::Making { early, made };
                } else {
                    self.open_doors(clock, early, out);
                }
            }
            Stage::Making { early, mut made } => match made.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => self.stage = Stage::Making { early, made },
                Ok(Err(error)) if error.kind != ErrorKind::Exists => {
                    tracing::warn!("the image {} could not be made: {error}", DEMO.0);
                    self.open_doors(clock, early, out);
                }
                _ => self.open_doors(clock, early, out),
            },
            Stage::Ready => {}
        }
    }

    fn open_doors(&mut self, clock: Clock, early: Vec<Early>, out: &mut Output<'_>) {
        if !self.gateway.has_pools() {
            tracing::warn!("there is no pool yet; make one with 'trivet pool create NAME --replicas 2'");
        } else if !self.gateway.all_active() {
            tracing::warn!("some PGs cannot be served yet; 'trivet status' says why");
        }
        ready::say(&self.banner);
        for client in early {
            self.welcome(clock, client, out);
            // They have waited for this.
            self.readable(clock, client.1, clock.now, out);
        }
    }
}

/// The whole tree, for every client that can reach the address that the administrator chose.
fn nfs_server(cluster: &ClusterId) -> anyhow::Result<NfsServer> {
    let everybody = ["0.0.0.0/0", "::/0"]
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    let export = Export {
        id: 1,
        path: "/".into(),
        subtree: String::new(),
        clients: everybody,
        read_only: false,
        squash: Squash::Nobody,
        anonymous: (65_534, 65_534),
        auth_none: false,
        privileged_port: false,
    };
    Ok(NfsServer::new(Settings {
        exports: vec![export],
        key: cluster.secret,
        fsid: cluster.number(),
        verifier: random()?,
    }))
}
