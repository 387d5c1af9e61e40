//! The suite over a real etcd, and what only a store that other processes keep can do wrong.

mod faults;
mod latencies;
mod restored;
mod secrets;
mod server;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trivet_core::kv::{Change, Event, Notice, Revision, Txn, TxnOutcome};

use super::keyspace::revision_of;
use super::{Etcd, MetaUrl};
use crate::suite::{Mirror, commit, next, put, value};
use crate::{Meta, MetaError, suite};
use server::Cluster;

pub(super) async fn open(url: &MetaUrl) -> Arc<Etcd> {
    Etcd::open(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite() {
    let cluster = Cluster::start(1);
    let count = Cell::new(0);
    let make = || -> Arc<dyn Meta> {
        count.set(count.get() + 1);
        let url = cluster.url(&format!("suite/{}", count.get()));
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(open(&url)))
    };
    suite::run(make, 1..=2).await;
}

#[tokio::test]
async fn clusters_do_not_see_each_other() {
    let cluster = Cluster::start(1);
    let (one, two) = (open(&cluster.url("a")).await, open(&cluster.url("a-b")).await);
    let mut watch = one.watch("", None);
    next(&mut *watch).await;
    commit(&*two, vec![put("x", "2")]).await;
    let mine = commit(&*one, vec![put("x", "1")]).await;
    assert!(matches!(next(&mut *watch).await, Notice::Changes { revision, .. } if revision == mine));
    assert_eq!(value(&*one, "x").await.as_deref(), Some("1"));
    assert_eq!(one.range("").await.unwrap().keys.len(), 1);
    drop(one);
    assert_eq!(watch.next().await, None, "the store was closed");
    let mut raw = cluster.client(0).await;
    assert_eq!(raw.get("/a-b/x", None).await.unwrap().kvs()[0].value(), b"2");
}

#[tokio::test]
async fn leases_last_whole_seconds() {
    let cluster = Cluster::start(1);
    let meta = open(&cluster.url("a")).await;
    for (millis, seconds) in [(3000, 3), (3001, 4), (10, 2)] {
        let lease = meta.lease_grant(Duration::from_millis(millis)).await.unwrap();
        let mut raw = cluster.client(0).await;
        let left = raw.lease_time_to_live(lease.0, None).await.unwrap();
        assert_eq!(left.granted_ttl(), seconds, "etcd's least is 2 s");
    }
}

/// A range that takes many pages, some of them too large for one answer, shows one commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_ranges_are_of_one_commit() {
    const SMALL: usize = 2300;
    const LARGE: usize = 40;
    let cluster = Cluster::start(1);
    let meta = open(&cluster.url("a")).await;
    let keys: Vec<_> = (0..SMALL).map(|n| put(&format!("r/small/{n}"), "x")).collect();
    for chunk in keys.chunks(100) {
        commit(&*meta, chunk.to_vec()).await;
    }
    for n in 0..LARGE {
        let large = Change::put(format!("r/large/{n}"), Bytes::from(vec![b'x'; 500_000]));
        commit(&*meta, vec![large]).await;
    }
    let writer = Arc::clone(&meta);
    let writer = tokio::spawn(async move {
        for n in 0.. {
            let n = n.to_string();
            commit(&*writer, vec![put("r/a", &n), put("r/middle", &n), put("r/z", &n)]).await;
        }
    });
    while meta.get("r/z").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let range = meta.range("r/").await.unwrap();
        assert_eq!(range.keys.len(), SMALL + LARGE + 3);
        assert!(range.keys.is_sorted_by(|a, b| a.key < b.key));
        let ends: Vec<_> = range
            .keys
            .iter()
            .filter(|row| row.key.matches('/').count() == 1)
            .collect();
        assert!(
            ends.iter()
                .all(|row| row.value == ends[0].value && row.mod_revision == ends[0].mod_revision)
        );
        assert!(range.keys.iter().all(|row| row.mod_revision <= range.revision));
    }
    writer.abort();
}

