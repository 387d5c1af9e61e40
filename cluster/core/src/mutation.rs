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

/// One atomic change of one object. `zero` is applied first, then `patches` in order.
///
/// A recovery push is `zero: ALL` and every present unit as patch. A delete is `zero: ALL`, no patches
/// and `tombstone`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The version that it makes; larger than any before.
    pub version: Version,
    /// The client operation that asked for it (of the newest write, for a recovery push).
    pub op: OpId,
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
