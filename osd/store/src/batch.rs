//! The header of a batch: the unit of commit in the log.
//!
//! A batch is header blocks, filled with a prefix and the records, then payload blocks, one per unit that
//! the records keep in the batch, in their order. The prefix has a checksum of its own, so that a single
//! sector tells whether a batch was ever written here; the header checksum covers all header blocks.

use bytes::{Buf, BufMut, BytesMut};

use crate::layout::{BLOCK, BLOCK_LEN, MAX_BATCH};
use crate::record::{self, Record};

const MAGIC: [u8; 8] = *b"TRVBATCH";
/// Bytes of the prefix before its own checksum.
const CHECKED: usize = 8 + 16 + 8 + 8 + 8 + 4 + 4 + 4 + 4;
/// Bytes of the prefix: it ends with the header's checksum.
pub const PREFIX_LEN: usize = CHECKED + 4 + 4;

/// What a batch says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Counts the batches of this store from 1.
    pub sequence: u64,
    /// Counts the openings of this store.
    pub incarnation: u64,
    /// Where in the log it was written; see [`crate::ring`].
    pub position: u64,
    /// Blocks of header and payload.
    pub blocks: u32,
    /// Blocks of the header.
    pub header_blocks: u32,
    /// How many records.
    pub records: u32,
    /// Bytes of all records.
    pub records_len: u32,
}

/// Header blocks of a batch with that many bytes of records.
pub fn header_blocks(records_len: usize) -> u64 {
    ((PREFIX_LEN + records_len) as u64).div_ceil(BLOCK)
}

impl Prefix {
    /// Writes the prefix; [`seal`] completes it when the header is filled.
    pub fn put(&self, store: &[u8; 16], out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(&MAGIC);
        out.put_slice(store);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.position);
        out.put_u32_le(self.blocks);
        out.put_u32_le(self.header_blocks);
        out.put_u32_le(self.records);
        out.put_u32_le(self.records_len);
        let sum = crc32c::crc32c(&out[start..]);
        out.put_u32_le(sum);
        out.put_u32_le(0);
    }

    /// Reads a prefix of this store; `None` if there is none.
    pub fn get(block: &[u8], store: &[u8; 16]) -> Option<Prefix> {
        if block.len() < PREFIX_LEN || block[..8] != MAGIC || block[8..24] != store[..] {
            return None;
        }
        if crc32c::crc32c(&block[..CHECKED]) != (&block[CHECKED..]).get_u32_le() {
            return None;
        }
        let mut data = &block[24..];
        let prefix = Prefix {
            sequence: data.get_u64_le(),
            incarnation: data.get_u64_le(),
            position: data.get_u64_le(),
            blocks: data.get_u32_le(),
            header_blocks: data.get_u32_le(),
            records: data.get_u32_le(),
            records_len: data.get_u32_le(),
        };
        prefix.is_sane().then_some(prefix)
    }

    fn is_sane(&self) -> bool {
        let header = header_blocks(self.records_len as usize) == u64::from(self.header_blocks);
        let counters = self.incarnation < u64::MAX / 4 && self.sequence < u64::MAX / 4;
        counters && header && self.header_blocks <= self.blocks && u64::from(self.blocks) <= MAX_BATCH
    }

    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        self.header_blocks as usize * BLOCK_LEN
    }

    /// Where the next batch goes unless it has to skip.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(u64::from(self.blocks) * BLOCK)
    }
}

/// Puts the checksum of the whole header, padded to blocks, into its prefix.
pub fn seal(header: &mut [u8]) {
    let sum = header_sum(header);
    header[CHECKED + 4..PREFIX_LEN].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum of a header in which its own place counts as zero.
fn header_sum(header: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&header[..CHECKED + 4]);
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &[0; 4]), &header[PREFIX_LEN..])
}

/// Whether a header of `prefix.header_len()` bytes is as it was written.
pub fn is_whole(header: &[u8]) -> bool {
    header_sum(header) == (&header[CHECKED + 4..]).get_u32_le()
}

/// The records of a header; `None` if they contradict the prefix.
pub fn records(prefix: &Prefix, header: &[u8]) -> Option<Vec<Record>> {
    let mut data = header.get(PREFIX_LEN..PREFIX_LEN + prefix.records_len as usize)?;
    let mut records = Vec::new();
    while !data.is_empty() {
        records.push(record::get(&mut data)?);
    }
    let payload: u64 = records.iter().map(payload_units).sum();
    let agrees = records.len() == prefix.records as usize && payload == u64::from(prefix.blocks - prefix.header_blocks);
    agrees.then_some(records)
}

fn payload_units(record: &Record) -> u64 {
    match record {
        Record::Write(_, _, patches) => patches.iter().filter(|p| !p.in_slot).map(|p| p.sums.len() as u64).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{Epoch, PgId};

    const STORE: [u8; 16] = [9; 16];

    fn sample() -> (Prefix, BytesMut) {
        let records_len = u32::try_from(record::epoch_len() * 300).unwrap();
        let prefix = Prefix {
            sequence: 3,
            incarnation: 2,
            position: 8192,
            blocks: 2,
            header_blocks: 2,
            records: 300,
            records_len,
        };
        let mut header = BytesMut::new();
        prefix.put(&STORE, &mut header);
        (0..300).for_each(|_| record::put_accept(&mut header, PgId::default(), Epoch(1)));
        header.resize(prefix.header_len(), 0);
        seal(&mut header);
        (prefix, header)
    }

    #[test]
    fn headers_round_trip() {
        let (prefix, header) = sample();
        assert_eq!(Prefix::get(&header, &STORE), Some(prefix));
        assert!(is_whole(&header));
        assert_eq!(records(&prefix, &header).unwrap().len(), 300);
        assert_eq!(Prefix::get(&header, &[8; 16]), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_, header) = sample();
        for bit in 0..header.len() * 8 {
            let mut bad = header.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Prefix::get(&bad, &STORE).is_none() || !is_whole(&bad), "bit {bit}");
        }
    }

    #[test]
    fn records_that_contradict_the_prefix_are_refused() {
        let (prefix, header) = sample();
        assert!(records(&Prefix { records: 299, ..prefix }, &header).is_none());
        assert!(records(&Prefix { blocks: 3, ..prefix }, &header).is_none());
    }
}
