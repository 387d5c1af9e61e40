//! What the world does for OSDs: their disks, their processes, and the runner around the machine.

use std::time::Duration;

use trivet_core::disk::{DiskOp, DiskOpKind, IoId};
use trivet_core::keys::{self, OsdConfig};
use trivet_core::kv::{Change, Txn};
use trivet_core::map::encode;
use trivet_core::{NodeId, Now, OsdId};
use trivet_osd::{Effect, Identity, Osd};
use trivet_store::api::Output;
use trivet_store::{Format, Regions, State, Store, format, regions};

use crate::disk::{Disk, DiskFaults};
use crate::event::{Ask, Doom, End, Event, Life};
use crate::mutants;
use crate::network::Place;
use crate::node::Clock;
use crate::random::Random;
use crate::swarm::Swarm;
use crate::world::{CLUSTER, Phase, World};

/// What a node needs to hand a message to itself.
const LOCAL: Duration = Duration::from_micros(2);
/// How long a flush takes at least and at most.
const FLUSH: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(1));
/// Disk operations in flight at most.
const MAX_DISK_OPS: usize = 8192;

/// A place for an OSD: one disk after the other.
pub struct OsdSlot {
    /// Of the OSD that is there now.
    pub number: OsdId,
    /// The process, while it runs.
    pub machine: Option<Osd>,
    /// The process before, as it ended: what it knew to be on the disk is there while the next one still reads. None when
    /// its store failed, which knows nothing any more.
    pub before: Option<Osd>,
    /// Its disk.
    pub disk: Disk,
    /// Where what is on it.
    pub regions: Regions,
    /// Bytes.
    pub size: u64,
    /// What strikes it after so many more disk operations.
    pub doom: Option<(u64, Doom)>,
    /// An operator is on the way with an empty disk.
    pub awaits_operator: bool,
}

fn layout(number: OsdId, size: u64, log_size: u64) -> Format {
    let mut store = [7; 16];
    store[..4].copy_from_slice(&number.0.to_le_bytes());
    Format {
        size,
        osd: number,
        cluster: CLUSTER,
        store,
        log_size: Some(log_size),
    }
}

/// Makes an empty store.
fn format_disk(disk: &mut Disk, layout: &Format) -> Result<(), String> {
    for op in format(layout)? {
        let id = op.id;
        disk.submit(op).map_err(|misuse| misuse.to_string())?;
        disk.complete(id);
    }
    Ok(())
}

impl OsdSlot {
    /// The disks of a run, formatted.
    ///
    /// # Panics
    /// When the swarm draws disks that are too small.
    #[must_use]
    pub fn make(swarm: &Swarm, root: &Random) -> Vec<OsdSlot> {
        let slots = (1..).zip(&swarm.disks).map(|(number, &size)| {
            let mut disk = Disk::new(size, root.fork(&format!("disk {number}")));
            let layout = layout(OsdId(number), size, swarm.log_size);
            format_disk(&mut disk, &layout).expect("disks of runs are large enough");
            OsdSlot {
                number: OsdId(number),
                machine: None,
                before: None,
                disk,
                regions: regions(&layout).expect("disks of runs are large enough"),
                size,
                doom: None,
                awaits_operator: false,
            }
        });
        slots.collect()
    }
}

impl World {
    /// The process opens its store.
    pub(crate) fn start_osd(&mut self, place: Place) {
        let slot = &mut self.osds[place];
        let mut output = Output::default();
        let options = mutants::store_options(self.mutant, (CLUSTER, slot.number));
        let store = Store::open(slot.size, options, &mut output);
        let identity = Identity {
            id: slot.number,
            boot: self.random.draw(),
            size: slot.size,
            address: None,
        };
        let options = mutants::osd_options(self.mutant, self.swarm.limits);
        slot.machine = Some(Osd::new(identity, options, store, output));
        self.osd_step(place, trivet_osd::Event::Tick);
    }

    /// One event for the machine, and what comes of it.
    pub(crate) fn osd_step(&mut self, place: Place, event: trivet_osd::Event) {
        let now = self.local(place);
        let Some(machine) = self.osds[place].machine.as_mut() else {
            return;
        };
        let mut effects = std::mem::take(&mut self.effects);
        machine.step(now, event, &mut effects);
        machine.flush(&mut effects);
        let state = machine.state();
        for effect in effects.drain(..) {
            self.osd_effect(place, effect);
        }
        self.effects = effects;
        if let State::Failed(why) = state {
            self.store_failed(place, &why);
        }
    }

