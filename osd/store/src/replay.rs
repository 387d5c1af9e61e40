//! Walking the log at open.
//!
//! Batches are followed from the checkpoint's position, each one sequence number after the last. Where the
//! chain ends, the rest of the ring is searched for prefixes of later batches:
//!
//! - A batch later than the missing one proves that the missing one was durable: it has rotted, and the store
//!   must not be opened as if it had never been.
//! - A prefix of the missing batch itself is a torn tail; it proves that the batch before it was durable.
//! - If nothing later was ever written, the last batch itself may be torn: its payload is verified, and if
//!   it does not match, that batch was never answered and did not happen.
//!
//! A batch is taken into the index when the next one is found, the last one when this is decided.

use bytes::Bytes;
use trivet_core::mark::{self, Mark};
use trivet_core::mutation::Ops;
use trivet_core::{Epochs, ObjectId, UNIT_SIZE, UnitMask};

use crate::batch::{self, Prefix};
use crate::checkpoint::Header;
use crate::index::Index;
use crate::layout::{BLOCK, BLOCK_LEN, Layout};
use crate::mutant::mutant;
use crate::read::mismatches;
use crate::record::{PatchRecord, Record, WriteHead};
use crate::ring::Ring;
use crate::store::Options;

/// Bytes read at once.
const WINDOW: u64 = 2 << 20;

/// Bytes of the disk: offset and length.
type Range = (u64, usize);

/// A part of the disk that was read.
#[derive(Debug, Default)]
pub struct Window {
    /// Where it begins.
    pub offset: u64,
    /// What is there, with zeroes for what cannot be read.
    pub data: Bytes,
    /// The blocks that cannot be read.
    pub holes: Vec<u64>,
}

impl Window {
    /// These bytes, if the window has them.
    fn get(&self, offset: u64, len: usize) -> Option<Bytes> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.data.len()).then(|| self.data.slice(start..end))
    }

    /// Whether these bytes are what is there. What cannot be read must not be taken for what was never written.
    fn check(&self, offset: u64, len: usize) -> Result<(), String> {
        let inside = |hole: &&u64| **hole < offset + len as u64 && offset < **hole + BLOCK;
        match self.holes.iter().find(inside) {
            Some(hole) => Err(format!(
                "byte {hole} of the disk cannot be read: the end of the log may be there"
            )),
            None => Ok(()),
        }
    }
}

/// A batch of the chain.
type Found = (Prefix, Vec<Record>);

/// What the walk needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Need {
    /// Bytes of the disk: offset and length.
    Read(u64, usize),
    /// Nothing; the log is replayed.
    Nothing,
}

/// The walk.
#[derive(Debug)]
pub struct Replay {
    layout: Layout,
    secret: [u8; 16],
    torn_is_fine: bool,
    last_is_fine: bool,
    rot_is_the_end: bool,
    /// What is taken into account.
    pub index: Index,
    /// As the checkpoint has them, then as the log has them.
    pub epochs: Epochs,
    pub mark: Option<Mark>,
    /// Where the log was entered.
    tail: u64,
    /// Where its first batch lies: at the tail, or at the start of the lap after it.
    first: u64,
    /// Where the chain ends; the next batch belongs there.
    pub head: u64,
    /// The last batch of the chain.
    pub sequence: u64,
    /// The highest incarnation in the chain.
    pub incarnation: u64,
    /// The last batch that the checkpoint knows of.
    seen: u64,
    /// The last batch found, not yet taken into the index, and where the chain ended before it.
    held: Option<(Prefix, Vec<Record>, u64)>,
    window: Window,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Looking for the next batch at the head, or at the start of the next lap.
    Walk { skipped: bool },
    /// Looking for later batches from this position on; the highest sequence so far.
    Search { position: u64, highest: u64 },
    /// Verifying the last batch: what is left to check.
    Verify(Vec<Check>),
    /// Done.
    Done,
}

/// Units that the last batch wrote.
#[derive(Debug)]
struct Check {
    offset: u64,
    object: ObjectId,
    first: usize,
    sums: Vec<u32>,
}

