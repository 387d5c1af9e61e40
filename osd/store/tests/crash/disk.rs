//! A disk that completes out of order, keeps writes in a volatile cache until a flush, and fails on
//! demand. It watches its user: aligned, inside the disk, no two writes in flight overlap, no operation
//! number used twice. What a power cut makes of it is in `power`.

use std::ops::Range;

use bytes::Bytes;
use trivet_core::disk::{DiskDone, DiskError, DiskOp, DiskOpKind, IoId};

use crate::Violation;
use crate::image::{Image, PAGE, SECTOR};
use crate::journal::Journal;
use crate::rng::Rng;

/// EIO, as Linux numbers it.
const EIO: i32 = 5;
/// How much more rarely a slow operation is picked for completion.
const SLOWNESS: usize = 12;

/// A write that no flush has made durable.
#[derive(Clone)]
pub struct Unflushed {
    id: IoId,
    pub offset: usize,
    pub data: Bytes,
    /// When it completed; `None` while in flight, `u64::MAX` when it failed: no flush covers it.
    pub completed: Option<u64>,
}

#[derive(Clone)]
enum Work {
    Read { offset: usize, len: usize },
    Write,
    Flush { covers: u64 },
}

#[derive(Clone)]
struct Queued {
    id: IoId,
    work: Work,
    slow: bool,
}

/// What goes wrong, and when.
#[derive(Clone, Default)]
pub struct Faults {
    /// The flush after this many others fails; later flushes succeed without doing anything.
    pub flush_after: Option<usize>,
    /// The write after this many others fails, with any of its sectors written.
    pub write_after: Option<usize>,
    /// One in so many reads fails.
    pub read_one_in: Option<usize>,
    /// One write goes wrong, and nobody is told.
    pub mischief: Option<Mischief>,
}

/// A write that is lost or goes astray.
#[derive(Clone)]
pub struct Mischief {
    /// Where it begins.
    pub within: Range<usize>,
    /// After so many others that do.
    pub after: usize,
    /// Where it goes; `None`: nowhere.
    pub target: Option<Range<usize>>,
}

/// The simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    /// What no power cut can take away.
    pub durable: Image,
    /// What reads return.
    pub seen: Image,
    /// In order of submission.
    pub unflushed: Vec<Unflushed>,
    queue: Vec<Queued>,
    clock: u64,
    /// Changes when a power cut could give another image than before.
    pub generation: u64,
    pub faults: Faults,
    /// A write or flush has failed.
    pub failed: bool,
    lying: bool,
    /// Where the log lies, if anybody wants to know about its last write.
    pub log: Range<usize>,
    /// The last write to the log and the writes that were submitted together with it.
    pub tail: Vec<Range<usize>>,
    /// What each page held before its last write.
    pub older: Image,
    /// All writes, if anybody wants to undo one.
    pub journal: Option<Journal>,
    /// The writes submitted since the last completion.
    together: Vec<Range<usize>>,
}

impl SimDisk {
    pub fn new(image: Image) -> SimDisk {
        SimDisk {
            seen: image.clone(),
            older: image.clone(),
            durable: image,
            unflushed: Vec::new(),
            queue: Vec::new(),
            clock: 0,
            generation: 0,
            faults: Faults::default(),
            failed: false,
            lying: false,
            log: 0..0,
            tail: Vec::new(),
            journal: None,
            together: Vec::new(),
        }
    }

    pub fn size(&self) -> u64 {
        self.durable.size() as u64
    }

    pub fn idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn submit(&mut self, op: DiskOp, rng: &mut Rng) -> Result<(), Violation> {
        if self.queue.iter().any(|queued| queued.id == op.id) {
            return Err(Violation(format!("disk operation {:?} is in flight twice", op.id)));
        }
        let work = match op.kind {
            DiskOpKind::Read { offset, len } => {
                let offset = self.bounds("read", offset, len)?;
                Work::Read { offset, len }
            }
            DiskOpKind::Write { offset, data } => {
                let offset = self.bounds("write", offset, data.len())?;
                self.take_write(op.id, offset, data)?
            }
            DiskOpKind::Flush => Work::Flush { covers: self.clock },
        };
        self.queue.push(Queued {
            id: op.id,
            work,
            slow: rng.one_in(10),
        });
        Ok(())
    }