    fn osd_effect(&mut self, place: Place, effect: Effect) {
        let number = self.osds[place].number;
        match effect {
            Effect::Send(NodeId::Osd(to), message) if to == number => {
                let life = self.processes[place].life;
                let event = Event::Local(place, life, Box::new(message));
                self.schedule.at(self.now + LOCAL, event);
            }
            Effect::Send(to, message) => {
                if let Err(what) = self.online.sends(number, &message) {
                    self.fail(what);
                }
                if matches!(to, NodeId::Client(_)) {
                    self.check_answer(place, &message);
                }
                self.send(place, NodeId::Osd(number), to, message);
            }
            Effect::Disk(op) => self.submit_disk(place, op),
            Effect::Txn(ticket, txn) => self.transact(place, ticket, txn),
        }
    }

    fn submit_disk(&mut self, place: Place, op: DiskOp) {
        self.draw_nearer(place);
        let disk = &mut self.osds[place].disk;
        let healthy = match op.kind {
            DiskOpKind::Flush => self.random.duration(FLUSH.0..=FLUSH.1),
            _ => Duration::from_micros(5) + self.random.exponential(self.swarm.disk_mean),
        };
        let when = (self.now + healthy * disk.slow.max(1)).max(disk.frozen_until);
        let id = op.id;
        if let Err(misuse) = disk.submit(op) {
            let number = self.osds[place].number;
            return self.fail(format!("OSD {number}: {misuse}"));
        }
        self.schedule
            .at(when, Event::Disk(place, self.processes[place].life, id));
    }

