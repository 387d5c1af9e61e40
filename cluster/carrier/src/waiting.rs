//! Encoded messages that wait for a link.

use bytes::Bytes;

/// Bytes that wait for one peer at most; the message that goes beyond is still taken.
const MAX_BYTES: usize = 4 << 20;
/// Messages that wait for one peer at most.
const MAX_MESSAGES: u64 = 1024;

/// The queue of one peer. Bounded: senders repeat what does not fit.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    segments: Vec<Bytes>,
    bytes: usize,
    messages: u64,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES || self.messages >= MAX_MESSAGES
    }

    /// Adds one message: whatever `encode` appends.
    pub(crate) fn push(&mut self, encode: impl FnOnce(&mut Vec<Bytes>)) {
        let first = self.segments.len();
        encode(&mut self.segments);
        self.bytes += self.segments[first..].iter().map(Bytes::len).sum::<usize>();
        self.messages += 1;
    }

    /// All segments in order, how many bytes and how many messages they are. Nothing waits any more.
    pub(crate) fn take(&mut self) -> (Vec<Bytes>, usize, u64) {
        let Waiting {
            segments,
            bytes,
            messages,
        } = std::mem::take(self);
        (segments, bytes, messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_full_by_bytes_or_by_messages() {
        let mut small = Waiting::default();
        for _ in 0..MAX_MESSAGES {
            assert!(!small.is_full());
            small.push(|out| out.push(Bytes::from_static(b"x")));
        }
        assert!(small.is_full());
        let mut large = Waiting::default();
        large.push(|out| out.extend([Bytes::from_static(b"x"), Bytes::from(vec![0; MAX_BYTES - 1])]));
        assert!(large.is_full());
        assert_eq!(large.take().1, MAX_BYTES);
        assert!(large.is_empty() && !large.is_full());
    }
}
