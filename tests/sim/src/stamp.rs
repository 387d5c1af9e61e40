//! What the workload writes: every sector says where it belongs and which write it is of, and proves it.
//!
//! A sector is 64 little-endian words: magic and writer, image, sector, sequence, 59 words that follow from
//! these, and a CRC-32C of all that. Reading it back tells a value, zeroes, or what kind of lie it is.

use bytes::Bytes;

use crate::random::mix;

/// The atom of the promise of consistency, bytes.
pub const SECTOR: usize = 512;
/// The first half of a stamped sector's first word.
const MAGIC: u32 = 0x5452_4956;
/// Where the checksum's word begins.
const CHECKED: usize = SECTOR - 8;

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The image.
    pub image: u64,
    /// Its place in the image, in sectors.
    pub sector: u64,
    /// Who wrote it.
    pub writer: u32,
    /// The write, unique in the run; never 0.
    pub sequence: u64,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// All zero: never written, or made zero.
    Zero,
    /// The data of the write with this sequence.
    Value(u64),
}

/// What no correct store returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// A whole sector that belongs elsewhere.
    #[error("data of image {image:x} sector {sector} (write {sequence})")]
    WrongPlace {
        /// The image that it was written to.
        image: u64,
        /// The sector that it was written to.
        sector: u64,
        /// The write.
        sequence: u64,
    },
    /// It begins like the data of this write and does not go on so.
    #[error("a torn sector that begins like write {sequence}")]
    Torn {
        /// The write.
        sequence: u64,
    },
    /// Neither zero nor anything that was ever written.
    #[error("garbage that begins with {start:016x}")]
    Garbage {
        /// The first eight bytes, as a little-endian number.
        start: u64,
    },
}

/// Fills one sector.
///
/// # Panics
/// When `out` is not one sector.
pub fn fill(out: &mut [u8], stamp: Stamp) {
    assert_eq!(out.len(), SECTOR, "stamps fill whole sectors");
    let (words, _) = out.as_chunks_mut::<8>();
    let first = u64::from(MAGIC) | u64::from(stamp.writer) << 32;
    let head = [first, stamp.image, stamp.sector, stamp.sequence];
    for (word, value) in words.iter_mut().zip(head) {
        *word = value.to_le_bytes();
    }
    let mut state = head.iter().fold(0, |state, &word| mix(state ^ word)) | 1;
    for word in &mut words[head.len()..CHECKED / 8] {
        state = state.wrapping_mul(0x9fb2_1c65_1e98_df25);
        state ^= state >> 29;
        *word = state.to_le_bytes();
    }
    let sum = u64::from(crc32c::crc32c(&out[..CHECKED]));
    // The upper half is not zero either: a cut at any byte shows.
    out[CHECKED..].copy_from_slice(&(sum | !sum << 32).to_le_bytes());
}

/// What this sector of this image holds.
///
/// # Errors
/// When it is not what some write put there.
pub fn parse(data: &[u8], image: u64, sector: u64) -> Result<Content, Lie> {
    let (words, rest) = data.as_chunks::<8>();
    let start = words.first().map_or(0, |word| u64::from_le_bytes(*word));
    if data.len() != SECTOR || !rest.is_empty() {
        return Err(Lie::Garbage { start });
    }
    let word = |index: usize| u64::from_le_bytes(words[index]);
    if start & u64::from(u32::MAX) != u64::from(MAGIC) {
        let zero = words.iter().all(|word| *word == [0; 8]);
        return if zero {
            Ok(Content::Zero)
        } else {
            Err(Lie::Garbage { start })
        };
    }
    let sequence = word(3);
    let sum = u64::from(crc32c::crc32c(&data[..CHECKED]));
    if word(CHECKED / 8) != sum | !sum << 32 {
        return Err(Lie::Torn { sequence });
    }
    if (word(1), word(2)) != (image, sector) {
        return Err(Lie::WrongPlace {
            image: word(1),
            sector: word(2),
            sequence,
        });
    }
    Ok(Content::Value(sequence))
}

/// What the sectors from `first` hold, as a read returned them; the segments may have any lengths.
///
/// # Errors
/// The sector that holds what no write put there, with what it is.
pub fn parse_all(segments: &[Bytes], image: u64, first: u64) -> Result<Vec<Content>, (u64, Lie)> {
    let bytes: usize = segments.iter().map(Bytes::len).sum();
    let mut contents = Vec::with_capacity(bytes.div_ceil(SECTOR));
    let mut split: Vec<u8> = Vec::new();
    for segment in segments {
        let mut data = &segment[..];
        while !data.is_empty() {
            let at = first + contents.len() as u64;
            let (part, rest) = data.split_at(data.len().min(SECTOR - split.len()));
            data = rest;
            let whole = if split.is_empty() && part.len() == SECTOR {
                part
            } else {
                split.extend_from_slice(part);
                &split
            };
            if whole.len() == SECTOR {
                contents.push(parse(whole, image, at).map_err(|lie| (at, lie))?);
                split.clear();
            }
        }
    }
    match split.is_empty() {
        true => Ok(contents),
        false => Err((first + contents.len() as u64, Lie::Garbage { start: 0 })),
    }
}
