//! Opening a store: superblock, newest valid checkpoint, log, then the first batch of a new incarnation.
//!
//! Either copy of the superblock is enough; the other is then written again. Two good ones that differ are what a
//! formatting that never ended leaves, and no store.
//!
//! Before anything is written, a flush makes durable what was read: it may have come from the device's cache.
//! Then an empty batch with the next incarnation takes the place after the last valid batch. It overwrites
//! the header of a torn one, so what this opening did not see can never be seen by a later one; and batches
//! of older incarnations are not accepted after it. If the log is too full for it, the checkpoint that has to
//! come before any further batch carries the incarnation and does the same. One read or write is in flight
//! at a time.

use bytes::{Bytes, BytesMut};
use trivet_core::Epochs;
use trivet_core::buffer::zeroes;
use trivet_core::disk::DiskDone;
use trivet_core::mark::{self, Mark};

use crate::api::Output;
use crate::checkpoint::{self, Header, Item};
use crate::commit::{Commit, empty_batch};
use crate::cycle::{Active, Cycle};
use crate::disk::{Disk, Owner};
use crate::index::Index;
use crate::layout::{AREA_HEADERS, BLOCK, BLOCK_LEN, Layout};
use crate::mutant::mutant;
use crate::read::Reads;
use crate::replay::{Need, Replay, Window};
use crate::slots::Slots;
use crate::store::{Live, Options};
use crate::superblock::Superblock;

/// No counter of a store comes near this.
const COUNTER_MAX: u64 = u64::MAX / 4;

/// Bytes of a checkpoint read at once.
const WINDOW: u64 = 2 << 20;

/// An opening in progress.
#[derive(Debug)]
pub struct Recovery {
    size: u64,
    options: Options,
    disk: Disk,
    step: Step,
    /// Where the read in flight began.
    reading: u64,
    /// And its length.
    read_len: usize,
    /// A read that failed is repeated block by block.
    piecemeal: Option<Piecemeal>,
    /// The blocks of the last read that cannot be read.
    holes: Vec<u64>,
    /// Valid headers: the best one last.
    found: Vec<(usize, usize, Header)>,
    /// The copy of the superblock that is damaged.
    bad_copy: Option<u64>,
    /// The highest sequence of any header, and the last batch that any of them knows of.
    highest: u64,
    seen: u64,
}

#[derive(Debug)]
enum Step {
    /// Reading the first copy of the superblock.
    Superblock,
    /// Reading the second one; the first, or what is wrong with it.
    SecondSuperblock(Result<Superblock, String>),
    /// Reading the headers of this area.
    Headers(Superblock, usize),
    /// Reading chunks.
    Chunks(Box<Loading>),
    /// Reading the log.
    Log(Superblock, Active, Box<Replay>),
    /// Writing a damaged copy of the superblock again.
    Repair(Box<Live>),
    /// The flush before the first write.
    Settle(Box<Live>),
    /// Writing the empty batch.
    Write(Box<Live>),
    /// Flushing it.
    Flush(Box<Live>),
    /// Moved on.
    Over,
}

/// What could be read so far of a range that could not be read at once; zeroes for what cannot be read, which are no valid
/// header.
#[derive(Debug)]
struct Piecemeal {
    offset: u64,
    len: usize,
    data: BytesMut,
    holes: Vec<u64>,
}

/// A checkpoint being loaded.
#[derive(Debug)]
struct Loading {
    superblock: Superblock,
    active: Active,
    index: Index,
    epochs: Epochs,
    mark: Option<Mark>,
    /// Chunks and bytes loaded.
    chunks: u32,
    bytes: u64,
    /// Their chained checksums.
    sum: u32,
}

/// The store, when it is open; or why it cannot be.
type Progress = Result<Option<Box<Live>>, String>;

impl Recovery {
    /// Starts to open a disk of `size` bytes.
    pub fn start(size: u64, options: Options, out: &mut Output) -> Recovery {
        let mut recovery = Recovery {
            size,
            options,
            disk: Disk::default(),
            step: Step::Superblock,
            reading: 0,
            read_len: 0,
            piecemeal: None,
            holes: Vec::new(),
            found: Vec::new(),
            bad_copy: None,
            highest: 0,
            seen: 0,
        };
        recovery.read(0, BLOCK_LEN, out);
        recovery
    }

