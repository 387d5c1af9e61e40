//! Settling: payload of the log is copied to its object's slot.
//!
//! One job per object: read its units that lie in the log before a point, verify them, write them to the
//! slot. When the writes have completed, those units that are still where they were read belong to the slot.
//! Nothing depends on these writes being durable before a checkpoint says so: until then recovery finds the
//! units in the log.
//!
//! A unit that is damaged in the log is left to the slot unwritten: reads of it fail their check.

use bytes::Bytes;
use trivet_core::buffer::join;
use trivet_core::checksum::unit_sum;
use trivet_core::{ObjectId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask};

use crate::api::Output;
use crate::disk::Owner;
use crate::extent::{self, Extent};
use crate::index::Entry;
use crate::layout::Layout;
use crate::mutant::mutant;
use crate::read::mismatches;
use crate::ring::Ring;
use crate::store::Live;

/// A unit that could not be read this often is not tried again; it is as good as damaged: the log cannot wait for
/// ever.
const MAX_FAILURES: usize = 10;

/// The jobs in flight.
#[derive(Debug, Default)]
pub struct Settling {
    jobs: Vec<Option<Box<Job>>>,
    active: usize,
}

#[derive(Debug)]
struct Job {
    number: u32,
    object: ObjectId,
    slot: u32,
    sums: [u32; UNITS_PER_OBJECT],
    parts: Vec<Part>,
    /// Operations that have not completed.
    waiting: usize,
}

/// What is read of the log at once.
#[derive(Debug)]
struct Part {
    extent: Extent,
    /// Empty until read, and if that is not possible.
    data: Bytes,
    /// How often it could not be read, or was not what it should be.
    failures: usize,
}

impl Part {
    fn new(extent: Extent, failures: usize) -> Part {
        Part {
            extent,
            data: Bytes::new(),
            failures,
        }
    }
}

impl Settling {
    /// How many objects are being settled.
    pub fn active(&self) -> usize {
        self.active
    }

    fn add(&mut self, job: Job) -> u32 {
        self.active += 1;
        let at = self.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        self.jobs[at] = Some(Box::new(job));
        u32::try_from(at).expect("few jobs")
    }

    fn job(&mut self, number: u32) -> &mut Job {
        self.jobs[number as usize]
            .as_mut()
            .expect("its operations are in flight")
    }

    fn take(&mut self, number: u32) -> Box<Job> {
        self.active -= 1;
        self.jobs[number as usize]
            .take()
            .expect("its operations were in flight")
    }
}

/// The units of an object that lie in the log before `point`.
fn units_before(entry: &Entry, ring: &Ring, point: u64) -> UnitMask {
    let before = |&unit: &usize| entry.block(unit).is_some_and(|block| ring.position(block) < point);
    let units = entry.in_log.iter().filter(before);
    units.fold(UnitMask::EMPTY, |mask, unit| mask.union(UnitMask::range(unit, 1)))
}

impl Live {
    /// Starts to settle an object, if it has anything in the log before `point`.
    pub fn settle(&mut self, number: u32, point: u64, out: &mut Output) {
        let Some(entry) = self.index.entry(number) else { return };
        let units = units_before(entry, &self.ring, point);
        let Some(slot) = entry.slot().filter(|_| !units.is_empty()) else {
            return self.index.relist(number);
        };
        let extents = extent::plan(&self.layout, Some(entry), units);
        let parts: Vec<Part> = extents.map(|extent| Part::new(extent, 0)).collect();
        let job = Job {
            number,
            object: entry.object,
            slot,
            sums: entry.sums,
            waiting: parts.len(),
            parts,
        };
        self.slots.pin(slot);
        let id = self.cycle.settling.add(job);
        for at in 0..self.cycle.settling.job(id).waiting {
            self.read_to_settle(id, at, out);
        }
    }

    fn read_to_settle(&mut self, id: u32, at: usize, out: &mut Output) {
        let Extent { count, offset, .. } = self.cycle.settling.job(id).parts[at].extent;
        let offset = offset.expect("what is in the log is written");
        let owner = Owner::SettleRead(id, u32::try_from(at).expect("at most 32"));
        self.disk.read(owner, offset, count * UNIT_SIZE, out);
    }

    /// One part of a job was read, or could not be.
    pub fn settle_read_done(&mut self, id: u32, at: u32, data: Option<Bytes>, out: &mut Output) {
        let job = self.cycle.settling.job(id);
        job.waiting -= 1;
        job.parts[at as usize].data = data.unwrap_or_default();
        let again = job.again(at as usize);
        job.waiting += again.len();
        for at in again {
            self.read_to_settle(id, at, out);
        }
        if self.cycle.settling.job(id).waiting == 0 {
            self.write_settled(id, out);
        }
    }

