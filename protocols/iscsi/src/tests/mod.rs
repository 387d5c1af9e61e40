//! Byte-level tests: a rig that plays the initiator and the backend.

mod commands;
mod data;
mod fuzzing;
mod login;
mod management;
mod session;

use bytes::{Bytes, BytesMut};

use crate::fuzz::{SIZE, SmallTarget, TARGET};
use crate::{Action, BackendError, BackendOp, CloseReason, Connection, Tag};

/// A PDU as sent by either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) bhs: [u8; 48],
    pub(crate) data: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(opcode: u8, flags: u8) -> Self {
        let mut bhs = [0; 48];
        bhs[0] = opcode;
        bhs[1] = flags;
        Self { bhs, data: Vec::new() }
    }

    pub(crate) fn word(mut self, at: usize, word: u32) -> Self {
        self.bhs[at..at + 4].copy_from_slice(&word.to_be_bytes());
        self
    }

    pub(crate) fn byte(mut self, at: usize, byte: u8) -> Self {
        self.bhs[at] = byte;
        self
    }

    pub(crate) fn with(mut self, data: &[u8]) -> Self {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        self.bhs[5..8].copy_from_slice(&length[1..]);
        self.data = data.to_vec();
        self
    }

    pub(crate) fn cdb(mut self, cdb: &[u8]) -> Self {
        self.bhs[32..32 + cdb.len()].copy_from_slice(cdb);
        self
    }

    pub(crate) fn get(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bhs[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.data.clone()).unwrap().replace('\0', ";")
    }

    /// Key, code and qualifier of the sense data.
    pub(crate) fn sense(&self) -> (u8, u8, u8) {
        assert_eq!(
            (self.bhs[0], self.bhs[3], &self.data[..2]),
            (0x21, 2, &[0, 18][..]),
            "{self:x?}"
        );
        (self.data[4], self.data[14], self.data[15])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = [&self.bhs[..], &self.data].concat();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }
}

/// A connection with what went in and came out.
pub(crate) struct Rig {
    pub(crate) connection: Connection,
    pub(crate) now: u64,
    pub(crate) actions: Vec<Action>,
    input: BytesMut,
    cmd_sn: u32,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self {
            connection: Connection::new(0, 0x55),
            now: 0,
            actions: Vec::new(),
            input: BytesMut::new(),
            cmd_sn: 1,
        }
    }

    /// Logged in, with `keys` besides the names, and the unit attention seen.
    pub(crate) fn logged_in(keys: &str) -> Self {
        let mut rig = Self::new();
        let text = format!("InitiatorName=iqn.test\0TargetName={TARGET}\0{keys}");
        let replies = rig
            .send(&Raw::new(0x43, 0x87).word(24, 1).with(text.as_bytes()))
            .unwrap();
        assert_eq!(replies, [], "held");
        assert!(matches!(rig.actions.pop(), Some(Action::Established { .. })));
        assert_eq!(rig.admit().bhs[36..38], [0, 0]);
        let attention = rig.command(0x80, 9, 0, &[0; 6]);
        assert_eq!(attention[0].sense(), (6, 0x29, 0));
        rig
    }

    pub(crate) fn admit(&mut self) -> Raw {
        let mut out = Vec::new();
        self.connection.admit(&mut out);
        parse(&out).remove(0)
    }

    /// Sends a PDU as it is.
    pub(crate) fn send(&mut self, raw: &Raw) -> Result<Vec<Raw>, CloseReason> {
        let mut out = Vec::new();
        self.send_bytes(&raw.bytes(), &mut out).map(|()| parse(&out))
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8], out: &mut Vec<Bytes>) -> Result<(), CloseReason> {
        self.input.extend_from_slice(bytes);
        self.connection
            .receive(self.now, &mut self.input, &SmallTarget, out, &mut self.actions)
    }

    /// Sends a PDU with the next command number, which it occupies unless it is immediate.
    pub(crate) fn next(&mut self, raw: Raw) -> Vec<Raw> {
        let raw = raw.word(24, self.cmd_sn);
        if raw.bhs[0] & 0x40 == 0 {
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
        self.send(&raw).unwrap()
    }

    /// A SCSI command to LUN 0.
    pub(crate) fn command(&mut self, flags: u8, itt: u32, length: u32, cdb: &[u8]) -> Vec<Raw> {
        self.next(Raw::new(0x01, flags).word(16, itt).word(20, length).cdb(cdb))
    }

    /// The next action, which must be an operation.
    pub(crate) fn op(&mut self) -> (Tag, BackendOp) {
        match self.actions.remove(0) {
            Action::Io { tag, image: 7, op } => (tag, op),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn finish(&mut self, tag: Tag, result: Result<Vec<Bytes>, BackendError>) -> Vec<Raw> {
        let mut out = Vec::new();
        self.connection
            .finished(tag, result, &SmallTarget, &mut out, &mut self.actions);
        parse(&out)
    }

    /// Takes the next action and answers it.
    pub(crate) fn run(&mut self) -> Vec<Raw> {
        let (tag, op) = self.op();
        let data = match op {
            BackendOp::Read { offset, len } => vec![pattern(offset, len as usize)],
            _ => Vec::new(),
        };
        self.finish(tag, Ok(data))
    }
}

/// Bytes that tell where they are.
pub(crate) fn pattern(offset: u64, len: usize) -> Bytes {
    assert!(offset + len as u64 <= SIZE);
    (offset..)
        .take(len)
        .map(|at| u8::try_from((at ^ at >> 9) & 0xFF).unwrap())
        .collect()
}

/// Splits the output into PDUs; checks padding.
pub(crate) fn parse(out: &[Bytes]) -> Vec<Raw> {
    let bytes = out.concat();
    let (mut rest, mut pdus) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let bhs: [u8; 48] = rest[..48].try_into().unwrap();
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let padded = length.next_multiple_of(4);
        pdus.push(Raw {
            bhs,
            data: rest[48..48 + length].to_vec(),
        });
        rest = &rest[48 + padded..];
    }
    pdus
}
