//! The disk of one OSD: sparse, with a volatile cache, completing in whatever order the world likes, and failing
//! when told to.
//!
//! It watches its user: everything aligned and inside the disk, no two writes in flight overlap, no operation
//! in flight twice. A read may meet writes in flight and then sees any of their sectors. When things complete is
//! the world's decision; nothing happens before [`Disk::complete`].

mod faults;
mod pages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use trivet_core::Now;
use trivet_core::disk::{DiskDone, DiskError, DiskOp, DiskOpKind, IoId};

use crate::random::Random;
pub use faults::{DiskFaults, Fault, Harm, Incident};
use pages::Pages;

/// What everything is aligned to, bytes.
pub const BLOCK: u64 = 4096;
/// [`BLOCK`] as a length in memory.
const BLOCK_LEN: usize = 4096;
/// What is written whole or not at all, bytes.
const SECTOR: usize = 512;
/// EIO, as Linux numbers it.
const EIO: i32 = 5;
/// Incidents that are kept until somebody takes them.
const MAX_INCIDENTS: usize = 1000;

/// A rule of the disk's interface that its user broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("disk misused: {0}")]
pub struct Misuse(String);

#[derive(Clone, Debug)]
enum Work {
    Read { offset: u64, len: usize },
    Write { offset: u64, data: Bytes },
    Flush { covers: u64 },
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Disk {
    size: u64,
    random: Random,
    pages: Pages,
    in_flight: BTreeMap<IoId, Work>,
    /// The writes in flight by their first block.
    writing: BTreeMap<u64, IoId>,
    /// Counts completed writes.
    clock: u64,
    armed: Vec<(Fault, Range<u64>)>,
    /// Blocks that cannot be read before they are written.
    broken: BTreeSet<u64>,
    faults: DiskFaults,
    incidents: Vec<Incident>,
    /// How many times slower than healthy it is: for the world, which owns the delays.
    pub slow: u32,
    /// Nothing completes before this: for the world.
    pub frozen_until: Now,
}

impl Disk {
    /// A disk of zeroes. `random` decides what is torn, lost and hit.
    #[must_use]
    pub fn new(size: u64, random: Random) -> Disk {
        Disk {
            size: size / BLOCK * BLOCK,
            random,
            pages: Pages::default(),
            in_flight: BTreeMap::new(),
            writing: BTreeMap::new(),
            clock: 0,
            armed: Vec::new(),
            broken: BTreeSet::new(),
            faults: DiskFaults::default(),
            incidents: Vec::new(),
            slow: 1,
            frozen_until: Now(0),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes an operation; it waits for [`Disk::complete`].
    ///
    /// # Errors
    /// When the operation breaks a rule of the interface: a defect of the store.
    pub fn submit(&mut self, op: DiskOp) -> Result<(), Misuse> {
        if self.in_flight.contains_key(&op.id) {
            return Err(Misuse(format!("operation {} is in flight twice", op.id.0)));
        }
        let work = match op.kind {
            DiskOpKind::Read { offset, len } => {
                self.check_bounds("read", offset, len)?;
                Work::Read { offset, len }
            }
            DiskOpKind::Write { offset, data } => {
                self.check_bounds("write", offset, data.len())?;
                self.check_overlap(offset, data.len())?;
                self.writing.insert(offset, op.id);
                Work::Write { offset, data }
            }
            DiskOpKind::Flush => Work::Flush { covers: self.clock },
        };
        self.in_flight.insert(op.id, work);
        Ok(())
    }

    fn check_bounds(&self, what: &str, offset: u64, len: usize) -> Result<(), Misuse> {
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= self.size);
        if len > 0 && offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK_LEN) && inside {
            return Ok(());
        }
        Err(Misuse(format!(
            "{what} of {len} bytes at {offset}: unaligned or outside the disk"
        )))
    }

    fn check_overlap(&self, offset: u64, len: usize) -> Result<(), Misuse> {
        match self.writes_within(offset..offset + len as u64).next() {
            None => Ok(()),
            Some((at, data)) => Err(Misuse(format!(
                "write of {len} bytes at {offset} while one of {} bytes at {at} is in flight",
                data.len()
            ))),
        }
    }