    fn read(&mut self, offset: u64, len: usize, out: &mut Output) {
        (self.reading, self.read_len) = (offset, len);
        self.disk.read(Owner::Recovery, offset, len, out);
    }

    /// The operation in flight has ended; the store, once it is open.
    ///
    /// # Errors
    /// Why the store cannot be opened.
    pub fn completed(&mut self, done: DiskDone, out: &mut Output) -> Progress {
        if self.disk.finished(done.id).is_none() {
            return Ok(None);
        }
        let Some(result) = self.gathered(done.result.map_err(|error| error.to_string()), out) else {
            return Ok(None);
        };
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Superblock => {
                self.read(BLOCK, BLOCK_LEN, out);
                self.step = Step::SecondSuperblock(self.decode(result));
                Ok(None)
            }
            Step::SecondSuperblock(first) => {
                let second = self.decode(result);
                self.superblock(first, second, out)
            }
            Step::Headers(superblock, area) => self.headers(superblock, area, result, out),
            Step::Chunks(loading) => self.chunks(loading, result.ok(), out),
            Step::Log(superblock, active, replay) => {
                let window = Window {
                    offset: self.reading,
                    data: result?,
                    holes: std::mem::take(&mut self.holes),
                };
                self.log(superblock, active, replay, Some(window), out)
            }
            Step::Repair(live) => {
                result?;
                self.flush_first(live, out);
                Ok(None)
            }
            Step::Settle(live) => result.map(|_| self.first_batch(live, out)),
            Step::Write(live) => {
                result?;
                self.disk.flush(Owner::Recovery, out);
                self.step = Step::Flush(live);
                Ok(None)
            }
            Step::Flush(live) => result.map(|_| Some(self.hand_over(live))),
            Step::Over => unreachable!("nothing is in flight"),
        }
    }

    /// What was read of headers or of the log: one bad block where nothing is needed must not cost the store.
    fn gathered(&mut self, result: Result<Bytes, String>, out: &mut Output) -> Option<Result<Bytes, String>> {
        if !matches!(self.step, Step::Headers(..) | Step::Log(..)) {
            return Some(result);
        }
        let Some(mut piecemeal) = self.piecemeal.take() else {
            if result.is_err() {
                self.piecemeal = Some(Piecemeal {
                    offset: self.reading,
                    len: self.read_len,
                    data: BytesMut::with_capacity(self.read_len),
                    holes: Vec::new(),
                });
                self.read(self.reading, BLOCK_LEN, out);
                return None;
            }
            return Some(result);
        };
        if result.is_err() {
            piecemeal.holes.push(self.reading);
        }
        let block = result.unwrap_or_else(|_| zeroes(BLOCK_LEN));
        piecemeal.data.extend_from_slice(&block);
        if piecemeal.data.len() < piecemeal.len {
            self.read(piecemeal.offset + piecemeal.data.len() as u64, BLOCK_LEN, out);
            self.piecemeal = Some(piecemeal);
            return None;
        }
        (self.reading, self.holes) = (piecemeal.offset, piecemeal.holes);
        Some(Ok(piecemeal.data.freeze()))
    }

    fn decode(&self, data: Result<Bytes, String>) -> Result<Superblock, String> {
        Superblock::decode(&data?, self.size)
    }

    /// Chooses between the two copies.
    fn superblock(
        &mut self,
        first: Result<Superblock, String>,
        second: Result<Superblock, String>,
        out: &mut Output,
    ) -> Progress {
        let superblock = match (first, second) {
            (Ok(first), Ok(second)) if first != second => {
                return Err("the two copies of the superblock differ: formatting has not ended".into());
            }
            (Ok(first), second) => {
                self.bad_copy = second.is_err().then_some(1);
                first
            }
            (Err(_), Ok(second)) => {
                self.bad_copy = Some(0);
                second
            }
            (Err(first), Err(second)) if first == second => return Err(first),
            (Err(first), Err(second)) => return Err(format!("{first}; second copy: {second}")),
        };
        self.check_owner(&superblock)?;
        self.read(superblock.layout.area(0), headers_len(), out);
        self.step = Step::Headers(superblock, 0);
        Ok(None)
    }

    fn check_owner(&self, superblock: &Superblock) -> Result<(), String> {
        match self.options.expect {
            Some((cluster, _)) if cluster != superblock.cluster => Err("this disk belongs to another cluster".into()),
            Some((_, osd)) if osd != superblock.osd => Err(format!("this disk belongs to OSD {}", superblock.osd)),
            _ => Ok(()),
        }
    }

    fn headers(
        &mut self,
        superblock: Superblock,
        area: usize,
        data: Result<Bytes, String>,
        out: &mut Output,
    ) -> Progress {
        let blocks = data.unwrap_or_default();
        for (slot, block) in blocks.chunks_exact(BLOCK_LEN).enumerate() {
            let header = Header::decode(block, &superblock.store).filter(|header| is_sane(header, &superblock.layout));
            self.found.extend(header.map(|header| (area, slot, header)));
        }
        if area == 0 {
            self.read(superblock.layout.area(1), headers_len(), out);
            self.step = Step::Headers(superblock, 1);
            return Ok(None);
        }
        self.found.sort_by_key(|found| found.2.sequence);
        self.highest = self.found.last().map_or(0, |found| found.2.sequence);
        self.seen = self.found.iter().map(|found| found.2.seen).max().unwrap_or(0);
        if self.found.is_empty() {
            return self.enter_log(Loading::new(superblock, Active::default()), out);
        }
        self.load_best(superblock, out)
    }

    /// Starts to load the best checkpoint that is left.
    fn load_best(&mut self, superblock: Superblock, out: &mut Output) -> Progress {
        let Some((area, slot, mut header)) = self.found.pop() else {
            return Err("every checkpoint is damaged".into());
        };
        header.seen = self.seen;
        let active = Active {
            area,
            slot,
            header,
            exists: true,
            ..Active::default()
        };
        self.load_on(Box::new(Loading::new(superblock, active)), out)
    }

    /// Reads the next chunks, or enters the log.
    fn load_on(&mut self, loading: Box<Loading>, out: &mut Output) -> Progress {
        let header = &loading.active.header;
        if loading.chunks == header.chunks {
            let right = loading.sum == header.sum || mutant!(self.options, StaleChunks);
            return if right {
                self.enter_log(*loading, out)
            } else {
                self.load_best(loading.superblock, out)
            };
        }
        let left = header.bytes - loading.bytes;
        if left == 0 {
            return self.load_best(loading.superblock, out);
        }
        let offset = checkpoint::chunks_start(&loading.superblock.layout, loading.active.area) + loading.bytes;
        self.read(
            offset,
            usize::try_from(left.min(WINDOW)).expect("windows are small"),
            out,
        );
        self.step = Step::Chunks(loading);
        Ok(None)
    }

    fn chunks(&mut self, mut loading: Box<Loading>, data: Option<Bytes>, out: &mut Output) -> Progress {
        match data.and_then(|data| loading.load(&data)) {
            Some(()) => self.load_on(loading, out),
            None => self.load_best(loading.superblock, out),
        }
    }

    fn enter_log(&mut self, mut loading: Loading, out: &mut Output) -> Progress {
        loading.index.forget_changes();
        let Loading {
            superblock,
            mut active,
            index,
            epochs,
            mark,
            ..
        } = loading;
        active.highest = self.highest;
        let replay = Replay::new(
            superblock.layout,
            superblock.store,
            &self.options,
            &active.header,
            index,
            (epochs, mark),
        );
        self.log(superblock, active, Box::new(replay), None, out)
    }

    fn log(
        &mut self,
        superblock: Superblock,
        active: Active,
        mut replay: Box<Replay>,
        window: Option<Window>,
        out: &mut Output,
    ) -> Progress {
        match replay.go_on(window)? {
            Need::Read(offset, len) => {
                self.read(offset, len, out);
                self.step = Step::Log(superblock, active, replay);
            }
            Need::Nothing => {
                let live = self.build(&superblock, active, *replay)?;
                self.repair(&superblock, Box::new(live), out);
            }
        }
        Ok(None)
    }

    fn build(&mut self, superblock: &Superblock, active: Active, replay: Replay) -> Result<Live, String> {
        let layout = superblock.layout;
        let mut slots = Slots::new(layout.slots);
        for entry in replay.index.iter() {
            if entry.slot().is_some_and(|slot| !slots.claim(slot)) {
                return Err(format!("the slot of {} belongs to another object, too", entry.object));
            }
        }
        Ok(Live {
            options: self.options.clone(),
            layout,
            secret: superblock.store,
            incarnation: replay.incarnation + 1,
            sequence: replay.sequence,
            disk: Disk::default(),
            slots,
            ring: replay.ring(),
            index: replay.index,
            epochs: replay.epochs,
            mark: replay.mark,
            commit: Commit::default(),
            reads: Reads::default(),
            cycle: Cycle::new(active),
        })
    }

    /// Writes the damaged copy of the superblock again, if one is.
    fn repair(&mut self, superblock: &Superblock, live: Box<Live>, out: &mut Output) {
        let Some(copy) = self.bad_copy else {
            return self.flush_first(live, out);
        };
        self.disk.write(Owner::Recovery, copy * BLOCK, superblock.encode(), out);
        self.step = Step::Repair(live);
    }

    /// What was read may only have been in a cache.
    fn flush_first(&mut self, live: Box<Live>, out: &mut Output) {
        self.disk.flush(Owner::Recovery, out);
        self.step = Step::Settle(live);
    }

    /// Writes the empty batch, or opens without one if the log is full.
    fn first_batch(&mut self, mut live: Box<Live>, out: &mut Output) -> Option<Box<Live>> {
        let Some(position) = live.ring.place(1) else {
            return Some(self.hand_over(live));
        };
        let (prefix, data) = empty_batch(&live.secret, live.sequence + 1, live.incarnation, position);
        let offset = live.layout.log_block(live.ring.block(position));
        self.disk.write(Owner::Recovery, offset, data, out);
        live.sequence = prefix.sequence;
        live.ring.head = prefix.end();
        self.step = Step::Write(live);
        None
    }

    fn hand_over(&mut self, mut live: Box<Live>) -> Box<Live> {
        live.disk = std::mem::take(&mut self.disk);
        live
    }
}

