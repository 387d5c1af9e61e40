//! Where things lie on the disk. A pure function of the disk's size and the log's size.

use trivet_core::{OBJECT_SIZE, UNIT_SIZE};

/// The block that everything is a multiple of, bytes.
pub const BLOCK: u64 = UNIT_SIZE as u64;
/// The same as a length in memory.
pub const BLOCK_LEN: usize = UNIT_SIZE;
/// One data slot, bytes.
pub const SLOT: u64 = OBJECT_SIZE as u64;
/// Two superblocks of one block each lie at the start.
pub const SUPERBLOCKS: u64 = 2;
/// Header blocks at the start of each checkpoint area; they are written in turn.
pub const AREA_HEADERS: u64 = 2;
/// Largest batch of the log, blocks: 4 MiB of payload and its header.
pub const MAX_BATCH: u64 = 1024 + 64;
/// One write request always fits into this many blocks, header included.
pub const MAX_SINGLE: u64 = 34;
/// Below this the log might not take a largest write after a skip at its end, blocks.
const MIN_LOG: u64 = 2 * MAX_SINGLE;
/// Bounds of the log's default size, bytes.
const DEFAULT_LOG: (u64, u64) = (32 << 20, 1 << 30);
/// Bytes of an object in a checkpoint without its operations and sums.
const ENTRY: u64 = 48;
/// Remembered operations per object that there is room for in a checkpoint, on average, and bytes of one.
const OPS: (u64, u64) = (8, 16);
/// Bytes of an accepted epoch in a checkpoint, rounded up.
const EPOCH: u64 = 32;
/// Fewest slots that a store is made with.
const MIN_SLOTS: u64 = 4;

/// The places of one store. All in bytes from the start of the disk, multiples of [`BLOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the disk that are used.
    pub size: u64,
    /// The first checkpoint area; the second follows.
    pub areas: u64,
    /// Bytes of one checkpoint area, headers included.
    pub area_size: u64,
    /// The log ring.
    pub log: u64,
    /// Bytes of the log ring.
    pub log_size: u64,
    /// The first data slot.
    pub data: u64,
    /// How many data slots.
    pub slots: u32,
}

impl Layout {
    /// The layout of a disk of `size` bytes with a log of `log_size` bytes (`None`: the default).
    ///
    /// # Errors
    /// When the disk is too small or too large, or the log too large.
    pub fn new(size: u64, log_size: Option<u64>) -> Result<Layout, String> {
        let size = size / BLOCK * BLOCK;
        if size > 1 << 56 {
            return Err(format!("a disk of {size} bytes is larger than is supported"));
        }
        let default = (size / 16).clamp(DEFAULT_LOG.0, DEFAULT_LOG.1);
        let log_size = log_size
            .unwrap_or(default)
            .div_ceil(BLOCK)
            .max(MIN_LOG)
            .saturating_mul(BLOCK);
        let most = size.saturating_sub(log_size) / SLOT;
        let area_size = area_size(most, log_size / BLOCK);
        let areas = SUPERBLOCKS * BLOCK;
        let log = areas + 2 * area_size;
        let data = log.saturating_add(log_size).div_ceil(SLOT).saturating_mul(SLOT);
        let slots = size.saturating_sub(data) / SLOT;
        if slots < MIN_SLOTS {
            return Err(format!(
                "a disk of {size} bytes is too small for a log of {log_size} bytes"
            ));
        }
        let slots = u32::try_from(slots).ok().filter(|&n| n < u32::MAX / 4);
        let slots = slots.ok_or_else(|| format!("a disk of {size} bytes has too many slots"))?;
        Ok(Layout {
            size,
            areas,
            area_size,
            log,
            log_size,
            data,
            slots,
        })
    }

    /// Where checkpoint area `area` (0 or 1) starts.
    pub fn area(&self, area: usize) -> u64 {
        self.areas + area as u64 * self.area_size
    }

    /// Where unit `unit` of `slot` lies.
    pub fn unit(&self, slot: u32, unit: usize) -> u64 {
        self.data + u64::from(slot) * SLOT + unit as u64 * BLOCK
    }

    /// Where block `block` of the log lies.
    pub fn log_block(&self, block: u32) -> u64 {
        self.log + u64::from(block) * BLOCK
    }

    /// Blocks of the log ring.
    pub fn log_blocks(&self) -> u64 {
        self.log_size / BLOCK
    }

    /// The largest batch, blocks: a quarter of the ring, but always one largest write.
    pub fn max_batch(&self) -> u64 {
        (self.log_blocks() / 4).clamp(MAX_SINGLE, MAX_BATCH)
    }

    /// How many objects, tombstones included, the store remembers at most.
    pub fn max_entries(&self) -> usize {
        max_entries(u64::from(self.slots)).try_into().unwrap_or(usize::MAX)
    }

    /// How many operations all objects together remember at most.
    pub fn max_ops(&self) -> usize {
        self.max_entries().saturating_mul(usize::try_from(OPS.0).expect("few"))
    }

    /// How many PGs' epochs the store remembers at most.
    pub fn max_epochs(&self) -> usize {
        max_epochs(u64::from(self.slots)).try_into().unwrap_or(usize::MAX)
    }
}

fn max_entries(slots: u64) -> u64 {
    2 * slots + 1024
}

fn max_epochs(slots: u64) -> u64 {
    (slots / 4).clamp(1024, 65_536)
}

/// A checkpoint of the fullest index always fits: entries, operations, sums, log references, epochs, one in sixteen for
/// chunk headers, their padding and the mark.
fn area_size(slots: u64, log_blocks: u64) -> u64 {
    let sums = slots * (OBJECT_SIZE / UNIT_SIZE * 4) as u64;
    let bytes = max_entries(slots) * (ENTRY + OPS.0 * OPS.1) + sums + log_blocks * 4 + max_epochs(slots) * EPOCH;
    (bytes + bytes / 16).div_ceil(BLOCK) * BLOCK + (AREA_HEADERS + 16) * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap() {
        let sizes = [4 << 20, 64 << 20, 1 << 30, 1 << 40, 100 << 40];
        for (size, log) in sizes.into_iter().flat_map(|s| [(s, Some(256 << 10)), (s, None)]) {
            let Ok(layout) = Layout::new(size, log) else {
                assert!(size < 128 << 20, "{size} {log:?}");
                continue;
            };
            assert!(layout.areas >= SUPERBLOCKS * BLOCK);
            assert_eq!(layout.area(1) + layout.area_size, layout.log);
            assert!(layout.log + layout.log_size <= layout.data);
            assert!(layout.unit(layout.slots, 0) <= size && layout.data % SLOT == 0);
            assert!(2 * layout.max_batch() <= layout.log_blocks() && layout.max_batch() >= MAX_SINGLE);
        }
    }

    #[test]
    fn little_is_lost_to_metadata() {
        let layout = Layout::new(1 << 40, None).unwrap();
        assert!(u64::from(layout.slots) * SLOT > (1 << 40) / 100 * 99);
        assert_eq!(layout.log_size, 1 << 30);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (size, log) in [
            (0, None),
            (1 << 20, None),
            (1 << 60, None),
            (1 << 30, Some(1 << 31)),
            (1 << 30, Some(u64::MAX)),
        ] {
            assert!(Layout::new(size, log).is_err(), "{size} {log:?}");
        }
    }
}
