//! Space: of OSDs, as they say themselves; of pools, as their plans spread what is written.

use std::collections::BTreeMap;

use trivet_api::Capacity;
use trivet_core::map::ClusterMap;
use trivet_core::{OsdId, PoolId};

use crate::gateway::Gateway;
use crate::session::Space;
use crate::status::OsdReport;

/// What the OSDs have, by their own words.
#[derive(Clone, Copy)]
pub(crate) struct Disks<'a> {
    pub(crate) map: &'a ClusterMap,
    /// What those of this process say.
    pub(crate) reports: &'a BTreeMap<OsdId, OsdReport>,
}

impl Disks<'_> {
    /// What an OSD says about itself; what it says within this process counts more than what it has written.
    pub(crate) fn usage(self, osd: OsdId) -> Option<OsdReport> {
        let local = self.reports.get(&osd).filter(|report| report.capacity > 0);
        let written = || {
            let stats = &self.map.stats.get(&osd)?.value;
            Some(OsdReport {
                path: stats.path.clone(),
                capacity: stats.capacity,
                used: stats.used,
                objects: stats.objects,
            })
        };
        // One that has not opened its store yet knows at least where it is.
        local
            .cloned()
            .or_else(written)
            .or_else(|| self.reports.get(&osd).cloned())
    }

    /// Of all OSDs that say something, every copy counted.
    pub(crate) fn raw_space(self) -> Capacity {
        let mut raw = Capacity::default();
        for usage in self.map.members.keys().filter_map(|&osd| self.usage(osd)) {
            raw.total = raw.total.saturating_add(usage.capacity);
            raw.used = raw.used.saturating_add(usage.used);
        }
        raw.free = raw.total.saturating_sub(raw.used);
        raw
    }

    /// How many of a pool's PGs each OSD has.
    fn shares(self, pool: PoolId) -> BTreeMap<OsdId, u64> {
        let mut shares = BTreeMap::new();
        let plan = self.map.plans.get(&pool);
        for &osd in plan.iter().flat_map(|plan| &plan.value.pgs).flat_map(|pg| &pg.osds) {
            *shares.entry(osd).or_insert(0) += 1;
        }
        shares
    }

    /// What clients can store in a pool: every PG takes the same part of it, and when the fullest OSD is full, that is all.
    /// OSDs of which nothing is known do not count.
    pub(crate) fn pool_space(self, pool: PoolId) -> Space {
        let Some(config) = self.map.pools.get(&pool).map(|pool| &pool.value) else {
            return Space::default();
        };
        let (mut total, mut free) = (0u64, None);
        for (osd, share) in self.shares(pool) {
            let Some(usage) = self.usage(osd).filter(|usage| usage.capacity > 0) else {
                continue;
            };
            total = total.saturating_add(usage.capacity);
            let left = u128::from(usage.capacity.saturating_sub(usage.used));
            let fits = u64::try_from(left * u128::from(config.pg_count) / u128::from(share)).unwrap_or(u64::MAX);
            free = Some(free.map_or(fits, |free: u64| free.min(fits)));
        }
        let total = total / (config.replicas.max(1) as u64);
        Space {
            total,
            free: free.unwrap_or(0).min(total),
        }
    }
}

impl Gateway {
    /// Reckons anew what clients of file systems are told.
    pub(crate) fn update_space(&mut self) {
        let disks = Disks {
            map: self.client.map(),
            reports: &self.osds,
        };
        let space = self
            .default_pool()
            .map_or_else(Space::default, |pool| disks.pool_space(pool));
        self.background.space = space;
    }
}
