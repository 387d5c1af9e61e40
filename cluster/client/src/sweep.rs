//! A sweep in progress: it makes a range of an image empty, at the cost of what is there and not of what the range could
//! hold. It asks every PG for the objects that it has in the range, and ends them. Objects that are in the range in part only
//! are zeroed without asking.
//!
//! What it promises: of what was acknowledged before it began, nothing is left when it is over. What is written meanwhile
//! may stay, object by object, as if it had been written after it: each object is zeroed once, also if the number of PGs
//! changes, for one that is made again is not of what it ends.
//!
//! A sweep that removes an image has that for itself, and promises more: nothing comes back. What was written in part, and
//! never acknowledged, may lie with OSDs that are away; while a PG is not clean it takes from them what they bring back, and
//! a primary that has nothing of an object leaves nothing behind that would tell it otherwise. So such a sweep is over when
//! each PG has done all that was asked of it, lists and removals, in the first epoch that its history names, then or later:
//! what is older and comes back does not count any more. A PG whose history begins later is asked again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use trivet_core::map::ClusterMap;
use trivet_core::message::Action;
use trivet_core::{ImageId, Numbering, OBJECT_SIZE, ObjectId, PgId};

use crate::dispatch::Epochs;
use crate::split::{Slice, first_slice};

/// What becomes of the objects that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// They are zeroed, as a user's operation.
    Zeroed,
    /// They are removed.
    Removed,
}

/// One operation that makes a range of an image empty: which PGs were asked, and which objects are left.
#[derive(Debug)]
pub(crate) struct Sweep {
    image: ImageId,
    /// The objects that are in the range as a whole; at least one.
    numbers: Range<u64>,
    end: End,
    /// The parts of objects that are not, and are still to be zeroed.
    edges: Vec<Slice>,
    /// PGs that have more than they listed, and from which number on.
    lists: VecDeque<(u32, u64)>,
    /// What PGs listed and is still to be ended.
    found: VecDeque<u64>,
    /// Of what is removed: the PGs that have done something and may bring back more, and in which epochs that was.
    unsettled: BTreeMap<u32, Epochs>,
    heard: Heard,
    /// The same of earlier numberings.
    earlier: Vec<Heard>,
}

/// How far PGs have listed what they have.
#[derive(Debug)]
struct Heard {
    numbering: Numbering,
    /// PGs with lower numbers were asked.
    asked: u32,
    /// Those of them that have not listed everything: all objects below this number.
    below: BTreeMap<u32, u64>,
}

impl Heard {
    fn nothing(numbering: Numbering) -> Heard {
        Heard {
            numbering,
            asked: 0,
            below: BTreeMap::new(),
        }
    }

    fn has(&self, object: ObjectId) -> bool {
        let pg = object.pg(self.numbering).number;
        let below = self.below.get(&pg);
        pg < self.asked && below.is_none_or(|&below| object.number < below)
    }

    /// The next PG that was not asked.
    fn next(&mut self, from: u64) -> Option<(u32, u64)> {
        let number = Some(self.asked).filter(|&asked| asked < self.numbering.count)?;
        self.asked += 1;
        self.below.insert(number, from);
        Some((number, from))
    }
}

impl Sweep {
    /// Removes every object.
    pub(crate) fn purge(image: ImageId, numbering: Numbering) -> Sweep {
        Sweep::new(image, numbering, 0..u64::MAX, End::Removed)
    }

    /// Zeroes a range of bytes that has at least one whole object.
    pub(crate) fn zero(image: ImageId, numbering: Numbering, bytes: Range<u64>) -> Sweep {
        let size = OBJECT_SIZE as u64;
        let numbers = bytes.start.div_ceil(size)..bytes.end / size;
        let (first, last) = (numbers.start * size, numbers.end * size);
        let ends = [bytes.start..first, last..bytes.end];
        let edges = ends.into_iter().filter(|edge| !edge.is_empty());
        Sweep {
            edges: edges.map(|edge| first_slice(image, edge.start, edge.end)).collect(),
            ..Sweep::new(image, numbering, numbers, End::Zeroed)
        }
    }

    fn new(image: ImageId, numbering: Numbering, numbers: Range<u64>, end: End) -> Sweep {
        assert!(!numbers.is_empty(), "a sweep of no whole object");
        Sweep {
            image,
            numbers,
            end,
            edges: Vec::new(),
            lists: VecDeque::new(),
            found: VecDeque::new(),
            unsettled: BTreeMap::new(),
            heard: Heard::nothing(numbering),
            earlier: Vec::new(),
        }
    }

