//! The parameter list of UNMAP (SBC-3 clause 5.28.2).

use std::ops::Range;

use crate::device::BackendOp;
use crate::{BLOCK, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, Sense, Unit};

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// The ranges to free, ascending, with what overlaps or adjoins made one: initiators cut what they free into many
/// descriptors. All are checked before any is returned. A list shorter than its header names nothing.
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
    let mut ranges = Vec::with_capacity(descriptors.len());
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
            ranges.push(lba..lba + blocks);
        }
    }
    if total > u64::from(MAX_UNMAP_BLOCKS) {
        return Err(Sense::invalid_list(8));
    }
    Ok(joined(ranges).into_iter().map(zero).collect())
}

fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
    ranges
}

fn zero(blocks: Range<u64>) -> BackendOp {
    let block = u64::from(BLOCK);
    BackendOp::Zero {
        offset: blocks.start * block,
        len: (blocks.end - blocks.start) * block,
        unmap: true,
    }
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
        type Blocks = &'static [(u64, u32)];
        let table: [(Blocks, Blocks); 5] = [
            (&[(8, 16), (3, 0), (100, 1)], &[(8, 16), (100, 1)]),
            (&[(0, 1), (1, 1), (2, 1), (4, 1)], &[(0, 3), (4, 1)]),
            (&[(9, 1), (5, 2), (7, 2)], &[(5, 5)]),
            (&[(0, 10), (2, 3), (4, 1), (9, 2)], &[(0, 11)]),
            (&[(5, 1), (5, 1)], &[(5, 1)]),
        ];
        for (descriptors, expected) in table {
            let expected: Vec<BackendOp> = expected
                .iter()
                .map(|&(lba, blocks)| zero(lba..lba + u64::from(blocks)))
                .collect();
            assert_eq!(ranges(&list(descriptors), &UNIT).unwrap(), expected);
        }
        let [op] = ranges(&list(&[(8, 16)]), &UNIT).unwrap().try_into().unwrap();
        let (offset, len) = (4096, 8192);
        assert_eq!(
            op,
            BackendOp::Zero {
                offset,
                len,
                unmap: true
            }
        );
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
