//! XDR (RFC 4506): big-endian words, variable-length data padded to four bytes.
//!
//! [`Reader`] hands out slices of the message it reads, [`Writer`] keeps payloads as references. Every
//! length is checked against what is there before anything is allocated. Booleans and enums take
//! their defined values only (sections 4.3, 4.4); the contents of padding are ignored.

#[macro_use]
mod declare;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use bytes::Bytes;
use thiserror::Error;

/// Bytes of one XDR word.
pub const WORD: usize = 4;

/// Why a message is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum XdrError {
    /// The message ends inside a value.
    #[error("message ends inside a value")]
    Truncated,
    /// Variable-length data or an array is longer than its type allows.
    #[error("length {length} exceeds {limit}")]
    TooLong {
        /// As the message says, bytes or elements.
        length: u32,
        /// What the type allows.
        limit: u32,
    },
    /// A number that its enum, or the rest of the message, does not allow.
    #[error("{0} is not a value of its type")]
    BadValue(u32),
    /// A boolean other than 0 and 1.
    #[error("{0} is not a boolean")]
    BadBool(u32),
    /// Bytes after the end of the value.
    #[error("{0} bytes after the end")]
    Trailing(usize),
}

/// A type with an XDR form. Decoding what was encoded gives the same value.
pub trait Xdr: Sized {
    /// Appends the value.
    fn encode(&self, w: &mut Writer);

    /// Takes the value from the front.
    ///
    /// # Errors
    /// If the bytes are not a value of the type.
    fn decode(r: &mut Reader<'_>) -> Result<Self, XdrError>;
}

impl Xdr for () {
    fn encode(&self, _: &mut Writer) {}

    fn decode(_: &mut Reader<'_>) -> Result<(), XdrError> {
        Ok(())
    }
}

impl Xdr for u32 {
    fn encode(&self, w: &mut Writer) {
        w.u32(*self);
    }

    fn decode(r: &mut Reader<'_>) -> Result<u32, XdrError> {
        r.u32()
    }
}

impl Xdr for u64 {
    fn encode(&self, w: &mut Writer) {
        w.u64(*self);
    }

    fn decode(r: &mut Reader<'_>) -> Result<u64, XdrError> {
        r.u64()
    }
}

impl Xdr for bool {
    fn encode(&self, w: &mut Writer) {
        w.bool(*self);
    }

    fn decode(r: &mut Reader<'_>) -> Result<bool, XdrError> {
        r.bool()
    }
}

/// Fixed-length opaque data of whole words: the verifiers.
impl Xdr for [u8; 8] {
    fn encode(&self, w: &mut Writer) {
        w.bytes(self);
    }

    fn decode(r: &mut Reader<'_>) -> Result<[u8; 8], XdrError> {
        r.array().copied()
    }
}

/// Variable-length opaque data or a string without a limit of its own (the message is the limit).
impl Xdr for Bytes {
    fn encode(&self, w: &mut Writer) {
        w.opaque(self);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Bytes, XdrError> {
        r.opaque(u32::MAX)
    }
}

/// A union over a boolean whose FALSE arm is void (also XDR's optional-data, section 4.19).
impl<T: Xdr> Xdr for Option<T> {
    fn encode(&self, w: &mut Writer) {
        w.bool(self.is_some());
        if let Some(value) = self {
            value.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Option<T>, XdrError> {
        if r.bool()? { T::decode(r).map(Some) } else { Ok(None) }
    }
}

/// A linked list: each element after a TRUE, a FALSE at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List<T>(
    /// In order.
    pub Vec<T>,
);

impl<T: Xdr> Xdr for List<T> {
    fn encode(&self, w: &mut Writer) {
        for element in &self.0 {
            w.bool(true);
            element.encode(w);
        }
        w.bool(false);
    }

    fn decode(r: &mut Reader<'_>) -> Result<List<T>, XdrError> {
        let mut elements = Vec::new();
        while let Some(element) = Option::decode(r)? {
            elements.push(element);
        }
        Ok(List(elements))
    }
}

/// A variable-length array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Array<T>(
    /// In order.
    pub Vec<T>,
);

impl<T: Xdr> Xdr for Array<T> {
    fn encode(&self, w: &mut Writer) {
        w.length(self.0.len());
        self.0.iter().for_each(|element| element.encode(w));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Array<T>, XdrError> {
        let count = r.count()?;
        (0..count).map(|_| T::decode(r)).collect::<Result<_, _>>().map(Array)
    }
}

#[cfg(test)]
mod tests;
