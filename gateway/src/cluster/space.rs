//! Space: of OSDs, as they say themselves; of pools, as their plans spread what is written.

use std::collections::BTreeMap;

use trivet_core::usage::PoolUsage;
use trivet_core::{ImageId, OsdId, PoolId};

use super::usage::ImageSum;
use crate::admin::Capacity;
use crate::gateway::Gateway;
use crate::session::Space;
use crate::status::OsdReport;

impl Gateway {
    /// What an OSD says about itself; what it says within this process counts more than what it has written.
    pub(super) fn usage(&self, osd: OsdId) -> Option<OsdReport> {
        let local = self.osds.get(&osd).filter(|report| report.capacity > 0);
        let written = || {
            let stats = &self.client.map().stats.get(&osd)?.value;
            Some(OsdReport {
                path: stats.path.clone(),
                capacity: stats.capacity,
                used: stats.used,
                objects: stats.objects,
            })
        };
        // One that has not opened its store yet knows at least where it is.
        local.cloned().or_else(written).or_else(|| self.osds.get(&osd).cloned())
    }

    /// Of all OSDs that say something, every copy counted.
    pub(crate) fn raw_space(&self) -> Capacity {
        let members = self.client.map().members.keys();
        let mut raw = Capacity::default();
        for usage in members.filter_map(|&osd| self.usage(osd)) {
            raw.total = raw.total.saturating_add(usage.capacity);
            raw.used = raw.used.saturating_add(usage.used);
        }
        raw.free = raw.total.saturating_sub(raw.used);
        raw
    }

    /// How many of a pool's PGs each OSD has.
    fn shares(&self, pool: PoolId) -> BTreeMap<OsdId, u64> {
        let mut shares = BTreeMap::new();
        let plan = self.client.map().plans.get(&pool);
        for &osd in plan.iter().flat_map(|plan| &plan.value.pgs).flat_map(|pg| &pg.osds) {
            *shares.entry(osd).or_insert(0) += 1;
        }
        shares
    }

    /// What clients can store in a pool: every PG takes the same part of it, and when the fullest OSD is full, that is all.
    /// OSDs of which nothing is known do not count.
    pub(crate) fn pool_space(&self, pool: PoolId) -> Space {
        let Some(config) = self.client.map().pools.get(&pool).map(|pool| &pool.value) else {
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

    /// What the OSDs have of a pool; nothing is known before all that are up have said so.
    pub(super) fn pool_usage(&self, pool: PoolId) -> Option<PoolUsage> {
        let complete = self.usages.is_complete(self.client.map());
        complete.then(|| self.usages.pool(pool))
    }

    /// What the OSDs have of an image, and the operations on it.
    pub(crate) fn image_usage(&self, image: ImageId) -> Option<ImageSum> {
        let complete = self.usages.is_complete(self.client.map());
        complete.then(|| self.usages.image(image))
    }

    /// Reckons anew what clients of file systems are told.
    pub(crate) fn update_space(&mut self) {
        let pool = self.default_pool();
        self.background.space = pool.map_or_else(Space::default, |pool| self.pool_space(pool));
    }
}
