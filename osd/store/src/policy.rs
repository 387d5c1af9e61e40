//! The choices that trade device writes against latency, in one place.

use trivet_core::mutation::Mutation;
use trivet_core::{UNIT_SIZE, UnitMask};

use crate::ring::Ring;

/// A patch of at least this many bytes is worth a device write of its own.
const OWN_WRITE: usize = 64 << 10;
/// Objects being settled at once: while there is time, and when the log is nearly full.
const SETTLING: (usize, usize) = (4, 16);

/// The units of a mutation that should go to a fresh slot in parallel with the batch. None: all of its
/// payload travels in the batch.
///
/// Only a mutation that leaves nothing of the old slot may have a fresh one.
pub fn fresh_slot_units(mutation: &Mutation, has_slot: bool) -> UnitMask {
    let patched = mutation
        .patches
        .iter()
        .fold(UnitMask::EMPTY, |mask, patch| mask.union(patch.mask()));
    if has_slot && patched.union(mutation.zero) != UnitMask::ALL {
        return UnitMask::EMPTY;
    }
    let large = mutation.patches.iter().filter(|patch| patch.data.len() >= OWN_WRITE);
    large.fold(UnitMask::EMPTY, |mask, patch| mask.union(patch.mask()))
}

/// Whether the log should be emptied: it is half full, or a batch waits for room.
pub fn should_settle(ring: &Ring, blocked: bool) -> bool {
    ring.is_filling() || blocked && ring.used() > 0
}

/// How many objects may be settled at once.
pub fn settling_depth(ring: &Ring, blocked: bool) -> usize {
    if blocked || ring.is_nearly_full() {
        SETTLING.1
    } else {
        SETTLING.0
    }
}

/// Bytes of patches that may go to slots of their own in one batch.
pub const MAX_SLOT_BYTES: usize = 2048 * UNIT_SIZE;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use trivet_core::mutation::{Ops, Patch};
    use trivet_core::{ObjectId, Version};

    #[test]
    fn large_patches_go_to_fresh_slots() {
        // (zero, patches as (first, units), has a slot, units for a fresh slot)
        let whole: &[_] = &[(0, 32)];
        let half: &[_] = &[(0, 16)];
        // Units zeroed, patches as (first, units), whether it has a slot, units for a fresh one.
        let table = [
            (0, whole, false, u32::MAX),
            (0, whole, true, u32::MAX),
            (0, half, false, 0xffff),
            (0, half, true, 0),
            (0xffff_0000, half, true, 0xffff),
            (0, &[(0, 15), (20, 1)], false, 0),
            (0, &[(0, 16), (20, 1)], false, 0xffff),
        ];
        for (zero, patches, has_slot, expected) in table {
            let patch = |&(first, units): &(usize, usize)| {
                Patch::seal(ObjectId::default(), first, Bytes::from(vec![1; units * UNIT_SIZE]))
            };
            let patches = patches.iter().map(patch).collect();
            let mutation = Mutation {
                version: Version::NONE,
                ops: Ops::Exactly(vec![]),
                zero: UnitMask(zero),
                patches,
                tombstone: false,
            };
            assert_eq!(fresh_slot_units(&mutation, has_slot), UnitMask(expected));
        }
    }
}
