//! Records of a TCP stream (RFC 5531 section 11): fragments behind four-byte marks, joined.
//!
//! A record in one fragment, which is what clients send, is handed out as a slice of the input. Fragments
//! of others are collected; their number and their total size are limited before anything is kept.

use bytes::{Buf, Bytes, BytesMut};

use crate::connection::CloseReason;

/// Bytes of a record mark.
pub const MARK_SIZE: usize = 4;
/// The bit of a mark that ends the record; the other 31 are the fragment's length in bytes.
pub const LAST_FRAGMENT: u32 = 1 << 31;

/// Joins fragments to records.
#[derive(Debug)]
pub struct Assembler {
    max_record: usize,
    max_fragments: u32,
    collected: BytesMut,
    fragments: u32,
    missing: usize,
}

impl Assembler {
    /// Records of at most `max_record` bytes in at most `max_fragments` fragments.
    #[must_use]
    pub fn new(max_record: usize, max_fragments: u32) -> Assembler {
        Assembler {
            max_record,
            max_fragments,
            collected: BytesMut::new(),
            fragments: 0,
            missing: MARK_SIZE,
        }
    }

    /// The next whole record of `input`, if it is there.
    ///
    /// # Errors
    /// A record beyond the limits; as soon as its mark is there, not when its data is.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, CloseReason> {
        while let Some(&mark) = input.first_chunk::<MARK_SIZE>() {
            let mark = u32::from_be_bytes(mark);
            let length = self.admit(mark)?;
            if input.len() - MARK_SIZE < length {
                self.missing = length - (input.len() - MARK_SIZE);
                return Ok(None);
            }
            input.advance(MARK_SIZE);
            let fragment = input.split_to(length);
            if mark & LAST_FRAGMENT != 0 {
                return Ok(Some(self.complete(fragment)));
            }
            self.fragments += 1;
            self.collected.extend_from_slice(&fragment);
        }
        self.missing = MARK_SIZE - input.len();
        Ok(None)
    }

    /// Bytes that the current mark or fragment still lacks, after [`Self::next`] found no record.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Bytes of the fragments collected so far.
    #[must_use]
    pub fn collected(&self) -> usize {
        self.collected.len()
    }

    /// The length of the fragment behind `mark` if the record stays within the limits with it.
    fn admit(&self, mark: u32) -> Result<usize, CloseReason> {
        let length = usize::try_from(mark & !LAST_FRAGMENT).unwrap_or(usize::MAX);
        let total = self.collected.len().saturating_add(length);
        if total > self.max_record {
            return Err(CloseReason::RecordTooLarge {
                size: total,
                limit: self.max_record,
            });
        }
        if self.fragments >= self.max_fragments {
            return Err(CloseReason::TooManyFragments {
                limit: self.max_fragments,
            });
        }
        Ok(length)
    }

    fn complete(&mut self, last: BytesMut) -> Bytes {
        self.fragments = 0;
        if self.collected.is_empty() {
            return last.freeze();
        }
        let mut record = std::mem::take(&mut self.collected);
        record.extend_from_slice(&last);
        record.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(fragments: &[(&[u8], bool)]) -> BytesMut {
        let mut stream = BytesMut::new();
        for (data, last) in fragments {
            let length = u32::try_from(data.len()).unwrap();
            let mark = if *last { length | LAST_FRAGMENT } else { length };
            stream.extend_from_slice(&mark.to_be_bytes());
            stream.extend_from_slice(data);
        }
        stream
    }

    #[test]
    fn fragments_are_joined_however_they_arrive() {
        let whole = stream(&[(b"one", true), (b"tw", false), (b"", false), (b"o", true), (b"", true)]);
        for step in 1..=whole.len() {
            let mut assembler = Assembler::new(3, 3);
            let (mut input, mut records) = (BytesMut::new(), Vec::new());
            for piece in whole.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(record) = assembler.next(&mut input).unwrap() {
                    records.push(record);
                }
            }
            assert_eq!(records, ["one", "two", ""]);
            assert_eq!((assembler.missing(), assembler.collected()), (4, 0));
        }
    }

    #[test]
    fn a_single_fragment_is_not_copied() {
        let mut input = stream(&[(&[7; 1000], true)]);
        let place = input[MARK_SIZE..].as_ptr();
        let record = Assembler::new(1000, 1).next(&mut input).unwrap().unwrap();
        assert_eq!(record.as_ptr(), place);
    }

    #[test]
    fn what_is_missing_is_known() {
        let mut assembler = Assembler::new(1000, 2);
        for (bytes, missing) in [(&b"\x80\0"[..], 2), (b"\x80\0\0\x0a", 10), (b"\x80\0\0\x0a123", 7)] {
            assert_eq!(assembler.next(&mut BytesMut::from(bytes)), Ok(None));
            assert_eq!(assembler.missing(), missing);
        }
    }

    #[test]
    fn sizes_are_refused_by_the_mark_alone() {
        for mark in [0x7fff_ffff_u32, 0xffff_ffff, 11, 11 | LAST_FRAGMENT] {
            let refused = Assembler::new(10, 9).next(&mut BytesMut::from(&mark.to_be_bytes()[..]));
            let size = usize::try_from(mark & !LAST_FRAGMENT).unwrap();
            assert_eq!(refused, Err(CloseReason::RecordTooLarge { size, limit: 10 }));
        }
        let mut input = stream(&[(&[1; 6], false), (&[2; 5], true)]);
        let refused = Assembler::new(10, 9).next(&mut input);
        assert_eq!(refused, Err(CloseReason::RecordTooLarge { size: 11, limit: 10 }));
    }

    #[test]
    fn endless_fragments_are_refused() {
        for data in [&b""[..], b"x"] {
            let mut input = stream(&vec![(data, false); 100_000]);
            let refused = Assembler::new(1 << 20, 64).next(&mut input);
            assert_eq!(refused, Err(CloseReason::TooManyFragments { limit: 64 }));
        }
    }
}
