//! The data path of a process: one thread, one reactor, the gateway and the OSDs. Events go into the machines, effects
//! come out, messages between the nodes go through one queue and, to other processes, over links; nothing here decides
//! anything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc::UnboundedSender;
use trivet_api::AdminCall;
use trivet_control::{AdminHandle, Counters, Request};
use trivet_core::kv::Notice;
use trivet_core::message::Message;
use trivet_core::{ClientId, NodeId, Now, OsdId};
use trivet_gateway::gateway::Clock;
use trivet_gateway::metrics::Protocol;
use trivet_reactor::{Config, ConnId, Event, Reactor, Waker};

use super::channel::{Role, ToControl, ToData};
use super::cluster::{ClusterId, random, wall};
use super::gateway_runner::GatewayRunner;
use super::links::Links;
use super::osds::{Disk, Osds};
use super::output::Output;
use super::ready;

/// The machines hear of the time this often.
const TICK: Duration = Duration::from_millis(100);
/// Messages between nodes that are delivered in one turn: then clients, the administrator and disks are looked at again,
/// however long a chain of questions that are answered at once may be.
const MESSAGES: usize = 2048;
/// OSDs show how they are this often.
const STATS: Duration = Duration::from_secs(5);
/// When the process is to end, the OSDs get this time and many turns of the loop: a store that had nothing to do
/// for a while proves that its last writes were durable, so that damage to them is not taken for a torn write later.
const WIND_DOWN: Duration = Duration::from_millis(200);
/// The time of one such turn.
const WIND_DOWN_TURN: Duration = Duration::from_millis(4);

/// What a process runs.
pub struct Setup {
    /// The cluster.
    pub cluster: ClusterId,
    /// The gateway, if it has one.
    pub gateway: Option<GatewaySetup>,
    /// Its OSDs.
    pub disks: Vec<Disk>,
    /// Whether there may be nodes in other processes.
    pub distributed: bool,
}

/// The gateway of a process.
pub struct GatewaySetup {
    /// What it speaks where, and the option that says so.
    pub doors: Vec<(Protocol, &'static str, SocketAddr)>,
    /// It makes an image to begin with.
    pub demo: bool,
    /// It serves after this time even if some PGs cannot be served.
    pub patience: Duration,
    /// What is said before `ready`.
    pub banner: String,
    /// What clients' data may take of memory, bytes.
    pub memory: usize,
}

/// The data path's ends of the channels to the control plane.
pub struct Ends {
    /// From the control plane.
    pub inbox: Receiver<ToData>,
    /// To the control plane.
    pub control: UnboundedSender<ToControl>,
    /// Told once, when sockets listen and disks are formatted.
    pub started: Sender<Handles>,
}

/// What the others need of the thread.
pub struct Handles {
    /// Wakes the loop.
    pub waker: Waker,
    /// If there is a gateway.
    pub gateway: Option<GatewayHandles>,
}

/// What the control plane needs of a gateway.
pub struct GatewayHandles {
    /// Calls it.
    pub admin: AdminHandle,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Its name in the cluster.
    pub id: ClientId,
}

/// Others take this gateway for dead, and nothing of it is executed any more. Another start has another id.
#[derive(Debug)]
pub struct Fenced;

impl std::fmt::Display for Fenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this gateway was taken for dead by another one: it begins anew")
    }
}

impl std::error::Error for Fenced {}

struct Data {
    reactor: Reactor,
    gateway: Option<GatewayRunner>,
    osds: Osds,
    links: Links,
    /// Messages between nodes.
    queue: VecDeque<(NodeId, NodeId, Message)>,
    inbox: Receiver<ToData>,
    control: UnboundedSender<ToControl>,
    /// Without a gateway: whether `ready` was said.
    said_ready: bool,
    last_tick: Now,
    last_stats: Now,
}

/// The parts that the machines' effects go to, apart from the machines.
macro_rules! output {
    ($data:expr) => {
        &mut Output {
            queue: &mut $data.queue,
            reactor: &mut $data.reactor,
            links: &mut $data.links,
            control: &$data.control,
        }
    };
}

