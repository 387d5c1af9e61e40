//! What a procedure sees and what it can decide: the tree as it is, the caller, and the next step.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use trivet_client::{ImageOp, IoError};
use trivet_core::ImageId;
use trivet_namespace::{Access, Caller, Inode, Kind, Namespace, NsError, Operation, Time, may, may_or_owns};
use trivet_nfs::nfs3::{self, Fattr3, Handle, PostOpAttr, SpecData, Status, WccData};
use trivet_nfs::rpc::Credentials;

use super::exports::Export;
use super::handles::Target;
use super::server::NfsServer;
use crate::session::Space;

/// The surroundings of one call.
pub(super) struct CallContext<'a> {
    pub(super) server: &'a NfsServer,
    pub(super) namespace: &'a Namespace,
    /// When files were written, where the tree does not know it yet.
    pub(super) touched: &'a BTreeMap<ImageId, Time>,
    pub(super) wall: Time,
    pub(super) space: Space,
    pub(super) peer: SocketAddr,
    pub(super) credentials: &'a Credentials,
    /// The call was executed already, perhaps at another gateway, and comes again.
    pub(super) is_repeat: bool,
}

/// What is to be done for a call.
#[derive(Debug)]
pub(super) enum Step {
    /// Answer.
    Reply(nfs3::Reply),
    /// Read or write a file's bytes, then go on.
    Io(ImageId, ImageOp, Then),
    /// Change the tree of names, then go on.
    Change(Operation, Caller, Then),
}

/// What to do with the answer of a step.
#[derive(Debug)]
pub(super) enum Then {
    /// READ.
    Read { file: ImageId, eof: bool },
    /// WRITE: the data is durable; the size may have to follow.
    Write(Written),
    /// WRITE: the size has followed.
    Grow(Written),
    /// SETATTR.
    SetAttr { object: ImageId },
    /// CREATE, MKDIR, SYMLINK, MKNOD.
    Made { made: Made, export: u32, dir: ImageId },
    /// REMOVE.
    Removed { dir: ImageId },
    /// RMDIR.
    DirRemoved { dir: ImageId },
    /// RENAME.
    Renamed { from: ImageId, to: ImageId },
    /// LINK.
    Linked { object: ImageId, dir: ImageId },
    /// Any that changes names: it is refused so, if nobody has executed it.
    Refused(Box<nfs3::Reply>),
}

/// What a WRITE writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) file: ImageId,
    pub(super) count: u32,
    /// The byte after its last.
    pub(super) end: u64,
    /// The last truncation when its bytes were begun; not known before they are durable.
    pub(super) cut: Option<Time>,
}

/// Which procedure made an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    File,
    Dir,
    Symlink,
    Node,
}

/// Why a call is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// With this status.
    Status(Status),
    /// The credentials' flavour is not enough.
    TooWeak,
}

impl From<Status> for Denied {
    fn from(status: Status) -> Denied {
        Denied::Status(status)
    }
}

impl From<NsError> for Denied {
    fn from(error: NsError) -> Denied {
        Denied::Status(ns_status(&error))
    }
}

/// An object that the caller has a right to address.
#[derive(Debug)]
pub(super) struct Object<'a> {
    pub(super) export: &'a Export,
    pub(super) id: ImageId,
    pub(super) inode: &'a Inode,
    pub(super) caller: Caller,
}

impl<'a> CallContext<'a> {
    /// The object of a handle, and who calls. The export's client list is checked every time.
    pub(super) fn open(&self, handle: &Handle) -> Result<Object<'a>, Denied> {
        let Target { export, id, generation } = self.server.sealer().open(handle).ok_or(Status::BadHandle)?;
        let export = self.server.export(export).ok_or(Status::Stale)?;
        if !export.admits(self.peer.ip(), self.peer.port()) {
            return Err(Status::Access.into());
        }
        let inode = self.namespace.inode(id).filter(|inode| inode.generation == generation);
        let inode = inode.ok_or(Status::Stale)?;
        let caller = export.caller(self.credentials).ok_or(Denied::TooWeak)?;
        Ok(Object {
            export,
            id,
            inode,
            caller,
        })
    }

    /// As [`CallContext::open`], for an object that is to be changed.
    pub(super) fn open_to_change(&self, handle: &Handle) -> Result<Object<'a>, Denied> {
        let object = self.open(handle)?;
        if object.export.read_only {
            Err(Status::ReadOnly.into())
        } else {
            Ok(object)
        }
    }

    /// The handle of an object found through the same export.
    pub(super) fn handle(&self, export: u32, id: ImageId, inode: &Inode) -> Handle {
        self.server.sealer().seal(Target::new(export, id, inode))
    }

    /// The attributes of an object, if it exists.
    pub(super) fn attributes(&self, id: ImageId) -> PostOpAttr {
        self.namespace.inode(id).map(|inode| self.fattr3(id, inode))
    }

    /// An inode's attributes in NFS's form.
    pub(super) fn fattr3(&self, id: ImageId, inode: &Inode) -> Fattr3 {
        let mut attributes = fattr3(self.server.fsid(), id, inode);
        if let Some(&written) = self.touched.get(&id) {
            modify(&mut attributes, written);
        }
        attributes
    }

    /// What an object is after a call. What it was before is not told: another gateway may have
    /// changed it in between.
    pub(super) fn wcc(&self, id: ImageId) -> WccData {
        WccData {
            before: None,
            after: self.attributes(id),
        }
    }
}

