//! Reads: found in the index, read from log and slots, verified against the sums.
//!
//! A read returns the object as it was in the index when the read was planned. If the disk gives something
//! else, the units may have moved meanwhile (settled, or rewritten and their place reused): then the read is
//! planned again. If they have not moved they are damaged.

use bytes::Bytes;
use trivet_core::buffer::push_zeroes;
use trivet_core::checksum::unit_sum;
use trivet_core::disk::DiskError;
use trivet_core::{ObjectId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version};

use crate::api::{Output, Reply, StoreError, Ticket};
use crate::disk::Owner;
use crate::index::Entry;
use crate::layout::{BLOCK, Layout};
use crate::store::Live;

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
    plan: Plan,
    /// One per extent; empty until read.
    data: Vec<Bytes>,
    waiting: usize,
    error: Option<DiskError>,
}

/// What a read needs to know of its object.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    version: Version,
    extents: Vec<Extent>,
    sums: [u32; UNITS_PER_OBJECT],
}

/// Consecutive units that are neighbours on the disk, or unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    first: usize,
    count: usize,
    /// `None`: unwritten.
    offset: Option<u64>,
}

impl Reads {
    /// Takes everything that is not answered yet.
    pub fn drain(&mut self) -> impl Iterator<Item = Ticket> {
        self.jobs.drain(..).flatten().map(|job| job.ticket)
    }

    fn add(&mut self, job: Job) -> u32 {
        if let Some(number) = self.free.pop() {
            self.jobs[number as usize] = Some(Box::new(job));
            return number;
        }
        self.jobs.push(Some(Box::new(job)));
        u32::try_from(self.jobs.len() - 1).expect("fewer than 2^32 reads")
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

fn plan(layout: &Layout, entry: Option<&Entry>, units: UnitMask) -> Plan {
    let mut extents: Vec<Extent> = Vec::new();
    for unit in units.iter() {
        let offset = entry.and_then(|entry| place(layout, entry, unit));
        match extents.last_mut() {
            Some(last) if offset == last.offset.map(|start| start + last.count as u64 * BLOCK) => last.count += 1,
            _ => extents.push(Extent {
                first: unit,
                count: 1,
                offset,
            }),
        }
    }
    let (version, sums) = entry.map_or((Version::NONE, [0; UNITS_PER_OBJECT]), |e| (e.version, e.sums));
    Plan { version, extents, sums }
}

impl Live {
    /// Reads units, or refuses at once.
    pub fn submit_read(&mut self, ticket: Ticket, object: ObjectId, first: usize, count: usize, out: &mut Output) {
        if count == 0 || first.checked_add(count).is_none_or(|end| end > UNITS_PER_OBJECT) {
            let error = StoreError::ReadFailed(format!("{count} units from {first} are not within an object"));
            return out.done.push((ticket, Err(error)));
        }
        let units = UnitMask::range(first, count);
        let plan = plan(&self.layout, self.index.get(object), units);
        self.start_read(ticket, object, units, plan, out);
    }

    fn start_read(&mut self, ticket: Ticket, object: ObjectId, units: UnitMask, plan: Plan, out: &mut Output) {
        let waiting = plan.extents.iter().filter(|extent| extent.offset.is_some()).count();
        let data = vec![Bytes::new(); plan.extents.len()];
        let job = Job {
            ticket,
            object,
            units,
            plan,
            data,
            waiting,
            error: None,
        };
        if waiting == 0 {
            return out.done.push((ticket, Ok(job.into_reply())));
        }
        let number = self.reads.add(job);
        let extents = &self.reads.jobs[number as usize]
            .as_ref()
            .expect("just added")
            .plan
            .extents;
        for (at, extent) in (0..).zip(extents) {
            if let Some(offset) = extent.offset {
                self.disk
                    .read(Owner::Read(number, at), offset, extent.count * UNIT_SIZE, out);
            }
        }
    }

    /// One extent of a read has come back.
    pub fn read_done(&mut self, number: u32, extent: u32, result: Result<Bytes, DiskError>, out: &mut Output) {
        let job = self.reads.jobs[number as usize]
            .as_mut()
            .expect("its extents are in flight");
        match result {
            Ok(data) => job.data[extent as usize] = data,
            Err(error) => job.error = Some(error),
        }
        job.waiting -= 1;
        if job.waiting == 0 {
            let job = self.reads.take(number);
            self.finish_read(job, out);
        }
    }

    fn finish_read(&mut self, job: Box<Job>, out: &mut Output) {
        let damaged = if job.error.is_some() { job.units } else { job.damaged() };
        if damaged.is_empty() {
            return out.done.push((job.ticket, Ok(job.into_reply())));
        }
        let now = plan(&self.layout, self.index.get(job.object), job.units);
        if now != job.plan {
            return self.start_read(job.ticket, job.object, job.units, now, out);
        }
        let error = match job.error {
            Some(error) => StoreError::ReadFailed(error.to_string()),
            None => StoreError::Damaged {
                object: job.object,
                units: damaged,
            },
        };
        out.done.push((job.ticket, Err(error)));
    }
}

impl Job {
    /// The units that do not match their sums.
    fn damaged(&self) -> UnitMask {
        let read = self
            .plan
            .extents
            .iter()
            .zip(&self.data)
            .filter(|(extent, _)| extent.offset.is_some());
        read.fold(UnitMask::EMPTY, |mask, (extent, data)| {
            let sums = &self.plan.sums[extent.first..extent.first + extent.count];
            mask.union(mismatches(self.object, extent.first, data, sums))
        })
    }

    fn into_reply(self) -> Reply {
        let mut segments = Vec::with_capacity(self.data.len());
        for (extent, data) in self.plan.extents.iter().zip(self.data) {
            match extent.offset {
                Some(_) => segments.push(data),
                None => push_zeroes(&mut segments, extent.count * UNIT_SIZE),
            }
        }
        Reply::Data {
            version: self.plan.version,
            segments,
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
