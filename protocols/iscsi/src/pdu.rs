//! Framing: the basic header segment (RFC 7143 11.2) and taking one PDU off the input, within limits.

use bytes::{Buf, Bytes, BytesMut};

use crate::CloseReason;

/// Bytes of a basic header segment.
pub(crate) const BHS_LEN: usize = 48;
/// The reserved value of task tags and target transfer tags.
pub(crate) const NO_TAG: u32 = 0xFFFF_FFFF;

/// Operation codes, initiator's (RFC 7143 11.2.1.2).
pub(crate) mod opcode {
    pub(crate) const NOP_OUT: u8 = 0x00;
    pub(crate) const COMMAND: u8 = 0x01;
    pub(crate) const MANAGEMENT: u8 = 0x02;
    pub(crate) const LOGIN: u8 = 0x03;
    pub(crate) const TEXT: u8 = 0x04;
    pub(crate) const DATA_OUT: u8 = 0x05;
    pub(crate) const LOGOUT: u8 = 0x06;
    pub(crate) const SNACK: u8 = 0x10;
    pub(crate) const NOP_IN: u8 = 0x20;
    pub(crate) const RESPONSE: u8 = 0x21;
    pub(crate) const MANAGEMENT_RESPONSE: u8 = 0x22;
    pub(crate) const LOGIN_RESPONSE: u8 = 0x23;
    pub(crate) const TEXT_RESPONSE: u8 = 0x24;
    pub(crate) const DATA_IN: u8 = 0x25;
    pub(crate) const LOGOUT_RESPONSE: u8 = 0x26;
    pub(crate) const R2T: u8 = 0x31;
    pub(crate) const REJECT: u8 = 0x3F;
}

/// A basic header segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bhs(pub(crate) [u8; BHS_LEN]);

impl Bhs {
    /// A header to send: opcode and the byte after it.
    pub(crate) fn new(opcode: u8, flags: u8) -> Self {
        let mut bytes = [0; BHS_LEN];
        bytes[0] = opcode;
        bytes[1] = flags;
        Self(bytes)
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.0[0] & 0x3F
    }

    pub(crate) fn immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    pub(crate) fn flags(&self) -> u8 {
        self.0[1]
    }

    /// The F bit, or T in login.
    pub(crate) fn is_final(&self) -> bool {
        self.0[1] & 0x80 != 0
    }

    /// The C bit of login and text.
    pub(crate) fn continues(&self) -> bool {
        self.0[1] & 0x40 != 0
    }

    pub(crate) fn ahs_len(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    pub(crate) fn data_len(&self) -> usize {
        u32::from_be_bytes([0, self.0[5], self.0[6], self.0[7]]) as usize
    }

    pub(crate) fn lun(&self) -> [u8; 8] {
        self.field(8)
    }

    pub(crate) fn itt(&self) -> u32 {
        self.word(16)
    }

    /// The target transfer tag, the referenced task tag, or the expected data transfer length.
    pub(crate) fn word20(&self) -> u32 {
        self.word(20)
    }

    pub(crate) fn cmd_sn(&self) -> u32 {
        self.word(24)
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.field(at))
    }

    pub(crate) fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[at..at + N]);
        out
    }

    /// Sets bytes at `at`.
    pub(crate) fn set<const N: usize>(mut self, at: usize, bytes: [u8; N]) -> Self {
        self.0[at..at + N].copy_from_slice(&bytes);
        self
    }

    /// Sets a 32-bit field.
    pub(crate) fn put(self, at: usize, word: u32) -> Self {
        self.set(at, word.to_be_bytes())
    }
}

/// A whole PDU; additional header segments are skipped, for nothing here uses them.
pub(crate) struct Pdu {
    pub(crate) bhs: Bhs,
    pub(crate) data: Bytes,
}

/// What the input may be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ahs: usize,
    pub(crate) data: usize,
}

/// Takes one PDU off the input. `Ok(Err(n))`: at least `n` bytes are missing.
pub(crate) fn take(input: &mut BytesMut, limits: Limits) -> Result<Result<Pdu, usize>, CloseReason> {
    let Some(bytes) = input.first_chunk::<BHS_LEN>() else {
        return Ok(Err(BHS_LEN - input.len()));
    };
    let bhs = Bhs(*bytes);
    let (ahs, data) = (bhs.ahs_len(), bhs.data_len());
    if ahs > limits.ahs || data > limits.data {
        return Err(CloseReason::TooLong {
            opcode: bhs.opcode(),
            ahs,
            data,
        });
    }
    let total = BHS_LEN + ahs + data.next_multiple_of(4);
    if input.len() < total {
        return Ok(Err(total - input.len()));
    }
    input.advance(BHS_LEN + ahs);
    let data = if data == 0 {
        Bytes::new()
    } else {
        let mut segment = input.split_to(data.next_multiple_of(4)).freeze();
        segment.truncate(data);
        segment
    };
    Ok(Ok(Pdu { bhs, data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { ahs: 8, data: 100 };

    fn bytes(ahs: u8, data: u8, tail: usize) -> BytesMut {
        let mut out = BytesMut::zeroed(BHS_LEN + tail);
        out[4] = ahs;
        out[7] = data;
        out
    }

    #[test]
    fn whole_pdus_are_taken_and_padding_dropped() {
        let mut input = bytes(1, 5, 4 + 8 + 3);
        input[BHS_LEN + 4] = 9;
        let pdu = take(&mut input, LIMITS).unwrap().ok().unwrap();
        assert_eq!((&pdu.data[..], input.len()), (&[9, 0, 0, 0, 0][..], 3));
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(take(&mut BytesMut::new(), LIMITS).unwrap().err(), Some(48));
        assert_eq!(take(&mut bytes(2, 5, 3), LIMITS).unwrap().err(), Some(13));
    }

    #[test]
    fn limits_hold_before_the_bytes_are_there() {
        assert!(take(&mut bytes(0, 101, 0), LIMITS).is_err());
        assert!(take(&mut bytes(3, 0, 0), LIMITS).is_err());
    }
}
