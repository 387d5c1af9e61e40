//! Healing: bringing objects to the members of the acting set that lack them, or whose copy is damaged, one by one, on
//! demand before an operation and in the background.

use trivet_core::message::{Action, Op, OpError, PeerBody, WriteError};
use trivet_core::mutation::{Mutation, Ops};
use trivet_core::pace::Bounds;
use trivet_core::{ObjectId, OpId, OsdId, PgId, UnitMask, Version};
use trivet_store::api::Request;

use crate::Osd;
use crate::ctx::{Ctx, Wait};
use crate::primary::decide::Missing;
use crate::primary::late::Order;
use crate::primary::pg::{Active, StartOver};
use crate::primary::queue::{Healing, ObjectQueue, queue_of};
use crate::redundancy::copies;

/// Objects of all PGs that are healed at the same time in the background.
pub(crate) const PACE: Bounds = Bounds {
    least: 1,
    busy: 16,
    idle: 64,
};

impl Osd {
    /// Starts healing more objects, as many as the pace allows.
    pub(crate) fn heal_in_background(&mut self) {
        self.ctx.concerns.healing = true;
        // What cannot be healed makes way for others at once.
        while std::mem::take(&mut self.ctx.concerns.healing) {
            self.start_healing();
        }
    }

    /// First in the PGs whose objects have the fewest copies.
    fn start_healing(&mut self) {
        if self.ctx.map.settings.no_recovery {
            return;
        }
        let active = || self.pgs.values().filter_map(|pg| pg.active());
        let under_way: usize = active().map(|active| active.recovery.healing.len()).sum();
        let mut room = self.ctx.pace.limit().saturating_sub(under_way);
        if room == 0 {
            return;
        }
        let mut order: Vec<(usize, PgId)> = active()
            .filter_map(|active| Some((active.recovery.urgency()?, active.id)))
            .collect();
        order.sort_unstable();
        for (_, id) in order {
            let active = self.pgs.get_mut(&id).and_then(|pg| pg.active_mut());
            let active = active.expect("healing does not change who acts");
            while room > 0 && active.heal_next(&mut self.ctx) {
                room -= 1;
            }
        }
    }
}

impl Active {
    /// Starts healing another object; false if there is none, or it cannot begin.
    fn heal_next(&mut self, ctx: &mut Ctx) -> bool {
        let Some(object) = self.recovery.next(ctx.now) else {
            return false;
        };
        let before = self.recovery.healing.len();
        self.heal(ctx, object);
        self.recovery.healing.len() > before
    }

    /// Starts healing one object that is missing, once nothing else runs on it.
    pub(crate) fn heal(&mut self, ctx: &mut Ctx, object: ObjectId) {
        let missing = self.recovery.missing.get(&object);
        let missing = missing.expect("only what is missing is healed");
        let queue = self
            .queues
            .entry(object)
            .or_insert_with(|| ObjectQueue::of(&ctx.store, object));
        if queue.healing.is_some() || !queue.running.is_empty() {
            return;
        }
        queue.healing = Some(Healing {
            sources: missing.sources.clone(),
            ..Healing::default()
        });
        let tombstone = missing.is_deletion().then(|| tombstone(missing));
        self.recovery.healing.insert(object);
        match tombstone {
            Some(whole) => self.push(ctx, object, whole),
            None => self.fetch(ctx, object),
        }
    }

    /// Asks the next source for the whole object: this OSD itself first, if it has it. Those that cannot be reached have
    /// to be waited for.
    fn fetch(&mut self, ctx: &mut Ctx, object: ObjectId) {
        let (me, target) = (ctx.id(), self.target(object));
        let healing = self.queue(object).healing();
        let own = healing.sources.iter().position(|&osd| osd == me);
        let next = own.or_else(|| healing.sources.iter().rposition(|&osd| ctx.is_reachable(osd)));
        let Some(index) = next else {
            let error = if healing.sources.is_empty() {
                OpError::Damaged
            } else {
                OpError::NotPrimary
            };
            let lost = healing.gathered.wanting.union(healing.own_damage);
            return self.cannot_heal(ctx, object, error, lost);
        };
        let source = healing.sources.swap_remove(index);
        healing.asked = Some(source);
        healing.sent = ctx.now;
        if source == me {
            ctx.ask(Request::Salvage { object }, Wait::Fetch(me, target));
        } else {
            ctx.tell(source, target, PeerBody::Fetch { object });
        }
    }

