//! Calls of ONC RPC over TCP (RFC 5531, record marking in section 11), enough
//! to mount, look up and ask for NFSv3 procedures by number (RFC 1813).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The program NFS, version 3.
pub const NFS: (u32, u32) = (100_003, 3);
/// The program MOUNT, version 3.
pub const MOUNT: (u32, u32) = (100_005, 3);

/// `NFSPROC3_GETATTR`.
pub const GETATTR: u32 = 1;
/// `NFSPROC3_SETATTR`.
pub const SETATTR: u32 = 2;
/// `NFSPROC3_LOOKUP`.
pub const LOOKUP: u32 = 3;
/// `NFSPROC3_READ`.
pub const READ: u32 = 6;
/// `NFSPROC3_WRITE`.
pub const WRITE: u32 = 7;
/// `FILE_SYNC`: on stable storage when it is answered.
const FILE_SYNC: u32 = 2;
/// Bytes of `fattr3`.
const ATTRIBUTES: usize = 84;
/// `MOUNTPROC3_MNT`.
pub const MNT: u32 = 1;

/// Longest answer that is read (bytes).
const LONGEST: u32 = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
const LAST_FRAGMENT: u32 = 1 << 31;

/// XDR's variable-length opaque.
#[must_use]
pub fn opaque(data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("a short opaque");
    let mut out = [&len.to_be_bytes()[..], data].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// `AUTH_SYS` of root with no further groups.
fn credential() -> Vec<u8> {
    let body = [&[0; 4][..], &opaque(b"e2e"), &[0; 12]].concat();
    [&1u32.to_be_bytes()[..], &opaque(&body)].concat()
}

/// A call as one record.
#[must_use]
pub fn call(xid: u32, program: (u32, u32), procedure: u32, args: &[u8]) -> Vec<u8> {
    let head: Vec<u8> = [xid, 0, 2, program.0, program.1, procedure]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    record(&[&head[..], &credential(), &[0; 8], args].concat())
}

/// Bytes as one record of one fragment.
#[must_use]
pub fn record(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a short record");
    [&(len | LAST_FRAGMENT).to_be_bytes()[..], body].concat()
}

/// A connection that sends a call and waits for its answer.
#[derive(Debug)]
pub struct Rpc {
    stream: TcpStream,
    xid: u32,
}

impl Rpc {
    /// Connects to 127.0.0.1.
    ///
    /// # Errors
    /// When there is no server.
    pub fn open(port: u16) -> Result<Self> {
        Self::open_within(port, TIMEOUT)
    }

    /// The same with another time after which a silent server has failed.
    ///
    /// # Errors
    /// When there is no server.
    pub fn open_within(port: u16, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("RPC connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            xid: 0x7172_0000,
        })
    }

    /// The results of a call that the server accepted.
    ///
    /// # Errors
    /// When the server refuses it or is gone.
    pub fn call(&mut self, program: (u32, u32), procedure: u32, args: &[u8]) -> Result<Vec<u8>> {
        self.xid += 1;
        self.send(self.xid, program, procedure, args)?;
        let (xid, results) = self.receive()?;
        ensure!(xid == self.xid, "answered {xid:#x}, asked {:#x}", self.xid);
        Ok(results)
    }

    /// From now on the server has failed that says nothing for so long.
    ///
    /// # Errors
    /// When `patience` is zero.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(patience))?)
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a call; several may be under way.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn send(&mut self, xid: u32, program: (u32, u32), procedure: u32, args: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&call(xid, program, procedure, args))?)
    }

    /// The next answer: which call it is to, and the results, if the server accepted it.
    ///
    /// # Errors
    /// When the server refuses the call or is gone.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>)> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark)?;
        let mark = u32::from_be_bytes(mark);
        ensure!(
            mark & LAST_FRAGMENT != 0 && mark & !LAST_FRAGMENT < LONGEST,
            "record mark {mark:#x}"
        );
        let mut reply = vec![0; usize::try_from(mark & !LAST_FRAGMENT)?];
        self.stream.read_exact(&mut reply)?;
        // REPLY, MSG_ACCEPTED, empty verifier (flavour, length), SUCCESS.
        let accepted: Vec<u8> = [1, 0, 0, 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_be_bytes())
            .collect();
        ensure!(
            reply.get(4..24) == Some(&accepted[..]),
            "refused: {:?}",
            &reply[..reply.len().min(24)]
        );
        let results = reply.split_off(24);
        Ok((u32::from_be_bytes(reply[..4].try_into()?), results))
    }

    /// The root's file handle.
    ///
    /// # Errors
    /// When the export is refused.
    pub fn mount(&mut self) -> Result<Vec<u8>> {
        handle(&self.call(MOUNT, MNT, &opaque(b"/"))?)
    }

    /// The file handle of `name` in a directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn lookup(&mut self, directory: &[u8], name: &str) -> Result<Vec<u8>> {
        handle(&self.call(NFS, LOOKUP, &[opaque(directory), opaque(name.as_bytes())].concat())?)
    }
}