/// The thread.
pub fn run(setup: Setup, ends: Ends) -> anyhow::Result<()> {
    let mut reactor = Reactor::new(&Config::default()).context("cannot set up the event loop")?;
    let clock = clock();
    let gateway = setup
        .gateway
        .map(|gateway| GatewayRunner::new(&mut reactor, gateway, &setup.cluster, clock))
        .transpose()?;
    let (gateway, gateway_handles) = gateway.unzip();
    let mut links = Links::new(setup.cluster.id);
    let osds = Osds::prepare(&mut reactor, &mut links, &setup.cluster, setup.disks)?;
    if let Some(gateway) = gateway.as_ref().filter(|_: &&GatewayRunner| setup.distributed) {
        let boot = u64::from_le_bytes(random()?);
        links.start(&mut reactor, clock.now, NodeId::Client(gateway.id()), boot);
    }
    let handles = Handles {
        waker: reactor.waker(),
        gateway: gateway_handles,
    };
    if ends.started.send(handles).is_err() {
        return Ok(());
    }
    let mut data = Data {
        reactor,
        gateway,
        osds,
        links,
        queue: VecDeque::new(),
        inbox: ends.inbox,
        control: ends.control,
        said_ready: false,
        last_tick: clock.now,
        last_stats: clock.now,
    };
    data.osds.lease_all(&data.control);
    data.serve()
}

/// Both clocks.
pub fn clock() -> Clock {
    Clock {
        now: Now(Reactor::now()),
        wall: wall(),
    }
}

