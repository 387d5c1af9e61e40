//! The operations of one object at its primary: what runs, what waits for it, and which reads must not be answered yet.
//!
//! Operations on disjoint units run at the same time; a write that touches a unit waits for every earlier operation
//! that writes it. Versions are given in the order in which mutations are sent out.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use trivet_core::message::{Action, Op, OpError};
use trivet_core::mutation::{MAX_OPS, Mutation, Ops};
use trivet_core::{ClientId, Epoch, Now, ObjectId, OpId, OsdId, Tick, UnitMask, Version};
use trivet_store::Store;

use crate::primary::change::leaves_nothing;
use crate::redundancy::copies::Gathered;

/// One client operation that was admitted.
#[derive(Debug)]
pub(crate) struct Running {
    pub client: ClientId,
    pub op: Op,
    /// The units that it reads or changes.
    pub mask: UnitMask,
    /// When it was admitted.
    pub since: Now,
    pub stage: Stage,
}

impl Running {
    /// Whether it is a change on its way to the members.
    pub(crate) fn has_version(&self) -> bool {
        matches!(self.stage, Stage::Committing(_))
    }
}

/// How far an operation is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The store reads.
    Reading,
    /// The store reads units that the operation changes in part.
    Merging(Merging),
    /// Members make the mutation durable.
    Committing(Committing),
}

/// The old contents of the units that an operation changes in part.
#[derive(Debug)]
pub(crate) struct Merging {
    /// Which attempt it is: answers to an earlier one may come late, and be old.
    pub attempt: u64,
    pub awaited: UnitMask,
    pub units: Vec<(usize, Bytes)>,
}

impl Merging {
    /// A unit was read for an attempt. True if that was the last one.
    pub(crate) fn take(&mut self, attempt: u64, unit: usize, data: Bytes) -> bool {
        if attempt != self.attempt || !self.awaited.has(unit) {
            return false;
        }
        self.awaited = self.awaited.minus(UnitMask::range(unit, 1));
        self.units.push((unit, data));
        self.awaited.is_empty()
    }
}

/// A mutation on its way.
#[derive(Debug)]
pub(crate) struct Committing {
    /// The version that it rests on.
    pub after: Version,
    pub mutation: Mutation,
    /// Who has not answered.
    pub awaited: Vec<OsdId>,
    pub failed: Option<OpError>,
    /// This OSD had no room for it: it went nowhere.
    pub refused: bool,
    /// When it was sent last.
    pub sent: Now,
}

/// A read whose bytes may belong to a mutation that not every member has yet.
#[derive(Debug)]
pub(crate) struct Held {
    pub client: ClientId,
    pub op: OpId,
    pub mask: UnitMask,
    pub version: Version,
    pub data: Vec<Bytes>,
}

/// The object is brought to the members that lack it.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    /// Who is to send the whole object.
    pub asked: Option<OsdId>,
    /// Sources not tried yet.
    pub sources: Vec<OsdId>,
    /// What was gathered so far.
    pub gathered: Gathered,
    /// Units of this OSD's own copy that cannot be read.
    pub own_damage: UnitMask,
    /// What is sent to those who lack it.
    pub whole: Option<Mutation>,
    /// Who has not answered.
    pub awaited: Vec<OsdId>,
    /// When something was sent last.
    pub sent: Now,
}

/// A client's mutations of the object that are part of it, in the order in which the client issued them: once all up to
/// some sequence are, the object need not remember them one by one.
#[derive(Debug, Default)]
pub(crate) struct Executed {
    /// All below were answered, or are part of the object.
    bound: u64,
    /// Those beyond that are, and which of the client's was the one before each.
    ahead: BTreeMap<u64, u64>,
}

impl Executed {
    fn note(&mut self, op: &Op) {
        self.bound = self.bound.max(op.answered);
        if op.previous >= self.bound {
            self.ahead.insert(op.id.sequence, op.previous);
            return;
        }
        self.bound = self.bound.max(op.id.sequence + 1);
        while let Some(first) = self.ahead.first_entry()
            && (*first.get() < self.bound || *first.key() < self.bound)
        {
            self.bound = self.bound.max(first.remove_entry().0 + 1);
        }
    }
}

