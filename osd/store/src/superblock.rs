//! The superblock: what this disk is, twice at its start. Written once, when the disk is formatted.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trivet_core::OsdId;
use trivet_core::buffer::{aligned, zeroes};
use trivet_core::disk::{DiskOp, DiskOpKind, IoId};

use crate::layout::{AREA_HEADERS, BLOCK, BLOCK_LEN, Layout};

/// The first bytes of the disk.
const MAGIC: [u8; 8] = *b"TRIVETOS";
/// The only format version that is understood.
const VERSION: u32 = 2;
/// Bytes before the checksum.
const CHECKED: usize = 8 + 4 + 4 + 16 + 16 + 8 + 8;

/// How to make a new store.
#[derive(Clone, Debug)]
pub struct Format {
    /// Bytes of the disk.
    pub size: u64,
    /// The OSD's number.
    pub osd: OsdId,
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// Random and secret: user data that does not know it cannot look like metadata.
    pub store: [u8; 16],
    /// Bytes of the log; `None`: a sixteenth of the disk, 32 MiB to 1 GiB.
    pub log_size: Option<u64>,
}

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// The OSD's number.
    pub osd: OsdId,
    /// The store's secret.
    pub store: [u8; 16],
    /// Where everything lies.
    pub layout: Layout,
}

/// Where the data slots start: what lies before is written over and over, and worth allocating at once.
///
/// # Errors
/// As [`format`].
pub fn data_start(format: &Format) -> Result<u64, String> {
    Layout::new(format.size, format.log_size).map(|layout| layout.data)
}

/// Where the parts of a store lie, bytes of the disk: for tests that damage one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    /// The two copies of the superblock.
    pub superblocks: [Range<u64>; 2],
    /// Both checkpoint areas.
    pub checkpoint: Range<u64>,
    /// The log.
    pub log: Range<u64>,
    /// The data slots.
    pub data: Range<u64>,
}

/// The parts of the store that `format` makes.
///
/// # Errors
/// As [`format`].
pub fn regions(format: &Format) -> Result<Regions, String> {
    let layout = Layout::new(format.size, format.log_size)?;
    Ok(Regions {
        superblocks: [0..BLOCK, BLOCK..2 * BLOCK],
        checkpoint: layout.areas..layout.log,
        log: layout.log..layout.log + layout.log_size,
        data: layout.data..layout.unit(layout.slots, 0),
    })
}

/// The writes that make an empty store, to be executed in order, each completed before the next: nothing is
/// recognised as a store before the last write, and a flush ends them.
///
/// # Errors
/// When the disk is too small or too large.
pub fn format(f: &Format) -> Result<Vec<DiskOp>, String> {
    let layout = Layout::new(f.size, f.log_size)?;
    let superblock = Superblock {
        cluster: f.cluster,
        osd: f.osd,
        store: f.store,
        layout,
    };
    let block = superblock.encode();
    let headers = zeroes(usize::try_from(AREA_HEADERS * BLOCK).expect("two blocks"));
    let writes = [
        (layout.area(0), headers.clone()),
        (layout.area(1), headers),
        (layout.log, zeroes(block.len())),
        (BLOCK, block.clone()),
        (0, block),
    ];
    let writes = writes.map(|(offset, data)| DiskOpKind::Write { offset, data });
    let kinds = writes.into_iter().chain([DiskOpKind::Flush]);
    Ok((1..)
        .zip(kinds)
        .map(|(id, kind)| DiskOp { id: IoId(id), kind })
        .collect())
}

/// Bytes at the start of a disk that [`identify`] looks at.
pub const IDENTITY: usize = 2 * BLOCK_LEN;

/// What store is on a disk of `size` bytes that starts like this.
///
/// # Errors
/// Says why it is none.
pub fn identify(start: &[u8], size: u64) -> Result<Format, String> {
    let copies = start.chunks_exact(BLOCK_LEN).take(2);
    let decoded: Vec<_> = copies.map(|copy| Superblock::decode(copy, size)).collect();
    let first = decoded
        .first()
        .cloned()
        .unwrap_or_else(|| Err("not a Trivet store".into()));
    let superblock = decoded.into_iter().find(Result::is_ok).unwrap_or(first)?;
    Ok(Format {
        size: superblock.layout.size,
        osd: superblock.osd,
        cluster: superblock.cluster,
        store: superblock.store,
        log_size: Some(superblock.layout.log_size),
    })
}

impl Superblock {
    /// The block that is written twice.
    pub fn encode(&self) -> Bytes {
        let mut block = aligned(BLOCK_LEN);
        block.put_slice(&MAGIC);
        block.put_u32_le(VERSION);
        block.put_u32_le(self.osd.0);
        block.put_slice(&self.cluster);
        block.put_slice(&self.store);
        block.put_u64_le(self.layout.size);
        block.put_u64_le(self.layout.log_size);
        seal(block)
    }

