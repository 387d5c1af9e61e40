//! Healing: bringing objects to the members of the acting set that lack them, or whose copy is damaged, one by one, on
//! demand before an operation and in the background.

use std::time::Duration;

use trivet_core::message::{Action, Listed, Op, OpError, PeerBody, WriteError};
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::pace::Bounds;
use trivet_core::{ObjectId, OpId, OsdId, PgId, UNIT_SIZE, UnitMask, Version};
use trivet_store::api::Request;

use crate::decide::Missing;
use crate::lane::Healing;
use crate::late::Order;
use crate::pg::{Pg, Phase};
use crate::{Effect, Osd, Target, Wait, reply, send_on};

/// Objects of one PG that are healed at the same time in the background.
const WINDOW: usize = 16;

/// Objects of all PGs that are healed at the same time in the background.
pub(crate) const PACE: Bounds = Bounds {
    least: 1,
    busy: 16,
    idle: 64,
};

/// An object that could not be healed is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

impl Osd {
    /// Starts healing more objects, as many as the pace allows; first in the PGs whose objects have the fewest copies.
    pub(crate) fn heal_in_background(&mut self, out: &mut Vec<Effect>) {
        if self.map.settings.no_recovery {
            return;
        }
        let under_way: usize = self.pgs.values().map(|pg| pg.healing.len()).sum();
        let mut room = self.pace.limit().saturating_sub(under_way);
        if room == 0 {
            return;
        }
        let copies = |pg: &Pg| pg.missing.values().next().map(|missing| missing.sources.len());
        let mut order: Vec<(usize, PgId)> = self
            .pgs
            .iter()
            .filter(|(_, pg)| pg.phase == Phase::Active && pg.healing.len() < WINDOW)
            .filter_map(|(&id, pg)| Some((copies(pg)?, id)))
            .collect();
        order.sort_unstable();
        for (_, id) in order {
            while room > 0 && self.heal_next(id, out) {
                room -= 1;
            }
        }
    }

