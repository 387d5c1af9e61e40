//! The parameter list of UNMAP (SBC-3 clause 5.28.2).

use crate::device::BackendOp;
use crate::{BLOCK, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, Sense, Unit};

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// The ranges to free. All are checked before any is returned. A list shorter than its header names nothing.
pub(crate) fn ranges(list: &[u8], unit: &Unit) -> Result<Vec<BackendOp>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if list.len() < HEADER {
        return Err(Sense::LIST_LENGTH);
    }
    let said = usize::from(u16::from_be_bytes([list[2], list[3]]));
    let room = &list[HEADER..];
    let descriptors = room[..said.min(room.len())].chunks_exact(DESCRIPTOR);
    if descriptors.len() > MAX_UNMAP_DESCRIPTORS as usize {
        return Err(Sense::invalid_list(2));
    }
    let mut out = Vec::with_capacity(descriptors.len());
    let mut total = 0u64;
    for bytes in descriptors {
        let (lba, rest) = bytes.split_first_chunk::<8>().ok_or(Sense::LIST_LENGTH)?;
        let lba = u64::from_be_bytes(*lba);
        let blocks = u64::from(u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]));
        if lba.checked_add(blocks).is_none_or(|end| end > unit.blocks()) {
            return Err(Sense::OUT_OF_RANGE);
        }
        total += blocks;
        if blocks > 0 {
            let block = u64::from(BLOCK);
            out.push(BackendOp::Zero {
                offset: lba * block,
                len: blocks * block,
                unmap: true,
            });
        }
    }
    if total > u64::from(MAX_UNMAP_BLOCKS) {
        return Err(Sense::invalid_list(8));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit = Unit {
        image: 1,
        cluster: 1,
        size: 1 << 30,
        read_only: false,
    };

    fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
        let data = u16::try_from(ranges.len() * DESCRIPTOR).unwrap();
        let mut out = Vec::new();
        out.extend_from_slice(&(data + 6).to_be_bytes());
        out.extend_from_slice(&data.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        for (lba, blocks) in ranges {
            out.extend_from_slice(&lba.to_be_bytes());
            out.extend_from_slice(&blocks.to_be_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        out
    }

    #[test]
    fn ranges_become_operations() {
        let ops = ranges(&list(&[(8, 16), (3, 0), (100, 1)]), &UNIT).unwrap();
        let zero = |offset, len| BackendOp::Zero {
            offset,
            len,
            unmap: true,
        };
        assert_eq!(ops, [zero(4096, 8192), zero(51_200, 512)]);
    }

    #[test]
    fn wrong_lists() {
        let last = UNIT.blocks();
        for (bytes, want) in [
            (vec![0; 7], Sense::LIST_LENGTH),
            (list(&[(last, 1)]), Sense::OUT_OF_RANGE),
            (list(&[(u64::MAX, 2)]), Sense::OUT_OF_RANGE),
            (list(&[(0, MAX_UNMAP_BLOCKS), (0, 1)]), Sense::invalid_list(8)),
            (list(&[(0, 1); 257]), Sense::invalid_list(2)),
        ] {
            assert_eq!(ranges(&bytes, &UNIT), Err(want));
        }
    }

    #[test]
    fn lengths_that_disagree_take_the_shorter() {
        let mut bytes = list(&[(0, 1), (8, 1)]);
        bytes[3] = 16;
        assert_eq!(ranges(&bytes, &UNIT).unwrap().len(), 1);
        bytes[2..4].copy_from_slice(&[0xFF, 0xFF]);
        assert_eq!(
            ranges(&bytes[..30], &UNIT).unwrap().len(),
            1,
            "a cut descriptor is not read"
        );
        assert_eq!(ranges(&[], &UNIT), Ok(Vec::new()));
    }
}
