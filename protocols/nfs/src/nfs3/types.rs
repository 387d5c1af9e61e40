//! Status codes, handles and the small types (RFC 1813 sections 2.5, 2.6).

use bytes::Bytes;

use crate::xdr::{Reader, Writer, Xdr, XdrError};

/// Bytes of a handle at most (NFS3_FHSIZE).
pub const MAX_HANDLE: usize = 64;

/// cookieverf3, createverf3 and writeverf3.
pub type Verifier = [u8; 8];

xdr_enum! {
    /// Why a procedure failed: nfsstat3 without NFS3_OK.
    Status {
        /// NFS3ERR_PERM: not the owner.
        Perm = 1,
        /// NFS3ERR_NOENT: no such name.
        NoEnt = 2,
        /// NFS3ERR_IO: a hard error.
        Io = 5,
        /// NFS3ERR_NXIO: no such device.
        NxIo = 6,
        /// NFS3ERR_ACCES: permission denied.
        Access = 13,
        /// NFS3ERR_EXIST: the name exists.
        Exist = 17,
        /// NFS3ERR_XDEV: a link across file systems.
        CrossDevice = 18,
        /// NFS3ERR_NODEV: no such device.
        NoDevice = 19,
        /// NFS3ERR_NOTDIR: not a directory.
        NotDir = 20,
        /// NFS3ERR_ISDIR: a directory.
        IsDir = 21,
        /// NFS3ERR_INVAL: an argument that makes no sense or is not supported.
        Invalid = 22,
        /// NFS3ERR_FBIG: beyond the largest file.
        FileTooBig = 27,
        /// NFS3ERR_NOSPC: no space.
        NoSpace = 28,
        /// NFS3ERR_ROFS: read-only.
        ReadOnly = 30,
        /// NFS3ERR_MLINK: too many links.
        TooManyLinks = 31,
        /// NFS3ERR_NAMETOOLONG.
        NameTooLong = 63,
        /// NFS3ERR_NOTEMPTY: the directory is not empty.
        NotEmpty = 66,
        /// NFS3ERR_DQUOT: the quota is used up.
        Quota = 69,
        /// NFS3ERR_STALE: the object of the handle is gone.
        Stale = 70,
        /// NFS3ERR_REMOTE: too many levels of remote in path.
        Remote = 71,
        /// NFS3ERR_BADHANDLE: never a handle of this server.
        BadHandle = 10_001,
        /// NFS3ERR_NOT_SYNC: the guard of SETATTR does not match.
        NotSync = 10_002,
        /// NFS3ERR_BAD_COOKIE: READDIR cannot go on from here.
        BadCookie = 10_003,
        /// NFS3ERR_NOTSUPP.
        NotSupported = 10_004,
        /// NFS3ERR_TOOSMALL: not one entry fits.
        TooSmall = 10_005,
        /// NFS3ERR_SERVERFAULT.
        ServerFault = 10_006,
        /// NFS3ERR_BADTYPE: a file type that the server does not make.
        BadType = 10_007,
        /// NFS3ERR_JUKEBOX: later.
        Jukebox = 10_008,
    }
}

xdr_enum! {
    /// ftype3.
    FileType {
        /// NF3REG.
        Regular = 1,
        /// NF3DIR.
        Directory = 2,
        /// NF3BLK.
        Block = 3,
        /// NF3CHR.
        Character = 4,
        /// NF3LNK.
        Symlink = 5,
        /// NF3SOCK.
        Socket = 6,
        /// NF3FIFO.
        Fifo = 7,
    }
}

xdr_enum! {
    /// stable_how (section 3.3.7).
    StableHow {
        /// The data may be lost until COMMIT.
        Unstable = 0,
        /// The data is stable before the reply.
        DataSync = 1,
        /// Data and metadata are stable before the reply.
        FileSync = 2,
    }
}

/// nfs_fh3: up to [`MAX_HANDLE`] bytes that only the server understands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    bytes: [u8; MAX_HANDLE],
    len: u8,
}

impl Handle {
    /// A handle of these bytes; `None` if they are too many.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Handle> {
        let mut handle = Handle {
            bytes: [0; MAX_HANDLE],
            len: u8::try_from(bytes.len()).ok()?,
        };
        handle.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(handle)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Xdr for Handle {
    fn encode(&self, w: &mut Writer) {
        w.opaque(self.as_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Handle, XdrError> {
        let limit = 64;
        let bytes = r.borrowed(limit)?;
        Handle::new(bytes).ok_or(XdrError::TooLong {
            length: limit + 1,
            limit,
        })
    }
}

xdr_struct! {
    /// diropargs3: a name in a directory.
    DirOpArgs {
        /// The directory.
        dir: Handle,
        /// As the client sent it: any bytes, of any length.
        name: Bytes,
    }
}

/// What every procedure gives: its resok, or its status with its resfail.
pub type Outcome<T, F> = Result<T, Failure<F>>;

/// The arm of a result for a status other than NFS3_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<F> {
    /// Why.
    pub status: Status,
    /// The attributes that the failure carries.
    pub attributes: F,
}

impl<F: Default> From<Status> for Failure<F> {
    fn from(status: Status) -> Failure<F> {
        Failure {
            status,
            attributes: F::default(),
        }
    }
}

/// NFS3_OK.
const OK: u32 = 0;

impl<T: Xdr, F: Xdr> Xdr for Outcome<T, F> {
    fn encode(&self, w: &mut Writer) {
        match self {
            Ok(resok) => {
                w.u32(OK);
                resok.encode(w);
            }
            Err(failure) => {
                failure.status.encode(w);
                failure.attributes.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Outcome<T, F>, XdrError> {
        let number = r.u32()?;
        if number == OK {
            return T::decode(r).map(Ok);
        }
        let status = Status::from_number(number).ok_or(XdrError::BadValue(number))?;
        Ok(Err(Failure {
            status,
            attributes: F::decode(r)?,
        }))
    }
}
