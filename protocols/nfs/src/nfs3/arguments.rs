//! The arguments of the procedures (RFC 1813 section 3.3). GETATTR, READLINK, FSSTAT, FSINFO and PATHCONF
//! take a handle, LOOKUP, REMOVE and RMDIR a [`DirOpArgs`].

use bytes::Bytes;

use super::attributes::{Sattr3, SpecData, Time};
use super::types::{DirOpArgs, FileType, Handle, StableHow, Verifier};
use crate::xdr::{Reader, Writer, Xdr, XdrError};

/// The bits of ACCESS (section 3.3.4).
pub mod access {
    /// Read data or a directory.
    pub const READ: u32 = 0x01;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 0x02;
    /// Change existing data.
    pub const MODIFY: u32 = 0x04;
    /// Write new data, add names.
    pub const EXTEND: u32 = 0x08;
    /// Remove names.
    pub const DELETE: u32 = 0x10;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x20;
}

xdr_struct! {
    /// SETATTR3args.
    SetAttrArgs {
        /// The object.
        object: Handle,
        /// What to set.
        attributes: Sattr3,
        /// Only if the object's ctime is this.
        guard: Option<Time>,
    }
}

xdr_struct! {
    /// ACCESS3args.
    AccessArgs {
        /// The object.
        object: Handle,
        /// The bits asked about, see [`access`].
        access: u32,
    }
}

xdr_struct! {
    /// READ3args.
    ReadArgs {
        /// The file.
        file: Handle,
        /// Bytes.
        offset: u64,
        /// Bytes; any value comes through.
        count: u32,
    }
}

/// WRITE3args.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteArgs {
    /// The file.
    pub file: Handle,
    /// Bytes.
    pub offset: u64,
    /// Bytes to write; should be the length of `data`, which is for the server to check.
    pub count: u32,
    /// How stable before the reply.
    pub stable: StableHow,
    /// A slice of the record that brought it.
    pub data: Bytes,
}

impl Xdr for WriteArgs {
    fn encode(&self, w: &mut Writer) {
        self.file.encode(w);
        w.u64(self.offset);
        w.u32(self.count);
        self.stable.encode(w);
        w.payload(std::slice::from_ref(&self.data));
    }

    fn decode(r: &mut Reader<'_>) -> Result<WriteArgs, XdrError> {
        Ok(WriteArgs {
            file: Xdr::decode(r)?,
            offset: r.u64()?,
            count: r.u32()?,
            stable: Xdr::decode(r)?,
            data: Xdr::decode(r)?,
        })
    }
}

xdr_struct! {
    /// CREATE3args.
    CreateArgs {
        /// The new name.
        target: DirOpArgs,
        /// What if it exists.
        how: CreateHow,
    }
}

/// createhow3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateHow {
    /// An existing file is taken, and gets these attributes.
    Unchecked(Sattr3),
    /// An existing name is an error.
    Guarded(Sattr3),
    /// An existing name is an error, unless it was made with the same verifier.
    Exclusive(Verifier),
}

impl Xdr for CreateHow {
    fn encode(&self, w: &mut Writer) {
        match self {
            CreateHow::Unchecked(attributes) => {
                w.u32(0);
                attributes.encode(w);
            }
            CreateHow::Guarded(attributes) => {
                w.u32(1);
                attributes.encode(w);
            }
            CreateHow::Exclusive(verifier) => {
                w.u32(2);
                verifier.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<CreateHow, XdrError> {
        match r.u32()? {
            0 => Xdr::decode(r).map(CreateHow::Unchecked),
            1 => Xdr::decode(r).map(CreateHow::Guarded),
            2 => Xdr::decode(r).map(CreateHow::Exclusive),
            other => Err(XdrError::BadValue(other)),
        }
    }
}

xdr_struct! {
    /// MKDIR3args.
    MakeDirArgs {
        /// The new name.
        target: DirOpArgs,
        /// Its first attributes.
        attributes: Sattr3,
    }
}

xdr_struct! {
    /// SYMLINK3args.
    SymlinkArgs {
        /// The new name.
        target: DirOpArgs,
        /// Its first attributes.
        attributes: Sattr3,
        /// What it points to: any bytes, of any length.
        path: Bytes,
    }
}

xdr_struct! {
    /// MKNOD3args.
    MakeNodeArgs {
        /// The new name.
        target: DirOpArgs,
        /// What to make.
        what: MakeNode,
    }
}

/// mknoddata3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MakeNode {
    /// A character device.
    Character(Sattr3, SpecData),
    /// A block device.
    Block(Sattr3, SpecData),
    /// A socket.
    Socket(Sattr3),
    /// A FIFO.
    Fifo(Sattr3),
    /// A regular file, a directory or a symbolic link, which MKNOD does not make: to be answered with
    /// [`super::Status::BadType`].
    Other(FileType),
}

impl MakeNode {
    /// The type asked for.
    #[must_use]
    pub fn kind(&self) -> FileType {
        match self {
            MakeNode::Character(..) => FileType::Character,
            MakeNode::Block(..) => FileType::Block,
            MakeNode::Socket(_) => FileType::Socket,
            MakeNode::Fifo(_) => FileType::Fifo,
            MakeNode::Other(kind) => *kind,
        }
    }
}

impl Xdr for MakeNode {
    fn encode(&self, w: &mut Writer) {
        self.kind().encode(w);
        match self {
            MakeNode::Character(attributes, device) | MakeNode::Block(attributes, device) => {
                attributes.encode(w);
                device.encode(w);
            }
            MakeNode::Socket(attributes) | MakeNode::Fifo(attributes) => attributes.encode(w),
            MakeNode::Other(_) => {}
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<MakeNode, XdrError> {
        Ok(match FileType::decode(r)? {
            FileType::Character => MakeNode::Character(Xdr::decode(r)?, Xdr::decode(r)?),
            FileType::Block => MakeNode::Block(Xdr::decode(r)?, Xdr::decode(r)?),
            FileType::Socket => MakeNode::Socket(Xdr::decode(r)?),
            FileType::Fifo => MakeNode::Fifo(Xdr::decode(r)?),
            kind => MakeNode::Other(kind),
        })
    }
}

xdr_struct! {
    /// RENAME3args.
    RenameArgs {
        /// The old name.
        from: DirOpArgs,
        /// The new name.
        to: DirOpArgs,
    }
}

xdr_struct! {
    /// LINK3args.
    LinkArgs {
        /// The object.
        file: Handle,
        /// Its further name.
        link: DirOpArgs,
    }
}

xdr_struct! {
    /// READDIR3args.
    ReadDirArgs {
        /// The directory.
        dir: Handle,
        /// 0, or that of the last entry received.
        cookie: u64,
        /// 0, or that of the listing which gave the cookie.
        verifier: Verifier,
        /// Bytes of READDIR3resok at most; any value comes through.
        count: u32,
    }
}

xdr_struct! {
    /// READDIRPLUS3args.
    ReadDirPlusArgs {
        /// The directory.
        dir: Handle,
        /// 0, or that of the last entry received.
        cookie: u64,
        /// 0, or that of the listing which gave the cookie.
        verifier: Verifier,
        /// Bytes of fileids, names and cookies at most; any value comes through.
        dir_count: u32,
        /// Bytes of READDIRPLUS3resok at most; any value comes through.
        max_count: u32,
    }
}

xdr_struct! {
    /// COMMIT3args.
    CommitArgs {
        /// The file.
        file: Handle,
        /// Bytes.
        offset: u64,
        /// Bytes; 0 means to the end of the file.
        count: u32,
    }
}
