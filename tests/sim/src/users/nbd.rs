//! An NBD client: the fixed newstyle handshake with GO, then simple replies.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::session::{Ask, Found, Input, Refusal, Said, Session, be32, be64};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const GO: u32 = 7;
/// Replies to options.
const ACK: u32 = 1;
const INFO: u32 = 3;
/// Fixed newstyle, no zeroes.
const CLIENT_FLAGS: u32 = 3;
const EIO: u32 = 5;
const ENOSPC: u32 = 28;

enum Stage {
    Greeting,
    Option,
    Transmission,
}

/// A connection to one export.
pub struct NbdClient {
    export: String,
    stage: Stage,
    input: Input,
    /// Bytes that the answer carries if it is a success.
    asked: BTreeMap<u64, usize>,
}

impl NbdClient {
    /// A client of this export.
    #[must_use]
    pub fn new(export: &str) -> NbdClient {
        NbdClient {
            export: export.to_owned(),
            stage: Stage::Greeting,
            input: Input::default(),
            asked: BTreeMap::new(),
        }
    }

    fn go(&self) -> Bytes {
        let name = self.export.as_bytes();
        let len = u32::try_from(name.len()).expect("short names");
        let mut out = BytesMut::new();
        out.put_u32(CLIENT_FLAGS);
        out.put_u64(OPTION_MAGIC);
        out.put_u32(GO);
        out.put_u32(len + 6);
        out.put_u32(len);
        out.put_slice(name);
        out.put_u16(0);
        out.freeze()
    }

    /// Takes one message; false if it is not whole.
    fn step(&mut self, out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<bool, String> {
        match self.stage {
            Stage::Greeting => {
                let Some(greeting) = self.input.take(18) else {
                    return Ok(false);
                };
                if &greeting[..16] != b"NBDMAGICIHAVEOPT" {
                    return Err(format!("NBD greeting {greeting:?}"));
                }
                out.push(self.go());
                self.stage = Stage::Option;
                Ok(true)
            }
            Stage::Option => self.option_reply(said),
            Stage::Transmission => self.reply(said),
        }
    }

    fn option_reply(&mut self, said: &mut Vec<Said>) -> Result<bool, String> {
        let Some(head) = self.input.peek(20) else {
            return Ok(false);
        };
        let (magic, option, kind, len) = (be64(head, 0), be32(head, 8), be32(head, 12), be32(head, 16));
        if magic != OPTION_REPLY || option != GO {
            return Err(format!("NBD option reply {head:?}"));
        }
        if self.input.take(20 + len as usize).is_none() {
            return Ok(false);
        }
        match kind {
            INFO => {}
            ACK => {
                self.stage = Stage::Transmission;
                said.push(Said::Ready);
            }
            other => return Err(format!("NBD GO of {}: error {other:x}", self.export)),
        }
        Ok(true)
    }

    fn reply(&mut self, said: &mut Vec<Said>) -> Result<bool, String> {
        let Some(head) = self.input.peek(16) else {
            return Ok(false);
        };
        let (magic, error, handle) = (be32(head, 0), be32(head, 4), be64(head, 8));
        if magic != REPLY {
            return Err(format!("NBD reply {head:?}"));
        }
        let Some(&len) = self.asked.get(&handle) else {
            return Err(format!("an NBD reply to {handle}, which was not asked"));
        };
        let len = if error == 0 { len } else { 0 };
        let Some(mut data) = self.input.take(16 + len) else {
            return Ok(false);
        };
        self.asked.remove(&handle);
        let data = data.split_off(16);
        said.push(Said::Answer(handle, outcome(error, data)));
        Ok(true)
    }
}

fn outcome(error: u32, data: Bytes) -> Result<Found, Refusal> {
    match error {
        0 if data.is_empty() => Ok(Found::Done),
        0 => Ok(Found::Data(data)),
        EIO => Err(Refusal::Io),
        ENOSPC => Err(Refusal::NoSpace),
        other => Err(Refusal::Other(format!("NBD error {other}"))),
    }
}

impl Session for NbdClient {
    fn hello(&mut self, _: &mut Vec<Bytes>) {}

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<(), String> {
        self.input.push(bytes);
        while self.step(out, said)? {}
        Ok(())
    }

    fn ask(&mut self, number: u64, ask: &Ask, out: &mut Vec<Bytes>) {
        let (command, offset, len, back) = match ask {
            Ask::Read { offset, len } => (0, *offset, *len, *len as usize),
            Ask::Write { offset, data } => (1, *offset, u32::try_from(data.len()).expect("short writes"), 0),
            Ask::Flush => (3, 0, 0, 0),
            // TRIM and WRITE_ZEROES are the same to this server.
            Ask::Zero { offset, len } => (if number.is_multiple_of(2) { 4 } else { 6 }, *offset, *len, 0),
            Ask::Name(_) | Ask::Put { .. } => panic!("NBD has no names: {ask:?}"),
        };
        self.asked.insert(number, back);
        let mut head = BytesMut::new();
        head.put_u32(REQUEST);
        head.put_u16(0);
        head.put_u16(command);
        head.put_u64(number);
        head.put_u64(offset);
        head.put_u32(len);
        out.push(head.freeze());
        if let Ask::Write { data, .. } = ask {
            out.push(data.clone());
        }
    }
}