/// An operation that leaves nothing of the object.
#[derive(Debug)]
pub(crate) struct Removal {
    pub client: ClientId,
    pub op: OpId,
    pub stamp: Tick,
    /// What is left of the list of remembered operations after it.
    pub left: Vec<OpId>,
}

/// What runs on one object, and what waits.
#[derive(Debug, Default)]
pub(crate) struct ObjectQueue {
    /// The newest version given out.
    pub assigned: Version,
    /// The version that the next mutation rests on: the newest that was sent.
    pub chain: Version,
    pub running: Vec<Running>,
    pub waiting: VecDeque<(ClientId, Op)>,
    pub held: Vec<Held>,
    pub healing: Option<Healing>,
    /// What was executed here, by client.
    pub executed: BTreeMap<ClientId, Executed>,
    /// Members that had no room for a mutation which others have.
    pub lacking: Vec<OsdId>,
    /// Members whose copy is damaged.
    pub damaged: Vec<OsdId>,
    /// A mutation was acknowledged since the queue was made.
    pub acknowledged: bool,
    /// If nothing of the object was there when the queue was made or last healed: the operations that its tombstone
    /// remembers.
    pub blank: Option<Vec<OpId>>,
}

impl ObjectQueue {
    /// An empty one, of an object as the store knows it.
    pub(crate) fn of(store: &Store, object: ObjectId) -> ObjectQueue {
        let info = store.info(object);
        let something = info.filter(|info| !info.tombstone);
        ObjectQueue {
            assigned: info.map_or(Version::NONE, |info| info.version),
            chain: something.map_or(Version::NONE, |info| info.version),
            blank: something.is_none().then(|| store.ops(object)),
            ..ObjectQueue::default()
        }
    }