    /// Sources that were asked and cannot be reached any more are left for later. This OSD itself answers, though it does not
    /// show itself while its disk stands still.
    pub(crate) fn ask_others(&mut self, ctx: &mut Ctx) {
        let me = ctx.id();
        let asked = self.recovery.healing.iter().filter_map(|object| {
            let healing = self.queues.get(object)?.healing.as_ref()?;
            Some((*object, healing.asked.filter(|_| healing.whole.is_none())?))
        });
        let gone = asked.filter(|(_, osd)| *osd != me && !ctx.is_reachable(*osd));
        let gone: Vec<(ObjectId, OsdId)> = gone.collect();
        for (object, osd) in gone {
            let healing = self.queue(object).healing();
            healing.asked = None;
            healing.sources.push(osd);
            self.fetch(ctx, object);
        }
    }

    /// The healing of an object, if it is just being healed.
    fn healing_of(&mut self, object: ObjectId) -> Option<&mut Healing> {
        self.queues.get_mut(&object)?.healing.as_mut()
    }

    /// A source has sent the whole object, or what can be read of it: the rest has to come from others.
    pub(crate) fn fetched(
        &mut self,
        ctx: &mut Ctx,
        from: OsdId,
        object: ObjectId,
        whole: Option<Mutation>,
        damaged: UnitMask,
    ) {
        // Who is asked twice answers twice, the second time perhaps when all is over.
        let Some(missing) = self.recovery.missing.get(&object) else {
            return;
        };
        let (wanted, renew, epoch) = (missing.newest.version, missing.renew, self.epoch);
        // An earlier attempt may have renewed it there, but not everywhere.
        let fits = |version: Version| version == wanted || renew && version.epoch == epoch;
        let Some(healing) = self.healing_of(object) else { return };
        if healing.whole.is_some() || healing.asked != Some(from) {
            return;
        }
        if from == ctx.id() {
            healing.own_damage = damaged;
        }
        if let Some(whole) = whole.filter(|whole| fits(whole.version)) {
            healing.gathered.add(whole, damaged);
        }
        if let Some(whole) = self.deletes_instead(ctx, object) {
            return self.push(ctx, object, whole);
        }
        match self.queue(object).healing().gathered.take_whole() {
            Some(whole) => self.push(ctx, object, whole),
            None => self.fetch(ctx, object),
        }
    }

    /// If an operation waits that leaves nothing of the object, members get no more than its tombstone: even those that
    /// have no room for the object, and even if no copy can be read. For that, one copy has to say which operations the
    /// object remembers.
    fn deletes_instead(&mut self, ctx: &mut Ctx, object: ObjectId) -> Option<Mutation> {
        let queue = self.queue(object);
        let known = queue.healing().gathered.known().filter(|known| !known.tombstone)?;
        let remembered = remembered(known).to_vec();
        let removal = queue.removal(&remembered)?;
        let order = Order {
            client: removal.client,
            stamp: removal.stamp,
            units: UnitMask::ALL,
        };
        if let Err(why) = self.order(ctx, object, &order) {
            // It must not wait for what only it could bring about.
            self.queue(object).waiting.retain(|(_, op)| op.id != removal.op);
            ctx.reply(removal.client, removal.op, Err(why));
            return None;
        }
        let missing = self.recovery.missing.get_mut(&object)?;
        *missing = Missing::deletion(missing.newest, &self.acting, removal.left);
        Some(tombstone(missing))
    }

    /// Sends the whole object to everybody who lacks it.
    fn push(&mut self, ctx: &mut Ctx, object: ObjectId, mut whole: Mutation) {
        let (me, target) = (ctx.id(), self.target(object));
        let missing = self.recovery.missing.get(&object);
        let missing = missing.expect("what is healed is missing until all have it");
        let queue = queue_of(&mut self.queues, object);
        if missing.renew {
            whole.version = queue.next_version(self.epoch, self.floor_counter);
        }
        let healing = queue.healing();
        healing.awaited.clone_from(&missing.lacking);
        healing.whole = Some(whole.clone());
        healing.sent = ctx.now;
        for (osd, mutation) in copies::shards(&missing.lacking, &whole) {
            if osd == me {
                let wait = Wait::OwnWrite(target, mutation.version);
                ctx.ask(Request::Replace { object, mutation }, wait);
            } else {
                ctx.tell(osd, target, PeerBody::Push { object, mutation });
            }
        }
    }