    /// Decodes one copy found on a disk of `size` bytes.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(mut block: &[u8], size: u64) -> Result<Superblock, String> {
        if block.len() < CHECKED + 4 || block[..8] != MAGIC {
            return Err("not a Trivet store".into());
        }
        let padded = block[CHECKED + 4..].iter().all(|&byte| byte == 0);
        if !padded || crc32c::crc32c(&block[..CHECKED]) != (&block[CHECKED..]).get_u32_le() {
            return Err("the superblock is damaged".into());
        }
        block.advance(8);
        let version = block.get_u32_le();
        if version != VERSION {
            return Err(format!("format version {version} is not supported"));
        }
        let osd = OsdId(block.get_u32_le());
        let (mut cluster, mut store) = ([0; 16], [0; 16]);
        block.copy_to_slice(&mut cluster);
        block.copy_to_slice(&mut store);
        let (formatted, log_size) = (block.get_u64_le(), block.get_u64_le());
        if formatted > size {
            return Err(format!("formatted for {formatted} bytes but the disk has {size}"));
        }
        let layout = Layout::new(formatted, Some(log_size))?;
        if (layout.size, layout.log_size) != (formatted, log_size) {
            return Err("the superblock contradicts itself".into());
        }
        Ok(Superblock {
            cluster,
            osd,
            store,
            layout,
        })
    }
}

fn seal(mut block: BytesMut) -> Bytes {
    let sum = crc32c::crc32c(&block);
    block.put_u32_le(sum);
    block.resize(BLOCK_LEN, 0);
    block.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_each_other_and_lie_on_the_disk() {
        for (size, log_size) in [(64 << 20, Some(1 << 20)), (1 << 30, None)] {
            let format = Format {
                size,
                log_size,
                ..sample()
            };
            let Regions {
                superblocks: [first, second],
                checkpoint,
                log,
                data,
            } = regions(&format).unwrap();
            assert_eq!(
                (first.start, first.end, second.end),
                (0, second.start, checkpoint.start)
            );
            assert_eq!(checkpoint.end, log.start);
            assert!(log.end <= data.start && data.start < data.end && data.end <= size);
            assert!(log.end - log.start >= log_size.unwrap_or(32 << 20));
        }
        let small = Format {
            size: 1 << 20,
            ..sample()
        };
        assert!(regions(&small).is_err());
    }

    #[test]
    fn a_disk_is_identified_by_either_copy() {
        let format = sample();
        let mut start = vec![0; IDENTITY];
        assert_eq!(identify(&start, format.size).unwrap_err(), "not a Trivet store");
        assert!(identify(&[], format.size).is_err());
        for op in super::format(&format).unwrap() {
            if let DiskOpKind::Write { offset, data } = op.kind
                && offset < IDENTITY as u64
            {
                let at = usize::try_from(offset).unwrap();
                start[at..at + data.len()].copy_from_slice(&data);
            }
        }
        for damaged in [None, Some(20), Some(BLOCK_LEN + 20)] {
            let mut start = start.clone();
            damaged.into_iter().for_each(|at| start[at] ^= 1);
            let found = identify(&start, format.size).unwrap();
            assert_eq!(
                (found.osd, found.store, found.size),
                (format.osd, format.store, format.size)
            );
        }
        start[20] ^= 1;
        start[BLOCK_LEN + 20] ^= 1;
        assert_eq!(identify(&start, format.size).unwrap_err(), "the superblock is damaged");
        assert!(identify(&start[..100], format.size).is_err());
    }

    fn sample() -> Format {
        Format {
            size: 1 << 28,
            osd: OsdId(7),
            cluster: [1; 16],
            store: [2; 16],
            log_size: None,
        }
    }

    #[test]
    fn it_survives_the_disk_and_notices_every_flipped_bit() {
        let layout = Layout::new(1 << 28, None).unwrap();
        let superblock = Superblock {
            cluster: [1; 16],
            osd: OsdId(7),
            store: [2; 16],
            layout,
        };
        let block = superblock.encode();
        assert_eq!(Superblock::decode(&block, 1 << 28), Ok(superblock.clone()));
        assert_eq!(Superblock::decode(&block, 1 << 40), Ok(superblock));
        assert!(Superblock::decode(&block, 1 << 27).is_err());
        for bit in 0..block.len() * 8 {
            let mut bad = block.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad, 1 << 40).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn formatting_is_small_and_ends_with_a_flush() {
        let ops = format(&sample()).unwrap();
        assert!(matches!(ops.last().unwrap().kind, DiskOpKind::Flush));
        let written: usize = ops
            .iter()
            .map(|op| {
                if let DiskOpKind::Write { data, .. } = &op.kind {
                    data.len()
                } else {
                    0
                }
            })
            .sum();
        assert!(written <= 64 << 10);
        assert!(
            format(&Format {
                size: 1 << 20,
                ..sample()
            })
            .is_err()
        );
    }
}