    /// Everything that can be read was read: writes what is intact.
    fn write_settled(&mut self, id: u32, out: &mut Output) {
        let verify = !mutant!(self.options, SettleUnverified);
        let job = self.cycle.settling.job(id);
        job.parts.sort_by_key(|part| part.extent.first);
        let runs: Vec<(usize, usize)> = job.intact(verify).runs().collect();
        job.waiting = runs.len();
        for &(first, count) in &runs {
            let offset = self.layout.unit(job.slot, first);
            self.disk
                .write(Owner::SettleWrite(id), offset, join(job.units(first, count)), out);
        }
        if runs.is_empty() {
            self.finish_settling(id);
        }
    }

    /// One write of a job has completed.
    pub fn settle_write_done(&mut self, id: u32) {
        let job = self.cycle.settling.job(id);
        job.waiting -= 1;
        if job.waiting == 0 {
            self.finish_settling(id);
        }
    }

    fn finish_settling(&mut self, id: u32) {
        let job = self.cycle.settling.take(id);
        let entry = self
            .index
            .get(job.object)
            .filter(|entry| entry.slot() == Some(job.slot));
        let anyway = mutant!(self.options, SettleOverNewer);
        if let Some(settled) = entry.map(|entry| job.unmoved(&self.layout, entry, anyway)) {
            let sums = mutant!(self.options, SettleUnverified).then(|| job.sums_as_read());
            self.index.change(job.object, |entry| {
                let resealed = sums.iter().flatten().filter(|(unit, _)| settled.has(*unit));
                resealed.for_each(|&(unit, sum)| entry.sums[unit] = sum);
                entry.leave_log(settled);
            });
        }
        self.index.relist(job.number);
        self.slots.unpin(job.slot);
    }
}

impl Job {
    /// A part was read: those that are to be read again, because it is not as it should be. Unit by unit, so that
    /// one bad sector costs one unit.
    fn again(&mut self, at: usize) -> Vec<usize> {
        let part = &self.parts[at];
        if self.damaged(part).is_empty() || part.failures >= MAX_FAILURES {
            return Vec::new();
        }
        let failures = part.failures + 1;
        let mut units = part.extent.apart();
        let from = self.parts.len();
        if let Some(first) = units.next() {
            (self.parts[at].extent, self.parts[at].failures) = (first, failures);
        }
        self.parts.extend(units.map(|unit| Part::new(unit, 1)));
        std::iter::once(at).chain(from..self.parts.len()).collect()
    }

    fn damaged(&self, part: &Part) -> UnitMask {
        let Extent { first, .. } = part.extent;
        let sums = &self.sums[first..part.extent.end()];
        mismatches(self.object, first, &part.data, sums)
    }

    /// The units that match their sums; not to verify them is a deliberate bug.
    fn intact(&self, verify: bool) -> UnitMask {
        self.parts.iter().fold(UnitMask::EMPTY, |mask, part| {
            let units = part.extent.units();
            let suspect = verify || part.data.is_empty();
            mask.union(if suspect {
                units.minus(self.damaged(part))
            } else {
                units
            })
        })
    }

    /// What would be the sums of the units as they were read: only a deliberate bug wants to know.
    fn sums_as_read(&self) -> Vec<(usize, u32)> {
        let units = self.parts.iter().flat_map(|part| {
            let units = (part.extent.first..).zip(part.data.chunks_exact(UNIT_SIZE));
            units.map(|(unit, data)| (unit, unit_sum(self.object, unit, data)))
        });
        units.collect()
    }

    /// The data of units that were read.
    fn units(&self, first: usize, count: usize) -> Vec<Bytes> {
        let of = |Part { extent, data, .. }: &Part| {
            let from = first.max(extent.first);
            let to = (first + count).min(extent.end());
            let bytes = |unit: usize| (unit - extent.first) * UNIT_SIZE;
            (from < to).then(|| data.slice(bytes(from)..bytes(to)))
        };
        self.parts.iter().filter_map(of).collect()
    }

    /// The units that are still where this job found them.
    fn unmoved(&self, layout: &Layout, entry: &Entry, anyway: bool) -> UnitMask {
        let extents = self.parts.iter().map(|part| part.extent);
        let unmoved = extents.map(|extent| match anyway {
            true => extent.units(),
            false => extent.unmoved(layout, entry),
        });
        unmoved.fold(UnitMask::EMPTY, UnitMask::union)
    }
}
