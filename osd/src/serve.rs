//! The primary's side of client operations: admit, merge, mutate, wait for every member, answer.

use bytes::{Bytes, BytesMut};
use trivet_core::buffer::{aligned, join, slice_segments, zeroes};
use trivet_core::message::{Action, LIST_LIMIT, Op, OpError, OpValue, PeerBody, WriteError};
use trivet_core::mutation::{Mutation, Patch};
use trivet_core::{ClientId, Epoch, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, UNIT_SIZE, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::lane::{Held, Lane, Running, Stage, mask_of};
use crate::pg::{Pg, Phase};
use crate::{Effect, Osd, Wait, reply, send_on};

impl Osd {
    /// A client's operation.
    pub(crate) fn client_op(&mut self, client: ClientId, op: Op, out: &mut Vec<Effect>) {
        let active = self.pgs.get(&op.pg).is_some_and(|pg| pg.phase == Phase::Active);
        if !active {
            return send_on(client, op.id, out);
        }
        if let Action::List { image, after } = op.action {
            let numbers = self.image_objects(op.pg, image, after, LIST_LIMIT);
            return reply(client, op.id, Ok(OpValue::Objects(numbers)), out);
        }
        let Some(object) = self.checked_object(&op) else {
            return reply(client, op.id, Err(OpError::Malformed), out);
        };
        self.admit(client, op, object, out);
    }

    /// The object of a well-formed operation.
    fn checked_object(&self, op: &Op) -> Option<ObjectId> {
        let object = op.action.object()?;
        let (offset, len) = match &op.action {
            Action::Read { offset, len, .. } | Action::Zero { offset, len, .. } => (*offset, *len),
            Action::Write { offset, data, .. } => (*offset, data.iter().map(Bytes::len).sum()),
            Action::Remove { .. } | Action::List { .. } => (0, 1),
        };
        let fits = len > 0 && offset.checked_add(len).is_some_and(|end| end <= OBJECT_SIZE);
        (fits && self.pg_of(object) == Some(op.pg)).then_some(object)
    }

    fn admit(&mut self, client: ClientId, op: Op, object: ObjectId, out: &mut Vec<Effect>) {
        let id = op.pg;
        let lane = self.new_lane(object);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let is_missing = pg.missing.contains_key(&object);
        let executed =
            op.action.is_mutation() && !is_missing && self.recent.get(&id).is_some_and(|r| r.contains(op.id));
        if executed {
            return reply(client, op.id, Ok(OpValue::Changed), out);
        }
        let lane = pg.lanes.entry(object).or_insert(lane);
        if lane.knows(op.id) {
            return;
        }
        let blocked = is_missing
            || !lane.lacking.is_empty()
            || !lane.waiting.is_empty()
            || lane.changing().intersects(mask_of(&op.action));
        if blocked {
            lane.waiting.push_back((client, op));
            if is_missing {
                self.heal(id, object, out);
            }
        } else {
            self.start(id, object, client, op, out);
        }
    }

    /// A lane for an object as the store knows it.
    pub(crate) fn new_lane(&self, object: ObjectId) -> Lane {
        let info = self.store.info(object);
        Lane {
            assigned: info.map_or(Version::NONE, |info| info.version),
            is_new: info.is_none_or(|info| info.present.is_empty()),
            ..Lane::default()
        }
    }

    /// Starts an operation that nothing stands in the way of.
    fn start(&mut self, id: PgId, object: ObjectId, client: ClientId, op: Op, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let mask = mask_of(&op.action);
        let op_id = op.id;
        if let Action::Read { offset, len, .. } = op.action {
            let touched = UnitMask::touched(offset, len);
            lane.running.push(Running {
                client,
                op,
                mask,
                stage: Stage::Reading,
            });
            let request = Request::Read {
                object,
                first: offset / UNIT_SIZE,
                count: touched.len(),
            };
            return self.ask(
                request,
                Wait::Read {
                    pg: id,
                    epoch,
                    object,
                    op: op_id,
                },
            );
        }
        let present = self.store.info(object).map_or(UnitMask::EMPTY, |info| info.present);
        let merged: Vec<usize> = partial_units(&op.action)
            .iter()
            .filter(|&unit| present.has(unit))
            .collect();
        let stage = Stage::Merging {
            awaited: merged.len(),
            units: Vec::new(),
        };
        lane.running.push(Running {
            client,
            op,
            mask,
            stage,
        });
        if merged.is_empty() {
            return self.mutate(id, object, op_id, out);
        }
        for first in merged {
            let wait = Wait::Merge {
                pg: id,
                epoch,
                object,
                op: op_id,
                first,
            };
            self.ask(
                Request::Read {
                    object,
                    first,
                    count: 1,
                },
                wait,
            );
        }
    }

    /// A client's read came back from the store.
    pub(crate) fn read_done(
        &mut self,
        id: PgId,
        epoch: Epoch,
        object: ObjectId,
        op: OpId,
        result: Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = lane_of(self.pgs.get_mut(&id), epoch, object) else {
            return;
        };
        let Some(index) = lane.find(op) else { return };
        let running = lane.running.swap_remove(index);
        let Action::Read { offset, len, .. } = running.op.action else {
            return;
        };
        match result {
            Ok(Reply::Data { version, segments }) => {
                let data = slice_segments(&segments, offset % UNIT_SIZE, len);
                if lane.is_settled(running.mask, version) {
                    reply(running.client, op, Ok(OpValue::Data(data)), out);
                } else {
                    lane.held.push(Held {
                        client: running.client,
                        op,
                        mask: running.mask,
                        version,
                        data,
                    });
                }
            }
            _ => reply(running.client, op, Err(OpError::Damaged), out),
        }
        if lane.lacking.is_empty() {
            self.drop_if_idle(id, object);
        } else {
            self.continue_lane(id, object, out);
        }
    }

    /// A unit that is to be merged came back from the store.
    #[expect(clippy::too_many_arguments, reason = "the fields of one wait")]
    pub(crate) fn merge_read(
        &mut self,
        id: PgId,
        epoch: Epoch,
        object: ObjectId,
        op: OpId,
        unit: usize,
        result: Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = lane_of(self.pgs.get_mut(&id), epoch, object) else {
            return;
        };
        let Some(index) = lane.find(op) else { return };
        let Ok(Reply::Data { segments, .. }) = result else {
            let running = lane.running.swap_remove(index);
            reply(running.client, op, Err(OpError::Damaged), out);
            return self.continue_lane(id, object, out);
        };
        let Stage::Merging { awaited, units } = &mut lane.running[index].stage else {
            return;
        };
        units.push((unit, join(segments)));
        *awaited -= 1;
        if *awaited == 0 {
            self.mutate(id, object, op, out);
        }
    }

    /// Gives the operation its version and sends it to every member.
    fn mutate(&mut self, id: PgId, object: ObjectId, op_id: OpId, out: &mut Vec<Effect>) {
        let info = self.store.info(object);
        let present = info.map_or(UnitMask::EMPTY, |info| info.present);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let Some(index) = lane.find(op_id) else { return };
        let running = &mut lane.running[index];
        let merged = match &mut running.stage {
            Stage::Merging { units, .. } => std::mem::take(units),
            Stage::Reading | Stage::Committing { .. } => return,
        };
        let Some(change) = change_of(object, &running.op.action, present, &merged) else {
            let running = lane.running.swap_remove(index);
            reply(running.client, op_id, Ok(OpValue::Changed), out);
            return self.continue_lane(id, object, out);
        };
        let counter = if lane.assigned.epoch == pg.epoch {
            lane.assigned.counter
        } else {
            0
        };
        let version = Version {
            epoch: pg.epoch,
            counter: counter.max(pg.floor_counter) + 1,
        };
        lane.assigned = version;
        let tombstone = change.tombstone;
        running.stage = Stage::Committing {
            version,
            awaited: pg.setting.acting.clone(),
            failed: None,
            tombstone,
        };
        let mutation = Mutation {
            version,
            op: op_id,
            zero: change.zero,
            patches: change.patches,
            tombstone,
        };
        self.send_mutation(id, object, mutation, out);
    }

    /// To this OSD's own store first: if it has no room, the mutation never leaves.
    fn send_mutation(&mut self, id: PgId, object: ObjectId, mutation: Mutation, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get(&id) else { return };
        let (epoch, version) = (pg.epoch, mutation.version);
        let others: Vec<OsdId> = pg.others().collect();
        let answers = self.output.done.len();
        self.own_write(id, epoch, object, mutation.clone());
        let refused = self.output.done[answers..].iter().any(|(_, result)| result.is_err());
        if refused {
            self.no_longer_awaited(id, object, version);
            return;
        }
        let Some((last, rest)) = others.split_last() else {
            return;
        };
        for &osd in rest {
            self.to_peer(
                osd,
                id,
                epoch,
                PeerBody::Write {
                    object,
                    mutation: mutation.clone(),
                },
                out,
            );
        }
        self.to_peer(*last, id, epoch, PeerBody::Write { object, mutation }, out);
    }

    /// Makes a mutation durable in this OSD's own store; [`Osd::written`] hears of it like of any member's.
    pub(crate) fn own_write(&mut self, pg: PgId, epoch: Epoch, object: ObjectId, mutation: Mutation) {
        let version = mutation.version;
        let wait = Wait::OwnWrite {
            pg,
            epoch,
            object,
            version,
        };
        self.ask(Request::Write { object, mutation }, wait);
    }

    /// The mutation was not sent to the other members.
    fn no_longer_awaited(&mut self, id: PgId, object: ObjectId, version: Version) {
        let me = self.id;
        let lane = self.pgs.get_mut(&id).and_then(|pg| pg.lanes.get_mut(&object));
        for running in lane.into_iter().flat_map(|lane| &mut lane.running) {
            if let Stage::Committing {
                version: v, awaited, ..
            } = &mut running.stage
                && *v == version
            {
                awaited.retain(|&osd| osd == me);
            }
        }
    }

    /// A member (or this OSD's own store) has ended a mutation.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn written(
        &mut self,
        from: OsdId,
        id: PgId,
        epoch: Epoch,
        object: ObjectId,
        version: Version,
        result: Result<(), WriteError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = lane_of(self.pgs.get_mut(&id), epoch, object) else {
            return;
        };
        if lane.healing.is_some() {
            return self.healed_member(from, id, object, version, result, out);
        }
        let Lane { running, lacking, .. } = lane;
        let committing = running.iter_mut().find_map(|running| match &mut running.stage {
            Stage::Committing {
                version: v,
                awaited,
                failed,
                ..
            } if *v == version => Some((awaited, failed)),
            _ => None,
        });
        let Some((awaited, failed)) = committing else { return };
        awaited.retain(|&osd| osd != from);
        match result {
            Ok(()) => {}
            Err(WriteError::NoSpace) => {
                *failed = Some(OpError::NoSpace);
                if from != self.id {
                    lacking.push(from);
                }
            }
            // The member has what it should not have: peering decides again.
            Err(WriteError::Stale) => return self.start_over(id, out),
            // The member's disk is gone; the map will say so.
            Err(WriteError::Failed) => awaited.push(from),
        }
        if awaited.is_empty() {
            self.committed(id, object, version, out);
        }
    }

    /// Every member has ended the mutation.
    fn committed(&mut self, id: PgId, object: ObjectId, version: Version, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        let index = lane
            .running
            .iter()
            .position(|r| matches!(r.stage, Stage::Committing { version: v, .. } if v == version));
        let Some(index) = index else { return };
        let running = lane.running.swap_remove(index);
        let Stage::Committing { failed, tombstone, .. } = running.stage else {
            return;
        };
        let result = match failed {
            Some(error) => Err(error),
            None => {
                lane.acknowledged = true;
                self.recent.entry(id).or_default().insert(running.op.id, version);
                Ok(OpValue::Changed)
            }
        };
        reply(running.client, running.op.id, result, out);
        if tombstone && failed.is_none() {
            self.forget_if_clean(id, object, version, out);
        }
        self.continue_lane(id, object, out);
    }

    /// Answers held reads and starts waiting operations of an object after something ended.
    pub(crate) fn continue_lane(&mut self, id: PgId, object: ObjectId, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let is_missing = pg.missing.contains_key(&object);
        let Some(lane) = pg.lanes.get_mut(&object) else { return };
        if !lane.lacking.is_empty() {
            return self.make_equal(id, object, out);
        }
        for held in lane.take_settled() {
            reply(held.client, held.op, Ok(OpValue::Data(held.data)), out);
        }
        if is_missing && !lane.waiting.is_empty() {
            return self.heal(id, object, out);
        }
        for (client, op) in lane.take_startable() {
            self.start(id, object, client, op, out);
        }
        self.drop_if_idle(id, object);
    }

    fn drop_if_idle(&mut self, id: PgId, object: ObjectId) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        if pg.lanes.get(&object).is_some_and(Lane::is_idle) {
            pg.lanes.remove(&object);
        }
    }
}