impl Replay {
    /// Starts where the checkpoint says, with what the checkpoint has.
    pub fn new(
        layout: Layout,
        secret: [u8; 16],
        options: &Options,
        header: &Header,
        index: Index,
        (epochs, mark): (Epochs, Option<Mark>),
    ) -> Replay {
        let torn_is_fine = mutant!(options, AcceptTornBatch);
        Replay {
            layout,
            secret,
            torn_is_fine,
            last_is_fine: torn_is_fine || mutant!(options, SkipLastBatchVerify),
            rot_is_the_end: mutant!(options, TruncateAtRot),
            index,
            epochs,
            mark,
            tail: header.position,
            first: header.position,
            head: header.position,
            sequence: header.batch,
            incarnation: header.incarnation,
            seen: header.seen,
            held: None,
            window: Window::default(),
            step: Step::Walk { skipped: false },
        }
    }

    /// The ring as the walk has found it.
    pub fn ring(&self) -> Ring {
        Ring::new(self.layout.log_size, self.tail, self.head)
    }

    /// Goes on with what was read, as far as it gets.
    ///
    /// # Errors
    /// When the log is damaged.
    pub fn go_on(&mut self, data: Option<Window>) -> Result<Need, String> {
        if let Some(window) = data {
            self.window = window;
        }
        loop {
            let need = match &mut self.step {
                Step::Walk { skipped } => {
                    let skipped = *skipped;
                    self.walk(skipped)?
                }
                Step::Search { position, highest } => {
                    let (position, highest) = (*position, *highest);
                    self.search(position, highest)?
                }
                Step::Verify(_) => self.verify()?,
                Step::Done => return Ok(Need::Nothing),
            };
            if let Some((offset, len)) = need {
                return Ok(Need::Read(offset, len));
            }
        }
    }

    /// The bytes of the log at `position`, or what must be read to have them.
    fn log_bytes(&self, position: u64, len: usize) -> Result<Bytes, Range> {
        let within = position % self.layout.log_size;
        let offset = self.layout.log + within;
        if let Some(bytes) = self.window.get(offset, len) {
            return Ok(bytes);
        }
        let more = WINDOW.min(self.layout.log_size - within).max(len as u64);
        Err((offset, usize::try_from(more).expect("windows are small")))
    }

    /// One step along the chain.
    fn walk(&mut self, skipped: bool) -> Result<Option<Range>, String> {
        let position = if skipped {
            self.ring().lap_after(self.head)
        } else {
            self.head
        };
        match self.batch_at(position) {
            Err(read) => return Ok(Some(read)),
            Ok(Some((prefix, records))) => self.take(prefix, records),
            Ok(None) => return self.no_batch_at(position, skipped).map(|()| None),
        }
        Ok(None)
    }

    /// The chain ends, or goes on in the next lap.
    fn no_batch_at(&mut self, position: u64, skipped: bool) -> Result<(), String> {
        let offset = self.layout.log + position % self.layout.log_size;
        let prefix = self.window.get(offset, BLOCK_LEN);
        let prefix = prefix.and_then(|block| Prefix::get(&block, &self.secret));
        let prefix = prefix.filter(|prefix| self.is_next(prefix, position));
        let len = prefix.map_or(BLOCK_LEN, |prefix| prefix.header_len());
        self.window.check(offset, len)?;
        self.step = if skipped || self.head.is_multiple_of(self.layout.log_size) {
            Step::Search {
                position: self.head,
                highest: 0,
            }
        } else {
            Step::Walk { skipped: true }
        };
        Ok(())
    }

    /// The next batch of the chain, if it is at `position`.
    fn batch_at(&self, position: u64) -> Result<Option<Found>, Range> {
        let block = self.log_bytes(position, BLOCK_LEN)?;
        let prefix = Prefix::get(&block, &self.secret).filter(|prefix| self.is_next(prefix, position));
        let Some(prefix) = prefix else { return Ok(None) };
        let header = self.log_bytes(position, prefix.header_len())?;
        if !batch::is_whole(&header) && !self.torn_is_fine {
            return Ok(None);
        }
        let records = batch::records(&prefix, &header).filter(|records| self.are_sane(records));
        Ok(records.map(|records| (prefix, records)))
    }

    fn is_next(&self, prefix: &Prefix, position: u64) -> bool {
        if prefix.position != position || prefix.sequence != self.sequence + 1 {
            return false;
        }
        let size = self.layout.log_size;
        let fits = position % size + u64::from(prefix.blocks) * BLOCK <= size && prefix.end() - self.tail <= size;
        prefix.incarnation >= self.incarnation && fits
    }

    fn are_sane(&self, records: &[Record]) -> bool {
        records.iter().all(|record| match record {
            Record::Write(head, ..) => head.slot.is_none_or(|slot| slot < self.layout.slots),
            _ => true,
        })
    }

