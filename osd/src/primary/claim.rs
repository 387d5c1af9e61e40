//! Who acts for which PGs: this OSD claims what the plan gives it, starts over when the members have changed, and gives up
//! what is another's.

use std::borrow::Cow;
use std::collections::BTreeSet;

use trivet_core::keys::History;
use trivet_core::kv::{Change, Compare, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{Epoch, OsdId, PgId, keys};

use crate::Osd;
use crate::ctx::{Ctx, TxnWait};
use crate::options::mutant;
use crate::primary::peering::Peering;
use crate::primary::pg::{Membership, Pg, Phase, Recorded, claim, interval, shorten};

impl Osd {
    /// Looks at every PG that the plan gives to this OSD, or that it acts for.
    pub(crate) fn consider_all(&mut self) {
        let map = &self.ctx.map;
        let over: Vec<PgId> = self.pgs.keys().copied().filter(|pg| !map.is_current(*pg)).collect();
        for pg in over {
            self.depose(pg);
        }
        if !self.loaded || !self.ctx.is_present() {
            return;
        }
        if self.ctx.is_halted() {
            return self.depose_all();
        }
        let planned: BTreeSet<PgId> = self.ctx.planned().collect();
        let given_up: Vec<PgId> = self.pgs.keys().copied().filter(|pg| !planned.contains(pg)).collect();
        for pg in given_up {
            self.depose(pg);
        }
        for pg in planned {
            self.consider(pg);
        }
    }

    /// Starts over if the membership changed, somebody else claimed the PG, or the claim is gone.
    fn consider(&mut self, id: PgId) {
        let membership = self.ctx.membership(id);
        let own = self.pgs.get(&id);
        let fits = |pg: &Pg| membership.as_ref().is_some_and(|membership| pg.fits(membership));
        if own.is_some_and(|pg| fits(pg) && self.ctx.is_ours(pg)) {
            return;
        }
        let floor_epoch = own.map_or(Epoch(0), |pg| pg.floor_epoch);
        self.depose(id);
        if let Some(membership) = membership {
            let accepted = self.member.accepted_epoch(id);
            let pg = Pg::claim(&mut self.ctx, id, membership, (accepted, floor_epoch));
            self.pgs.insert(id, pg);
        }
    }

    /// Stops acting for a PG. Operations that were under way are left to the next primary: their clients ask it.
    pub(crate) fn depose(&mut self, id: PgId) {
        if let Some(mut pg) = self.pgs.remove(&id) {
            pg.start_over(&mut self.ctx);
        }
    }

    /// Stops acting for any PG.
    pub(crate) fn depose_all(&mut self) {
        while let Some((_, mut pg)) = self.pgs.pop_first() {
            pg.start_over(&mut self.ctx);
        }
    }
}

impl Pg {
    /// Claims the PG: the epoch rises past everything that was ever claimed or seen, and the new acting set is recorded
    /// before the first operation of the epoch.
    fn claim(ctx: &mut Ctx, id: PgId, membership: Membership, (accepted, floor_epoch): (Epoch, Epoch)) -> Pg {
        let stored = ctx.map.histories.get(&id);
        let mut history = ctx.map.history(id).map_or_else(History::default, Cow::into_owned);
        if stored.is_none() && mutant!(ctx.options, ForgetParents) {
            history.intervals.clear();
        }
        let mut epoch = Epoch(history.epoch.max(accepted).max(floor_epoch).0 + 1);
        if mutant!(ctx.options, SameEpoch) && history.epoch.0 > 0 {
            epoch = history.epoch;
        }
        history.epoch = epoch;
        // An interval that never became active cannot any more: its activation compares this history.
        history.intervals.retain(|interval| interval.active);
        shorten(&mut history, &ctx.options);
        history.intervals.push(interval(epoch, &membership.acting, false));
        let txn = Txn {
            compare: still_as_seen(ctx, id),
            changes: vec![
                Change::put(keys::history(id), encode(&history)),
                claim(ctx, (id, epoch), &membership.acting, None),
            ],
        };
        let ticket = ctx.run_txn(txn, TxnWait::Claim(id));
        Pg {
            id,
            epoch,
            membership,
            floor_epoch,
            phase: Phase::Claiming { ticket, history },
        }
    }

    pub(crate) fn claim_ended(&mut self, ctx: &mut Ctx, ticket: u64, outcome: TxnOutcome) {
        let is_it = |phase: &Phase| matches!(phase, Phase::Claiming { ticket: own, .. } if *own == ticket);
        if !is_it(&self.phase) {
            return;
        }
        let Phase::Claiming { history, .. } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("just looked at");
        };
        match outcome {
            TxnOutcome::Committed(revision) => {
                let recorded = Recorded { history, revision };
                self.phase = Phase::Peering(Peering::new(recorded, ctx.now));
                self.send_fences(ctx);
            }
            // The tick, or the notice that shows why, tries again.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => {}
        }
    }
}

impl Ctx {
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

    /// Whether nothing speaks against this OSD's claim, as far as the map reaches.
    fn is_ours(&self, pg: &Pg) -> bool {
        let Some(recorded_at) = pg.recorded_at() else {
            return matches!(pg.phase, Phase::Claiming { .. });
        };
        let known = self.map.histories.get(&pg.id).map_or(Epoch(0), |h| h.value.epoch);
        let claimed = self.map.claims.get(&pg.id).map(|claim| claim.value.epoch);
        known <= pg.epoch && (claimed == Some(pg.epoch) || self.map.revision < recorded_at)
    }

    /// Who must act and who must be asked; none while too few can be reached.
    fn membership(&self, id: PgId) -> Option<Membership> {
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
        let with_room = |osd: &OsdId| *osd == me || !self.full.has(*osd);
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
        Some(Membership {
            acting,
            asked: asked.into_iter().filter_map(boot).collect(),
        })
    }
}

/// What a claim compares: the PG's history and plan are those that it was made from, and nothing is halted.
fn still_as_seen(ctx: &Ctx, id: PgId) -> Vec<Compare> {
    let mut compare = vec![match ctx.map.histories.get(&id) {
        Some(history) => Compare::ModRevision(keys::history(id), history.revision),
        None => Compare::Absent(keys::history(id)),
    }];
    compare.push(ctx.same_generation(id));
    compare.push(Compare::Absent(keys::HALTED.to_owned()));
    if let Some(plan) = ctx.map.plans.get(&id.pool) {
        compare.push(Compare::ModRevision(keys::plan(id.pool), plan.revision));
    }
    compare
}