    /// The writes in flight that touch the range. They do not overlap: the last that begins before its start
    /// is the only one that can reach into it.
    fn writes_within(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Bytes)> {
        let before = self.writing.range(..range.start).next_back();
        let inside = self.writing.range(range.clone());
        before
            .into_iter()
            .chain(inside)
            .filter_map(move |(&at, id)| match self.in_flight.get(id) {
                Some(Work::Write { data, .. }) if at + data.len() as u64 > range.start => Some((at, data)),
                _ => None,
            })
    }

    /// The operations in flight, ascending.
    pub fn in_flight(&self) -> impl Iterator<Item = IoId> {
        self.in_flight.keys().copied()
    }

    /// Executes an operation now; `None` if it is not in flight (any more). After the end of a process the next
    /// one counts its operations anew: the world has to forget the completions that it had planned.
    pub fn complete(&mut self, id: IoId) -> Option<DiskDone> {
        let result = match self.in_flight.remove(&id)? {
            Work::Read { offset, len } => self.finish_read(offset, len),
            Work::Write { offset, data } => self.finish_write(offset, &data),
            Work::Flush { covers } => self.finish_flush(covers),
        };
        Some(DiskDone { id, result })
    }

    fn finish_read(&mut self, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let range = offset..offset + len as u64;
        if let Some(&block) = self.broken.range(range.start / BLOCK..range.end / BLOCK).next() {
            self.note(Harm::BrokenRead, block * BLOCK..(block + 1) * BLOCK);
            return Err(failure("read of a broken block"));
        }
        if self.strikes(&Fault::ReadError, &range).is_some() {
            self.note(Harm::ReadError, range);
            return Err(failure("read"));
        }
        let data = self.peek(offset, len);
        let data = self.mixed_with_writes(&range, data);
        match self.strikes(&Fault::ReadFlip, &range) {
            None => Ok(data),
            Some(within) => Ok(self.flipped(within, offset, &data)),
        }
    }

    /// A read meets the writes in flight half way: any of their sectors may be there already.
    fn mixed_with_writes(&mut self, range: &Range<u64>, data: Bytes) -> Bytes {
        let writes: Vec<(u64, Bytes)> = self
            .writes_within(range.clone())
            .map(|(at, new)| (at, new.clone()))
            .collect();
        if writes.is_empty() {
            return data;
        }
        let mut mixture = data.to_vec();
        for (at, new) in writes {
            let (from, to) = (at.max(range.start), range.end.min(at + new.len() as u64));
            for sector in (from..to).step_by(SECTOR) {
                if self.random.one_in(2) {
                    let (target, source) = (length(sector - range.start), length(sector - at));
                    mixture[target..target + SECTOR].copy_from_slice(&new[source..source + SECTOR]);
                }
            }
        }
        Bytes::from(mixture)
    }

    fn flipped(&mut self, within: Range<u64>, offset: u64, data: &Bytes) -> Bytes {
        let at = self.random.range(within.start..=within.end - 1);
        let mut bytes = data.to_vec();
        bytes[length(at - offset)] ^= 1 << self.random.below(8);
        self.note(Harm::ReadFlip, at..at + 1);
        Bytes::from(bytes)
    }

    fn finish_write(&mut self, offset: u64, data: &Bytes) -> Result<Bytes, DiskError> {
        self.writing.remove(&offset);
        self.clock += 1;
        let range = offset..offset + data.len() as u64;
        if self.strikes(&Fault::WriteError, &range).is_some() {
            self.note(Harm::WriteError, range);
            self.write_some_sectors(offset, data);
            return Err(failure("write"));
        }
        if self.strikes(&Fault::LostWrite, &range).is_some() {
            self.note(Harm::LostWrite, range);
        } else if let Some(target) = self.wrong_place(&range) {
            self.note(Harm::MisdirectedWrite, target..target + data.len() as u64);
            self.write(target, data);
        } else {
            self.write(offset, data);
        }
        Ok(Bytes::new())
    }

    fn write(&mut self, offset: u64, data: &Bytes) {
        for (block, page) in blocks(offset, data) {
            self.pages.write(block, page, self.clock);
            self.broken.remove(&block);
        }
    }

    /// What an interrupted write leaves: nothing, all, or any of its sectors.
    fn write_some_sectors(&mut self, offset: u64, data: &Bytes) {
        let eighths = *self.random.pick(&[0, 4, 4, 8]).unwrap_or(&4);
        for (block, page) in blocks(offset, data) {
            let old = self.pages.read(block);
            let merged = pages::merge(&[&old, &page], |_| usize::from(self.random.chance(eighths, 8)));
            self.pages.write(block, merged, self.clock);
        }
    }

