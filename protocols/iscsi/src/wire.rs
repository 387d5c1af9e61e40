//! The sending side of a connection: sequence numbers and the place headers are written to.

use bytes::{Bytes, BytesMut};

use crate::WINDOW;
use crate::pdu::{BHS_LEN, Bhs};

/// Headers are carved from arenas of this many.
const ARENA_HEADERS: usize = 64;
/// Padding to a multiple of four.
const PAD: [u8; 3] = [0; 3];

/// How a PDU uses the status sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stat {
    /// It carries status: the number is its own.
    Take,
    /// It shows the next number.
    Show,
    /// The field is reserved.
    Absent,
}

/// Where the sequence number of a command lies (RFC 7143 4.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next one.
    Next,
    /// Outside of the window, or seen before: to be ignored.
    Outside,
    /// Within the window, but one before it is missing: on one connection it cannot come any more.
    Gap,
}

/// Sequence numbers and header memory.
#[derive(Debug)]
pub(crate) struct Wire {
    stat_sn: u32,
    exp_cmd_sn: u32,
    /// Commands that occupy the window.
    pub(crate) outstanding: u32,
    arena: BytesMut,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            stat_sn: 1,
            exp_cmd_sn: 0,
            outstanding: 0,
            arena: BytesMut::new(),
        }
    }

    /// Starts the command numbering: the first login request has told it.
    pub(crate) fn start(&mut self, cmd_sn: u32) {
        self.exp_cmd_sn = cmd_sn;
    }

    /// The last command number that the initiator may use. It never decreases: every number that is taken occupies the window
    /// until its task ends.
    fn max_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn
            .wrapping_add(WINDOW.saturating_sub(self.outstanding))
            .wrapping_sub(1)
    }

    /// Places the number of a command that is not immediate, and takes it if it is the next.
    pub(crate) fn sequence(&mut self, cmd_sn: u32) -> Place {
        let ahead = cmd_sn.wrapping_sub(self.exp_cmd_sn);
        let room = self.max_cmd_sn().wrapping_sub(self.exp_cmd_sn).wrapping_add(1);
        if ahead >= room {
            return Place::Outside;
        }
        if ahead > 0 {
            return Place::Gap;
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        Place::Next
    }

    /// Sends a PDU: fills sequence numbers and length in, and puts header, data and padding out.
    pub(crate) fn send(&mut self, bhs: Bhs, stat: Stat, data: &[Bytes], out: &mut Vec<Bytes>) {
        let length: usize = data.iter().map(Bytes::len).sum();
        let word = u32::try_from(length)
            .expect("a segment is shorter than 2^24")
            .to_be_bytes();
        let mut bhs = bhs
            .set(5, [word[1], word[2], word[3]])
            .put(28, self.exp_cmd_sn)
            .put(32, self.max_cmd_sn());
        if stat != Stat::Absent {
            bhs = bhs.put(24, self.stat_sn);
        }
        if stat == Stat::Take {
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        if self.arena.capacity() < BHS_LEN {
            self.arena = BytesMut::with_capacity(ARENA_HEADERS * BHS_LEN);
        }
        self.arena.extend_from_slice(&bhs.0);
        out.push(self.arena.split().freeze());
        out.extend(data.iter().filter(|piece| !piece.is_empty()).cloned());
        if !length.is_multiple_of(4) {
            out.push(Bytes::from_static(&PAD[..4 - length % 4]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        let mut wire = Wire::new();
        wire.start(u32::MAX);
        assert_eq!(wire.sequence(u32::MAX), Place::Next);
        assert_eq!(wire.sequence(u32::MAX), Place::Outside, "a duplicate");
        assert_eq!(wire.sequence(1), Place::Gap);
        assert_eq!(wire.sequence(0), Place::Next);
        assert_eq!(wire.sequence(WINDOW), Place::Gap);
        assert_eq!(wire.sequence(WINDOW + 1), Place::Outside);
    }

    #[test]
    fn a_full_window_takes_nothing() {
        let mut wire = Wire::new();
        wire.start(5);
        wire.outstanding = WINDOW;
        assert_eq!(wire.sequence(5), Place::Outside);
        wire.outstanding -= 1;
        assert_eq!(wire.sequence(5), Place::Next);
    }

    #[test]
    fn pdus_are_numbered_and_padded() {
        let mut wire = Wire::new();
        let mut out = Vec::new();
        let data = [Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        wire.send(Bhs::new(0x20, 0x80), Stat::Take, &data, &mut out);
        wire.send(Bhs::new(0x20, 0x80), Stat::Show, &[], &mut out);
        wire.send(Bhs::new(0x25, 0x80), Stat::Absent, &[], &mut out);
        assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [48, 3, 2, 3, 48, 48]);
        assert_eq!(out[0][4..8], [0, 0, 0, 5]);
        assert_eq!(out[0][24..36], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 127]);
        assert_eq!((out[4][27], out[5][27]), (2, 0));
    }
}
