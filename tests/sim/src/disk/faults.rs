//! What can go wrong with a disk, what is armed to, and what has.

use std::ops::Range;

use super::{BLOCK, BLOCK_LEN, Disk, MAX_INCIDENTS, length, touch};

/// A fault that waits for an operation to strike, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read fails.
    ReadError,
    /// A read returns one bit wrong.
    ReadFlip,
    /// A write is acknowledged and not done.
    LostWrite,
    /// A write is acknowledged and done elsewhere: over something that is stored in this range.
    MisdirectedWrite {
        /// Where it lands, bytes.
        into: Range<u64>,
    },
    /// A write fails, with any of its sectors done.
    WriteError,
    /// A flush fails; what it would have covered is durable or not, and no later flush covers it.
    FlushError,
    /// A flush is acknowledged and not done; the next one does its work.
    LyingFlush,
}

/// What really happened to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// [`Fault::ReadError`].
    ReadError,
    /// A block became unreadable until it is written.
    BrokenBlock,
    /// A read met such a block and failed.
    BrokenRead,
    /// [`Fault::ReadFlip`].
    ReadFlip,
    /// A stored bit changed.
    Rot,
    /// [`Fault::LostWrite`].
    LostWrite,
    /// [`Fault::MisdirectedWrite`].
    MisdirectedWrite,
    /// [`Fault::WriteError`].
    WriteError,
    /// [`Fault::FlushError`].
    FlushError,
    /// [`Fault::LyingFlush`].
    LyingFlush,
    /// The process ended without warning.
    Kill,
    /// The power failed.
    PowerCut,
    /// The power failed and nothing arrived of a block's last write.
    LostBlock,
    /// The power failed and some sectors of a block's last write arrived.
    TornBlock,
    /// The disk was replaced by an empty one.
    Wipe,
}

impl Harm {
    /// All kinds, with the names that reports use.
    pub const ALL: [(Harm, &'static str); 15] = [
        (Harm::ReadError, "read errors"),
        (Harm::BrokenBlock, "broken blocks"),
        (Harm::BrokenRead, "reads of broken blocks"),
        (Harm::ReadFlip, "bits flipped in reads"),
        (Harm::Rot, "bits rotten"),
        (Harm::LostWrite, "lost writes"),
        (Harm::MisdirectedWrite, "misdirected writes"),
        (Harm::WriteError, "write errors"),
        (Harm::FlushError, "flush errors"),
        (Harm::LyingFlush, "lying flushes"),
        (Harm::Kill, "kills"),
        (Harm::PowerCut, "power cuts"),
        (Harm::LostBlock, "unflushed blocks lost"),
        (Harm::TornBlock, "unflushed blocks torn"),
        (Harm::Wipe, "disks wiped"),
    ];
}

/// How often each kind of harm was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults([u64; Harm::ALL.len()]);

impl DiskFaults {
    /// How often it happened.
    #[must_use]
    pub fn count(&self, harm: Harm) -> u64 {
        self.0[harm as usize]
    }

    /// Counts it so many times more.
    pub fn add(&mut self, harm: Harm, times: u64) {
        self.0[harm as usize] += times;
    }

    /// Adds all counts of another disk.
    pub fn merge(&mut self, other: &DiskFaults) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }

    /// All kinds by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Harm::ALL.iter().map(|&(harm, name)| (name, self.count(harm)))
    }
}

/// One harm and where it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What.
    pub harm: Harm,
    /// Where, bytes.
    pub range: Range<u64>,
}

impl Disk {
    /// Lets the next fitting operation that touches `range` suffer; the faults of flushes ignore the range.
    pub fn arm(&mut self, fault: Fault, range: Range<u64>) {
        self.armed.push((fault, range));
    }

    /// Forgets the faults that are armed and have not struck.
    pub fn disarm(&mut self) {
        self.armed.clear();
    }

    /// How many faults wait to strike.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.armed.len()
    }

    /// Blocks that cannot be read before they are written, ascending, in bytes from the start.
    pub fn broken(&self) -> impl Iterator<Item = u64> {
        self.broken.iter().map(|block| block * BLOCK)
    }

    /// Makes a block within the range unreadable until it is written, one that was ever written; returns where.
    pub fn break_block(&mut self, range: &Range<u64>) -> Option<u64> {
        let block = self.any_stored(range)?;
        self.broken.insert(block);
        self.note(Harm::BrokenBlock, block * BLOCK..(block + 1) * BLOCK);
        Some(block * BLOCK)
    }

    /// Flips a bit within the range in a block that was ever written; returns where.
    pub fn rot(&mut self, range: &Range<u64>) -> Option<u64> {
        let block = self.any_stored(range)?;
        let within = range.start.max(block * BLOCK)..range.end.min((block + 1) * BLOCK);
        let at = self.random.range(within.start..=within.end - 1);
        let bit = 1 << self.random.below(8);
        self.pages
            .alter(block, |page| page[length(at % BLOCK).min(BLOCK_LEN - 1)] ^= bit);
        self.note(Harm::Rot, at..at + 1);
        Some(at)
    }

    fn any_stored(&mut self, range: &Range<u64>) -> Option<u64> {
        let blocks = range.start / BLOCK..range.end.min(self.size).div_ceil(BLOCK);
        self.pages.any_stored(&blocks, &mut self.random)
    }

    /// How often what happened.
    #[must_use]
    pub fn faults(&self) -> &DiskFaults {
        &self.faults
    }

    /// What happened since the last call, in order; of very much only the beginning.
    pub fn take_incidents(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.incidents)
    }

    pub(super) fn note(&mut self, harm: Harm, range: Range<u64>) {
        self.faults.add(harm, 1);
        if self.incidents.len() < MAX_INCIDENTS {
            self.incidents.push(Incident { harm, range });
        }
    }

    /// Uses up an armed fault that fits; returns where the operation and the fault's range meet.
    pub(super) fn strikes(&mut self, fault: &Fault, range: &Range<u64>) -> Option<Range<u64>> {
        let everywhere = matches!(fault, Fault::FlushError | Fault::LyingFlush);
        let fits = |(armed, at): &(Fault, Range<u64>)| armed == fault && (everywhere || touch(at, range));
        let index = self.armed.iter().position(fits)?;
        let (_, at) = self.armed.remove(index);
        Some(range.start.max(at.start)..range.end.min(at.end))
    }
}
