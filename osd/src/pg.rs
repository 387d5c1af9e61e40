//! One PG of which this OSD is, or tries to be, the primary: its phase, and when it has to start over.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trivet_core::keys::{self, Claim, History, Interval};
use trivet_core::kv::{Change, Compare, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::{Listed, OpDone};
use trivet_core::{ClientId, Epoch, Now, ObjectId, OsdId, PgId, UnitMask, Version};

use crate::decide::Missing;
use crate::lane::Lane;
use crate::options::{Options, mutant};
use crate::scrub::Scrub;
use crate::tombstone::Forgetting;
use crate::{Effect, Osd, TxnWait, send_on};

/// Where a PG's life stands (`docs/architecture.md`, the life of a PG).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The claim's transaction is on its way.
    Claiming { ticket: u64 },
    /// Members accept the epoch and list what they have.
    Interviewing,
    /// The transaction that makes the interval active is on its way.
    Activating { ticket: u64 },
    /// Clients are served.
    Active,
    /// To be claimed anew: the last attempt failed.
    Idle,
}

/// Who must be asked, as of one look at the map. A change means starting over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The members, this OSD first.
    pub acting: Vec<OsdId>,
    /// Everybody who is asked, with the start that is meant.
    pub asked: BTreeMap<OsdId, u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pg {
    pub phase: Phase,
    pub epoch: Epoch,
    pub setting: Setting,
    /// As this OSD wrote it last.
    pub history: History,
    pub history_revision: Revision,
    /// The commit that made it active, and when this OSD heard of it.
    pub served_from: Revision,
    pub active_since: Now,
    /// Higher epochs that members reported.
    pub floor_epoch: Epoch,
    /// What was listed so far.
    pub listings: BTreeMap<OsdId, BTreeMap<ObjectId, Listed>>,
    /// The parts that are still to come, of everybody who began to list.
    pub parts: BTreeMap<OsdId, BTreeSet<u32>>,
    pub listed: BTreeSet<OsdId>,
    /// When everybody was asked first, and when those who have not listed were asked last.
    pub asked_from: Now,
    pub asked_at: Now,
    /// Until when each member keeps what it promised to an earlier primary.
    pub promised: BTreeMap<OsdId, Now>,
    /// When each member was asked for its latest confirmation of the epoch.
    pub confirmed: BTreeMap<OsdId, Now>,
    /// Pings from here on are about this epoch.
    pub pinged_from: Now,
    /// Answers that wait for confirmation.
    pub unconfirmed: Vec<(ClientId, OpDone)>,
    pub missing: BTreeMap<ObjectId, Missing>,
    /// Those of `missing` that are deletions and were not begun: they go first, for they make room.
    pub deletions: Vec<ObjectId>,
    /// Objects of `missing` that are being healed.
    pub healing: BTreeSet<ObjectId>,
    /// Objects of `missing` that could not be healed for now.
    pub stuck: VecDeque<(Now, ObjectId)>,
    /// Of objects that could not be repaired: the units of which no copy can be read, and what else the own copy lacks.
    pub lost: BTreeMap<ObjectId, UnitMask>,
    pub lanes: BTreeMap<ObjectId, Lane>,
    /// Tombstones that every member has, oldest first, and since when.
    pub tombstones: VecDeque<(Now, ObjectId, Version)>,
    /// Those that members are just forgetting.
    pub forgetting: BTreeMap<ObjectId, Forgetting>,
    pub scrub: Option<Scrub>,
    /// The last request for a scrub that was answered.
    pub scrubbed: u64,
    /// Counters of this epoch up to here belong to objects that were forgotten, or could not be healed.
    pub floor_counter: u64,
    /// What the claim says now, and when a newer word may follow.
    pub reported: (u64, Now),
    pub reporting: Option<u64>,
}

/// What one PG has to tell about itself.
#[derive(Clone, Debug)]
pub struct PgStatus {
    /// Which PG.
    pub id: PgId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Clients are served.
    pub active: bool,
    /// Objects with too few copies.
    pub missing: usize,
    /// The members.
    pub acting: Vec<OsdId>,
}

impl Pg {
    pub(crate) fn new(history: History, setting: Setting) -> Pg {
        Pg {
            phase: Phase::Idle,
            epoch: Epoch(0),
            setting,
            history,
            history_revision: 0,
            served_from: 0,
            active_since: Now(0),
            floor_epoch: Epoch(0),
            listings: BTreeMap::new(),
            parts: BTreeMap::new(),
            listed: BTreeSet::new(),
            asked_from: Now(0),
            asked_at: Now(0),
            promised: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            pinged_from: Now(0),
            unconfirmed: Vec::new(),
            missing: BTreeMap::new(),
            deletions: Vec::new(),
            healing: BTreeSet::new(),
            stuck: VecDeque::new(),
            lost: BTreeMap::new(),
            lanes: BTreeMap::new(),
            tombstones: VecDeque::new(),
            forgetting: BTreeMap::new(),
            scrub: None,
            scrubbed: 0,
            floor_counter: 0,
            reported: (0, Now(0)),
            reporting: None,
        }
    }

