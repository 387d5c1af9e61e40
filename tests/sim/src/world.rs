//! A run: all that there is of it, and the loop that lets it happen.
//!
//! The rooms next door have what the world does for one kind of node: `osds`, `clients`, `control` (the metadata
//! store and the monitors), and what it does to them: `nemesis`, `atlas`.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::keys::{self, Cluster, OsdConfig, Pool, Settings};
use trivet_core::kv::{Change, Txn};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::message::Message;
use trivet_core::{ImageId, NodeId, Now, PoolId};

use crate::atlas::Atlas;
use crate::clients::ClientSlot;
use crate::control::{Metadata, MonitorSlot};
use crate::copies::Copies;
use crate::event::{Brief, Delivery, Event, Life};
use crate::exile::Ambush;
use crate::forsaken::Forsaken;
use crate::gateway_troubles::Break;
use crate::gateways::GatewaySlot;
use crate::kv::Kv;
use crate::mutants::Mutant;
use crate::nemesis::Nemesis;
use crate::network::{Network, Place};
use crate::node::Process;
use crate::online::Online;
use crate::osds::OsdSlot;
use crate::random::Random;
use crate::register::History;
use crate::relic::Relic;
use crate::schedule::Schedule;
use crate::sized::Sized;
use crate::strand::Truncations;
use crate::streams::Streams;
use crate::swarm::Swarm;
use crate::trace::{Sink, Trace};
use crate::tree::TreeWatch;
use crate::trouble::{Counts, Trouble};
use crate::users::{Traffic, UserSlot};
use crate::workload::{Workload, WorkloadOptions};

/// The only pool.
pub const POOL: PoolId = PoolId(1);
/// A second one, where every second image lives, in some runs.
pub const OTHER: PoolId = PoolId(2);
/// The cluster.
pub const CLUSTER: [u8; 16] = [9; 16];
/// Machines get a tick this often, as in production.
pub const TICK: Duration = Duration::from_millis(100);
/// The world looks after itself this often.
const CHORES: Duration = Duration::from_millis(250);
/// Bytes of all images at most: a run shall not spend its time on reading them.
const MAX_IMAGES: u64 = 8 << 20;
/// More events than this never wait in a correct run.
const MAX_EVENTS: usize = 400_000;

/// What the run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Clients work, faults happen.
    Safety,
    /// No faults any more: everything has to recover.
    Liveness,
    /// Everything is read.
    Scan,
}

/// A run.
pub struct World {
    pub(crate) swarm: Swarm,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) now: Now,
    pub(crate) phase: Phase,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) kv: Kv,
    pub(crate) truth: ClusterMap,
    pub(crate) metadata: Metadata,
    pub(crate) processes: Vec<Process>,
    pub(crate) osds: Vec<OsdSlot>,
    pub(crate) clients: Vec<ClientSlot>,
    pub(crate) gateways: Vec<GatewaySlot>,
    pub(crate) monitors: Vec<MonitorSlot>,
    pub(crate) users: Vec<UserSlot>,
    pub(crate) streams: Streams,
    pub(crate) traffic: Traffic,
    pub(crate) tree: TreeWatch,
    pub(crate) sized: Sized,
    pub(crate) truncations: Truncations,
    /// A call that changes names loses its connection between its execution and its answer.
    pub(crate) breaks_call: Option<Break>,
    /// The next user whose change of names is refused does not hear of it.
    pub(crate) loses_next_refusal: bool,
    /// Who did not, and the gateway that refused.
    pub(crate) refused: Option<(usize, usize)>,
    pub(crate) relic: Relic,
    pub(crate) forsaken: Option<Forsaken>,
    /// Users write one block of the sized file until then.
    pub(crate) insists_until: Now,
    /// When the last acknowledged change of a user began, by image.
    pub(crate) written: BTreeMap<ImageId, Now>,
    pub(crate) history: History,
    pub(crate) workload: Workload,
    pub(crate) online: Online,
    pub(crate) copies: Copies,
    pub(crate) atlas: Atlas,
    pub(crate) nemesis: Nemesis,
    pub(crate) ambush: Ambush,
    pub(crate) counts: Counts,
    pub(crate) random: Random,
    pub(crate) violation: Option<String>,
    /// Since when nothing is wrong.
    pub(crate) quiet_since: Now,
    pub(crate) numbers: u32,
    pub(crate) effects: Vec<trivet_osd::Effect>,
    pub(crate) client_effects: Vec<trivet_client::Effect>,
}