    /// Starts healing another object of a PG; false if there is none, or it cannot begin.
    fn heal_next(&mut self, id: PgId, out: &mut Vec<Effect>) -> bool {
        let now = self.now;
        let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.phase == Phase::Active) else {
            return false;
        };
        while pg.stuck.front().is_some_and(|(since, _)| now.since(*since) >= RETRY) {
            pg.stuck.pop_front();
        }
        if pg.healing.len() >= WINDOW {
            return false;
        }
        let stuck = |object: &ObjectId| pg.stuck.iter().any(|(_, s)| s == object);
        let may_start = |object: &ObjectId| !pg.healing.contains(object) && !stuck(object);
        let deletion = std::iter::from_fn(|| pg.deletions.pop()).find(|o| pg.missing.contains_key(o) && may_start(o));
        let next = deletion.or_else(|| pg.missing.keys().copied().find(may_start));
        let Some(object) = next else { return false };
        let before = pg.healing.len();
        self.heal(id, object, out);
        self.pgs.get(&id).is_some_and(|pg| pg.healing.len() > before)
    }

    /// Starts healing one object, once nothing else runs on it.
    pub(crate) fn heal(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let lane = self.new_lane(object);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let target = pg.target(id, object);
        let Some(missing) = pg.missing.get(&object) else { return };
        let lane = pg.lanes.entry(object).or_insert(lane);
        if lane.healing.is_some() || !lane.running.is_empty() {
            return;
        }
        lane.healing = Some(Healing {
            sources: missing.sources.clone(),
            ..Healing::default()
        });
        let tombstone = missing.is_deletion().then(|| tombstone(missing));
        pg.healing.insert(object);
        match tombstone {
            Some(whole) => self.push(target, whole, out),
            None => self.fetch(target, out),
        }
    }

    /// Asks the next source for the whole object: this OSD itself first, if it has it. Those that cannot be reached have
    /// to be waited for.
    fn fetch(&mut self, target: Target, out: &mut Vec<Effect>) {
        let (me, now) = (self.id(), self.now);
        let sources = self.healing_of(target).map(|healing| healing.sources.clone());
        let Some(sources) = sources else { return };
        let own = sources.iter().position(|&osd| osd == me);
        let next = own.or_else(|| sources.iter().rposition(|&osd| self.is_reachable(osd)));
        let Some(healing) = self.healing_of(target) else { return };
        let Some(index) = next else {
            let error = if sources.is_empty() {
                OpError::Damaged
            } else {
                OpError::NotPrimary
            };
            let lost = healing.wanting.union(healing.own_damage);
            return self.cannot_heal(target, error, lost, out);
        };
        let source = healing.sources.swap_remove(index);
        healing.asked = Some(source);
        healing.sent = now;
        let object = target.object;
        if source == me {
            self.ask(Request::Salvage { object }, Wait::Fetch(me, target));
        } else {
            self.tell(source, target, PeerBody::Fetch { object }, out);
        }
    }

    fn healing_of(&mut self, target: Target) -> Option<&mut Healing> {
        self.lane_of(target)?.healing.as_mut()
    }

    /// Sources that were asked and cannot be reached any more are left for later. This OSD itself answers, though it does not
    /// show itself while its disk stands still.
    pub(crate) fn ask_others(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let me = self.id();
        let Some(pg) = self.pgs.get(&id) else { return };
        let asked = pg.healing.iter().filter_map(|object| {
            let healing = pg.lanes.get(object)?.healing.as_ref()?;
            Some((*object, healing.asked.filter(|_| healing.whole.is_none())?))
        });
        let gone = asked.filter(|(_, osd)| *osd != me && !self.is_reachable(*osd));
        let gone: Vec<(Target, OsdId)> = gone.map(|(object, osd)| (pg.target(id, object), osd)).collect();
        for (target, osd) in gone {
            if let Some(healing) = self.healing_of(target) {
                healing.asked = None;
                healing.sources.push(osd);
                self.fetch(target, out);
            }
        }
    }

    /// A source has sent the whole object, or what can be read of it: the rest has to come from others.
    pub(crate) fn fetched(
        &mut self,
        from: OsdId,
        target: Target,
        whole: Option<Mutation>,
        damaged: UnitMask,
        out: &mut Vec<Effect>,
    ) {
        let missing = self.pgs.get(&target.pg).and_then(|pg| pg.missing.get(&target.object));
        let Some((wanted, renew)) = missing.map(|missing| (missing.newest.version, missing.renew)) else {
            return;
        };
        let me = self.id();
        // An earlier attempt may have renewed it there, but not everywhere.
        let fits = |version: Version| version == wanted || renew && version.epoch == target.epoch;
        let Some(healing) = self.healing_of(target) else { return };
        if healing.whole.is_some() || healing.asked != Some(from) {
            return;
        }
        if from == me {
            healing.own_damage = damaged;
        }
        if let Some(whole) = whole.filter(|whole| fits(whole.version)) {
            gather(healing, whole, damaged);
        }
        if let Some(whole) = self.deletes_instead(target, out) {
            return self.push(target, whole, out);
        }
        let Some(healing) = self.healing_of(target) else { return };
        match healing.gathered.take_if(|_| healing.wanting.is_empty()) {
            Some(whole) => self.push(target, whole, out),
            None => self.fetch(target, out),
        }
    }

    /// If an operation waits that leaves nothing of the object, members get no more than its tombstone: even those that
    /// have no room for the object, and even if no copy can be read. For that, one copy has to say which operations the
    /// object remembers.
    fn deletes_instead(&mut self, target: Target, out: &mut Vec<Effect>) -> Option<Mutation> {
        let lane = self.pgs.get(&target.pg)?.lanes.get(&target.object)?;
        let known = lane.healing.as_ref().and_then(|healing| healing.gathered.as_ref())?;
        if known.tombstone {
            return None;
        }
        let removal = lane.removal(remembered(known))?;
        let order = Order {
            client: removal.client,
            stamp: removal.stamp,
            units: UnitMask::ALL,
        };
        if let Err(why) = self.order(target, &order) {
            // It must not wait for what only it could bring about.
            self.lane_of(target)?.waiting.retain(|(_, op)| op.id != removal.op);
            reply(removal.client, removal.op, Err(why), out);
            return None;
        }
        let ops = removal.left;
        let pg = self.pgs.get_mut(&target.pg)?;
        let missing = pg.missing.get_mut(&target.object)?;
        *missing = Missing::deletion(missing.newest, &pg.setting.acting, ops);
        Some(tombstone(missing))
    }

    /// Sends the whole object to everybody who lacks it.
    fn push(&mut self, target: Target, mut whole: Mutation, out: &mut Vec<Effect>) {
        let (me, now) = (self.id(), self.now);
        let Target { pg: id, object, .. } = target;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(missing) = pg.missing.get(&object) else { return };
        let (lacking, renew, floor) = (missing.lacking.clone(), missing.renew, pg.floor_counter);
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        if renew {
            whole.version = lane.next_version(target.epoch, floor);
        }
        let Some(healing) = lane.healing.as_mut() else { return };
        healing.awaited.clone_from(&lacking);
        healing.whole = Some(whole.clone());
        healing.sent = now;
        for osd in lacking {
            let mutation = whole.clone();
            if osd == me {
                let wait = Wait::OwnWrite(target, mutation.version);
                self.ask(Request::Replace { object, mutation }, wait);
            } else {
                self.tell(osd, target, PeerBody::Push { object, mutation }, out);
            }
        }
    }

    /// A member has the whole object, or cannot take it.
    pub(crate) fn healed_member(
        &mut self,
        from: OsdId,
        target: Target,
        version: Version,
        result: Result<(), WriteError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(healing) = self.healing_of(target) else { return };
        if healing.whole.as_ref().is_none_or(|whole| whole.version != version) {
            return;
        }
        match result {
            Ok(()) => {
                healing.awaited.retain(|&osd| osd != from);
                let pg = self.pgs.get_mut(&target.pg);
                if let Some(missing) = pg.and_then(|pg| pg.missing.get_mut(&target.object)) {
                    missing.now_has(from);
                }
            }
            Err(WriteError::NoSpace) => {
                self.has_no_room(from);
                return self.cannot_heal(target, OpError::NoSpace, UnitMask::EMPTY, out);
            }
            Err(WriteError::Stale) => return self.start_over(target.pg, out),
            // Its disk is gone; the map will say so.
            Err(WriteError::Failed | WriteError::Behind) => return,
        }
        if self
            .healing_of(target)
            .is_some_and(|healing| healing.awaited.is_empty())
        {
            self.healed(target, version, out);
        }
    }

    /// All members have the object.
    fn healed(&mut self, target: Target, version: Version, out: &mut Vec<Effect>) {
        let Target { pg: id, object, .. } = target;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let whole = lane.healing.take().and_then(|healing| healing.whole);
        let blank = whole
            .filter(|whole| whole.tombstone)
            .map(|whole| remembered(&whole).to_vec());
        let is_tombstone = blank.is_some();
        lane.assigned = lane.assigned.max(version);
        lane.chain = version;
        lane.acknowledged = false;
        lane.blank = blank;
        pg.healing.remove(&object);
        if pg.missing.remove(&object).is_some_and(|missing| missing.repair)
            && let Some(scrub) = &mut pg.scrub
        {
            scrub.report.repaired += 1;
        }
        if is_tombstone {
            self.note_tombstone(id, object, version);
        }
        self.continue_lane(id, object, out);
        self.drop_if_idle(id, object);
        self.heal_in_background(out);
    }

    /// Gives up for a while: operations that need the object on all members fail. What was to be repaired and cannot is
    /// lost for good, and served without these units.
    fn cannot_heal(&mut self, target: Target, error: OpError, units: UnitMask, out: &mut Vec<Effect>) {
        let now = self.now;
        let Target { pg: id, object, .. } = target;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        pg.healing.remove(&object);
        let lost = error == OpError::Damaged && pg.missing.get(&object).is_some_and(|missing| missing.repair);
        if lost {
            pg.missing.remove(&object);
            pg.lost.insert(object, units);
            if let Some(scrub) = &mut pg.scrub {
                scrub.report.lost += 1;
            }
            if let Some(lane) = pg.lanes.get_mut(&object) {
                lane.healing = None;
            }
            self.continue_lane(id, object, out);
            return self.drop_if_idle(id, object);
        }
        if error == OpError::Damaged && fall_back(pg, object) {
            return self.heal(id, object, out);
        }
        if error == OpError::NoSpace && may_delete_instead(pg, object) {
            return self.heal(id, object, out);
        }
        pg.stuck.push_back((now, object));
        let Some(lane) = pg.lanes.remove(&object) else { return };
        if lane.assigned.epoch == pg.epoch {
            // A version that some member may have now must not be given to anything else.
            pg.floor_counter = pg.floor_counter.max(lane.assigned.counter);
        }
        for held in lane.held {
            send_on(held.client, held.op, out);
        }
        for (client, op) in lane.waiting {
            self.fail(client, op.id, refusal(&op, error), out);
        }
        self.heal_in_background(out);
    }

    /// Some member does not have what the others have: it had no room for a mutation, or its copy is damaged. Once
    /// nothing is under way, all get the same again. A new object of which nothing was acknowledged is undone
    /// everywhere; any other is brought to those members.
    pub(crate) fn make_equal(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let Some(info) = self.store.info(object) else { return };
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object).filter(|lane| lane.running.is_empty()) else {
            return;
        };
        let (roomless, damaged) = (std::mem::take(&mut lane.lacking), std::mem::take(&mut lane.damaged));
        // What failed may be undone.
        lane.executed.clear();
        // What was read of a mutation that failed is read again.
        for held in std::mem::take(&mut lane.held) {
            send_on(held.client, held.op, out);
        }
        let newest = Listed {
            object,
            version: info.version,
            tombstone: info.tombstone,
        };
        let acting = &pg.setting.acting;
        let undone = lane
            .blank
            .as_ref()
            .filter(|_| !lane.acknowledged && !roomless.is_empty());
        let missing = match undone {
            Some(ops) => Missing::deletion(newest, acting, ops.clone()),
            None => Missing {
                newest,
                sources: acting.iter().copied().filter(|osd| !roomless.contains(osd)).collect(),
                repair: roomless.is_empty(),
                lacking: acting
                    .iter()
                    .copied()
                    .filter(|osd| roomless.contains(osd) || damaged.contains(osd))
                    .collect(),
                ops: Vec::new(),
                renew: false,
                fallback: None,
            },
        };
        pg.missing.insert(object, missing);
        self.heal(id, object, out);
    }
}

