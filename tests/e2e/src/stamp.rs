//! Sectors that say what they are: each of the 512 bytes follows from the
//! sector's number and the sequence number of the write, so that a lost,
//! misplaced, torn or invented sector is told from a right one.

use crate::rng::mix;

/// The unit of atomicity that is promised (bytes).
pub const SECTOR: usize = 512;

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Only zeroes: never written, or trimmed.
    Empty,
    /// Whole, as the write with this sequence number put it.
    Stamp(u64),
    /// A stamp of another place, parts of two stamps, or no stamp at all.
    Wrong,
}

/// Fills `sector` with the stamp of sector number `number` and write `sequence`.
pub fn stamp(sector: &mut [u8], number: u64, sequence: u64) {
    let words = sector.chunks_exact_mut(8);
    for (at, word) in (0u64..).zip(words) {
        word.copy_from_slice(&word_of(number, sequence, at).to_le_bytes());
    }
}

/// The first word is the sequence number in clear; the others depend on all.
fn word_of(number: u64, sequence: u64, at: u64) -> u64 {
    if at == 0 {
        sequence
    } else {
        mix(mix(number ^ (sequence << 20)) ^ at)
    }
}

/// Judges sector number `number`.
#[must_use]
pub fn read(sector: &[u8], number: u64) -> Found {
    if sector.iter().all(|byte| *byte == 0) {
        return Found::Empty;
    }
    let Some(first) = sector.first_chunk::<8>() else {
        return Found::Wrong;
    };
    let sequence = u64::from_le_bytes(*first);
    let mut right = [0; SECTOR];
    stamp(&mut right, number, sequence);
    if sector == right {
        Found::Stamp(sequence)
    } else {
        Found::Wrong
    }
}

/// A write's data: stamps for `count` sectors from `first` on.
#[must_use]
pub fn run(first: u64, count: u64, sequence: u64) -> Vec<u8> {
    let mut data = vec![0; usize::try_from(count).expect("a short run") * SECTOR];
    for (number, sector) in (first..).zip(data.chunks_exact_mut(SECTOR)) {
        stamp(sector, number, sequence);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::{Found, SECTOR, read, run};

    #[test]
    fn tells_right_from_wrong() {
        let data = run(7, 2, 42);
        assert_eq!(read(&data[..SECTOR], 7), Found::Stamp(42));
        assert_eq!(read(&data[SECTOR..], 8), Found::Stamp(42));
        assert_eq!(read(&[0; SECTOR], 7), Found::Empty);
        assert_eq!(read(&data[..SECTOR], 8), Found::Wrong, "misplaced");
        let torn = [&run(7, 1, 41)[..256], &data[256..SECTOR]].concat();
        assert_eq!(read(&torn, 7), Found::Wrong, "torn");
        for bit in [0, 100, SECTOR * 8 - 1] {
            let mut flipped = data[..SECTOR].to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped, 7), Found::Wrong, "bit {bit}");
        }
    }
}
