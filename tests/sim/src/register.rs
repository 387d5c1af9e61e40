//! Is every sector a linearizable register? Says so exactly for values, which are unique, and soundly for zeroes.
//!
//! The history is recorded while it happens: the calls come in the order of the events, which is the order that
//! counts (times are for people). Per sector a value is its write and the reads of it, and all that matters of
//! them is their zone: the first return and the last invocation (Gibbons and Korach, "Testing shared memories").
//! Zeroes have many writers, so zero reads are checked against what any zeroing operation could explain; that
//! never gives a false alarm, but a few impossible histories with zeroes pass.
//!
//! An operation that failed or never ended may have happened or not, at any time after its invocation.
//!
//! One that was sent again, because it was not answered, may have happened more than once, each time before its answer.
//! So reads of its value count only if they were invoked after the answer: by then nothing may bring it back.

mod zones;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use trivet_core::Now;

use crate::stamp::Content;
use zones::Suspect;

/// Largest number of sectors of an image: 1 GiB. The simulation keeps a record of each.
const MAX_SECTORS: u64 = 1 << 21;
/// No operation.
const NONE: u32 = u32::MAX;

/// An operation of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpRef(u32);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write(u64),
    Zero,
    Read,
}

/// A point in the order of events, with its time.
#[derive(Clone, Copy, Debug)]
struct Point {
    tick: u64,
    at: Now,
}

#[derive(Clone, Debug)]
struct Op {
    image: u64,
    first: u64,
    count: u64,
    kind: Kind,
    invoked: Point,
    /// When it was answered with success.
    returned: Option<Point>,
    /// It ended without saying whether it happened.
    unknown: bool,
    /// If it happened, then before this.
    latest: Option<Point>,
    /// It was sent more than once.
    repeated: bool,
}

/// A write with the reads of its value, of one sector.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    write: u32,
    /// The read that returned first.
    first: u32,
    /// The read that was invoked last.
    last: u32,
}

/// What concerns one sector.
#[derive(Clone, Debug, Default)]
struct Sector {
    /// In the order of the writes' invocation.
    clusters: Vec<Cluster>,
    /// Zeroing operations, in order of invocation.
    zeroes: Vec<u32>,
    /// Reads that found zeroes, in order of return.
    zero_reads: Vec<u32>,
}

/// What happened to the images.
#[derive(Clone, Debug, Default)]
pub struct History {
    tick: u64,
    ops: Vec<Op>,
    /// The operation of each sequence.
    writes: BTreeMap<u64, u32>,
    images: BTreeMap<u64, Vec<Sector>>,
    checked: Stats,
    /// How many operations were answered.
    answered: u64,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations that were invoked.
    pub operations: u64,
    /// Of these, those that did not end or ended with an unknown outcome.
    pub indeterminate: u64,
    /// Of these, those that were repeated elsewhere or fenced: they must not happen later.
    pub bounded: u64,
    /// Sectors with at least one operation.
    pub sectors: u64,
    /// Sectors written.
    pub writes: u64,
    /// Sectors made zero.
    pub zeroes: u64,
    /// Sectors read that held a value.
    pub value_reads: u64,
    /// Sectors read that were zero.
    pub zero_reads: u64,
}

/// The proof that a sector was not a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The image.
    pub image: u64,
    /// The sector in it.
    pub sector: u64,
    /// The rule that was broken.
    pub what: &'static str,
    /// The operations that contradict each other, with their times.
    pub operations: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image {:x} sector {}: {}", self.image, self.sector, self.what)?;
        self.operations.iter().try_for_each(|op| write!(f, "\n  {op}"))
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Write(sequence) => write!(f, "write {sequence}")?,
            Kind::Zero => write!(f, "zero")?,
            Kind::Read => write!(f, "read")?,
        }
        let last = self.first + self.count - 1;
        write!(
            f,
            " of sectors {}..={last}, invoked at {}",
            self.first,
            seconds(self.invoked)
        )?;
        if self.repeated {
            write!(f, ", sent again")?;
        }
        match self.returned {
            Some(point) => write!(f, ", returned at {}", seconds(point)),
            None if self.unknown => match self.latest {
                Some(point) => write!(f, ", outcome unknown, not after {}", seconds(point)),
                None => write!(f, ", outcome unknown"),
            },
            None => write!(f, ", never returned"),
        }
    }
}

