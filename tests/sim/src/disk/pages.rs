//! What a disk stores: blocks, each with the version that no power cut can take away and those that one can.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use trivet_core::buffer::zeroes;

use super::{BLOCK_LEN, SECTOR};
use crate::random::Random;

/// When a version was written that a failed flush has given up: no later flush covers it.
const FORGOTTEN: u64 = u64::MAX;

#[derive(Clone, Debug)]
struct Version {
    data: Bytes,
    /// The disk's clock when its write completed.
    at: u64,
}

#[derive(Clone, Debug)]
struct Page {
    durable: Bytes,
    /// Unflushed, in the order of completion; the last is what reads see.
    versions: Vec<Version>,
}

/// All blocks that were ever written, by number.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    pages: BTreeMap<u64, Page>,
    /// When each unflushed version was written, and its block; in order.
    unflushed: VecDeque<(u64, u64)>,
    /// Blocks with forgotten versions.
    forgotten: BTreeSet<u64>,
}

/// How a power cut chooses.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Every unflushed sector is lost.
    Lose,
    /// Every sector arrives.
    Keep,
    /// Each block gets any of its versions.
    Blocks,
    /// Each sector gets the last version in so many of eight cases, else any.
    Sectors(u64),
    /// What was written up to this time arrives.
    UpTo(u64),
    /// What was written after this time arrives, what was written before does not.
    After(u64),
}

impl Pages {
    /// What reads see.
    pub fn read(&self, block: u64) -> Bytes {
        self.pages.get(&block).map_or_else(zero, |page| page.newest().clone())
    }

    /// Writes into the cache.
    pub fn write(&mut self, block: u64, data: Bytes, at: u64) {
        let page = self.pages.entry(block).or_insert_with(|| Page {
            durable: zero(),
            versions: Vec::new(),
        });
        page.versions.push(Version { data, at });
        self.unflushed.push_back((at, block));
    }

    /// Makes durable what was written up to then.
    pub fn flush(&mut self, covers: u64) {
        while let Some((_, block)) = self.unflushed.pop_front_if(|(at, _)| *at <= covers) {
            if let Some(page) = self.pages.get_mut(&block) {
                page.settle(covers);
            }
        }
    }

    /// A flush failed: each block that it would have covered is durable or given up. What is given up stays
    /// visible until the process ends.
    pub fn forget(&mut self, covers: u64, random: &mut Random) {
        while let Some((_, block)) = self.unflushed.pop_front_if(|(at, _)| *at <= covers) {
            let Some(page) = self.pages.get_mut(&block) else {
                continue;
            };
            if random.one_in(2) {
                page.settle(covers);
            } else {
                let covered = page.versions.iter_mut().filter(|version| version.at <= covers);
                covered.for_each(|version| version.at = FORGOTTEN);
                self.forgotten.insert(block);
            }
        }
    }

    /// What was given up is now gone, or was durable after all.
    pub fn decide_forgotten(&mut self, random: &mut Random) {
        for block in std::mem::take(&mut self.forgotten) {
            let Some(page) = self.pages.get_mut(&block) else {
                continue;
            };
            for version in page.versions.extract_if(.., |version| version.at == FORGOTTEN) {
                if random.one_in(2) {
                    page.durable = version.data;
                }
            }
        }
    }

    /// The power fails. Returns how many blocks lost their last version wholly, and how many partly.
    pub fn cut(&mut self, now: u64, random: &mut Random) -> (u64, u64) {
        let first = self.unflushed.front().map_or(now, |(at, _)| *at);
        let cut = Cut::draw(first, now, random);
        let mut blocks = std::mem::take(&mut self.forgotten);
        blocks.extend(self.unflushed.drain(..).map(|(_, block)| block));
        let (mut lost, mut torn) = (0, 0);
        for block in blocks {
            if let Some(page) = self.pages.get_mut(&block)
                && let Some(newest) = page.versions.last().map(|version| version.data.clone())
            {
                page.cut(cut, random);
                match same_sectors(&page.durable, &newest) {
                    0 => lost += 1,
                    n => torn += u64::from(n < BLOCK_LEN / SECTOR),
                }
            }
        }
        (lost, torn)
    }