    /// The next thing to ask for. What was found goes first, so that no more is held than a few lists.
    pub(crate) fn next(&mut self) -> Option<(PgId, Action)> {
        if let Some(Slice { object, offset, len }) = self.edges.pop() {
            return Some((self.pg_of(object), Action::Zero { object, offset, len }));
        }
        let image = self.image;
        if let Some(number) = self.found.pop_front() {
            let object = ObjectId { image, number };
            return Some((self.pg_of(object), self.end.of(object)));
        }
        let open = self.lists.pop_front();
        let (number, from) = open.or_else(|| self.heard.next(self.numbers.start))?;
        let end = self.numbers.end;
        Some((self.pg(number), Action::List { image, from, end }))
    }

    fn pg(&self, number: u32) -> PgId {
        PgId {
            pool: self.image.pool(),
            generation: self.heard.numbering.generation,
            number,
        }
    }

    fn pg_of(&self, object: ObjectId) -> PgId {
        object.pg(self.heard.numbering)
    }

    /// A PG did something of it in one of these epochs.
    pub(crate) fn executed(&mut self, pg: PgId, epochs: Epochs) {
        if self.end == End::Removed {
            let all = self.unsettled.entry(pg.number).or_insert(epochs);
            *all = all.and(epochs);
        }
    }

    /// A PG listed objects, ascending; `complete`: there are no more.
    pub(crate) fn listed(&mut self, pg: PgId, numbers: &[u64], complete: bool) {
        let next = numbers.last().map(|last| last.saturating_add(1));
        match next.filter(|next| !complete && *next < self.numbers.end) {
            Some(next) => {
                self.heard.below.insert(pg.number, next);
                self.lists.push_back((pg.number, next));
            }
            None => drop(self.heard.below.remove(&pg.number)),
        }
        let image = self.image;
        let earlier = self.earlier.iter().filter(|_| self.end == End::Zeroed);
        let is_known = |number: u64| earlier.clone().any(|heard| heard.has(ObjectId { image, number }));
        self.found
            .extend(numbers.iter().copied().filter(|&number| !is_known(number)));
    }

    /// Everything was done: looks what the histories say of the PGs. Whether they say more than before.
    pub(crate) fn settle(&mut self, map: &ClusterMap) -> bool {
        let before = self.unsettled.len();
        for (number, done) in std::mem::take(&mut self.unsettled) {
            let all_in = |since| done.first == since && done.last == since;
            match map.complete_since(self.pg(number)) {
                Some(since) if all_in(since) => {}
                Some(since) if since > done.first => {
                    self.heard.below.insert(number, self.numbers.start);
                    self.lists.push_back((number, self.numbers.start));
                }
                _ => drop(self.unsettled.insert(number, done)),
            }
        }
        self.unsettled.len() < before
    }

    /// The objects fall into other PGs now: all of these are asked, where objects are zeroed not for what the earlier ones
    /// have listed. `asks` says whether they are; a deliberate bug takes what the earlier ones have not listed for nothing.
    pub(crate) fn renumber(&mut self, numbering: Numbering, asks: bool) {
        self.lists.clear();
        self.unsettled.clear();
        let heard = std::mem::replace(&mut self.heard, Heard::nothing(numbering));
        self.earlier.push(heard);
        if !asks {
            self.heard.asked = numbering.count;
        }
    }

    /// There is nothing to ask for; what was asked for may have no answer yet.
    pub(crate) fn is_exhausted(&self) -> bool {
        let all_asked = self.heard.asked == self.heard.numbering.count;
        all_asked && self.lists.is_empty() && self.found.is_empty() && self.edges.is_empty()
    }

    /// No PG that was asked can bring back more.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }
}

