//! The atlas of damage: where copies are hurt for good, so that never more of them are than redundancy covers.
//!
//! The rule is the simplest that is sound. One disk is hurt at a time, and only while the cluster is clean. Nothing else
//! goes wrong meanwhile if what is stored is hurt, for then the only copy of a write that nobody has acknowledged might
//! be the hurt one, nor if members may act alone. The next one may be hurt when the damaged OSD was started again (what
//! is rotten in its log and checkpoints shows then, or is overwritten before it matters), the cluster was clean again,
//! and a scrub has compared everything since.

use std::ops::Range;
use std::time::Duration;

use trivet_core::kv::{Change, Txn};
use trivet_core::map::encode;
use trivet_core::{Now, OsdId, PgId, keys};
use trivet_store::Regions;

use crate::disk::Fault;
use crate::event::{End, Event};
use crate::network::Place;
use crate::random::Random;
use crate::trouble::{Group, Trouble};
use crate::world::{Phase, World};

/// A fault that has not struck by then is taken back.
const STRIKE: Duration = Duration::from_secs(15);
/// Nothing else may be wrong for so long before a disk is hurt.
const SETTLED: Duration = Duration::from_secs(2);
/// Damages that wait for their turn.
const WAITING: usize = 3;
/// A scrub that is not done by then is asked for again.
const SCRUB_AGAIN: Duration = Duration::from_secs(60);

/// How far a damage is on its way to being no danger any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A fault waits for an operation.
    Armed,
    /// The damage is there; the OSD is started again then.
    Hurt(Now),
    /// The cluster has to become clean.
    Healing,
    /// A scrub has to compare everything.
    Scrubbing(u64, Now),
}

/// The one that is hurt.
#[derive(Debug)]
struct Hurt {
    place: Place,
    number: OsdId,
    trouble: Trouble,
    since: Now,
    stage: Stage,
}

/// Where the damage is.
#[derive(Debug)]
pub struct Atlas {
    random: Random,
    hurt: Option<Hurt>,
    waiting: Vec<Trouble>,
    scrubs: u64,
    /// When the last damage was healed.
    healed: Now,
}

impl Atlas {
    /// An atlas without damage.
    #[must_use]
    pub fn new(random: Random) -> Atlas {
        Atlas {
            random,
            hurt: None,
            waiting: Vec::new(),
            scrubs: 0,
            healed: Now(0),
        }
    }

    /// Whether this disk is the one that is hurt.
    #[must_use]
    pub fn is_hurt(&self, place: Place) -> bool {
        self.hurt.as_ref().is_some_and(|hurt| hurt.place == place)
    }

    /// Whether any disk is hurt.
    #[must_use]
    pub fn any(&self) -> bool {
        self.hurt.is_some()
    }

    /// Whether damage is around that nothing else may come on top of.
    #[must_use]
    pub fn wants_calm(&self, min_size: usize) -> bool {
        self.hurt
            .as_ref()
            .is_some_and(|hurt| wants_calm(hurt.trouble, min_size))
    }

    /// Whether any disk was hurt at some time since then.
    #[must_use]
    pub fn was_hurt(&self, since: Now) -> bool {
        self.hurt.is_some() || self.healed > since
    }

    /// A damage is wanted; it waits until it is allowed.
    pub fn want(&mut self, trouble: Trouble) {
        if self.waiting.len() < WAITING {
            self.waiting.push(trouble);
        }
    }

    /// No damage is made any more.
    pub fn close(&mut self) {
        self.waiting.clear();
        if let Some(hurt) = &mut self.hurt
            && hurt.stage == Stage::Armed
        {
            hurt.stage = Stage::Hurt(Now(0));
        }
    }

    /// In a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{:?}", self.hurt)
    }
}

/// Whether this damage has to be the only trouble.
fn wants_calm(trouble: Trouble, min_size: usize) -> bool {
    let gone = matches!(trouble, Trouble::WriteError | Trouble::FlushError | Trouble::Replace);
    let passing = matches!(trouble, Trouble::ReadError | Trouble::ReadFlip);
    min_size == 1 || !(gone || passing)
}

