//! Logical unit numbers as the eight bytes of SAM-5 clause 4.7.

/// Addresses below this use the peripheral device method, as old initiators expect.
const PERIPHERAL: u64 = 256;
/// Addresses below this fit the flat space method.
const FLAT: u64 = 1 << 14;

/// The number in an eight-byte LUN: single level, peripheral (bus 0) or flat. `None` for everything else.
#[must_use]
pub fn decode_lun(bytes: [u8; 8]) -> Option<u64> {
    if bytes[2..] != [0; 6] {
        return None;
    }
    match bytes[0] >> 6 {
        0 if bytes[0] == 0 => Some(u64::from(bytes[1])),
        1 => Some(u64::from(bytes[0] & 0x3F) << 8 | u64::from(bytes[1])),
        _ => None,
    }
}

/// The eight bytes of LUN `lun`; `None` if it is 2^14 or more.
#[must_use]
pub fn encode_lun(lun: u64) -> Option<[u8; 8]> {
    let short = u16::try_from(lun).ok().filter(|_| lun < FLAT)?;
    let short = if lun < PERIPHERAL { short } else { short | 0x4000 };
    let [high, low] = short.to_be_bytes();
    Some([high, low, 0, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luns_round_trip() {
        for lun in [0, 1, 255, 256, 16_383] {
            assert_eq!(encode_lun(lun).and_then(decode_lun), Some(lun));
        }
        assert_eq!(encode_lun(256), Some([0x41, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(encode_lun(16_384), None);
    }

    #[test]
    fn other_addressing_is_no_lun() {
        for first in [0x01, 0x80, 0xC1] {
            assert_eq!(decode_lun([first, 1, 0, 0, 0, 0, 0, 0]), None, "{first:#x}");
        }
        assert_eq!(decode_lun([0, 0, 0, 1, 0, 0, 0, 0]), None);
    }
}