fn seconds(point: Point) -> String {
    let Point { tick, at: Now(nanos) } = point;
    format!(
        "{}.{:09} s (event {tick})",
        nanos / 1_000_000_000,
        nanos % 1_000_000_000
    )
}

impl History {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    fn point(&mut self, at: Now) -> Point {
        self.tick += 1;
        Point { tick: self.tick, at }
    }

    fn invoke(&mut self, now: Now, image: u64, first: u64, count: u64, kind: Kind) -> OpRef {
        assert!(count > 0 && first + count <= MAX_SECTORS, "sectors {first} + {count}");
        let number = u32::try_from(self.ops.len()).expect("fewer than 2^32 operations");
        let invoked = self.point(now);
        self.ops.push(Op {
            image,
            first,
            count,
            kind,
            invoked,
            returned: None,
            unknown: false,
            latest: None,
            repeated: false,
        });
        OpRef(number)
    }

    /// The sectors of an operation, made if need be.
    fn sectors(&mut self, op: OpRef) -> &mut [Sector] {
        let Op {
            image, first, count, ..
        } = self.ops[op.0 as usize];
        let sectors = self.images.entry(image).or_default();
        let range = index(first)..index(first + count);
        if sectors.len() < range.end {
            sectors.resize_with(range.end, Sector::default);
        }
        &mut sectors[range]
    }

    /// Sectors are about to be written with the values of this sequence, which is unique in the history.
    ///
    /// # Panics
    /// When the sequence is not unique, or the range is empty or beyond 1 GiB.
    pub fn invoke_write(&mut self, now: Now, image: u64, first: u64, count: u64, sequence: u64) -> OpRef {
        let op = self.invoke(now, image, first, count, Kind::Write(sequence));
        assert_eq!(self.writes.insert(sequence, op.0), None, "sequence {sequence} twice");
        let cluster = Cluster {
            write: op.0,
            first: NONE,
            last: NONE,
        };
        self.sectors(op)
            .iter_mut()
            .for_each(|sector| sector.clusters.push(cluster));
        self.checked.writes += count;
        op
    }

    /// Sectors are about to be made zero: trimmed, zeroed, or their image made empty.
    ///
    /// # Panics
    /// When the range is empty or beyond 1 GiB.
    pub fn invoke_zero(&mut self, now: Now, image: u64, first: u64, count: u64) -> OpRef {
        let op = self.invoke(now, image, first, count, Kind::Zero);
        self.sectors(op).iter_mut().for_each(|sector| sector.zeroes.push(op.0));
        self.checked.zeroes += count;
        op
    }

    /// Sectors are about to be read.
    ///
    /// # Panics
    /// When the range is empty or beyond 1 GiB.
    pub fn invoke_read(&mut self, now: Now, image: u64, first: u64, count: u64) -> OpRef {
        self.invoke(now, image, first, count, Kind::Read)
    }

    /// An operation that was not answered is sent again.
    pub fn repeat(&mut self, op: OpRef) {
        let repeated = &mut self.ops[op.0 as usize];
        repeated.repeated = true;
        if repeated.kind == Kind::Zero {
            // It may make zero twice.
            self.sectors(op).iter_mut().for_each(|sector| sector.zeroes.push(op.0));
        }
    }

    fn end(&mut self, op: OpRef, now: Now) {
        let returned = self.point(now);
        let op = &mut self.ops[op.0 as usize];
        assert!(op.returned.is_none() && !op.unknown, "ended twice: {op}");
        op.returned = Some(returned);
    }

    /// A write or zeroing was acknowledged.
    ///
    /// # Panics
    /// When the operation has ended already.
    pub fn end_ok(&mut self, op: OpRef, now: Now) {
        self.answered += 1;
        self.end(op, now);
    }

    /// How many operations were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// An operation will never be answered, or its answer did not say what happened.
    pub fn end_unknown(&mut self, op: OpRef) {
        self.ops[op.0 as usize].unknown = true;
    }

    /// Whether an operation happened will never be known; but if it did not by now, it will not.
    pub fn end_unknown_by(&mut self, op: OpRef, now: Now) {
        self.end_unknown(op);
        self.ops[op.0 as usize].latest = Some(self.point(now));
        self.checked.bounded += 1;
    }

    /// An operation was answered with an error; it may have happened, wholly or in part.
    pub fn end_failed(&mut self, op: OpRef) {
        self.end_unknown(op);
    }

