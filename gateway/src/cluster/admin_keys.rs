//! Mirror of the keys that only administration needs: when the settings were written, which pool id is next, which pools
//! are being removed. The cluster map has no place for them.

use std::collections::BTreeMap;

use trivet_core::PoolId;
use trivet_core::keys::{self, NEXT_POOL, POOLS, SETTINGS};
use trivet_core::kv::{Compare, KeyValue, News, Notice, Revision};

/// A pool with this key is being removed: no image may be made in it.
pub(super) fn removing_key(pool: PoolId) -> String {
    format!("{}/removing", keys::pool(pool))
}

/// What administration has to know beside the cluster map: the commit of the settings, the next pool id, pools that are
/// being removed.
#[derive(Debug, Default)]
pub(crate) struct AdminKeys {
    settings: Option<Revision>,
    next_pool: Option<(u32, Revision)>,
    removing: BTreeMap<PoolId, Revision>,
}

impl AdminKeys {
    /// Takes in what the metadata store says, of which everything up to `known` is known.
    pub(crate) fn apply(&mut self, notice: &Notice, known: Revision) {
        for news in notice.news(known) {
            match news {
                News::All(keys) => {
                    *self = AdminKeys::default();
                    keys.iter().for_each(|kv| self.put(kv));
                }
                News::Put(kv) => self.put(kv),
                News::Delete(key) => self.delete(key),
            }
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        match kv.key.as_str() {
            SETTINGS => self.settings = Some(kv.mod_revision),
            NEXT_POOL => {
                // What cannot be read counts as nothing known: the pools that are there still raise the next id.
                let next = serde_json::from_slice(&kv.value).unwrap_or(0);
                self.next_pool = Some((next, kv.mod_revision));
            }
            key => {
                if let Some(pool) = pool_of(key) {
                    self.removing.insert(pool, kv.mod_revision);
                }
            }
        }
    }

    fn delete(&mut self, key: &str) {
        match key {
            SETTINGS => self.settings = None,
            NEXT_POOL => self.next_pool = None,
            key => {
                if let Some(pool) = pool_of(key) {
                    self.removing.remove(&pool);
                }
            }
        }
    }

    /// The commit that marked the pool as being removed.
    pub(crate) fn removing(&self, pool: PoolId) -> Option<Revision> {
        self.removing.get(&pool).copied()
    }

    /// The next pool id as it is written; 0: not at all.
    pub(super) fn next_pool(&self) -> u32 {
        self.next_pool.map_or(0, |(next, _)| next)
    }

    /// That the next pool id is as this mirror has it.
    pub(super) fn same_next_pool(&self) -> Compare {
        same(NEXT_POOL, self.next_pool.map(|(_, revision)| revision))
    }

    /// That the settings are as this mirror has them.
    pub(super) fn same_settings(&self) -> Compare {
        same(SETTINGS, self.settings)
    }
}

/// That a key was written last by this commit, or is absent.
pub(super) fn same(key: &str, revision: Option<Revision>) -> Compare {
    match revision {
        Some(revision) => Compare::ModRevision(key.to_owned(), revision),
        None => Compare::Absent(key.to_owned()),
    }
}

fn pool_of(key: &str) -> Option<PoolId> {
    let id = key.strip_prefix(POOLS)?.strip_suffix("/removing")?;
    id.parse().ok().map(PoolId)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use trivet_core::kv::Event;

    use super::*;

    fn kv(key: &str, value: &'static str, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Bytes::from_static(value.as_bytes()),
            mod_revision,
        }
    }

    #[test]
    fn the_mirror_follows_and_what_is_old_is_passed_over() {
        let mut admin_keys = AdminKeys::default();
        let pool = PoolId(3);
        let keys = vec![
            kv(NEXT_POOL, "4", 5),
            kv(SETTINGS, "{}", 6),
            kv("pool/3/removing", "{}", 7),
        ];
        admin_keys.apply(&Notice::Snapshot { revision: 7, keys }, 0);
        assert_eq!((admin_keys.next_pool(), admin_keys.removing(pool)), (4, Some(7)));
        assert_eq!(admin_keys.same_settings(), Compare::ModRevision(SETTINGS.into(), 6));
        let gone = |revision| Notice::Changes {
            revision,
            events: vec![Event::Delete {
                key: removing_key(pool),
                revision,
            }],
        };
        admin_keys.apply(&gone(6), 7);
        assert_eq!(admin_keys.removing(pool), Some(7), "an old event");
        admin_keys.apply(&gone(8), 7);
        assert_eq!(admin_keys.removing(pool), None);
        let keys = Vec::new();
        admin_keys.apply(&Notice::Snapshot { revision: 9, keys }, 8);
        assert_eq!(admin_keys.next_pool(), 0);
        assert_eq!(admin_keys.same_next_pool(), Compare::Absent(NEXT_POOL.into()));
    }
}