/// The arguments of READ.
#[must_use]
pub fn read_args(file: &[u8], at: u64, len: u32) -> Vec<u8> {
    [&opaque(file)[..], &at.to_be_bytes(), &len.to_be_bytes()].concat()
}

/// The arguments of WRITE, to be on stable storage when it is answered.
#[must_use]
pub fn write_args(file: &[u8], at: u64, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("a short write").to_be_bytes();
    [
        &opaque(file)[..],
        &at.to_be_bytes(),
        &len,
        &FILE_SYNC.to_be_bytes(),
        &opaque(data),
    ]
    .concat()
}

/// The arguments of SETATTR that set nothing but the size, unguarded.
#[must_use]
pub fn size_args(file: &[u8], size: u64) -> Vec<u8> {
    // No mode, no owner, no group, but a size; no times, no guard.
    let before: [u32; 4] = [0, 0, 0, 1];
    let before: Vec<u8> = before.iter().flat_map(|word| word.to_be_bytes()).collect();
    [&opaque(file)[..], &before, &size.to_be_bytes(), &[0; 12]].concat()
}

/// The size that GETATTR brought, bytes.
///
/// # Errors
/// When it failed.
pub fn size(results: &[u8]) -> Result<u64> {
    ensure!(status(results)? == 0, "GETATTR failed with status {}", status(results)?);
    // Status; type, mode, links, owner, group.
    let size = results.get(4 + 20..4 + 28).context("short attributes")?;
    Ok(u64::from_be_bytes(size.try_into()?))
}

/// The status that results begin with.
///
/// # Errors
/// When they are too short.
pub fn status(results: &[u8]) -> Result<u32> {
    let status = results.first_chunk::<4>().context("a short answer")?;
    Ok(u32::from_be_bytes(*status))
}

/// `NFS3ERR_JUKEBOX`: not now, ask again later.
pub const JUKEBOX: u32 = 10_008;

/// An answer of [`JUKEBOX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later;

impl std::fmt::Display for Later {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("not now")
    }
}

impl std::error::Error for Later {}

/// Looks whether a READ or a WRITE was done.
///
/// # Errors
/// [`Later`], and when it failed.
pub fn ensure_done(results: &[u8]) -> Result<()> {
    match status(results)? {
        0 => Ok(()),
        JUKEBOX => Err(Later.into()),
        status => bail!("failed with status {status}"),
    }
}

/// What READ brought.
///
/// # Errors
/// When it failed.
pub fn read_data(results: &[u8]) -> Result<&[u8]> {
    ensure_done(results).context("a read")?;
    let attributes = if status(results.get(4..).context("a short answer")?)? == 0 {
        0
    } else {
        ATTRIBUTES
    };
    // Status, attributes, count, end of file.
    let rest = results.get(4 + 4 + attributes + 8..).context("a short answer")?;
    let len = usize::try_from(status(rest)?)?;
    rest.get(4..4 + len).context("short data")
}

/// A status of 0, then a handle.
fn handle(results: &[u8]) -> Result<Vec<u8>> {
    let (status, rest) = results.split_at_checked(4).context("a short answer")?;
    ensure!(status == [0; 4], "status {status:?}");
    let (len, rest) = rest.split_at_checked(4).context("a short answer")?;
    let len = usize::try_from(u32::from_be_bytes(len.try_into()?))?;
    Ok(rest.get(..len).context("a short handle")?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::{NFS, call, opaque, read_data};

    #[test]
    fn pads_and_frames() {
        assert_eq!(opaque(b"abcde"), [0, 0, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        let null = call(1, NFS, 0, &[]);
        assert_eq!(
            null[..4],
            (0x8000_0000 + u32::try_from(null.len() - 4).unwrap()).to_be_bytes()
        );
        assert_eq!(null.len() % 4, 0);
    }

    #[test]
    fn finds_what_was_read() {
        let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        let data = opaque(b"abc");
        assert_eq!(
            read_data(&[words(&[0, 0, 3, 1]), data.clone()].concat()).unwrap(),
            b"abc"
        );
        let attributes = vec![7; super::ATTRIBUTES];
        let with = [words(&[0, 1]), attributes, words(&[3, 1]), data].concat();
        assert_eq!(read_data(&with).unwrap(), b"abc");
        assert!(read_data(&words(&[70])).is_err() && read_data(&with[..40]).is_err());
    }
}