impl Loading {
    fn new(superblock: Superblock, active: Active) -> Loading {
        let index = Index::new(&superblock.store);
        Loading {
            superblock,
            active,
            index,
            epochs: Epochs::default(),
            mark: None,
            chunks: 0,
            bytes: 0,
            sum: 0,
        }
    }

    /// Takes the whole chunks at the start of `data`; `None` if the first is not whole.
    fn load(&mut self, mut data: &[u8]) -> Option<()> {
        let header = self.active.header;
        let before = self.chunks;
        while self.chunks < header.chunks && !data.is_empty() {
            let len = checkpoint::chunk_len(data, &self.superblock.store, header.base, self.chunks)?;
            let Some(chunk) = data.get(..len) else { break };
            self.take(checkpoint::items(chunk)?)?;
            self.sum = checkpoint::chain(self.sum, chunk);
            data = &data[len..];
            self.chunks += 1;
            self.bytes += len as u64;
        }
        (self.chunks > before).then_some(())
    }

    fn take(&mut self, mut items: &[u8]) -> Option<()> {
        while !items.is_empty() {
            match checkpoint::get(&mut items, &self.superblock.layout)? {
                Item::Entry(entry) => self.index.restore(*entry),
                Item::Removed(object) => self.index.remove(object),
                Item::Epoch(pg, epoch) => {
                    self.epochs.accept(pg, epoch);
                }
                Item::Mark(mark) => self.mark = mark::later(self.mark, mark),
            }
        }
        Some(())
    }
}

fn headers_len() -> usize {
    usize::try_from(AREA_HEADERS * BLOCK).expect("two blocks")
}

fn is_sane(header: &Header, layout: &Layout) -> bool {
    let counters = [
        header.sequence,
        header.base,
        header.seen,
        header.incarnation,
        header.position,
    ];
    counters.iter().all(|&counter| counter < COUNTER_MAX)
        && header.position.is_multiple_of(BLOCK)
        && header.bytes <= checkpoint::chunks_room(layout)
        && header.batch <= header.seen
}