/// Nothing can be read of a version that was never acknowledged: the one before it takes its place, as a new one. False
/// if there is none.
fn fall_back(pg: &mut Pg, object: ObjectId) -> bool {
    let acting = pg.setting.acting.clone();
    let Some(missing) = pg.missing.get_mut(&object) else {
        return false;
    };
    let Some(fallback) = missing.fallback.take() else {
        return false;
    };
    *missing = Missing {
        newest: fallback.newest,
        sources: fallback.sources,
        lacking: acting,
        ops: Vec::new(),
        renew: true,
        repair: false,
        fallback: None,
    };
    if let Some(lane) = pg.lanes.get_mut(&object) {
        lane.healing = None;
    }
    true
}

/// A member has no room for the object, but an operation came meanwhile that leaves nothing of it: healing begins again,
/// and will come to that.
fn may_delete_instead(pg: &mut Pg, object: ObjectId) -> bool {
    let Some(lane) = pg.lanes.get_mut(&object) else {
        return false;
    };
    let pushed = lane.healing.as_ref().and_then(|healing| healing.whole.as_ref());
    let may = pushed.is_some_and(|whole| !whole.tombstone && lane.removal(remembered(whole)).is_some());
    if may {
        lane.healing = None;
    }
    may
}

/// The tombstone that has to be made.
fn tombstone(missing: &Missing) -> Mutation {
    Mutation {
        version: missing.newest.version,
        ops: Ops::Exactly(missing.ops.clone()),
        zero: UnitMask::ALL,
        patches: Vec::new(),
        tombstone: true,
    }
}

