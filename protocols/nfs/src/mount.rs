//! MOUNT version 3 (RFC 1813 appendix I): every procedure as a typed request and a typed reply.
//!
//! Keeps no list of mounts and knows no exports; that is the server's.

use bytes::Bytes;

use crate::nfs3::Handle;
use crate::xdr::{Array, List, Reader, Writer, Xdr, XdrError};

/// The program's number.
pub const PROGRAM: u32 = 100_005;
/// The program's version.
pub const VERSION: u32 = 3;
/// The procedure that does nothing and that the connection answers by itself.
pub const NULL: u32 = 0;
/// Bytes of a path at most (MNTPATHLEN).
pub const MAX_PATH: u32 = 1024;

/// Procedure numbers (appendix I, section 5.2).
const MNT: u32 = 1;
const DUMP: u32 = 2;
const UMNT: u32 = 3;
const UMNTALL: u32 = 4;
const EXPORT: u32 = 5;

xdr_enum! {
    /// Why MNT failed: mountstat3 without MNT3_OK.
    MountStatus {
        /// MNT3ERR_PERM: not the owner.
        Perm = 1,
        /// MNT3ERR_NOENT: no such path.
        NoEnt = 2,
        /// MNT3ERR_IO.
        Io = 5,
        /// MNT3ERR_ACCES: not for this client.
        Access = 13,
        /// MNT3ERR_NOTDIR.
        NotDir = 20,
        /// MNT3ERR_INVAL.
        Invalid = 22,
        /// MNT3ERR_NAMETOOLONG.
        NameTooLong = 63,
        /// MNT3ERR_NOTSUPP.
        NotSupported = 10_004,
        /// MNT3ERR_SERVERFAULT.
        ServerFault = 10_006,
    }
}

/// dirpath: at most [`MAX_PATH`] bytes, as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(
    /// Any bytes.
    pub Bytes,
);

impl Xdr for Path {
    fn encode(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Path, XdrError> {
        r.opaque(MAX_PATH).map(Path)
    }
}

/// A call of any procedure but NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// MNT: the handle of an export.
    Mount(Path),
    /// DUMP: who has mounted what.
    Dump,
    /// UMNT: forget one mount of the caller.
    Unmount(Path),
    /// UMNTALL: forget all mounts of the caller.
    UnmountAll,
    /// EXPORT: what there is to mount.
    Export,
}

/// The result of any procedure but NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// MNT.
    Mount(Result<MountOk, MountStatus>),
    /// DUMP.
    Dump(List<MountEntry>),
    /// UMNT.
    Unmount,
    /// UMNTALL.
    UnmountAll,
    /// EXPORT.
    Export(List<ExportEntry>),
}

xdr_struct! {
    /// mountres3_ok.
    MountOk {
        /// The export's root.
        handle: Handle,
        /// The flavours that the export takes, see [`crate::rpc::flavor`]; the preferred one first.
        flavors: Array<u32>,
    }
}

xdr_struct! {
    /// mountbody without its link.
    MountEntry {
        /// The client.
        host: Bytes,
        /// What it mounted.
        path: Path,
    }
}

xdr_struct! {
    /// exportnode without its link.
    ExportEntry {
        /// What can be mounted.
        path: Path,
        /// By whom; none means by everyone.
        groups: List<Bytes>,
    }
}

/// MNT3_OK.
const OK: u32 = 0;

impl Xdr for Result<MountOk, MountStatus> {
    fn encode(&self, w: &mut Writer) {
        match self {
            Ok(resok) => {
                w.u32(OK);
                resok.encode(w);
            }
            Err(status) => status.encode(w),
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, XdrError> {
        let number = r.u32()?;
        if number == OK {
            return MountOk::decode(r).map(Ok);
        }
        MountStatus::from_number(number)
            .map(Err)
            .ok_or(XdrError::BadValue(number))
    }
}

impl Request {
    /// The procedure's number.
    #[must_use]
    pub fn procedure(&self) -> u32 {
        match self {
            Request::Mount(_) => MNT,
            Request::Dump => DUMP,
            Request::Unmount(_) => UMNT,
            Request::UnmountAll => UMNTALL,
            Request::Export => EXPORT,
        }
    }

    /// The procedure's name, for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Request::Mount(_) => "Mount",
            Request::Dump => "Dump",
            Request::Unmount(_) => "Unmount",
            Request::UnmountAll => "UnmountAll",
            Request::Export => "Export",
        }
    }