/// Where a fault is aimed: mostly at data, sometimes at what the store keeps for itself.
fn aim(random: &mut Random, regions: &Regions) -> Range<u64> {
    match random.weighted(&[60, 20, 16, 4]) {
        0 => regions.data.clone(),
        1 => regions.log.clone(),
        2 => regions.checkpoint.clone(),
        _ => regions.superblocks[0].start..regions.superblocks[1].end,
    }
}

impl World {
    /// Whether every PG is active on its whole up set and lacks nothing, as the metadata store has it.
    pub(crate) fn is_clean(&self) -> bool {
        let truth = &self.truth;
        let clean = |pg: PgId| {
            let (Some(plan), Some(claim)) = (truth.plan_of(pg), truth.claims.get(&pg)) else {
                return false;
            };
            let history = truth.histories.get(&pg).map_or(usize::MAX, |h| h.value.intervals.len());
            let mut acting = claim.value.acting.clone();
            let mut up = plan.osds.clone();
            acting.sort_unstable();
            up.sort_unstable();
            let claim = &claim.value;
            let holds = claim.active && claim.missing == 0 && !self.online.came_back(pg, claim.epoch);
            holds && acting == up && Some(claim.primary) == plan.primary && history == 1
        };
        let here = |number: OsdId| truth.is_up(number) && truth.members.contains_key(&number);
        self.osds.iter().all(|slot| here(slot.number))
            && truth.osds.len() == self.osds.len()
            && truth.pgs().all(clean)
            && truth.plans.values().all(|plan| {
                let full = |pg: &keys::PgPlan| pg.osds.len() == self.swarm.replicas;
                plan.value.pgs.iter().all(full)
            })
    }