impl Data {
    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::new();
        loop {
            let more = !self.queue.is_empty()
                || self.links.has_more()
                || self.gateway.as_ref().is_some_and(GatewayRunner::has_more);
            let timeout = if more { Duration::ZERO } else { TICK };
            self.reactor
                .poll(&mut events, Some(timeout))
                .context("the event loop failed")?;
            let clock = clock();
            for event in events.drain(..) {
                self.event(clock, event);
            }
            self.links.receive_again(&mut self.reactor, clock.now, &mut self.queue);
            if let Some(gateway) = &mut self.gateway {
                gateway.attend(clock, output!(self));
                gateway.receive_again(clock, output!(self));
            }
            if self.drain_inbox(clock) {
                return self.wind_down();
            }
            self.tick(clock)?;
            self.exchange(clock);
            if self.gateway.as_ref().is_some_and(GatewayRunner::is_fenced) {
                return Err(Fenced.into());
            }
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
            Event::Accepted { listener, conn, peer } => {
                if self.links.listens(listener) {
                    self.links.accepted(&mut self.reactor, clock.now, listener, conn);
                } else if let Some(gateway) = &mut self.gateway {
                    gateway.accepted(clock, (listener, conn, peer), output!(self));
                }
            }
            Event::Refused { peer, .. } => tracing::warn!("{peer}: turned away, too many connections"),
            Event::Readable { conn, quiet } => self.readable(clock, conn, Now(quiet)),
            Event::Drained { conn } => {
                if let Some(gateway) = &self.gateway {
                    gateway.drained(conn, &mut self.reactor);
                }
            }
            Event::Closed { conn, reason } => {
                self.links.closed(&mut self.reactor, clock.now, conn, &reason);
                if let Some(gateway) = &mut self.gateway {
                    gateway.closed(clock, conn, output!(self));
                }
            }
            Event::Disk { disk, user_id, result } => {
                self.osds.disk_done(clock.now, disk, user_id, result, output!(self));
            }
            Event::Connected { conn } => self.links.connected(&mut self.reactor, clock.now, conn),
            Event::Woken => {}
        }
    }

    fn readable(&mut self, clock: Clock, conn: ConnId, quiet: Now) {
        if self.links.owns(conn) {
            self.links.receive(&mut self.reactor, clock.now, conn, &mut self.queue);
        } else if let Some(gateway) = &mut self.gateway {
            gateway.readable(clock, conn, quiet, output!(self));
        }
    }

    /// Takes what the control plane and administrators say. True to stop.
    fn drain_inbox(&mut self, clock: Clock) -> bool {
        while let Ok(tell) = self.inbox.try_recv() {
            match tell {
                ToData::Notice(notice) => self.notice(clock, &notice),
                ToData::Heard(heard) => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.heard(clock, &heard, output!(self));
                    }
                }
                ToData::Outcome(Role::Gateway, ticket, outcome) => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.txn_ended(clock, ticket, outcome, output!(self));
                    }
                }
                ToData::Outcome(Role::Osd(osd), ticket, outcome) => {
                    self.osds.txn_ended(clock.now, osd, ticket, outcome, output!(self));
                }
                ToData::Leased { osd, lease } => self.osds.leased(clock.now, osd, lease, output!(self)),
                ToData::Revoked(osd) => self.osds.revoked(osd),
                ToData::Stop => return true,
            }
        }
        self.calls(clock);
        false
    }

    fn calls(&mut self, clock: Clock) {
        while let Some(request) = self.gateway.as_mut().and_then(GatewayRunner::next_request) {
            match request {
                Request::Change(AdminCall::OsdStop { osd }, reply) if self.osds.has(OsdId(osd)) => {
                    self.osds.stop(OsdId(osd), reply, output!(self));
                }
                Request::Change(AdminCall::OsdStart { osd }, reply) if self.osds.has(OsdId(osd)) => {
                    self.osds.start(OsdId(osd), reply, &self.control);
                }
                request => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.request(clock, request, output!(self));
                    }
                }
            }
        }
    }

    fn notice(&mut self, clock: Clock, notice: &Notice) {
        self.links.notice(&mut self.reactor, clock.now, notice);
        self.osds.notice(clock.now, notice, output!(self));
        if let Some(gateway) = &mut self.gateway {
            gateway.notice(clock, notice, output!(self));
        }
    }

    fn tick(&mut self, clock: Clock) -> anyhow::Result<()> {
        if clock.now.since(self.last_tick) < TICK {
            return Ok(());
        }
        self.last_tick = clock.now;
        self.links.tick(&mut self.reactor, clock.now);
        self.osds.tick(clock.now, output!(self));
        if clock.now.since(self.last_stats) >= STATS {
            self.last_stats = clock.now;
            self.osds.show_stats(&self.control);
            if let Some(gateway) = &mut self.gateway {
                gateway.give_back_memory(&self.reactor);
            }
        }
        for reason in self.osds.take_failures() {
            // A process without a gateway is there for its OSDs.
            if self.gateway.is_none() {
                bail!("{reason}");
            }
            tracing::error!("{reason}");
        }
        let reports = self.osds.reports();
        match &mut self.gateway {
            Some(gateway) => gateway.tick(clock, reports, output!(self)),
            None => self.tick_alone(),
        }
        Ok(())
    }

    /// A process without a gateway says when its OSDs serve.
    fn tick_alone(&mut self) {
        if !self.said_ready && self.osds.all_shown() {
            self.said_ready = true;
            self.osds.show_stats(&self.control);
            ready::say("");
        }
    }

    /// Delivers messages until there are none, or enough for one turn, and lets the OSDs hand what they gathered to their
    /// disks.
    fn exchange(&mut self, clock: Clock) {
        let mut left = MESSAGES;
        loop {
            while left > 0
                && let Some((from, to, message)) = self.queue.pop_front()
            {
                left -= 1;
                self.deliver(clock, from, to, message);
            }
            self.tell_losses(clock);
            self.osds.flush(output!(self));
            if self.queue.is_empty() || left == 0 {
                break;
            }
        }
        self.links.look_at_queues(&mut self.reactor, clock.now);
    }

    fn deliver(&mut self, clock: Clock, from: NodeId, to: NodeId, message: Message) {
        match (to, from, &mut self.gateway) {
            (NodeId::Osd(osd), ..) if self.osds.has(osd) => {
                self.osds.message(clock.now, osd, from, message, output!(self));
            }
            (NodeId::Client(id), NodeId::Osd(osd), Some(gateway)) if gateway.id() == id => {
                gateway.message(clock, osd, message, output!(self));
            }
            _ => self.links.send(&mut self.reactor, clock.now, (from, to), &message),
        }
    }

    fn tell_losses(&mut self, clock: Clock) {
        for loss in self.links.take_losses() {
            match (loss.node, &mut self.gateway) {
                (NodeId::Osd(osd), _) => self.osds.lost(clock.now, osd, &loss, output!(self)),
                (NodeId::Client(_), Some(gateway)) => gateway.lost(loss.osd),
                (NodeId::Client(_), None) => {}
            }
        }
    }
}