    /// Takes the arguments of a procedure; `None` if there is no such procedure.
    ///
    /// # Errors
    /// Inside: arguments that are not what the procedure takes.
    #[must_use]
    pub fn decode(procedure: u32, r: &mut Reader<'_>) -> Option<Result<Request, XdrError>> {
        match procedure {
            MNT => Some(Xdr::decode(r).map(Request::Mount)),
            DUMP => Some(Ok(Request::Dump)),
            UMNT => Some(Xdr::decode(r).map(Request::Unmount)),
            UMNTALL => Some(Ok(Request::UnmountAll)),
            EXPORT => Some(Ok(Request::Export)),
            _ => None,
        }
    }

    /// Appends the arguments.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Request::Mount(path) | Request::Unmount(path) => path.encode(w),
            Request::Dump | Request::UnmountAll | Request::Export => {}
        }
    }
}

impl Reply {
    /// Takes the result of a procedure; `None` if there is no such procedure.
    ///
    /// # Errors
    /// Inside: a result that is not what the procedure gives.
    #[must_use]
    pub fn decode(procedure: u32, r: &mut Reader<'_>) -> Option<Result<Reply, XdrError>> {
        match procedure {
            MNT => Some(Xdr::decode(r).map(Reply::Mount)),
            DUMP => Some(Xdr::decode(r).map(Reply::Dump)),
            UMNT => Some(Ok(Reply::Unmount)),
            UMNTALL => Some(Ok(Reply::UnmountAll)),
            EXPORT => Some(Xdr::decode(r).map(Reply::Export)),
            _ => None,
        }
    }

    /// Appends the result.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Reply::Mount(outcome) => outcome.encode(w),
            Reply::Dump(mounts) => mounts.encode(w),
            Reply::Export(exports) => exports.encode(w),
            Reply::Unmount | Reply::UnmountAll => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn assert_round_trip(reply: &Reply, procedure: u32, wire: &[u8]) {
        let mut w = Writer::new();
        reply.encode(&mut w);
        let encoded = w.into_bytes();
        assert_eq!(encoded, wire, "{reply:?}");
        let mut r = Reader::new(&encoded);
        assert_eq!(Reply::decode(procedure, &mut r).unwrap().as_ref(), Ok(reply));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn replies_have_the_standard_form() {
        let handle = Handle::new(b"root!").unwrap();
        let mounted = MountOk {
            handle,
            flavors: Array(vec![1, 0]),
        };
        let entry = MountEntry {
            host: bytes("esx1"),
            path: Path(bytes("/vms")),
        };
        let export = ExportEntry {
            path: Path(bytes("/vms")),
            groups: List(vec![bytes("10/8")]),
        };
        let cases: [(Reply, u32, &[u8]); 6] = [
            (
                Reply::Mount(Ok(mounted)),
                MNT,
                b"\0\0\0\0\0\0\0\x05root!\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0\0",
            ),
            (Reply::Mount(Err(MountStatus::NotSupported)), MNT, b"\0\0\x27\x14"),
            (
                Reply::Dump(List(vec![entry])),
                DUMP,
                b"\0\0\0\x01\0\0\0\x04esx1\0\0\0\x04/vms\0\0\0\0",
            ),
            (Reply::Unmount, UMNT, b""),
            (Reply::UnmountAll, UMNTALL, b""),
            (
                Reply::Export(List(vec![export])),
                EXPORT,
                b"\0\0\0\x01\0\0\0\x04/vms\0\0\0\x01\0\0\0\x0410/8\0\0\0\0\0\0\0\0",
            ),
        ];
        for (reply, procedure, wire) in cases {
            assert_round_trip(&reply, procedure, wire);
        }
    }

    #[test]
    fn requests_round_trip() {
        let path = || Path(Bytes::from(vec![b'/'; 1024]));
        for request in [
            Request::Mount(path()),
            Request::Dump,
            Request::Unmount(path()),
            Request::UnmountAll,
            Request::Export,
        ] {
            let mut w = Writer::new();
            request.encode(&mut w);
            let encoded = w.into_bytes();
            let decoded = Request::decode(request.procedure(), &mut Reader::new(&encoded));
            assert_eq!(decoded, Some(Ok(request)));
        }
        assert_eq!(Request::decode(6, &mut Reader::new(&Bytes::new())), None);
    }

    #[test]
    fn paths_are_limited() {
        let mut w = Writer::new();
        w.opaque(&[b'/'; 1025]);
        let encoded = w.into_bytes();
        let refused = Request::decode(MNT, &mut Reader::new(&encoded));
        assert_eq!(
            refused,
            Some(Err(XdrError::TooLong {
                length: 1025,
                limit: MAX_PATH
            }))
        );
    }
}
