//! An iSCSI initiator: login in one step, immediate data, data that is asked for, pings.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::session::{Ask, Found, Input, Refusal, Said, Session, be32};
use crate::stamp::SECTOR;

const HEAD: usize = 48;
const NO_TAG: u32 = u32::MAX;
/// Immediate data of a command at most: the protocol's default of FirstBurstLength.
const FIRST_BURST: usize = 65_536;
/// A data segment at most: what targets take before they have declared more.
const SEGMENT: usize = 8192;
/// The number of the command that clears what a new session is told first.
const WAKE: u32 = 0x7fff_0000;
const FINAL: u8 = 0x80;
const CHECK_CONDITION: u8 = 2;
const UNIT_ATTENTION: u8 = 6;
/// The sense key of a write for which there is no room, with the additional code that says so.
const DATA_PROTECT: u8 = 7;

/// A command without an answer.
struct Command {
    ask: Ask,
    data: BytesMut,
}

/// A session with one target.
pub struct IscsiInitiator {
    target: String,
    initiator: String,
    input: Input,
    ready: bool,
    next_command: u32,
    next_status: u32,
    commands: BTreeMap<u32, Command>,
}

impl IscsiInitiator {
    /// An initiator of this name, of the target of this image.
    #[must_use]
    pub fn new(image: &str, initiator: usize) -> IscsiInitiator {
        IscsiInitiator {
            target: format!("iqn.2026-11.io.trivet:{image}"),
            initiator: format!("iqn.2026-11.io.trivet.sim:user{initiator}"),
            input: Input::default(),
            ready: false,
            next_command: 1,
            next_status: 0,
            commands: BTreeMap::new(),
        }
    }

    /// A basic header with its usual numbers.
    fn head(&self, opcode: u8, flags: u8, tag: u32) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        (head[0], head[1]) = (opcode, flags);
        put(&mut head, 16, tag);
        put(&mut head, 24, self.next_command);
        put(&mut head, 28, self.next_status);
        head
    }

    /// A command of the image: the descriptor block, the bytes that move, and which way.
    fn command(&mut self, tag: u32, ask: Ask, out: &mut Vec<Bytes>) {
        let (cdb, flags, len, data) = describe(&ask);
        let mut head = self.head(0x01, FINAL | flags, tag);
        put(&mut head, 20, u32::try_from(len).expect("short transfers"));
        head[32..48].copy_from_slice(&cdb);
        self.next_command += 1;
        let immediate = data.len().min(SEGMENT.min(FIRST_BURST));
        segment(head, &data[..immediate], out);
        let data = BytesMut::new();
        self.commands.insert(tag, Command { ask, data });
    }

    fn pdu(&mut self, head: &Bytes, data: &Bytes, out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<(), String> {
        let tag = be32(head, 16);
        let opcode = head[0] & 0x3f;
        if matches!(opcode, 0x21 | 0x23) || (opcode == 0x25 && head[1] & 1 != 0) {
            self.next_status = be32(head, 24) + 1;
        }
        match opcode {
            0x20 if be32(head, 20) != NO_TAG => {
                let mut answer = self.head(0x40, FINAL, NO_TAG);
                answer[20..24].copy_from_slice(&head[20..24]);
                answer[8..16].copy_from_slice(&head[8..16]);
                segment(answer, &[], out);
            }
            0x20 => {}
            0x23 if head[36] == 0 => {
                // Login is over: what a new session has to be told comes with its first command.
                self.command(WAKE, Ask::Flush, out);
            }
            0x23 => return Err(format!("iSCSI login refused: {:x}{:02x}", head[36], head[37])),
            0x25 => return self.data_in(tag, head, data, said),
            0x31 => return self.asked_for(tag, head, out),
            0x21 => return self.response(tag, head, data, out, said),
            other => return Err(format!("iSCSI opcode {other:x}")),
        }
        Ok(())
    }

    fn data_in(&mut self, tag: u32, head: &Bytes, data: &Bytes, said: &mut Vec<Said>) -> Result<(), String> {
        let command = self.commands.get_mut(&tag).ok_or("data of no command")?;
        if be32(head, 40) as usize != command.data.len() {
            return Err("data out of order".into());
        }
        command.data.extend_from_slice(data);
        if head[1] & 1 != 0 {
            let command = self.commands.remove(&tag).ok_or("data of no command")?;
            said.push(Said::Answer(u64::from(tag), Ok(Found::Data(command.data.freeze()))));
        }
        Ok(())
    }

    /// The target is ready to take data.
    fn asked_for(&mut self, tag: u32, head: &Bytes, out: &mut Vec<Bytes>) -> Result<(), String> {
        let command = self.commands.get(&tag).ok_or("data asked for no command")?;
        let Ask::Write { data, .. } = &command.ask else {
            return Err("data asked for a command without".into());
        };
        let (offset, len) = (be32(head, 40) as usize, be32(head, 44) as usize);
        let burst = data
            .get(offset..offset + len)
            .ok_or("more data asked for than there is")?;
        let pieces = burst.chunks(SEGMENT);
        let last = pieces.len() - 1;
        for (number, piece) in (0..).zip(pieces) {
            let flags = if number == last { FINAL } else { 0 };
            let mut answer = self.head(0x05, flags, tag);
            answer[8..16].copy_from_slice(&head[8..16]);
            answer[20..24].copy_from_slice(&head[20..24]);
            put(&mut answer, 36, u32::try_from(number).expect("few pieces"));
            put(
                &mut answer,
                40,
                u32::try_from(offset + number * SEGMENT).expect("short transfers"),
            );
            segment(answer, piece, out);
        }
        Ok(())
    }

    fn response(
        &mut self,
        tag: u32,
        head: &Bytes,
        data: &Bytes,
        out: &mut Vec<Bytes>,
        said: &mut Vec<Said>,
    ) -> Result<(), String> {
        let command = self.commands.remove(&tag).ok_or("an answer to no command")?;
        let sense = (head[3] == CHECK_CONDITION).then(|| sense(data));
        if let Some((UNIT_ATTENTION, _)) = sense {
            // The target said something that everybody has to hear once: the command was not executed.
            self.command(tag, command.ask, out);
            return Ok(());
        }
        if tag == WAKE {
            self.ready = true;
            said.push(Said::Ready);
            return Ok(());
        }
        let answer = match (head[2], head[3], sense) {
            (0, 0, _) if !command.data.is_empty() => Ok(Found::Data(command.data.freeze())),
            (0, 0, _) => Ok(Found::Done),
            (0, CHECK_CONDITION, Some((DATA_PROTECT, 0x27))) => Err(Refusal::NoSpace),
            (0, CHECK_CONDITION, Some((3 | 4, _))) => Err(Refusal::Io),
            (response, status, sense) => Err(Refusal::Other(format!(
                "iSCSI response {response} status {status} sense {sense:x?}"
            ))),
        };
        said.push(Said::Answer(u64::from(tag), answer));
        Ok(())
    }
}

