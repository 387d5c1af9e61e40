//! iSCSI (RFC 7143 clause 11): PDUs of a session. Samples begin with the target's byte of flags: 1 logs in first.

/// A basic header segment, and its data padded to four bytes.
#[derive(Clone)]
struct Pdu {
    header: [u8; 48],
    data: Vec<u8>,
}

impl Pdu {
    fn new(opcode: u8, flags: u8) -> Pdu {
        let mut header = [0; 48];
        (header[0], header[1]) = (opcode, flags);
        Pdu {
            header,
            data: Vec::new(),
        }
    }

    fn word(mut self, at: usize, value: u32) -> Pdu {
        self.header[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn data(mut self, data: &[u8]) -> Pdu {
        let len = u32::try_from(data.len()).expect("samples are short").to_be_bytes();
        self.header[5..8].copy_from_slice(&len[1..]);
        self.data = data.to_vec();
        self.data.resize(data.len().next_multiple_of(4), 0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.data].concat()
    }
}

/// A SCSI command whose CDB starts with `cdb`. `flags`: 0x80 final, 0x40 reads, 0x20 writes.
fn command(flags: u8, expected: u32, cdb: &[u8]) -> Pdu {
    let mut pdu = Pdu::new(0x01, flags).word(20, expected);
    pdu.header[32..32 + cdb.len()].copy_from_slice(cdb);
    pdu
}

fn commands() -> Vec<Pdu> {
    let none = u32::MAX;
    vec![
        command(0x80, 0, &[0x00]),
        command(0xc0, 36, &[0x12, 0, 0, 0, 36]),
        command(0xc0, 8, &[0x25]),
        command(0xc0, 1024, &[0x28, 0, 0, 0, 0, 8, 0, 0, 2]),
        command(0xa0, 512, &[0x2a, 0, 0, 0, 0, 8, 0, 0, 1]).data(&[0x77; 512]),
        command(0x20, 1024, &[0x2a, 0, 0, 0, 0, 16, 0, 0, 2]),
        Pdu::new(0x05, 0x80).word(20, none).data(&[0x66; 1024]),
        command(0xa0, 24, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24]).data(&[0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]),
        Pdu::new(0x40, 0x80).word(20, none).data(b"ping"),
        Pdu::new(0x42, 0x81).word(20, 3),
        Pdu::new(0x04, 0x80).word(20, none).data(b"SendTargets=All\0"),
        Pdu::new(0x06, 0x80),
    ]
}

/// The commands with their task tags and command numbers.
fn session() -> Vec<u8> {
    let mut number = 1;
    let mut out = Vec::new();
    for (tag, pdu) in (1..).zip(commands()) {
        // Data-out belongs to the command before it and has no number (11.7).
        let tag = if pdu.header[0] == 0x05 { tag - 1 } else { tag };
        let numbered = pdu.header[0] & 0x40 == 0 && pdu.header[0] != 0x05;
        let pdu = pdu.word(16, tag);
        let pdu = if pdu.header[0] == 0x05 {
            pdu
        } else {
            pdu.word(24, number)
        };
        out.extend(pdu.bytes());
        number += u32::from(numbered);
    }
    out
}

/// Two login requests: CHAP is offered and refused by choice of None, then parameters are negotiated (RFC 7143 13).
fn negotiation() -> Vec<u8> {
    let security =
        b"InitiatorName=iqn.fuzz\0SessionType=Normal\0TargetName=iqn.2026-11.io.trivet:fuzz\0AuthMethod=CHAP,None\0";
    let operational =
        b"HeaderDigest=CRC32C,None\0DataDigest=None\0MaxBurstLength=262144\0ImmediateData=Yes\0ErrorRecoveryLevel=0\0";
    let first = Pdu::new(0x43, 0x81).word(24, 1).data(security);
    let second = Pdu::new(0x43, 0x87).word(24, 1).data(operational);
    [first.bytes(), second.bytes()].concat()
}

/// Sessions whole and in single commands, logged in and not.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let pieces = 6;
    let mut all = vec![
        [&[1 | pieces][..], &session()].concat(),
        [&[pieces][..], &negotiation(), &session()].concat(),
        [&[2][..], &trivet_iscsi::fuzz::login(), &session()].concat(),
        [&[0][..], &negotiation()].concat(),
    ];
    let single = commands().into_iter().map(|pdu| pdu.word(16, 1).word(24, 1));
    all.extend(single.map(|pdu| [&[1 | pieces][..], &pdu.bytes()].concat()));
    all
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use trivet_iscsi::fuzz::{SmallTarget, login};
    use trivet_iscsi::{Action, Connection};

    use super::{negotiation, session};

    /// The backend operations that a stream leads to, and whether anybody logged in.
    fn seen(stream: &[u8]) -> (bool, usize) {
        let mut connection = Connection::new(0, 1);
        let mut input = BytesMut::from(stream);
        let (mut out, mut actions, mut seen) = (Vec::new(), Vec::new(), (false, 0));
        let mut goes_on = true;
        while goes_on {
            goes_on = connection
                .receive(1, &mut input, &SmallTarget, &mut out, &mut actions)
                .is_ok()
                && !actions.is_empty();
            for action in actions.drain(..) {
                match action {
                    Action::Established { .. } => {
                        seen.0 = true;
                        connection.admit(&mut out);
                    }
                    Action::Io { .. } => seen.1 += 1,
                    Action::Reset { .. } => {}
                }
            }
        }
        seen
    }

    #[test]
    fn sessions_reach_the_backend() {
        assert!(seen(&[login(), session()].concat()).1 >= 2);
        assert!(seen(&negotiation()).0);
    }
}
