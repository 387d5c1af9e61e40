//! Clients of the world, byte by byte: NBD with simple replies, NFS without credentials.

use trivet_core::Now;

use super::world::World;
use crate::gateway::ConnKey;
use crate::metrics::Protocol;

/// NBD commands.
pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const DISC: u16 = 2;

/// `NBD_REQUEST_MAGIC` and `NBD_SIMPLE_REPLY_MAGIC`.
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
/// Bytes of a simple reply without data.
pub(super) const REPLY_LEN: usize = 16;

/// Opens an export.
pub(super) fn nbd(world: &mut World, export: &str) -> ConnKey {
    let conn = world.connect(Protocol::Nbd);
    let name = u32::try_from(export.len()).unwrap();
    let mut bytes = b"\0\0\0\x03IHAVEOPT\0\0\0\x07".to_vec();
    bytes.extend((name + 6).to_be_bytes());
    bytes.extend(name.to_be_bytes());
    bytes.extend(export.as_bytes());
    bytes.extend([0, 0]);
    world.send(conn, &bytes);
    let sent = world.take(conn);
    let acknowledged = sent.windows(4).any(|window| window == [0, 0, 0, 7]);
    assert!(acknowledged && world.closed.is_empty(), "{sent:02x?}");
    conn
}

/// One request; its offset is its cookie.
pub(super) fn request(kind: u16, offset: u64, len: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = REQUEST.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A write of one byte's value to a whole range.
pub(super) fn write(offset: u64, len: usize, fill: u8) -> Vec<u8> {
    request(WRITE, offset, u32::try_from(len).unwrap(), &vec![fill; len])
}

/// The good reply to a request at `offset`, without data.
pub(super) fn good(offset: u64) -> Vec<u8> {
    [&SIMPLE_REPLY.to_be_bytes()[..], &[0; 4], &offset.to_be_bytes()].concat()
}

/// An NFS client with its root.
pub(super) struct Nfs {
    pub conn: ConnKey,
    pub root: Vec<u8>,
    xid: u32,
}

/// XDR of words.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// XDR of variable-length bytes.
pub(super) fn opaque(bytes: &[u8]) -> Vec<u8> {
    let mut out = words(&[u32::try_from(bytes.len()).unwrap()]);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().unwrap())
}

fn record(program: u32, procedure: u32, xid: u32, arguments: &[u8]) -> Vec<u8> {
    let body = [&words(&[xid, 0, 2, program, 3, procedure, 0, 0, 0, 0])[..], arguments].concat();
    [&words(&[0x8000_0000 | u32::try_from(body.len()).unwrap()])[..], &body].concat()
}

/// The results in a stream of replies, by xid; each starts with its status.
pub(super) fn results(mut stream: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut all = Vec::new();
    while !stream.is_empty() {
        let len = usize::try_from(word(stream, 0) & 0x7fff_ffff).unwrap();
        let (record, rest) = stream[4..].split_at(len);
        assert_eq!(record[4..24], words(&[1, 0, 0, 0, 0]), "an accepted call");
        all.push((word(record, 0), record[24..].to_vec()));
        stream = rest;
    }
    all
}

/// The variable-length bytes at `at` of a result.
fn opaque_at(result: &[u8], at: usize) -> Vec<u8> {
    let len = usize::try_from(word(result, at)).unwrap();
    result[at + 4..at + 4 + len].to_vec()
}

impl Nfs {
    pub(super) fn mount(world: &mut World) -> Nfs {
        let conn = world.connect(Protocol::Nfs);
        world.send(conn, &record(100_005, 1, 1, &opaque(b"/")));
        let replies = results(&world.take(conn));
        let result = &replies[0].1;
        assert_eq!(word(result, 0), 0, "mounted");
        Nfs {
            conn,
            root: opaque_at(result, 4),
            xid: 1,
        }
    }

    /// Sends a call and returns its xid.
    pub(super) fn call(&mut self, world: &mut World, procedure: u32, arguments: &[u8]) -> u32 {
        self.xid += 1;
        self.repeat(world, self.xid, procedure, arguments);
        self.xid
    }

    /// The same, found only after something happened: it came after this time.
    pub(super) fn call_after(&mut self, world: &mut World, procedure: u32, arguments: &[u8], quiet: Now) {
        self.xid += 1;
        let bytes = record(100_003, procedure, self.xid, arguments);
        world.send_after(self.conn, &bytes, quiet);
        world.run();
    }

    /// Sends a call with an xid that was used before.
    pub(super) fn repeat(&self, world: &mut World, xid: u32, procedure: u32, arguments: &[u8]) {
        world.send(self.conn, &record(100_003, procedure, xid, arguments));
        world.run();
    }

    /// Sends a call and returns its result, without the status, which must be good.
    pub(super) fn done(&mut self, world: &mut World, procedure: u32, arguments: &[u8]) -> Vec<u8> {
        let xid = self.call(world, procedure, arguments);
        let replies = results(&world.take(self.conn));
        assert_eq!(
            (replies.len(), replies[0].0, word(&replies[0].1, 0)),
            (1, xid, 0),
            "{replies:02x?}"
        );
        replies[0].1[4..].to_vec()
    }

    /// LOOKUP in the root.
    pub(super) fn lookup(&mut self, world: &mut World, name: &str) -> Vec<u8> {
        let arguments = [opaque(&self.root), opaque(name.as_bytes())].concat();
        opaque_at(&self.done(world, 3, &arguments), 0)
    }
}

/// Arguments of WRITE (FILE_SYNC) of bytes that are all `fill`.
pub(super) fn write_args(file: &[u8], offset: u32, len: usize, fill: u8) -> Vec<u8> {
    let count = u32::try_from(len).unwrap();
    [opaque(file), words(&[0, offset, count, 2]), opaque(&vec![fill; len])].concat()
}

/// Arguments of SETATTR that sets the time of modification.
pub(super) fn set_mtime(file: &[u8], seconds: u32) -> Vec<u8> {
    [opaque(file), words(&[0, 0, 0, 0, 0, 2, seconds, 0, 0])].concat()
}

/// Arguments of SETATTR that sets the size.
pub(super) fn set_size(file: &[u8], size: u32) -> Vec<u8> {
    [opaque(file), words(&[0, 0, 0, 1, 0, size, 0, 0, 0])].concat()
}
