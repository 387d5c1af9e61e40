//! Takes values from the front of a message, without copying variable-length data.

use bytes::Bytes;

use super::{WORD, XdrError};

/// A place in a message.
#[derive(Debug)]
pub struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the start of `message`.
    #[must_use]
    pub fn new(message: &'a Bytes) -> Reader<'a> {
        Reader {
            whole: message,
            rest: message,
        }
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A word.
    ///
    /// # Errors
    /// [`XdrError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, XdrError> {
        self.array().copied().map(u32::from_be_bytes)
    }

    /// A double word ("hyper").
    ///
    /// # Errors
    /// [`XdrError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, XdrError> {
        self.array().copied().map(u64::from_be_bytes)
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`XdrError::Truncated`], [`XdrError::BadBool`].
    pub fn bool(&mut self) -> Result<bool, XdrError> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(XdrError::BadBool(other)),
        }
    }

    /// `N` bytes; `N` is a multiple of four.
    ///
    /// # Errors
    /// [`XdrError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], XdrError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(array)
    }

    /// Variable-length data of at most `limit` bytes, borrowed.
    ///
    /// # Errors
    /// [`XdrError::Truncated`], [`XdrError::TooLong`].
    pub fn borrowed(&mut self, limit: u32) -> Result<&'a [u8], XdrError> {
        let length = self.u32()?;
        if length > limit {
            return Err(XdrError::TooLong { length, limit });
        }
        let length = usize::try_from(length).map_err(|_| XdrError::Truncated)?;
        let data = self.take(length)?;
        self.take(padding(length))?;
        Ok(data)
    }

    /// Variable-length data of at most `limit` bytes, as a slice of the message.
    ///
    /// # Errors
    /// [`XdrError::Truncated`], [`XdrError::TooLong`].
    pub fn opaque(&mut self, limit: u32) -> Result<Bytes, XdrError> {
        self.borrowed(limit).map(|data| self.whole.slice_ref(data))
    }

    /// The number of elements of an array, each of at least one word: never more than could follow.
    ///
    /// # Errors
    /// [`XdrError::Truncated`], [`XdrError::TooLong`].
    pub fn count(&mut self) -> Result<u32, XdrError> {
        let length = self.u32()?;
        let limit = u32::try_from(self.rest.len() / WORD).unwrap_or(u32::MAX);
        if length > limit {
            Err(XdrError::TooLong { length, limit })
        } else {
            Ok(length)
        }
    }

    /// What was read since `start`, an earlier [`Self::rest`].
    #[must_use]
    pub fn since(&self, start: &'a [u8]) -> Bytes {
        self.whole.slice_ref(&start[..start.len() - self.rest.len()])
    }

    /// The end of the message.
    ///
    /// # Errors
    /// [`XdrError::Trailing`].
    pub fn finish(&self) -> Result<(), XdrError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(XdrError::Trailing(self.rest.len()))
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], XdrError> {
        let (data, rest) = self.rest.split_at_checked(length).ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(data)
    }
}

/// Bytes of padding after `length` bytes of data.
pub(super) fn padding(length: usize) -> usize {
    length.wrapping_neg() % WORD
}