/// The lane of an object, if the PG is still in this epoch.
pub(crate) fn lane_of(pg: Option<&mut Pg>, epoch: Epoch, object: ObjectId) -> Option<&mut Lane> {
    pg.filter(|pg| pg.epoch == epoch && pg.phase == Phase::Active)?
        .lanes
        .get_mut(&object)
}

/// What a mutation does, before it has a version.
struct Change {
    zero: UnitMask,
    patches: Vec<Patch>,
    tombstone: bool,
}

/// The units that an operation changes only in part.
fn partial_units(action: &Action) -> UnitMask {
    let (offset, len) = match action {
        Action::Write { offset, data, .. } => (*offset, data.iter().map(Bytes::len).sum()),
        Action::Zero { offset, len, .. } => (*offset, *len),
        Action::Read { .. } | Action::Remove { .. } | Action::List { .. } => return UnitMask::EMPTY,
    };
    UnitMask::touched(offset, len).minus(UnitMask::covered(offset, len))
}

/// The change that an operation makes of an object with these units; none if it changes nothing.
fn change_of(object: ObjectId, action: &Action, present: UnitMask, merged: &[(usize, Bytes)]) -> Option<Change> {
    match action {
        Action::Write { offset, data, .. } => {
            let first = offset / UNIT_SIZE;
            let data = whole_units(*offset, data, merged);
            Some(Change {
                zero: UnitMask::EMPTY,
                patches: vec![Patch::seal(object, first, data)],
                tombstone: false,
            })
        }
        Action::Zero { offset, len, .. } => {
            let zero = UnitMask(UnitMask::covered(*offset, *len).0 & present.0);
            let patches: Vec<Patch> = merged
                .iter()
                .map(|(unit, old)| Patch::seal(object, *unit, zero_part(*unit, old, *offset, *len)))
                .collect();
            let unchanged = zero.is_empty() && patches.is_empty();
            let tombstone = present.minus(zero).is_empty();
            let zero = if tombstone { UnitMask::ALL } else { zero };
            (!unchanged).then_some(Change {
                zero,
                patches,
                tombstone,
            })
        }
        Action::Remove { .. } => (!present.is_empty()).then_some(Change {
            zero: UnitMask::ALL,
            patches: Vec::new(),
            tombstone: true,
        }),
        Action::Read { .. } | Action::List { .. } => None,
    }
}