/// The sense key and the additional code of a response's data, of either format.
fn sense(data: &Bytes) -> (u8, u8) {
    let at = |index: usize| data.get(2 + index).copied().unwrap_or(0);
    if at(0) & 0x7f == 0x72 {
        (at(1) & 0xf, at(2))
    } else {
        (at(2) & 0xf, at(12))
    }
}

/// The descriptor block, the read and write flags, the bytes that move, and those that are sent.
fn describe(ask: &Ask) -> ([u8; 16], u8, usize, Bytes) {
    let blocks = |bytes: usize| u32::try_from(bytes / SECTOR).expect("short transfers");
    match ask {
        Ask::Read { offset, len } => {
            let len = *len as usize;
            (cdb(0x88, *offset, blocks(len)), 0x40, len, Bytes::new())
        }
        Ask::Write { offset, data } => (cdb(0x8a, *offset, blocks(data.len())), 0x20, data.len(), data.clone()),
        Ask::Zero { offset, len } => {
            let mut list = BytesMut::zeroed(24);
            (list[1], list[3]) = (22, 16);
            list[8..16].copy_from_slice(&(offset / SECTOR as u64).to_be_bytes());
            list[16..20].copy_from_slice(&blocks(*len as usize).to_be_bytes());
            let mut cdb = [0; 16];
            (cdb[0], cdb[8]) = (0x42, 24);
            (cdb, 0x20, 24, list.freeze())
        }
        Ask::Flush => ([0; 16], 0, 0, Bytes::new()),
        Ask::Name(_) | Ask::Put { .. } => panic!("iSCSI has no names: {ask:?}"),
    }
}

/// READ (16), WRITE (16).
fn cdb(code: u8, offset: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[2..10].copy_from_slice(&(offset / SECTOR as u64).to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn put(head: &mut [u8; HEAD], at: usize, word: u32) {
    head[at..at + 4].copy_from_slice(&word.to_be_bytes());
}

/// A header and its data segment, padded to words.
fn segment(mut head: [u8; HEAD], data: &[u8], out: &mut Vec<Bytes>) {
    let len = u32::try_from(data.len()).expect("short segments");
    head[5..8].copy_from_slice(&len.to_be_bytes()[1..]);
    let mut whole = BytesMut::with_capacity(HEAD + data.len() + 3);
    whole.put_slice(&head);
    whole.put_slice(data);
    whole.put_bytes(0, data.len().next_multiple_of(4) - data.len());
    out.push(whole.freeze());
}

impl Session for IscsiInitiator {
    fn hello(&mut self, out: &mut Vec<Bytes>) {
        // From operational negotiation to full feature phase.
        let mut head = self.head(0x43, 0x87, 0);
        head[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, 1]);
        let text = format!(
            "InitiatorName={}\0TargetName={}\0SessionType=Normal\0MaxRecvDataSegmentLength=65536\0",
            self.initiator, self.target
        );
        segment(head, text.as_bytes(), out);
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<(), String> {
        self.input.push(bytes);
        while let Some(head) = self.input.peek(HEAD) {
            let len = (be32(head, 4) & 0x00ff_ffff) as usize;
            let Some(mut head) = self.input.take(HEAD + len.next_multiple_of(4)) else {
                break;
            };
            let mut data = head.split_off(HEAD);
            data.truncate(len);
            self.pdu(&head, &data, out, said)?;
        }
        Ok(())
    }

    fn ask(&mut self, number: u64, ask: &Ask, out: &mut Vec<Bytes>) {
        let tag = u32::try_from(number).expect("few operations");
        self.command(tag, ask.clone(), out);
    }
}
