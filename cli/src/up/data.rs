//! The data path of `trivet up`: one thread, one reactor, the gateway and every OSD. Events go into the machines, effects
//! come out, messages between the roles go through one queue; nothing here decides anything.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use trivet_core::kv::Notice;
use trivet_core::message::Message;
use trivet_core::{ClientId, NodeId, Now, OsdId};
use trivet_gateway::admin::metrics::{Metrics, Protocol};
use trivet_gateway::admin::{AdminCall, AdminHandle, AdminReceiver, AdminResult, ErrorKind, channel};
use trivet_gateway::gateway::{Clock, ConnKey, Effect, Gateway};
use trivet_gateway::nfs::{Export, NfsServer, Settings, Squash};
use trivet_gateway::session::Ending;
use trivet_reactor::{Config, ConnId, Event, ListenerToken, Reactor, Waker};

use super::banner::{Addresses, banner};
use super::link::{Ask, Role, Tell};
use super::osds::{Osds, Output};
use super::startup::{Plan, random, wall};
use crate::args::UpArgs;

/// The machines hear of the time this often.
const TICK: Duration = Duration::from_millis(100);
/// The server says `ready` after this time even if some PGs cannot be served.
const PATIENCE: Duration = Duration::from_secs(15);
/// When the process is to end, the OSDs get this time and many turns of the loop: a store that had nothing to do
/// for a while proves that its last writes were durable, so that damage to them is not taken for a torn write later.
const WIND_DOWN: Duration = Duration::from_millis(200);
/// The time of one such turn.
const WIND_DOWN_TURN: Duration = Duration::from_millis(4);
/// A client that does not take its answers is not read from beyond this many bytes of them.
const MAX_QUEUED: usize = 16 << 20;
/// The image of a new cluster.
const DEMO: (&str, u64) = ("demo", 1 << 30);

const NBD: ListenerToken = ListenerToken(1);
const ISCSI: ListenerToken = ListenerToken(2);
const NFS: ListenerToken = ListenerToken(3);

/// What the thread is given.
pub struct Setup {
    /// The command line.
    pub args: UpArgs,
    /// The cluster.
    pub plan: Plan,
    /// Its disks.
    pub osds: Vec<(OsdId, PathBuf)>,
    /// From the control plane.
    pub inbox: Receiver<Tell>,
    /// To the control plane.
    pub control: UnboundedSender<Ask>,
    /// Told once, when sockets listen and disks are formatted.
    pub started: Sender<Handles>,
}

/// What the others need of the thread.
pub struct Handles {
    /// Wakes the loop.
    pub waker: Waker,
    /// Calls the gateway.
    pub admin: AdminHandle,
    /// What the data path counts.
    pub metrics: Arc<Metrics>,
    /// The gateway's name in the cluster.
    pub gateway: ClientId,
}

struct Data {
    reactor: Reactor,
    gateway: Gateway,
    osds: Osds,
    /// Messages between nodes of this process.
    queue: VecDeque<(NodeId, NodeId, Message)>,
    effects: Vec<Effect>,
    conns: Connections,
    inbox: Receiver<Tell>,
    control: UnboundedSender<Ask>,
    admin: AdminReceiver,
    addresses: Addresses,
    ready: Readiness,
    last_tick: Now,
    /// Connections whose leftover input is to be offered again.
    again: Vec<ConnKey>,
}

/// The gateway's names of connections, and the reactor's.
#[derive(Default)]
struct Connections {
    keys: HashMap<ConnId, ConnKey>,
    ids: HashMap<ConnKey, (ConnId, std::net::SocketAddr, Protocol)>,
    next: u64,
}

/// What is still to be done before clients are served.
enum Readiness {
    Starting {
        since: Now,
        early: Vec<(ListenerToken, ConnId, std::net::SocketAddr)>,
        demo: bool,
    },
    Making {
        early: Vec<(ListenerToken, ConnId, std::net::SocketAddr)>,
        made: oneshot::Receiver<AdminResult>,
    },
    Ready,
}

