//! Positions in the log ring.
//!
//! A position counts bytes from the beginning of time; it lies at `position % size` of the ring. A batch
//! never wraps: one that does not fit before the end starts at the next multiple of the size. The tail is
//! where recovery would start, so nothing in `[tail, head)` is ever overwritten.

use crate::layout::BLOCK;

/// The live part of the ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    size: u64,
    /// Where recovery starts.
    pub tail: u64,
    /// Where the durable part ends and the next batch goes, unless it has to skip.
    pub head: u64,
}

impl Ring {
    /// A ring of `size` bytes of which `[tail, head)` is live.
    pub fn new(size: u64, tail: u64, head: u64) -> Ring {
        Ring { size, tail, head }
    }

    /// Where a batch of `blocks` blocks may go, if there is room for it now.
    pub fn place(&self, blocks: u64) -> Option<u64> {
        let len = blocks * BLOCK;
        let start = if self.head % self.size + len > self.size {
            self.lap_after(self.head)
        } else {
            self.head
        };
        (start + len - self.tail <= self.size).then_some(start)
    }

    /// The start of the lap after the one that `position` is in.
    pub fn lap_after(&self, position: u64) -> u64 {
        (position / self.size + 1) * self.size
    }

    /// Bytes that are live.
    pub fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// More than half of it is live.
    pub fn is_filling(&self) -> bool {
        self.used() > self.size / 2
    }

    /// More than three quarters of it are live.
    pub fn is_nearly_full(&self) -> bool {
        self.used() > self.size / 4 * 3
    }

    /// The block of the ring at `position`.
    pub fn block(&self, position: u64) -> u32 {
        u32::try_from(position % self.size / BLOCK).expect("a log has fewer than 2^32 blocks")
    }

    /// The position of a block that lies in `[tail, tail + size)`.
    pub fn position(&self, block: u32) -> u64 {
        let offset = u64::from(block) * BLOCK;
        let position = self.tail / self.size * self.size + offset;
        if position < self.tail {
            position + self.size
        } else {
            position
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_skip_the_end_and_stop_at_the_tail() {
        let blocks = |n: u64| n * BLOCK;
        // (tail, head, length, expected place), in blocks of a ring of ten.
        let table = [
            (0, 0, 10, Some(0)),
            (0, 0, 11, None),
            (0, 8, 2, Some(8)),
            (0, 8, 3, None),
            (3, 8, 3, Some(10)),
            (3, 8, 4, None),
            (8, 8, 3, Some(10)),
            (12, 20, 2, Some(20)),
            (12, 20, 3, None),
        ];
        for (tail, head, len, expected) in table {
            let ring = Ring::new(blocks(10), blocks(tail), blocks(head));
            assert_eq!(ring.place(len), expected.map(blocks), "{tail} {head} {len}");
        }
    }

    #[test]
    fn blocks_and_positions_agree() {
        let ring = Ring::new(10 * BLOCK, 27 * BLOCK, 31 * BLOCK);
        for position in (27..37).map(|n| n * BLOCK) {
            assert_eq!(ring.position(ring.block(position)), position);
        }
    }
}
