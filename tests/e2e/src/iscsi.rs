//! iSCSI PDUs as bytes (RFC 7143, section 11), enough to log in and send
//! commands whose answers nobody waits for.

/// Bytes of a basic header segment.
pub const HEADER: usize = 48;

/// Opcodes of an initiator, with the immediate bit where it belongs.
pub mod opcode {
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const COMMAND: u8 = 0x01;
    /// Task Management Function Request, immediate.
    pub const TASK_MANAGEMENT: u8 = 0x42;
    /// Login Request, immediate.
    pub const LOGIN: u8 = 0x43;
    /// Text Request.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// Login Response, from the target.
    pub const LOGIN_RESPONSE: u8 = 0x23;
}

/// A PDU under construction.
#[derive(Clone, Debug)]
pub struct Pdu {
    header: [u8; HEADER],
    data: Vec<u8>,
}

impl Pdu {
    /// Opcode (byte 0) and flags (byte 1); task tag and CmdSN `number`.
    #[must_use]
    pub fn new(opcode: u8, flags: u8, number: u32) -> Self {
        let mut header = [0; HEADER];
        header[0] = opcode;
        header[1] = flags;
        Self {
            header,
            data: Vec::new(),
        }
        .set(16, &number.to_be_bytes())
        .set(24, &number.to_be_bytes())
    }

    /// Bytes of the header from `at` on.
    #[must_use]
    pub fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The data segment.
    #[must_use]
    pub fn data(mut self, data: &[u8]) -> Self {
        let len = u32::try_from(data.len()).expect("a short segment").to_be_bytes();
        self.data = data.to_vec();
        self.data.resize(data.len().next_multiple_of(4), 0);
        self.set(5, &len[1..])
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.data].concat()
    }
}

/// A login in one step (operational to full feature) with these keys.
#[must_use]
pub fn login(keys: &[(&str, &str)]) -> Pdu {
    let text: String = keys.iter().map(|(key, value)| format!("{key}={value}\0")).collect();
    Pdu::new(opcode::LOGIN, 0x87, 1)
        .set(8, &[0x80, 0, 0, 1, 0, 1])
        .data(text.as_bytes())
}

/// The keys of a discovery session.
pub const DISCOVERY: &[(&str, &str)] = &[
    ("InitiatorName", "iqn.2026-11.io.trivet.test:fuzz"),
    ("SessionType", "Discovery"),
    ("AuthMethod", "None"),
];

/// A command for LUN 0 with a CDB; `flags` say read, write and final.
#[must_use]
pub fn command(flags: u8, number: u32, expected: u32, cdb: &[u8]) -> Pdu {
    Pdu::new(opcode::COMMAND, flags, number)
        .set(20, &expected.to_be_bytes())
        .set(32, cdb)
}

#[cfg(test)]
mod tests {
    use super::{DISCOVERY, HEADER, login};

    #[test]
    fn states_the_segment_length_without_padding() {
        let bytes = login(&[("a", "b")]).bytes();
        assert_eq!((bytes[5..8].to_vec(), bytes.len()), (vec![0, 0, 4], HEADER + 4));
        assert_eq!(login(DISCOVERY).bytes().len() % 4, 0);
    }
}
