//! A change of one object, as the primary decides it and every member of the acting set executes it.

use bytes::Bytes;

use crate::checksum::{unit_sum, unit_sums};
use crate::ids::{ObjectId, OpId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version};

/// New contents of consecutive units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The first unit, 0..32.
    pub first: usize,
    /// Whole units.
    pub data: Bytes,
    /// One checksum per unit (see [`crate::checksum`]).
    pub sums: Vec<u32>,
}

impl Patch {
    /// A patch of `data` (a multiple of [`UNIT_SIZE`] bytes, within the object) with its checksums.
    #[must_use]
    pub fn seal(object: ObjectId, first: usize, data: Bytes) -> Patch {
        assert!(data.len().is_multiple_of(UNIT_SIZE) && first + data.len() / UNIT_SIZE <= UNITS_PER_OBJECT);
        let sums = unit_sums(object, first, &data);
        Patch { first, data, sums }
    }

    /// How many units it covers.
    #[must_use]
    pub fn units(&self) -> usize {
        self.data.len() / UNIT_SIZE
    }

    /// The units that it covers.
    #[must_use]
    pub fn mask(&self) -> UnitMask {
        UnitMask::range(self.first, self.units())
    }

    /// Whether the sums match the data.
    #[must_use]
    pub fn verify(&self, object: ObjectId) -> bool {
        self.sums.len() == self.units()
            && self
                .data
                .chunks_exact(UNIT_SIZE)
                .zip(&self.sums)
                .enumerate()
                .all(|(i, (unit, &sum))| unit_sum(object, self.first + i, unit) == sum)
    }
}

/// How many entries the list of client operations that an object remembers has at most. Primaries see to it that no
/// operation makes it longer: what has no room waits.
pub const MAX_OPS: usize = 128;

/// Set in the sequence of an entry of the list that is no operation: everything of its client below it was answered.
/// Clients do not use this bit.
pub const MARK: u64 = 1 << 63;

/// What a mutation does to the list of client operations that its object remembers, so that a repeated one is answered
/// and not executed again. The list is part of the object: replicas have the same, and recovery brings it along.
///
/// The smallest sequence of a client in the list is a bound: everything of that client below it was answered. So a copy
/// of an operation that arrives long after another one was answered is recognised, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ops {
    /// One more was executed.
    Add {
        /// Which.
        op: OpId,
        /// Of its client, operations on this object below this sequence were answered.
        answered: u64,
    },
    /// Exactly these, oldest first.
    Exactly(Vec<OpId>),
}

impl Ops {
    /// The list after this, given the one before.
    pub fn apply(&self, list: &mut Vec<OpId>) {
        match self {
            Ops::Add { op, answered } => add(list, *op, *answered),
            Ops::Exactly(ops) => ops.clone_into(list),
        }
    }

    /// What the deletion of a whole object leaves of a list: of each client one bound, above all of its operations. One
    /// of them that was not executed yet began before the last that was, and may as well be taken as executed just
    /// before the deletion: nothing of it would be left. Not so when units become zero that happen to be all there are.
    #[must_use]
    pub fn bounds(list: &[OpId]) -> Vec<OpId> {
        let mut bounds: Vec<OpId> = Vec::new();
        for op in list {
            let end = if op.sequence & MARK == 0 {
                op.sequence + 1
            } else {
                op.sequence & !MARK
            };
            let sequence = end | MARK;
            match bounds.iter_mut().find(|bound| bound.client == op.client) {
                Some(bound) => bound.sequence = bound.sequence.max(sequence),
                None => bounds.push(OpId { sequence, ..*op }),
            }
        }
        bounds
    }

    /// Whether the list says that an operation was executed.
    #[must_use]
    pub fn remembers(list: &[OpId], op: OpId) -> bool {
        list.contains(&op) || bound(list, op).is_some_and(|bound| op.sequence < bound)
    }
}

/// Below this, everything of the operation's client was answered; none if the list knows nothing of the client.
fn bound(list: &[OpId], op: OpId) -> Option<u64> {
    let own = list.iter().filter(|o| o.client == op.client);
    own.map(|o| o.sequence & !MARK).min()
}

fn add(list: &mut Vec<OpId>, op: OpId, answered: u64) {
    let answered = answered.max(bound(list, op).unwrap_or(0));
    let is_kept = |o: &OpId| o.sequence & MARK == 0 && o.sequence >= answered && *o != op;
    list.retain(|o| o.client != op.client || is_kept(o));
    let least = bound(list, op).unwrap_or(op.sequence).min(op.sequence);
    if 0 < answered && answered < least {
        list.push(OpId {
            client: op.client,
            sequence: answered | MARK,
        });
    }
    list.push(op);
    // From a primary that does not keep to that: what is stored stays within its bounds.
    while list.len() > MAX_OPS {
        // A bound must not outlive the operations above it: all of a client go together.
        let Some(oldest) = list.iter().map(|o| o.client).find(|client| *client != op.client) else {
            // Only a client that has more under way than it may.
            list.drain(..list.len().saturating_sub(MAX_OPS));
            return;
        };
        list.retain(|o| o.client != oldest);
    }
}

