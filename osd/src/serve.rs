//! The primary's side of client operations: admit, merge, mutate, wait for every member, answer.

use bytes::Bytes;
use trivet_core::buffer::{join, slice_segments};
use trivet_core::kv::Revision;
use trivet_core::message::{Action, Op, OpError, OpValue, PeerBody, WriteError};
use trivet_core::mutation::Mutation;
use trivet_core::{ClientId, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, UNIT_SIZE, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::callers::Known;
use crate::change::{change_of, leaves_nothing, partial_units};
use crate::lane::{Committing, Held, Lane, Merging, Running, Stage, mask_of};
use crate::late::Order;
use crate::options::mutant;
use crate::pg::{Pg, Phase};
use crate::{Effect, Osd, Target, Wait, reply, send_on};

impl Osd {
    /// A client's operation.
    pub(crate) fn client_op(&mut self, client: ClientId, op: Op, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get(&op.pg).filter(|pg| pg.phase == Phase::Active) else {
            return send_on(client, op.id, out);
        };
        if op.epoch != pg.epoch {
            return reply(client, op.id, Err(OpError::OtherEpoch(pg.epoch)), out);
        }
        // Who was fenced before the PG became active is known from then on.
        if self.map.revision < pg.served_from {
            return send_on(client, op.id, out);
        }
        match self.callers.heard(op.id, op.settled, self.now) {
            Known::No => {}
            Known::Settled => return,
            Known::Ended(result) => return reply(client, op.id, result, out),
        }
        if let Action::List { image, from, end } = op.action {
            if from >= end {
                return reply(client, op.id, Err(OpError::Malformed), out);
            }
            let numbers = self.image_objects(op.pg, image, from..end);
            return self.answer(op.pg, client, op.id, Ok(OpValue::Objects(numbers)), out);
        }
        if let Action::Barrier { revision } = op.action {
            return self.barrier(client, &op, revision, out);
        }
        let Some(object) = self.checked_object(&op) else {
            return reply(client, op.id, Err(OpError::Malformed), out);
        };
        self.admit(client, op, object, out);
    }

    /// Is asked again until it holds.
    fn barrier(&mut self, client: ClientId, op: &Op, revision: Revision, out: &mut Vec<Effect>) {
        if self.map.revision >= revision && !self.runs_for_fenced(op.pg) {
            self.answer(op.pg, client, op.id, Ok(OpValue::Passed), out);
        } else {
            send_on(client, op.id, out);
        }
    }

    /// The object of a well-formed operation.
    fn checked_object(&self, op: &Op) -> Option<ObjectId> {
        let object = op.action.object()?;
        let (offset, len) = match &op.action {
            Action::Read { offset, len, .. } | Action::Zero { offset, len, .. } => (*offset, *len),
            Action::Write { offset, data, .. } => (*offset, data.iter().map(Bytes::len).sum()),
            Action::Remove { .. } | Action::List { .. } | Action::Barrier { .. } => (0, 1),
        };
        let fits = len > 0 && offset.checked_add(len).is_some_and(|end| end <= OBJECT_SIZE);
        (fits && self.map.pg_of(object) == Some(op.pg)).then_some(object)
    }

    fn admit(&mut self, client: ClientId, op: Op, object: ObjectId, out: &mut Vec<Effect>) {
        let id = op.pg;
        let serve_missing = mutant!(self.options, ServeMissing);
        let read_unsettled = mutant!(self.options, ReadUnsettled) && !op.action.is_mutation();
        let (lane, tick) = (self.new_lane(object), self.tick_now());
        let crowded = op.action.is_mutation() && !self.can_remember(id, object, &op);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let is_missing = pg.missing.contains_key(&object) && !serve_missing;
        if pg.unconfirmed.iter().any(|(_, done)| done.id == op.id) {
            return;
        }
        let lane = pg.lanes.entry(object).or_insert(lane);
        if lane.knows(op.id) {
            lane.renew(&op, tick);
            return self.continue_lane(id, object, out);
        }
        let has_to_wait = !lane.waiting.is_empty() || lane.changing().intersects(mask_of(&op.action));
        let blocked = is_missing || lane.is_unequal() || crowded || (has_to_wait && !read_unsettled);
        if blocked {
            lane.waiting.push_back((client, op));
            // What waits before it may lack the room to be remembered that this one has, and nothing else may ever end here.
            let nothing_ends = lane.running.is_empty();
            if is_missing {
                self.heal(id, object, out);
            } else if nothing_ends {
                self.continue_lane(id, object, out);
            }
        } else {
            self.start(id, object, client, op, out);
            self.drop_if_idle(id, object);
        }
    }

    /// A lane for an object as the store knows it.
    pub(crate) fn new_lane(&self, object: ObjectId) -> Lane {
        let info = self.store.info(object);
        let something = info.filter(|info| !info.tombstone);
        Lane {
            assigned: info.map_or(Version::NONE, |info| info.version),
            chain: something.map_or(Version::NONE, |info| info.version),
            blank: something.is_none().then(|| self.store.ops(object)),
            ..Lane::default()
        }
    }

    /// Starts an operation that nothing stands in the way of.
    fn start(&mut self, id: PgId, object: ObjectId, client: ClientId, op: Op, out: &mut Vec<Effect>) {
        let executed = op.action.is_mutation() && self.store.executed(object, op.id);
        if executed && !mutant!(self.options, ExecuteTwice) {
            return reply(client, op.id, Ok(OpValue::Changed), out);
        }
        match op.action {
            Action::Read { offset, len, .. } => self.start_read(id, object, client, op, (offset, len)),
            _ => self.start_change(id, object, client, op, out),
        }
    }

    fn start_read(&mut self, id: PgId, object: ObjectId, client: ClientId, op: Op, (offset, len): (usize, usize)) {
        let since = self.now;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let target = pg.target(id, object);
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let wait = Wait::Read(target, op.id);
        lane.running.push(Running {
            client,
            mask: mask_of(&op.action),
            op,
            since,
            stage: Stage::Reading,
        });
        let request = Request::Read {
            object,
            first: offset / UNIT_SIZE,
            count: UnitMask::touched(offset, len).len(),
        };
        self.ask(request, wait);
    }

    /// Reads the units that the operation changes in part, if they exist.
    fn start_change(&mut self, id: PgId, object: ObjectId, client: ClientId, op: Op, out: &mut Vec<Effect>) {
        let present = self.store.info(object).map_or(UnitMask::EMPTY, |info| info.present);
        let mut merged = UnitMask(partial_units(&op.action).0 & present.0);
        if mutant!(self.options, SkipMerge) {
            merged = UnitMask::EMPTY;
        }
        let (attempt, since) = (self.next, self.now);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let target = pg.target(id, object);
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let op_id = op.id;
        lane.running.push(Running {
            client,
            mask: mask_of(&op.action),
            op,
            since,
            stage: Stage::Merging(Merging {
                attempt,
                awaited: merged,
                units: Vec::new(),
            }),
        });
        if merged.is_empty() {
            return self.mutate(target, op_id, out);
        }
        for first in merged.iter() {
            let request = Request::Read {
                object,
                first,
                count: 1,
            };
            self.ask(request, Wait::Merge(target, op_id, attempt, first));
        }
    }

    /// A client's read came back from the store.
    pub(crate) fn read_done(
        &mut self,
        target: Target,
        op: OpId,
        result: Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let read_unsettled = mutant!(self.options, ReadUnsettled);
        let Some(lane) = self.lane_of(target) else { return };
        let Some(index) = lane.find(op) else { return };
        let running = lane.running.swap_remove(index);
        let Action::Read { offset, len, .. } = running.op.action else {
            return;
        };
        self.pace.ended(self.now.since(running.since));
        match result {
            Ok(Reply::Data { version, segments }) => {
                self.count_op(&running);
                let data = slice_segments(&segments, offset % UNIT_SIZE, len);
                let (client, mask) = (running.client, running.mask);
                let Some(lane) = self.lane_of(target) else { return };
                if lane.is_settled(mask, version) || read_unsettled {
                    self.answer(target.pg, client, op, Ok(OpValue::Data(data)), out);
                } else {
                    lane.held.push(Held {
                        client,
                        op,
                        mask,
                        version,
                        data,
                    });
                }
            }
            Err(StoreError::Damaged { units, .. }) => return self.found_damage(target, running, units, out),
            // The disk failed, not the data: others take over.
            _ => send_on(running.client, op, out),
        }
        self.continue_lane(target.pg, target.object, out);
    }

    /// A unit that is to be merged came back from the store.
    pub(crate) fn merge_read(
        &mut self,
        target: Target,
        op: OpId,
        (attempt, unit): (u64, usize),
        result: Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lane_of(target) else { return };
        let Some(index) = lane.find(op) else { return };
        let Stage::Merging(merging) = &mut lane.running[index].stage else {
            return;
        };
        if merging.attempt != attempt {
            return;
        }
        match result {
            Ok(Reply::Data { segments, .. }) => {
                if merging.take(attempt, unit, join(segments)) {
                    self.mutate(target, op, out);
                }
            }
            Err(StoreError::Damaged { units, .. }) => {
                let running = lane.running.swap_remove(index);
                self.found_damage(target, running, units, out);
            }
            _ => {
                let running = lane.running.swap_remove(index);
                send_on(running.client, op, out);
                self.continue_lane(target.pg, target.object, out);
            }
        }
    }

    /// The own copy is damaged: it is repaired from another one before the operation is tried again, unless there is
    /// none, or none that is whole.
    fn found_damage(&mut self, target: Target, running: Running, units: UnitMask, out: &mut Vec<Effect>) {
        let me = self.id();
        let no_repair = mutant!(self.options, NoReadRepair);
        let Some(pg) = self.pgs.get_mut(&target.pg) else { return };
        let lost = pg.lost.get(&target.object).copied().unwrap_or(UnitMask::EMPTY);
        let hopeless = units.intersects(lost) || pg.others().next().is_none() || no_repair;
        let Some(lane) = pg.lanes.get_mut(&target.object) else {
            return;
        };
        if hopeless {
            self.fail(running.client, running.op.id, OpError::Damaged, out);
        } else {
            lane.waiting.push_front((running.client, running.op));
            lane.note_damaged(me);
        }
        self.continue_lane(target.pg, target.object, out);
    }

    /// An operation ends with an error; a late copy of it must not be executed when it could be.
    pub(crate) fn fail(&mut self, client: ClientId, op: OpId, error: OpError, out: &mut Vec<Effect>) {
        if error != OpError::NotPrimary && self.callers.ends(op, Err(error)) {
            reply(client, op, Err(error), out);
        } else {
            send_on(client, op, out);
        }
    }

    /// Gives the operation its version, if it is not too late, and sends it to every member.
    fn mutate(&mut self, target: Target, op_id: OpId, out: &mut Vec<Effect>) {
        let Target { pg: id, object, .. } = target;
        let Some(lane) = self.lane_of(target) else { return };
        let Some(index) = lane.find(op_id) else { return };
        let order = Order::of(&lane.running[index]);
        if let Err(why) = self.order(target, &order) {
            return self.give_back(target, op_id, why, out);
        }
        let info = self.store.info(object);
        let present = info.map_or(UnitMask::EMPTY, |info| info.present);
        let now = self.now;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let (epoch, floor) = (pg.epoch, pg.floor_counter);
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let Some(index) = lane.find(op_id) else { return };
        let running = &mut lane.running[index];
        let Stage::Merging(merging) = &mut running.stage else {
            return;
        };
        let merged = std::mem::take(&mut merging.units);
        let deletes = leaves_nothing(&running.op.action);
        let Some(change) = change_of(object, &running.op.action, present, &merged) else {
            let running = lane.running.swap_remove(index);
            self.count_op(&running);
            self.answer(id, running.client, op_id, Ok(OpValue::Changed), out);
            return self.continue_lane(id, object, out);
        };
        // What rests on nothing, or on a tombstone that members may have forgotten already, and its list with it, names
        // the list.
        let names_list = lane.chain == Version::NONE || change.tombstone;
        let Some(ops) = self.remember(target, op_id, deletes, names_list) else {
            return self.send_back(target, op_id, out);
        };
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let version = lane.next_version(epoch, floor);
        let mutation = Mutation {
            version,
            ops,
            zero: change.zero,
            patches: change.patches,
            tombstone: change.tombstone,
        };
        lane.running[index].stage = Stage::Committing(Committing {
            after: lane.chain,
            mutation: mutation.clone(),
            awaited: pg.setting.acting.clone(),
            failed: None,
            refused: false,
            sent: now,
        });
        self.send_mutation(target, mutation, out);
    }

    /// A change is not executed, and has no outcome: its client knows what to do.
    fn give_back(&mut self, target: Target, op_id: OpId, why: OpError, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane_of(target) else { return };
        let Some(index) = lane.find(op_id) else { return };
        let running = lane.running.swap_remove(index);
        reply(running.client, op_id, Err(why), out);
        self.continue_lane(target.pg, target.object, out);
    }

    /// To this OSD's own store first: if it has no room, the mutation never leaves.
    fn send_mutation(&mut self, target: Target, mutation: Mutation, out: &mut Vec<Effect>) {
        let (version, object) = (mutation.version, target.object);
        let answers = self.output.done.len();
        self.ask(
            Request::Write {
                object,
                mutation: mutation.clone(),
            },
            Wait::OwnWrite(target, version),
        );
        let refused = self.output.done[answers..].iter().any(|(_, result)| result.is_err());
        let me = self.id();
        let Some(pg) = self.pgs.get_mut(&target.pg) else { return };
        let others: Vec<OsdId> = pg.others().collect();
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let Some(committing) = lane.committing(version) else {
            return;
        };
        if refused {
            committing.refused = true;
            committing.awaited.retain(|&osd| osd == me);
            return;
        }
        let after = committing.after;
        lane.chain = version;
        lane.note_executed(version);
        for osd in others {
            let mutation = mutation.clone();
            let body = PeerBody::Write {
                object,
                after,
                mutation,
            };
            self.tell(osd, target, body, out);
        }
    }

    /// A member (or this OSD's own store) has ended a mutation.
    pub(crate) fn written(
        &mut self,
        from: OsdId,
        target: Target,
        version: Version,
        result: Result<(), WriteError>,
        out: &mut Vec<Effect>,
    ) {
        let me = self.id();
        let early = mutant!(self.options, AckEarly) && from == me;
        let roomless = mutant!(self.options, AckWithoutRoom);
        let Some(lane) = self.lane_of(target) else { return };
        if lane.healing.is_some() {
            return self.healed_member(from, target, version, result, out);
        }
        let is_lacking = lane.lacking.contains(&from);
        let Some(committing) = lane.committing(version) else {
            return;
        };
        match result {
            Ok(()) => committing.awaited.retain(|&osd| osd != from),
            Err(WriteError::Behind) if !is_lacking => committing.sent = trivet_core::Now(0),
            Err(WriteError::NoSpace | WriteError::Behind) => {
                committing.awaited.retain(|&osd| osd != from);
                if !roomless {
                    committing.failed = Some(OpError::NoSpace);
                }
                if from != me && !is_lacking {
                    lane.lacking.push(from);
                }
            }
            // The member has what it should not have: peering decides again.
            Err(WriteError::Stale) => return self.start_over(target.pg, out),
            // The member's disk is gone; the map will say so.
            Err(WriteError::Failed) => {}
        }
        let ended = |lane: &mut Lane| lane.committing(version).is_some_and(|c| c.awaited.is_empty() || early);
        if self.lane_of(target).is_some_and(ended) {
            self.committed(target, version, out);
        }
    }

    /// Every member has ended the mutation.
    fn committed(&mut self, target: Target, version: Version, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane_of(target) else { return };
        let Some(running) = lane.take_committing(version) else {
            return;
        };
        let Stage::Committing(Committing { failed, mutation, .. }) = &running.stage else {
            return;
        };
        let (failed, tombstone) = (*failed, mutation.tombstone);
        let acknowledged = failed.is_none();
        lane.acknowledged |= acknowledged;
        self.pace.ended(self.now.since(running.since));
        match failed {
            Some(error) => self.fail(running.client, running.op.id, error, out),
            None => {
                self.count_op(&running);
                reply(running.client, running.op.id, Ok(OpValue::Changed), out);
            }
        }
        if tombstone && acknowledged {
            self.note_tombstone(target.pg, target.object, version);
        }
        self.continue_lane(target.pg, target.object, out);
    }

    /// Answers held reads and starts waiting operations of an object after something ended.
    pub(crate) fn continue_lane(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let is_missing = pg.missing.contains_key(&object);
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        if lane.is_unequal() {
            return self.make_equal(id, object, out);
        }
        for held in lane.take_settled() {
            self.answer(id, held.client, held.op, Ok(OpValue::Data(held.data)), out);
        }
        let Some(lane) = self.pgs.get_mut(&id).and_then(|pg| pg.lanes.get_mut(&object)) else {
            return;
        };
        if is_missing && !lane.waiting.is_empty() {
            return self.heal(id, object, out);
        }
        // One by one: what is answered at once makes way for the next.
        while let Some((client, op)) = self.take_startable(id, object) {
            self.start(id, object, client, op, out);
        }
        self.drop_if_idle(id, object);
    }

    fn take_startable(&mut self, id: PgId, object: ObjectId) -> Option<(ClientId, Op)> {
        let lane = self.pgs.get(&id)?.lanes.get(&object)?;
        if lane.waiting.is_empty() {
            return None;
        }
        let index = lane.startable(self.room_to_remember(object, lane))?;
        self.pgs.get_mut(&id)?.lanes.get_mut(&object)?.waiting.remove(index)
    }

    fn can_remember(&self, id: PgId, object: ObjectId, op: &Op) -> bool {
        let lane = self.pgs.get(&id).and_then(|pg| pg.lanes.get(&object));
        lane.is_none_or(|lane| self.room_to_remember(object, lane)(op))
    }

    pub(crate) fn drop_if_idle(&mut self, id: PgId, object: ObjectId) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        if pg.lanes.get(&object).is_some_and(Lane::is_idle) {
            pg.lanes.remove(&object);
        }
    }

    /// The lane of an object, if the PG is still in this epoch.
    pub(crate) fn lane_of(&mut self, target: Target) -> Option<&mut Lane> {
        self.pgs
            .get_mut(&target.pg)
            .filter(|pg| pg.epoch == target.epoch && pg.phase == Phase::Active)?
            .lanes
            .get_mut(&target.object)
    }
}

impl Pg {
    /// An object in this epoch.
    pub(crate) fn target(&self, pg: PgId, object: ObjectId) -> Target {
        Target {
            pg,
            epoch: self.epoch,
            object,
        }
    }
}
