//! The metadata store's vocabulary: what machines ask of it and hear from it, as data.
//!
//! The trait with its backends lives in `cluster/meta`; machines only make and consume these values.
//! Everything that is decided is decided in a transaction that compares the revisions of its inputs.

mod limits;

use bytes::Bytes;

pub use limits::{MAX_CHANGES, MAX_COMPARES, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Counts the commits of the whole store; a key's `mod_revision` is the commit that last wrote it.
pub type Revision = u64;

/// A lease; keys attached to it vanish when it is revoked or expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written by this commit.
    ModRevision(String, Revision),
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Exists(String),
    /// No key with this prefix exists.
    EmptyPrefix(String),
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a key.
    Put {
        /// Slash-separated, without the cluster's prefix.
        key: String,
        /// JSON.
        value: Bytes,
        /// The key vanishes with this lease.
        lease: Option<LeaseId>,
    },
    /// Removes a key.
    Delete(String),
}

impl Change {
    /// A put without a lease.
    #[must_use]
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Change {
        Change::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        }
    }

    /// The key that it changes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Change::Put { key, .. } | Change::Delete(key) => key,
        }
    }
}

/// If every condition holds, all changes happen at once; else none. What it may be is said by [`Txn::check`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold; at most [`MAX_COMPARES`].
    pub compare: Vec<Compare>,
    /// At most [`MAX_CHANGES`].
    pub changes: Vec<Change>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Without the cluster's prefix.
    pub key: String,
    /// JSON.
    pub value: Bytes,
    /// The commit that wrote it.
    pub mod_revision: Revision,
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Written.
    Put(KeyValue),
    /// Removed, by this commit.
    Delete {
        /// The key.
        key: String,
        /// The commit that removed it.
        revision: Revision,
    },
}

/// The outcome of a transaction that reached the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// All conditions held; the changes are durable as this commit.
    Committed(Revision),
    /// A condition did not hold as of this commit, the last one of the whole store; nothing changed. In a store that is
    /// shared it may be a commit that concerns nobody here, which no mirror ever reaches: what a mirror does reach is a commit
    /// behind the one on which the conditions were decided.
    Refused(Revision),
    /// The store could not be asked, or its answer was lost: it may or may not have happened.
    Unknown,
}

/// What a machine that mirrors the store hears: first one `Snapshot`, then `Changes` in commit order.
/// A new `Snapshot` may come at any time (the watch was compacted); it replaces everything. `Replaced` comes when the store
/// itself is not the one any more that was watched so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Everything under the watched prefix as of this commit.
    Snapshot {
        /// The commit.
        revision: Revision,
        /// All keys, ascending.
        keys: Vec<KeyValue>,
    },
    /// The store was put back to an earlier state, or another one took its place: everything under the watched prefix
    /// as of a commit of that one, which may be lower than those that were heard of, and means something else.
    Replaced {
        /// The commit.
        revision: Revision,
        /// All keys, ascending.
        keys: Vec<KeyValue>,
    },
    /// The changes of one or more commits, complete up to `revision`.
    Changes {
        /// The last commit contained.
        revision: Revision,
        /// In commit order.
        events: Vec<Event>,
    },
}

/// What a mirror has to do about a [`Notice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// It holds these keys and no others.
    All(&'a [KeyValue]),
    /// A key was written.
    Put(&'a KeyValue),
    /// A key was removed.
    Delete(&'a str),
}

impl Notice {
    /// The last commit that it tells of.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Notice::Snapshot { revision, .. }
            | Notice::Replaced { revision, .. }
            | Notice::Changes { revision, .. } => *revision,
        }
    }

    /// What is new in it, in commit order, to a mirror that knows of everything up to `known`. What is older (a stale read, a
    /// repeated change) is passed over, unless the store itself was replaced.
    pub fn news(&self, known: Revision) -> impl Iterator<Item = News<'_>> {
        let (all, events): (Option<&[KeyValue]>, &[Event]) = match self {
            Notice::Snapshot { revision, .. } if *revision < known => (None, &[]),
            Notice::Snapshot { keys, .. } | Notice::Replaced { keys, .. } => (Some(keys), &[]),
            Notice::Changes { events, .. } => (None, events),
        };
        let changes = events.iter().filter_map(move |event| match event {
            Event::Put(kv) => (kv.mod_revision > known).then_some(News::Put(kv)),
            Event::Delete { key, revision } => (*revision > known).then_some(News::Delete(key)),
        });
        all.map(News::All).into_iter().chain(changes)
    }

    /// The last commit that a mirror knows of when it has taken this in, which knew of everything up to `known`.
    #[must_use]
    pub fn known_after(&self, known: Revision) -> Revision {
        match self {
            Notice::Replaced { revision, .. } => *revision,
            Notice::Snapshot { revision, .. } | Notice::Changes { revision, .. } => known.max(*revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_is_no_news_unless_the_store_was_replaced() {
        let kv = |mod_revision| KeyValue {
            key: "a".to_owned(),
            value: Bytes::new(),
            mod_revision,
        };
        let keys = vec![kv(3)];
        let snapshot = |revision| Notice::Snapshot {
            revision,
            keys: keys.clone(),
        };
        let replaced = Notice::Replaced {
            revision: 4,
            keys: keys.clone(),
        };
        let delete = |revision| Event::Delete {
            key: "b".to_owned(),
            revision,
        };
        let changes = Notice::Changes {
            revision: 8,
            events: vec![Event::Put(kv(5)), delete(6), Event::Put(kv(7)), delete(8)],
        };
        let (all, put) = (News::All(&keys), kv(7));
        let table = [
            (snapshot(4), 5, vec![], 5),
            (snapshot(5), 5, vec![all], 5),
            (snapshot(6), 5, vec![all], 6),
            (replaced, 5, vec![all], 4),
            (changes.clone(), 6, vec![News::Put(&put), News::Delete("b")], 8),
            (changes, 9, vec![], 9),
        ];
        for (notice, known, news, after) in table {
            assert_eq!(notice.news(known).collect::<Vec<_>>(), news, "{notice:?}");
            assert_eq!(notice.known_after(known), after, "{notice:?}");
        }
    }
}
