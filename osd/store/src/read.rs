//! Reads: found in the index, read from log and slots, verified against the sums.
//!
//! A read returns the object as it was in the index when the read was planned. If the disk gives something
//! else, the units may have moved meanwhile (settled, or rewritten and their place reused): then the read is
//! planned again. If they have not moved they are damaged. So are those that the disk cannot read; when it
//! cannot read several at once they are read one by one, so that one bad sector costs one unit.

use bytes::Bytes;
use trivet_core::buffer::push_zeroes;
use trivet_core::checksum::unit_sum;
use trivet_core::disk::DiskError;
use trivet_core::{ObjectId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version};

use crate::api::{Output, Reply, StoreError, Ticket};
use crate::disk::Owner;
use crate::index::Entry;
use crate::layout::{BLOCK, Layout};
use crate::mutant::mutant;
use crate::store::Live;

/// What is done about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The read fails.
    All,
    /// The rest is wanted.
    Whatever,
}

/// The reads in flight.
#[derive(Debug, Default)]
pub struct Reads {
    jobs: Vec<Option<Box<Job>>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Job {
    ticket: Ticket,
    object: ObjectId,
    units: UnitMask,
    wish: Wish,
    version: Version,
    sums: [u32; UNITS_PER_OBJECT],
    extents: Vec<Extent>,
    waiting: usize,
}

/// Consecutive units that are neighbours on the disk, or unwritten.
#[derive(Debug)]
struct Extent {
    first: usize,
    count: usize,
    /// `None`: unwritten.
    offset: Option<u64>,
    /// Empty until read, and if that is not possible.
    data: Bytes,
}

impl Reads {
    /// Takes everything that is not answered yet.
    pub fn drain(&mut self) -> impl Iterator<Item = Ticket> {
        self.jobs.drain(..).flatten().map(|job| job.ticket)
    }

    fn add(&mut self, job: Box<Job>) -> u32 {
        if let Some(number) = self.free.pop() {
            self.jobs[number as usize] = Some(job);
            return number;
        }
        self.jobs.push(Some(job));
        u32::try_from(self.jobs.len() - 1).expect("fewer than 2^32 reads")
    }

    fn job(&mut self, number: u32) -> &mut Job {
        self.jobs[number as usize].as_mut().expect("its extents are in flight")
    }

    fn take(&mut self, number: u32) -> Box<Job> {
        self.free.push(number);
        self.jobs[number as usize].take().expect("its extents were in flight")
    }
}

/// Where a unit lies on the disk; `None` if it is unwritten.
pub fn place(layout: &Layout, entry: &Entry, unit: usize) -> Option<u64> {
    if !entry.present.has(unit) {
        return None;
    }
    match entry.block(unit) {
        Some(block) => Some(layout.log_block(block)),
        None => entry.slot().map(|slot| layout.unit(slot, unit)),
    }
}

fn plan(layout: &Layout, entry: Option<&Entry>, units: UnitMask) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for unit in units.iter() {
        let offset = entry.and_then(|entry| place(layout, entry, unit));
        match extents.last_mut() {
            Some(last) if offset == last.place(last.count) => last.count += 1,
            _ => extents.push(Extent {
                first: unit,
                count: 1,
                offset,
                data: Bytes::new(),
            }),
        }
    }
    extents
}

impl Live {
    /// Reads `(first, count)` units. Those beyond the end of an object are answered as damaged.
    pub fn submit_read(
        &mut self,
        ticket: Ticket,
        object: ObjectId,
        (first, count): (usize, usize),
        wish: Wish,
        out: &mut Output,
    ) {
        let fits = count > 0 && first.checked_add(count).is_some_and(|end| end <= UNITS_PER_OBJECT);
        if !fits {
            let units = UnitMask::EMPTY;
            return out.done.push((ticket, Err(StoreError::Damaged { object, units })));
        }
        let job = Job {
            ticket,
            object,
            units: UnitMask::range(first, count),
            wish,
            version: Version::NONE,
            sums: [0; UNITS_PER_OBJECT],
            extents: Vec::new(),
            waiting: 0,
        };
        self.start_read(Box::new(job), out);
    }

    /// Plans a read, and starts it.
    fn start_read(&mut self, mut job: Box<Job>, out: &mut Output) {
        let entry = self.index.get(job.object);
        job.extents = plan(&self.layout, entry, job.units);
        (job.version, job.sums) = entry.map_or((Version::NONE, [0; UNITS_PER_OBJECT]), |e| (e.version, e.sums));
        job.waiting = job.extents.iter().filter(|extent| extent.offset.is_some()).count();
        if job.waiting == 0 {
            return out.done.push(job.into_reply(UnitMask::EMPTY));
        }
        let number = self.reads.add(job);
        self.read_extents(number, 0, out);
    }

    /// Asks the disk for the written extents from `from` on.
    fn read_extents(&mut self, number: u32, from: usize, out: &mut Output) {
        let extents = &self.reads.jobs[number as usize].as_ref().expect("in flight").extents;
        for (at, extent) in (0..).zip(extents).skip(from) {
            if let Some(offset) = extent.offset {
                let len = extent.count * UNIT_SIZE;
                self.disk.read(Owner::Read(number, at), offset, len, out);
            }
        }
    }

