//! The header of a frame: what follows, how long it is, and the checksums of both parts.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::ids::OBJECT_SIZE;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"TRVT";
/// The format that this code speaks. A field is never added to a kind without raising it.
pub const FORMAT: u8 = 7;
/// Bytes of the header.
pub const HEADER: usize = 24;
/// Largest frame, header included, bytes.
pub const MAX_FRAME: usize = 64 << 20;
/// Where the sum of header and body lies in the header. It covers everything before it, and the body.
const HEAD_SUM: usize = 20;

/// What a receiver puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame, header included, bytes; [`MAX_FRAME`] at most.
    pub max_frame: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_frame: MAX_FRAME }
    }
}

/// Why bytes are not a message. The connection that they came from is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are something else.
    #[error("not a frame: it starts with {0:02x?}")]
    Magic([u8; 4]),
    /// The sender speaks another format.
    #[error("format {0}, not {FORMAT}")]
    Format(u8),
    /// No such kind of message.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// The reserved bytes are not zero.
    #[error("reserved bytes of the header are {0:#06x}")]
    Reserved(u16),
    /// Larger than the limit.
    #[error("a frame of {len} bytes, where {limit} are allowed")]
    TooLarge {
        /// Bytes that it claims to have.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// This kind cannot have so much, or so little, payload.
    #[error("kind {kind} with {len} bytes of payload")]
    Payload {
        /// Which kind.
        kind: u8,
        /// Bytes.
        len: usize,
    },
    /// Header or body were damaged on the way.
    #[error("the checksum of header and body is wrong")]
    HeadSum,
    /// The payload was damaged on the way.
    #[error("the checksum of the payload is wrong")]
    DataSum,
    /// A unit's bytes are not those that the sender sealed for this place.
    #[error("the checksum of a unit is wrong")]
    UnitSum,
    /// The body ends within a field or list.
    #[error("the body ends early")]
    Short,
    /// The body goes on after its last field.
    #[error("{0} bytes after the body")]
    Trailing(usize),
    /// A field has a value that it cannot have.
    #[error("malformed field: {0}")]
    Field(&'static str),
}

/// What a body is. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Read = 1,
    Write = 2,
    Zero = 3,
    Remove = 4,
    List = 5,
    Changed = 6,
    Data = 7,
    Objects = 8,
    Failed = 9,
    Fence = 10,
    Listing = 11,
    Refused = 12,
    MemberWrite = 13,
    Written = 14,
    Fetch = 15,
    Fetched = 16,
    Forget = 17,
    Push = 18,
    Scrub = 19,
    Scrubbed = 20,
    Stray = 21,
    Drop = 22,
    Ping = 23,
    Pong = 24,
    Forgotten = 25,
    Barrier = 26,
    Passed = 27,
    TickRequest = 28,
    Tick = 29,
}

impl Kind {
    /// In the order of their numbers, from 1.
    pub(super) const ALL: [Kind; 29] = [
        Kind::Read,
        Kind::Write,
        Kind::Zero,
        Kind::Remove,
        Kind::List,
        Kind::Changed,
        Kind::Data,
        Kind::Objects,
        Kind::Failed,
        Kind::Fence,
        Kind::Listing,
        Kind::Refused,
        Kind::MemberWrite,
        Kind::Written,
        Kind::Fetch,
        Kind::Fetched,
        Kind::Forget,
        Kind::Push,
        Kind::Scrub,
        Kind::Scrubbed,
        Kind::Stray,
        Kind::Drop,
        Kind::Ping,
        Kind::Pong,
        Kind::Forgotten,
        Kind::Barrier,
        Kind::Passed,
        Kind::TickRequest,
        Kind::Tick,
    ];

    fn of(number: u8) -> Option<Kind> {
        let index = usize::from(number).checked_sub(1)?;
        Kind::ALL.get(index).copied()
    }

    /// How many bytes of payload it may have.
    fn payload(self) -> RangeInclusive<usize> {
        match self {
            Kind::Write | Kind::Data => 1..=OBJECT_SIZE,
            Kind::MemberWrite | Kind::Push | Kind::Fetched => 0..=OBJECT_SIZE,
            _ => 0..=0,
        }
    }
}

