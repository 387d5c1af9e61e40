//! Healing: bringing objects to the members of the acting set that lack them, one by one, on demand before an operation
//! and in the background; and dropping tombstones when no holder can bring an object back.

use std::time::Duration;

use trivet_core::message::{Action, Listed, Op, OpError, PeerBody, WriteError};
use trivet_core::mutation::Mutation;
use trivet_core::{Epoch, ObjectId, OsdId, PgId, UNITS_PER_OBJECT, UnitMask, Version};
use trivet_store::api::Request;

use crate::decide::Missing;
use crate::lane::Healing;
use crate::pg::Phase;
use crate::serve::lane_of;
use crate::{Effect, Osd, Wait, reply, send_on};

/// Objects of one PG that are healed at the same time in the background.
const WINDOW: usize = 4;

/// An object that could not be healed is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

impl Osd {
    /// Starts healing more objects in the background.
    pub(crate) fn heal_more(&mut self, id: PgId, out: &mut Vec<Effect>) {
        loop {
            let now = self.now;
            let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.phase == Phase::Active) else {
                return;
            };
            while pg.stuck.front().is_some_and(|(since, _)| now.since(*since) >= RETRY) {
                pg.stuck.pop_front();
            }
            if pg.healing.len() >= WINDOW {
                return;
            }
            let stuck = |object: &ObjectId| pg.stuck.iter().any(|(_, s)| s == object);
            let next = pg
                .missing
                .keys()
                .find(|object| !pg.healing.contains(*object) && !stuck(object))
                .copied();
            let Some(object) = next else { return };
            let before = pg.healing.len();
            self.heal(id, object, out);
            if self.pgs.get(&id).is_none_or(|pg| pg.healing.len() == before) {
                return;
            }
        }
    }

    /// Starts healing one object, once nothing else runs on it.
    pub(crate) fn heal(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let lane = self.new_lane(object);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(missing) = pg.missing.get(&object) else { return };
        let lane = pg.lanes.entry(object).or_insert(lane);
        if lane.healing.is_some() || !lane.running.is_empty() {
            return;
        }
        let newest = missing.newest;
        lane.healing = Some(Healing {
            awaited: Vec::new(),
            sources: missing.sources.clone(),
            whole: None,
        });
        pg.healing.insert(object);
        if newest.tombstone {
            let whole = Mutation {
                version: newest.version,
                op: newest.op,
                zero: UnitMask::ALL,
                patches: Vec::new(),
                tombstone: true,
            };
            self.push(id, object, whole, out);
        } else {
            self.fetch(id, object, out);
        }
    }

    /// Asks the next source for the whole object: this OSD itself if it has it.
    fn fetch(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let me = self.id;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let Some(healing) = pg.lanes.get_mut(&object).and_then(|lane| lane.healing.as_mut()) else {
            return;
        };
        let next = healing
            .sources
            .iter()
            .position(|&osd| osd == me)
            .or(healing.sources.len().checked_sub(1));
        let Some(index) = next else {
            return self.cannot_heal(id, object, OpError::Damaged, out);
        };
        let source = healing.sources.swap_remove(index);
        if source == me {
            let wait = Wait::HealRead { pg: id, epoch, object };
            self.ask(
                Request::Read {
                    object,
                    first: 0,
                    count: UNITS_PER_OBJECT,
                },
                wait,
            );
        } else {
            self.to_peer(source, id, epoch, PeerBody::Fetch { object }, out);
        }
    }

    /// A source has sent the whole object.
    pub(crate) fn fetched(
        &mut self,
        id: PgId,
        epoch: Epoch,
        object: ObjectId,
        whole: Option<Mutation>,
        out: &mut Vec<Effect>,
    ) {
        let wanted = self
            .pgs
            .get(&id)
            .and_then(|pg| pg.missing.get(&object))
            .map(|m| m.newest.version);
        let Some(lane) = lane_of(self.pgs.get_mut(&id), epoch, object) else {
            return;
        };
        if lane.healing.as_ref().is_none_or(|healing| healing.whole.is_some()) {
            return;
        }
        match whole.filter(|whole| Some(whole.version) == wanted) {
            Some(whole) => self.push(id, object, whole, out),
            None => self.fetch(id, object, out),
        }
    }

    /// Sends the whole object to everybody who lacks it.
    fn push(&mut self, id: PgId, object: ObjectId, whole: Mutation, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let Some(lacking) = pg.missing.get(&object).map(|missing| missing.lacking.clone()) else {
            return;
        };
        let Some(healing) = pg.lanes.get_mut(&object).and_then(|lane| lane.healing.as_mut()) else {
            return;
        };
        healing.awaited.clone_from(&lacking);
        healing.whole = Some(whole.clone());
        for osd in lacking {
            if osd == self.id {
                self.own_write(id, epoch, object, whole.clone());
            } else {
                self.to_peer(
                    osd,
                    id,
                    epoch,
                    PeerBody::Write {
                        object,
                        mutation: whole.clone(),
                    },
                    out,
                );
            }
        }
    }

    /// A member has the whole object, or cannot take it.
    pub(crate) fn healed_member(
        &mut self,
        from: OsdId,
        id: PgId,
        object: ObjectId,
        version: Version,
        result: Result<(), WriteError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let Some(healing) = lane.healing.as_mut() else { return };
        if healing.whole.as_ref().is_none_or(|whole| whole.version != version) {
            return;
        }
        match result {
            // Stale: it has this version already (an answer was lost).
            Ok(()) | Err(WriteError::Stale) => healing.awaited.retain(|&osd| osd != from),
            Err(WriteError::NoSpace) => return self.cannot_heal(id, object, OpError::NoSpace, out),
            // Its disk is gone; the map will say so.
            Err(WriteError::Failed) => return,
        }
        if healing.awaited.is_empty() {
            let lane_is_new = healing.whole.as_ref().is_some_and(|whole| whole.tombstone);
            lane.healing = None;
            lane.assigned = lane.assigned.max(version);
            lane.acknowledged = false;
            lane.is_new = lane_is_new;
            pg.healing.remove(&object);
            pg.missing.remove(&object);
            self.continue_lane(id, object, out);
            self.heal_more(id, out);
            self.became_clean(id, out);
        }
    }

    /// Gives up for a while: operations that need the object on all members fail.
    fn cannot_heal(&mut self, id: PgId, object: ObjectId, error: OpError, out: &mut Vec<Effect>) {
        let now = self.now;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        pg.healing.remove(&object);
        pg.stuck.push_back((now, object));
        let Some(lane) = pg.lanes.remove(&object) else { return };
        for (client, op) in lane.waiting {
            reply(client, op.id, Err(refusal(&op, error)), out);
        }
        self.heal_more(id, out);
    }

    /// A member had no room for a mutation that others have: nothing more starts on the object until all have the same
    /// again. A new object of which nothing was acknowledged is undone everywhere; any other is brought to the member.
    pub(crate) fn make_equal(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let Some(info) = self.store.info(object) else { return };
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object).filter(|lane| lane.running.is_empty()) else {
            return;
        };
        let lacking = std::mem::take(&mut lane.lacking);
        // What was read of a mutation that failed is read again.
        for held in std::mem::take(&mut lane.held) {
            send_on(held.client, held.op, out);
        }
        let mut newest = Listed {
            object,
            version: info.version,
            op: info.op,
            present: info.present,
            tombstone: info.tombstone,
        };
        let mut missing = Missing {
            newest,
            sources: vec![self.id],
            lacking,
        };
        if lane.is_new && !lane.acknowledged {
            lane.assigned = lane.assigned.next(pg.epoch);
            newest.version = lane.assigned;
            newest.tombstone = true;
            missing = Missing {
                newest,
                sources: Vec::new(),
                lacking: pg.setting.acting.clone(),
            };
        }
        pg.missing.insert(object, missing);
        self.heal(id, object, out);
    }

    /// If the PG is clean on its whole up set, drops the tombstones that it still has.
    pub(crate) fn became_clean(&mut self, id: PgId, out: &mut Vec<Effect>) {
        if !self.is_clean_on_up_set(id) {
            return;
        }
        let Some(pool) = self.map.pools.get(&id.pool) else {
            return;
        };
        let count = pool.value.pg_count;
        let mut tombstones: Vec<(ObjectId, Version)> = self
            .store
            .objects()
            .filter(|(object, info)| info.tombstone && object.image.pool() == id.pool && object.pg(count) == id)
            .map(|(object, info)| (object, info.version))
            .collect();
        tombstones.sort_unstable();
        for (object, version) in tombstones {
            self.forget_if_clean(id, object, version, out);
        }
    }

    /// Drops a tombstone on all members if every OSD that may hold the object has confirmed its deletion.
    pub(crate) fn forget_if_clean(&mut self, id: PgId, object: ObjectId, version: Version, out: &mut Vec<Effect>) {
        if !self.is_clean_on_up_set(id) {
            return;
        }
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        if version.epoch == pg.epoch {
            pg.floor_counter = pg.floor_counter.max(version.counter);
        }
        let epoch = pg.epoch;
        let others: Vec<OsdId> = pg.others().collect();
        for osd in others {
            self.to_peer(osd, id, epoch, PeerBody::Forget { object, version }, out);
        }
        self.ask(Request::Forget { object, version }, Wait::Forget);
    }

    /// Nothing is missing, and the acting set is the whole up set.
    fn is_clean_on_up_set(&self, id: PgId) -> bool {
        let Some(pg) = self.pgs.get(&id).filter(|pg| pg.is_clean()) else {
            return false;
        };
        let number = usize::try_from(id.number).unwrap_or(usize::MAX);
        let plan = self.map.plans.get(&id.pool).and_then(|plan| plan.value.pgs.get(number));
        plan.is_some_and(|plan| plan.osds.len() == pg.setting.acting.len())
    }
}

/// Reads are told about damage only; what cannot be written for lack of space says so.
fn refusal(op: &Op, error: OpError) -> OpError {
    match (&op.action, error) {
        (Action::Read { .. }, OpError::NoSpace) => OpError::NotPrimary,
        _ => error,
    }
}
