//! The objects of the PGs that this OSD serves, in order, so that a list of some of them costs what it tells and not what
//! the store holds.
//!
//! What it promises: from [`Inventory::begin`] to the end of its service, a PG has exactly the objects of which the store
//! has units. An operation costs nothing here unless it makes an object or leaves nothing of one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use trivet_core::{ImageId, ObjectId, PgId};
use trivet_store::api::Changed;

/// The objects of each PG that this OSD serves.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pgs: BTreeMap<PgId, BTreeSet<ObjectId>>,
}

impl Inventory {
    /// This OSD serves a PG that has these objects.
    pub(crate) fn begin(&mut self, pg: PgId, objects: impl Iterator<Item = ObjectId>) {
        self.pgs.insert(pg, objects.collect());
    }

    /// It serves no other PGs than these any more.
    pub(crate) fn keep(&mut self, serves: impl Fn(&PgId) -> bool) {
        self.pgs.retain(|pg, _| serves(pg));
    }

    /// An object of the store has become larger or smaller; its PG, as far as it is known.
    pub(crate) fn changed(&mut self, pg: Option<PgId>, changed: &Changed) {
        if changed.before.is_empty() == changed.after.is_empty() {
            return;
        }
        let Some(objects) = pg.and_then(|pg| self.pgs.get_mut(&pg)) else {
            return;
        };
        if changed.after.is_empty() {
            objects.remove(&changed.object);
        } else {
            objects.insert(changed.object);
        }
    }

    /// The objects of an image in a PG that this OSD serves with numbers of a range that is not empty, ascending.
    pub(crate) fn list(&self, pg: PgId, range: Range<ObjectId>) -> impl Iterator<Item = ObjectId> + '_ {
        let objects = self
            .pgs
            .get(&pg)
            .expect("a PG that is served was taken in when it became active");
        objects.range(range).copied()
    }
}

/// The objects of an image with numbers of a range.
pub(crate) fn objects(image: ImageId, numbers: Range<u64>) -> Range<ObjectId> {
    let object = |number| ObjectId { image, number };
    object(numbers.start)..object(numbers.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{PoolId, UnitMask};

    fn change(number: u64, before: u32, after: u32) -> Changed {
        let image = ImageId(1);
        Changed {
            object: ObjectId { image, number },
            before: UnitMask(before),
            after: UnitMask(after),
        }
    }

    #[test]
    fn what_comes_and_goes_is_listed_as_it_is() {
        let (pg, other) = (PgId::first(PoolId(0), 1), PgId::first(PoolId(0), 2));
        let object = |image, number| ObjectId {
            image: ImageId(image),
            number,
        };
        let mut inventory = Inventory::default();
        inventory.begin(pg, [object(0, 4), object(1, 7), object(1, 2), object(2, 3)].into_iter());
        let listed = |inventory: &Inventory, range| -> Vec<u64> {
            let range = objects(ImageId(1), range);
            inventory.list(pg, range).map(|object| object.number).collect()
        };
        assert_eq!(listed(&inventory, 0..u64::MAX), [2, 7]);
        assert_eq!(listed(&inventory, 3..7), [0; 0]);
        // Made, made larger, made smaller, gone; of another PG.
        for (number, before, after) in [(5, 0, 1), (2, 1, 3), (7, 3, 1), (9, 0, 1), (9, 1, 0)] {
            inventory.changed(Some(pg), &change(number, before, after));
        }
        inventory.changed(Some(other), &change(8, 0, 1));
        inventory.changed(None, &change(2, 1, 0));
        assert_eq!(listed(&inventory, 0..u64::MAX), [2, 5, 7]);
        // Anew: what was is forgotten.
        inventory.begin(pg, [object(1, 6)].into_iter());
        assert_eq!(listed(&inventory, 0..u64::MAX), [6]);
        inventory.keep(|served| *served != pg);
        assert!(inventory.pgs.is_empty());
    }
}
