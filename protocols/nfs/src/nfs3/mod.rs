//! NFS version 3 (RFC 1813 section 3): every procedure as a typed request and a typed reply.
//!
//! Both arms of each result carry what the RFC gives them. Names and handles are bytes as the client
//! sent them: what is a good name, a live handle or a sensible size is the server's to judge.

mod arguments;
mod attributes;
mod listing;
mod results;
mod types;

pub use arguments::{
    AccessArgs, CommitArgs, CreateArgs, CreateHow, LinkArgs, MakeDirArgs, MakeNode, MakeNodeArgs, ReadArgs,
    ReadDirArgs, ReadDirPlusArgs, RenameArgs, SetAttrArgs, SymlinkArgs, WriteArgs, access,
};
pub use attributes::{FATTR3_SIZE, Fattr3, PostOpAttr, PreOpAttr, Sattr3, SetTime, SpecData, Time, WccAttr, WccData};
pub use listing::{Entry, EntryPlus, Listing, ReadDirBuilder, ReadDirPlusBuilder};
pub use results::{
    AccessOk, CommitOk, CreateOk, FsInfoOk, FsStatOk, LinkWcc, LookupOk, PathConfOk, ReadLinkOk, ReadOk, RenameWcc,
    WriteOk, properties,
};
pub use types::{DirOpArgs, Failure, FileType, Handle, MAX_HANDLE, Outcome, StableHow, Status, Verifier};

use crate::xdr::{Reader, Writer, Xdr, XdrError};

/// The program's number.
pub const PROGRAM: u32 = 100_003;
/// The program's version.
pub const VERSION: u32 = 3;
/// The procedure that does nothing and that the connection answers by itself.
pub const NULL: u32 = 0;

macro_rules! procedures {
    ($($(#[$meta:meta])* $number:literal $name:ident($args:ty) -> $ok:ty, $fail:ty;)*) => {
        /// A call of any procedure but NULL.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[$meta])* $name($args),)*
        }

        /// The result of any procedure but NULL.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Reply {
            $($(#[$meta])* $name(Outcome<$ok, $fail>),)*
        }

        impl Request {
            /// The procedure's number.
            #[must_use]
            pub fn procedure(&self) -> u32 {
                match self { $(Request::$name(_) => $number,)* }
            }

            /// The procedure's name, for metrics and logs.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Request::$name(_) => stringify!($name),)* }
            }

            /// Takes the arguments of a procedure; `None` if there is no such procedure.
            ///
            /// # Errors
            /// Inside: arguments that are not what the procedure takes.
            #[must_use]
            pub fn decode(procedure: u32, r: &mut Reader<'_>) -> Option<Result<Request, XdrError>> {
                match procedure {
                    $($number => Some(Xdr::decode(r).map(Request::$name)),)*
                    _ => None,
                }
            }

            /// Appends the arguments.
            pub fn encode(&self, w: &mut Writer) {
                match self { $(Request::$name(args) => args.encode(w),)* }
            }

            /// The failure of this call, without the attributes that it may carry.
            #[must_use]
            pub fn fail(&self, status: Status) -> Reply {
                match self { $(Request::$name(_) => Reply::$name(Err(status.into())),)* }
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
                    $($number => Some(Xdr::decode(r).map(Reply::$name)),)*
                    _ => None,
                }
            }

            /// Appends the result.
            pub fn encode(&self, w: &mut Writer) {
                match self { $(Reply::$name(outcome) => outcome.encode(w),)* }
            }

            /// Why it failed; `None` for NFS3_OK.
            #[must_use]
            pub fn status(&self) -> Option<Status> {
                match self { $(Reply::$name(outcome) => outcome.as_ref().err().map(|f| f.status),)* }
            }
        }
    };
}

procedures! {
    /// GETATTR: attributes of an object.
    1 GetAttr(Handle) -> Fattr3, ();
    /// SETATTR: changes attributes.
    2 SetAttr(SetAttrArgs) -> WccData, WccData;
    /// LOOKUP: the handle of a name.
    3 Lookup(DirOpArgs) -> LookupOk, PostOpAttr;
    /// ACCESS: what the caller may do.
    4 Access(AccessArgs) -> AccessOk, PostOpAttr;
    /// READLINK: the contents of a symbolic link.
    5 ReadLink(Handle) -> ReadLinkOk, PostOpAttr;
    /// READ: data of a file.
    6 Read(ReadArgs) -> ReadOk, PostOpAttr;
    /// WRITE: data into a file.
    7 Write(WriteArgs) -> WriteOk, WccData;
    /// CREATE: a file.
    8 Create(CreateArgs) -> CreateOk, WccData;
    /// MKDIR: a directory.
    9 MakeDir(MakeDirArgs) -> CreateOk, WccData;
    /// SYMLINK: a symbolic link.
    10 Symlink(SymlinkArgs) -> CreateOk, WccData;
    /// MKNOD: a special file.
    11 MakeNode(MakeNodeArgs) -> CreateOk, WccData;
    /// REMOVE: a name that is not a directory's.
    12 Remove(DirOpArgs) -> WccData, WccData;
    /// RMDIR: a directory's name.
    13 RemoveDir(DirOpArgs) -> WccData, WccData;
    /// RENAME: a name into another.
    14 Rename(RenameArgs) -> RenameWcc, RenameWcc;
    /// LINK: a further name.
    15 Link(LinkArgs) -> LinkWcc, LinkWcc;
    /// READDIR: names of a directory.
    16 ReadDir(ReadDirArgs) -> Listing<Entry>, PostOpAttr;
    /// READDIRPLUS: names with attributes and handles.
    17 ReadDirPlus(ReadDirPlusArgs) -> Listing<EntryPlus>, PostOpAttr;
    /// FSSTAT: space and files, used and free.
    18 FsStat(Handle) -> FsStatOk, PostOpAttr;
    /// FSINFO: sizes and properties that do not change.
    19 FsInfo(Handle) -> FsInfoOk, PostOpAttr;
    /// PATHCONF: limits of names.
    20 PathConf(Handle) -> PathConfOk, PostOpAttr;
    /// COMMIT: makes earlier writes stable.
    21 Commit(CommitArgs) -> CommitOk, WccData;
}

impl Request {
    /// Bytes of data that the caller asks to be sent back, as it says (not clamped).
    #[must_use]
    pub fn wanted(&self) -> u32 {
        match self {
            Request::Read(args) => args.count,
            Request::ReadDir(args) => args.count,
            Request::ReadDirPlus(args) => args.max_count,
            _ => 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