/// The written bytes, filled up to whole units with what was there (or zeroes).
fn whole_units(offset: usize, data: &[Bytes], merged: &[(usize, Bytes)]) -> Bytes {
    let len: usize = data.iter().map(Bytes::len).sum();
    let end = offset + len;
    let (start, stop) = (offset / UNIT_SIZE * UNIT_SIZE, end.div_ceil(UNIT_SIZE) * UNIT_SIZE);
    if start == offset && stop == end {
        return join(data.to_vec());
    }
    let old = |unit: usize| {
        merged
            .iter()
            .find(|(u, _)| *u == unit)
            .map_or_else(|| zeroes(UNIT_SIZE), |(_, bytes)| bytes.clone())
    };
    let mut whole: BytesMut = aligned(stop - start);
    whole.extend_from_slice(&old(start / UNIT_SIZE)[..offset - start]);
    for segment in data {
        whole.extend_from_slice(segment);
    }
    if stop > end {
        let last = stop - UNIT_SIZE;
        whole.extend_from_slice(&old(last / UNIT_SIZE)[end - last..]);
    }
    whole.freeze()
}

/// A unit with the part of it that lies in `[offset, offset + len)` of the object made zero.
fn zero_part(unit: usize, old: &[u8], offset: usize, len: usize) -> Bytes {
    let base = unit * UNIT_SIZE;
    let from = offset.max(base) - base;
    let to = (offset + len).min(base + UNIT_SIZE) - base;
    let mut data = aligned(UNIT_SIZE);
    data.extend_from_slice(old);
    data[from..to].fill(0);
    data.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_writes_keep_the_rest_of_the_unit() {
        let old = Bytes::from(vec![7; UNIT_SIZE]);
        let data = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let whole = whole_units(UNIT_SIZE - 2, &data, &[(0, old.clone()), (1, old)]);
        assert_eq!(whole.len(), 2 * UNIT_SIZE);
        assert_eq!(&whole[UNIT_SIZE - 3..UNIT_SIZE + 2], [7, b'a', b'b', b'c', 7]);

        let fresh = whole_units(10, &[Bytes::from_static(b"x")], &[]);
        assert_eq!((fresh.len(), fresh[9], fresh[10], fresh[11]), (UNIT_SIZE, 0, b'x', 0));
    }

    #[test]
    fn partial_zeroes() {
        let zeroed = zero_part(1, &[7; UNIT_SIZE], 100, UNIT_SIZE);
        assert!(zeroed[..100].iter().all(|&b| b == 0) && zeroed[100..].iter().all(|&b| b == 7));
    }

    #[test]
    fn zeroing_the_last_units_makes_a_tombstone() {
        let object = ObjectId::default();
        let zero = |offset, len| Action::Zero { object, offset, len };
        let change = |action, present| change_of(object, &action, UnitMask(present), &[]);
        assert!(change(zero(0, UNIT_SIZE), 0b10).is_none(), "nothing there");
        assert!(!change(zero(0, UNIT_SIZE), 0b11).unwrap().tombstone);
        assert!(change(zero(0, 2 * UNIT_SIZE), 0b11).unwrap().tombstone);
        assert!(change(Action::Remove { object }, 0).is_none());
    }
}
