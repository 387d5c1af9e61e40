//! A purge in progress: it asks every PG for the objects that it has of the image, from the first on, and removes each of
//! them once, also if the number of PGs changes meanwhile: an object that is made again is not of what it removes.

use std::collections::{BTreeMap, VecDeque};

use trivet_core::message::Action;
use trivet_core::{ImageId, Numbering, ObjectId, PgId};

/// See the module.
#[derive(Debug)]
pub(crate) struct Purge {
    image: ImageId,
    /// PGs to be asked, and for objects after which number.
    lists: VecDeque<(PgId, Option<u64>)>,
    removals: VecDeque<u64>,
    heard: Heard,
    /// The same of earlier numberings.
    earlier: Vec<Heard>,
}

/// How far PGs have listed what they have.
#[derive(Debug)]
struct Heard {
    numbering: Numbering,
    /// By PG number: all objects below this number.
    below: BTreeMap<u32, u64>,
}

impl Heard {
    fn nothing(numbering: Numbering) -> Heard {
        Heard {
            numbering,
            below: BTreeMap::new(),
        }
    }

    fn has(&self, object: ObjectId) -> bool {
        let below = self.below.get(&object.pg(self.numbering).number);
        below.is_some_and(|&below| object.number < below)
    }
}

impl Purge {
    pub(crate) fn new(image: ImageId, numbering: Numbering) -> Purge {
        Purge {
            image,
            lists: everything(image, numbering),
            removals: VecDeque::new(),
            heard: Heard::nothing(numbering),
            earlier: Vec::new(),
        }
    }

    /// The next thing to ask for.
    pub(crate) fn next(&mut self) -> Option<(PgId, Action)> {
        let image = self.image;
        if let Some(number) = self.removals.pop_front() {
            let object = ObjectId { image, number };
            return Some((object.pg(self.heard.numbering), Action::Remove { object }));
        }
        let (pg, after) = self.lists.pop_front()?;
        let from = after.map_or(0, |after| after.saturating_add(1));
        let end = u64::MAX;
        Some((pg, Action::List { image, from, end }))
    }

    /// A PG listed objects, ascending; `complete`: there are no more.
    pub(crate) fn listed(&mut self, pg: PgId, numbers: &[u64], complete: bool) {
        let last = numbers.last().copied().filter(|_| !complete);
        let below = last.map_or(u64::MAX, |last| last.saturating_add(1));
        self.heard.below.insert(pg.number, below);
        if last.is_some() {
            self.lists.push_back((pg, last));
        }
        let image = self.image;
        let is_known = |number: u64| self.earlier.iter().any(|heard| heard.has(ObjectId { image, number }));
        self.removals
            .extend(numbers.iter().copied().filter(|&number| !is_known(number)));
    }

    /// The objects fall into other PGs now: all of these are asked, but not for what the earlier ones have listed.
    pub(crate) fn renumber(&mut self, numbering: Numbering) {
        self.lists = everything(self.image, numbering);
        let heard = std::mem::replace(&mut self.heard, Heard::nothing(numbering));
        self.earlier.push(heard);
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.lists.is_empty() && self.removals.is_empty()
    }
}

fn everything(image: ImageId, numbering: Numbering) -> VecDeque<(PgId, Option<u64>)> {
    numbering.pgs(image.pool()).map(|pg| (pg, None)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::PoolId;

    /// Asks for everything, of objects that fall into PGs as given; the numbers of those that are removed.
    fn run(purge: &mut Purge, numbering: Numbering, objects: &[u64], most: usize) -> Vec<u64> {
        let mut removed = Vec::new();
        for _ in 0..most {
            match purge.next() {
                Some((_, Action::Remove { object })) => removed.push(object.number),
                Some((pg, Action::List { image, from, .. })) => {
                    let own = |number: &u64| ObjectId { image, number: *number }.pg(numbering) == pg;
                    let left = objects.iter().copied().filter(own).filter(|&n| n >= from);
                    let part: Vec<u64> = left.clone().take(2).collect();
                    purge.listed(pg, &part, left.count() <= 2);
                }
                other => {
                    assert_eq!(other, None);
                    assert!(purge.is_exhausted());
                }
            }
        }
        removed
    }

    #[test]
    fn every_object_is_removed_once_whenever_the_numbering_changes() {
        let image = ImageId::new(PoolId(1), 1);
        let objects: Vec<u64> = (0..40).collect();
        let numberings = [3, 6, 4].map(|count| Numbering {
            generation: u16::try_from(count).unwrap(),
            count,
        });
        for steps in 0..60 {
            let mut purge = Purge::new(image, numberings[0]);
            let mut removed = run(&mut purge, numberings[0], &objects, steps);
            for numbering in &numberings[1..] {
                purge.renumber(*numbering);
                removed.extend(run(&mut purge, *numbering, &objects, steps));
            }
            removed.extend(run(&mut purge, numberings[2], &objects, 1000));
            removed.sort_unstable();
            assert_eq!(removed, objects, "after {steps} steps");
        }
    }
}
