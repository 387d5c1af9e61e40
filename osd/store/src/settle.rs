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
use crate::index::Entry;
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
    extents: Vec<Extent>,
    /// Operations that have not completed.
    waiting: usize,
}

/// Consecutive units in consecutive blocks of the log.
#[derive(Debug)]
struct Extent {
    first: usize,
    count: usize,
    block: u32,
    /// Empty until read, and if that is not possible.
    data: Bytes,
    /// How often it could not be read, or was not what it should be.
    failures: usize,
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
fn extents_before(entry: &Entry, ring: &Ring, point: u64) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for unit in entry.in_log.iter() {
        let Some(block) = entry.block(unit).filter(|&block| ring.position(block) < point) else {
            continue;
        };
        match extents.last_mut() {
            Some(last)
                if last.first + last.count == unit && u64::from(last.block) + last.count as u64 == u64::from(block) =>
            {
                last.count += 1
            }
            _ => extents.push(Extent {
                first: unit,
                count: 1,
                block,
                data: Bytes::new(),
                failures: 0,
            }),
        }
    }
    extents
}

impl Live {
    /// Starts to settle an object, if it has anything in the log before `point`.
    pub fn settle(&mut self, number: u32, point: u64, out: &mut Output) {
        let Some(entry) = self.index.entry(number) else { return };
        let extents = extents_before(entry, &self.ring, point);
        let Some(slot) = entry.slot().filter(|_| !extents.is_empty()) else {
            return self.index.relist(number);
        };
        let job = Job {
            number,
            object: entry.object,
            slot,
            sums: entry.sums,
            waiting: extents.len(),
            extents,
        };
        self.slots.pin(slot);
        let id = self.cycle.settling.add(job);
        for at in 0..self.cycle.settling.job(id).waiting {
            self.read_to_settle(id, at, out);
        }
    }

    fn read_to_settle(&mut self, id: u32, at: usize, out: &mut Output) {
        let extent = &self.cycle.settling.job(id).extents[at];
        let offset = self.layout.log_block(extent.block);
        let owner = Owner::SettleRead(id, u32::try_from(at).expect("at most 32"));
        self.disk.read(owner, offset, extent.count * UNIT_SIZE, out);
    }

    /// One extent of a job was read, or could not be.
    pub fn settle_read_done(&mut self, id: u32, at: u32, data: Option<Bytes>, out: &mut Output) {
        let job = self.cycle.settling.job(id);
        job.waiting -= 1;
        job.extents[at as usize].data = data.unwrap_or_default();
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
        job.extents.sort_by_key(|extent| extent.first);
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
        if let Some(settled) = entry.map(|entry| job.unmoved(entry, anyway)) {
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
    /// An extent was read: those that are to be read again, because it is not as it should be. Unit by unit, so that
    /// one bad sector costs one unit.
    fn again(&mut self, at: usize) -> Vec<usize> {
        if !self.damaged(&self.extents[at]).is_empty() && self.extents[at].failures < MAX_FAILURES {
            let Extent {
                first, count, block, ..
            } = self.extents[at];
            self.extents[at].failures += 1;
            self.extents[at].count = 1;
            let from = self.extents.len();
            self.extents.extend(
                (first + 1..first + count)
                    .zip(block + 1..)
                    .map(|(first, block)| Extent {
                        first,
                        count: 1,
                        block,
                        data: Bytes::new(),
                        failures: 1,
                    }),
            );
            return std::iter::once(at).chain(from..self.extents.len()).collect();
        }
        Vec::new()
    }

    fn damaged(&self, extent: &Extent) -> UnitMask {
        let sums = &self.sums[extent.first..extent.first + extent.count];
        mismatches(self.object, extent.first, &extent.data, sums)
    }

    /// The units that match their sums; not to verify them is a deliberate bug.
    fn intact(&self, verify: bool) -> UnitMask {
        self.extents.iter().fold(UnitMask::EMPTY, |mask, extent| {
            let units = UnitMask::range(extent.first, extent.count);
            let suspect = verify || extent.data.is_empty();
            mask.union(if suspect {
                units.minus(self.damaged(extent))
            } else {
                units
            })
        })
    }

    /// What would be the sums of the units as they were read: only a deliberate bug wants to know.
    fn sums_as_read(&self) -> Vec<(usize, u32)> {
        let units = self.extents.iter().flat_map(|extent| {
            let units = (extent.first..).zip(extent.data.chunks_exact(UNIT_SIZE));
            units.map(|(unit, data)| (unit, unit_sum(self.object, unit, data)))
        });
        units.collect()
    }

    /// The data of units that were read.
    fn units(&self, first: usize, count: usize) -> Vec<Bytes> {
        let part = |extent: &Extent| {
            let from = first.max(extent.first);
            let to = (first + count).min(extent.first + extent.count);
            (from < to).then(|| {
                extent
                    .data
                    .slice((from - extent.first) * UNIT_SIZE..(to - extent.first) * UNIT_SIZE)
            })
        };
        self.extents.iter().filter_map(part).collect()
    }

    /// The units that are still where this job found them.
    fn unmoved(&self, entry: &Entry, anyway: bool) -> UnitMask {
        let units = self
            .extents
            .iter()
            .flat_map(|extent| (extent.first..extent.first + extent.count).zip(extent.block..));
        let unmoved = units.filter(|&(unit, block)| anyway || entry.block(unit) == Some(block));
        unmoved.fold(UnitMask::EMPTY, |mask, (unit, _)| mask.union(UnitMask::range(unit, 1)))
    }
}