impl World {
    /// The cluster of the swarm, before its first event.
    #[must_use]
    pub fn new(swarm: Swarm, mutant: Option<Mutant>, sink: Option<Sink>) -> World {
        let root = Random::new(swarm.seed);
        let places = swarm.disks.len() + swarm.clients + swarm.gateways + swarm.monitors + 1;
        let mut clocks = root.fork("clocks");
        let drift = swarm.drift;
        let remembers = swarm.has(Trouble::Resend);
        let workload = Workload::new(workload_options(&swarm, &root), root.fork("workload"));
        let mut world = World {
            network: Network::new(places, swarm.latency, remembers, root.fork("network")),
            processes: (1..places).map(|_| Process::new(&mut clocks, drift)).collect(),
            osds: OsdSlot::make(&swarm, &root),
            clients: (0..swarm.clients).map(|_| ClientSlot::new()).collect(),
            gateways: (0..swarm.gateways).map(|_| GatewaySlot::default()).collect(),
            users: UserSlot::make(&swarm, workload.images().len(), &root),
            streams: Streams::new(swarm.latency, root.fork("streams")),
            traffic: Traffic::default(),
            tree: TreeWatch::new(0, 0, ""),
            sized: Sized::new(ImageId(0)),
            truncations: Truncations::default(),
            breaks_call: None,
            loses_next_refusal: false,
            refused: None,
            relic: Relic::default(),
            forsaken: None,
            insists_until: Now(0),
            written: BTreeMap::new(),
            monitors: (0..swarm.monitors).map(|_| MonitorSlot::default()).collect(),
            workload,
            nemesis: Nemesis::new(&swarm, &root),
            ambush: Ambush::new(root.fork("ambush")),
            atlas: Atlas::new(root.fork("atlas")),
            numbers: u32::try_from(swarm.disks.len()).expect("few disks"),
            random: root.fork("world"),
            mutant,
            now: Now(0),
            phase: Phase::Safety,
            schedule: Schedule::default(),
            trace: Trace::to(sink),
            kv: Kv::new(),
            truth: ClusterMap::default(),
            metadata: Metadata::default(),
            history: History::new(),
            online: Online::default(),
            copies: Copies::default(),
            counts: Counts::default(),
            violation: None,
            quiet_since: Now(0),
            effects: Vec::new(),
            client_effects: Vec::new(),
            swarm,
        };
        world.found();
        world
    }

    /// The cluster is written down, and everybody starts.
    fn found(&mut self) {
        let digits = |byte: u8| format!("{byte:02x}").repeat(16);
        let cluster = Cluster {
            id: digits(CLUSTER[0]),
            secret: digits(7),
        };
        let pools = [
            (POOL, "pool", Some(self.swarm.pgs)),
            (OTHER, "other", self.swarm.other_pgs),
        ];
        let pools = pools.into_iter().filter_map(|(id, name, pgs)| {
            let pool = Pool {
                name: name.into(),
                replicas: self.swarm.replicas,
                min_size: self.swarm.min_size,
                pg_count: pgs?,
                ..Pool::default()
            };
            Some(Change::put(keys::pool(id), encode(&pool)))
        });
        let mut changes = vec![
            Change::put(keys::CLUSTER, encode(&cluster)),
            Change::put(
                keys::SETTINGS,
                encode(&Settings {
                    osd_out_s: self.swarm.out_after,
                    ..Settings::default()
                }),
            ),
        ];
        changes.extend(pools);
        changes.extend(self.osds.iter().map(|slot| {
            let config = OsdConfig {
                size: slot.size,
                ..OsdConfig::default()
            };
            Change::put(keys::osd_config(slot.number), encode(&config))
        }));
        let txn = Txn {
            compare: Vec::new(),
            changes,
        };
        self.kv.transact(self.now, &txn);
        self.plant_tree();
        self.committed();
        self.start_users();
        for place in 0..self.meta() {
            let at = self.now + self.random.duration(Duration::ZERO..=Duration::from_millis(200));
            self.schedule.at(at, Event::Start(place, 0));
        }
        for index in 0..self.swarm.troubles.len() {
            self.plan_strike(index);
        }
        self.schedule.at(self.now + Duration::from_secs(20), Event::Season);
        self.schedule.at(self.now + CHORES, Event::Chores);
    }

    /// Where the metadata store is: behind all nodes.
    pub(crate) fn meta(&self) -> Place {
        self.processes.len()
    }

    /// Which client is at this place.
    pub(crate) fn client_at(&self, place: Place) -> Option<usize> {
        let index = place.checked_sub(self.osds.len())?;
        (index < self.clients.len()).then_some(index)
    }

    /// Which monitor is at this place.
    pub(crate) fn monitor_at(&self, place: Place) -> Option<usize> {
        let index = place.checked_sub(self.osds.len() + self.clients.len() + self.gateways.len())?;
        (index < self.monitors.len()).then_some(index)
    }

