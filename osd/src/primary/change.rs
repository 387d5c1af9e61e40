//! From a client's operation to what becomes of the object: which units are merged, zeroed and patched.

use bytes::{Bytes, BytesMut};
use trivet_core::buffer::{aligned, join, zeroes};
use trivet_core::message::Action;
use trivet_core::mutation::Patch;
use trivet_core::{ObjectId, UNIT_SIZE, UnitMask};

/// What a mutation does, before it has a version.
pub(crate) struct Change {
    pub zero: UnitMask,
    pub patches: Vec<Patch>,
    pub tombstone: bool,
}

/// The units that an operation changes only in part.
pub(crate) fn partial_units(action: &Action) -> UnitMask {
    let (offset, len) = match action {
        Action::Write { offset, data, .. } => (*offset, data.iter().map(Bytes::len).sum()),
        Action::Zero { offset, len, .. } => (*offset, *len),
        Action::Read { .. } | Action::Remove { .. } | Action::List { .. } | Action::Barrier { .. } => {
            return UnitMask::EMPTY;
        }
    };
    UnitMask::touched(offset, len).minus(UnitMask::covered(offset, len))
}

/// Whether an operation leaves nothing of the object, whatever is there.
pub(crate) fn leaves_nothing(action: &Action) -> bool {
    match action {
        Action::Remove { .. } => true,
        Action::Zero { offset, len, .. } => UnitMask::covered(*offset, *len) == UnitMask::ALL,
        Action::Read { .. } | Action::Write { .. } | Action::List { .. } | Action::Barrier { .. } => false,
    }
}

/// The change that an operation makes of an object with these units; none if it changes nothing.
pub(crate) fn change_of(
    object: ObjectId,
    action: &Action,
    present: UnitMask,
    merged: &[(usize, Bytes)],
) -> Option<Change> {
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
        Action::Read { .. } | Action::List { .. } | Action::Barrier { .. } => None,
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