    /// Where an armed fault lets this write land; not where another write is on its way.
    fn wrong_place(&mut self, range: &Range<u64>) -> Option<u64> {
        let at = self
            .armed
            .iter()
            .position(|(fault, armed)| matches!(fault, Fault::MisdirectedWrite { .. }) && touch(armed, range))?;
        let Fault::MisdirectedWrite { into } = self.armed[at].0.clone() else {
            return None;
        };
        let block = self
            .pages
            .any_stored(&(into.start / BLOCK..into.end / BLOCK), &mut self.random)?;
        let len = range.end - range.start;
        let target = block * BLOCK;
        let free = target + len <= into.end.min(self.size)
            && !touch(&(target..target + len), range)
            && self.writes_within(target..target + len).next().is_none();
        if !free {
            return None;
        }
        self.armed.remove(at);
        Some(target)
    }

    fn finish_flush(&mut self, covers: u64) -> Result<Bytes, DiskError> {
        let everything = 0..self.size;
        if self.strikes(&Fault::FlushError, &everything).is_some() {
            self.note(Harm::FlushError, everything);
            self.pages.forget(covers, &mut self.random);
            return Err(failure("flush"));
        }
        if self.strikes(&Fault::LyingFlush, &everything).is_some() {
            self.note(Harm::LyingFlush, everything);
        } else {
            self.pages.flush(covers);
        }
        Ok(Bytes::new())
    }

    /// What is stored there, without any fault and without the writes in flight.
    ///
    /// # Panics
    /// When the range is not whole blocks inside the disk.
    #[must_use]
    pub fn peek(&self, offset: u64, len: usize) -> Bytes {
        assert!(
            self.check_bounds("peek", offset, len).is_ok(),
            "{len} bytes at {offset}"
        );
        let first = offset / BLOCK;
        if len == BLOCK_LEN {
            return self.pages.read(first);
        }
        let mut whole = Vec::with_capacity(len);
        for block in first..first + len as u64 / BLOCK {
            whole.extend_from_slice(&self.pages.read(block));
        }
        Bytes::from(whole)
    }

    /// The process dies, the drive keeps its power: what completed stays in its cache, unflushed; each write in
    /// flight happens, or not, or some of its sectors do.
    pub fn kill(&mut self) {
        self.note(Harm::Kill, 0..self.size);
        self.pages.decide_forgotten(&mut self.random);
        self.clock += 1;
        self.writing.clear();
        for work in std::mem::take(&mut self.in_flight).into_values() {
            if let Work::Write { offset, data } = work {
                self.write_some_sectors(offset, &data);
            }
        }
    }

    /// The power fails: each unflushed sector independently keeps what it durably was, or gets any version that
    /// was on its way.
    pub fn power_cut(&mut self) {
        self.note(Harm::PowerCut, 0..self.size);
        self.clock += 1;
        self.writing.clear();
        for work in std::mem::take(&mut self.in_flight).into_values() {
            if let Work::Write { offset, data } = work {
                blocks(offset, &data).for_each(|(block, page)| self.pages.write(block, page, self.clock));
            }
        }
        let (lost, torn) = self.pages.cut(self.clock, &mut self.random);
        self.faults.add(Harm::LostBlock, lost);
        self.faults.add(Harm::TornBlock, torn);
    }

    /// A copy of the disk without what only its cache has.
    #[must_use]
    pub fn without_power(&self) -> Disk {
        let mut copy = self.clone();
        copy.writing.clear();
        copy.in_flight.clear();
        copy.armed.clear();
        copy.pages.lose_cache();
        copy
    }

    /// Somebody puts in a new disk: everything is zero, nothing is in flight, nothing is broken.
    pub fn wipe(&mut self) {
        self.note(Harm::Wipe, 0..self.size);
        self.pages = Pages::default();
        self.in_flight.clear();
        self.writing.clear();
        self.broken.clear();
        self.armed.clear();
    }
}

/// The blocks of a write, by reference.
fn blocks(offset: u64, data: &Bytes) -> impl Iterator<Item = (u64, Bytes)> {
    let starts = (0..data.len()).step_by(BLOCK_LEN);
    (offset / BLOCK..).zip(starts.map(|at| data.slice(at..at + BLOCK_LEN)))
}

fn touch(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).expect("within a buffer in memory")
}

fn failure(what: &str) -> DiskError {
    DiskError {
        errno: EIO,
        what: what.to_owned(),
    }
}
