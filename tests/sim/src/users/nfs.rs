//! An NFSv3 client: MOUNT, then calls with AUTH_SYS credentials over one connection.
//!
//! The number of a question is the call's xid: asked again on another connection it is the same call.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::names::{Attributes, CreateHow, NameCall, NameReply};
use super::session::{Ask, Found, Input, Refusal, Said, Session, be32, be64};

const NFS: (u32, u32) = (100_003, 3);
const MOUNT: (u32, u32) = (100_005, 3);
const LAST_FRAGMENT: u32 = 1 << 31;
/// The xids of the calls that a connection begins with.
const MOUNTING: u64 = 0xffff_0001;
const LOOKING: u64 = 0xffff_0002;
/// Statuses.
const OK: u32 = 0;
const IO: u32 = 5;
const NO_SPACE: u32 = 28;
const STALE: u32 = 70;
/// ftype3 of a directory.
const DIRECTORY: u32 = 2;
const JUKEBOX: u32 = 10_008;
const SERVER_FAULT: u32 = 10_006;
/// Bytes of fattr3.
const FATTR: usize = 84;
/// Bytes of a listing.
const LISTING: u32 = 65_536;

/// The handles that an NFS client keeps over connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handles {
    /// Of the root.
    pub root: Bytes,
    /// Of the file that is the user's image.
    pub file: Bytes,
}

/// One connection of an NFS client.
pub struct NfsClient {
    user: usize,
    file: String,
    handles: Handles,
    input: Input,
    asked: BTreeMap<u64, Procedure>,
}

/// What has to be known of a call to read its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Procedure {
    Mount,
    GetAttr,
    SetAttr,
    Lookup,
    Read,
    Write,
    Make,
    Remove,
    Rename,
    Link,
    List,
    Commit,
}

impl NfsClient {
    /// A connection of this user, of the file of this name; `handles` are from an earlier one, or empty.
    #[must_use]
    pub fn new(user: usize, file: &str, handles: Handles) -> NfsClient {
        NfsClient {
            user,
            file: file.to_owned(),
            handles,
            input: Input::default(),
            asked: BTreeMap::new(),
        }
    }

    fn call(
        &mut self,
        xid: u64,
        program: (u32, u32),
        (number, procedure): (u32, Procedure),
        arguments: &[u8],
    ) -> Bytes {
        self.asked.insert(xid, procedure);
        let machine = format!("user{}", self.user);
        let mut out = BytesMut::new();
        out.put_u32(0);
        for word in [
            u32::try_from(xid).expect("few calls"),
            0,
            2,
            program.0,
            program.1,
            number,
        ] {
            out.put_u32(word);
        }
        out.put_u32(1);
        let name = machine.len().next_multiple_of(4);
        out.put_u32(u32::try_from(20 + name).expect("short names"));
        out.put_u32(0);
        opaque(&mut out, machine.as_bytes());
        out.put_bytes(0, 12);
        out.put_bytes(0, 8);
        out.put_slice(arguments);
        let len = u32::try_from(out.len() - 4).expect("short calls");
        out[..4].copy_from_slice(&(len | LAST_FRAGMENT).to_be_bytes());
        out.freeze()
    }

    fn look_up(&mut self) -> Bytes {
        let mut arguments = BytesMut::new();
        opaque(&mut arguments, &self.handles.root);
        opaque(&mut arguments, self.file.as_bytes());
        self.call(LOOKING, NFS, (3, Procedure::Lookup), &arguments)
    }

