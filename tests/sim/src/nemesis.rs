//! What goes wrong, and when: each kind of trouble comes at its own pace, in storms with calm between them.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::kv::{Notice, Revision};

use crate::event::{Doom, End, Event, Undo};
use crate::network::Place;
use crate::random::Random;
use crate::swarm::Swarm;
use crate::trouble::{Group, Trouble};
use crate::world::{Phase, World};

/// How long a storm lasts, seconds.
const STORM: (u64, u64) = (20, 120);
/// How long a calm lasts, seconds.
const CALM: (u64, u64) = (5, 60);
/// No fault of the network or a disk lasts longer.
const LONGEST: Duration = Duration::from_secs(60);

/// An image is emptied so long after an OSD went down for maintenance, and rests until so long after its end.
const EMPTIED: Duration = Duration::from_secs(2);

/// One process in so many that are killed stays away for long.
const LONG_AWAY: u64 = 5;

/// The one who makes trouble.
#[derive(Debug)]
pub struct Nemesis {
    randoms: Vec<Random>,
    seasons: Random,
    calm: bool,
    busy_until: Now,
}

impl Nemesis {
    /// The nemesis of this run.
    #[must_use]
    pub fn new(swarm: &Swarm, root: &Random) -> Nemesis {
        let randoms = swarm.troubles.iter().map(|(trouble, _)| root.fork(trouble.name()));
        Nemesis {
            randoms: randoms.collect(),
            seasons: root.fork("seasons"),
            calm: false,
            busy_until: Now(0),
        }
    }

    /// Something is wrong until then.
    pub fn busy(&mut self, until: Now) {
        self.busy_until = self.busy_until.max(until);
    }

    /// Until when something was or is wrong.
    #[must_use]
    pub fn busy_until(&self) -> Now {
        self.busy_until
    }

    /// Whether it makes no trouble now.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.calm
    }

    /// Whether nothing is wrong now, as far as it knows.
    #[must_use]
    pub fn is_idle(&self, now: Now) -> bool {
        self.busy_until <= now
    }
}

/// Mostly short, sometimes long.
fn span(random: &mut Random, least: Duration, most: Duration) -> Duration {
    random.exponential(most / 6).clamp(least, most)
}