    fn bounds(&self, what: &str, offset: u64, len: usize) -> Result<usize, Violation> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let inside = start.checked_add(len).is_some_and(|end| end <= self.durable.size());
        if len == 0 || !start.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) || !inside {
            return Err(Violation(format!(
                "{what} of {len} bytes at {offset}: unaligned or outside the disk"
            )));
        }
        Ok(start)
    }

    fn take_write(&mut self, id: IoId, offset: usize, data: Bytes) -> Result<Work, Violation> {
        if let Some(other) = self.in_flight().find(|write| write.overlaps(offset, data.len())) {
            let (at, len) = (other.offset, other.data.len());
            return Err(Violation(format!(
                "write of {} bytes at {offset} while one of {len} bytes at {at} is in flight",
                data.len()
            )));
        }
        self.generation += 1;
        self.together.push(offset..offset + data.len());
        if self.together.iter().any(|range| self.log.contains(&range.start)) {
            self.tail.clone_from(&self.together);
        }
        self.unflushed.push(Unflushed {
            id,
            offset,
            data,
            completed: None,
        });
        Ok(Work::Write)
    }

    fn in_flight(&self) -> impl Iterator<Item = &Unflushed> {
        self.unflushed.iter().filter(|write| write.completed.is_none())
    }

    /// Completes one operation, any of those in flight.
    pub fn complete(&mut self, rng: &mut Rng) -> Option<DiskDone> {
        if self.queue.is_empty() {
            return None;
        }
        self.together.clear();
        let mut index = rng.below(self.queue.len());
        if self.queue[index].slow && !rng.one_in(SLOWNESS) {
            index = rng.below(self.queue.len());
        }
        let Queued { id, work, .. } = self.queue.swap_remove(index);
        let result = match work {
            Work::Read { offset, len } => self.finish_read(offset, len, rng),
            Work::Write => self.finish_write(id, rng),
            Work::Flush { covers } => self.finish_flush(covers),
        };
        Some(DiskDone { id, result })
    }

    /// A read meets the writes in flight half way: any of their sectors may be there already.
    fn finish_read(&mut self, offset: usize, len: usize, rng: &mut Rng) -> Result<Bytes, DiskError> {
        if self.faults.read_one_in.is_some_and(|n| rng.one_in(n)) {
            return Err(failure("read"));
        }
        if !self.in_flight().any(|write| write.overlaps(offset, len)) {
            return Ok(self.seen.read(offset, len));
        }
        let mut mixture = self.seen.clone();
        for write in self.in_flight().filter(|write| write.overlaps(offset, len)) {
            mixture.overlay(write.offset, &write.data, &coin_flips(write.sectors(), rng));
        }
        Ok(mixture.read(offset, len))
    }

    fn finish_write(&mut self, id: IoId, rng: &mut Rng) -> Result<Bytes, DiskError> {
        let fails = due(&mut self.faults.write_after);
        self.clock += 1;
        self.generation += 1;
        let write = self
            .unflushed
            .iter_mut()
            .find(|write| write.id == id && write.completed.is_none())
            .expect("a queued write is unflushed");
        if fails {
            write.completed = Some(u64::MAX);
            self.failed = true;
            self.seen
                .overlay(write.offset, &write.data, &coin_flips(write.sectors(), rng));
            return Err(failure("write"));
        }
        write.completed = Some(self.clock);
        if let Some(target) = stray(&mut self.faults.mischief, write, rng) {
            write.offset = target;
        }
        if write.data.is_empty() {
            return Ok(Bytes::new());
        }
        self.older
            .write(write.offset, &self.seen.read(write.offset, write.data.len()));
        if let Some(journal) = &mut self.journal {
            journal.note(write.offset, &write.data, &self.seen);
        }
        self.seen.write(write.offset, &write.data);
        Ok(Bytes::new())
    }

    fn finish_flush(&mut self, covers: u64) -> Result<Bytes, DiskError> {
        if due(&mut self.faults.flush_after) {
            (self.failed, self.lying) = (true, true);
            return Err(failure("flush"));
        }
        if !self.lying {
            self.generation += 1;
            let durable = &mut self.durable;
            self.unflushed.retain(|write| {
                let covered = write.completed.is_some_and(|at| at <= covers);
                if covered {
                    durable.write(write.offset, &write.data);
                }
                !covered
            });
        }
        Ok(Bytes::new())
    }

    /// The process is killed, the disk keeps its power: what completed stays readable but unflushed; of
    /// each write in flight nothing, all or some sectors arrive.
    pub fn kill(&self, rng: &mut Rng) -> SimDisk {
        let mut disk = SimDisk {
            queue: Vec::new(),
            faults: Faults::default(),
            ..self.clone()
        };
        for write in disk.unflushed.iter_mut().filter(|write| write.completed.is_none()) {
            let arrived = match rng.below(3) {
                0 => vec![false; write.sectors()],
                1 => vec![true; write.sectors()],
                _ => coin_flips(write.sectors(), rng),
            };
            disk.seen.overlay(write.offset, &write.data, &arrived);
            write.data = disk.seen.read(write.offset, write.data.len());
            write.completed = Some(disk.clock);
        }
        disk
    }
}

impl Unflushed {
    pub fn sectors(&self) -> usize {
        self.data.len() / SECTOR
    }

    fn overlaps(&self, offset: usize, len: usize) -> bool {
        self.offset < offset + len && offset < self.offset + self.data.len()
    }
}

fn coin_flips(count: usize, rng: &mut Rng) -> Vec<bool> {
    (0..count).map(|_| rng.one_in(2)).collect()
}

/// Whether this write goes wrong, and where to: one that is lost becomes empty.
fn stray(mischief: &mut Option<Mischief>, write: &mut Unflushed, rng: &mut Rng) -> Option<usize> {
    let plan = mischief.as_mut().filter(|plan| plan.within.contains(&write.offset))?;
    if plan.after > 0 {
        plan.after -= 1;
        return None;
    }
    let target = mischief.take()?.target;
    let Some(target) = target.filter(|target| target.len() >= write.data.len()) else {
        write.data = Bytes::new();
        return None;
    };
    let room = (target.len() - write.data.len()) / PAGE;
    Some(target.start + rng.below(room + 1) * PAGE)
}

/// Counts down; true when it reaches the end.
fn due(countdown: &mut Option<usize>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

fn failure(what: &str) -> DiskError {
    DiskError {
        errno: EIO,
        what: what.to_owned(),
    }
}