    /// What an OSD is doomed to comes nearer with each disk operation, and then strikes while it is under way.
    fn draw_nearer(&mut self, place: Place) {
        let doom = &mut self.osds[place].doom;
        match doom {
            Some((0, what)) => {
                let when = self.now + self.random.duration(Duration::ZERO..=FLUSH.1);
                let life = self.processes[place].life;
                self.schedule.at(when, Event::Doom(place, life, *what));
                *doom = None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
    }

    /// An OSD meets its doom.
    pub(crate) fn strike_down(&mut self, place: Place, life: Life, doom: Doom) {
        let calm = self.phase != Phase::Safety || self.atlas.wants_calm(self.swarm.min_size);
        if self.processes[place].life != life || calm {
            return;
        }
        match doom {
            Doom::One(how, down) => self.kill_by(place, how, down),
            Doom::All(clients) => self.blackout(clients),
        }
    }

    /// The disk executes an operation, unless it is frozen.
    pub(crate) fn disk_op(&mut self, place: Place, life: Life, id: IoId) {
        if self.processes[place].life != life {
            return;
        }
        let disk = &mut self.osds[place].disk;
        if disk.frozen_until > self.now {
            let late = self.random.exponential(self.swarm.disk_mean);
            return self.schedule.at(disk.frozen_until + late, Event::Disk(place, life, id));
        }
        let Some(done) = disk.complete(id) else { return };
        if self.processes[place].paused {
            self.processes[place].backlog.push(Event::Done(place, life, done));
        } else {
            self.osd_step(place, trivet_osd::Event::Disk(done));
        }
    }

    /// The runner ends a process whose store is out of service. The operator will put in another disk.
    fn store_failed(&mut self, place: Place, why: &str) {
        let number = self.osds[place].number;
        self.trace
            .line(self.now, format_args!("OSD {number}: store failed: {why}"));
        if !self.swarm.hostile && !self.atlas.is_hurt(place) {
            return self.fail(format!("OSD {number}: the store failed without damage: {why}"));
        }
        if let Some(lease) = self.processes[place].lease {
            self.ask(place, Ask::Revoke(lease));
        }
        self.end_process(place, End::Killed, false);
        self.plan_replacement(place);
    }

    /// The operator comes after a while.
    pub(crate) fn plan_replacement(&mut self, place: Place) {
        let after = self.random.duration(Duration::from_secs(1)..=Duration::from_secs(15));
        self.osds[place].awaits_operator = true;
        let life = self.processes[place].life;
        self.schedule.at(self.now + after, Event::Replace(place, life));
    }

    /// The operator puts in an empty disk: a new OSD.
    pub(crate) fn replace(&mut self, place: Place, life: Life) {
        if self.processes[place].life != life {
            return;
        }
        if self.metadata.is_away(self.now) {
            let later = self.now + Duration::from_secs(1);
            return self.schedule.at(later, Event::Replace(place, life));
        }
        self.numbers += 1;
        let number = OsdId(self.numbers);
        let slot = &mut self.osds[place];
        let old = std::mem::replace(&mut slot.number, number);
        slot.awaits_operator = false;
        slot.before = None;
        slot.disk.wipe();
        (slot.disk.slow, slot.disk.frozen_until, slot.doom) = (1, Now(0), None);
        slot.disk.disarm();
        let size = slot.size;
        let formatted = format_disk(&mut slot.disk, &layout(number, size, self.swarm.log_size));
        if let Err(what) = formatted {
            return self.fail(format!("formatting again: {what}"));
        }
        let txn = Txn {
            compare: Vec::new(),
            changes: vec![
                Change::Delete(keys::osd_config(old)),
                Change::put(
                    keys::osd_config(number),
                    encode(&OsdConfig {
                        size,
                        ..OsdConfig::default()
                    }),
                ),
            ],
        };
        self.trace
            .line(self.now, format_args!("OSD {old} is replaced by {number}"));
        self.kv.transact(self.now, &txn);
        self.committed();
        self.start(place);
    }

    /// A process is gone, and what it had under way; what it had sent, too, if so.
    pub(crate) fn end_process(&mut self, place: Place, how: End, also_sent: bool) {
        self.trace.line(self.now, format_args!("place {place} ends: {how:?}"));
        self.processes[place].end();
        self.network.break_place(place, also_sent);
        if place < self.osds.len() {
            if how == End::Killed {
                self.tell_of_loss(place);
            }
            let slot = &mut self.osds[place];
            let ended = slot.machine.take();
            match ended.as_ref().map(Osd::state) {
                Some(State::Ready) => slot.before = ended,
                Some(State::Failed(_)) => slot.before = None,
                Some(State::Opening) | None => {}
            }
            match how {
                End::Killed => slot.disk.kill(),
                End::Power => slot.disk.power_cut(),
            }
        } else if let Some(index) = self.client_at(place) {
            self.client_died(index);
        } else if let Some(index) = self.gateway_at(place) {
            self.gateway_died(index, how);
        } else if let Some(index) = self.monitor_at(place) {
            self.monitors[index].end();
        }
        if how == End::Power {
            self.processes[place].clock = Clock::draw(&mut self.random, self.swarm.drift);
        }
    }

    /// Everybody who can be reached hears that the connections of an OSD broke: its kernel closes them.
    pub(crate) fn tell_of_loss(&mut self, place: Place) {
        let osd = self.osds[place].number;
        let others = self.osds.len() + self.clients.len() + self.gateways.len();
        for other in (0..others).filter(|&other| other != place) {
            if let Some((when, _)) = self.network.send(self.now, place, other) {
                let life = self.processes[other].life;
                self.schedule.at(when, Event::Lost(other, life, osd));
            }
        }
    }

    /// A process hears of it, and finds out whether somebody listens there again.
    pub(crate) fn hears_of_loss(&mut self, place: Place, osd: OsdId) {
        let there = self.osds.iter().position(|slot| slot.number == osd);
        let gone = there.is_none_or(|there| !self.processes[there].alive);
        match (self.client_at(place), self.gateway_at(place)) {
            (Some(index), _) => self.client_lost(index, osd),
            (None, Some(index)) => self.gateway_lost(index, osd),
            (None, None) => self.osd_step(place, trivet_osd::Event::Lost { osd, gone }),
        }
    }

    /// A process is killed and starts again after a while. One that is down already stays so.
    pub(crate) fn kill(&mut self, place: Place, down: Duration) {
        self.kill_by(place, End::Killed, down);
    }

    /// As [`World::kill`], in this way.
    pub(crate) fn kill_by(&mut self, place: Place, how: End, down: Duration) {
        if !self.processes[place].alive {
            return;
        }
        let also_sent = how == End::Power || self.random.one_in(2);
        self.end_process(place, how, also_sent);
        let life = self.processes[place].life;
        self.schedule.at(self.now + down, Event::Start(place, life));
        self.nemesis.busy(self.now + down);
    }

    /// A stopped process goes on: everything that waited happens at once.
    pub(crate) fn resume(&mut self, place: Place, life: Life) {
        let process = &mut self.processes[place];
        if process.life != life || !process.paused {
            return;
        }
        process.paused = false;
        let stood = process.stands_since.take();
        if let Some(since) = stood {
            process.stood_still(since, self.now);
        }
        let backlog = std::mem::take(&mut process.backlog);
        self.trace.line(self.now, format_args!("place {place} goes on"));
        for event in backlog {
            self.schedule.at(self.now, event);
        }
        if let Some(gateway) = self.gateway_at(place).filter(|_| stood.is_some()) {
            self.cards_hand_on(gateway);
        }
    }

    /// No queue grows without bounds.
    pub(crate) fn watch_queues(&mut self) {
        let long = |slot: &OsdSlot| slot.disk.in_flight().count() > MAX_DISK_OPS;
        if let Some(slot) = self.osds.iter().find(|slot| long(slot)) {
            self.fail(format!(
                "OSD {}: {} disk operations",
                slot.number,
                slot.disk.in_flight().count()
            ));
        }
        self.watch_clients();
    }

    /// What happened to all disks.
    pub(crate) fn disk_faults(&self) -> DiskFaults {
        let mut faults = DiskFaults::default();
        self.osds.iter().for_each(|slot| faults.merge(slot.disk.faults()));
        faults
    }
}