/// How long a killed process is away: mostly short, now and then so long that others take its place and tombstones are
/// forgotten.
fn absence(random: &mut Random) -> Duration {
    if random.one_in(LONG_AWAY) {
        return random.duration(LONGEST..=3 * LONGEST);
    }
    span(random, millis(50), Duration::from_secs(30))
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

impl World {
    /// The next time that this kind of trouble comes.
    pub(crate) fn plan_strike(&mut self, index: usize) {
        let (_, mean) = self.swarm.troubles[index];
        let after = self.nemesis.randoms[index].exponential(mean);
        self.schedule.at(self.now + after, Event::Strike(index));
    }

    /// Storm and calm take turns.
    pub(crate) fn season(&mut self) {
        let nemesis = &mut self.nemesis;
        nemesis.calm = !nemesis.calm;
        let (least, most) = if nemesis.calm { CALM } else { STORM };
        let length = nemesis
            .seasons
            .duration(Duration::from_secs(least)..=Duration::from_secs(most));
        self.schedule.at(self.now + length, Event::Season);
    }

    /// A kind of trouble is due.
    pub(crate) fn strike(&mut self, index: usize) {
        if self.phase != Phase::Safety {
            return;
        }
        self.plan_strike(index);
        let (trouble, _) = self.swarm.troubles[index];
        if trouble.group() == Group::Damage {
            if !self.swarm.hostile {
                return self.atlas.want(trouble);
            }
            // What is lost for good ends most operations: first enough of them are checked.
            if self.history.answered() < self.swarm.least {
                return;
            }
        }
        if self.nemesis.calm || self.atlas.wants_calm(self.swarm.min_size) {
            return;
        }
        let mut random = self.nemesis.randoms[index].clone();
        if let Some(lasts) = self.make(trouble, &mut random) {
            self.nemesis.busy(self.now + lasts);
            self.trace
                .line(self.now, format_args!("TROUBLE {} for {lasts:?}", trouble.name()));
            if trouble.group() != Group::Damage {
                self.counts.add(trouble);
            }
        }
        self.nemesis.randoms[index] = random;
    }

    /// Makes trouble; says for how long, or that there was nobody to trouble.
    fn make(&mut self, trouble: Trouble, random: &mut Random) -> Option<Duration> {
        match trouble.group() {
            Group::Network => Some(self.trouble_network(trouble, random)),
            Group::Metadata => self.trouble_metadata(trouble, random),
            Group::Speed => Some(self.trouble_disk(trouble, random)),
            Group::Process => self.trouble_process(trouble, random),
            Group::Gateway => self.trouble_gateway(trouble, random),
            Group::Damage => {
                let place = random.index(self.osds.len());
                let allowed = matches!(
                    trouble,
                    Trouble::Rot | Trouble::BadBlock | Trouble::ReadError | Trouble::ReadFlip
                );
                (allowed && self.hurt(place, trouble)).then_some(Duration::ZERO)
            }
        }
    }

    /// Two different places of nodes.
    fn pair(&self, random: &mut Random) -> (Place, Place) {
        let nodes = self.osds.len() + self.clients.len() + self.gateways.len();
        let from = random.index(nodes);
        let to = (from + 1 + random.index(nodes - 1)) % nodes;
        (from, to)
    }

    fn trouble_network(&mut self, trouble: Trouble, random: &mut Random) -> Duration {
        let (from, to) = self.pair(random);
        let lasts = span(random, millis(50), LONGEST);
        match trouble {
            Trouble::Loss => {
                self.network.set_loss(from, to, random.range(10..=300));
                self.undo_in(lasts, Undo::Loss(from, to));
            }
            Trouble::Break => {
                self.network.break_link(from, to);
                if from < self.osds.len() {
                    let (life, osd) = (self.processes[to].life, self.osds[from].number);
                    self.schedule.at(self.now, Event::Lost(to, life, osd));
                }
                return Duration::ZERO;
            }
            Trouble::Delay => {
                let delay = span(random, millis(10), Duration::from_secs(5));
                self.network.set_delay(from, to, delay);
                self.undo_in(lasts, Undo::Delay(from, to));
                return lasts + delay;
            }
            Trouble::Resend => {
                for (sender, receiver, message) in self.network.resend(from, to) {
                    self.send(from, sender, receiver, message);
                }
                return Duration::ZERO;
            }
            Trouble::HalfOpen => self.block(vec![(from, to)], lasts),
            Trouble::Exile => return self.exile(random),
            other => {
                let cut = self.partition(other, random);
                self.block(cut, lasts);
            }
        }
        lasts
    }

    /// The directions between these places and all others.
    pub(crate) fn around(&self, inside: &[Place]) -> Vec<(Place, Place)> {
        let places = self.meta() + 1;
        let pairs = (0..places).flat_map(|from| (0..places).map(move |to| (from, to)));
        pairs
            .filter(|(from, to)| inside.contains(from) != inside.contains(to))
            .collect()
    }

    /// The directions that a partition cuts.
    fn partition(&self, trouble: Trouble, random: &mut Random) -> Vec<(Place, Place)> {
        let places = self.meta() + 1;
        let one = random.index(self.meta());
        let deaf = random.one_in(2);
        let mut order: Vec<Place> = (0..places).collect();
        random.shuffle(&mut order);
        let cut = random.range(1..=places as u64 - 1);
        let first: Vec<Place> = order.iter().copied().take(usize::try_from(cut).unwrap_or(1)).collect();
        let pairs = (0..places).flat_map(|from| (0..places).map(move |to| (from, to)));
        let cuts = |&(from, to): &(Place, Place)| match trouble {
            Trouble::OneWay => from != to && (if deaf { to } else { from }) == one,
            Trouble::Isolate => from != to && (from == one || to == one),
            Trouble::Bridge if from == one || to == one => false,
            _ => first.contains(&from) != first.contains(&to),
        };
        pairs.filter(cuts).collect()
    }

    pub(crate) fn block(&mut self, cut: Vec<(Place, Place)>, lasts: Duration) {
        for &(from, to) in &cut {
            self.network.block(from, to);
        }
        self.undo_in(lasts, Undo::Blocks(cut));
    }

    pub(crate) fn undo_in(&mut self, lasts: Duration, undo: Undo) {
        self.schedule.at(self.now + lasts, Event::Undo(undo));
    }

    /// A trouble ends.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Blocks(cut) => cut.into_iter().for_each(|(from, to)| self.network.unblock(from, to)),
            Undo::Loss(from, to) => self.network.set_loss(from, to, 0),
            Undo::Delay(from, to) => self.network.set_delay(from, to, Duration::ZERO),
            Undo::Slow(place) => self.osds[place].disk.slow = 1,
            Undo::Leader => {
                self.kv.extend_all(self.now);
                self.committed();
            }
            Undo::Unknown => self.metadata.unknown = 0,
            Undo::Out(osd) => self.take_out(osd, false),
            Undo::NoRecovery => self.heal_nothing(false),
            Undo::Connected(place, lasts) => self.cut_from_metadata(place, lasts),
            Undo::Empty(ahead) if self.metadata.is_empty => self.put_back(ahead),
            Undo::Empty(_) => {}
            Undo::Queue(place, lasts) => self.pause_machine(place, lasts),
        }
    }

    fn trouble_metadata(&mut self, trouble: Trouble, random: &mut Random) -> Option<Duration> {
        let place = random.index(self.meta());
        let meta = self.meta();
        let lasts = match trouble {
            Trouble::MetaCut => {
                let left = self.gateway_at(place).filter(|_| self.swarm.has(Trouble::GiveUp));
                if let Some(gateway) = left.filter(|_| random.one_in(2)) {
                    return Some(self.forsake_cut_off(gateway, random));
                }
                let lasts = span(random, millis(100), LONGEST);
                let both = [(place, meta), (meta, place)];
                let cut = *random.pick(&[&both[..], &both[..1], &both[1..]])?;
                self.block(cut.to_vec(), lasts);
                lasts
            }
            Trouble::Leader | Trouble::Away => {
                let (least, most) = if trouble == Trouble::Leader {
                    (100, 5000)
                } else {
                    (1000, 60_000)
                };
                let lasts = span(random, millis(least), millis(most));
                self.metadata.away_until = self.metadata.away_until.max(self.now + lasts);
                self.undo_in(lasts, Undo::Leader);
                lasts
            }
            Trouble::Unknown => {
                let lasts = span(random, millis(500), Duration::from_secs(20));
                self.metadata.unknown = random.range(50..=700);
                self.undo_in(lasts, Undo::Unknown);
                lasts + Duration::from_secs(5)
            }
            Trouble::Out => {
                let (osd, members) = (self.osds[random.index(self.osds.len())].number, &self.truth.members);
                let inside = members.values().filter(|config| !config.value.out).count();
                if inside <= self.swarm.replicas {
                    return None;
                }
                let lasts = span(random, Duration::from_secs(5), Duration::from_secs(180));
                self.take_out(osd, true);
                self.undo_in(lasts, Undo::Out(osd));
                lasts
            }
            Trouble::Pgs => return self.want_pgs(random),
            Trouble::Foreign => {
                self.kv.commit_foreign(random.range(1..=100));
                Duration::ZERO
            }
            Trouble::Restored => return self.restore_metadata(random),
            Trouble::NoRecovery => {
                let lasts = span(random, Duration::from_secs(5), Duration::from_secs(200));
                self.heal_nothing(true);
                self.undo_in(lasts, Undo::NoRecovery);
                lasts
            }
            Trouble::LeaseLate => {
                let lasts = span(random, millis(1000), LONGEST);
                self.metadata.late_until = self.now + lasts;
                lasts
            }
            Trouble::WatchLate => {
                let lasts = span(random, millis(100), Duration::from_secs(30));
                self.processes[place].watch_late = self.now + lasts;
                lasts
            }
            other => return self.trouble_watch(other, place, random),
        };
        Some(lasts)
    }

    /// Troubles of one watch or lease, over at once.
    fn trouble_watch(&mut self, trouble: Trouble, place: Place, random: &mut Random) -> Option<Duration> {
        let process = &self.processes[place];
        let knows = process.era == self.metadata.era;
        if !process.alive || process.paused || !knows || self.metadata.is_away(self.now) {
            return None;
        }
        match trouble {
            Trouble::LeaseEarly => self.end_lease(place),
            Trouble::WatchRepeat => {
                let heard = process.watch?;
                let oldest = self.kv.oldest().min(heard);
                let from: Revision = random.range(oldest..=heard);
                let notice = self.kv.changes_since(from)?;
                self.notify_quietly(place, &notice);
            }
            Trouble::Compact => {
                self.kv.compact(self.kv.revision());
                let notice = self.kv.snapshot();
                self.notify_quietly(place, &notice);
            }
            Trouble::StaleRead => {
                let notice = self.kv.stale_snapshot(random);
                self.notify_quietly(place, &notice);
            }
            _ => return None,
        }
        Some(Duration::ZERO)
    }

    /// As [`World::notify`], for what nobody was about to hear.
    fn notify_quietly(&mut self, place: Place, notice: &Notice) {
        if !self.processes[place].watching {
            self.notify(place, notice);
        }
    }

    fn trouble_disk(&mut self, trouble: Trouble, random: &mut Random) -> Duration {
        let place = random.index(self.osds.len());
        let lasts = span(random, millis(100), LONGEST);
        let disk = &mut self.osds[place].disk;
        if trouble == Trouble::Slow {
            disk.slow = 100;
            self.undo_in(lasts, Undo::Slow(place));
        } else {
            disk.frozen_until = self.now + lasts;
        }
        lasts
    }

    fn trouble_process(&mut self, trouble: Trouble, random: &mut Random) -> Option<Duration> {
        let down = absence(random);
        let osd = random.index(self.osds.len());
        let client = self.osds.len() + random.index(self.clients.len());
        let monitor = self.gateway_place(self.gateways.len()) + random.index(self.monitors.len());
        match trouble {
            Trouble::Kill => self.end_by(osd, Doom::One(End::Killed, down), random),
            Trouble::KillClient => self.kill(client, down.min(LONGEST) / 6),
            Trouble::KillMonitor => self.kill(monitor, down),
            Trouble::PowerCut => self.end_by(osd, Doom::One(End::Power, down), random),
            Trouble::Blackout => {
                let clients = random.one_in(2);
                self.end_by(osd, Doom::All(clients), random);
            }
            Trouble::Storm => return Some(self.storm(random)),
            Trouble::Maintenance => return Some(self.maintain(osd, random)),
            Trouble::Pause => return self.pause(osd, random),
            Trouble::PauseClient => return self.pause(client, random),
            Trouble::PauseMonitor => return self.pause(monitor, random),
            Trouble::Handover => return self.hand_over(random),
            Trouble::Fence => return self.fence(client - self.osds.len()),
            _ => return None,
        }
        Some(down)
    }

    /// Ends an OSD, or all: now, or in the middle of its work.
    fn end_by(&mut self, place: Place, doom: Doom, random: &mut Random) {
        if random.one_in(4) {
            let life = self.processes[place].life;
            self.strike_down(place, life, doom);
        } else {
            self.osds[place].doom = Some((random.range(0..=30), doom));
        }
    }

    /// The power of everything fails.
    pub(crate) fn blackout(&mut self, clients: bool) {
        for place in 0..self.meta() {
            if self.client_at(place).is_none() || clients {
                let down = span(&mut self.random, millis(500), Duration::from_secs(20));
                self.kill_by(place, End::Power, down);
            }
        }
    }

    /// An administrator works on a machine: what is deleted meanwhile has to stay deleted when its OSD comes back.
    fn maintain(&mut self, osd: Place, random: &mut Random) -> Duration {
        let away = random.duration(LONGEST..=4 * LONGEST);
        self.heal_nothing(true);
        self.kill(osd, away);
        let lasts = away + random.duration(Duration::ZERO..=LONGEST / 2);
        self.schedule
            .at(self.now + EMPTIED, Event::Empty(self.now + lasts + EMPTIED));
        self.undo_in(lasts, Undo::NoRecovery);
        lasts
    }

    fn storm(&mut self, random: &mut Random) -> Duration {
        let mut end = Duration::ZERO;
        let one = random.one_in(2).then(|| random.index(self.osds.len()));
        for _ in 0..random.range(3..=12) {
            let place = one.unwrap_or_else(|| random.index(self.osds.len()));
            end += random.exponential(millis(700));
            let down = random.exponential(millis(300));
            self.schedule.at(self.now + end, Event::Kill(place, down));
        }
        end + Duration::from_secs(3)
    }

    pub(crate) fn pause(&mut self, place: Place, random: &mut Random) -> Option<Duration> {
        let lasts = span(random, millis(10), LONGEST);
        self.pause_for(place, lasts).then_some(lasts)
    }

    /// A process does not run for so long, if it does now.
    pub(crate) fn pause_for(&mut self, place: Place, lasts: Duration) -> bool {
        let process = &mut self.processes[place];
        let runs = process.alive && !process.paused;
        if runs {
            (process.paused, process.paused_at) = (true, self.now);
            self.schedule.at(self.now + lasts, Event::Resume(place, process.life));
        }
        runs
    }
}