impl End {
    fn of(self, object: ObjectId) -> Action {
        match self {
            End::Removed => Action::Remove { object },
            End::Zeroed => Action::Zero {
                object,
                offset: 0,
                len: OBJECT_SIZE,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::PoolId;

    const SIZE: u64 = OBJECT_SIZE as u64;

    /// Asks for everything, of objects that fall into PGs as given; the numbers of those that are ended, and what is
    /// zeroed in part.
    fn run(sweep: &mut Sweep, numbering: Numbering, objects: &[u64], most: usize) -> (Vec<u64>, Vec<Action>) {
        let (mut ended, mut edges) = (Vec::new(), Vec::new());
        for _ in 0..most {
            match sweep.next() {
                Some((_, Action::Remove { object })) => ended.push(object.number),
                Some((_, Action::Zero { object, len, .. })) if len == OBJECT_SIZE => ended.push(object.number),
                Some((pg, Action::List { image, from, end })) => {
                    let own = |number: &u64| ObjectId { image, number: *number }.pg(numbering) == pg;
                    let inside = |number: &u64| (from..end).contains(number);
                    let left = objects.iter().copied().filter(own).filter(inside);
                    let part: Vec<u64> = left.clone().take(2).collect();
                    sweep.listed(pg, &part, left.count() < 2);
                }
                Some((_, action)) => edges.push(action),
                None => assert!(sweep.is_exhausted()),
            }
        }
        (ended, edges)
    }

    #[test]
    fn every_object_is_zeroed_once_and_none_is_kept_whenever_the_numbering_changes() {
        let image = ImageId::new(PoolId(1), 1);
        let objects: Vec<u64> = (0..40).collect();
        let numberings = [3, 6, 4].map(|count| Numbering {
            generation: u16::try_from(count).unwrap(),
            count,
        });
        let purge = Sweep::purge(image, numberings[0]);
        let zero = Sweep::zero(image, numberings[0], 5 * SIZE..39 * SIZE);
        for (steps, mut sweep, inside) in (0..60).flat_map(|steps| {
            let again = |sweep: &Sweep| Sweep::new(image, numberings[0], sweep.numbers.clone(), sweep.end);
            [(steps, again(&purge), 0..40), (steps, again(&zero), 5..39)]
        }) {
            let mut ended = run(&mut sweep, numberings[0], &objects, steps).0;
            for numbering in &numberings[1..] {
                sweep.renumber(*numbering, true);
                ended.extend(run(&mut sweep, *numbering, &objects, steps).0);
            }
            ended.extend(run(&mut sweep, numberings[2], &objects, 1000).0);
            ended.sort_unstable();
            // What is removed may have come back.
            if sweep.end == End::Removed {
                ended.dedup();
            }
            assert_eq!(ended, inside.collect::<Vec<u64>>(), "after {steps} steps");
        }
    }

    #[test]
    fn the_ends_of_a_range_of_bytes_are_zeroed_in_part() {
        let image = ImageId::new(PoolId(1), 1);
        let numbering = Numbering::first(2);
        // The range; the whole objects in it, and offset and length of the parts of others.
        type Case<'a> = (Range<u64>, Range<u64>, &'a [(u64, usize, usize)]);
        let table: [Case; 4] = [
            (0..20 * SIZE, 0..20, &[]),
            (1..20 * SIZE, 1..20, &[(0, 1, OBJECT_SIZE - 1)]),
            (SIZE..20 * SIZE + 7, 1..20, &[(20, 0, 7)]),
            (
                SIZE - 1..3 * SIZE - 1,
                1..2,
                &[(0, OBJECT_SIZE - 1, 1), (2, 0, OBJECT_SIZE - 1)],
            ),
        ];
        let objects: Vec<u64> = (0..30).collect();
        for (bytes, whole, parts) in table {
            let mut sweep = Sweep::zero(image, numbering, bytes.clone());
            let (mut ended, mut edges) = run(&mut sweep, numbering, &objects, 100);
            ended.sort_unstable();
            assert_eq!(ended, whole.collect::<Vec<u64>>(), "{bytes:?}");
            edges.reverse();
            let expected = parts.iter().map(|&(number, offset, len)| {
                let object = ObjectId { image, number };
                Action::Zero { object, offset, len }
            });
            assert_eq!(edges, expected.collect::<Vec<Action>>(), "{bytes:?}");
        }
    }

    #[test]
    fn a_full_list_up_to_the_end_is_complete() {
        let numbering = Numbering::first(1);
        let mut sweep = Sweep::zero(ImageId::new(PoolId(1), 1), numbering, 0..2 * SIZE);
        assert_eq!(run(&mut sweep, numbering, &[0, 1], 10).0, [0, 1]);
        assert!(sweep.is_exhausted());
    }
}