/// What a whole object remembers.
fn remembered(whole: &Mutation) -> &[OpId] {
    match &whole.ops {
        Ops::Exactly(list) => list,
        Ops::Add { .. } => &[],
    }
}

/// Adds to what is gathered the units that are still wanting.
fn gather(healing: &mut Healing, whole: Mutation, damaged: UnitMask) {
    let Some(gathered) = &mut healing.gathered else {
        healing.gathered = Some(whole);
        healing.wanting = damaged;
        return;
    };
    for patch in whole.patches {
        let found = UnitMask(patch.mask().0 & healing.wanting.0);
        gathered.patches.extend(found.iter().map(|unit| one_unit(&patch, unit)));
    }
    healing.wanting = UnitMask(healing.wanting.0 & damaged.0);
}

/// One unit of a patch.
fn one_unit(patch: &Patch, unit: usize) -> Patch {
    let index = unit - patch.first;
    Patch {
        first: unit,
        data: patch.data.slice(index * UNIT_SIZE..(index + 1) * UNIT_SIZE),
        sums: vec![patch.sums[index]],
    }
}

/// Reads are told about damage only; what cannot be written for lack of space says so.
fn refusal(op: &Op, error: OpError) -> OpError {
    match (&op.action, error) {
        (Action::Read { .. }, OpError::NoSpace) => OpError::NotPrimary,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A whole object of three units with this fill, without those that are damaged.
    fn whole(fill: u8, damaged: UnitMask) -> Mutation {
        let object = ObjectId::default();
        let present = UnitMask::range(0, 3).minus(damaged);
        let patches = present
            .runs()
            .map(|(first, count)| Patch::seal(object, first, Bytes::from(vec![fill; count * UNIT_SIZE])));
        Mutation {
            version: Version::NONE,
            ops: Ops::Exactly(Vec::new()),
            zero: UnitMask::ALL,
            patches: patches.collect(),
            tombstone: false,
        }
    }

    #[test]
    fn what_one_source_cannot_read_comes_from_another() {
        let mut healing = Healing::default();
        gather(&mut healing, whole(1, UnitMask(0b110)), UnitMask(0b110));
        assert_eq!(healing.wanting, UnitMask(0b110));
        gather(&mut healing, whole(1, UnitMask(0b011)), UnitMask(0b011));
        assert_eq!(healing.wanting, UnitMask(0b010), "nobody has the one in the middle");
        gather(&mut healing, whole(1, UnitMask(0b001)), UnitMask(0b001));
        assert!(healing.wanting.is_empty());
        let units: UnitMask = healing
            .gathered
            .unwrap()
            .patches
            .iter()
            .inspect(|patch| assert!(patch.verify(ObjectId::default())))
            .fold(UnitMask::EMPTY, |mask, patch| {
                assert!(!mask.intersects(patch.mask()));
                mask.union(patch.mask())
            });
        assert_eq!(units, UnitMask(0b111));
    }
}
