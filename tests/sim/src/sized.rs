//! A file whose size changes under those who write it, and what may be in it.
//!
//! Writes, truncations and growth of a file have one order. The model keeps every state that the file can be in, with the
//! changes that must have happened before their answer to get there. What is read must be so in one of them, or in one to
//! which the changes under way lead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trivet_core::{ImageId, OBJECT_SIZE};

/// Blocks that the file has at most.
pub const BLOCKS: u64 = 6;
/// Bytes of a block: a write is one of them.
pub const BLOCK: usize = 4096;
/// Each block is at the beginning of an object of its own, so that what cuts several can be interrupted between them.
pub const STRIDE: u64 = OBJECT_SIZE as u64;
/// Changes under way at most: the states are as many as their orders.
pub const DEEPEST: usize = 4;

/// The size of a file that ends with its block of this number, counted from one; 0 for none.
#[must_use]
pub fn size_of(blocks: u64) -> u64 {
    blocks.checked_sub(1).map_or(0, |last| last * STRIDE + BLOCK as u64)
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A block is written.
    Write {
        /// Which, counted from zero.
        block: u64,
        /// Unique, and never 0.
        sequence: u64,
        /// Where it lies beyond the end, the file grows; else it is refused.
        grows: bool,
    },
    /// The file is made so many blocks long.
    Resize(u64),
}

/// The last write of each block, 0 for zeroes; none beyond the end.
type File = Vec<u64>;

/// A state of the file, and how often which changes happened that are not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Possible {
    file: File,
    done: BTreeMap<u64, u32>,
}

/// A change without an answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    change: Change,
    /// How often it was asked for where it may have been executed.
    asked: u32,
}

impl Open {
    /// How often it may happen: a write as often as it is asked for, a call that changes names or sizes once.
    fn most(self) -> u32 {
        match self.change {
            Change::Resize(_) => self.asked.min(1),
            Change::Write { .. } => self.asked,
        }
    }
}

/// The states that a file whose size changes may be in after all that was answered so far.
#[derive(Debug)]
pub struct Sized {
    /// Which file it is.
    pub image: ImageId,
    possible: BTreeSet<Possible>,
    open: BTreeMap<u64, Open>,
    begun: u64,
    concluded: u64,
}

impl Sized {
    /// A file of zeroes, of all its blocks.
    #[must_use]
    pub fn new(image: ImageId) -> Sized {
        let whole = Possible {
            file: (0..BLOCKS).map(|_| 0).collect(),
            done: BTreeMap::new(),
        };
        Sized {
            image,
            possible: [whole].into(),
            open: BTreeMap::new(),
            begun: 0,
            concluded: 0,
        }
    }

    /// A change begins; what it is, is said by the number that it gets, which is a sequence for its data.
    pub fn begin(&mut self, change: impl FnOnce(u64) -> Change) -> (u64, Change) {
        self.begun += 1;
        let change = change(self.begun);
        self.open.insert(self.begun, Open { change, asked: 0 });
        (self.begun, change)
    }

    /// How often an answer has said so far what cannot be any more: of a change, or of a read.
    #[must_use]
    pub fn concluded(&self) -> u64 {
        self.concluded
    }

