//! The cycle that frees the log: settle what lies before a point, write a checkpoint, move the tail there.
//!
//! The checkpoint is taken while writes go on. That is sound because it holds each object as it is at some
//! instant after the point, and replaying the log from the point skips what an object's version covers.
//! Usually only what changed since the last checkpoint is appended to its area; when that does not fit, or
//! most objects changed, a full image goes to the other area. A header is written when all that it points
//! to is durable, into the block that does not hold the newest one; the tail moves when the header is durable.
//! Then the checkpoint is copied to the other area, see [`crate::mirror`].

use bytes::Bytes;
use trivet_core::mark::Mark;
use trivet_core::{Epoch, ObjectId, PgId};

use crate::api::Output;
use crate::checkpoint::{self, CHUNK_FILL, Chunk, Header, ITEM_MAX};
use crate::disk::Owner;
use crate::layout::{BLOCK, Layout};
use crate::mirror::{Copying, Mirror};
use crate::mutant::mutant;
use crate::policy;
use crate::settle::Settling;
use crate::store::Live;

/// Chunks in flight at once.
const CHUNKS_IN_FLIGHT: usize = 2;

/// The newest checkpoint on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Active {
    /// Which area.
    pub area: usize,
    /// Which of its header blocks.
    pub slot: usize,
    /// What it says.
    pub header: Header,
    /// There is one at all.
    pub exists: bool,
    /// The highest sequence of any header on the disk.
    pub highest: u64,
}

/// Where the cycle is.
#[derive(Debug)]
pub struct Cycle {
    active: Active,
    stage: Stage,
    /// Objects being settled.
    pub settling: Settling,
    /// The checkpoint's copy.
    pub mirror: Mirror,
    /// Operations of the checkpoint in flight.
    waiting: usize,
    /// Changes never fit into their area, but that is seen only while they are written.
    #[cfg(test)]
    pub overflow: bool,
}

/// A place between two batches.
#[derive(Clone, Copy, Debug)]
struct Point {
    position: u64,
    /// The last batch before it.
    batch: u64,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// Settling the entries of the list, from `at` on.
    Settle {
        point: Point,
        list: Vec<u32>,
        at: usize,
    },
    Stream(Box<Stream>),
    /// To be begun again as a full image.
    Again(Point),
    FlushChunks(Active),
    Header(Active),
    FlushHeader(Active),
    Copy(Copying),
}

/// A checkpoint being written.
#[derive(Debug)]
struct Stream {
    next: Active,
    full: bool,
    /// What is still to be written, in this order.
    removed: std::vec::IntoIter<ObjectId>,
    entries: Entries,
    epochs: std::vec::IntoIter<(PgId, Epoch)>,
    mark: Option<Mark>,
    /// Removals since the start; taken when all else is written.
    late: Option<std::vec::IntoIter<ObjectId>>,
}

/// The entries of a checkpoint.
#[derive(Debug)]
enum Entries {
    /// All of them, from this number on.
    All(u32),
    /// Those that changed.
    Changed(std::vec::IntoIter<u32>),
}

impl Cycle {
    /// At rest, with the checkpoint that the store was opened from.
    pub fn new(active: Active) -> Cycle {
        Cycle {
            active,
            stage: Stage::Idle,
            settling: Settling::default(),
            mirror: Mirror::default(),
            waiting: 0,
            #[cfg(test)]
            overflow: false,
        }
    }

    /// Bytes of chunks that an area takes.
    fn room(&self, full: bool, layout: &Layout) -> u64 {
        #[cfg(test)]
        if self.overflow && !full {
            return 0;
        }
        let _ = full;
        checkpoint::chunks_room(layout)
    }

    /// An operation of the checkpoint was submitted.
    pub fn begin_one(&mut self) {
        self.waiting += 1;
    }

    /// An operation of the checkpoint has completed.
    pub fn finished_one(&mut self) {
        self.waiting -= 1;
    }
}