    /// Nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.waiting.is_empty()
            && self.held.is_empty()
            && self.healing.is_none()
            && !self.is_unequal()
    }

    /// Some members do not have what the others have: nothing more may start.
    pub(crate) fn is_unequal(&self) -> bool {
        !self.lacking.is_empty() || !self.damaged.is_empty()
    }

    /// A member's copy is damaged.
    pub(crate) fn note_damaged(&mut self, osd: OsdId) {
        if !self.damaged.contains(&osd) {
            self.damaged.push(osd);
        }
    }

    /// Gives out the next version.
    pub(crate) fn next_version(&mut self, epoch: Epoch, floor: u64) -> Version {
        let last = if self.assigned.epoch == epoch {
            self.assigned.counter
        } else {
            0
        };
        self.assigned = Version {
            epoch,
            counter: last.max(floor) + 1,
        };
        self.assigned
    }

    /// Below this, all of the client's operations on the object were answered, or are part of it before `op` is.
    pub(crate) fn known_below(&self, op: &Op) -> u64 {
        let bound = self.executed.get(&op.id.client).map_or(0, |executed| executed.bound);
        let bound = bound.max(op.answered);
        // Not more than that, even of an operation that was answered long ago: what is above is not below it.
        if op.previous < bound { op.id.sequence } else { bound }
    }

    /// The mutation with this version is part of the object.
    pub(crate) fn note_executed(&mut self, version: Version) {
        let is_it = |stage: &Stage| matches!(stage, Stage::Committing(c) if c.mutation.version == version);
        if let Some(running) = self.running.iter().find(|running| is_it(&running.stage)) {
            let executed = self.executed.entry(running.op.id.client).or_default();
            executed.note(&running.op);
        }
    }

    /// What the mutations on their way make of a list that is of the version `since`.
    pub(crate) fn apply_under_way(&self, since: Version, list: &mut Vec<OpId>) {
        let mutation = |running: &Running| match &running.stage {
            Stage::Committing(committing) if !committing.refused => {
                Some((committing.mutation.version, committing.mutation.ops.clone()))
            }
            _ => None,
        };
        let mut under_way: Vec<(Version, Ops)> = self.running.iter().filter_map(mutation).collect();
        under_way.retain(|(version, _)| *version > since);
        under_way.sort_unstable_by_key(|(version, _)| *version);
        under_way.iter().for_each(|(_, ops)| ops.apply(list));
    }

    /// A copy of an operation that waits says more than the first one did of what its client has heard.
    pub(crate) fn renew(&mut self, copy: &Op, now: Tick) {
        // What runs has said it when it began.
        let Some((_, op)) = self.waiting.iter_mut().find(|(_, op)| op.id == copy.id) else {
            return;
        };
        if op.answered <= copy.answered {
            (op.answered, op.previous) = (copy.answered, copy.previous);
        }
        if copy.stamp.age(now) < op.stamp.age(now) {
            op.stamp = copy.stamp;
        }
    }

    /// The mutation on its way with this version.
    pub(crate) fn committing(&mut self, version: Version) -> Option<&mut Committing> {
        self.running.iter_mut().find_map(|running| match &mut running.stage {
            Stage::Committing(committing) if committing.mutation.version == version => Some(committing),
            _ => None,
        })
    }

    /// The object's healing, which is under way.
    pub(crate) fn healing(&mut self) -> &mut Healing {
        self.healing.as_mut().expect("the object is being healed")
    }

    /// Takes out the mutation with this version, which is on its way.
    pub(crate) fn take_committing(&mut self, version: Version) -> Running {
        let is_it = |running: &Running| match &running.stage {
            Stage::Committing(committing) => committing.mutation.version == version,
            Stage::Reading | Stage::Merging(_) => false,
        };
        let index = self.running.iter().position(is_it);
        self.running.swap_remove(index.expect("the mutation is on its way"))
    }

    /// What is merged for a running operation; none if it is not running, or further.
    pub(crate) fn merging(&mut self, op: OpId) -> Option<&mut Merging> {
        match &mut self.running.iter_mut().find(|running| running.op.id == op)?.stage {
            Stage::Merging(merging) => Some(merging),
            Stage::Reading | Stage::Committing(_) => None,
        }
    }

    /// An operation that runs.
    pub(crate) fn get_running(&self, op: OpId) -> &Running {
        &self.running[self.place(op)]
    }

    /// An operation that runs.
    pub(crate) fn running_mut(&mut self, op: OpId) -> &mut Running {
        let place = self.place(op);
        &mut self.running[place]
    }

    /// Takes out an operation that runs.
    pub(crate) fn take_running(&mut self, op: OpId) -> Running {
        let place = self.place(op);
        self.running.swap_remove(place)
    }

    fn place(&self, op: OpId) -> usize {
        let place = self.running.iter().position(|running| running.op.id == op);
        place.expect("it runs until it is taken out")
    }

    /// Whether this operation is here already.
    pub(crate) fn knows(&self, id: OpId) -> bool {
        self.running.iter().any(|r| r.op.id == id)
            || self.waiting.iter().any(|(_, op)| op.id == id)
            || self.held.iter().any(|held| held.op == id)
    }

    /// The units that running operations change.
    pub(crate) fn changing(&self) -> UnitMask {
        let masks = self
            .running
            .iter()
            .filter(|r| r.op.action.is_mutation())
            .map(|r| r.mask);
        masks.fold(UnitMask::EMPTY, UnitMask::union)
    }

    /// Which waiting operation is the first that nothing stands in the way of any more: neither what runs nor what
    /// waits before it. It must run, or be answered, before the next one is taken. What has no room to be remembered
    /// stands in nobody's way: only others can make room.
    pub(crate) fn startable(&self, has_room: impl Fn(&Op) -> bool) -> Option<usize> {
        if self.waiting.is_empty() || self.healing.is_some() || self.is_unequal() {
            return None;
        }
        let mut blocked = self.changing();
        self.waiting.iter().position(|(_, op)| {
            if op.action.is_mutation() && !has_room(op) {
                return false;
            }
            let mask = mask_of(&op.action);
            let starts = !mask.intersects(blocked);
            blocked = blocked.union(mask);
            starts
        })
    }

    /// Whether a read of `mask` that saw `version` may be answered: no mutation up to that version is still on its way
    /// to a member, or has failed at one.
    pub(crate) fn is_settled(&self, mask: UnitMask, version: Version) -> bool {
        let is_on_its_way = |running: &Running| {
            matches!(&running.stage, Stage::Committing(c) if c.mutation.version <= version)
                && running.mask.intersects(mask)
        };
        !self.is_unequal() && !self.running.iter().any(is_on_its_way)
    }

    /// Takes the held reads that may be answered now.
    pub(crate) fn take_settled(&mut self) -> Vec<Held> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let (settled, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| self.is_settled(held.mask, held.version));
        self.held = held;
        settled
    }

    /// The first waiting operation that leaves nothing of the object and that a list does not remember.
    pub(crate) fn removal(&self, list: &[OpId]) -> Option<Removal> {
        let removes = |op: &Op| leaves_nothing(&op.action) && !Ops::remembers(list, op.id);
        let &(client, ref op) = self.waiting.iter().find(|(_, op)| removes(op))?;
        let mut list = list.to_vec();
        list.push(op.id);
        let left = Ops::bounds(&list);
        (left.len() <= MAX_OPS).then_some(Removal {
            client,
            op: op.id,
            stamp: op.stamp,
            left,
        })
    }

    /// Who waits for an answer, for sending the clients on.
    pub(crate) fn into_clients(self) -> Vec<(ClientId, OpId)> {
        let running = self.running.into_iter().map(|r| (r.client, r.op.id));
        let waiting = self.waiting.into_iter().map(|(client, op)| (client, op.id));
        let held = self.held.into_iter().map(|held| (held.client, held.op));
        running.chain(waiting).chain(held).collect()
    }
}