impl Object<'_> {
    /// Whether the caller may, by the mode.
    pub(super) fn may(&self, access: Access) -> bool {
        may(self.inode, &self.caller, access)
    }

    /// As [`Object::may`], but an owner always may.
    pub(super) fn may_or_owns(&self, access: Access) -> bool {
        may_or_owns(self.inode, &self.caller, access)
    }

    /// It must be a directory.
    pub(super) fn directory(self) -> Result<Self, Denied> {
        if self.inode.is_dir() {
            Ok(self)
        } else {
            Err(Status::NotDir.into())
        }
    }

    /// It must be a regular file.
    pub(super) fn file(self) -> Result<Self, Denied> {
        match self.inode.kind {
            Kind::File => Ok(self),
            Kind::Dir => Err(Status::IsDir.into()),
            _ => Err(Status::Invalid.into()),
        }
    }
}

/// Moves the times of an object that was written.
pub(super) fn modify(attributes: &mut Fattr3, written: Time) {
    attributes.mtime = attributes.mtime.max(time(written));
    attributes.ctime = attributes.ctime.max(time(written));
}

fn fattr3(fsid: u64, id: ImageId, inode: &Inode) -> Fattr3 {
    let (major, minor) = inode.rdev.unwrap_or_default();
    Fattr3 {
        kind: file_type(inode.kind),
        mode: inode.mode,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        size: inode.size,
        used: inode.size,
        rdev: SpecData { major, minor },
        fsid,
        fileid: id.0,
        atime: time(inode.atime),
        mtime: time(inode.mtime),
        ctime: time(inode.ctime),
    }
}

fn file_type(kind: Kind) -> nfs3::FileType {
    match kind {
        Kind::File => nfs3::FileType::Regular,
        Kind::Dir => nfs3::FileType::Directory,
        Kind::Symlink => nfs3::FileType::Symlink,
        Kind::Fifo => nfs3::FileType::Fifo,
        Kind::Socket => nfs3::FileType::Socket,
        Kind::Char => nfs3::FileType::Character,
        Kind::Block => nfs3::FileType::Block,
    }
}

/// A time in NFS's form, which holds 1970 to 2106.
pub(super) fn time(time: Time) -> nfs3::Time {
    let latest = if time.sec < 0 { 0 } else { u32::MAX };
    nfs3::Time {
        seconds: u32::try_from(time.sec).unwrap_or(latest),
        nanoseconds: time.nsec,
    }
}

/// A failure of the tree of names in NFS's form.
pub(super) fn ns_status(error: &NsError) -> Status {
    match error {
        NsError::NotFound => Status::NoEnt,
        NsError::Exists => Status::Exist,
        NsError::NotDir => Status::NotDir,
        NsError::IsDir => Status::IsDir,
        NsError::NotEmpty => Status::NotEmpty,
        NsError::NameTooLong => Status::NameTooLong,
        NsError::Perm => Status::Perm,
        NsError::Access => Status::Access,
        NsError::Stale => Status::Stale,
        NsError::Inval | NsError::TooDeep => Status::Invalid,
        NsError::FileTooBig => Status::FileTooBig,
        NsError::TooManyLinks => Status::TooManyLinks,
        NsError::NotSync | NsError::Cut => Status::NotSync,
        NsError::NeedNumbers | NsError::Trimming(_) | NsError::Forsaken => Status::Jukebox,
        // Without a pool there is nowhere to put a file.
        NsError::NoSpace | NsError::NoPool => Status::NoSpace,
        NsError::Damaged(_) | NsError::Unknown => Status::Io,
    }
}

/// A failure of the storage in NFS's form.
pub(super) fn io_status(error: IoError) -> Status {
    match error {
        IoError::NoSpace => Status::NoSpace,
        IoError::Damaged | IoError::NoPool => Status::Io,
    }
}
