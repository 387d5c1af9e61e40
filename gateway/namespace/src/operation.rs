//! What can be asked of the namespace, and what comes of it.

use trivet_core::kv::Txn;
use trivet_core::{ClientId, ImageId, PoolId};

use crate::access::Caller;
use crate::inode::{Kind, Time, Trimming};

/// How a time is to be set (RFC 1813, `set_atime`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    /// It stays.
    #[default]
    Keep,
    /// To the gateway's clock.
    Now,
    /// To the client's.
    To(Time),
}

/// Attributes to set; `None` stays, or for a new inode takes its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes; only of files.
    pub size: Option<u64>,
    /// Last read.
    pub atime: SetTime,
    /// Last change.
    pub mtime: SetTime,
}

/// What if the name exists (RFC 1813, 3.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateHow {
    /// A file is taken as it is, with the size if one is given.
    Unchecked,
    /// That is an error.
    Guarded,
    /// That is an error, unless it was made with this verifier.
    Exclusive(u64),
}

/// What [`Operation::MakeNode`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device: major, minor.
    Char(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
}

impl Special {
    pub(crate) fn parts(self) -> (Kind, Option<(u32, u32)>) {
        match self {
            Special::Fifo => (Kind::Fifo, None),
            Special::Socket => (Kind::Socket, None),
            Special::Char(major, minor) => (Kind::Char, Some((major, minor))),
            Special::Block(major, minor) => (Kind::Block, Some((major, minor))),
        }
    }
}

/// A change of the namespace. Paths are from the root, slash-separated; `id`s may be stale.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub enum Operation {
    /// Makes a regular file, or finds it: `Node`.
    CreateFile {
        parent: ImageId,
        name: Vec<u8>,
        how: CreateHow,
        attributes: Attributes,
    },
    /// Makes a directory: `Node`.
    MakeDir {
        parent: ImageId,
        name: Vec<u8>,
        attributes: Attributes,
    },
    /// Makes a symbolic link: `Node`.
    Symlink {
        parent: ImageId,
        name: Vec<u8>,
        target: Vec<u8>,
        attributes: Attributes,
    },
    /// Makes a special file: `Node`.
    MakeNode {
        parent: ImageId,
        name: Vec<u8>,
        special: Special,
        attributes: Attributes,
    },
    /// Gives an inode that is no directory another name.
    Link {
        id: ImageId,
        parent: ImageId,
        name: Vec<u8>,
    },
    /// Removes a name that is no directory's. With a file's last name its data goes (a purge is left).
    Remove { parent: ImageId, name: Vec<u8> },
    /// Removes an empty directory.
    RemoveDir { parent: ImageId, name: Vec<u8> },
    /// Moves a name, over another if that exists.
    Rename {
        from: ImageId,
        from_name: Vec<u8>,
        to: ImageId,
        to_name: Vec<u8>,
    },
    /// Sets attributes, if the ctime is `guard_ctime` (when given).
    SetAttr {
        id: ImageId,
        changes: Attributes,
        guard_ctime: Option<Time>,
    },
    /// A write has reached the byte before `size` at `mtime`: size and times follow, never back.
    /// The caller has checked the permission to write; when it wrote, the last truncation was `cut`.
    Grow {
        id: ImageId,
        size: u64,
        mtime: Time,
        cut: Option<Time>,
    },
    /// Files were written in place at these times, which never go back. Files that are gone are left out.
    Touch { times: Vec<(ImageId, Time)> },
    /// The data of a truncation is removed.
    TrimDone { id: ImageId, trimming: Trimming },
    /// This gateway takes a truncation over from one that is dead for certain.
    TakeTrim { id: ImageId, trimming: Trimming },
    /// The data of a removed file is gone.
    PurgeDone { id: ImageId },
    /// A gateway that is gone for certain does not use a file any more, which it may have written until now.
    EndUse { id: ImageId, client: ClientId },
    /// Makes an image, and the directories above it, as the administrator: `Node`.
    CreateImage { path: Vec<u8>, size: u64 },
    /// Removes an image's name, as the administrator.
    RemoveImage { path: Vec<u8> },
    /// Renames an image or a directory, never over another, as the administrator.
    RenameImage { from: Vec<u8>, to: Vec<u8> },
    /// Sets an image's size, as the administrator.
    Resize { id: ImageId, size: u64 },
    /// Takes this many image numbers for this gateway: `Numbers`, to be given to [`Numbers::add`].
    Reserve { count: u64 },
}

