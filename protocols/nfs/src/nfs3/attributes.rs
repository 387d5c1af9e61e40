//! Attributes: fattr3, sattr3 and weak cache consistency data (RFC 1813 section 2.6).

use super::types::FileType;
use crate::xdr::{Reader, Writer, Xdr, XdrError};

/// Bytes of fattr3.
pub const FATTR3_SIZE: usize = 84;

/// post_op_attr.
pub type PostOpAttr = Option<Fattr3>;
/// pre_op_attr.
pub type PreOpAttr = Option<WccAttr>;

/// nfstime3: since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds.
    pub seconds: u32,
    /// Below 10^9; what clients send is not checked here.
    pub nanoseconds: u32,
}

impl Time {
    /// As it stands on the wire, read as one big-endian number.
    fn word(self) -> u64 {
        u64::from(self.seconds) << 32 | u64::from(self.nanoseconds)
    }
}

impl Xdr for Time {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.word());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Time, XdrError> {
        Ok(Time {
            seconds: r.u32()?,
            nanoseconds: r.u32()?,
        })
    }
}

xdr_struct! {
    /// specdata3: the numbers of a device.
    #[derive(Copy, Default)]
    SpecData {
        /// Major.
        major: u32,
        /// Minor.
        minor: u32,
    }
}

/// fattr3: the attributes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fattr3 {
    /// What it is.
    pub kind: FileType,
    /// The twelve permission bits.
    pub mode: u32,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes of storage.
    pub used: u64,
    /// Of a device.
    pub rdev: SpecData,
    /// Of the file system.
    pub fsid: u64,
    /// Within the file system.
    pub fileid: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of data.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
}

impl Fattr3 {
    /// The part that weak cache consistency needs.
    #[must_use]
    pub fn wcc(&self) -> WccAttr {
        WccAttr {
            size: self.size,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    fn to_wire(self) -> [u8; FATTR3_SIZE] {
        let mut wire = [0; FATTR3_SIZE];
        let words = [self.kind.number(), self.mode, self.nlink, self.uid, self.gid];
        for (place, word) in wire[..20].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        let rdev = u64::from(self.rdev.major) << 32 | u64::from(self.rdev.minor);
        let times = [self.atime.word(), self.mtime.word(), self.ctime.word()];
        let hypers = [
            self.size,
            self.used,
            rdev,
            self.fsid,
            self.fileid,
            times[0],
            times[1],
            times[2],
        ];
        for (place, hyper) in wire[20..].as_chunks_mut::<8>().0.iter_mut().zip(hypers) {
            *place = hyper.to_be_bytes();
        }
        wire
    }
}

impl Xdr for Fattr3 {
    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.to_wire());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Fattr3, XdrError> {
        Ok(Fattr3 {
            kind: Xdr::decode(r)?,
            mode: r.u32()?,
            nlink: r.u32()?,
            uid: r.u32()?,
            gid: r.u32()?,
            size: r.u64()?,
            used: r.u64()?,
            rdev: Xdr::decode(r)?,
            fsid: r.u64()?,
            fileid: r.u64()?,
            atime: Xdr::decode(r)?,
            mtime: Xdr::decode(r)?,
            ctime: Xdr::decode(r)?,
        })
    }
}

xdr_struct! {
    /// wcc_attr: what an object was before the call.
    #[derive(Copy)]
    WccAttr {
        /// Bytes.
        size: u64,
        /// Last change of data.
        mtime: Time,
        /// Last change of attributes.
        ctime: Time,
    }
}

xdr_struct! {
    /// wcc_data: an object before and after the call; `before` only if nothing came between.
    #[derive(Copy, Default)]
    WccData {
        /// Before.
        before: PreOpAttr,
        /// After.
        after: PostOpAttr,
    }
}

/// set_atime and set_mtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    /// DONT_CHANGE.
    #[default]
    Keep,
    /// SET_TO_SERVER_TIME.
    Server,
    /// SET_TO_CLIENT_TIME.
    Client(Time),
}

impl Xdr for SetTime {
    fn encode(&self, w: &mut Writer) {
        match self {
            SetTime::Keep => w.u32(0),
            SetTime::Server => w.u32(1),
            SetTime::Client(time) => {
                w.u32(2);
                time.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<SetTime, XdrError> {
        match r.u32()? {
            0 => Ok(SetTime::Keep),
            1 => Ok(SetTime::Server),
            2 => Xdr::decode(r).map(SetTime::Client),
            other => Err(XdrError::BadValue(other)),
        }
    }
}

xdr_struct! {
    /// sattr3: the attributes to set.
    #[derive(Copy, Default)]
    Sattr3 {
        /// Permission bits; any value comes through.
        mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
        /// Bytes; any value comes through.
        size: Option<u64>,
        /// Last access.
        atime: SetTime,
        /// Last change of data.
        mtime: SetTime,
    }
}
