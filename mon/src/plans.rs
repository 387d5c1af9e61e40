//! Plans: when they are made anew, and when they only get other primaries.
//!
//! Sets are expensive with thousands of PGs, primaries are not, and they are what clients wait for. So primaries are
//! chosen for the sets that there are, for all pools at once, before sets are made; and sets are made only if what they
//! are made from changed.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::keys::{self, PgPlan, Plan, Pool};
use trivet_core::kv::{Change, Compare, Revision, Txn};
use trivet_core::map::{Versioned, encode};
use trivet_core::{Now, OsdId, PgId, PoolId};

use crate::mutant::mutant;
use crate::placement::{self, Inputs, Leading, MAX_PGS};
use crate::{Guard, MAX_CHANGES, Monitor};

/// Bytes of the plans in one transaction; more only if one plan is larger. With etcd a request has at most 1.5 MB.
const MAX_BYTES: usize = 512 << 10;

/// Time between plans that hand PGs over: until then clients have found the last ones.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// What was planned last.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    pools: BTreeMap<PoolId, Sets>,
    /// When PGs were last handed over.
    handed_over: Now,
}

/// The sets of one pool.
#[derive(Debug)]
struct Sets {
    inputs: Inputs,
    /// The plan that they were made from.
    from: Option<Revision>,
    sets: Vec<Vec<OsdId>>,
}

impl Monitor {
    /// Plans of pools that have PGs whose primary is not up, with other primaries.
    pub(crate) fn appoint(&self, guard: Guard) -> Option<Txn> {
        let mut plans = Vec::new();
        for (&id, pool) in &self.map.pools {
            let Some(current) = self.map.plans.get(&id) else {
                continue;
            };
            let mut plan = current.value.clone();
            self.choose(&mut plan, &current.value, &pool.value);
            if plan != current.value {
                plans.push((id, plan));
            }
        }
        self.write(guard, &plans)
    }

    /// The first plan that should have other sets.
    pub(crate) fn replan(&mut self, guard: Guard) -> Option<Txn> {
        self.planned.pools.retain(|pool, _| self.map.pools.contains_key(pool));
        let pools: Vec<PoolId> = self.map.pools.keys().copied().collect();
        pools.into_iter().find_map(|pool| self.replan_pool(pool, guard))
    }

    fn replan_pool(&mut self, id: PoolId, guard: Guard) -> Option<Txn> {
        let pool = &self.map.pools.get(&id)?.value;
        let current = self.map.plans.get(&id);
        if current.is_some_and(|plan| plan.value.generation != pool.generation) {
            return None;
        }
        let inputs = placement::inputs(&self.map, id, pool);
        if inputs.osds.is_empty() || inputs.pg_count > MAX_PGS {
            return None;
        }
        let sets = self.planned.sets(inputs, current);
        let empty = Plan::default();
        let old = current.map_or(&empty, |plan| &plan.value);
        if sets.iter().eq(old.pgs.iter().map(|pg| &pg.osds)) {
            return None;
        }
        let mut plan = with_sets(old, sets);
        plan.generation = pool.generation;
        self.choose(&mut plan, old, pool);
        self.write(guard, &[(id, plan)])
    }

    pub(crate) fn choose(&self, plan: &mut Plan, old: &Plan, pool: &Pool) {
        let is_tagged = |osd| self.is_tagged(osd, pool);
        let is_up = |osd| self.map.is_up(osd);
        let leading = Leading {
            is_up: &is_up,
            is_tagged: &is_tagged,
        };
        placement::choose(plan, old, &leading);
    }

    fn is_tagged(&self, osd: OsdId, pool: &Pool) -> bool {
        let member = self.map.members.get(&osd);
        member.is_some_and(|member| pool.primary_tags.iter().all(|tag| member.value.tags.contains(tag)))
    }