    /// Where this node is.
    pub(crate) fn place_of(&self, node: NodeId) -> Option<Place> {
        match node {
            NodeId::Osd(osd) => self.osds.iter().position(|slot| slot.number == osd),
            NodeId::Client(id) => {
                let mut clients = self.clients.iter().map(|slot| slot.id);
                let mut gateways = self.gateways.iter().map(|slot| slot.id);
                let index = match clients.position(|client| client == id) {
                    Some(index) => index,
                    None => self.clients.len() + gateways.position(|gateway| gateway == id)?,
                };
                Some(self.osds.len() + index)
            }
        }
    }

    /// What the clock at this place shows.
    pub(crate) fn local(&self, place: Place) -> Now {
        self.processes[place].clock.local(self.now)
    }

    /// What the clock at this place showed at an earlier time, if it did not stand still since.
    pub(crate) fn local_at(&self, place: Place, when: Now) -> Now {
        self.processes[place].clock.local(when)
    }

    /// Something happened that must not. Only the first one counts.
    pub(crate) fn fail(&mut self, what: String) {
        self.trace.line(self.now, format_args!("VIOLATION {what}"));
        let seconds = self.now.0 / 1_000_000_000;
        self.violation.get_or_insert(format!("at {seconds} s: {what}"));
    }

    /// Lets time pass until then, or until `done` says so after the chores, or something is wrong. Whether `done` did.
    pub(crate) fn run_until(&mut self, until: Now, mut done: impl FnMut(&mut World) -> bool) -> bool {
        while self.violation.is_none() && self.schedule.peek().is_some_and(|when| when <= until) {
            let Some((when, event)) = self.schedule.next() else {
                break;
            };
            self.now = when;
            let chores = matches!(event, Event::Chores);
            self.happen(event);
            if chores && done(self) {
                return true;
            }
        }
        self.now = self.now.max(until);
        false
    }

    fn happen(&mut self, event: Event) {
        let Some((place, life)) = event.target() else {
            self.trace.event(self.now, 0, event.kind(), event.digest());
            return self.arrange(event);
        };
        let process = &mut self.processes[place];
        if !process.alive || life.is_some_and(|life| life != process.life) {
            return;
        }
        if process.paused {
            match event {
                Event::Submit(..) if self.swarm.callers_turn => self.ask_stopped(place),
                event => process.backlog.push(event),
            }
            return;
        }
        self.trace.event(self.now, place, event.kind(), event.digest());
        self.befall(place, event);
    }

    /// What happens to a process that runs.
    fn befall(&mut self, place: Place, event: Event) {
        match event {
            Event::Tick(_, life) => {
                self.schedule.at(self.now + TICK, Event::Tick(place, life));
                self.tick(place);
            }
            Event::Renew(_, life) => self.renew(place, life),
            Event::Deliver(delivery) => self.deliver(*delivery),
            Event::Local(_, _, message) => {
                let sender = NodeId::Osd(self.osds[place].number);
                self.osd_step(place, trivet_osd::Event::Message(sender, *message));
            }
            Event::Done(_, _, done) => self.osd_step(place, trivet_osd::Event::Disk(done)),
            Event::Answer(_, life, connection, asked, answer) => self.answered(place, life, connection, asked, answer),
            Event::GiveUp(_, _, ticket) => self.give_up(place, ticket),
            Event::Watch(_, life) => self.watch(place, life),
            Event::Submit(_, life) => self.think(place, life),
            Event::Lost(_, _, osd) => self.hears_of_loss(place, osd),
            Event::Request(_, _, ticket, step) => self.request_found(place, ticket, *step),
            Event::Seen(_, _, ticket) => self.caller_seen(place, ticket),
            Event::Left(_, _, ticket) => self.caller_left(place, ticket),
            Event::Readable(_, _, id) => self.gateway_looks(place, id),
            _ => {}
        }
    }

    /// What does not happen to a process.
    fn arrange(&mut self, event: Event) {
        match event {
            Event::Disk(place, life, id) => self.disk_op(place, life, id),
            Event::Ask(place, life, connection, asked, ask) => self.asked(place, life, connection, asked, ask),
            Event::Start(place, life) => self.start_after(place, life),
            Event::Resume(place, life) => self.resume(place, life),
            Event::Kill(place, down) => self.kill(place, down),
            Event::Doom(place, life, doom) => self.strike_down(place, life, doom),
            Event::Replace(place, life) => self.replace(place, life),
            Event::Strike(index) => self.strike(index),
            Event::Undo(undo) => self.undo(undo),
            Event::Exile(exile) => self.begin_exile(*exile),
            Event::Handover(handover) => self.leave_for_good(handover),
            Event::Empty(until) => self.workload.empty_one(until),
            Event::Season => self.season(),
            Event::Arrive(id, to, segment) => self.arrive(id, to, segment),
            Event::Probe(id) => self.probe(id),
            Event::Card(id) => self.card_hands_on(id),
            Event::User(user, event) => self.user_acts(user, event),
            Event::Chores => self.chores(),
            _ => {}
        }
    }

