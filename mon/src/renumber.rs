//! Changes of the number of a pool's PGs, while clients use it.
//!
//! One transaction makes the new generation: the pool with the new count, and its plan, in which each PG begins where
//! the objects are that it takes over. From then on no history of the generation before can change, because whoever
//! writes one compares the pool. Each new PG's primary claims it with what it inherits (`ClusterMap::history`), fences
//! members of all acting sets that may have acknowledged writes, and brings objects to where they shall be as after any
//! other change of sets. When every PG has a history of its own, what is left of the generation before goes.

use std::collections::BTreeSet;

use trivet_core::keys::{self, PgPlan, Plan, Pool};
use trivet_core::kv::{Change, Compare, Txn};
use trivet_core::map::{Versioned, encode};
use trivet_core::{Numbering, PgId, PoolId};

use crate::placement::{self, MAX_PGS};
use crate::{Guard, MAX_CHANGES, Monitor};

impl Monitor {
    /// The first pool that is to have another number of PGs, or to be rid of those that it had.
    pub(crate) fn renumber(&self, guard: Guard) -> Option<Txn> {
        let pools = self.map.pools.iter();
        let mut ready = pools.filter(|(id, _)| self.map.plan(**id).is_some());
        ready.find_map(|(&id, pool)| match (pool.value.pgs_before, pool.value.pgs_wanted) {
            (Some(_), _) => self.clear_generation(guard, id, pool),
            (None, Some(wanted)) if self.is_healed(id) => self.begin_generation(guard, id, pool, wanted),
            (None, _) => None,
        })
    }

    /// Whether every PG serves clients, and every object is where it shall be, as far as members are up. Changes one upon
    /// the other would leave copies behind faster than they can go, and full disks could not go on.
    fn is_healed(&self, id: PoolId) -> bool {
        let mut pgs = self.map.pgs().filter(|pg| pg.pool == id);
        pgs.all(|pg| {
            let claim = self.map.claims.get(&pg).map(|claim| &claim.value);
            claim.is_some_and(|claim| claim.active && claim.missing == 0)
        })
    }

    fn begin_generation(&self, guard: Guard, id: PoolId, pool: &Versioned<Pool>, wanted: u32) -> Option<Txn> {
        let old = self.map.plan(id)?;
        let before = pool.value.pg_count;
        let generation = pool.value.generation.checked_add(1);
        let mut next = Pool {
            pgs_wanted: None,
            ..pool.value.clone()
        };
        let mut changes = Vec::new();
        let possible =
            generation.filter(|_| wanted != before && wanted <= MAX_PGS && Numbering::can_follow(wanted, before));
        if let Some(generation) = possible {
            (next.generation, next.pg_count, next.pgs_before) = (generation, wanted, Some(before));
            let plan = self.first_plan(id, &next, &old.value);
            changes.push(Change::put(keys::plan(id), encode(&plan)));
        }
        changes.push(Change::put(keys::pool(id), encode(&next)));
        let compare = vec![
            Compare::ModRevision(keys::pool(id), pool.revision),
            Compare::ModRevision(keys::plan(id), old.revision),
        ];
        Some(guard.txn(compare, changes))
    }

    /// The plan of a new generation, as near to the old one as it can be.
    fn first_plan(&self, id: PoolId, pool: &Pool, old: &Plan) -> Plan {
        let parent = |number: u32| {
            usize::try_from(number)
                .ok()
                .and_then(|n| old.pgs.get(n % old.pgs.len().max(1)))
        };
        let nowhere = PgPlan {
            osds: Vec::new(),
            primary: None,
        };
        let pgs = (0..pool.pg_count).map(|number| parent(number).unwrap_or(&nowhere).clone());
        let inherited = Plan {
            generation: pool.generation,
            pgs: pgs.collect(),
        };
        let sets = placement::place(&inherited, &placement::inputs(&self.map, id, pool));
        let mut plan = crate::plans::with_sets(&inherited, &sets);
        self.choose(&mut plan, &inherited, pool);
        plan
    }

    /// Deletes some of what is known of earlier generations, once the present one needs it no more.
    fn clear_generation(&self, guard: Guard, id: PoolId, pool: &Versioned<Pool>) -> Option<Txn> {
        let mut pgs = pool.value.numbering().pgs(id);
        if !pgs.all(|pg| self.map.histories.contains_key(&pg)) {
            return None;
        }
        let same = Compare::ModRevision(keys::pool(id), pool.revision);
        let mut changes = self.keys_before(id, pool.value.generation);
        if changes.is_empty() {
            let next = Pool {
                pgs_before: None,
                ..pool.value.clone()
            };
            changes.push(Change::put(keys::pool(id), encode(&next)));
        }
        Some(guard.txn(vec![same], changes))
    }

    /// Deletions of keys of PGs of earlier generations, as many as fit a transaction.
    fn keys_before(&self, pool: PoolId, generation: u16) -> Vec<Change> {
        let map = &self.map;
        let is_over = |pg: &PgId| pg.pool == pool && pg.generation < generation;
        let all = map.claims.keys().chain(map.histories.keys()).chain(map.scrubs.keys());
        let over: BTreeSet<PgId> = all.copied().filter(is_over).take(MAX_CHANGES / 3).collect();
        over.into_iter()
            .flat_map(|pg| self.keys_of_pg(pg))
            .map(Change::Delete)
            .collect()
    }

    fn keys_of_pg(&self, pg: PgId) -> Vec<String> {
        let map = &self.map;
        let known = [
            (map.claims.contains_key(&pg), keys::claim(pg)),
            (map.histories.contains_key(&pg), keys::history(pg)),
            (map.scrubs.contains_key(&pg), keys::scrub(pg)),
        ];
        known
            .into_iter()
            .filter(|(there, _)| *there)
            .map(|(_, key)| key)
            .collect()
    }
}
