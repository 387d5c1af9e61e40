//! The second copy of the checkpoint: when one is durable in its area it is copied to the other one, so that rot in
//! either costs nothing.
//!
//! What is copied is read back and verified. If it is not what was written the next checkpoint is a full image. A
//! full image is written over the copy, never over the checkpoint itself, and copied back. The log does not wait for
//! a copy: one that is in the way is given up, and made after the next checkpoint.

use bytes::Bytes;

use crate::api::Output;
use crate::checkpoint::{self, CHUNK_MAX, Header};
use crate::cycle::Active;
use crate::disk::Owner;
use crate::layout::BLOCK_LEN;
use crate::store::Live;

/// Bytes read at once; always a whole chunk.
const WINDOW: u64 = (4 * CHUNK_MAX) as u64;

/// How much of the checkpoint's chunks the other area has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copied {
    base: u64,
    bytes: u64,
    chunks: u32,
    sum: u32,
    /// The header block that was written last.
    slot: usize,
}

/// A copy being made.
#[derive(Debug)]
pub struct Copying {
    done: Copied,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Read,
    Write,
    Flush,
    Header,
    FlushHeader,
}

/// What the cycle knows of the copy.
#[derive(Debug, Default)]
pub struct Mirror {
    copied: Option<Copied>,
    /// What was read; `None` if it could not be.
    window: Option<Bytes>,
    /// The checkpoint is not what was written.
    pub suspect: bool,
}

impl Mirror {
    /// The other area is about to be overwritten by a full image.
    pub fn overwritten(&mut self) {
        (self.copied, self.suspect) = (None, false);
    }

    /// Goes on where the last copy ended, if the checkpoint only grew since.
    pub fn begin(&self, header: &Header) -> Copying {
        let grown = self.copied.filter(|copied| copied.base == header.base);
        let done = grown.map_or(
            Copied {
                base: header.base,
                ..Copied::default()
            },
            |copied| Copied {
                slot: 1 - copied.slot,
                ..copied
            },
        );
        Copying { done, step: Step::Read }
    }
}

impl Live {
    /// Part of the checkpoint was read, or could not be.
    pub fn copy_read(&mut self, data: Option<Bytes>) {
        self.cycle.mirror.window = data;
        self.cycle.finished_one();
    }

    /// Does the next step of a copy; `None` when it is made or given up.
    pub fn copy(&mut self, mut copying: Copying, source: &Active, out: &mut Output) -> Option<Copying> {
        if self.commit.blocked {
            self.cycle.mirror.copied = None;
            return None;
        }
        let header = &source.header;
        copying.step = match copying.step {
            Step::Read if copying.done.bytes < header.bytes => {
                self.read_to_copy(&copying, source, out);
                Step::Write
            }
            Step::Read => {
                self.flush_checkpoint(out);
                Step::Flush
            }
            Step::Write => {
                let window = self.cycle.mirror.window.take().unwrap_or_default();
                self.write_copy(&mut copying, &window, source, out)?;
                Step::Read
            }
            Step::Flush if copying.done.sum != header.sum => {
                self.cycle.mirror.suspect = true;
                return None;
            }
            Step::Flush => {
                let (area, slot) = (1 - source.area, copying.done.slot);
                self.write_header(&Active { area, slot, ..*source }, out);
                Step::Header
            }
            Step::Header => {
                self.flush_checkpoint(out);
                Step::FlushHeader
            }
            Step::FlushHeader => {
                self.cycle.mirror.copied = Some(copying.done);
                return None;
            }
        };
        Some(copying)
    }

    fn read_to_copy(&mut self, copying: &Copying, source: &Active, out: &mut Output) {
        let offset = checkpoint::chunks_start(&self.layout, source.area) + copying.done.bytes;
        let len = (source.header.bytes - copying.done.bytes).min(WINDOW);
        let len = usize::try_from(len).expect("windows are small");
        self.cycle.begin_one();
        self.disk.read(Owner::CheckpointRead, offset, len, out);
    }

    /// Writes the whole chunks at the start of `window`; `None` if there is none.
    fn write_copy(&mut self, copying: &mut Copying, window: &Bytes, source: &Active, out: &mut Output) -> Option<()> {
        let done = &mut copying.done;
        let offset = checkpoint::chunks_start(&self.layout, 1 - source.area) + done.bytes;
        let mut len = 0;
        while let Some(chunk) = chunk_at(&window[len..], &self.secret, done) {
            len += chunk.len();
            done.chunks += 1;
            done.sum = checkpoint::chain(done.sum, chunk);
        }
        if len == 0 {
            self.cycle.mirror.suspect = true;
            return None;
        }
        done.bytes += len as u64;
        self.cycle.begin_one();
        self.disk.write(Owner::Checkpoint, offset, window.slice(..len), out);
        Some(())
    }
}

/// The chunk that comes next, if `data` starts with it.
fn chunk_at<'a>(data: &'a [u8], secret: &[u8; 16], done: &Copied) -> Option<&'a [u8]> {
    let len = checkpoint::chunk_len(data, secret, done.base, done.chunks)?;
    debug_assert!(len.is_multiple_of(BLOCK_LEN));
    let chunk = data.get(..len)?;
    checkpoint::items(chunk).map(|_| chunk)
}