/// The thread.
pub fn run(setup: Setup) -> anyhow::Result<()> {
    let Setup {
        args,
        plan,
        osds,
        inbox,
        control,
        started,
    } = setup;
    let mut reactor = Reactor::new(&Config::default()).context("cannot set up the event loop")?;
    let addresses = listen(&mut reactor, &args)?;
    let osds = Osds::prepare(&mut reactor, &plan, osds)?;
    let waker = reactor.waker();
    let (handle, admin) = channel(move || waker.wake());
    let metrics = Metrics::new();
    let clock = clock();
    let id = ClientId(u64::from_le_bytes(random()?));
    let gateway = Gateway::new(id, clock, Arc::clone(&metrics), nfs_server(&plan)?, plan.number());
    let handles = Handles {
        waker: reactor.waker(),
        admin: handle,
        metrics,
        gateway: id,
    };
    if started.send(handles).is_err() {
        return Ok(());
    }
    let ready = Readiness::Starting {
        since: clock.now,
        early: Vec::new(),
        demo: plan.new,
    };
    let mut data = Data {
        reactor,
        gateway,
        osds,
        queue: VecDeque::new(),
        effects: Vec::new(),
        conns: Connections::default(),
        inbox,
        control,
        admin,
        addresses,
        ready,
        last_tick: clock.now,
        again: Vec::new(),
    };
    data.osds.lease_all(&data.control);
    data.serve()
}

fn listen(reactor: &mut Reactor, args: &UpArgs) -> anyhow::Result<Addresses> {
    let mut open = |flag: &str, address, token| {
        reactor
            .listen(address, token)
            .with_context(|| format!("{flag} {address}: cannot listen there; is another server running?"))
    };
    Ok(Addresses {
        nbd: open("--nbd", args.nbd, NBD)?,
        iscsi: open("--iscsi", args.iscsi, ISCSI)?,
        nfs: open("--nfs", args.nfs, NFS)?,
        http: args.http,
    })
}

/// The whole tree, for every client that can reach the address that the administrator chose.
fn nfs_server(plan: &Plan) -> anyhow::Result<NfsServer> {
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
        key: plan.secret,
        fsid: plan.number(),
        verifier: random()?,
    }))
}

fn clock() -> Clock {
    Clock {
        now: Now(Reactor::now()),
        wall: wall(),
    }
}

