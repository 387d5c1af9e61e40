//! INQUIRY: the standard data (SPC-4 clause 6.6) and the vital product data pages 00, 80, 83 (SPC-4 clause 7.8), B0, B1 and B2
//! (SBC-3 clause 6.6).
//!
//! The unit's name comes from the cluster's and the image's numbers alone: it is the same on every gateway, and a rename does
//! not change it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    GRANULARITY_BLOCKS, MAX_TRANSFER_BLOCKS, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS, Sense,
    Unit,
};

/// T10 vendor identification, padded.
const VENDOR: &[u8; 8] = b"TRIVET  ";
/// Product identification, padded. Stable: initiators match path policies by it.
const PRODUCT: &[u8; 16] = b"BLOCK STORE     ";
/// Product revision level.
const REVISION: &[u8; 4] = b"0001";
/// Peripheral qualifier 3, type 1Fh: no unit can be here.
const ABSENT: u8 = 0x7F;
/// The pages, in ascending order.
const PAGES: [u8; 6] = [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2];
/// SAM-5, SPC-4, SBC-3, iSCSI (SPC-4 table 150, "no version claimed").
const VERSIONS: [u16; 4] = [0x00A0, 0x0460, 0x04C0, 0x0960];
/// Company identifier of the NAA name: locally administered ("TR").
const COMPANY: u64 = 0x02_5452;
/// Optimal transfer: one object of 128 KiB, in blocks.
const OPTIMAL_BLOCKS: u32 = 256;

/// The data of INQUIRY for `page`, or standard data, not yet cut to the allocation length.
pub(crate) fn data(page: Option<u8>, unit: Option<&Unit>) -> Result<Bytes, Sense> {
    match (page, unit) {
        (None, unit) => Ok(standard(unit.is_some())),
        (Some(page), Some(unit)) => vpd(page, unit),
        (Some(0x00), None) => Ok(Bytes::from_static(&[ABSENT, 0, 0, 1, 0])),
        (Some(_), None) => Err(Sense::invalid_cdb(2)),
    }
}

fn standard(present: bool) -> Bytes {
    let mut out = BytesMut::zeroed(96);
    out[0] = if present { 0x00 } else { ABSENT };
    out[2] = 0x06; // SPC-4
    out[3] = 0x12; // HISUP, response data format 2
    out[4] = 91;
    out[7] = 0x02; // CMDQUE
    out[8..16].copy_from_slice(VENDOR);
    out[16..32].copy_from_slice(PRODUCT);
    out[32..36].copy_from_slice(REVISION);
    for (slot, version) in out[58..].chunks_exact_mut(2).zip(VERSIONS) {
        slot.copy_from_slice(&version.to_be_bytes());
    }
    out.freeze()
}

