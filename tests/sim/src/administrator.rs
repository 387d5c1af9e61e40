//! What administrators do while a run is under way: each is one transaction that compares what it was decided on.

use std::time::Duration;

use bytes::Bytes;
use trivet_core::keys::{self, OsdConfig, Pool, Settings};
use trivet_core::kv::{Change, Compare, Revision, Txn};
use trivet_core::map::encode;
use trivet_core::{Numbering, OsdId, PoolId};

use crate::random::Random;
use crate::world::World;

/// PGs at most: many more than objects in each would show nothing.
const MOST_PGS: u32 = 24;

impl World {
    /// An administrator takes an OSD out of the placement, or in again.
    pub(crate) fn take_out(&mut self, osd: OsdId, out: bool) {
        let Some(member) = self.truth.members.get(&osd).filter(|member| member.value.out != out) else {
            return;
        };
        let config = OsdConfig {
            out,
            ..member.value.clone()
        };
        self.replace_value(keys::osd_config(osd), member.revision, encode(&config));
    }

    /// A value takes the place of the one that was written by this commit.
    fn replace_value(&mut self, key: String, revision: Revision, value: Bytes) {
        let txn = Txn {
            compare: vec![Compare::ModRevision(key.clone(), revision)],
            changes: vec![Change::put(key, value)],
        };
        self.kv.transact(self.now, &txn);
        self.committed();
    }

    /// Asks for another number of PGs: twice or half as many, or any other that can follow.
    pub(crate) fn want_pgs(&mut self, random: &mut Random) -> Option<Duration> {
        let pools: Vec<PoolId> = self.truth.pools.keys().copied().collect();
        let id = *random.pick(&pools)?;
        let pool = self.truth.pools.get(&id)?;
        let now = pool.value.pg_count;
        let any = (1..=MOST_PGS).filter(|&count| Numbering::can_follow(count, now));
        let choices: Vec<u32> = [2 * now, now / 2].into_iter().chain(any).collect();
        let wanted = *random.pick(&choices)?;
        if !(1..=MOST_PGS).contains(&wanted) || wanted == now {
            return None;
        }
        let next = Pool {
            pgs_wanted: Some(wanted),
            ..pool.value.clone()
        };
        self.replace_value(keys::pool(id), pool.revision, encode(&next));
        Some(Duration::from_secs(2))
    }

    /// Whether anything shall be healed in the background.
    pub(crate) fn heal_nothing(&mut self, no_recovery: bool) {
        let settings = Settings {
            no_recovery,
            ..self.truth.settings.clone()
        };
        if settings == self.truth.settings {
            return;
        }
        let txn = Txn {
            compare: Vec::new(),
            changes: vec![Change::put(keys::SETTINGS, encode(&settings))],
        };
        self.kv.transact(self.now, &txn);
        self.committed();
    }
}
