//! Builds a message: words in one buffer, at most one payload by reference behind them.

use bytes::{BufMut, Bytes, BytesMut};

use super::WORD;
use super::reader::padding;

static ZEROES: [u8; WORD] = [0; WORD];
/// Room that is allocated at a time; many small messages share it.
const CHUNK: usize = 16 * 1024;
/// Room below which a new chunk is taken; most messages are shorter.
const LOW: usize = 512;

/// A message under construction; reused from message to message so that small ones cost no allocation.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
    payload: Vec<Bytes>,
    /// The length of `buffer` when the payload was appended; nothing may follow a payload.
    sealed: Option<usize>,
}

impl Writer {
    /// An empty message.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Makes room for a typical message at once.
    pub(crate) fn prepare(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < LOW {
            self.buffer.reserve(CHUNK);
        }
    }

    /// Bytes so far, payload included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A word.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A double word.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// Whole words as they are.
    pub fn bytes(&mut self, words: &[u8]) {
        debug_assert!(words.len().is_multiple_of(WORD));
        self.buffer.extend_from_slice(words);
    }

    /// The length of variable-length data or of an array.
    ///
    /// # Panics
    /// If it is 2^32 or more, which no limit of ours allows.
    pub fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).expect("lengths are limited far below 2^32"));
    }

    /// Short variable-length data, copied.
    pub fn opaque(&mut self, data: &[u8]) {
        self.length(data.len());
        self.buffer.extend_from_slice(data);
        self.buffer.put_bytes(0, padding(data.len()));
    }

    /// Variable-length data by reference, with its length and padding. It ends the message.
    pub fn payload(&mut self, data: &[Bytes]) {
        let length = data.iter().map(Bytes::len).sum();
        self.length(length);
        self.payload
            .extend(data.iter().filter(|segment| !segment.is_empty()).cloned());
        if padding(length) > 0 {
            self.payload.push(Bytes::from_static(&ZEROES[..padding(length)]));
        }
        self.sealed = Some(self.buffer.len());
    }

    /// Words that were encoded before, by reference. They end the message.
    pub fn encoded(&mut self, words: &Bytes) {
        debug_assert!(words.len().is_multiple_of(WORD));
        self.payload.push(words.clone());
        self.sealed = Some(self.buffer.len());
    }

    /// Overwrites the first word.
    pub(crate) fn patch_first(&mut self, value: u32) {
        self.buffer[..WORD].copy_from_slice(&value.to_be_bytes());
    }

    /// Moves the message to `out` as one or more segments; the writer is empty again.
    ///
    /// # Panics
    /// If something was written after a payload.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        let sealed = self.sealed.take();
        assert!(
            sealed.is_none_or(|at| at == self.buffer.len()),
            "a payload ends its message"
        );
        out.push(self.buffer.split().freeze());
        out.append(&mut self.payload);
    }

    /// The message as one buffer; it must have no payload.
    ///
    /// # Panics
    /// If it has.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        assert!(self.payload.is_empty(), "a payload is kept by reference");
        self.buffer.freeze()
    }
}