    fn reply(&mut self, record: &[u8], out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<(), String> {
        let xid = u64::from(be32(record, 0));
        let procedure = self.asked.remove(&xid).ok_or(format!("a reply to call {xid:x}"))?;
        if record.len() < 28 || record[4..24] != [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
            return Err(format!("call {xid:x} ({procedure:?}) was refused: {record:x?}"));
        }
        let mut body = Reader(&record[24..]);
        let status = body.word()?;
        match xid {
            MOUNTING if status == OK => {
                self.handles.root = body.opaque()?;
                out.push(self.look_up());
            }
            LOOKING if status == OK => {
                self.handles.file = body.opaque()?;
                said.push(Said::Ready);
            }
            // A gateway that does not know what is true now opens nothing.
            MOUNTING | LOOKING if matches!(status, JUKEBOX | SERVER_FAULT) => said.push(Said::NotNow),
            MOUNTING | LOOKING => return Err(format!("{procedure:?} of {}: status {status}", self.file)),
            xid => said.push(Said::Answer(xid, answer(procedure, status, &mut body)?)),
        }
        Ok(())
    }
}

fn answer(procedure: Procedure, status: u32, body: &mut Reader<'_>) -> Result<Result<Found, Refusal>, String> {
    match (procedure, status) {
        (_, JUKEBOX) => Ok(Err(Refusal::Later)),
        (Procedure::Read, OK) => {
            body.attributes()?;
            body.word()?;
            body.word()?;
            Ok(Ok(Found::Data(body.opaque()?)))
        }
        (Procedure::Write | Procedure::Commit, OK) => Ok(Ok(Found::Done)),
        (Procedure::Read | Procedure::Write | Procedure::Commit, NO_SPACE) => Ok(Err(Refusal::NoSpace)),
        (Procedure::Read | Procedure::Write | Procedure::Commit, IO) => Ok(Err(Refusal::Io)),
        (Procedure::Read | Procedure::Write | Procedure::Commit, STALE) => Ok(Err(Refusal::Gone)),
        (Procedure::Read | Procedure::Write | Procedure::Commit, other) => {
            Ok(Err(Refusal::Other(format!("NFS {procedure:?}: status {other}"))))
        }
        (_, status) => Ok(Ok(Found::Name(name_reply(procedure, status, body)?))),
    }
}

fn name_reply(procedure: Procedure, status: u32, body: &mut Reader<'_>) -> Result<NameReply, String> {
    let mut reply = NameReply {
        status,
        ..NameReply::default()
    };
    if status != OK {
        return Ok(reply);
    }
    match procedure {
        Procedure::GetAttr => reply.attributes = Some(body.fattr()?),
        Procedure::SetAttr => reply.attributes = body.after()?,
        Procedure::Lookup => {
            reply.handle = Some(body.opaque()?);
            reply.attributes = body.attributes()?;
        }
        Procedure::Make => {
            reply.handle = (body.word()? != 0).then(|| body.opaque()).transpose()?;
            reply.attributes = body.attributes()?;
        }
        Procedure::Link => reply.attributes = body.attributes()?,
        Procedure::List => {
            body.attributes()?;
            body.take(8)?;
            while body.word()? != 0 {
                let fileid = body.long()?;
                let name = String::from_utf8_lossy(&body.opaque()?).into_owned();
                body.take(8)?;
                reply.entries.push((name, fileid));
            }
            reply.whole = body.word()? != 0;
        }
        _ => {}
    }
    Ok(reply)
}

/// What is left of a reply.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(len).ok_or("a reply is too short")?;
        self.0 = rest;
        Ok(head)
    }

    fn word(&mut self) -> Result<u32, String> {
        Ok(be32(self.take(4)?, 0))
    }

    fn long(&mut self) -> Result<u64, String> {
        Ok(be64(self.take(8)?, 0))
    }

    fn opaque(&mut self) -> Result<Bytes, String> {
        let len = self.word()? as usize;
        let bytes = self.take(len.next_multiple_of(4))?;
        Ok(Bytes::copy_from_slice(&bytes[..len]))
    }

    fn fattr(&mut self) -> Result<Attributes, String> {
        let bytes = self.take(FATTR)?;
        let time = |at| (be32(bytes, at), be32(bytes, at + 4));
        Ok(Attributes {
            directory: be32(bytes, 0) == DIRECTORY,
            links: be32(bytes, 8),
            size: be64(bytes, 20),
            fileid: be64(bytes, 52),
            modified: time(68),
            changed: time(76),
        })
    }

    /// post_op_attr.
    fn attributes(&mut self) -> Result<Option<Attributes>, String> {
        (self.word()? != 0).then(|| self.fattr()).transpose()
    }

    /// The second half of wcc_data.
    fn after(&mut self) -> Result<Option<Attributes>, String> {
        if self.word()? != 0 {
            self.take(24)?;
        }
        self.attributes()
    }
}

fn opaque(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("short values"));
    out.put_slice(bytes);
    out.put_bytes(0, bytes.len().next_multiple_of(4) - bytes.len());
}

