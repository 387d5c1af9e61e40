//! The greeting: who speaks, in which cluster, since when, and to whom. Both ends of a link begin with one.
//!
//! It knows the bytes only; who is welcome is the carrier's decision.

use bytes::{Buf, Bytes, BytesMut};
use trivet_core::wire::FORMAT;
use trivet_core::{ClientId, NodeId, OsdId};

use crate::fault::Fault;

/// The first bytes of every link.
pub const MAGIC: [u8; 4] = *b"TRVH";
/// Bytes of a greeting.
pub const HELLO: usize = 60;
/// Where the checksum of everything before it lies.
const SUM: usize = 56;
/// Kinds of nodes, as on the wire.
const OSD: u8 = 1;
const CLIENT: u8 = 2;

/// A greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who sends it.
    pub from: NodeId,
    /// Drawn at random at the start of the sender's process.
    pub boot: u64,
    /// Whom it means to reach; in the answer, who greeted first.
    pub to: NodeId,
    /// The cluster.
    pub cluster: [u8; 16],
    /// The sender's number of the link: rises from link to link of the same boot.
    pub number: u64,
}

impl Hello {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = [0; HELLO];
        let (from_kind, from) = number_of(self.from);
        let (to_kind, to) = number_of(self.to);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&[FORMAT, from_kind, to_kind, 0]);
        bytes[8..16].copy_from_slice(&from.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.boot.to_le_bytes());
        bytes[24..32].copy_from_slice(&to.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.cluster);
        bytes[48..SUM].copy_from_slice(&self.number.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..SUM]);
        bytes[SUM..].copy_from_slice(&sum.to_le_bytes());
        Bytes::copy_from_slice(&bytes)
    }

    /// Takes a greeting off `input`; none while it is not there as a whole. Strangers are told by their first byte.
    ///
    /// # Errors
    /// When the bytes are no greeting of this format.
    pub fn take(input: &mut BytesMut) -> Result<Option<Hello>, Fault> {
        check_start(input)?;
        let Some(bytes) = input.first_chunk::<HELLO>() else {
            return Ok(None);
        };
        let hello = parse(bytes)?;
        input.advance(HELLO);
        Ok(Some(hello))
    }
}

fn check_start(input: &[u8]) -> Result<(), Fault> {
    let there = input.len().min(MAGIC.len());
    if input[..there] != MAGIC[..there] {
        let mut start = [0; 4];
        start[..there].copy_from_slice(&input[..there]);
        return Err(Fault::Stranger(start));
    }
    match input.get(4) {
        Some(&format) if format != FORMAT => Err(Fault::Format(format)),
        _ => Ok(()),
    }
}

fn parse(bytes: &[u8; HELLO]) -> Result<Hello, Fault> {
    let (head, mut sum) = bytes.split_at(SUM);
    if crc32c::crc32c(head) != sum.get_u32_le() {
        return Err(Fault::Sum);
    }
    let mut fields = &head[5..];
    let (from_kind, to_kind, reserved) = (fields.get_u8(), fields.get_u8(), fields.get_u8());
    if reserved != 0 {
        return Err(Fault::Field("reserved"));
    }
    let from = node_of(from_kind, fields.get_u64_le())?;
    let boot = fields.get_u64_le();
    let to = node_of(to_kind, fields.get_u64_le())?;
    let mut cluster = [0; 16];
    fields.copy_to_slice(&mut cluster);
    Ok(Hello {
        from,
        boot,
        to,
        cluster,
        number: fields.get_u64_le(),
    })
}

fn number_of(node: NodeId) -> (u8, u64) {
    match node {
        NodeId::Osd(osd) => (OSD, u64::from(osd.0)),
        NodeId::Client(client) => (CLIENT, client.0),
    }
}

fn node_of(kind: u8, number: u64) -> Result<NodeId, Fault> {
    match kind {
        OSD => u32::try_from(number)
            .map(|number| NodeId::Osd(OsdId(number)))
            .map_err(|_| Fault::Field("the number of an OSD")),
        CLIENT => Ok(NodeId::Client(ClientId(number))),
        _ => Err(Fault::Field("the kind of a node")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO_OF_CLIENT: Hello = Hello {
        from: NodeId::Client(ClientId(0x1122_3344_5566_7788)),
        boot: 0x0102_0304_0506_0708,
        to: NodeId::Osd(OsdId(258)),
        cluster: *b"0123456789abcdef",
        number: 9,
    };
    const GOLDEN: &str = "5452564807020100\
        8877665544332211\
        0807060504030201\
        0201000000000000\
        30313233343536373839616263646566\
        0900000000000000\
        27c6d662";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn take(bytes: &[u8]) -> Result<Option<Hello>, Fault> {
        Hello::take(&mut BytesMut::from(bytes))
    }

    /// With a right checksum.
    fn with(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = HELLO_OF_CLIENT.encode().to_vec();
        change(&mut bytes);
        let sum = crc32c::crc32c(&bytes[..SUM]);
        bytes[SUM..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn has_these_bytes() {
        assert_eq!(hex(&HELLO_OF_CLIENT.encode()), GOLDEN);
        let mut input = BytesMut::from(&HELLO_OF_CLIENT.encode()[..]);
        input.extend_from_slice(b"frame");
        assert_eq!(Hello::take(&mut input), Ok(Some(HELLO_OF_CLIENT)));
        assert_eq!(&input[..], b"frame");
    }

    #[test]
    fn waits_for_the_whole() {
        let bytes = HELLO_OF_CLIENT.encode();
        for len in 0..HELLO {
            assert_eq!(take(&bytes[..len]), Ok(None), "{len} bytes");
        }
    }

    #[test]
    fn knows_strangers_by_their_first_bytes() {
        for start in [&b"GET / HTTP/1.1"[..], b"\x16\x03\x01", b"\0", b"TRVT", b"T\0"] {
            assert!(matches!(take(start), Err(Fault::Stranger(_))), "{start:?}");
        }
        assert_eq!(take(b"TRVH\x7f"), Err(Fault::Format(0x7f)));
    }

    #[test]
    fn finds_every_changed_bit() {
        let good = HELLO_OF_CLIENT.encode();
        for bit in 0..HELLO * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(take(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn refuses_impossible_fields() {
        let table: [(&str, Vec<u8>); 4] = [
            ("the kind of a node", with(|b| b[5] = 0)),
            ("the kind of a node", with(|b| b[6] = 3)),
            ("reserved", with(|b| b[7] = 1)),
            ("the number of an OSD", with(|b| b[28] = 1)),
        ];
        for (what, bytes) in table {
            assert_eq!(take(&bytes), Err(Fault::Field(what)));
        }
    }
}
