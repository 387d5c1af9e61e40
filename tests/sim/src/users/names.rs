//! What an NFS user asks about names, and what it is told.

use bytes::Bytes;

/// How a file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateHow {
    /// Only if there is none.
    Guarded,
    /// The same, and whoever asks again with the same verifier made it.
    Exclusive(u64),
}

/// A question about names, or a change of them. Directories and files are named by their handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameCall {
    /// Which node a name stands for.
    Lookup {
        /// In this directory.
        dir: Bytes,
        /// The name.
        name: String,
    },
    /// Attributes.
    GetAttr {
        /// Of this node.
        node: Bytes,
    },
    /// A file gets another size.
    SetSize {
        /// Which.
        file: Bytes,
        /// Bytes.
        size: u64,
    },
    /// A file is made.
    Create {
        /// In this directory.
        dir: Bytes,
        /// The name.
        name: String,
        /// If it is there already.
        how: CreateHow,
    },
    /// A directory is made.
    MakeDir {
        /// In this directory.
        dir: Bytes,
        /// The name.
        name: String,
    },
    /// A name of a file goes.
    Remove {
        /// In this directory.
        dir: Bytes,
        /// The name.
        name: String,
    },
    /// An empty directory goes.
    RemoveDir {
        /// In this directory.
        dir: Bytes,
        /// The name.
        name: String,
    },
    /// A node gets another name, in place of what has it.
    Rename {
        /// Directory and name.
        from: (Bytes, String),
        /// Directory and name.
        to: (Bytes, String),
    },
    /// A file gets another name.
    Link {
        /// Which.
        file: Bytes,
        /// In this directory.
        dir: Bytes,
        /// The name.
        name: String,
    },
    /// All names.
    List {
        /// Of this directory.
        dir: Bytes,
    },
}

impl NameCall {
    /// Whether it changes names.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Lookup { .. } | Self::GetAttr { .. } | Self::List { .. })
    }
}

/// Of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub fileid: u64,
    /// What it is.
    pub directory: bool,
    /// How many names it has.
    pub links: u32,
    /// Bytes.
    pub size: u64,
    /// When its data changed last: seconds, nanoseconds.
    pub modified: (u32, u32),
    /// When anything of it changed last.
    pub changed: (u32, u32),
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameReply {
    /// 0 for success.
    pub status: u32,
    /// Of the node that was found or made.
    pub handle: Option<Bytes>,
    /// Of the node that it was about.
    pub attributes: Option<Attributes>,
    /// Names and nodes of a directory, in the order of the listing.
    pub entries: Vec<(String, u64)>,
    /// The listing is whole.
    pub whole: bool,
}
