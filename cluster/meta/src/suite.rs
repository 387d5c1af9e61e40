//! What every metadata store has to do, as tests over a [`Meta`] that the store's own tests make.
//!
//! The backends here run through it, and, with the feature `suite`, the store of the simulation: machines must not meet
//! anything in a simulation that no real store does.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trivet_core::kv::{
    Change, Compare, Event, KeyValue, LeaseId, MAX_CHANGES, MAX_COMPARES, Notice, Revision, Txn, TxnOutcome,
};

use crate::{Meta, MetaError, Watch};

/// A wait that only a broken store makes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the whole suite; `make` makes an empty store, in which nobody else commits. `snapshots` says how often a
/// reader that is 20 MB behind may be given all keys: once at first, and once more where the changes are not kept for it.
///
/// # Panics
/// When the store does something else.
pub async fn run(make: impl Fn() -> Arc<dyn Meta>, snapshots: RangeInclusive<usize>) {
    conditions(&*make()).await;
    revisions(&*make()).await;
    refusals_of_bad_requests(&*make()).await;
    ranges_keep_to_their_prefix(&*make()).await;
    counters_lose_nothing(make()).await;
    watch_from_a_revision(&*make()).await;
    watch_before_a_key(&*make()).await;
    watch_sees_commits_whole(&*make()).await;
    mirrors_equal_ranges(make()).await;
    slow_watch_is_resynchronised(make(), snapshots).await;
    leases_expire(&*make()).await;
    leases_are_revoked(&*make()).await;
}

pub(crate) fn put(key: &str, value: &str) -> Change {
    Change::put(key, value.to_owned())
}

