//! Between the cluster's keys and etcd's: every key is stored as `/PREFIX/<key>`.

use bytes::Bytes;
use etcd_client::{Compare as EtcdCompare, CompareOp, PutOptions, Txn as EtcdTxn, TxnOp, proto};
use trivet_core::kv::{Change, Compare, Event, KeyValue, Revision, Txn};

use crate::span::Span;

/// `Event.EventType.DELETE` of etcd's `mvccpb`.
const DELETE: i32 = 1;

/// The part of etcd that is one cluster's.
#[derive(Clone, Debug)]
pub(super) struct Keyspace {
    /// With a slash at both ends.
    prefix: String,
}

impl Keyspace {
    pub(super) fn new(prefix: &str) -> Keyspace {
        Keyspace {
            prefix: format!("/{prefix}/"),
        }
    }

    /// etcd's name of a key, or of the keys that begin with it.
    pub(super) fn full(&self, key: &str) -> String {
        [&self.prefix, key].concat()
    }

    /// etcd's name of the end of a span.
    pub(super) fn end(&self, span: &Span) -> Vec<u8> {
        match &span.end {
            Some(end) => self.full(end).into_bytes(),
            None => end_of(&self.full(&span.prefix)),
        }
    }

    /// A transaction as etcd has it.
    pub(super) fn txn(&self, txn: Txn) -> EtcdTxn {
        let compares: Vec<_> = txn.compare.into_iter().map(|compare| self.compare(compare)).collect();
        let changes: Vec<_> = txn.changes.into_iter().map(|change| self.change(change)).collect();
        EtcdTxn::new().when(compares).and_then(changes)
    }

    fn compare(&self, compare: Compare) -> EtcdCompare {
        match compare {
            // To etcd, 0 is the revision of a key that is absent; no key has a negative one.
            Compare::ModRevision(key, revision) => {
                let revision = i64::try_from(revision).ok().filter(|&revision| revision > 0);
                EtcdCompare::mod_revision(self.full(&key), CompareOp::Equal, revision.unwrap_or(-1))
            }
            Compare::Absent(key) => EtcdCompare::create_revision(self.full(&key), CompareOp::Equal, 0),
            Compare::Exists(key) => EtcdCompare::create_revision(self.full(&key), CompareOp::Greater, 0),
            Compare::EmptyPrefix(prefix) => {
                EtcdCompare::create_revision(self.full(&prefix), CompareOp::Equal, 0).with_prefix()
            }
        }
    }

    fn change(&self, change: Change) -> TxnOp {
        match change {
            Change::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(self.full(&key), value, options)
            }
            Change::Delete(key) => TxnOp::delete(self.full(&key), None),
        }
    }

    /// A key of etcd's with its value; nothing if it is none of ours.
    pub(super) fn row(&self, row: proto::PbKeyValue) -> Option<KeyValue> {
        Some(KeyValue {
            key: self.key(row.key)?,
            value: Bytes::from(row.value),
            mod_revision: revision(row.mod_revision),
        })
    }

    /// What happened to a key; nothing if it is none of ours.
    pub(super) fn event(&self, event: proto::PbEvent) -> Option<Event> {
        let row = event.kv?;
        if event.r#type != DELETE {
            return Some(Event::Put(self.row(row)?));
        }
        Some(Event::Delete {
            revision: revision(row.mod_revision),
            key: self.key(row.key)?,
        })
    }

    fn key(&self, key: Vec<u8>) -> Option<String> {
        let key = String::from_utf8(key).ok().and_then(|mut full| {
            let key = full.split_off(full.starts_with(&self.prefix).then_some(self.prefix.len())?);
            Some(key)
        });
        if key.is_none() {
            tracing::warn!(prefix = self.prefix, "a key in etcd that nobody of ours wrote");
        }
        key
    }
}

/// A revision of etcd's, which are never negative.
pub(super) fn revision(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or(0)
}

/// The revision in the head of an answer.
pub(super) fn header(header: Option<proto::PbResponseHeader>) -> Revision {
    header.map_or(0, |header| revision(header.revision))
}

/// The revision that a change has.
pub(super) fn revision_of(event: &Event) -> Revision {
    match event {
        Event::Put(row) => row.mod_revision,
        Event::Delete { revision, .. } => *revision,
    }
}

/// The end of the range of all keys that begin with `prefix`, which is not empty. The last byte of UTF-8 text is
/// never 0xff.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_others_are_left_alone() {
        let keyspace = Keyspace::new("a/b");
        assert_eq!(keyspace.full("c/d"), "/a/b/c/d");
        let row = |key: &[u8]| proto::PbKeyValue {
            key: key.to_vec(),
            mod_revision: 3,
            ..Default::default()
        };
        assert_eq!(keyspace.row(row(b"/a/b/c/d")).unwrap().key, "c/d");
        for key in [&b"/a/bc"[..], b"/a", b"", b"/a/b/\xff"] {
            assert_eq!(keyspace.row(row(key)), None);
        }
    }

    #[test]
    fn ends_of_prefixes() {
        assert_eq!(end_of("/a/"), b"/a0");
        let keyspace = Keyspace::new("a");
        assert_eq!(keyspace.end(&Span::prefix("b/")), b"/a/b0");
        assert_eq!(keyspace.end(&Span::before("b/")), b"/a/b/");
        assert_eq!(end_of("/a/\u{10ffff}"), b"/a/\xf4\x8f\xbf\xc0");
    }
}