impl Data {
    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::new();
        loop {
            let timeout = if self.again.is_empty() { TICK } else { Duration::ZERO };
            self.reactor
                .poll(&mut events, Some(timeout))
                .context("the event loop failed")?;
            let clock = clock();
            for event in events.drain(..) {
                self.event(clock, event);
            }
            for conn in std::mem::take(&mut self.again) {
                self.receive(clock, conn);
            }
            if self.drain_inbox(clock) {
                return self.wind_down();
            }
            self.tick(clock);
            self.exchange(clock);
        }
    }

    /// Ends what is under way; takes nothing new from clients.
    fn wind_down(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::new();
        let end = Now(Reactor::now()) + WIND_DOWN;
        while Now(Reactor::now()) < end {
            self.reactor.poll(&mut events, Some(WIND_DOWN_TURN))?;
            let clock = clock();
            for event in events.drain(..) {
                if let Event::Disk { .. } = event {
                    self.event(clock, event);
                }
            }
            self.exchange(clock);
        }
        Ok(())
    }

    fn event(&mut self, clock: Clock, event: Event) {
        match event {
            Event::Accepted { listener, conn, peer } => self.accepted(clock, listener, conn, peer),
            Event::Refused { peer, .. } => tracing::warn!("{peer}: turned away, too many connections"),
            Event::Readable { conn } => {
                if let Some(&key) = self.conns.keys.get(&conn) {
                    self.receive(clock, key);
                }
            }
            Event::Drained { conn } => self.reactor.pause_reading(conn, false),
            Event::Closed { conn, .. } => self.closed(conn),
            Event::Disk { disk, user_id, result } => {
                self.osds.disk_done(
                    clock.now,
                    disk,
                    user_id,
                    result,
                    &mut Output {
                        queue: &mut self.queue,
                        reactor: &mut self.reactor,
                        control: &self.control,
                    },
                );
            }
            Event::Connected { .. } | Event::Woken => {}
        }
        self.gateway_effects();
    }

    fn accepted(&mut self, clock: Clock, listener: ListenerToken, conn: ConnId, peer: std::net::SocketAddr) {
        match &mut self.ready {
            Readiness::Starting { early, .. } | Readiness::Making { early, .. } => {
                early.push((listener, conn, peer));
            }
            Readiness::Ready => self.welcome(clock, listener, conn, peer),
        }
    }

    fn welcome(&mut self, clock: Clock, listener: ListenerToken, conn: ConnId, peer: std::net::SocketAddr) {
        let (protocol, local) = match listener {
            NBD => (Protocol::Nbd, self.addresses.nbd),
            ISCSI => (Protocol::Iscsi, self.addresses.iscsi),
            _ => (Protocol::Nfs, self.addresses.nfs),
        };
        let key = ConnKey(self.conns.next);
        self.conns.next += 1;
        self.conns.keys.insert(conn, key);
        self.conns.ids.insert(key, (conn, peer, protocol));
        self.gateway
            .accepted(clock, key, protocol, local, peer, &mut self.effects);
        self.gateway_effects();
    }

    fn receive(&mut self, clock: Clock, key: ConnKey) {
        let Some(&(conn, ..)) = self.conns.ids.get(&key) else {
            return;
        };
        let hint = self
            .gateway
            .received(clock, key, self.reactor.input(conn), &mut self.effects);
        if hint > 0 {
            self.reactor.set_hint(conn, hint);
        }
        if self.reactor.queued(conn) > MAX_QUEUED {
            self.reactor.pause_reading(conn, true);
        }
        self.gateway_effects();
    }

    fn closed(&mut self, conn: ConnId) {
        if let Some(key) = self.conns.keys.remove(&conn) {
            self.conns.ids.remove(&key);
            self.gateway.closed(key);
        }
    }

    /// Carries out what the gateway wants.
    fn gateway_effects(&mut self) {
        let me = NodeId::Client(self.gateway.id());
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send(key, bytes) => {
                    if let Some(&(conn, ..)) = self.conns.ids.get(&key) {
                        self.reactor.send(conn, bytes);
                    }
                }
                Effect::Close(key, ending) => self.end(key, &ending),
                Effect::Pause(key, pause) => {
                    if let Some(&(conn, ..)) = self.conns.ids.get(&key) {
                        self.reactor.pause_reading(conn, pause);
                    }
                }
                Effect::Again(key) => {
                    if self.again.last() != Some(&key) {
                        self.again.push(key);
                    }
                }
                Effect::ToOsd(osd, message) => self.queue.push_back((me, NodeId::Osd(osd), message)),
                Effect::Txn(ticket, txn) => {
                    // Without a control plane the process is about to end.
                    let _ = self.control.send(Ask::Txn(Role::Gateway, ticket, txn));
                }
            }
        }
    }

    fn end(&mut self, key: ConnKey, ending: &Ending) {
        let Some(&(conn, peer, protocol)) = self.conns.ids.get(&key) else {
            return;
        };
        if let Ending::Fault(reason) = ending {
            tracing::warn!("{} {peer}: disconnected: {reason}", protocol.name());
        }
        self.conns.ids.remove(&key);
        self.conns.keys.remove(&conn);
        self.reactor.close(conn);
    }

    /// Takes what the control plane and administrators say. True to stop.
    fn drain_inbox(&mut self, clock: Clock) -> bool {
        while let Ok(tell) = self.inbox.try_recv() {
            let mut out = Output {
                queue: &mut self.queue,
                reactor: &mut self.reactor,
                control: &self.control,
            };
            match tell {
                Tell::Notice(notice) => self.notice(clock, &notice),
                Tell::Outcome(Role::Gateway, ticket, outcome) => {
                    self.gateway.txn_ended(clock, ticket, outcome, &mut self.effects);
                }
                Tell::Outcome(Role::Osd(osd), ticket, outcome) => {
                    self.osds.txn_ended(clock.now, osd, ticket, outcome, &mut out);
                }
                Tell::Leased { osd, lease } => self.osds.leased(clock.now, osd, lease, &mut out),
                Tell::Revoked(osd) => self.osds.revoked(osd),
                Tell::Stop => return true,
            }
            self.gateway_effects();
        }
        while let Some((call, reply)) = self.admin.try_recv() {
            match call {
                AdminCall::OsdStop { osd } => {
                    self.osds.stop(OsdId(osd), reply, &mut self.reactor, &self.control);
                }
                AdminCall::OsdStart { osd } => self.osds.start(OsdId(osd), reply, &self.control),
                call => self.gateway.admin(clock, call, reply, &mut self.effects),
            }
            self.gateway_effects();
        }
        false
    }

    fn notice(&mut self, clock: Clock, notice: &Notice) {
        let mut out = Output {
            queue: &mut self.queue,
            reactor: &mut self.reactor,
            control: &self.control,
        };
        self.osds.notice(clock.now, notice, &mut out);
        self.gateway.notice(clock, notice, &mut self.effects);
    }

    fn tick(&mut self, clock: Clock) {
        if clock.now.since(self.last_tick) < TICK {
            return;
        }
        self.last_tick = clock.now;
        let mut out = Output {
            queue: &mut self.queue,
            reactor: &mut self.reactor,
            control: &self.control,
        };
        self.osds.tick(clock.now, &mut out);
        for (osd, report) in self.osds.reports() {
            self.gateway.osd_report(osd, report);
        }
        self.gateway.tick(clock, &mut self.effects);
        self.gateway_effects();
        self.progress(clock);
    }

    /// Delivers messages until there are none, then lets the OSDs hand what they gathered to their disks.
    fn exchange(&mut self, clock: Clock) {
        loop {
            while let Some((from, to, message)) = self.queue.pop_front() {
                self.deliver(clock, from, to, message);
            }
            let mut out = Output {
                queue: &mut self.queue,
                reactor: &mut self.reactor,
                control: &self.control,
            };
            self.osds.flush(&mut out);
            if self.queue.is_empty() {
                return;
            }
        }
    }

    fn deliver(&mut self, clock: Clock, from: NodeId, to: NodeId, message: Message) {
        match (from, to) {
            (NodeId::Osd(osd), NodeId::Client(_)) => {
                self.gateway.message(clock, osd, message, &mut self.effects);
                self.gateway_effects();
            }
            (_, NodeId::Osd(osd)) => {
                let mut out = Output {
                    queue: &mut self.queue,
                    reactor: &mut self.reactor,
                    control: &self.control,
                };
                self.osds.message(clock.now, osd, from, message, &mut out);
            }
            (NodeId::Client(_), NodeId::Client(_)) => {}
        }
    }

    /// On the way to `ready`: wait for the PGs, make the demo image of a new cluster, let clients in.
    fn progress(&mut self, clock: Clock) {
        match std::mem::replace(&mut self.ready, Readiness::Ready) {
            Readiness::Starting { since, early, demo } => {
                let late = clock.now.since(since) >= PATIENCE;
                if !self.gateway.is_ready() || !(self.gateway.all_active() || late) {
                    self.ready = Readiness::Starting { since, early, demo };
                } else if demo {
                    let (reply, made) = oneshot::channel();
                    let call = AdminCall::ImageCreate {
                        path: DEMO.0.into(),
                        size: DEMO.1,
                        pool: None,
                    };
                    self.gateway.admin(clock, call, reply, &mut self.effects);
                    self.gateway_effects();
                    self.ready = Readiness::Making { early, made };
                } else {
                    self.open_doors(clock, early);
                }
            }
            Readiness::Making { early, mut made } => match made.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => self.ready = Readiness::Making { early, made },
                Ok(Err(error)) if error.kind != ErrorKind::Exists => {
                    tracing::warn!("the image {} could not be made: {error}", DEMO.0);
                    self.open_doors(clock, early);
                }
                _ => self.open_doors(clock, early),
            },
            Readiness::Ready => {}
        }
    }

    fn open_doors(&mut self, clock: Clock, early: Vec<(ListenerToken, ConnId, std::net::SocketAddr)>) {
        if !self.gateway.all_active() {
            tracing::warn!("some PGs cannot be served yet; 'trivet status' says why");
        }
        let mut stdout = std::io::stdout().lock();
        // A closed stdout is no reason not to serve.
        let _ = writeln!(stdout, "{}ready", banner(&self.addresses)).and_then(|()| stdout.flush());
        for (listener, conn, peer) in early {
            self.welcome(clock, listener, conn, peer);
            if let Some(&key) = self.conns.keys.get(&conn) {
                self.receive(clock, key);
            }
        }
    }
}
