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
use crate::extent::{self, Extent};
use crate::index::Entry;
use crate::layout::Layout;
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
    parts: Vec<Part>,
    waiting: usize,
}

/// What the disk is asked for at once.
#[derive(Debug)]
struct Part {
    extent: Extent,
    /// Empty until read, and if that is not possible.
    data: Bytes,
}

impl From<Extent> for Part {
    fn from(extent: Extent) -> Part {
        let data = Bytes::new();
        Part { extent, data }
    }
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
        self.jobs[number as usize].as_mut().expect("its parts are in flight")
    }

    fn take(&mut self, number: u32) -> Box<Job> {
        self.free.push(number);
        self.jobs[number as usize].take().expect("its parts were in flight")
    }
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
            parts: Vec::new(),
            waiting: 0,
        };
        self.start_read(Box::new(job), out);
    }

    /// Plans a read, and starts it.
    fn start_read(&mut self, mut job: Box<Job>, out: &mut Output) {
        let entry = self.index.get(job.object);
        job.parts = extent::plan(&self.layout, entry, job.units).map(Part::from).collect();
        (job.version, job.sums) = entry.map_or((Version::NONE, [0; UNITS_PER_OBJECT]), |e| (e.version, e.sums));
        job.waiting = job.parts.iter().filter(|part| part.extent.offset.is_some()).count();
        if job.waiting == 0 {
            return out.done.push(job.into_reply(UnitMask::EMPTY));
        }
        let number = self.reads.add(job);
        self.read_parts(number, 0, out);
    }

    /// Asks the disk for the written parts from `from` on.
    fn read_parts(&mut self, number: u32, from: usize, out: &mut Output) {
        let parts = &self.reads.jobs[number as usize].as_ref().expect("in flight").parts;
        for (at, Part { extent, .. }) in (0..).zip(parts).skip(from) {
            if let Some(offset) = extent.offset {
                let len = extent.count * UNIT_SIZE;
                self.disk.read(Owner::Read(number, at), offset, len, out);
            }
        }
    }

    /// One part of a read has come back.
    pub fn read_done(&mut self, number: u32, part: u32, result: Result<Bytes, DiskError>, out: &mut Output) {
        let job = self.reads.job(number);
        job.waiting -= 1;
        match result {
            Ok(data) => job.parts[part as usize].data = data,
            Err(_) => {
                let from = job.parts.len();
                job.waiting += job.split(part as usize);
                self.read_parts(number, from, out);
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

impl Job {
    /// A part of several units cannot be read: replaces it by parts of one, at the end. Says how many.
    fn split(&mut self, at: usize) -> usize {
        let extent = self.parts[at].extent;
        if extent.count == 1 {
            return 0;
        }
        self.parts.extend(extent.apart().map(Part::from));
        self.parts[at].extent.count = 0;
        extent.count
    }

    /// The units that do not match their sums, or are not there.
    fn damaged(&self, verify: bool) -> UnitMask {
        let read = self.parts.iter().filter(|part| part.extent.offset.is_some());
        let suspect = read.filter(|part| verify || part.data.is_empty());
        suspect.fold(UnitMask::EMPTY, |mask, Part { extent, data }| {
            let sums = &self.sums[extent.first..extent.end()];
            mask.union(mismatches(self.object, extent.first, data, sums))
        })
    }

    /// Whether the object is still where and what the read found.
    fn is_current(&self, layout: &Layout, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else { return false };
        let mut extents = self.parts.iter().map(|part| part.extent);
        let unmoved = extents.all(|extent| extent.unmoved(layout, entry) == extent.units());
        unmoved && entry.version == self.version && entry.sums == self.sums
    }

    fn into_reply(mut self, damaged: UnitMask) -> (Ticket, Result<Reply, StoreError>) {
        let (ticket, object, version) = (self.ticket, self.object, self.version);
        if self.wish == Wish::All && !damaged.is_empty() {
            return (ticket, Err(StoreError::Damaged { object, units: damaged }));
        }
        self.parts.sort_by_key(|part| part.extent.first);
        let mut segments = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            part.push_to(&mut segments, damaged);
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

impl Part {
    /// Adds the data; zeroes for units that are unwritten or damaged.
    fn push_to(self, segments: &mut Vec<Bytes>, damaged: UnitMask) {
        let Extent { first, count, offset } = self.extent;
        if count == 0 {
            return;
        }
        let units = self.extent.units();
        if offset.is_none() {
            return push_zeroes(segments, count * UNIT_SIZE);
        }
        if !damaged.intersects(units) {
            return segments.push(self.data);
        }
        for unit in units.iter() {
            let at = (unit - first) * UNIT_SIZE;
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