/// sattr3 that sets nothing but, maybe, the size.
fn settings(out: &mut BytesMut, size: Option<u64>) {
    out.put_bytes(0, 12);
    out.put_u32(u32::from(size.is_some()));
    if let Some(size) = size {
        out.put_u64(size);
    }
    out.put_bytes(0, 8);
}

fn name_call(call: &NameCall) -> ((u32, Procedure), BytesMut) {
    let mut out = BytesMut::new();
    let at = |out: &mut BytesMut, dir: &Bytes, name: &str| {
        opaque(out, dir);
        opaque(out, name.as_bytes());
    };
    let number = match call {
        NameCall::GetAttr { node } => {
            opaque(&mut out, node);
            (1, Procedure::GetAttr)
        }
        NameCall::SetSize { file, size } => {
            opaque(&mut out, file);
            settings(&mut out, Some(*size));
            out.put_u32(0);
            (2, Procedure::SetAttr)
        }
        NameCall::Lookup { dir, name } => {
            at(&mut out, dir, name);
            (3, Procedure::Lookup)
        }
        NameCall::Create { dir, name, how } => {
            at(&mut out, dir, name);
            match how {
                CreateHow::Guarded => {
                    out.put_u32(1);
                    settings(&mut out, None);
                }
                CreateHow::Exclusive(verifier) => {
                    out.put_u32(2);
                    out.put_u64(*verifier);
                }
            }
            (8, Procedure::Make)
        }
        NameCall::MakeDir { dir, name } => {
            at(&mut out, dir, name);
            settings(&mut out, None);
            (9, Procedure::Make)
        }
        NameCall::Remove { dir, name } => {
            at(&mut out, dir, name);
            (12, Procedure::Remove)
        }
        NameCall::RemoveDir { dir, name } => {
            at(&mut out, dir, name);
            (13, Procedure::Remove)
        }
        NameCall::Rename { from, to } => {
            at(&mut out, &from.0, &from.1);
            at(&mut out, &to.0, &to.1);
            (14, Procedure::Rename)
        }
        NameCall::Link { file, dir, name } => {
            opaque(&mut out, file);
            at(&mut out, dir, name);
            (15, Procedure::Link)
        }
        NameCall::List { dir } => {
            opaque(&mut out, dir);
            out.put_bytes(0, 16);
            out.put_u32(LISTING);
            (16, Procedure::List)
        }
    };
    (number, out)
}

impl Session for NfsClient {
    fn hello(&mut self, out: &mut Vec<Bytes>) {
        let mut arguments = BytesMut::new();
        opaque(&mut arguments, b"/");
        out.push(self.call(MOUNTING, MOUNT, (1, Procedure::Mount), &arguments));
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<Bytes>, said: &mut Vec<Said>) -> Result<(), String> {
        self.input.push(bytes);
        while let Some(mark) = self.input.peek(4) {
            let mark = be32(mark, 0);
            if mark & LAST_FRAGMENT == 0 {
                return Err("a reply in several fragments".into());
            }
            let Some(record) = self.input.take(4 + (mark & !LAST_FRAGMENT) as usize) else {
                break;
            };
            self.reply(&record[4..], out, said)?;
        }
        Ok(())
    }

    fn ask(&mut self, number: u64, ask: &Ask, out: &mut Vec<Bytes>) {
        let mut arguments = BytesMut::new();
        let file = if let Ask::Put { file, .. } = ask {
            file
        } else {
            &self.handles.file
        };
        opaque(&mut arguments, file);
        let (procedure, arguments) = match ask {
            Ask::Read { offset, len } => {
                arguments.put_u64(*offset);
                arguments.put_u32(*len);
                ((6, Procedure::Read), arguments)
            }
            Ask::Write { offset, data } | Ask::Put { offset, data, .. } => {
                arguments.put_u64(*offset);
                arguments.put_u32(u32::try_from(data.len()).expect("short writes"));
                arguments.put_u32(2);
                opaque(&mut arguments, data);
                ((7, Procedure::Write), arguments)
            }
            Ask::Flush => {
                arguments.put_bytes(0, 12);
                ((21, Procedure::Commit), arguments)
            }
            Ask::Zero { .. } => panic!("NFSv3 makes no ranges zero"),
            Ask::Name(call) => name_call(call),
        };
        let call = self.call(number, NFS, procedure, &arguments);
        out.push(call);
    }

    fn handles(&self) -> Option<Handles> {
        Some(self.handles.clone())
    }
}