/// The queue of an object on which something runs, or is about to.
pub(crate) fn queue_of(queues: &mut BTreeMap<ObjectId, ObjectQueue>, object: ObjectId) -> &mut ObjectQueue {
    let queue = queues.get_mut(&object);
    queue.expect("a queue stays until nothing is in it")
}

/// The units that an operation must have for itself (mutations) or see settled (reads). Removing and zeroing need the
/// whole object: whether anything is left decides over its tombstone.
pub(crate) fn mask_of(action: &Action) -> UnitMask {
    match action {
        Action::Zero { .. } => UnitMask::ALL,
        action => action.units(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{Epoch, ImageId, PgId};

    fn op(sequence: u64, action: Action) -> (ClientId, Op) {
        let client = ClientId(1);
        (
            client,
            Op {
                id: OpId { client, sequence },
                pg: PgId::default(),
                epoch: Epoch(1),
                settled: 0,
                answered: 0,
                previous: 0,
                stamp: Tick::default(),
                action,
            },
        )
    }

    fn write(unit: usize) -> Action {
        let object = ObjectId {
            image: ImageId(1),
            number: 0,
        };
        Action::Write {
            object,
            offset: unit * 4096,
            data: vec![Bytes::from_static(b"x")],
        }
    }

    fn read(unit: usize) -> Action {
        let object = ObjectId {
            image: ImageId(1),
            number: 0,
        };
        Action::Read {
            object,
            offset: unit * 4096,
            len: 1,
        }
    }

    fn zero() -> Action {
        Action::Zero {
            object: ObjectId {
                image: ImageId(1),
                number: 0,
            },
            offset: 0,
            len: 1,
        }
    }

    #[test]
    fn answers_to_an_earlier_attempt_do_not_count() {
        let mut merging = Merging {
            attempt: 8,
            awaited: UnitMask(0b11 << 20),
            units: Vec::new(),
        };
        let data = |byte| Bytes::from(vec![byte; 1]);
        assert!(!merging.take(7, 21, data(1)), "read before the object was repaired");
        assert!(!merging.take(8, 21, data(2)) && !merging.take(8, 21, data(3)));
        assert!(merging.take(8, 20, data(4)));
        assert_eq!(merging.units, [(21, data(2)), (20, data(4))]);
    }

    #[test]
    fn what_a_member_had_no_room_for_is_not_read() {
        let version = Version {
            epoch: Epoch(1),
            counter: 7,
        };
        let mut queue = ObjectQueue::default();
        assert!(queue.is_settled(UnitMask(1), version));
        queue.lacking.push(OsdId(2));
        assert!(!queue.is_settled(UnitMask(1), version));
    }

    #[test]
    fn what_is_executed_in_order_is_remembered_by_a_bound() {
        // Operations (sequence, answered, previous) in the order of their execution; what is known below each.
        type Case<'a> = (&'a [(u64, u64, u64)], &'a [u64]);
        let table: [Case; 6] = [
            (&[(5, 5, 0), (6, 5, 5), (9, 5, 6)], &[5, 6, 9]),
            // 6 comes late: until then nothing is known beyond.
            (
                &[(5, 5, 0), (7, 5, 6), (8, 5, 7), (6, 5, 5), (9, 5, 8)],
                &[5, 6, 6, 6, 9],
            ),
            // 5 never came here.
            (&[(6, 5, 5), (7, 5, 6), (8, 8, 0), (9, 8, 8)], &[5, 5, 8, 9]),
            // 6 was answered, though 5 was not: 7 names 5.
            (&[(6, 5, 5), (7, 5, 5), (5, 5, 0), (8, 5, 7)], &[5, 5, 5, 8]),
            // 7 failed and was answered; a copy of it ran meanwhile.
            (&[(8, 8, 0), (7, 7, 0), (9, 8, 8)], &[8, 7, 9]),
            // An old copy says less than is known.
            (&[(5, 5, 0), (6, 6, 0), (7, 5, 6)], &[5, 6, 7]),
        ];
        for (ops, expected) in table {
            let mut queue = ObjectQueue::default();
            let mut known = Vec::new();
            for &(sequence, answered, previous) in ops {
                let (_, mut op) = op(sequence, write(0));
                (op.answered, op.previous) = (answered, previous);
                known.push(queue.known_below(&op));
                queue.executed.entry(op.id.client).or_default().note(&op);
            }
            assert_eq!(known, expected, "{ops:?}");
        }
    }

    /// Which of the waiting operations start beside a running write of unit 0.
    fn startable(actions: Vec<Action>) -> Vec<u64> {
        let mut queue = ObjectQueue::default();
        let (client, first) = op(0, write(0));
        queue.running.push(Running {
            client,
            op: first,
            mask: UnitMask(1),
            since: Now(0),
            stage: Stage::Reading,
        });
        queue.waiting = (1..).zip(actions).map(|(i, action)| op(i, action)).collect();
        let mut started = Vec::new();
        while let Some((client, op)) = queue.startable(|_| true).and_then(|index| queue.waiting.remove(index)) {
            started.push(op.id.sequence);
            queue.running.push(Running {
                client,
                mask: mask_of(&op.action),
                op,
                since: Now(0),
                stage: Stage::Reading,
            });
        }
        started
    }

    #[test]
    fn conflicts() {
        let table = [
            (vec![write(1), write(2)], vec![1, 2]),
            (vec![write(0), write(1)], vec![2]),
            (vec![read(0), read(1)], vec![2]),
            // What comes behind a waiting operation does not overtake it.
            (vec![zero(), write(1), read(2)], vec![]),
            (vec![write(1), read(1), write(1)], vec![1]),
            (vec![read(1), read(1), write(1)], vec![1, 2, 3]),
        ];
        for (actions, expected) in table {
            assert_eq!(startable(actions.clone()), expected, "{actions:?}");
        }
    }
}
