//! Headers of replies in the transmission phase.
//!
//! Headers are cut from a shared block, so that a reply costs no allocation of its own.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::NbdError;
use crate::in_flight::Pending;
use crate::wire;

/// Bytes of the block that headers are cut from: some 200 headers.
const BLOCK: usize = 4096;
/// The longest header: an OFFSET_DATA chunk up to its data.
const LONGEST: usize = wire::CHUNK_LEN + 8;

/// Writes the replies of one connection.
#[derive(Debug)]
pub(crate) struct Replies {
    structured: bool,
    block: BytesMut,
}

impl Replies {
    pub(crate) fn new(structured: bool) -> Replies {
        Replies {
            structured,
            block: BytesMut::new(),
        }
    }

    pub(crate) fn structured(&self) -> bool {
        self.structured
    }

    /// Success. `data` holds exactly the bytes of a read, nothing for other requests.
    pub(crate) fn done(&mut self, pending: &Pending, data: Vec<Bytes>, out: &mut Vec<Bytes>) {
        let sent: usize = data.iter().map(Bytes::len).sum();
        let expected = if pending.is_read { pending.payload } else { 0 };
        assert_eq!(u32::try_from(sent), Ok(expected), "a reply carries what was asked for");
        let header = if self.structured && pending.is_read {
            self.read_chunk(pending)
        } else {
            self.simple(0, pending.cookie)
        };
        out.push(header);
        out.extend(data);
    }

    /// Failure, for any request.
    pub(crate) fn failed(&mut self, cookie: u64, is_read: bool, error: NbdError, out: &mut Vec<Bytes>) {
        let header = if self.structured && is_read {
            self.error_chunk(error, cookie)
        } else {
            self.simple(error.code(), cookie)
        };
        out.push(header);
    }

    fn simple(&mut self, error: u32, cookie: u64) -> Bytes {
        let block = self.room(wire::SIMPLE_REPLY_LEN);
        block.put_u32(wire::SIMPLE_REPLY_MAGIC);
        block.put_u32(error);
        block.put_u64(cookie);
        block.split().freeze()
    }

    /// The only chunk of a successful read: data, or none for a read of nothing, since OFFSET_DATA must not be empty.
    fn read_chunk(&mut self, pending: &Pending) -> Bytes {
        if pending.payload == 0 {
            self.chunk(wire::chunk::NONE, pending.cookie, 0);
            return self.block.split().freeze();
        }
        // The payload is at most 32 MiB: the sum fits.
        let block = self.chunk(
            wire::chunk::OFFSET_DATA,
            pending.cookie,
            pending.payload + wire::CHUNK_OFFSET_LEN,
        );
        block.put_u64(pending.offset);
        block.split().freeze()
    }

    fn error_chunk(&mut self, error: NbdError, cookie: u64) -> Bytes {
        let block = self.chunk(wire::chunk::ERROR, cookie, wire::CHUNK_ERROR_LEN);
        block.put_u32(error.code());
        block.put_u16(0); // length of a message
        block.split().freeze()
    }

    fn chunk(&mut self, kind: u16, cookie: u64, length: u32) -> &mut BytesMut {
        let block = self.room(LONGEST);
        block.put_u32(wire::CHUNK_MAGIC);
        block.put_u16(wire::CHUNK_DONE);
        block.put_u16(kind);
        block.put_u64(cookie);
        block.put_u32(length);
        block
    }

    /// The block with room for `length` bytes. `reserve` reuses the memory once everything cut from it is gone.
    fn room(&mut self, length: usize) -> &mut BytesMut {
        if self.block.capacity() < length {
            self.block.reserve(BLOCK);
        }
        &mut self.block
    }
}