    /// Changes without an answer.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.open.len()
    }

    /// A change is asked for, maybe once more.
    pub fn ask(&mut self, number: u64) {
        if let Some(open) = self.open.get_mut(&number) {
            open.asked += 1;
        }
    }

    /// Whoever was asked last has not done it. What was asked before may have happened.
    pub fn put_off(&mut self, number: u64) {
        if let Some(open) = self.open.get_mut(&number) {
            open.asked = open.asked.saturating_sub(1);
        }
    }

    /// A change was answered as done: it happened, and happens no more.
    ///
    /// # Errors
    /// When it cannot have happened.
    pub fn end(&mut self, number: u64) -> Result<(), String> {
        let mut ends = self.reachable();
        ends.retain(|possible| possible.done.contains_key(&number));
        if ends.is_empty() {
            return Err(format!(
                "{:?} cannot have happened: {}",
                self.open.get(&number),
                self.describe()
            ));
        }
        self.close(number, ends);
        Ok(())
    }

    /// A change was refused, by the one who was asked last: what was asked before may have happened.
    pub fn refuse(&mut self, number: u64) {
        let repeated = self.open.get(&number).is_some_and(|open| open.asked > 1);
        let mut ends = self.reachable();
        ends.retain(|possible| repeated || !possible.done.contains_key(&number));
        self.close(number, ends);
    }

    fn close(&mut self, number: u64, ends: BTreeSet<Possible>) {
        let without = |mut possible: Possible| {
            possible.done.remove(&number);
            possible
        };
        self.possible = ends.into_iter().map(without).collect();
        self.open.remove(&number);
        self.concluded += 1;
    }

    /// A block was read while nothing was concluded: this write, 0 for zeroes, or none where the file has ended.
    ///
    /// A truncation that is under way is known to one gateway before the other: who reads through the one sees the file end
    /// where who writes through the other does not. Promised is one order of changes when they are answered, so nothing is
    /// concluded from what is read meanwhile. The data itself goes from nobody's view but with the size.
    ///
    /// # Errors
    /// When it cannot be so.
    pub fn read(&mut self, block: u64, found: Option<u64>) -> Result<(), String> {
        let at = |file: &File| file.get(usize::try_from(block).expect("few blocks")).copied();
        let is_cut = self.open.values().any(|open| matches!(open.change, Change::Resize(_)));
        if is_cut && found.is_none() {
            return Ok(());
        }
        let mut ends = self.reachable();
        let before = ends.len();
        ends.retain(|possible| at(&possible.file) == found);
        if ends.is_empty() {
            return Err(format!("block {block} of a file is {found:?}: {}", self.describe()));
        }
        if !is_cut {
            self.concluded += u64::from(ends.len() < before);
            self.possible = ends;
        }
        Ok(())
    }

    /// Whether the file may have this size.
    #[must_use]
    pub fn may_have(&self, size: u64) -> bool {
        let mut states = self.possible.iter();
        states.any(|possible| size_of(possible.file.len() as u64) == size)
    }

    fn describe(&self) -> String {
        let some: Vec<&Possible> = self.possible.iter().take(4).collect();
        let count = self.possible.len();
        format!("under way {:?}, {count} states, of these: {some:?}", self.open)
    }

    /// All states to which the changes that are under way can lead.
    fn reachable(&self) -> BTreeSet<Possible> {
        let mut least = Least::default();
        let mut fresh: VecDeque<Possible> = self.possible.iter().cloned().collect();
        while let Some(possible) = fresh.pop_front() {
            if !least.add(&possible) {
                continue;
            }
            for (number, open) in &self.open {
                let times = possible.done.get(number).copied().unwrap_or(0);
                if times >= open.most() {
                    continue;
                }
                let mut next = possible.clone();
                if apply(open.change, &mut next.file) {
                    next.done.insert(*number, times + 1);
                    fresh.push_back(next);
                }
            }
        }
        least.into_states()
    }
}

/// States by their files and the changes that led there: of each, how often these happened at least. From a state that took
/// a change more often nothing can happen that cannot from the one that took it less often, so the former is not kept: what
/// is asked for thirty times would otherwise be thirty states, and four such changes a million.
#[derive(Debug, Default)]
struct Least(BTreeMap<(File, Vec<u64>), Vec<Vec<u32>>>);

impl Least {
    /// False if what can happen from it is known already.
    fn add(&mut self, possible: &Possible) -> bool {
        let (numbers, times): (Vec<u64>, Vec<u32>) = possible.done.iter().unzip();
        let known = self.0.entry((possible.file.clone(), numbers)).or_default();
        if known.iter().any(|known| is_no_more(known, &times)) {
            return false;
        }
        known.retain(|known| !is_no_more(&times, known));
        known.push(times);
        true
    }

    fn into_states(self) -> BTreeSet<Possible> {
        let states = self.0.into_iter().flat_map(|((file, numbers), all)| {
            let state = move |times: Vec<u32>| Possible {
                file: file.clone(),
                done: numbers.iter().copied().zip(times).collect(),
            };
            all.into_iter().map(state)
        });
        states.collect()
    }
}

/// Whether each of the same changes happened as often, or less often.
fn is_no_more(these: &[u32], those: &[u32]) -> bool {
    these.iter().zip(those).all(|(this, that)| this <= that)
}

