//! One connection to an image, over any of the three protocols: writes are sent, several at a time, and answered in any
//! order; reads wait. It may be left at any moment, in order or not.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::initiator::Initiator;
use crate::nbd::{Command, Nbd};
use crate::rpc::{self, NFS, Rpc};
use crate::server::Ports;

/// How an image is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// An export.
    Nbd,
    /// LUN 0 of a target.
    Iscsi,
    /// A file.
    Nfs,
}

/// All of them.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Nbd, Protocol::Iscsi, Protocol::Nfs];

impl Protocol {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nbd => "NBD",
            Self::Iscsi => "iSCSI",
            Self::Nfs => "NFS",
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Way {
    /// With the tags of writes by their cookies.
    Nbd(Nbd, BTreeMap<u64, u32>),
    /// A session.
    Iscsi(Initiator),
    /// With the file's handle.
    Nfs(Rpc, Vec<u8>),
}

impl Way {
    /// Opens an image that is in the root; `name` tells iSCSI initiators apart. A server has failed that says nothing
    /// for as long as `patience`.
    ///
    /// # Errors
    /// When there is no server, or it refuses.
    pub fn open(protocol: Protocol, ports: Ports, image: &str, name: &str, patience: Duration) -> Result<Self> {
        Ok(match protocol {
            Protocol::Nbd => Self::Nbd(Nbd::open_within(ports.nbd, image, patience)?, BTreeMap::new()),
            Protocol::Iscsi => Self::Iscsi(Initiator::open(ports.iscsi, image, name, patience)?),
            Protocol::Nfs => {
                let mut rpc = Rpc::open_within(ports.nfs, patience)?;
                let root = rpc.mount()?;
                let file = rpc.lookup(&root, image)?;
                Self::Nfs(rpc, file)
            }
        })
    }

    /// Sends a write of at most 8 KiB. A write that is repeated has the same tag, which clients of NFS send.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, tag: u32, at: u64, data: &[u8]) -> Result<()> {
        match self {
            Self::Nbd(nbd, tags) => {
                let cookie = nbd.send(Command::Write, 0, at, u32::try_from(data.len())?, data)?;
                tags.insert(cookie, tag);
                Ok(())
            }
            Self::Iscsi(session) => session.write(tag, at, data),
            Self::Nfs(rpc, file) => rpc.send(tag, NFS, rpc::WRITE, &rpc::write_args(file, at, data)),
        }
    }

    /// The tag of the next write that is done; `patience` is how long that may take.
    ///
    /// # Errors
    /// When it takes longer, the write failed, or the connection is gone.
    pub fn written(&mut self, patience: Duration) -> Result<u32> {
        match self {
            Self::Nbd(nbd, tags) => {
                nbd.set_patience(patience)?;
                let (cookie, error) = nbd.receive()?;
                ensure!(error == 0, "a write failed with error {error}");
                tags.remove(&cookie).context("an answer to nothing")
            }
            Self::Iscsi(session) => session.written(patience),
            Self::Nfs(rpc, _) => {
                rpc.set_patience(patience)?;
                let (xid, results) = rpc.receive()?;
                rpc::ensure_done(&results).context("a write")?;
                Ok(xid)
            }
        }
    }

    /// Reads; nothing may be under way.
    ///
    /// # Errors
    /// As for [`Way::written`].
    pub fn read(&mut self, at: u64, len: u32, patience: Duration) -> Result<Vec<u8>> {
        match self {
            Self::Nbd(nbd, _) => {
                nbd.set_patience(patience)?;
                nbd.read(at, len)
            }
            Self::Iscsi(session) => session.read(at, len, patience),
            Self::Nfs(rpc, file) => {
                rpc.set_patience(patience)?;
                let args = rpc::read_args(file, at, len);
                let results = rpc.call(NFS, rpc::READ, &args)?;
                Ok(rpc::read_data(&results)?.to_vec())
            }
        }
    }

    fn stream(&self) -> &TcpStream {
        match self {
            Self::Nbd(nbd, _) => nbd.stream(),
            Self::Iscsi(session) => session.stream(),
            Self::Nfs(rpc, _) => rpc.stream(),
        }
    }

    /// Leaves as a host does that fails: the connection is reset.
    pub fn reset(self) {
        // One that is gone already needs nothing.
        let _ = rustix::net::sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO));
    }
}

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// No answer in time.
    Silent,
    /// It ended.
    Broken,
    /// The gateway cannot tell at present what it may serve, and says so.
    Later,
}

impl Loss {
    /// What an error says of the connection; none if it is an answer that must not be.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Option<Self> {
        if error.is::<rpc::Later>() {
            return Some(Self::Later);
        }
        let error = error.downcast_ref::<io::Error>()?;
        Some(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silent,
            _ => Self::Broken,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use anyhow::{Context, anyhow};

    use super::Loss;
    use crate::rpc;

    #[test]
    fn tells_a_hang_an_end_and_a_refusal() {
        let of = |kind: ErrorKind| Loss::of(&anyhow::Error::from(Error::from(kind)).context("while reading"));
        assert_eq!(of(ErrorKind::WouldBlock), Some(Loss::Silent));
        assert_eq!(of(ErrorKind::UnexpectedEof), Some(Loss::Broken));
        assert_eq!(Loss::of(&anyhow!("error 5")), None);
        let answered = |status: u32| rpc::ensure_done(&status.to_be_bytes()).context("a write").unwrap_err();
        assert_eq!(Loss::of(&answered(rpc::JUKEBOX)), Some(Loss::Later));
        assert_eq!(Loss::of(&answered(5)), None);
    }
}
