//! What a user wants of a connection and what comes of it, whatever the protocol.

use bytes::{Buf, Bytes, BytesMut};

use super::names::{NameCall, NameReply};
use super::nfs::Handles;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Bytes of the image.
    Read {
        /// From here.
        offset: u64,
        /// So many.
        len: u32,
    },
    /// The image's bytes become these.
    Write {
        /// From here.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// The bytes of another file become these; NFS only.
    Put {
        /// The file's handle.
        file: Bytes,
        /// From here.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// The image's bytes become zero.
    Zero {
        /// From here.
        offset: u64,
        /// So many.
        len: u32,
    },
    /// What was answered is durable.
    Flush,
    /// A change of the tree of names, or a question about it; NFS only.
    Name(NameCall),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is done.
    Done,
    /// The data that was read.
    Data(Bytes),
    /// The answer about names.
    Name(NameReply),
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room.
    NoSpace,
    /// An error of the medium.
    Io,
    /// The file is not there any more.
    Gone,
    /// Come again later.
    Later,
    /// Anything else.
    Other(String),
}

/// What a connection says.
#[derive(Clone, Debug)]
pub enum Said {
    /// It may be asked.
    Ready,
    /// The gateway cannot open anything now: the client comes again later.
    NotNow,
    /// The answer to what was asked under this number.
    Answer(u64, Result<Found, Refusal>),
}

/// The client's side of a protocol, on one connection.
pub trait Session {
    /// What the client sends first.
    fn hello(&mut self, out: &mut Vec<Bytes>);

    /// Bytes came.
    ///
    /// # Errors
    /// When they are not what the protocol allows, with the reason.
    fn receive(&mut self, bytes: &[u8], out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<(), String>;

    /// Asks under a number that is not in use.
    fn ask(&mut self, number: u64, ask: &Ask, out: &mut Vec<Bytes>);

    /// What the client keeps for its next connection, NFS only.
    fn handles(&self) -> Option<Handles> {
        None
    }
}

/// What arrived and was not understood yet.
#[derive(Debug, Default)]
pub struct Input(BytesMut);

impl Input {
    /// More arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The first bytes, if there are so many.
    pub fn peek(&self, len: usize) -> Option<&[u8]> {
        self.0.get(..len)
    }

    /// Takes the first bytes, if there are so many.
    pub fn take(&mut self, len: usize) -> Option<Bytes> {
        (self.0.len() >= len).then(|| self.0.split_to(len).freeze())
    }

    /// Leaves out bytes that are there.
    pub fn skip(&mut self, len: usize) {
        self.0.advance(len);
    }
}

/// A big-endian number at a place of a message.
#[must_use]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map_or(0, u32::from_be_bytes)
}

/// As [`be32`], of eight bytes.
#[must_use]
pub fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}