impl Live {
    /// Does what can be done now.
    pub fn turn(&mut self, out: &mut Output) {
        loop {
            match std::mem::replace(&mut self.cycle.stage, Stage::Idle) {
                Stage::Idle if !policy::should_settle(&self.ring, self.commit.blocked) => return,
                Stage::Idle => {
                    let point = Point {
                        position: self.ring.head,
                        batch: self.sequence,
                    };
                    let list = self.index.take_logged();
                    self.cycle.stage = Stage::Settle { point, list, at: 0 };
                }
                Stage::Settle { point, list, at } => {
                    if !self.settle_on_list(point, list, at, out) {
                        return;
                    }
                }
                Stage::Stream(stream) => {
                    if !self.stream(stream, out) {
                        return;
                    }
                }
                stage if self.cycle.waiting > 0 => {
                    self.cycle.stage = stage;
                    return;
                }
                Stage::Again(point) => self.cycle.stage = self.begin_stream(point, true),
                Stage::FlushChunks(next) => {
                    if mutant!(self.options, TailBeforeHeader) {
                        self.ring.tail = next.header.position;
                    }
                    self.write_header(&next, out);
                    self.cycle.stage = Stage::Header(next);
                }
                Stage::Header(next) => {
                    self.flush_checkpoint(out);
                    self.cycle.stage = Stage::FlushHeader(next);
                }
                Stage::FlushHeader(next) => {
                    self.ring.tail = next.header.position;
                    self.cycle.active = next;
                    self.cycle.stage = Stage::Copy(self.cycle.mirror.begin(&next.header));
                    self.start_batch(out);
                }
                Stage::Copy(copying) => {
                    let source = self.cycle.active;
                    if let Some(copying) = self.copy(copying, &source, out) {
                        self.cycle.stage = Stage::Copy(copying);
                    }
                }
            }
        }
    }

    /// Keeps enough jobs in flight; whether all are done and the checkpoint was begun.
    fn settle_on_list(&mut self, point: Point, list: Vec<u32>, mut at: usize, out: &mut Output) -> bool {
        let depth = policy::settling_depth(&self.ring, self.commit.blocked);
        while at < list.len() && self.cycle.settling.active() < depth {
            self.settle(list[at], point.position, out);
            at += 1;
        }
        let done = at == list.len() && self.cycle.settling.active() == 0;
        self.cycle.stage = if done {
            self.begin_stream(point, self.cycle.mirror.suspect)
        } else {
            Stage::Settle { point, list, at }
        };
        done
    }

    /// Decides between a full checkpoint and one of changes.
    fn begin_stream(&mut self, point: Point, force_full: bool) -> Stage {
        let active = self.cycle.active;
        let full = force_full || !active.exists || !self.changes_fit();
        let sequence = active.highest + 1;
        let mut header = Header {
            sequence,
            position: point.position,
            batch: point.batch,
            ..active.header
        };
        header.incarnation = self.incarnation;
        let (mut area, mut slot) = (active.area, 1 - active.slot);
        if full {
            self.cycle.mirror.overwritten();
            (area, slot) = (if active.exists { 1 - active.area } else { 0 }, 0);
            header = Header {
                base: sequence,
                bytes: 0,
                chunks: 0,
                sum: 0,
                ..header
            };
        }
        let changed = self.index.take_dirty();
        let removed = self.index.take_removed();
        if full {
            changed.iter().for_each(|&number| self.index.clean(number));
        }
        Stage::Stream(Box::new(Stream {
            next: Active {
                area,
                slot,
                header,
                exists: true,
                highest: sequence,
            },
            full,
            removed: if full { Vec::new() } else { removed }.into_iter(),
            entries: if full {
                Entries::All(0)
            } else {
                Entries::Changed(changed.into_iter())
            },
            epochs: self.epochs.iter().collect::<Vec<_>>().into_iter(),
            mark: self.mark,
            late: None,
        }))
    }

    /// Whether the changes are few and the area has room for them.
    fn changes_fit(&self) -> bool {
        let items = self.index.dirty_len() * ITEM_MAX + (self.index.removed_len() + self.epochs.len() + 1) * 20;
        let bytes = (items + items / 8 + 2 * CHUNK_FILL) as u64;
        let room = checkpoint::chunks_room(&self.layout) - self.cycle.active.header.bytes;
        bytes <= room && self.index.dirty_len() <= self.index.len() / 2
    }