/// What a committed plan has brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// The inode that was made or found.
    Node(ImageId),
    /// Numbers reserved: the first, and the one after the last.
    Numbers(u64, u64),
}

/// A transaction to run, and what to answer when it has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Compares all that was decided on. Without changes there is nothing to do; running it
    /// nevertheless tells whether the mirror was up to date.
    pub txn: Txn,
    /// What to answer.
    pub outcome: Outcome,
}

impl Plan {
    /// Whether everything is so already.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.txn.changes.is_empty()
    }
}

/// Around an operation.
#[derive(Clone, Debug)]
pub struct Context {
    /// On whose behalf.
    pub caller: Caller,
    /// The wall clock.
    pub now: Time,
    /// Where new files go.
    pub pool: Option<PoolId>,
    /// This gateway.
    pub gateway: ClientId,
}

/// Image numbers that are this gateway's to use. A number goes out once, whatever becomes of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    next: u64,
    end: u64,
}

impl Numbers {
    /// Numbers from `first` until before `end`, in place of those that were left.
    pub fn add(&mut self, first: u64, end: u64) {
        *self = Numbers { next: first, end };
    }

    pub(crate) fn take(&mut self) -> Result<u64, NsError> {
        if self.next >= self.end {
            return Err(NsError::NeedNumbers);
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// Why an operation cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NsError {
    /// No such name.
    #[error("no such name")]
    NotFound,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// A directory is needed.
    #[error("not a directory")]
    NotDir,
    /// A directory will not do.
    #[error("it is a directory")]
    IsDir,
    /// Only an empty directory can be removed.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A name of more than 255 bytes, or a target of more than 4095.
    #[error("the name is too long")]
    NameTooLong,
    /// Only the owner, or root, may.
    #[error("not the owner")]
    Perm,
    /// The mode forbids it.
    #[error("permission denied")]
    Access,
    /// The inode does not exist any more.
    #[error("the file is gone")]
    Stale,
    /// It makes no sense.
    #[error("invalid argument")]
    Inval,
    /// Larger than [`crate::MAX_SIZE`].
    #[error("the file is too big")]
    FileTooBig,
    /// More names than [`crate::MAX_LINKS`].
    #[error("too many links")]
    TooManyLinks,
    /// Directories nested too deep for a transaction.
    #[error("directories are nested too deep")]
    TooDeep,
    /// No pool to put files in.
    #[error("there is no pool for new files")]
    NoPool,
    /// The ctime is not the guard's.
    #[error("changed meanwhile")]
    NotSync,
    /// [`Numbers`] ran out: run [`Operation::Reserve`], then plan again.
    #[error("image numbers are to be reserved")]
    NeedNumbers,
    /// All 2^48 image numbers are used up.
    #[error("no image numbers are left")]
    NoSpace,
    /// An earlier truncation's data must be removed first: by its gateway, see [`Trimming`].
    #[error("a truncation is under way")]
    Trimming(Trimming),
    /// It may have happened, and what could tell was swept up meanwhile: the gateway was away for too long.
    #[error("nobody can say whether it happened")]
    Unknown,
    /// Whoever asked for it is gone: it did not happen.
    #[error("its client is gone")]
    Forsaken,
    /// The file was truncated after what was to make it grow: that may be gone.
    #[error("truncated meanwhile")]
    Cut,
    /// What the store holds cannot be read.
    #[error("the metadata is damaged: {0}")]
    Damaged(String),
}
