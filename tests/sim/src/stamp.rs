//! What the workload writes: every sector says where it belongs and which write it is of, and proves it.
//!
//! A sector is 64 little-endian words: magic and writer, image, sector, sequence, 59 words that follow from
//! these, and a CRC-32C of all that. Reading it back tells a value, zeroes, or what kind of lie it is.

use bytes::Bytes;
use trivet_core::buffer::is_zero;

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
    let seed = head.iter().fold(0, |seed, &word| mix(seed ^ word));
    for (at, word) in (1..).zip(&mut words[head.len()..CHECKED / 8]) {
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at));
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9fb2_1c65_1e98_df25);
        *word = (mixed ^ (mixed >> 29)).to_le_bytes();
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
        return if is_zero(data) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        image: 0x1_0000_0000_0007,
        sector: 99,
        writer: 3,
        sequence: 12_345,
    };

    fn sector(stamp: Stamp) -> Vec<u8> {
        let mut data = vec![0; SECTOR];
        fill(&mut data, stamp);
        data
    }

    #[test]
    fn what_was_written_is_recognised_and_nothing_else() {
        let (image, at) = (STAMP.image, STAMP.sector);
        let good = sector(STAMP);
        assert_eq!(parse(&good, image, at), Ok(Content::Value(12_345)));
        assert_eq!(parse(&[0; SECTOR], image, at), Ok(Content::Zero));
        for (other_image, other_sector) in [(image + 1, at), (image, at + 1)] {
            let lie = parse(&good, other_image, other_sector);
            let sequence = 12_345;
            assert_eq!(
                lie,
                Err(Lie::WrongPlace {
                    image,
                    sector: at,
                    sequence
                })
            );
        }
        assert!(matches!(parse(&[7; SECTOR], image, at), Err(Lie::Garbage { .. })));
        assert!(matches!(parse(&good[..500], image, at), Err(Lie::Garbage { .. })));
        assert!(matches!(parse(&[], image, at), Err(Lie::Garbage { start: 0 })));
    }

    #[test]
    fn every_flipped_bit_shows() {
        let good = sector(STAMP);
        let mut zero = vec![0; SECTOR];
        for bit in 0..SECTOR * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, STAMP.image, STAMP.sector).is_err(), "bit {bit}");
            zero[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&zero, STAMP.image, STAMP.sector).is_err(), "bit {bit} of zeroes");
            zero[bit / 8] = 0;
        }
    }

    #[test]
    fn every_mixture_of_two_versions_shows() {
        let sequence = STAMP.sequence + 1;
        for old in [sector(Stamp { sequence, ..STAMP }), vec![0; SECTOR]] {
            for cut in 1..SECTOR {
                for (head, tail) in [(sector(STAMP), &old), (old.clone(), &sector(STAMP))] {
                    let mixed = [&head[..cut], &tail[cut..]].concat();
                    let same = mixed == head || mixed == *tail;
                    let found = parse(&mixed, STAMP.image, STAMP.sector);
                    assert_eq!(found.is_ok(), same, "cut at {cut}: {found:?}");
                }
            }
        }
        let torn = [&sector(STAMP)[..256], &[0; 256]].concat();
        assert_eq!(
            parse(&torn, STAMP.image, STAMP.sector),
            Err(Lie::Torn { sequence: 12_345 })
        );
    }

    #[test]
    fn segments_may_be_cut_anywhere() {
        let mut data: Vec<u8> = Vec::new();
        for at in 0..4 {
            let sequence = at + 1;
            data.extend(sector(Stamp {
                sector: at,
                sequence,
                ..STAMP
            }));
        }
        data[2 * SECTOR..3 * SECTOR].fill(0);
        let expected = [Content::Value(1), Content::Value(2), Content::Zero, Content::Value(4)];
        for cuts in [[0, 0], [1, 2], [100, 700], [512, 1024], [511, 513], [2048, 2048]] {
            let parts = [&data[..cuts[0]], &data[cuts[0]..cuts[1]], &data[cuts[1]..]];
            let segments = parts.map(Bytes::copy_from_slice);
            assert_eq!(parse_all(&segments, STAMP.image, 0).unwrap(), expected, "{cuts:?}");
            let shifted = parse_all(&segments, STAMP.image, 1).unwrap_err();
            assert!(matches!(shifted, (1, Lie::WrongPlace { sector: 0, .. })), "{cuts:?}");
        }
        let short = Bytes::copy_from_slice(&data[..1000]);
        assert!(matches!(
            parse_all(&[short], STAMP.image, 0),
            Err((1, Lie::Garbage { .. }))
        ));
    }
}