    fn tick(&mut self, place: Place) {
        if place < self.osds.len() {
            self.osd_step(place, trivet_osd::Event::Tick);
        } else if let Some(index) = self.client_at(place) {
            self.client_tick(index);
        } else if let Some(index) = self.gateway_at(place) {
            self.gateway_tick(index);
        }
    }

    /// A process begins, if nobody else has started it since.
    fn start_after(&mut self, place: Place, life: Life) {
        if self.processes[place].life == life && !self.processes[place].alive {
            self.start(place);
        }
    }

    /// A process begins its life.
    pub(crate) fn start(&mut self, place: Place) {
        self.trace.line(self.now, format_args!("place {place} starts"));
        self.processes[place].begin();
        let life = self.processes[place].life;
        let phase = self.random.duration(Duration::ZERO..=TICK);
        if place < self.osds.len() {
            self.start_osd(place);
        } else if let Some(index) = self.client_at(place) {
            self.start_client(index);
            self.schedule.at(self.now + TICK, Event::Submit(place, life));
        } else if let Some(index) = self.gateway_at(place) {
            self.start_gateway(index);
        }
        if self.monitor_at(place).is_none() {
            self.schedule.at(self.now + phase, Event::Tick(place, life));
        }
        if self.client_at(place).is_none() {
            self.schedule.at(self.now, Event::Renew(place, life));
        }
        self.wake(place);
    }

    /// A message goes on its way.
    pub(crate) fn send(&mut self, from: Place, sender: NodeId, receiver: NodeId, message: Message) {
        let Some(to) = self.place_of(receiver) else { return };
        if self.trace.is_read() {
            let brief = Brief(&message);
            self.trace
                .line(self.now, format_args!("{sender:?} -> {receiver:?} sends {brief}"));
        }
        if self.relic.is_wanted
            && let Some(file) = self.begun_file(from, &message)
        {
            self.leave_relic(to, from, file);
        }
        if let Some((when, connection)) = self.network.send(self.now, from, to) {
            let delivery = Delivery {
                from,
                to,
                connection,
                sender,
                receiver,
                message,
            };
            self.schedule.at(when, Event::Deliver(Box::new(delivery)));
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery {
            from,
            to,
            connection,
            sender,
            receiver,
            message,
        } = delivery;
        if !self.network.arrives(from, to, connection) || self.place_of(receiver) != Some(to) {
            return;
        }
        if self.trace.is_read() {
            let brief = Brief(&message);
            self.trace
                .line(self.now, format_args!("{sender:?} -> {receiver:?} {brief}"));
        }
        self.network.remember((from, to), sender, receiver, &message);
        match (sender, self.client_at(to), self.gateway_at(to)) {
            (_, None, None) => self.osd_step(to, trivet_osd::Event::Message(sender, message)),
            (NodeId::Osd(osd), Some(client), _) => self.client_message(client, osd, message),
            (NodeId::Osd(osd), None, Some(gateway)) => self.gateway_message(gateway, osd, message),
            (NodeId::Client(_), ..) => {}
        }
    }

    fn chores(&mut self) {
        self.schedule.at(self.now + CHORES, Event::Chores);
        self.expire_leases();
        self.lose_patience();
        self.administer();
        self.tend_atlas();
        if self.schedule.len() > MAX_EVENTS {
            self.fail(format!("{} events wait", self.schedule.len()));
        }
        self.watch_queues();
        self.watch_memory();
    }
}

/// What clients do in this run.
fn workload_options(swarm: &Swarm, root: &Random) -> WorkloadOptions {
    let mut random = root.fork("images");
    let smallest = swarm
        .disks
        .iter()
        .min()
        .copied()
        .unwrap_or(0)
        .saturating_sub(swarm.log_size);
    let total = if swarm.tight {
        smallest * 3 / 2
    } else {
        (smallest / 3).min(MAX_IMAGES)
    };
    let count = random.range(1..=3);
    let pool_of = |number: u64| {
        let other = swarm.other_pgs.is_some() && number.is_multiple_of(2);
        if other { OTHER } else { POOL }
    };
    let images = (1..=count).map(|number| (ImageId::new(pool_of(number), number), (total / count) >> 12 << 12));
    let mut options = WorkloadOptions::draw(images.collect(), &mut random);
    options.pace = swarm.think;
    options
}
