//! Members without room for what they lack. The PG is better off without such a one: what it lacks cannot be served as
//! long as it takes part. It is left out until there is reason to think that it fits again.

use std::collections::BTreeMap;

use trivet_core::{Now, OBJECT_SIZE, OsdId};

use crate::ctx::Ctx;

/// A member without room counts again when there is this much, at least, bytes.
const LEAST: u64 = 4 * OBJECT_SIZE as u64;

/// And this part of its disk: or it would come and go with every few objects that are deleted.
const PART: u64 = 50;

/// The members that are left out.
#[derive(Debug, Default)]
pub(crate) struct FullMembers(BTreeMap<OsdId, Full>);

/// A member that had no room.
#[derive(Clone, Copy, Debug)]
struct Full {
    since: Now,
    /// Bytes that this OSD's own objects had then. The member is told of no deletions while it is left out: that there
    /// is less to hold shows here only.
    used: u64,
}

impl FullMembers {
    /// Whether a member is left out because it had no room.
    pub(crate) fn has(&self, osd: OsdId) -> bool {
        self.0.contains_key(&osd)
    }
}

impl Ctx {
    /// A member had no room for an object: it is left out.
    pub(crate) fn leave_out(&mut self, osd: OsdId) {
        let (since, used) = (self.now, self.store.stats().used);
        self.full.0.insert(osd, Full { since, used });
    }

    /// A member says how much room it had when it was asked, or later.
    pub(crate) fn has_room(&mut self, osd: OsdId, asked: Now, free: u64) {
        if self.full.0.get(&osd).is_some_and(|full| asked > full.since) && free >= self.room_needed(osd) {
            self.full.0.remove(&osd);
        }
    }

    /// Takes members back that may have room once they hear of what was deleted meanwhile.
    pub(crate) fn take_back_members(&mut self) {
        if self.full.0.is_empty() {
            return;
        }
        let used = self.store.stats().used;
        let mut full = std::mem::take(&mut self.full.0);
        full.retain(|&osd, full| {
            let deleted = full.used.saturating_sub(used);
            let may_have_room = deleted >= self.room_needed(osd) || deleted > 0 && used == 0;
            !may_have_room
        });
        self.full.0 = full;
    }

    fn room_needed(&self, osd: OsdId) -> u64 {
        let size = self.map.osds.get(&osd).map_or(0, |state| state.value.size);
        LEAST.max(size / PART)
    }
}