    /// Whether nothing is wrong now.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.atlas.any() && self.nemesis.is_idle(self.now) && self.processes.iter().all(|p| p.alive && !p.paused)
    }

    /// A quarter of a second has passed.
    pub(crate) fn tend_atlas(&mut self) {
        if self.swarm.hostile {
            return;
        }
        if self.atlas.hurt.is_some() {
            return self.tend_hurt();
        }
        let idle = self.nemesis.is_idle(self.now) && self.now.since(self.nemesis.busy_until()) >= SETTLED;
        let alive = || self.processes.iter().all(|process| process.alive && !process.paused);
        let Some(&trouble) = self.atlas.waiting.first() else {
            return;
        };
        let calm = idle || !wants_calm(trouble, self.swarm.min_size);
        if self.phase != Phase::Safety || !calm || !alive() || !self.is_clean() {
            return;
        }
        self.atlas.waiting.remove(0);
        let place = self.atlas.random.index(self.osds.len());
        if self.hurt(place, trouble) {
            let (number, since) = (self.osds[place].number, self.now);
            let stage = Stage::Armed;
            self.atlas.hurt = Some(Hurt {
                place,
                number,
                trouble,
                since,
                stage,
            });
        }
    }

    /// Hurts a disk. False if there was nothing to hurt.
    pub(crate) fn hurt(&mut self, place: Place, trouble: Trouble) -> bool {
        assert!(trouble.group() == Group::Damage, "{trouble:?} is no damage");
        let random = &mut self.atlas.random;
        let slot = &mut self.osds[place];
        let range = if self.swarm.hostile {
            slot.regions.data.clone()
        } else {
            aim(random, &slot.regions)
        };
        let whole = 0..slot.size;
        let done = match trouble {
            Trouble::Rot => {
                (0..random.range(1..=4))
                    .filter(|_| slot.disk.rot(&range).is_some())
                    .count()
                    > 0
            }
            Trouble::BadBlock => slot.disk.break_block(&range).is_some(),
            Trouble::Replace => {
                self.end_process(place, End::Killed, false);
                self.plan_replacement(place);
                true
            }
            other => {
                let fault = match other {
                    Trouble::ReadError => Fault::ReadError,
                    Trouble::ReadFlip => Fault::ReadFlip,
                    Trouble::LostWrite => Fault::LostWrite,
                    Trouble::Misdirected => Fault::MisdirectedWrite { into: range.clone() },
                    Trouble::WriteError => Fault::WriteError,
                    Trouble::FlushError => Fault::FlushError,
                    _ => Fault::LyingFlush,
                };
                slot.disk.arm(fault, whole);
                true
            }
        };
        if done {
            self.counts.add(trouble);
            let number = self.osds[place].number;
            self.trace
                .line(self.now, format_args!("OSD {number} is hurt: {}", trouble.name()));
        }
        done
    }

    fn tend_hurt(&mut self) {
        let Some(hurt) = &self.atlas.hurt else { return };
        let (place, trouble, stage, since) = (hurt.place, hurt.trouble, hurt.stage, hurt.since);
        let replaced = self.osds[place].number != hurt.number;
        let next = match stage {
            _ if replaced && !matches!(stage, Stage::Scrubbing(..) | Stage::Healing) => Stage::Healing,
            Stage::Armed if self.osds[place].disk.armed() == 0 || self.now.since(since) >= STRIKE => {
                self.osds[place].disk.disarm();
                Stage::Hurt(self.restart_at(trouble))
            }
            Stage::Hurt(at) if at <= self.now && self.processes[place].alive => {
                let how = if trouble == Trouble::LyingFlush {
                    End::Power
                } else {
                    End::Killed
                };
                let down = self
                    .atlas
                    .random
                    .duration(Duration::from_millis(50)..=Duration::from_secs(3));
                self.restart_hurt(place, how, down);
                Stage::Healing
            }
            Stage::Healing if self.all_ready() && self.is_clean() => self.ask_for_scrub(),
            Stage::Scrubbing(number, _) if self.all_ready() && self.is_scrubbed(number) => {
                if self.osds[place].disk.broken().next().is_none() {
                    return self.healed(number);
                }
                self.give_up_disk(place);
                Stage::Healing
            }
            Stage::Scrubbing(_, asked) if self.now.since(asked) >= SCRUB_AGAIN => Stage::Healing,
            other => other,
        };
        if let Some(hurt) = &mut self.atlas.hurt {
            hurt.stage = next;
        }
    }

    /// What no scrub reads, like the unused part of a log, can still be broken. A store whose log ends there does not open:
    /// the operator replaces such a disk in time.
    fn give_up_disk(&mut self, place: Place) {
        self.trace
            .line(self.now, format_args!("place {place} still has broken blocks"));
        self.end_process(place, End::Killed, false);
        self.plan_replacement(place);
    }

    /// What it has sent still arrives: it shall not be the only one that has a write.
    fn restart_hurt(&mut self, place: Place, how: End, down: Duration) {
        self.end_process(place, how, how == End::Power);
        let life = self.processes[place].life;
        self.schedule.at(self.now + down, Event::Start(place, life));
    }

    fn restart_at(&mut self, trouble: Trouble) -> Now {
        let longest = if trouble == Trouble::LyingFlush { 1 } else { 10 };
        self.now
            + self
                .atlas
                .random
                .duration(Duration::ZERO..=Duration::from_secs(longest))
    }

    /// Every OSD runs and serves.
    fn all_ready(&self) -> bool {
        let ready = |machine: &trivet_osd::Osd| machine.state() == trivet_store::State::Ready;
        self.osds.iter().all(|slot| slot.machine.as_ref().is_some_and(ready))
    }

    /// The operator asks for a scrub of everything.
    fn ask_for_scrub(&mut self) -> Stage {
        if self.metadata.is_away(self.now) {
            return Stage::Healing;
        }
        self.atlas.scrubs += 1;
        let number = self.atlas.scrubs;
        let request = keys::ScrubRequest { number, at: number };
        let txn = Txn {
            compare: Vec::new(),
            changes: vec![Change::put(keys::SCRUB, encode(&request))],
        };
        self.kv.transact(self.now, &txn);
        self.committed();
        Stage::Scrubbing(number, self.now)
    }

    fn is_scrubbed(&self, number: u64) -> bool {
        let done = |pg: PgId| {
            self.truth
                .scrubs
                .get(&pg)
                .is_some_and(|report| report.value.number >= number)
        };
        self.is_clean() && self.truth.pgs().all(done)
    }

    /// The damage is gone.
    fn healed(&mut self, number: u64) {
        self.trace
            .line(self.now, format_args!("scrub {number} is done, the damage is gone"));
        let bad = self.truth.scrubs.iter().find(|(_, report)| {
            let report = &report.value;
            report.lost > 0 || report.inconsistent > 0
        });
        if let Some((pg, report)) = bad {
            let what = format!("the scrub of PG {pg} could not repair everything: {:?}", report.value);
            self.fail(what);
        }
        self.atlas.hurt = None;
        self.atlas.healed = self.now;
    }
}
