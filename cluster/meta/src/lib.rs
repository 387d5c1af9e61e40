//! The metadata store: configuration, cluster map, history, namespace and leases, behind one trait.
//!
//! [`Meta`] speaks the vocabulary of [`trivet_core::kv`]. [`Embedded`] keeps everything in one file of
//! this machine, [`Etcd`] in an etcd cluster; the suite in `suite.rs` says what any backend has to do, and
//! every backend runs through it, as does the store of `tests/sim`.
//!
//! Promises: a transaction is durable before it is answered, happens wholly or not at all, and has a
//! revision of its own that is never given twice, not even across restarts; what a watch delivers, laid
//! over its last snapshot, is what a range would have returned at that revision.
//! Does not: interpret keys or values, repeat a transaction, or give access to old versions.

mod embedded;
mod etcd;
mod span;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use trivet_core::kv::{KeyValue, LeaseId, Notice, Revision, Txn, TxnOutcome};

pub use embedded::Embedded;
pub use etcd::{Etcd, MetaUrl, MetaUrlError};

/// What an asynchronous method of the store returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the store did not do what it was asked. Nothing was changed, except that a lease may have been granted, prolonged or
/// revoked if the store became unavailable meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The store is open already, here or in another process.
    #[error("{0}: the metadata store is in use by another process (is trivet running already?)")]
    InUse(String),
    /// The file is not a metadata store of this version, or it is damaged.
    #[error("{path}: not a usable metadata store: {reason}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left for the metadata store: {0}")]
    NoSpace(String),
    /// The store cannot be read or written now; it may be later.
    #[error("the metadata store is unavailable: {0}")]
    Unavailable(String),
    /// The lease has expired or was revoked or never existed.
    #[error("lease {} does not exist (any more)", .0.0)]
    NoSuchLease(LeaseId),
    /// The request breaks a rule or a limit of the store.
    #[error("invalid metadata request: {0}")]
    Invalid(&'static str),
}

/// All keys of a prefix at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The store's last commit when it was read.
    pub revision: Revision,
    /// Ascending.
    pub keys: Vec<KeyValue>,
}

/// A metadata store. Handles are shared (`Arc<dyn Meta>`).
pub trait Meta: Send + Sync {
    /// The key as of the last commit.
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<KeyValue>, MetaError>>;

    /// All keys that begin with `prefix` (all keys if it is empty), as of the last commit.
    fn range<'a>(&'a self, prefix: &'a str) -> Pending<'a, Result<Range, MetaError>>;

    /// Compares, and changes if all conditions hold. A transaction that changes nothing (only
    /// deletes of absent keys, or no change at all) is `Committed` as of the last commit and does not
    /// count as one. An `Err` means that nothing happened; `Ok(Unknown)` that nobody can say.
    fn txn(&self, txn: Txn) -> Pending<'_, Result<TxnOutcome, MetaError>>;

    /// Watches the keys that begin with `prefix`: first a `Snapshot`, then `Changes`. With `from`, the
    /// last commit that the caller knows completely, it begins with the changes after that one if
    /// the store still has them.
    fn watch(&self, prefix: &str, from: Option<Revision>) -> Box<dyn Watch>;

    /// Watches the keys that sort before `end`, like [`Meta::watch`]: for readers who have no use for what comes behind.
    fn watch_before(&self, end: &str, from: Option<Revision>) -> Box<dyn Watch>;

    /// Whether the store has run out of room, so that it takes no changes until somebody makes some.
    fn is_full(&self) -> Pending<'_, Result<bool, MetaError>>;

    /// Makes a lease that lives for `ttl` after now and after each keep-alive.
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, MetaError>>;

    /// Lets the lease live for another `ttl`.
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>>;

    /// Ends the lease and removes its keys, in one commit.
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>>;
}

/// A running watch. Memory is bounded: a reader that is too slow gets a new `Snapshot`.
pub trait Watch: Send {
    /// The next notice; `None` when the store was closed. Nothing is lost if the future is dropped.
    fn next(&mut self) -> Pending<'_, Option<Notice>>;
}