    /// Keeps enough chunks in flight; whether all are written and the next stage was entered.
    fn stream(&mut self, mut stream: Box<Stream>, out: &mut Output) -> bool {
        while self.cycle.waiting < CHUNKS_IN_FLIGHT {
            let Some(chunk) = self.next_chunk(&mut stream) else {
                if self.cycle.waiting > 0 {
                    break;
                }
                self.end_stream(*stream, out);
                return true;
            };
            let header = &mut stream.next.header;
            if header.bytes + chunk.len() as u64 > self.cycle.room(stream.full, &self.layout) {
                // More was forgotten meanwhile than there is room for.
                stream.entries.for_each_changed(|number| self.index.clean(number));
                self.cycle.stage = Stage::Again(Point {
                    position: header.position,
                    batch: header.batch,
                });
                return true;
            }
            let offset = checkpoint::chunks_start(&self.layout, stream.next.area) + header.bytes;
            header.bytes += chunk.len() as u64;
            header.chunks += 1;
            header.sum = checkpoint::chain(header.sum, &chunk);
            self.cycle.waiting += 1;
            self.disk.write(Owner::Checkpoint, offset, chunk, out);
        }
        self.cycle.stage = Stage::Stream(stream);
        false
    }

    fn end_stream(&mut self, stream: Stream, out: &mut Output) {
        let mut next = stream.next;
        next.header.seen = self.sequence;
        if mutant!(self.options, CheckpointBeforeFlush) {
            self.write_header(&next, out);
            self.cycle.stage = Stage::FlushHeader(next);
            return;
        }
        self.flush_checkpoint(out);
        self.cycle.stage = Stage::FlushChunks(next);
    }

    /// Makes durable what was written of the checkpoint.
    pub fn flush_checkpoint(&mut self, out: &mut Output) {
        self.cycle.waiting += 1;
        self.disk.flush(Owner::Checkpoint, out);
    }

    /// Writes the header block.
    pub fn write_header(&mut self, next: &Active, out: &mut Output) {
        let offset = self.layout.area(next.area) + next.slot as u64 * BLOCK;
        self.cycle.waiting += 1;
        self.disk
            .write(Owner::Checkpoint, offset, next.header.encode(&self.secret), out);
    }

    /// The next chunk; `None` when everything is written.
    fn next_chunk(&mut self, stream: &mut Stream) -> Option<Bytes> {
        let header = &stream.next.header;
        let mut chunk = Chunk::new(&self.secret, header.base, header.chunks);
        while !chunk.is_full() && self.put_next(stream, &mut chunk) {}
        (!chunk.is_empty()).then(|| chunk.finish())
    }

    /// Adds the next item, if there is one.
    fn put_next(&mut self, stream: &mut Stream, chunk: &mut Chunk) -> bool {
        if let Some(object) = stream.removed.next() {
            chunk.put_removed(object);
        } else if let Some(number) = stream.entries.next(self.index.end()) {
            if !stream.full {
                self.index.clean(number);
            }
            let with_ops = !mutant!(self.options, ForgetOps);
            if let Some(entry) = self.index.entry(number) {
                chunk.put_entry(entry, with_ops);
            }
        } else if let Some((pg, epoch)) = stream.epochs.next() {
            chunk.put_epoch(pg, epoch);
        } else if let Some(mark) = stream.mark.take() {
            chunk.put_mark(mark);
        } else if let Some(object) = self.late_removals(stream).next() {
            chunk.put_removed(object);
        } else {
            return false;
        }
        true
    }

    /// Objects forgotten while changes were written: the tombstone of one may lie before the point without
    /// having been written here. One that exists again was made again after the point; it must be written
    /// next time, since its removal comes after it here. A full image needs none of this.
    fn late_removals<'a>(&mut self, stream: &'a mut Stream) -> &'a mut std::vec::IntoIter<ObjectId> {
        let full = stream.full;
        stream.late.get_or_insert_with(|| {
            let removed = if full { Vec::new() } else { self.index.take_removed() };
            let again: Vec<ObjectId> = removed
                .iter()
                .copied()
                .filter(|&o| self.index.find(o).is_some())
                .collect();
            again.into_iter().for_each(|object| self.index.change(object, |_| {}));
            removed.into_iter()
        })
    }
}

impl Entries {
    /// Visits the changed entries that are left.
    fn for_each_changed(&mut self, visit: impl FnMut(u32)) {
        if let Entries::Changed(numbers) = self {
            numbers.for_each(visit);
        }
    }

    fn next(&mut self, end: u32) -> Option<u32> {
        match self {
            Entries::All(number) if *number < end => {
                *number += 1;
                Some(*number - 1)
            }
            Entries::All(_) => None,
            Entries::Changed(numbers) => numbers.next(),
        }
    }
}