/// Does it; false if it is refused.
fn apply(change: Change, file: &mut File) -> bool {
    let len = |blocks: u64| usize::try_from(blocks).expect("few blocks");
    match change {
        Change::Write { block, grows, .. } if !grows && len(block) >= file.len() => return false,
        Change::Write { block, sequence, .. } => {
            file.resize(file.len().max(len(block) + 1), 0);
            file[len(block)] = sequence;
        }
        Change::Resize(blocks) => file.resize(len(blocks), 0),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(block: u64, grows: bool) -> impl Fn(u64) -> Change {
        move |sequence| Change::Write { block, sequence, grows }
    }

    fn asked(file: &mut Sized, change: impl FnOnce(u64) -> Change) -> u64 {
        let (number, _) = file.begin(change);
        file.ask(number);
        number
    }

    #[test]
    fn a_write_and_a_truncation_end_in_one_of_two_orders() {
        let both = || {
            let mut file = Sized::new(ImageId(1));
            let written = asked(&mut file, write(4, true));
            let cut = asked(&mut file, |_| Change::Resize(2));
            file.end(written).unwrap();
            file.end(cut).unwrap();
            file
        };
        assert!(both().read(4, None).is_ok() && both().read(4, Some(1)).is_ok());
        assert!(
            both().read(4, Some(0)).is_err(),
            "the size of the write, and zeroes for its data"
        );
        let mut file = both();
        assert!(file.may_have(size_of(2)) && file.may_have(size_of(5)) && !file.may_have(size_of(6)));
        file.read(4, None).unwrap();
        assert!(!file.may_have(size_of(5)), "what was read says which order it was");
    }

    #[test]
    fn what_is_under_way_is_read_or_not_and_is_there_once_it_was_read() {
        let mut file = Sized::new(ImageId(1));
        let written = asked(&mut file, write(1, true));
        file.read(1, Some(0)).unwrap();
        let concluded = file.concluded();
        file.read(0, Some(0)).unwrap();
        assert_eq!(file.concluded(), concluded);
        file.read(1, Some(written)).unwrap();
        assert!(
            file.concluded() > concluded,
            "who read meanwhile may have seen what was before"
        );
        assert!(file.read(1, Some(0)).is_err());
        file.end(written).unwrap();
        let cut = asked(&mut file, |_| Change::Resize(1));
        assert!(file.read(1, None).is_ok() && file.read(1, Some(written)).is_ok());
        assert!(file.read(1, Some(0)).is_err(), "data goes with the size only");
        file.end(cut).unwrap();
        assert!(file.read(1, Some(written)).is_err() && file.read(1, None).is_ok());
    }

    #[test]
    fn what_was_read_and_cut_off_does_not_come_again() {
        let mut file = Sized::new(ImageId(1));
        let written = asked(&mut file, write(4, true));
        file.read(4, Some(written)).unwrap();
        let cut = asked(&mut file, |_| Change::Resize(2));
        file.end(cut).unwrap();
        file.read(4, None).unwrap();
        assert!(file.read(4, Some(written)).is_err());
    }

    #[test]
    fn nothing_happens_after_its_answer() {
        let mut file = Sized::new(ImageId(1));
        let first = asked(&mut file, write(0, true));
        file.ask(first);
        file.end(first).unwrap();
        let second = asked(&mut file, write(0, true));
        file.end(second).unwrap();
        assert!(file.read(0, Some(first)).is_err() && file.read(0, Some(second)).is_ok());
    }

    #[test]
    fn who_cannot_make_it_larger_writes_nothing_beyond_the_end() {
        let mut file = Sized::new(ImageId(1));
        let cut = asked(&mut file, |_| Change::Resize(2));
        file.end(cut).unwrap();
        let beyond = asked(&mut file, write(2, false));
        assert!(file.end(beyond).is_err());
        file.refuse(beyond);
        let grown = asked(&mut file, |_| Change::Resize(3));
        file.end(grown).unwrap();
        assert!(file.read(2, Some(beyond)).is_err() && file.read(2, Some(0)).is_ok());
    }

    #[test]
    fn what_is_asked_for_again_and_again_is_few_states() {
        let mut file = Sized::new(ImageId(1));
        let numbers = [
            asked(&mut file, write(0, true)),
            asked(&mut file, write(0, true)),
            asked(&mut file, write(5, true)),
            asked(&mut file, |_| Change::Resize(2)),
        ];
        (0..100).for_each(|_| numbers.iter().for_each(|number| file.ask(*number)));
        assert!(file.reachable().len() < 100, "{} states", file.reachable().len());
        file.end(numbers[3]).unwrap();
        file.end(numbers[2]).unwrap();
        file.end(numbers[1]).unwrap();
        for (block, found) in [(5, None), (0, Some(numbers[0]))] {
            file.read(block, found).unwrap();
        }
        assert!(file.read(0, Some(numbers[1])).is_err(), "it happens no more");
        file.end(numbers[0]).unwrap();
        assert!(file.read(5, Some(numbers[2])).is_err(), "it was cut off");
    }

    /// The first gateway that is asked cuts the file off and does not answer; the next one says that it has not done it.
    #[test]
    fn what_one_puts_off_another_may_have_done() {
        let mut file = Sized::new(ImageId(1));
        let cut = asked(&mut file, |_| Change::Resize(1));
        let written = asked(&mut file, write(1, true));
        file.ask(cut);
        file.put_off(cut);
        file.end(written).unwrap();
        file.ask(cut);
        file.end(cut).unwrap();
        assert!(file.may_have(size_of(2)), "it was cut off before it was written");
        file.read(1, Some(written)).unwrap();

        let mut file = Sized::new(ImageId(1));
        let cut = asked(&mut file, |_| Change::Resize(1));
        file.put_off(cut);
        let written = asked(&mut file, write(1, true));
        file.end(written).unwrap();
        file.ask(cut);
        file.end(cut).unwrap();
        assert!(!file.may_have(size_of(2)), "nobody had done it before");
    }
}