    pub(crate) fn status(&self, id: PgId) -> PgStatus {
        PgStatus {
            id,
            epoch: self.epoch,
            active: self.phase == Phase::Active,
            missing: self.missing.len(),
            acting: self.setting.acting.clone(),
        }
    }

    /// Whether the epoch can go on under a newer look at the map: the members are the same, since the same start; and
    /// while listings are awaited, so is everybody who was asked.
    fn fits(&self, newer: &Setting) -> bool {
        let same_start = |osd: &OsdId| self.setting.asked.get(osd) == newer.asked.get(osd);
        let waits = matches!(self.phase, Phase::Claiming { .. } | Phase::Interviewing);
        self.setting.acting == newer.acting
            && self.setting.acting.iter().all(same_start)
            && (!waits || self.setting.asked.keys().all(same_start))
    }

    /// Members other than the primary.
    pub(crate) fn others(&self) -> impl Iterator<Item = OsdId> + '_ {
        self.setting.acting.iter().copied().skip(1)
    }

    /// The metadata store says that nothing is missing, and names no other interval.
    pub(crate) fn is_recorded(&self) -> bool {
        self.reporting.is_none() && self.reported.0 == 0 && self.history.intervals.len() == 1
    }

    /// Every object is equal on the whole acting set.
    pub(crate) fn is_clean(&self) -> bool {
        self.phase == Phase::Active && self.missing.is_empty()
    }
}

impl Osd {
    /// The PGs that the plan has this OSD lead.
    pub(crate) fn planned(&self) -> impl Iterator<Item = PgId> + '_ {
        let me = Some(self.id());
        let plans = self
            .map
            .pools
            .keys()
            .filter_map(|&pool| Some((pool, &self.map.plan(pool)?.value)));
        plans.flat_map(move |(pool, plan)| {
            let generation = plan.generation;
            let led = (0..).zip(&plan.pgs).filter(move |(_, pg)| pg.primary == me);
            led.map(move |(number, _)| PgId {
                pool,
                generation,
                number,
            })
        })
    }

    /// Looks at every PG that the plan gives to this OSD, or that it acts for.
    pub(crate) fn consider_all(&mut self, out: &mut Vec<Effect>) {
        let is_over = |pg: &PgId| !self.map.is_current(*pg);
        let over: Vec<PgId> = self.pgs.keys().copied().filter(is_over).collect();
        for pg in over {
            self.depose(pg, out);
        }
        if !self.is_ready() || !self.is_present() {
            return;
        }
        if self.is_halted() {
            let all: Vec<PgId> = self.pgs.keys().copied().collect();
            return all.into_iter().for_each(|pg| self.depose(pg, out));
        }
        let planned: BTreeSet<PgId> = self.planned().collect();
        let given_up: Vec<PgId> = self.pgs.keys().copied().filter(|pg| !planned.contains(pg)).collect();
        for pg in given_up {
            self.depose(pg, out);
        }
        for pg in planned {
            self.consider(pg, out);
        }
    }

    /// Starts over if the setting changed, somebody else claimed the PG, or the claim is gone.
    fn consider(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let setting = self.setting(id);
        let current = self.pgs.get(&id).is_some_and(|pg| {
            pg.phase != Phase::Idle && setting.as_ref().is_some_and(|setting| pg.fits(setting)) && self.is_ours(id, pg)
        });
        if current {
            return;
        }
        let floor_epoch = self.pgs.get(&id).map_or(Epoch(0), |pg| pg.floor_epoch);
        self.depose(id, out);
        if let Some(setting) = setting {
            self.claim(id, setting, floor_epoch, out);
        }
    }

    /// Whether nothing speaks against this OSD's claim, as far as the map reaches.
    fn is_ours(&self, id: PgId, pg: &Pg) -> bool {
        if matches!(pg.phase, Phase::Claiming { .. }) {
            return true;
        }
        let known = self.map.histories.get(&id).map_or(Epoch(0), |h| h.value.epoch);
        let claimed = self.map.claims.get(&id).map(|claim| claim.value.epoch);
        known <= pg.epoch && (claimed == Some(pg.epoch) || self.map.revision < pg.history_revision)
    }

    /// Stops acting for a PG. Operations that were under way are left to the next primary: their clients ask it.
    pub(crate) fn depose(&mut self, id: PgId, out: &mut Vec<Effect>) {
        if let Some(pg) = self.pgs.remove(&id) {
            send_all_on(pg, out);
        }
    }

    /// Claims the PG: the epoch rises past everything that was ever claimed or seen, and the new acting set is
    /// recorded before the first operation of the epoch.
    fn claim(&mut self, id: PgId, setting: Setting, floor_epoch: Epoch, out: &mut Vec<Effect>) {
        let stored = self.map.histories.get(&id);
        let mut history = self.map.history(id).map_or_else(History::default, Cow::into_owned);
        if stored.is_none() && mutant!(self.options, ForgetParents) {
            history.intervals.clear();
        }
        let accepted = self.accepted_epoch(id);
        let mut epoch = Epoch(history.epoch.max(accepted).max(floor_epoch).0 + 1);
        if mutant!(self.options, SameEpoch) && history.epoch.0 > 0 {
            epoch = history.epoch;
        }
        history.epoch = epoch;
        // An interval that never became active cannot any more: its activation compares this history.
        history.intervals.retain(|interval| interval.active);
        shorten(&mut history, &self.options);
        history.intervals.push(Interval {
            epoch,
            acting: setting.acting.clone(),
            active: false,
            of: None,
        });

        let mut compare = vec![match stored {
            Some(h) => Compare::ModRevision(keys::history(id), h.revision),
            None => Compare::Absent(keys::history(id)),
        }];
        compare.push(self.same_generation(id));
        compare.push(Compare::Absent(keys::HALTED.to_owned()));
        if let Some(plan) = self.map.plans.get(&id.pool) {
            compare.push(Compare::ModRevision(keys::plan(id.pool), plan.revision));
        }
        let mut pg = Pg::new(history, setting);
        pg.epoch = epoch;
        pg.floor_epoch = floor_epoch;
        let changes = vec![
            Change::put(keys::history(id), encode(&pg.history)),
            self.claim_change(id, &pg, false),
        ];
        pg.phase = Phase::Claiming { ticket: self.next };
        self.pgs.insert(id, pg);
        self.run_txn(Txn { compare, changes }, TxnWait::Claim(id), out);
    }

    /// The pool is as this OSD knows it: its PGs are still of the same generation. Every transaction that writes a
    /// history compares this, so that histories of an earlier generation do not change any more.
    pub(crate) fn same_generation(&self, id: PgId) -> Compare {
        match self.map.pools.get(&id.pool).filter(|_| self.map.is_current(id)) {
            Some(pool) => Compare::ModRevision(keys::pool(id.pool), pool.revision),
            // Never so: whoever acts for a PG knows its pool, and a pool that was removed refuses everything.
            None => Compare::ModRevision(keys::pool(id.pool), Revision::MAX),
        }
    }

    /// The put of the claim that says how the PG is.
    pub(crate) fn claim_change(&self, id: PgId, pg: &Pg, active: bool) -> Change {
        let claim = Claim {
            primary: self.id(),
            epoch: pg.epoch,
            acting: pg.setting.acting.clone(),
            active,
            missing: pg.missing.len() as u64,
        };
        Change::Put {
            key: keys::claim(id),
            value: encode(&claim),
            lease: self.lease,
        }
    }

    pub(crate) fn claim_ended(&mut self, id: PgId, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        let Some(pg) = self
            .pgs
            .get_mut(&id)
            .filter(|pg| pg.phase == Phase::Claiming { ticket })
        else {
            return;
        };
        match outcome {
            TxnOutcome::Committed(revision) => {
                pg.history_revision = revision;
                pg.asked_from = self.now;
                pg.phase = Phase::Interviewing;
                self.send_fences(id, out);
            }
            // The tick, or the notice that shows why, tries again.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => pg.phase = Phase::Idle,
        }
    }
}