    /// The plan of a pool at rest, with some PGs handed over to better primaries.
    pub(crate) fn hand_over(&mut self, guard: Guard, now: Now) -> Option<Txn> {
        if now.since(self.planned.handed_over) < HAND_OVER_PAUSE {
            return None;
        }
        self.planned.handed_over = now;
        let plans = self
            .map
            .pools
            .iter()
            .filter_map(|(&id, pool)| self.handed_over(id, &pool.value));
        let plans: Vec<(PoolId, Plan)> = plans.collect();
        self.write(guard, &plans)
    }

    fn handed_over(&self, id: PoolId, pool: &Pool) -> Option<(PoolId, Plan)> {
        let current = &self.map.plans.get(&id)?.value;
        let claim = |number: usize| {
            let number = u32::try_from(number).ok()?;
            self.map
                .claims
                .get(&PgId {
                    pool: id,
                    generation: pool.generation,
                    number,
                })
                .map(|claim| &claim.value)
        };
        let rests = |(number, pg): (usize, &PgPlan)| {
            claim(number).is_some_and(|claim| claim.active && Some(claim.primary) == pg.primary)
        };
        if !current.pgs.iter().enumerate().all(rests) {
            return None;
        }
        let can = |number: usize, osd: OsdId| {
            claim(number).is_some_and(|claim| claim.missing == 0 && claim.acting.contains(&osd))
        };
        let is_tagged = |osd| self.is_tagged(osd, pool);
        let is_up = |osd| self.map.is_up(osd);
        let leading = Leading {
            is_up: &is_up,
            is_tagged: &is_tagged,
        };
        let mut plan = current.clone();
        placement::hand_over(&mut plan, &leading, can).then_some((id, plan))
    }

    /// Writes plans in place of those that there are; as many as fit a transaction.
    fn write(&self, guard: Guard, plans: &[(PoolId, Plan)]) -> Option<Txn> {
        let mut compare = Vec::new();
        let mut changes = Vec::new();
        let mut bytes = 0;
        for (pool, plan) in plans.iter().take(MAX_CHANGES) {
            let key = keys::plan(*pool);
            let value = encode(plan);
            bytes += value.len();
            if bytes > MAX_BYTES && !changes.is_empty() {
                break;
            }
            compare.push(match self.map.plans.get(pool) {
                Some(current) => Compare::ModRevision(key.clone(), current.revision),
                None => Compare::Absent(key.clone()),
            });
            changes.push(Change::put(key, value));
        }
        let mut txn = guard.txn(compare, changes);
        if mutant!(self, PlanWithoutCompare) {
            txn.compare.clear();
        }
        (!txn.changes.is_empty()).then_some(txn)
    }
}

impl Planned {
    /// The sets that a pool should have.
    fn sets(&mut self, inputs: Inputs, current: Option<&Versioned<Plan>>) -> &[Vec<OsdId>] {
        let pool = inputs.pool;
        let from = current.map(|plan| plan.revision);
        let has =
            |sets: &[Vec<OsdId>]| current.is_some_and(|plan| sets.iter().eq(plan.value.pgs.iter().map(|pg| &pg.osds)));
        let known = self.pools.get(&pool);
        if !known.is_some_and(|known| known.inputs == inputs && (known.from == from || has(&known.sets))) {
            let empty = Plan::default();
            let sets = placement::place(current.map_or(&empty, |plan| &plan.value), &inputs);
            self.pools.insert(pool, Sets { inputs, from, sets });
        }
        self.pools.get(&pool).map_or(&[], |planned| &planned.sets)
    }
}

/// The sets as a plan of the same generation, with the primaries that there are.
pub(crate) fn with_sets(old: &Plan, sets: &[Vec<OsdId>]) -> Plan {
    let primary = |number: usize| old.pgs.get(number).and_then(|pg| pg.primary);
    let pg = |(number, osds): (usize, &Vec<OsdId>)| PgPlan {
        osds: osds.clone(),
        primary: primary(number),
    };
    Plan {
        generation: old.generation,
        pgs: sets.iter().enumerate().map(pg).collect(),
    }
}
