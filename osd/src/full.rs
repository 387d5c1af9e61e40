//! Members without room for what they lack. The PG is better off without such a one: what it lacks cannot be served as
//! long as it takes part. It is left out until there is reason to think that it fits again.

use trivet_core::{Now, OBJECT_SIZE, OsdId};

use crate::Osd;
use crate::pg::{Pg, Phase};

/// A member without room counts again when there is this much, at least, bytes.
const LEAST: u64 = 4 * OBJECT_SIZE as u64;

/// And this part of its disk: or it would come and go with every few objects that are deleted.
const PART: u64 = 50;

/// A member that had no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full {
    since: Now,
    /// Bytes that this OSD's own objects had then. The member is told of no deletions while it is left out: that there
    /// is less to hold shows here only.
    used: u64,
}

impl Osd {
    /// Whether a member is left out because it had no room.
    pub(crate) fn is_full(&self, osd: OsdId) -> bool {
        self.full.contains_key(&osd)
    }

    /// A member had no room for an object. That means little while it has not deleted yet what it has to.
    pub(crate) fn has_no_room(&mut self, osd: OsdId) {
        if !self.pgs.values().any(|pg| pg.may_delete_on(osd)) {
            let (since, used) = (self.now, self.store.stats().used);
            self.full.insert(osd, Full { since, used });
        }
    }

    /// A member says how much room it had when it was asked, or later.
    pub(crate) fn has_room(&mut self, osd: OsdId, asked: Now, free: u64) {
        if self.full.get(&osd).is_some_and(|full| asked > full.since) && free >= self.room_needed(osd) {
            self.full.remove(&osd);
        }
    }

    /// Takes members back that may have room once they hear of what was deleted meanwhile.
    pub(crate) fn take_back(&mut self) {
        if self.full.is_empty() {
            return;
        }
        let used = self.store.stats().used;
        let shrunk = |osd: OsdId, full: &Full| {
            let deleted = full.used.saturating_sub(used);
            deleted >= self.room_needed(osd) || deleted > 0 && used == 0
        };
        let back: Vec<OsdId> = self
            .full
            .iter()
            .filter(|(osd, full)| shrunk(**osd, full))
            .map(|(&osd, _)| osd)
            .collect();
        for osd in back {
            self.full.remove(&osd);
        }
    }

    fn room_needed(&self, osd: OsdId) -> u64 {
        let size = self.map.osds.get(&osd).map_or(0, |state| state.value.size);
        LEAST.max(size / PART)
    }
}

impl Pg {
    /// Whether a member may still have to delete objects of the PG.
    fn may_delete_on(&self, osd: OsdId) -> bool {
        let is_deletion = |object| self.missing.get(object).is_some_and(|missing| missing.newest.tombstone);
        let pending = self.phase != Phase::Active || !self.deletions.is_empty() || self.healing.iter().any(is_deletion);
        pending && self.setting.acting.contains(&osd)
    }
}
