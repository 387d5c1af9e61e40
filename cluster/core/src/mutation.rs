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

/// How many client operations an object remembers at most; the oldest go first. Clients have fewer under way on one
/// object.
pub const MAX_OPS: usize = 128;

/// What a mutation does to the list of client operations that its object remembers, so that a repeated one is answered
/// and not executed again. The list is part of the object: replicas have the same, and recovery brings it along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ops {
    /// One more was executed.
    Add {
        /// Which.
        op: OpId,
        /// Of its client, operations on this object below this sequence were answered: they will not be repeated.
        answered: u64,
    },
    /// Exactly these, oldest first.
    Exactly(Vec<OpId>),
}

impl Ops {
    /// The list after this, given the one before.
    pub fn apply(&self, list: &mut Vec<OpId>) {
        match self {
            Ops::Add { op, answered } => {
                list.retain(|o| o != op && (o.client != op.client || o.sequence >= *answered));
                list.push(*op);
                list.drain(..list.len().saturating_sub(MAX_OPS));
            }
            Ops::Exactly(ops) => ops.clone_into(list),
        }
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

    #[test]
    fn answered_operations_are_forgotten_per_client() {
        let mut list = vec![op(1, 5), op(2, 5), op(1, 7)];
        Ops::Add {
            op: op(1, 8),
            answered: 7,
        }
        .apply(&mut list);
        assert_eq!(list, [op(2, 5), op(1, 7), op(1, 8)]);
        Ops::Exactly(vec![op(3, 1)]).apply(&mut list);
        assert_eq!(list, [op(3, 1)]);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut list = Vec::new();
        for sequence in 0..MAX_OPS as u64 + 2 {
            Ops::Add {
                op: op(1, sequence),
                answered: 0,
            }
            .apply(&mut list);
        }
        assert_eq!((list.len(), list[0]), (MAX_OPS, op(1, 2)));
    }
}