/// A header whose fields are possible; nothing is said yet about the checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes of the body.
    pub(super) meta: usize,
    /// Bytes of the payload.
    pub(super) data: usize,
    data_sum: u32,
    head_sum: u32,
}

impl Header {
    /// The header at the start of `input`; none while it is not there as a whole.
    pub(super) fn parse(input: &[u8], limits: &Limits) -> Result<Option<Header>, WireError> {
        let Some(bytes) = input.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, format, number, reserved @ ..] = *bytes;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if [a, b, c, d] != MAGIC {
            return Err(WireError::Magic([a, b, c, d]));
        }
        if format != FORMAT {
            return Err(WireError::Format(format));
        }
        let kind = Kind::of(number).ok_or(WireError::Kind(number))?;
        let reserved = u16::from_le_bytes([reserved[0], reserved[1]]);
        if reserved != 0 {
            return Err(WireError::Reserved(reserved));
        }
        let header = Header {
            kind,
            meta: word(8) as usize,
            data: word(12) as usize,
            data_sum: word(16),
            head_sum: word(HEAD_SUM),
        };
        header.check_sizes(limits)?;
        Ok(Some(header))
    }

    fn check_sizes(&self, limits: &Limits) -> Result<(), WireError> {
        let limit = limits.max_frame.min(MAX_FRAME);
        let len = self.len();
        if len > limit {
            return Err(WireError::TooLarge { len, limit });
        }
        if !self.kind.payload().contains(&self.data) {
            let (kind, len) = (self.kind as u8, self.data);
            return Err(WireError::Payload { kind, len });
        }
        Ok(())
    }

    /// Bytes of the whole frame.
    pub(super) fn len(&self) -> usize {
        HEADER.saturating_add(self.meta).saturating_add(self.data)
    }

    /// Checks the sums of a whole frame; `head` is header and body.
    pub(super) fn verify(&self, head: &[u8], data: &[u8]) -> Result<(), WireError> {
        if head_sum(head) != self.head_sum {
            return Err(WireError::HeadSum);
        }
        if crc32c::crc32c(data) != self.data_sum {
            return Err(WireError::DataSum);
        }
        Ok(())
    }
}

/// Number and name of every kind of message, and whether it may have a payload: for who holds the document against them.
#[doc(hidden)]
pub fn kinds() -> impl Iterator<Item = (u8, String, bool)> {
    let described = |kind: &Kind| (*kind as u8, format!("{kind:?}"), *kind.payload().end() > 0);
    Kind::ALL.iter().map(described)
}

/// How many bytes, from the start of `input`, the next whole frame has as far as `input` tells: [`HEADER`] while the
/// header is not complete, and also when it is not one that [`decode`](super::decode) would accept.
#[must_use]
pub fn needed(input: &[u8]) -> usize {
    match Header::parse(input, &Limits::default()) {
        Ok(Some(header)) => header.len(),
        Ok(None) | Err(_) => HEADER,
    }
}

/// Fills in the header at the start of `head`, which has [`HEADER`] bytes of room before the body.
pub(super) fn seal(kind: Kind, head: &mut [u8], data: &[Bytes]) {
    let word = |len: usize| u32::try_from(len).expect("messages are bounded").to_le_bytes();
    let data_len: usize = data.iter().map(Bytes::len).sum();
    let data_sum = data.iter().fold(0, |sum, segment| crc32c::crc32c_append(sum, segment));
    head[..4].copy_from_slice(&MAGIC);
    head[4] = FORMAT;
    head[5] = kind as u8;
    head[6..8].fill(0);
    let meta = word(head.len() - HEADER);
    head[8..12].copy_from_slice(&meta);
    head[12..16].copy_from_slice(&word(data_len));
    head[16..20].copy_from_slice(&data_sum.to_le_bytes());
    let sum = head_sum(head);
    head[HEAD_SUM..HEADER].copy_from_slice(&sum.to_le_bytes());
}

fn head_sum(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..HEAD_SUM]), &head[HEADER..])
}
