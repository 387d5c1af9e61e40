//! Tombstones are kept until no member can bring the object back, and a while longer: an operation on the object that
//! was executed before its deletion may still be repeated, and the tombstone remembers it.

use std::time::Duration;

use trivet_core::message::PeerBody;
use trivet_core::{Now, ObjectId, OsdId, PgId, Version};
use trivet_store::api::Request;

use crate::options::mutant;
use crate::{Effect, Osd, Target, Wait};

/// How long a tombstone is kept after every member has it. Far longer than clients take to repeat an operation.
const KEPT: Duration = Duration::from_secs(60);

/// Tombstones of a PG that are being forgotten at the same time, at most.
const AT_ONCE: usize = 1024;

/// A member that has not confirmed is told again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A tombstone that members are to forget.
#[derive(Debug)]
pub(crate) struct Forgetting {
    version: Version,
    /// Who has not confirmed.
    awaited: Vec<OsdId>,
    sent: Option<Now>,
}

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
            pg.tombstones = found
                .into_iter()
                .map(|(object, version)| (now, object, version))
                .collect();
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
        let now = self.now;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let others: Vec<OsdId> = pg.others().collect();
        while pg.forgetting.len() < AT_ONCE
            && let Some((_, object, version)) = pg.tombstones.pop_front_if(|first| now.since(first.0) >= KEPT)
        {
            if pg.lanes.contains_key(&object) {
                // Whatever is under way on it counts on it.
                pg.tombstones.push_back((now, object, version));
                continue;
            }
            if version.epoch == epoch {
                pg.floor_counter = pg.floor_counter.max(version.counter);
            }
            let forgetting = Forgetting {
                version,
                awaited: others.clone(),
                sent: None,
            };
            pg.forgetting.insert(object, forgetting);
        }
        self.send_forget(id, out);
    }

    /// Tells members that have not confirmed, and may not have heard, to forget.
    fn send_forget(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let now = self.now;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let mut bodies: Vec<(OsdId, PeerBody)> = Vec::new();
        let mut over: Vec<(ObjectId, Version)> = Vec::new();
        for (&object, forgetting) in &mut pg.forgetting {
            let version = forgetting.version;
            if forgetting.awaited.is_empty() {
                over.push((object, version));
            } else if forgetting.sent.is_none_or(|at| now.since(at) >= AGAIN) {
                forgetting.sent = Some(now);
                let to = forgetting.awaited.iter();
                bodies.extend(to.map(|&osd| (osd, PeerBody::Forget { object, version })));
            }
        }
        for (osd, body) in bodies {
            self.to_peer(osd, id, epoch, body, out);
        }
        for (object, version) in over {
            self.forget_own(id, object, version);
        }
    }

    /// A member has forgotten a tombstone; this OSD does so last, so that it knows of all that are left.
    pub(crate) fn forgotten(&mut self, from: OsdId, target: Target, version: Version) {
        let Some(pg) = self.pgs.get_mut(&target.pg).filter(|pg| pg.epoch == target.epoch) else {
            return;
        };
        let Some(forgetting) = pg.forgetting.get_mut(&target.object).filter(|f| f.version == version) else {
            return;
        };
        forgetting.awaited.retain(|&osd| osd != from);
        if forgetting.awaited.is_empty() {
            self.forget_own(target.pg, target.object, version);
        }
    }

    fn forget_own(&mut self, id: PgId, object: ObjectId, version: Version) {
        if let Some(pg) = self.pgs.get_mut(&id) {
            pg.forgetting.remove(&object);
        }
        self.ask(Request::Forget { object, version }, Wait::Nobody);
    }

    /// Nothing is missing, and the acting set is the whole up set; and so the history says: nobody else will be asked.
    pub(crate) fn is_clean_on_up_set(&self, id: PgId) -> bool {
        let Some(pg) = self.pgs.get(&id).filter(|pg| pg.is_clean() && pg.is_recorded()) else {
            return false;
        };
        self.map
            .plan_of(id)
            .is_some_and(|plan| plan.osds.iter().all(|osd| pg.setting.acting.contains(osd)))
    }
}