    /// One extent of a read has come back.
    pub fn read_done(&mut self, number: u32, extent: u32, result: Result<Bytes, DiskError>, out: &mut Output) {
        let job = self.reads.job(number);
        job.waiting -= 1;
        match result {
            Ok(data) => job.extents[extent as usize].data = data,
            Err(_) => {
                let from = job.extents.len();
                job.waiting += job.split(extent as usize);
                self.read_extents(number, from, out);
            }
        }
        if self.reads.job(number).waiting == 0 {
            let job = self.reads.take(number);
            self.finish_read(job, out);
        }
    }

    fn finish_read(&mut self, job: Box<Job>, out: &mut Output) {
        let damaged = job.damaged(!mutant!(self.options, NoVerifyOnRead));
        if !damaged.is_empty() && !job.is_current(&self.layout, self.index.get(job.object)) {
            return self.start_read(job, out);
        }
        let hides = job.wish == Wish::Whatever && mutant!(self.options, SalvageHidesDamage);
        let mut reply = job.into_reply(damaged);
        if let (true, Ok(Reply::Salvaged { damaged, .. })) = (hides, &mut reply.1) {
            *damaged = UnitMask::EMPTY;
        }
        out.done.push(reply);
    }
}

impl Extent {
    /// Where the unit that is `index` units behind the first lies.
    fn place(&self, index: usize) -> Option<u64> {
        self.offset.map(|start| start + index as u64 * BLOCK)
    }
}

impl Job {
    /// An extent of several units cannot be read: replaces it by extents of one, at the end. Says how many.
    fn split(&mut self, at: usize) -> usize {
        let Extent { first, count, .. } = self.extents[at];
        if count == 1 {
            return 0;
        }
        let one = |index: usize| Extent {
            first: first + index,
            count: 1,
            offset: self.extents[at].place(index),
            data: Bytes::new(),
        };
        let ones: Vec<Extent> = (0..count).map(one).collect();
        self.extents.extend(ones);
        self.extents[at].count = 0;
        count
    }

    /// The units that do not match their sums, or are not there.
    fn damaged(&self, verify: bool) -> UnitMask {
        let read = self.extents.iter().filter(|extent| extent.offset.is_some());
        let suspect = read.filter(|extent| verify || extent.data.is_empty());
        suspect.fold(UnitMask::EMPTY, |mask, extent| {
            let sums = &self.sums[extent.first..extent.first + extent.count];
            mask.union(mismatches(self.object, extent.first, &extent.data, sums))
        })
    }

    /// Whether the object is still where and what the read found.
    fn is_current(&self, layout: &Layout, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else { return false };
        let mut extents = self.extents.iter();
        let unmoved = extents.all(|extent| {
            (0..extent.count).all(|index| place(layout, entry, extent.first + index) == extent.place(index))
        });
        unmoved && entry.version == self.version && entry.sums == self.sums
    }

    fn into_reply(mut self, damaged: UnitMask) -> (Ticket, Result<Reply, StoreError>) {
        let (ticket, object, version) = (self.ticket, self.object, self.version);
        if self.wish == Wish::All && !damaged.is_empty() {
            return (ticket, Err(StoreError::Damaged { object, units: damaged }));
        }
        self.extents.sort_by_key(|extent| extent.first);
        let mut segments = Vec::with_capacity(self.extents.len());
        for extent in self.extents {
            extent.push_to(&mut segments, damaged);
        }
        let reply = match self.wish {
            Wish::All => Reply::Data { version, segments },
            Wish::Whatever => Reply::Salvaged {
                version,
                segments,
                damaged,
            },
        };
        (ticket, Ok(reply))
    }
}

impl Extent {
    /// Adds the data; zeroes for units that are unwritten or damaged.
    fn push_to(self, segments: &mut Vec<Bytes>, damaged: UnitMask) {
        if self.count == 0 {
            return;
        }
        let units = UnitMask::range(self.first, self.count);
        if self.offset.is_none() {
            return push_zeroes(segments, self.count * UNIT_SIZE);
        }
        if !damaged.intersects(units) {
            return segments.push(self.data);
        }
        for unit in units.iter() {
            let at = (unit - self.first) * UNIT_SIZE;
            if damaged.has(unit) {
                push_zeroes(segments, UNIT_SIZE);
            } else {
                segments.push(self.data.slice(at..at + UNIT_SIZE));
            }
        }
    }
}

/// Those of the units from `first` whose `data` do not match `sums`; missing data match nothing.
pub fn mismatches(object: ObjectId, first: usize, data: &[u8], sums: &[u32]) -> UnitMask {
    let mut bad = UnitMask::range(first, sums.len());
    for ((unit, &sum), bytes) in (first..).zip(sums).zip(data.chunks_exact(UNIT_SIZE)) {
        if unit_sum(object, unit, bytes) == sum {
            bad = bad.minus(UnitMask::range(unit, 1));
        }
    }
    bad
}