    /// A member has the whole object, or cannot take it.
    pub(crate) fn healed_member(
        &mut self,
        ctx: &mut Ctx,
        from: OsdId,
        object: ObjectId,
        version: Version,
        result: Result<(), WriteError>,
    ) -> Result<(), StartOver> {
        let healing = self.queue(object).healing();
        if healing.whole.as_ref().is_none_or(|whole| whole.version != version) {
            return Ok(());
        }
        match result {
            Ok(()) => healing.awaited.retain(|&osd| osd != from),
            Err(WriteError::NoSpace) => {
                self.has_no_room(ctx, from);
                self.cannot_heal(ctx, object, OpError::NoSpace, UnitMask::EMPTY);
                return Ok(());
            }
            Err(WriteError::Stale) => return Err(StartOver),
            // Its disk is gone; the map will say so.
            Err(WriteError::Failed | WriteError::Behind) => return Ok(()),
        }
        let is_over = healing.awaited.is_empty();
        if let Some(missing) = self.recovery.missing.get_mut(&object) {
            missing.now_has(from);
        }
        if is_over {
            self.healed(ctx, object, version);
        }
        Ok(())
    }

    /// A member had no room for an object. That means little while it has not deleted yet what it has to.
    fn has_no_room(&self, ctx: &mut Ctx, osd: OsdId) {
        if !self.recovery.is_deleting() {
            ctx.concerns.no_room.push(osd);
        }
    }

    /// All members have the object.
    fn healed(&mut self, ctx: &mut Ctx, object: ObjectId, version: Version) {
        let queue = queue_of(&mut self.queues, object);
        let whole = queue.healing.take().and_then(|healing| healing.whole);
        let blank = whole
            .filter(|whole| whole.tombstone)
            .map(|whole| remembered(&whole).to_vec());
        let is_tombstone = blank.is_some();
        queue.assigned = queue.assigned.max(version);
        queue.chain = version;
        queue.acknowledged = false;
        queue.blank = blank;
        self.recovery.healing.remove(&object);
        if self
            .recovery
            .missing
            .remove(&object)
            .is_some_and(|missing| missing.repair)
        {
            self.scrubs.repaired();
        }
        if is_tombstone {
            self.tombstones.note(ctx.now, object, version);
        }
        self.go_on(ctx, object);
        self.drop_if_idle(object);
        ctx.concerns.healing = true;
    }

    /// Gives up for a while: operations that need the object on all members fail. What was to be repaired and cannot is
    /// lost for good, and served without these units.
    fn cannot_heal(&mut self, ctx: &mut Ctx, object: ObjectId, error: OpError, units: UnitMask) {
        self.recovery.healing.remove(&object);
        let missing = self.recovery.missing.get(&object);
        if error == OpError::Damaged && missing.is_some_and(|missing| missing.repair) {
            return self.lose(ctx, object, units);
        }
        if error == OpError::Damaged && fall_back(self, object) {
            return self.heal(ctx, object);
        }
        if error == OpError::NoSpace && may_delete_instead(self, object) {
            return self.heal(ctx, object);
        }
        self.recovery.stuck.push_back((ctx.now, object));
        let queue = self.queues.remove(&object).expect("it was being healed");
        if queue.assigned.epoch == self.epoch {
            // A version that some member may have now must not be given to anything else.
            self.floor_counter = self.floor_counter.max(queue.assigned.counter);
        }
        for held in queue.held {
            ctx.send_on(held.client, held.op);
        }
        for (client, op) in queue.waiting {
            ctx.fail(client, op.id, refusal(&op, error));
        }
        ctx.concerns.healing = true;
    }

    /// No copy of these units can be read, nor will it ever be.
    fn lose(&mut self, ctx: &mut Ctx, object: ObjectId, units: UnitMask) {
        self.recovery.missing.remove(&object);
        self.recovery.lost.insert(object, units);
        self.scrubs.lost();
        self.queue(object).healing = None;
        self.go_on(ctx, object);
        self.drop_if_idle(object);
    }
}

/// Nothing can be read of a version that was never acknowledged: the one before it takes its place, as a new one. False
/// if there is none.
fn fall_back(active: &mut Active, object: ObjectId) -> bool {
    let acting = active.acting.clone();
    let missing = active.recovery.missing.get_mut(&object);
    let missing = missing.expect("what is healed is missing until all have it");
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
    active.queue(object).healing = None;
    true
}

/// A member has no room for the object, but an operation came meanwhile that leaves nothing of it: healing begins again,
/// and will come to that.
fn may_delete_instead(active: &mut Active, object: ObjectId) -> bool {
    let queue = active.queue(object);
    let pushed = queue.healing.as_ref().and_then(|healing| healing.whole.as_ref());
    let may = pushed.is_some_and(|whole| !whole.tombstone && queue.removal(remembered(whole)).is_some());
    if may {
        queue.healing = None;
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

/// Reads are told about damage only; what cannot be written for lack of space says so.
fn refusal(op: &Op, error: OpError) -> OpError {
    match (&op.action, error) {
        (Action::Read { .. }, OpError::NoSpace) => OpError::NotPrimary,
        _ => error,
    }
}