fn vpd(page: u8, unit: &Unit) -> Result<Bytes, Sense> {
    let mut out = BytesMut::with_capacity(128);
    out.put_slice(&[0x00, page, 0, 0]);
    match page {
        0x00 => out.put_slice(&PAGES),
        0x80 => out.put_slice(serial(unit).as_bytes()),
        0x83 => designators(unit, &mut out),
        0xB0 => block_limits(&mut out),
        0xB1 => {
            out.put_u16(1); // non-rotating
            out.put_bytes(0, 58);
        }
        // LBPU, LBPWS, LBPWS10, LBPRZ; thin provisioned
        0xB2 => out.put_slice(&[0, 0xE4, 0x02, 0]),
        _ => return Err(Sense::invalid_cdb(2)),
    }
    let length = u16::try_from(out.len() - 4).expect("a page is short");
    out[2..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}

/// The 128-bit NAA name of type 6: company, cluster (36 bits), image.
fn naa(unit: &Unit) -> [u8; 16] {
    let high = 0x6 << 60 | COMPANY << 36 | unit.cluster & ((1 << 36) - 1);
    let mut out = [0; 16];
    out[..8].copy_from_slice(&high.to_be_bytes());
    out[8..].copy_from_slice(&unit.image.to_be_bytes());
    out
}

/// The unit serial number: cluster and image.
fn serial(unit: &Unit) -> String {
    format!("{:09x}{:016x}", unit.cluster & ((1 << 36) - 1), unit.image)
}

fn designators(unit: &Unit, out: &mut BytesMut) {
    out.put_slice(&[0x01, 0x03, 0, 16]); // binary, logical unit, NAA
    out.put_slice(&naa(unit));
    let serial = serial(unit);
    out.put_slice(&[0x02, 0x01, 0]); // ASCII, logical unit, T10 vendor
    out.put_u8(u8::try_from(VENDOR.len() + serial.len()).expect("33 bytes"));
    out.put_slice(VENDOR);
    out.put_slice(serial.as_bytes());
}

/// SBC-3 6.6.4.
fn block_limits(out: &mut BytesMut) {
    out.put_slice(&[0x01, 0]); // WSNZ; no COMPARE AND WRITE
    out.put_u16(u16::try_from(GRANULARITY_BLOCKS).expect("8"));
    out.put_u32(MAX_TRANSFER_BLOCKS);
    out.put_u32(OPTIMAL_BLOCKS);
    out.put_u32(0); // no prefetch
    out.put_u32(MAX_UNMAP_BLOCKS);
    out.put_u32(MAX_UNMAP_DESCRIPTORS);
    out.put_u32(GRANULARITY_BLOCKS);
    out.put_u32(0x8000_0000); // alignment valid: 0
    out.put_u64(u64::from(MAX_WRITE_SAME_BLOCKS));
    out.put_bytes(0, 20);
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit = Unit {
        image: 0x1234,
        cluster: 0xA_BCDE_F012,
        size: 1 << 30,
        read_only: false,
    };

    #[test]
    fn standard_data() {
        let data = data(None, Some(&UNIT)).unwrap();
        assert_eq!(data.len(), 96);
        assert_eq!(data[..8], [0, 0, 6, 0x12, 91, 0, 0, 2]);
        assert_eq!(&data[8..36], b"TRIVET  BLOCK STORE     0001");
        assert_eq!(data[58..66], [0, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60]);
    }

    #[test]
    fn an_absent_unit_has_qualifier_three() {
        assert_eq!(data(None, None).unwrap()[0], 0x7F);
        assert_eq!(data(Some(0), None).unwrap()[0], 0x7F);
        assert_eq!(data(Some(0x83), None), Err(Sense::invalid_cdb(2)));
    }

    #[test]
    fn every_listed_page_exists_and_says_its_length() {
        for page in PAGES {
            let data = data(Some(page), Some(&UNIT)).unwrap();
            assert_eq!(data[1], page);
            assert_eq!(usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4);
        }
        assert_eq!(data(Some(0xB3), Some(&UNIT)), Err(Sense::invalid_cdb(2)));
    }

    #[test]
    fn names() {
        let page = data(Some(0x83), Some(&UNIT)).unwrap();
        assert_eq!(page[4..8], [1, 3, 0, 16]);
        assert_eq!(
            page[8..24],
            [
                0x60, 0x25, 0x45, 0x2A, 0xBC, 0xDE, 0xF0, 0x12, 0, 0, 0, 0, 0, 0, 0x12, 0x34
            ]
        );
        assert_eq!(&page[28..], b"TRIVET  abcdef0120000000000001234");
    }

    #[test]
    fn limits_and_provisioning() {
        let limits = data(Some(0xB0), Some(&UNIT)).unwrap();
        assert_eq!(limits.len(), 64);
        assert_eq!(limits[4..12], [1, 0, 0, 8, 0, 1, 0, 0]);
        assert_eq!(limits[20..28], [0, 8, 0, 0, 0, 0, 1, 0]);
        assert_eq!(limits[36..44], [0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(data(Some(0xB1), Some(&UNIT)).unwrap().len(), 64);
        assert_eq!(
            data(Some(0xB2), Some(&UNIT)).unwrap()[..],
            [0, 0xB2, 0, 4, 0, 0xE4, 2, 0]
        );
    }
}
