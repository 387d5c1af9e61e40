//! Pools that were removed: what is left of them in the metadata store goes, first the plan, so that nobody acts for
//! their PGs any more, then what is known of the PGs.

use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Txn};
use trivet_core::{PgId, PoolId};

use crate::{Guard, MAX_CHANGES, Monitor};

impl Monitor {
    /// Deletes some of what is left of a pool that is not there any more.
    pub(crate) fn clear_removed(&self, guard: Guard) -> Option<Txn> {
        self.delete_plan(guard).or_else(|| self.delete_pgs(guard))
    }

    fn delete_plan(&self, guard: Guard) -> Option<Txn> {
        let (&pool, plan) = self.map.plans.iter().find(|(pool, _)| self.is_removed(**pool))?;
        let same = Compare::ModRevision(keys::plan(pool), plan.revision);
        let removed = Compare::Absent(keys::pool(pool));
        Some(guard.txn(vec![same, removed], vec![Change::Delete(keys::plan(pool))]))
    }

    fn delete_pgs(&self, guard: Guard) -> Option<Txn> {
        let map = &self.map;
        let claims = map.claims.keys().map(|&pg| (pg, keys::claim as fn(PgId) -> String));
        let histories = map
            .histories
            .keys()
            .map(|&pg| (pg, keys::history as fn(PgId) -> String));
        let scrubs = map.scrubs.keys().map(|&pg| (pg, keys::scrub as fn(PgId) -> String));
        let mut left = claims
            .chain(histories)
            .chain(scrubs)
            .filter(|(pg, _)| self.is_removed(pg.pool))
            .peekable();
        let pool = left.peek()?.0.pool;
        let of_pool = left.filter(|(pg, _)| pg.pool == pool).take(MAX_CHANGES);
        let changes = of_pool.map(|(pg, key)| Change::Delete(key(pg))).collect();
        let removed = [keys::pool(pool), keys::plan(pool)].map(Compare::Absent);
        Some(guard.txn(removed.into(), changes))
    }

    fn is_removed(&self, pool: PoolId) -> bool {
        !self.map.pools.contains_key(&pool)
    }
}
