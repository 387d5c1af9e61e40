//! Mode parameters (SPC-4 clause 7.5, SBC-3 clause 6.5): the caching, control and informational exceptions pages.
//!
//! Nothing is changeable. MODE SELECT takes a list that sets everything to what it is, as some hosts do, and refuses others.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{BLOCK, Sense, Unit};

/// Caching: WCE 0, for a write is durable when it is answered.
const CACHING: [u8; 20] = [0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Control: GLTSD; unrestricted reordering (QUEUE ALGORITHM MODIFIER 1), fixed format sense.
const CONTROL: [u8; 12] = [0x0A, 0x0A, 0x02, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
/// Informational exceptions control: no reports.
const EXCEPTIONS: [u8; 12] = [0x1C, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// In the order of MODE SENSE's page 3F.
const PAGES: [&[u8]; 3] = [&CACHING, &CONTROL, &EXCEPTIONS];
/// All pages; also all subpages.
const ALL: u8 = 0x3F;

/// The fields of MODE SENSE 6 and 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// MODE SENSE (10): long header.
    pub ten: bool,
    /// Disable block descriptors.
    pub dbd: bool,
    /// Long LBA accepted.
    pub llbaa: bool,
    /// Page control: 0 current, 1 changeable, 2 default, 3 saved.
    pub control: u8,
    /// The page code.
    pub page: u8,
    /// The subpage code.
    pub subpage: u8,
    /// Allocation length.
    pub allocation: u32,
}

/// The data of MODE SENSE, not yet cut to the allocation length.
pub(crate) fn sense(query: &ModeSense, unit: &Unit) -> Result<Bytes, Sense> {
    if query.control == 3 {
        return Err(Sense::NO_SAVING);
    }
    if query.subpage != 0 && query.subpage != 0xFF {
        return Err(Sense::invalid_cdb(3));
    }
    let mut out = BytesMut::with_capacity(80);
    header(query, unit, &mut out);
    let before = out.len();
    for page in PAGES.iter().filter(|page| query.page == ALL || query.page == page[0]) {
        out.put_slice(&page[..2]);
        if query.control == 1 {
            out.put_bytes(0, page.len() - 2);
        } else {
            out.put_slice(&page[2..]);
        }
    }
    if out.len() == before {
        return Err(Sense::invalid_cdb(2));
    }
    if query.ten {
        let length = u16::try_from(out.len() - 2).expect("under 100 bytes");
        out[..2].copy_from_slice(&length.to_be_bytes());
    } else {
        out[0] = u8::try_from(out.len() - 1).expect("under 100 bytes");
    }
    Ok(out.freeze())
}

/// The header with a length of zero, and the block descriptor.
fn header(query: &ModeSense, unit: &Unit, out: &mut BytesMut) {
    let device = 0x10 | if unit.read_only { 0x80 } else { 0 }; // DPOFUA, WP
    let long = query.ten && query.llbaa;
    let descriptor = if query.dbd {
        0
    } else if long {
        16
    } else {
        8
    };
    if query.ten {
        out.put_slice(&[0, 0, 0, device, u8::from(long), 0, 0, descriptor]);
    } else {
        out.put_slice(&[0, 0, device, descriptor]);
    }
    match descriptor {
        8 => {
            out.put_u32(u32::try_from(unit.blocks()).unwrap_or(u32::MAX));
            out.put_u32(BLOCK);
        }
        16 => {
            out.put_u64(unit.blocks());
            out.put_u32(0);
            out.put_u32(BLOCK);
        }
        _ => {}
    }
}

/// Checks a MODE SELECT parameter list: it may only say what is so.
pub(crate) fn select(ten: bool, list: &[u8]) -> Result<(), Sense> {
    let (header, descriptors) = match (ten, list) {
        (_, []) => return Ok(()),
        (false, [_, _, _, length, ..]) => (4, usize::from(*length)),
        (true, [_, _, _, _, _, _, high, low, ..]) => (8, usize::from(u16::from_be_bytes([*high, *low]))),
        _ => return Err(Sense::LIST_LENGTH),
    };
    let mut at = header + descriptors;
    let mut rest = list.get(at..).ok_or(Sense::LIST_LENGTH)?;
    while !rest.is_empty() {
        let field = u16::try_from(at).unwrap_or(u16::MAX);
        let page = PAGES
            .iter()
            .find(|page| page[0] == rest[0] & 0x7F)
            .ok_or(Sense::invalid_list(field))?;
        let own = rest.get(..page.len()).ok_or(Sense::LIST_LENGTH)?;
        if own[1..] != page[1..] {
            return Err(Sense::invalid_list(field));
        }
        at += page.len();
        rest = &rest[page.len()..];
    }
    Ok(())
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
    const SIX: ModeSense = ModeSense {
        ten: false,
        dbd: false,
        llbaa: false,
        control: 0,
        page: ALL,
        subpage: 0,
        allocation: 255,
    };

    #[test]
    fn all_pages_with_a_block_descriptor() {
        let data = sense(&SIX, &UNIT).unwrap();
        assert_eq!(data[..12], [55, 0, 0x10, 8, 0, 0x20, 0, 0, 0, 0, 2, 0]);
        assert_eq!(data.len(), 56);
        assert_eq!((data[12], data[32], data[44]), (0x08, 0x0A, 0x1C));
    }

    #[test]
    fn ten_with_long_descriptor_and_without() {
        let query = ModeSense {
            ten: true,
            llbaa: true,
            page: 0x0A,
            ..SIX
        };
        let data = sense(&query, &UNIT).unwrap();
        assert_eq!(data[..8], [0, 34, 0, 0x10, 1, 0, 0, 16]);
        assert_eq!(data[8..24], [0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let data = sense(&ModeSense { dbd: true, ..query }, &UNIT).unwrap();
        assert_eq!((data.len(), data[7]), (20, 0));
    }

    #[test]
    fn changeable_is_nothing_saved_is_refused() {
        let data = sense(
            &ModeSense {
                control: 1,
                page: 0x0A,
                ..SIX
            },
            &UNIT,
        )
        .unwrap();
        assert_eq!(data[12..], [0x0A, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sense(&ModeSense { control: 3, ..SIX }, &UNIT), Err(Sense::NO_SAVING));
        assert_eq!(
            sense(&ModeSense { page: 0x02, ..SIX }, &UNIT),
            Err(Sense::invalid_cdb(2))
        );
        assert_eq!(
            sense(&ModeSense { subpage: 1, ..SIX }, &UNIT),
            Err(Sense::invalid_cdb(3))
        );
    }

    #[test]
    fn write_protection_is_shown() {
        let data = sense(
            &SIX,
            &Unit {
                read_only: true,
                ..UNIT
            },
        )
        .unwrap();
        assert_eq!(data[2], 0x90);
    }

    #[test]
    fn select_takes_only_what_is_so() {
        let current = sense(&ModeSense { dbd: true, ..SIX }, &UNIT).unwrap();
        assert_eq!(select(false, &current), Ok(()));
        let mut changed = current.to_vec();
        changed[6] = 0x04; // WCE
        assert_eq!(select(false, &changed), Err(Sense::invalid_list(4)));
        assert_eq!(select(false, &current[..10]), Err(Sense::LIST_LENGTH));
        assert_eq!(select(false, &[0, 0, 0, 200]), Err(Sense::LIST_LENGTH));
        assert_eq!(select(true, &[0, 0, 0]), Err(Sense::LIST_LENGTH));
        assert_eq!(select(false, &[]), Ok(()));
    }
}
