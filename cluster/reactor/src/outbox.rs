//! What a connection has to send, in order, and one gathering send for as much of it as possible.
//!
//! Small segments (headers) are copied together into a tail, large ones (payloads) are kept by
//! reference. Nothing here limits the queue: the user asks for its length.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::AsFd;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

/// Segments up to this many bytes are copied: cheaper than one more entry for the kernel to walk.
const COALESCE: usize = 512;
/// Bytes of the buffer that small segments are copied into.
const TAIL_CHUNK: usize = 8 * 1024;
/// Segments in one send; more take another call.
const GATHER: usize = 64;

pub(crate) struct Outbox {
    ready: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox {
            ready: VecDeque::new(),
            tail: BytesMut::new(),
            bytes: 0,
        }
    }

    /// Bytes not yet given to the kernel.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, segment: Bytes) {
        self.bytes += segment.len();
        if segment.len() > COALESCE {
            self.seal();
            self.ready.push_back(segment);
            return;
        }
        if self.tail.capacity() - self.tail.len() < segment.len() {
            self.seal();
            if !self.tail.try_reclaim(TAIL_CHUNK / 2) {
                self.tail = BytesMut::with_capacity(TAIL_CHUNK);
            }
        }
        self.tail.extend_from_slice(&segment);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(self.tail.split().freeze());
        }
    }

    /// Sends until nothing is left (true) or the socket is full (false).
    pub(crate) fn flush(&mut self, fd: impl AsFd) -> Result<bool, Errno> {
        while self.bytes > 0 {
            match self.send_once(fd.as_fd()) {
                Ok((offered, sent)) => {
                    self.consume(sent);
                    if sent < offered {
                        return Ok(false);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// One system call; returns the bytes offered and taken.
    fn send_once(&self, fd: impl AsFd) -> Result<(usize, usize), Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if self.ready.is_empty() {
            return Ok((self.tail.len(), rustix::net::send(fd, &self.tail, flags)?));
        }
        let mut slices = [IoSlice::new(&[]); GATHER];
        let (mut count, mut offered) = (0, 0);
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        for segment in self.ready.iter().map(|bytes| &bytes[..]).chain(tail).take(GATHER) {
            slices[count] = IoSlice::new(segment);
            count += 1;
            offered += segment.len();
        }
        let sent = sendmsg(fd, &slices[..count], &mut SendAncillaryBuffer::default(), flags)?;
        Ok((offered, sent))
    }

    fn consume(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(first) = self.ready.front_mut() {
            if sent < first.len() {
                first.advance(sent);
                return;
            }
            sent -= first.len();
            self.ready.pop_front();
        }
        if sent == self.tail.len() {
            self.tail.clear();
        } else {
            self.tail.advance(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn order_is_kept_across_partial_sends() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new();
        let mut expected = Vec::new();
        for i in 0..600usize {
            let len = [3, 4096, 512, 513, 0, 30_000, 28, 28][i % 8];
            let segment = vec![u8::try_from(i % 251).unwrap(); len];
            expected.extend_from_slice(&segment);
            outbox.push(Bytes::from(segment));
        }
        assert_eq!(outbox.len(), expected.len());
        let mut received = Vec::new();
        let mut stalls = 0;
        while received.len() < expected.len() {
            stalls += u32::from(!outbox.flush(&ours).unwrap());
            let mut buffer = [0; 10_000];
            let count = theirs.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..count]);
        }
        assert!(stalls > 0, "the test needs a full socket");
        assert!(received == expected);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn small_segments_travel_as_one() {
        let mut outbox = Outbox::new();
        for _ in 0..10 {
            outbox.push(Bytes::from_static(b"header"));
        }
        outbox.push(Bytes::from(vec![0; 4096]));
        outbox.push(Bytes::from_static(b"trailer"));
        assert_eq!(outbox.ready.len(), 2);
        assert_eq!(&outbox.tail[..], b"trailer");
        assert_eq!(outbox.len(), 60 + 4096 + 7);
    }

    #[test]
    fn a_vanished_peer_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut outbox = Outbox::new();
        outbox.push(Bytes::from_static(b"x"));
        assert_eq!(outbox.flush(&ours), Err(Errno::PIPE));
    }
}
