//! The cluster's one tree of names: a mirror of the keys under `vfs/`, and planners that turn operations
//! on it into transactions.
//!
//! [`Namespace`] follows the metadata store's notices and answers lookups from memory. [`Namespace::plan`]
//! decides an [`Operation`] on the mirror as it is and returns a transaction that compares exactly what
//! the decision rests on: if it is refused, the mirror was behind, and the caller plans again once the
//! mirror has moved. Any number of gateways do so at once.
//!
//! Promises: POSIX semantics for what NFSv3 can express; no committed plan makes an orphan, a wrong link
//! count or a cycle; nothing from the store makes it panic: what cannot be read is kept aside as damaged.
//! Does not: talk to the store, touch image data, squash identities, know about exports.

mod access;
mod author;
mod directory;
mod inode;
mod keys;
mod mirror;
mod operation;
mod plan;
mod replies;
mod specimens;
#[cfg(test)]
mod tests;
mod users;

pub use access::{Access, Caller, may, may_or_owns};
pub use author::{Author, Trace};
pub use directory::Entry;
pub use inode::{Inode, Kind, Time, Trimming};
pub use mirror::{Namespace, fuzz};
pub use operation::{Attributes, Context, CreateHow, NsError, Numbers, Operation, Outcome, Plan, SetTime, Special};
pub use replies::CallId;
#[doc(hidden)]
pub use specimens::specimens;
pub use users::{Use, image_of};

use trivet_core::ImageId;

/// The root directory.
pub const ROOT: ImageId = ImageId(1);
/// Everything of the namespace but the next image number is under this prefix of the metadata store. It sorts behind what
/// other roles watch ([`trivet_core::keys::FOR_GATEWAYS`]).
pub const PREFIX: &str = "vfs/";
/// Longest name, bytes (RFC 1813 leaves it to PATHCONF `name_max`; 255 is what clients expect).
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, bytes (Linux PATH_MAX without its NUL).
pub const MAX_TARGET: usize = 4095;
/// Largest file, bytes.
pub const MAX_SIZE: u64 = i64::MAX as u64;
/// Most hard links of a file.
pub const MAX_LINKS: u32 = 65_000;
/// Cookies below this one are free for `.` and `..`.
pub const FIRST_COOKIE: u64 = 16;
