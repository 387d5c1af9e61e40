//! Extents: units of an object that are neighbours on the disk, so that one operation reads them.
//!
//! A unit is where the index says: in the log, in its object's slot, or nowhere. Reads and settling plan their
//! extents here, ask later whether the units are still there, and take an extent apart that cannot be read.

use trivet_core::UnitMask;

use crate::index::Entry;
use crate::layout::{BLOCK, Layout};

/// Consecutive units in consecutive blocks of the disk, or unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first unit.
    pub first: usize,
    /// How many units.
    pub count: usize,
    /// Where the first one lies on the disk, bytes; `None`: they are unwritten.
    pub offset: Option<u64>,
}

/// Where these units lie, in as few extents as possible, ascending.
pub fn plan(layout: &Layout, entry: Option<&Entry>, units: UnitMask) -> impl Iterator<Item = Extent> {
    let placed = move |unit| (unit, entry.and_then(|entry| place(layout, entry, unit)));
    let mut units = units.iter().map(placed).peekable();
    std::iter::from_fn(move || {
        let (first, offset) = units.next()?;
        let mut extent = Extent {
            first,
            count: 1,
            offset,
        };
        while units.next_if(|&(unit, offset)| extent.goes_on(unit, offset)).is_some() {
            extent.count += 1;
        }
        Some(extent)
    })
}

/// Where a unit lies on the disk; `None` if it is unwritten.
fn place(layout: &Layout, entry: &Entry, unit: usize) -> Option<u64> {
    if !entry.present.has(unit) {
        return None;
    }
    match entry.block(unit) {
        Some(block) => Some(layout.log_block(block)),
        None => entry.slot().map(|slot| layout.unit(slot, unit)),
    }
}

impl Extent {
    /// Its units.
    pub fn units(&self) -> UnitMask {
        UnitMask::range(self.first, self.count)
    }

    /// The unit behind the last.
    pub fn end(&self) -> usize {
        self.first + self.count
    }

    /// Whether a unit that lies there comes right behind it.
    fn goes_on(&self, unit: usize, offset: Option<u64>) -> bool {
        unit == self.end() && offset == self.place(unit)
    }

    /// Where `unit` lies if the extent reaches that far.
    fn place(&self, unit: usize) -> Option<u64> {
        self.offset.map(|start| start + (unit - self.first) as u64 * BLOCK)
    }

    /// The same units, each by itself: so that one bad sector costs one unit.
    pub fn apart(self) -> impl Iterator<Item = Extent> {
        (self.first..self.end()).map(move |unit| Extent {
            first: unit,
            count: 1,
            offset: self.place(unit),
        })
    }

    /// Those of its units that still lie where they did.
    pub fn unmoved(&self, layout: &Layout, entry: &Entry) -> UnitMask {
        let units = (self.first..self.end()).filter(|&unit| place(layout, entry, unit) == self.place(unit));
        units.fold(UnitMask::EMPTY, |mask, unit| mask.union(UnitMask::range(unit, 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Remembered;
    use crate::record::WriteHead;
    use trivet_core::{Epoch, ImageId, ObjectId, Version};

    const SLOT: u32 = 3;

    fn layout() -> Layout {
        Layout::new(64 << 20, Some(1 << 20)).unwrap()
    }

    /// Units 4 to 15 are in the slot, but for 6 and 7, which are in the log, and 9 and 10, which are elsewhere there.
    fn entry() -> Entry {
        let object = ObjectId {
            image: ImageId(4),
            number: 2,
        };
        let version = Version {
            epoch: Epoch(3),
            counter: 1,
        };
        let head = WriteHead {
            object,
            version,
            zero: UnitMask::EMPTY,
            tombstone: false,
            replaces: false,
            slot: Some(SLOT),
        };
        let mut entry = Entry::restored(&head, Remembered::EMPTY, UnitMask::EMPTY);
        entry.put_in_slot(4, &[0; 12]);
        entry.put_in_log(6, &[0; 2], 20);
        entry.put_in_log(9, &[0], 31);
        entry.put_in_log(10, &[0], 30);
        entry
    }

    fn planned(entry: Option<&Entry>, units: UnitMask) -> Vec<(usize, usize, Option<u64>)> {
        let layout = layout();
        let extents = plan(&layout, entry, units);
        extents.map(|at| (at.first, at.count, at.offset)).collect()
    }

    #[test]
    fn neighbours_are_read_together() {
        let (entry, layout) = (entry(), layout());
        let slot = |unit| Some(layout.unit(SLOT, unit));
        let log = |block| Some(layout.log_block(block));
        let all = [
            (2, 2, None),
            (4, 2, slot(4)),
            (6, 2, log(20)),
            (8, 1, slot(8)),
            (9, 1, log(31)),
            (10, 1, log(30)),
            (11, 5, slot(11)),
            (16, 2, None),
        ];
        assert_eq!(planned(Some(&entry), UnitMask::range(2, 16)), all);
        assert_eq!(planned(None, UnitMask::range(2, 16)), [(2, 16, None)]);
        assert_eq!(planned(Some(&entry), UnitMask::EMPTY), []);
    }

    #[test]
    fn what_lies_between_is_not_read() {
        let (mut entry, layout) = (entry(), layout());
        let slot = |unit| Some(layout.unit(SLOT, unit));
        let apart = UnitMask::range(4, 1).union(UnitMask::range(12, 1));
        assert_eq!(planned(Some(&entry), apart), [(4, 1, slot(4)), (12, 1, slot(12))]);
        let nowhere = UnitMask::range(0, 1).union(UnitMask::range(2, 1));
        assert_eq!(planned(Some(&entry), nowhere), [(0, 1, None), (2, 1, None)]);
        // Neighbours in the log that are none in the object.
        entry.put_in_log(12, &[0], 22);
        let log = |block| Some(layout.log_block(block));
        assert_eq!(planned(Some(&entry), entry.in_log)[0], (6, 2, log(20)));
        assert_eq!(planned(Some(&entry), entry.in_log)[3], (12, 1, log(22)));
    }

    #[test]
    fn an_extent_is_taken_apart() {
        let layout = layout();
        let extent = Extent {
            first: 6,
            count: 2,
            offset: Some(layout.log_block(20)),
        };
        let [six, seven] = extent.apart().collect::<Vec<_>>()[..] else {
            panic!("two units")
        };
        assert_eq!((six.first, six.count, six.offset), (6, 1, Some(layout.log_block(20))));
        assert_eq!(
            (seven.first, seven.count, seven.offset),
            (7, 1, Some(layout.log_block(21)))
        );
        assert_eq!(extent.units(), six.units().union(seven.units()));
    }

    #[test]
    fn units_move() {
        let (mut entry, layout) = (entry(), layout());
        let extents: Vec<Extent> = plan(&layout, Some(&entry), UnitMask::range(2, 6)).collect();
        let unmoved = |entry: &Entry| {
            let still = extents.iter().map(|extent| extent.unmoved(&layout, entry));
            still.fold(UnitMask::EMPTY, UnitMask::union)
        };
        assert_eq!(unmoved(&entry), UnitMask::range(2, 6));
        // Written for the first time, written anew, settled.
        entry.put_in_log(3, &[0], 40);
        entry.put_in_log(5, &[0], 41);
        entry.leave_log(UnitMask::range(7, 1));
        let still = UnitMask::range(2, 6).minus(UnitMask::range(3, 1));
        assert_eq!(
            unmoved(&entry),
            still.minus(UnitMask::range(5, 1)).minus(UnitMask::range(7, 1))
        );
    }
}