/// etcd sends what a watch has missed in messages that end anywhere.
#[tokio::test]
async fn large_commits_are_delivered_whole() {
    const KEYS: usize = 60;
    let cluster = Cluster::start(1);
    let meta = open(&cluster.url("a")).await;
    let first = commit(&*meta, vec![put("begin", "x")]).await;
    let mut last = first;
    for n in 0..12 {
        let change = |key| Change::put(format!("p/{key}"), Bytes::from(vec![b'0' + n; 16_000]));
        last = commit(&*meta, (0..KEYS).map(change).collect()).await;
    }
    let mut watch = meta.watch("p/", Some(first));
    let (mut events, mut seen, mut notices) = (Vec::<Event>::new(), 0, 0);
    while seen < last {
        let Notice::Changes { revision, events: more } = next(&mut *watch).await else {
            panic!("a snapshot without need");
        };
        assert_eq!(more.len() % KEYS, 0, "half a commit");
        assert_eq!(more.last().map(revision_of), Some(revision));
        (seen, notices) = (revision, notices + 1);
        events.extend(more);
    }
    assert_eq!(events.len(), 12 * KEYS);
    assert!(events.is_sorted_by_key(revision_of));
    assert!(notices > 1, "12 MB in one message");
}

async fn first_notice(meta: &dyn Meta, from: Revision) -> Notice {
    next(&mut *meta.watch("c/", Some(from))).await
}

#[tokio::test]
async fn what_was_compacted_comes_as_a_snapshot() {
    let cluster = Cluster::start(1);
    let meta = open(&cluster.url("a")).await;
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(commit(&*meta, vec![put("c/a", &n.to_string())]).await);
    }
    let mut raw = cluster.client(0).await;
    raw.compact(i64::try_from(revisions[2]).unwrap(), None).await.unwrap();
    for (index, &revision) in revisions.iter().enumerate().take(4) {
        let notice = first_notice(&*meta, revision).await;
        assert_eq!(
            matches!(notice, Notice::Snapshot { .. }),
            index < 2,
            "{index}: {notice:?}"
        );
    }
    assert!(matches!(
        first_notice(&*meta, Revision::MAX).await,
        Notice::Snapshot { .. }
    ));
}

#[tokio::test]
async fn nobody_there() {
    let error = Etcd::open(&"etcd://127.0.0.1:1,127.0.0.1:2/a".parse().unwrap()).await;
    let error = error.err().expect("nobody listens").to_string();
    for part in ["127.0.0.1:1: ", "127.0.0.1:2: ", "refused"] {
        assert!(error.contains(part), "{error}");
    }
}

/// Minutes without etcd, in seconds: requests fail, nothing claims what is not so, and everything resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_survived() {
    let mut cluster = Cluster::start(1);
    let meta = open(&cluster.url("a")).await;
    let lease = meta.lease_grant(Duration::from_secs(2)).await.unwrap();
    let mut mirror = Mirror::default();
    let mut watch = meta.watch("", None);
    let leased = Change::Put {
        key: "leased".into(),
        value: "x".into(),
        lease: Some(lease),
    };
    let before = commit(&*meta, vec![put("a", "1"), leased]).await;
    mirror.catch_up(&mut *watch, before).await;

    cluster.kill(0);
    let lost = Txn {
        compare: vec![],
        changes: vec![put("lost", "x")],
    };
    let outcome = meta.txn(lost).await;
    assert!(
        matches!(outcome, Ok(TxnOutcome::Unknown) | Err(MetaError::Unavailable(_))),
        "{outcome:?}"
    );
    assert!(matches!(meta.get("a").await, Err(MetaError::Unavailable(_))));
    assert!(matches!(
        meta.lease_keep_alive(lease).await,
        Err(MetaError::Unavailable(_))
    ));
    let quiet = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
    assert!(quiet.is_err(), "the watch stalls: {quiet:?}");
    cluster.restart(0);

    let started = Instant::now();
    assert_eq!(value(&*meta, "a").await.as_deref(), Some("1"));
    println!("the first read after a restart: {:?}", started.elapsed());
    let lease = meta.lease_grant(Duration::from_secs(60)).await.unwrap();
    let leased = Change::Put {
        key: "leased".into(),
        value: "y".into(),
        lease: Some(lease),
    };
    let after = commit(&*meta, vec![put("b", "2"), leased]).await;
    mirror.catch_up(&mut *watch, after).await;
    assert_eq!(mirror.snapshots, 1, "the watch went on where it was");
    meta.lease_keep_alive(lease).await.unwrap();
    let want = meta.range("").await.unwrap();
    assert_eq!(mirror.keys.into_values().collect::<Vec<_>>(), want.keys);
}