    /// The chain goes on with this batch, so the one before it is durable.
    fn take(&mut self, prefix: Prefix, records: Vec<Record>) {
        self.apply_held();
        if self.head == self.tail {
            self.first = prefix.position;
        }
        let before = std::mem::replace(&mut self.head, prefix.end());
        self.sequence = prefix.sequence;
        self.incarnation = prefix.incarnation;
        self.held = Some((prefix, records, before));
        self.step = Step::Walk { skipped: false };
    }

    /// Looks through one window of the rest of the ring.
    fn search(&mut self, mut position: u64, mut highest: u64) -> Result<Option<Range>, String> {
        let end = self.first + self.layout.log_size;
        while position < end {
            let block = match self.log_bytes(position, BLOCK_LEN) {
                Ok(block) => block,
                Err(read) => {
                    self.step = Step::Search { position, highest };
                    return Ok(Some(read));
                }
            };
            let prefix = Prefix::get(&block, &self.secret);
            if let Some(prefix) = prefix.filter(|prefix| prefix.sequence > self.sequence) {
                self.check_trace(&prefix, position)?;
                highest = highest.max(prefix.sequence);
            }
            position += BLOCK;
        }
        self.end_of_chain(highest)?;
        Ok(None)
    }

    /// What a trace, found at `position`, of a batch behind the end of the chain says about the chain.
    ///
    /// One that lies where it does not belong went astray, and is missing where it does. One that follows the last
    /// batch of the chain, but not in place, followed another one: that should have overwritten the last one of the
    /// chain, and never arrived. One that the ring could not have held together with the tail proves that a
    /// checkpoint newer than the one in use moved the tail: the chain ends only because that checkpoint has rotted.
    fn check_trace(&self, prefix: &Prefix, position: u64) -> Result<(), String> {
        if self.rot_is_the_end {
            return Ok(());
        }
        let (size, sequence) = (self.layout.log_size, prefix.sequence);
        if prefix.position % size != position % size {
            return Err(wrong_place(sequence));
        }
        let expected = [self.head, self.ring().lap_after(self.head)];
        let follows = sequence == self.sequence + 1 && prefix.incarnation >= self.incarnation;
        if follows && !expected.contains(&prefix.position) {
            return Err(format!(
                "batch {} of the log is damaged: batch {sequence} is not behind it",
                self.sequence
            ));
        }
        let fits = prefix.end().saturating_sub(self.tail) <= size;
        if fits {
            return Ok(());
        }
        Err(format!(
            "the checkpoint that batch {sequence} of the log relies on is damaged"
        ))
    }

    /// Decides what the end of the chain is, knowing the highest batch of which there is a trace beyond it.
    fn end_of_chain(&mut self, highest: u64) -> Result<(), String> {
        let missing = self.sequence + 1;
        if self.rot_is_the_end {
            self.apply_held();
            self.step = Step::Done;
            return Ok(());
        }
        if highest > missing {
            return Err(format!(
                "batch {missing} of the log is damaged: batch {highest} was written after it"
            ));
        }
        if self.sequence < self.seen {
            return Err(format!(
                "batch {missing} of the log is damaged: the checkpoint knows batch {}",
                self.seen
            ));
        }
        if highest == missing || self.sequence == self.seen || self.last_is_fine {
            self.apply_held();
            self.step = Step::Done;
        } else {
            self.step = Step::Verify(self.checks());
        }
        Ok(())
    }

    /// What the last batch wrote and nothing later may have overwritten.
    fn checks(&self) -> Vec<Check> {
        let Some((prefix, records, _)) = &self.held else {
            return Vec::new();
        };
        let mut checks = Vec::new();
        let payload = prefix.position + u64::from(prefix.header_blocks) * BLOCK;
        let mut payload = self.layout.log + payload % self.layout.log_size;
        for (number, record) in records.iter().enumerate() {
            let Record::Write(head, _, patches) = record else {
                continue;
            };
            for patch in patches {
                if patch.in_slot {
                    let hidden = hidden_by(&records[number + 1..], head);
                    checks.extend(slot_checks(&self.layout, head, patch, hidden));
                } else {
                    let PatchRecord { first, sums, .. } = patch.clone();
                    checks.push(Check {
                        offset: payload,
                        object: head.object,
                        first,
                        sums,
                    });
                    payload += patch.sums.len() as u64 * BLOCK;
                }
            }
        }
        checks.reverse();
        checks
    }