pub(crate) async fn commit(meta: &dyn Meta, changes: Vec<Change>) -> Revision {
    let txn = Txn {
        compare: Vec::new(),
        changes,
    };
    match meta.txn(txn).await {
        Ok(TxnOutcome::Committed(revision)) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

pub(crate) async fn value(meta: &dyn Meta, key: &str) -> Option<String> {
    let row = meta.get(key).await.unwrap()?;
    assert_eq!(row.key, key);
    Some(String::from_utf8(row.value.to_vec()).unwrap())
}

pub(crate) async fn next(watch: &mut dyn Watch) -> Notice {
    let notice = tokio::time::timeout(PATIENCE, watch.next()).await;
    notice.expect("a notice in time").expect("a store that is open")
}

async fn conditions(meta: &dyn Meta) {
    let a = commit(meta, vec![put("dir/a", "1")]).await;
    let key = |key: &str| key.to_owned();
    let table = [
        (Compare::ModRevision(key("dir/a"), a), true),
        (Compare::ModRevision(key("dir/a"), a + 1), false),
        (Compare::ModRevision(key("none"), a), false),
        (Compare::ModRevision(key("none"), 0), false),
        (Compare::Absent(key("dir/a")), false),
        (Compare::Absent(key("dir/")), true),
        (Compare::Exists(key("dir/a")), true),
        (Compare::Exists(key("none")), false),
        (Compare::EmptyPrefix(key("dir/")), false),
        (Compare::EmptyPrefix(key("dir/a")), false),
        (Compare::EmptyPrefix(key("dir/b")), true),
        (Compare::EmptyPrefix(key("c")), true),
        (Compare::EmptyPrefix(key("e")), true),
        (Compare::EmptyPrefix(key("")), false),
    ];
    for (index, (compare, holds)) in table.into_iter().enumerate() {
        let mark = format!("mark/{index}");
        let both = vec![Compare::Exists(key("dir/a")), compare.clone()];
        let outcome = meta
            .txn(Txn {
                compare: both,
                changes: vec![put(&mark, "x"), put("mark", "x")],
            })
            .await;
        let committed = matches!(outcome, Ok(TxnOutcome::Committed(_)));
        assert_eq!(committed, holds, "{compare:?}: {outcome:?}");
        assert!(committed || matches!(outcome, Ok(TxnOutcome::Refused(_))));
        assert_eq!(value(meta, &mark).await.is_some(), holds, "{compare:?}");
    }
}

async fn revisions(meta: &dyn Meta) {
    let first = commit(meta, vec![put("a", "1"), put("b", "1")]).await;
    let second = commit(meta, vec![put("b", "2"), Change::Delete("none".into())]).await;
    assert_eq!(second, first + 1);
    assert_eq!(meta.get("a").await.unwrap().unwrap().mod_revision, first);
    assert_eq!(meta.get("b").await.unwrap().unwrap().mod_revision, second);
    assert_eq!(commit(meta, vec![]).await, second);
    assert_eq!(commit(meta, vec![Change::Delete("none".into())]).await, second);
    let refused = Txn {
        compare: vec![Compare::Absent("a".into())],
        changes: vec![put("a", "3")],
    };
    assert_eq!(meta.txn(refused).await, Ok(TxnOutcome::Refused(second)));
    assert_eq!(commit(meta, vec![Change::Delete("a".into())]).await, second + 1);
    assert_eq!(meta.range("").await.unwrap().revision, second + 1);
    assert_eq!(value(meta, "a").await, None);
    assert_eq!(value(meta, "b").await.as_deref(), Some("2"));
    assert_eq!(
        commit(meta, vec![put("b", "2")]).await,
        second + 2,
        "the same value counts"
    );
}

async fn refusals_of_bad_requests(meta: &dyn Meta) {
    let many = |n: usize| (0..n).map(|i| put(&format!("k{i}"), "x")).collect::<Vec<_>>();
    let compare = |n: usize| vec![Compare::Absent("a".into()); n];
    let bad = [
        (vec![], many(MAX_CHANGES + 1)),
        (compare(MAX_COMPARES + 1), vec![]),
        (vec![], vec![put("a", "1"), Change::Delete("a".into())]),
        (vec![], vec![put("", "1")]),
        (vec![], vec![put(&"k".repeat(5000), "1")]),
        (vec![Compare::Exists("".into())], vec![]),
        (vec![Compare::EmptyPrefix("k".repeat(5000))], vec![]),
        (vec![], vec![Change::put("big", Bytes::from(vec![b'x'; (1 << 20) + 1]))]),
    ];
    for (compare, changes) in bad {
        let outcome = meta.txn(Txn { compare, changes }).await;
        assert!(matches!(outcome, Err(MetaError::Invalid(_))), "{outcome:?}");
    }
    commit(meta, many(MAX_CHANGES)).await;
    let widest = Txn {
        compare: compare(MAX_COMPARES),
        changes: vec![put("a", "1")],
    };
    assert!(matches!(meta.txn(widest).await, Ok(TxnOutcome::Committed(_))));
}

async fn ranges_keep_to_their_prefix(meta: &dyn Meta) {
    let keys = ["a", "a/", "a/1", "a/10", "a/2", "a0", "b", "ü/\u{10ffff}"];
    commit(meta, keys.iter().rev().map(|key| put(key, key)).collect()).await;
    for prefix in ["", "a", "a/", "a/1", "a/3", "ü", "ü/\u{10ffff}", "z"] {
        let want: Vec<_> = keys.iter().filter(|key| key.starts_with(prefix)).collect();
        let range = meta.range(prefix).await.unwrap();
        let got: Vec<_> = range.keys.iter().map(|row| &row.key).collect();
        assert_eq!(got, want, "{prefix}");
        assert!(range.keys.iter().all(|row| row.value == row.key), "{prefix}");
    }
}

/// Concurrent optimistic increments: each either counts or is refused.
async fn counters_lose_nothing(meta: Arc<dyn Meta>) {
    const TASKS: usize = 8;
    const STEPS: usize = 25;
    commit(&*meta, vec![put("counter", "0")]).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let meta = Arc::clone(&meta);
            tokio::spawn(async move {
                let mut done = 0;
                while done < STEPS {
                    let now = meta.get("counter").await.unwrap().unwrap();
                    let count: usize = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                    let compare = vec![Compare::ModRevision(now.key, now.mod_revision)];
                    let changes = vec![put("counter", &(count + 1).to_string())];
                    match meta.txn(Txn { compare, changes }).await.unwrap() {
                        TxnOutcome::Committed(_) => done += 1,
                        TxnOutcome::Refused(revision) => assert!(revision > now.mod_revision),
                        TxnOutcome::Unknown => panic!("nothing is broken"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(&*meta, "counter").await, Some((TASKS * STEPS).to_string()));
}

async fn watch_from_a_revision(meta: &dyn Meta) {
    let known = commit(meta, vec![put("w/a", "1")]).await;
    let event = |key: &str, mod_revision| {
        Event::Put(KeyValue {
            key: key.into(),
            value: Bytes::from_static(b"2"),
            mod_revision,
        })
    };
    let mut watch = meta.watch("w/", Some(known));
    let b = commit(meta, vec![put("w/b", "2"), put("other", "2")]).await;
    let want = Notice::Changes {
        revision: b,
        events: vec![event("w/b", b)],
    };
    assert_eq!(next(&mut *watch).await, want);
    assert_eq!(next(&mut *meta.watch("w/", Some(known))).await, want);
    // A revision that the store has not reached is not one of its own.
    let strange = next(&mut *meta.watch("w/", Some(b + 1000))).await;
    assert!(matches!(strange, Notice::Snapshot { revision, keys } if revision == b && keys.len() == 2));
    let mut fresh = meta.watch("w/", None);
    assert!(matches!(next(&mut *fresh).await, Notice::Snapshot { revision, .. } if revision == b));
    let c = commit(meta, vec![Change::Delete("w/a".into())]).await;
    let events = vec![Event::Delete {
        key: "w/a".into(),
        revision: c,
    }];
    assert_eq!(next(&mut *fresh).await, Notice::Changes { revision: c, events });
}

async fn watch_before_a_key(meta: &dyn Meta) {
    commit(meta, vec![put("a", "1"), put("u/1", "1"), put("v", "1")]).await;
    let mut watch = meta.watch_before("u/", None);
    let keys = |notice: Notice| match notice {
        Notice::Snapshot { keys, .. } | Notice::Replaced { keys, .. } => {
            keys.into_iter().map(|row| row.key).collect::<Vec<_>>()
        }
        Notice::Changes { events, .. } => events.iter().map(|event| key_of(event).to_owned()).collect(),
    };
    assert_eq!(keys(next(&mut *watch).await), ["a"]);
    commit(meta, vec![put("u/1", "2")]).await;
    let last = commit(meta, vec![put("u/2", "1"), put("t", "1"), Change::Delete("v".into())]).await;
    let notice = next(&mut *watch).await;
    assert!(
        matches!(notice, Notice::Changes { revision, .. } if revision == last),
        "{notice:?}"
    );
    assert_eq!(keys(notice), ["t"]);
}

fn key_of(event: &Event) -> &str {
    match event {
        Event::Put(row) => &row.key,
        Event::Delete { key, .. } => key,
    }
}

async fn watch_sees_commits_whole(meta: &dyn Meta) {
    let mut watch = meta.watch("p/", None);
    next(&mut *watch).await;
    let mut last = 0;
    for n in 0..50 {
        let n = n.to_string();
        last = commit(meta, vec![put("p/x", &n), put("q/x", &n), put("p/y", &n)]).await;
    }
    let mut seen = 0;
    while seen < last {
        let Notice::Changes { revision, events } = next(&mut *watch).await else {
            panic!("a second snapshot without need");
        };
        let of = |event: &Event| match event {
            Event::Put(row) => (row.mod_revision, row.key.clone()),
            Event::Delete { key, .. } => panic!("{key} was never deleted"),
        };
        for pair in events.chunks(2) {
            assert_eq!(of(&pair[0]).1, "p/x");
            assert_eq!(of(&pair[1]), (of(&pair[0]).0, "p/y".to_owned()));
        }
        assert!(revision > seen);
        seen = revision;
    }
}

/// A mirror as every user of a watch keeps it.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) revision: Revision,
    pub(crate) keys: BTreeMap<String, KeyValue>,
    pub(crate) snapshots: usize,
    /// How often the store was another one.
    pub(crate) replaced: usize,
}

impl Mirror {
    pub(crate) fn apply(&mut self, notice: Notice) {
        match notice {
            Notice::Snapshot { revision, keys } => {
                assert!(revision >= self.revision, "went back");
                self.revision = revision;
                self.snapshots += 1;
                self.keys = keys.into_iter().map(|row| (row.key.clone(), row)).collect();
            }
            Notice::Replaced { revision, keys } => {
                assert!(self.snapshots > 0, "the first notice is a snapshot");
                self.revision = revision;
                self.replaced += 1;
                self.keys = keys.into_iter().map(|row| (row.key.clone(), row)).collect();
            }
            Notice::Changes { revision, events } => {
                assert!(self.snapshots > 0, "changes before the first snapshot");
                assert!(revision > self.revision, "a commit twice");
                events.into_iter().for_each(|event| self.event(event));
                self.revision = revision;
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Put(row) => {
                assert!(row.mod_revision > self.revision, "old news");
                self.keys.insert(row.key.clone(), row);
            }
            Event::Delete { key, .. } => {
                self.keys.remove(&key).expect("only what exists can be deleted");
            }
        }
    }

    pub(crate) async fn catch_up(&mut self, watch: &mut dyn Watch, revision: Revision) {
        while self.revision < revision {
            self.apply(next(watch).await);
        }
    }
}

async fn mirrors_equal_ranges(meta: Arc<dyn Meta>) {
    let writers: Vec<_> = (0..4)
        .map(|w: usize| {
            let meta = Arc::clone(&meta);
            tokio::spawn(async move {
                for n in 0..150 {
                    let key = format!("m/{}", (n * 7 + w) % 13);
                    let change = if n % 4 == w {
                        Change::Delete(key)
                    } else {
                        put(&key, &format!("{w}.{n}"))
                    };
                    commit(&*meta, vec![change, put(&format!("n/{w}"), "x")]).await;
                }
            })
        })
        .collect();
    let mirrors: Vec<_> = (0..3)
        .map(|delay| {
            let meta = Arc::clone(&meta);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20 * delay)).await;
                let (mut mirror, mut watch) = (Mirror::default(), meta.watch("m/", None));
                while !mirror.keys.contains_key("m/end") {
                    mirror.apply(next(&mut *watch).await);
                }
                mirror
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    commit(&*meta, vec![put("m/end", "")]).await;
    let want = meta.range("m/").await.unwrap();
    for mirror in mirrors {
        let mirror = mirror.await.unwrap();
        assert_eq!((mirror.revision, mirror.replaced), (want.revision, 0));
        assert_eq!(mirror.keys.into_values().collect::<Vec<_>>(), want.keys);
    }
}

async fn slow_watch_is_resynchronised(meta: Arc<dyn Meta>, snapshots: RangeInclusive<usize>) {
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("s/", None));
    mirror.apply(next(&mut *watch).await);
    let big = "x".repeat(500_000);
    let mut last = 0;
    for n in 0..40 {
        last = commit(&*meta, vec![put(&format!("s/{}", n % 3), &format!("{n}{big}"))]).await;
    }
    mirror.catch_up(&mut *watch, last).await;
    assert!(snapshots.contains(&mirror.snapshots), "{}", mirror.snapshots);
    let last = commit(&*meta, vec![put("s/after", "x")]).await;
    mirror.catch_up(&mut *watch, last).await;
    let want = meta.range("s/").await.unwrap();
    assert_eq!(mirror.keys.into_values().collect::<Vec<_>>(), want.keys);
}

fn leased(key: &str, lease: LeaseId) -> Change {
    Change::Put {
        key: key.into(),
        value: Bytes::from_static(b"x"),
        lease: Some(lease),
    }
}

async fn leases_expire(meta: &dyn Meta) {
    let short = meta.lease_grant(Duration::from_millis(1000)).await.unwrap();
    let kept = meta.lease_grant(Duration::from_millis(3000)).await.unwrap();
    assert_ne!(short, kept);
    let at = commit(meta, vec![leased("l/short", short), leased("l/also", short)]).await;
    commit(
        meta,
        vec![leased("l/kept", kept), leased("l/moved", short), put("l/plain", "x")],
    )
    .await;
    commit(meta, vec![put("l/moved", "x")]).await;
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("l/", None));
    mirror.apply(next(&mut *watch).await);
    assert_eq!(mirror.keys.len(), 5);
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        meta.lease_keep_alive(kept).await.unwrap();
    }
    let notice = next(&mut *watch).await;
    let Notice::Changes { ref events, revision } = notice else {
        panic!("{notice:?}")
    };
    assert!(revision > at);
    assert_eq!(events.len(), 2, "both in one commit: {events:?}");
    mirror.apply(notice);
    assert_eq!(mirror.keys.keys().collect::<Vec<_>>(), ["l/kept", "l/moved", "l/plain"]);
    let gone = Err(MetaError::NoSuchLease(short));
    assert_eq!(meta.lease_keep_alive(short).await, gone);
    let late = Txn {
        compare: vec![],
        changes: vec![leased("l/late", short)],
    };
    assert_eq!(meta.txn(late).await, Err(MetaError::NoSuchLease(short)));
    assert_eq!(value(meta, "l/late").await, None);
}

async fn leases_are_revoked(meta: &dyn Meta) {
    let lease = meta.lease_grant(Duration::from_secs(600)).await.unwrap();
    let other = meta.lease_grant(Duration::from_secs(600)).await.unwrap();
    commit(
        meta,
        vec![leased("r/a", lease), leased("r/b", other), leased("r/c", lease)],
    )
    .await;
    commit(meta, vec![leased("r/c", other), Change::Delete("r/none".into())]).await;
    meta.lease_revoke(lease).await.unwrap();
    let left = meta.range("r/").await.unwrap().keys;
    assert_eq!(
        left.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
        ["r/b", "r/c"]
    );
    assert_eq!(meta.lease_revoke(lease).await, Err(MetaError::NoSuchLease(lease)));
    let never = LeaseId(lease.0 + 1_000_000);
    assert_eq!(meta.lease_keep_alive(never).await, Err(MetaError::NoSuchLease(never)));
}