/// One atomic change of one object. `zero` is applied first, then `patches` in order.
///
/// A recovery push is `zero: ALL` and every present unit as patch. A delete is `zero: ALL`, no patches
/// and `tombstone`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The version that it makes; larger than any before.
    pub version: Version,
    /// What becomes of the list of client operations that the object remembers.
    pub ops: Ops,
    /// Units that become unwritten (read as zero, cost nothing).
    pub zero: UnitMask,
    /// Units that get new contents; patches do not overlap each other.
    pub patches: Vec<Patch>,
    /// The object is deleted: it stays as a tombstone until no holder can bring it back.
    pub tombstone: bool,
}

impl Mutation {
    /// Bytes of payload.
    #[must_use]
    pub fn payload(&self) -> usize {
        self.patches.iter().map(|p| p.data.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    fn op(client: u64, sequence: u64) -> OpId {
        OpId {
            client: ClientId(client),
            sequence,
        }
    }

    fn add(list: &mut Vec<OpId>, client: u64, sequence: u64, answered: u64) {
        let op = op(client, sequence);
        Ops::Add { op, answered }.apply(list);
    }

    #[test]
    fn answered_operations_are_forgotten_per_client() {
        let mut list = vec![op(1, 5), op(2, 5), op(1, 7)];
        add(&mut list, 1, 8, 7);
        assert_eq!(list, [op(2, 5), op(1, 7), op(1, 8)]);
        Ops::Exactly(vec![op(3, 1)]).apply(&mut list);
        assert_eq!(list, [op(3, 1)]);
    }

    #[test]
    fn a_late_copy_of_an_answered_operation_is_recognised() {
        // Operations (sequence, answered) in the order of their execution; the list then; not executed; executed.
        type Case<'a> = (&'a [(u64, u64)], &'a [u64], &'a [u64], &'a [u64]);
        let table: [Case; 5] = [
            (&[(5, 5)], &[5], &[6], &[4, 5]),
            (&[(5, 5), (6, 6)], &[6], &[7], &[5, 6]),
            // 5 is still under way.
            (&[(6, 5)], &[5 | MARK, 6], &[5, 7], &[4, 6]),
            (&[(6, 5), (5, 5)], &[6, 5], &[7], &[4, 5, 6]),
            // An old copy with an old bound does not take anything back.
            (&[(5, 5), (6, 5), (8, 7), (7, 5)], &[8, 7], &[9], &[5, 6, 7, 8]),
        ];
        for (executed, expected, open, known) in table {
            let mut list = Vec::new();
            executed
                .iter()
                .for_each(|&(sequence, answered)| add(&mut list, 1, sequence, answered));
            assert_eq!(
                list,
                expected.iter().map(|&s| op(1, s)).collect::<Vec<_>>(),
                "{executed:?}"
            );
            assert!(open.iter().all(|&s| !Ops::remembers(&list, op(1, s))), "{executed:?}");
            assert!(known.iter().all(|&s| Ops::remembers(&list, op(1, s))), "{executed:?}");
            assert!(!Ops::remembers(&list, op(2, 1)));
        }
    }

    #[test]
    fn a_deletion_leaves_one_bound_of_each_client() {
        let list = [op(1, 5), op(2, 3 | MARK), op(1, 9), op(2, 4), op(3, 7 | MARK)];
        let bounds = Ops::bounds(&list);
        assert_eq!(bounds, [op(1, 10 | MARK), op(2, 5 | MARK), op(3, 7 | MARK)]);
        assert!([5, 7, 9].iter().all(|&s| Ops::remembers(&bounds, op(1, s))));
        assert!(!Ops::remembers(&bounds, op(1, 10)) && !Ops::remembers(&bounds, op(4, 1)));
        let mut after = bounds;
        add(&mut after, 1, 12, 6);
        assert_eq!(after, [op(2, 5 | MARK), op(3, 7 | MARK), op(1, 10 | MARK), op(1, 12)]);
    }

    #[test]
    fn the_list_is_bounded_by_whole_clients() {
        let mut list = Vec::new();
        (1..=3).for_each(|sequence| add(&mut list, 1, sequence, 1));
        (1..=MAX_OPS as u64 - 2).for_each(|sequence| add(&mut list, 2, sequence, 1));
        assert_eq!(list.len(), MAX_OPS - 2);
        assert!(list.iter().all(|o| o.client == ClientId(2)));
        list.clear();
        let many = MAX_OPS as u64 + 1;
        (1..=many).for_each(|client| add(&mut list, client, 1, 1));
        let clients: Vec<u64> = list.iter().map(|o| o.client.0).collect();
        assert_eq!(clients, (2..=many).collect::<Vec<_>>());
    }
}