    /// Nothing that is not flushed is left.
    pub fn lose_cache(&mut self) {
        let mut blocks = std::mem::take(&mut self.forgotten);
        blocks.extend(self.unflushed.drain(..).map(|(_, block)| block));
        for block in blocks {
            if let Some(page) = self.pages.get_mut(&block) {
                page.versions.clear();
            }
        }
    }

    /// One of the blocks of the range that were ever written.
    pub fn any_stored(&self, range: &Range<u64>, random: &mut Random) -> Option<u64> {
        let range = range.start..range.end.max(range.start);
        let count = self.pages.range(range.clone()).count();
        self.pages
            .range(range)
            .map(|(&block, _)| block)
            .nth(random.index(count))
    }

    /// Changes what is stored, in every version that reads may see from now on.
    pub fn alter(&mut self, block: u64, change: impl FnOnce(&mut [u8])) {
        if let Some(page) = self.pages.get_mut(&block) {
            let data = page
                .versions
                .last_mut()
                .map_or(&mut page.durable, |last| &mut last.data);
            let mut bytes = data.to_vec();
            change(&mut bytes);
            *data = Bytes::from(bytes);
        }
    }
}

impl Page {
    fn newest(&self) -> &Bytes {
        self.versions.last().map_or(&self.durable, |version| &version.data)
    }

    /// The last version that is covered becomes durable; it supersedes all before.
    fn settle(&mut self, covers: u64) {
        if let Some(last) = self.versions.iter().rposition(|version| version.at <= covers)
            && let Some(version) = self.versions.drain(..=last).next_back()
        {
            self.durable = version.data;
        }
    }

    fn cut(&mut self, cut: Cut, random: &mut Random) {
        let versions = std::mem::take(&mut self.versions);
        let count = versions.len();
        let any = |random: &mut Random| random.index(count + 1);
        let before = |time: u64| versions.iter().rposition(|version| version.at <= time);
        let whole = match cut {
            Cut::Lose => Some(0),
            Cut::Keep => Some(count),
            Cut::Blocks => Some(any(random)),
            Cut::UpTo(time) => Some(before(time).map_or(0, |index| index + 1)),
            Cut::After(time) if versions.last().is_some_and(|last| last.at > time) => Some(count),
            Cut::After(_) => Some(0),
            Cut::Sectors(_) => None,
        };
        let mut choices = vec![&self.durable];
        choices.extend(versions.iter().map(|version| &version.data));
        self.durable = match (whole, cut) {
            (Some(index), _) => choices[index].clone(),
            (None, Cut::Sectors(eighths)) => {
                merge(
                    &choices,
                    |_| {
                        if random.chance(eighths, 8) { count } else { any(random) }
                    },
                )
            }
            (None, _) => self.durable.clone(),
        };
    }
}

impl Cut {
    fn draw(first: u64, last: u64, random: &mut Random) -> Cut {
        match random.below(8) {
            0 => Cut::Lose,
            1 => Cut::Keep,
            2 => Cut::Blocks,
            3 => Cut::UpTo(random.range(first..=last)),
            4 => Cut::After(random.range(first..=last)),
            _ => Cut::Sectors(random.below(8)),
        }
    }
}

/// A block of zeroes.
fn zero() -> Bytes {
    zeroes(BLOCK_LEN)
}

/// Takes each sector from the choice that `choose` names; by reference if all are from the same one.
pub fn merge(choices: &[&Bytes], mut choose: impl FnMut(usize) -> usize) -> Bytes {
    let chosen: [usize; BLOCK_LEN / SECTOR] = std::array::from_fn(&mut choose);
    if chosen.iter().all(|&choice| choice == chosen[0]) {
        return choices[chosen[0]].clone();
    }
    let mut block = Vec::with_capacity(BLOCK_LEN);
    for (sector, choice) in chosen.into_iter().enumerate() {
        block.extend_from_slice(&choices[choice][sector * SECTOR..(sector + 1) * SECTOR]);
    }
    Bytes::from(block)
}

fn same_sectors(a: &Bytes, b: &Bytes) -> usize {
    a.chunks(SECTOR).zip(b.chunks(SECTOR)).filter(|(a, b)| a == b).count()
}
