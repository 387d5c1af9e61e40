//! The received bytes of a connection and where the next ones go.
//!
//! Slices that a machine split off keep their memory alive; so a buffer that is used up is not moved or zeroed
//! but left to them, and a fresh one takes only the unconsumed rest along. For an announced message it begins at an
//! aligned address: a large payload that is announced once its header is consumed is written to a disk from where it was
//! received. Buffers start at [`FIRST_CHUNK`] and grow while receives fill them: thousands of idle connections stay small.

use std::os::fd::AsFd;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::memory::aligned_buffer;

/// Bytes of the first buffer.
const FIRST_CHUNK: usize = 16 * 1024;
/// A buffer that was filled to the end is followed by one this many times as large.
const GROWTH: usize = 4;
/// Bytes past a hinted message, for the start of the next one.
const HINT_SLACK: usize = 16 * 1024;
/// The largest hint that is believed: the largest message of any protocol here and its header.
const MAX_HINT: usize = (64 << 20) + HINT_SLACK;

/// What a receive brought.
pub(crate) enum Received {
    /// Some; whether that was all there was.
    Data {
        drained: bool,
    },
    Nothing,
    End,
    Failed(Errno),
}

pub(crate) struct Inbox {
    pub(crate) data: BytesMut,
    hint: usize,
    chunk: usize,
    largest: usize,
}

impl Inbox {
    /// `largest` is the size up to which buffers grow without a hint, in bytes.
    pub(crate) fn new(largest: usize) -> Inbox {
        let largest = largest.max(4096);
        Inbox {
            data: BytesMut::new(),
            hint: 0,
            chunk: FIRST_CHUNK.min(largest),
            largest,
        }
    }

    /// Announces that the message at the start of `data` has `bytes` bytes in all.
    pub(crate) fn set_hint(&mut self, bytes: usize) {
        self.hint = bytes.min(MAX_HINT);
    }

    /// One receive into the free part of the buffer.
    pub(crate) fn receive(&mut self, fd: impl AsFd) -> Received {
        self.make_room();
        let spare = self.data.spare_capacity_mut();
        let offered = spare.len();
        let taken = match recv(fd, spare, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Received::End,
            Ok(((filled, _), _)) => filled.len(),
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Err(error) => return Received::Failed(error),
        };
        // SAFETY: the kernel filled the first `taken` bytes of the spare capacity, which starts at `len`.
        unsafe { self.data.set_len(self.data.len() + taken) };
        if taken == offered {
            self.chunk = (self.chunk * GROWTH).min(self.largest);
        }
        if self.data.len() >= self.hint {
            self.hint = 0;
        }
        Received::Data {
            drained: taken < offered,
        }
    }

    fn make_room(&mut self) {
        let held = self.data.len();
        let wanted = self.hint.saturating_sub(held).max(self.chunk / 4);
        if self.data.capacity() - held >= wanted || self.data.try_reclaim(wanted) {
            return;
        }
        let size = (held + self.chunk).max(self.hint + HINT_SLACK);
        let mut fresh = match self.hint {
            0 => BytesMut::with_capacity(size),
            _ => aligned_buffer(size),
        };
        fresh.extend_from_slice(&self.data);
        self.data = fresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ALIGNMENT;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    #[test]
    fn slices_survive_and_a_rest_moves_along() {
        let (mut ours, theirs) = pair();
        let mut inbox = Inbox::new(4096);
        let mut kept = Vec::new();
        for round in 0..20u8 {
            ours.write_all(&[round; 1000]).unwrap();
            assert!(matches!(inbox.receive(&theirs), Received::Data { .. }));
            let whole = inbox.data.len() - 300;
            kept.push((inbox.data.split_to(whole).freeze(), round));
        }
        for (slice, round) in kept {
            assert_eq!(slice.last(), Some(&round));
            assert!(slice.iter().all(|byte| *byte == round || *byte + 1 == round));
        }
    }

    #[test]
    fn a_hinted_message_is_never_moved_again() {
        let (mut ours, theirs) = pair();
        let mut inbox = Inbox::new(256 * 1024);
        ours.write_all(&[1; 100]).unwrap();
        inbox.receive(&theirs);
        inbox.set_hint(1 << 20);
        ours.write_all(&[2; 100]).unwrap();
        inbox.receive(&theirs);
        let place = inbox.data.as_ptr();
        while inbox.data.len() < 1 << 20 {
            ours.write_all(&[3; 50_000]).unwrap();
            inbox.receive(&theirs);
        }
        assert_eq!(inbox.data.as_ptr(), place);
        assert_eq!(place.align_offset(ALIGNMENT), 0, "a disk can take it as it is");
        assert_eq!(inbox.hint, 0);
    }

    #[test]
    fn a_consumed_buffer_is_used_again() {
        let (mut ours, theirs) = pair();
        let mut inbox = Inbox::new(16 * 1024);
        ours.write_all(&[1; 4096]).unwrap();
        inbox.receive(&theirs);
        let first = inbox.data.as_ptr() as usize;
        for _ in 0..100 {
            inbox.data.clear();
            ours.write_all(&[1; 4096]).unwrap();
            inbox.receive(&theirs);
            let place = inbox.data.as_ptr() as usize;
            assert!((first..first + FIRST_CHUNK).contains(&place));
        }
    }

    #[test]
    fn the_end_and_nothing_are_told_apart() {
        let (ours, theirs) = pair();
        let mut inbox = Inbox::new(4096);
        assert!(matches!(inbox.receive(&theirs), Received::Nothing));
        drop(ours);
        assert!(matches!(inbox.receive(&theirs), Received::End));
    }
}
