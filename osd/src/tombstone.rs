//! Tombstones are kept until no member can bring the object back, and a while longer: an operation on the object that
//! was executed before its deletion may still be repeated, and the tombstone remembers it.

use std::time::Duration;

use trivet_core::message::PeerBody;
use trivet_core::{Now, ObjectId, PgId, Version};
use trivet_store::api::Request;

use crate::options::mutant;
use crate::{Effect, Osd, Wait};

/// How long a tombstone is kept after every member has it. Far longer than clients take to repeat an operation.
const KEPT: Duration = Duration::from_secs(60);

/// Tombstones that are forgotten with one tick at most.
const AT_ONCE: usize = 1024;

impl Osd {
    /// Remembers the tombstones that there are when the PG becomes active.
    pub(crate) fn note_tombstones(&mut self, id: PgId) {
        let mut found: Vec<(ObjectId, Version)> = self
            .objects_of(id)
            .filter(|(_, info)| info.tombstone)
            .map(|(object, info)| (object, info.version))
            .collect();
        found.sort_unstable();
        let now = self.now;
        if let Some(pg) = self.pgs.get_mut(&id) {
            pg.tombstones = found.into_iter().map(|(object, version)| (now, object, version)).collect();
        }
    }

    /// Every member has the tombstone.
    pub(crate) fn note_tombstone(&mut self, id: PgId, object: ObjectId, version: Version) {
        if let Some(pg) = self.pgs.get_mut(&id) {
            pg.tombstones.push_back((self.now, object, version));
        }
    }

    /// Drops old tombstones on all members, while the PG is clean on its whole up set.
    pub(crate) fn forget_due(&mut self, id: PgId, out: &mut Vec<Effect>) {
        if !self.is_clean_on_up_set(id) && !mutant!(self.options, ForgetTombstones) {
            return;
        }
        for _ in 0..AT_ONCE {
            let now = self.now;
            let Some(pg) = self.pgs.get_mut(&id) else { return };
            let due = |(since, ..): &(Now, ObjectId, Version)| now.since(*since) >= KEPT;
            let Some((_, object, version)) = pg.tombstones.pop_front_if(|first| due(first)) else {
                return;
            };
            if pg.lanes.contains_key(&object) {
                // Whatever is under way on it counts on it.
                pg.tombstones.push_back((now, object, version));
            } else {
                self.forget(id, object, version, out);
            }
        }
    }

    fn forget(&mut self, id: PgId, object: ObjectId, version: Version, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        if version.epoch == pg.epoch {
            pg.floor_counter = pg.floor_counter.max(version.counter);
        }
        let epoch = pg.epoch;
        let others: Vec<_> = pg.others().collect();
        for osd in others {
            self.to_peer(osd, id, epoch, PeerBody::Forget { object, version }, out);
        }
        self.ask(Request::Forget { object, version }, Wait::Nobody);
    }

    /// Nothing is missing, and the acting set is the whole up set.
    pub(crate) fn is_clean_on_up_set(&self, id: PgId) -> bool {
        let Some(pg) = self.pgs.get(&id).filter(|pg| pg.is_clean()) else {
            return false;
        };
        self.plan_of(id)
            .is_some_and(|plan| plan.osds.iter().all(|osd| pg.setting.acting.contains(osd)))
    }
}
