//! Listing pools.

use trivet_api::{AdminError, OpTotals, PoolInfo};
use trivet_core::keys::Pool;
use trivet_core::usage::PoolUsage;
use trivet_core::{ImageId, OBJECT_SIZE, PoolId};

use super::Overview;
use crate::cluster::find_pool;

/// What clients see of a pool's images.
#[derive(Clone, Copy, Default)]
struct Content {
    images: u64,
    bytes: u64,
}

impl Overview {
    /// One pool, by name or id.
    pub(super) fn pool_info(&self, text: &str) -> Result<PoolInfo, AdminError> {
        let (id, pool) = find_pool(&self.map, text)?;
        Ok(self.describe_pool(id, &pool.value))
    }

    /// All pools, ascending by id.
    pub(super) fn pools(&self) -> Vec<PoolInfo> {
        let pools = self.map.pools.iter();
        pools.map(|(&id, pool)| self.describe_pool(id, &pool.value)).collect()
    }

    /// The name of a pool, or its number if it is gone.
    pub(super) fn pool_name(&self, id: PoolId) -> String {
        let pool = self.map.pools.get(&id);
        pool.map_or_else(|| id.to_string(), |pool| pool.value.name.clone())
    }

    fn describe_pool(&self, id: PoolId, pool: &Pool) -> PoolInfo {
        let content = self.content(id);
        let usage = self.pool_usage(id);
        PoolInfo {
            id: id.0,
            name: pool.name.clone(),
            replicas: pool.replicas as u64,
            min_size: pool.min_size as u64,
            pg_count: pool.pg_count,
            pgs_wanted: pool.pgs_wanted,
            failure_domain: pool.failure_domain.clone(),
            root: pool.root.clone(),
            osd_tags: pool.osd_tags.clone(),
            primary_tags: pool.primary_tags.clone(),
            images: content.images,
            provisioned: content.bytes,
            used: usage.map(|usage| usage.used),
            objects: usage.map(|usage| usage.objects),
            raw_used: usage.map(|usage| usage.copies.saturating_mul(OBJECT_SIZE as u64)),
            ops: usage.map(|_| OpTotals::from(self.usages.pool_ops(id))),
            max_avail: self.disks().pool_space(id).free,
            removing: self.admin_keys.removing(id).is_some(),
        }
    }

    fn content(&self, pool: PoolId) -> Content {
        let own = self.namespace.images().filter(|image: &ImageId| image.pool() == pool);
        own.filter_map(|image| self.namespace.inode(image))
            .fold(Content::default(), |sum, inode| Content {
                images: sum.images + 1,
                bytes: sum.bytes.saturating_add(inode.size),
            })
    }

    /// What the OSDs have of a pool; nothing is known before all that are up have said so.
    fn pool_usage(&self, pool: PoolId) -> Option<PoolUsage> {
        self.usages.is_complete(&self.map).then(|| self.usages.pool(pool))
    }
}