    /// Checks what is in the window; the first mismatch undoes the batch. Unless what is there is a later batch, that
    /// went astray.
    fn verify(&mut self) -> Result<Option<Range>, String> {
        let Step::Verify(checks) = &mut self.step else {
            unreachable!("only called in that step")
        };
        let Some(check) = checks.last() else {
            self.apply_held();
            self.step = Step::Done;
            return Ok(None);
        };
        let len = check.sums.len() * UNIT_SIZE;
        let Some(data) = self.window.get(check.offset, len) else {
            let in_log = check.offset < self.layout.data;
            let end = self.layout.log + self.layout.log_size;
            let more = if in_log {
                WINDOW.min(end - check.offset).max(len as u64)
            } else {
                len as u64
            };
            return Ok(Some((check.offset, usize::try_from(more).expect("windows are small"))));
        };
        self.window.check(check.offset, len)?;
        if mismatches(check.object, check.first, &data, &check.sums).is_empty() {
            checks.pop();
            return Ok(None);
        }
        let mut traces = data
            .chunks_exact(UNIT_SIZE)
            .filter_map(|unit| Prefix::get(unit, &self.secret));
        if let Some(astray) = traces.find(|prefix| prefix.sequence > self.sequence) {
            return Err(wrong_place(astray.sequence));
        }
        self.drop_held();
        Ok(None)
    }

    fn drop_held(&mut self) {
        let (prefix, _, before) = self.held.take().expect("it was being verified");
        self.head = before;
        self.sequence = prefix.sequence - 1;
        self.step = Step::Done;
    }

    fn apply_held(&mut self) {
        let Some((prefix, records, _)) = self.held.take() else {
            return;
        };
        let mut payload = self.ring().block(prefix.position) + prefix.header_blocks;
        for record in records {
            match record {
                Record::Write(head, ops, patches) => payload = self.apply_write(&head, &ops, &patches, payload),
                Record::Epoch(pg, epoch) => {
                    self.epochs.accept(pg, epoch);
                }
                Record::Forget(object, version) => self.index.forget(object, version),
                Record::Mark(mark) => self.mark = mark::later(self.mark, mark),
            }
        }
    }

    /// Takes a write into the index unless the checkpoint has it; says where the next payload is.
    fn apply_write(&mut self, head: &WriteHead, ops: &Ops, patches: &[PatchRecord], mut payload: u32) -> u32 {
        let inline = patches
            .iter()
            .filter(|patch| !patch.in_slot)
            .map(|patch| patch.sums.len())
            .sum::<usize>();
        let end = payload + u32::try_from(inline).expect("batches are small");
        let have = self.index.get(head.object).map(|entry| entry.version);
        if have.is_some_and(|have| !head.changes(have)) {
            return end;
        }
        self.index.change(head.object, |entry| {
            entry.begin(head, ops);
            for patch in patches {
                if patch.in_slot {
                    entry.put_in_slot(patch.first, &patch.sums);
                } else {
                    entry.put_in_log(patch.first, &patch.sums, payload);
                    payload += u32::try_from(patch.sums.len()).expect("at most 32");
                }
            }
        });
        end
    }
}

fn wrong_place(sequence: u64) -> String {
    format!("batch {sequence} of the log was written to a wrong place")
}

/// The units of the slot that a write went to which records after it in the same batch have replaced. Their
/// places may have been used again while that batch was still the last one.
fn hidden_by(later: &[Record], head: &WriteHead) -> UnitMask {
    let writes = later.iter().filter_map(|record| match record {
        Record::Write(next, _, patches) if next.object == head.object => Some((next, patches)),
        _ => None,
    });
    writes.fold(UnitMask::EMPTY, |hidden, (next, patches)| {
        if next.slot != head.slot {
            return UnitMask::ALL;
        }
        patches
            .iter()
            .fold(hidden.union(next.zero), |mask, patch| mask.union(patch.mask()))
    })
}

fn slot_checks(layout: &Layout, head: &WriteHead, patch: &PatchRecord, hidden: UnitMask) -> Vec<Check> {
    let slot = head.slot.expect("records with patches have a slot");
    let runs = patch.mask().minus(hidden).runs();
    let check = |(first, count): (usize, usize)| {
        let sums = patch.sums[first - patch.first..][..count].to_vec();
        Check {
            offset: layout.unit(slot, first),
            object: head.object,
            first,
            sums,
        }
    };
    runs.map(check).collect()
}
