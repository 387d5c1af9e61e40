//! Where a store keeps what on its disk, so that faults can be aimed.

use std::ops::Range;

use trivet_core::disk::DiskOpKind;
use trivet_store::{Format, data_start, format};

use super::BLOCK;

/// The parts of a formatted disk, bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    /// The two copies of the superblock.
    pub superblocks: Range<u64>,
    /// The two checkpoint areas.
    pub checkpoints: [Range<u64>; 2],
    /// The log, and the little that is unused behind it.
    pub log: Range<u64>,
    /// The slots of the objects.
    pub data: Range<u64>,
}

impl Regions {
    /// The regions of a disk that is formatted like this. What formatting writes tells where they begin.
    ///
    /// # Errors
    /// As [`format`].
    pub fn of(how: &Format) -> Result<Regions, String> {
        let data = data_start(how)?;
        let mut starts: Vec<u64> = format(how)?
            .iter()
            .filter_map(|op| match op.kind {
                DiskOpKind::Write { offset, .. } if offset > BLOCK => Some(offset),
                _ => None,
            })
            .collect();
        starts.sort_unstable();
        let [first, second, log] = starts[..] else {
            return Err(format!("formatting writes to {} places", starts.len()));
        };
        Ok(Regions {
            superblocks: 0..2 * BLOCK,
            checkpoints: [first..second, second..log],
            log: log..data,
            data: data..how.size,
        })
    }
}