impl Osd {
    /// Who must act and who must be asked; none while too few can be reached.
    fn setting(&self, id: PgId) -> Option<Setting> {
        let mut min_size = self.map.pools.get(&id.pool)?.value.min_size;
        if mutant!(self.options, MinSizeTooLow) {
            min_size -= 1;
        }
        let plan = self.map.plan_of(id)?;
        let me = self.id();
        let reachable = |osd: &OsdId| self.is_reachable(*osd);
        let mut acting = vec![me];
        acting.extend(plan.osds.iter().copied().filter(|osd| *osd != me && reachable(osd)));
        if acting.len() < min_size {
            return None;
        }
        let with_room = |osd: &OsdId| *osd == me || !self.is_full(*osd);
        if acting.iter().filter(|osd| with_room(osd)).count() >= min_size {
            acting.retain(with_room);
        }
        let mut asked: BTreeSet<OsdId> = acting.iter().copied().collect();
        if let Some(history) = self.map.history(id) {
            for interval in history.intervals.iter().filter(|interval| interval.active) {
                let present: Vec<OsdId> = interval.acting.iter().copied().filter(reachable).collect();
                if present.is_empty() && !mutant!(self.options, IgnoreHistory) {
                    return None;
                }
                asked.extend(present);
            }
        }
        let boot = |osd: OsdId| self.map.osds.get(&osd).map(|state| (osd, state.value.boot));
        Some(Setting {
            acting,
            asked: asked.into_iter().filter_map(boot).collect(),
        })
    }
}

/// Leaves out what need not be recorded.
pub(crate) fn shorten(history: &mut History, options: &Options) {
    let count = history.intervals.len();
    if mutant!(options, DropIntervals) && count > options.intervals.max(2) {
        history.intervals.drain(1..count - 1);
    }
    history.merge(options.intervals);
}

/// Sends everybody who waits for an answer of the PG on to the next primary.
pub(crate) fn send_all_on(pg: Pg, out: &mut Vec<Effect>) {
    for lane in pg.lanes.into_values() {
        for (client, op) in lane.into_clients() {
            send_on(client, op, out);
        }
    }
    for (client, done) in pg.unconfirmed {
        send_on(client, done.id, out);
    }
}