    /// A read was answered.
    ///
    /// # Errors
    /// When it returned a value that nobody was writing there by now; everything else is for [`History::check`].
    ///
    /// # Panics
    /// When the operation has ended already, or there is not one content for each sector.
    pub fn end_read(&mut self, op: OpRef, now: Now, contents: &[Content]) -> Result<(), Violation> {
        self.end(op, now);
        self.answered += 1;
        let Op { first, count, .. } = self.ops[op.0 as usize];
        assert_eq!(contents.len() as u64, count, "contents of a read");
        let mut known = None;
        for (at, &content) in (first..).zip(contents) {
            let Content::Value(sequence) = content else {
                continue;
            };
            if known.is_none_or(|(known, _)| known != sequence) {
                known = self.writes.get(&sequence).map(|&write| (sequence, write));
            }
            let write = known.filter(|&(_, write)| self.covers(write, op, at));
            if write.is_none() {
                return Err(self.never_written(op, at, sequence));
            }
            let write = write.map_or(NONE, |(_, write)| write);
            self.observe(op, at, write);
        }
        self.found_zeroes(op, contents);
        Ok(())
    }

    fn covers(&self, write: u32, read: OpRef, sector: u64) -> bool {
        let (write, read) = (&self.ops[write as usize], &self.ops[read.0 as usize]);
        write.image == read.image && (write.first..write.first + write.count).contains(&sector)
    }

    fn never_written(&self, read: OpRef, sector: u64, sequence: u64) -> Violation {
        let elsewhere = self.writes.get(&sequence).map(|&write| &self.ops[write as usize]);
        let elsewhere = elsewhere.map(|write| format!("image {:x}: {write}", write.image));
        let read = &self.ops[read.0 as usize];
        Violation {
            image: read.image,
            sector,
            what: "a read found a value that nobody had begun to write there",
            operations: [format!("found write {sequence}: {read}")]
                .into_iter()
                .chain(elsewhere)
                .collect(),
        }
    }

    fn observe(&mut self, read: OpRef, sector: u64, write: u32) {
        let first = self.ops[read.0 as usize].first;
        let sector = &mut self.sectors(read)[index(sector - first)];
        let Ok(at) = sector.clusters.binary_search_by_key(&write, |cluster| cluster.write) else {
            return;
        };
        let cluster = &mut sector.clusters[at];
        if cluster.first == NONE {
            cluster.first = read.0;
        }
        if cluster.last == NONE || cluster.last < read.0 {
            cluster.last = read.0;
        }
        self.checked.value_reads += 1;
    }

    fn found_zeroes(&mut self, read: OpRef, contents: &[Content]) {
        let mut count = 0;
        for (sector, content) in self.sectors(read).iter_mut().zip(contents) {
            if *content == Content::Zero {
                sector.zero_reads.push(read.0);
                count += 1;
            }
        }
        self.checked.zero_reads += count;
    }

    /// Checks every sector.
    ///
    /// # Errors
    /// The first sector, by image and number, that was not a register.
    pub fn check(&self) -> Result<Stats, Violation> {
        let mut stats = self.checked;
        stats.operations = self.ops.len() as u64;
        stats.indeterminate = self.ops.iter().filter(|op| op.returned.is_none()).count() as u64;
        for (&image, sectors) in &self.images {
            for (number, sector) in (0..).zip(sectors) {
                zones::check(&self.ops, sector).map_err(|suspect| self.violation(image, number, suspect))?;
                stats.sectors += u64::from(!sector.is_untouched());
            }
        }
        Ok(stats)
    }

    fn violation(&self, image: u64, sector: u64, suspect: Suspect) -> Violation {
        let mut numbers = suspect.operations;
        numbers.retain(|&number| number != NONE);
        numbers.sort_unstable();
        numbers.dedup();
        Violation {
            image,
            sector,
            what: suspect.what,
            operations: numbers
                .iter()
                .map(|&number| self.ops[number as usize].to_string())
                .collect(),
        }
    }
}

impl Sector {
    fn is_untouched(&self) -> bool {
        self.clusters.is_empty() && self.zeroes.is_empty() && self.zero_reads.is_empty()
    }
}

fn index(sector: u64) -> usize {
    usize::try_from(sector).expect("at most 2^21")
}
