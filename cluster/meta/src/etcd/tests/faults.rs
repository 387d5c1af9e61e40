//! Three members, one of which is killed or stops.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trivet_core::kv::{Compare, Revision, Txn, TxnOutcome};

use super::open;
use super::server::Cluster;
use crate::suite::{Mirror, commit, put};
use crate::{Meta, MetaUrl};

/// How long requests may fail after a member failed: etcd's election (1-2 s) plus our own timeouts.
const RECOVERY: Duration = Duration::from_secs(8);

/// What concurrent writers know in the end.
#[derive(Default)]
struct Ledger {
    /// Markers of transactions that were committed, or not, according to their outcome.
    committed: Mutex<BTreeSet<String>>,
    unchanged: Mutex<BTreeSet<String>>,
    unknown: AtomicU64,
    /// The last commit that anybody was told of.
    told: AtomicU64,
    /// Begin of the ledger, and the commits since.
    commits: Mutex<Vec<Instant>>,
    stop: AtomicBool,
}

impl Ledger {
    fn committed(&self, marker: String, revision: Revision) {
        self.told.fetch_max(revision, Ordering::SeqCst);
        self.committed.lock().unwrap().insert(marker);
        self.commits.lock().unwrap().push(Instant::now());
    }

    /// The longest time without a commit since then.
    fn pause_since(&self, then: Instant) -> Duration {
        let commits = self.commits.lock().unwrap();
        let after: Vec<_> = [then]
            .into_iter()
            .chain(commits.iter().copied().filter(|&at| at > then))
            .collect();
        let pauses = after.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0]));
        pauses.max().unwrap_or_default()
    }
}

/// Increments the counter until told to stop, each time with a marker of its own.
async fn increment(url: MetaUrl, name: usize, ledger: Arc<Ledger>) {
    let meta = open(&url).await;
    for n in 0.. {
        if ledger.stop.load(Ordering::SeqCst) {
            return;
        }
        let told = ledger.told.load(Ordering::SeqCst);
        let Ok(now) = meta.get("counter").await else { continue };
        let now = now.expect("the counter exists");
        assert!(now.mod_revision >= told, "a stale read");
        let count: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
        let marker = format!("mark/{name}/{n}");
        let compare = vec![Compare::ModRevision(now.key, now.mod_revision)];
        let changes = vec![put("counter", &(count + 1).to_string()), put(&marker, "x")];
        match meta.txn(Txn { compare, changes }).await {
            Ok(TxnOutcome::Committed(revision)) => ledger.committed(marker, revision),
            Ok(TxnOutcome::Unknown) => drop(ledger.unknown.fetch_add(1, Ordering::SeqCst)),
            Ok(TxnOutcome::Refused(_)) | Err(_) => drop(ledger.unchanged.lock().unwrap().insert(marker)),
        }
    }
}

async fn wait_for_commits(ledger: &Ledger, many: usize) {
    let want = ledger.commits.lock().unwrap().len() + many;
    let started = Instant::now();
    while ledger.commits.lock().unwrap().len() < want {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "nothing is committed any more"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Nothing is lost or doubled besides what `Unknown` admits, no read is stale, and it goes on soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_survive_the_leader() {
    const WRITERS: usize = 3;
    let mut cluster = Cluster::start(3);
    let meta = open(&cluster.url("a")).await;
    commit(&*meta, vec![put("counter", "0")]).await;
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("", None));
    let ledger = Arc::new(Ledger::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|name| {
            let url = format!("etcd://{}/a", cluster.hosts(name)).parse().unwrap();
            tokio::spawn(increment(url, name, Arc::clone(&ledger)))
        })
        .collect();
    wait_for_commits(&ledger, 50).await;

    let leader = cluster.leader().await;
    cluster.kill(leader);
    let killed = Instant::now();
    wait_for_commits(&ledger, 50).await;
    let pause = ledger.pause_since(killed);
    println!("leader killed: no commit for {pause:?}");
    assert!(pause < RECOVERY);
    cluster.restart(leader);

    let leader = cluster.leader().await;
    cluster.signal(leader, "STOP");
    let stopped = Instant::now();
    wait_for_commits(&ledger, 50).await;
    let pause = ledger.pause_since(stopped);
    println!("leader stopped: no commit for {pause:?}");
    assert!(pause < RECOVERY);
    cluster.signal(leader, "CONT");
    wait_for_commits(&ledger, 50).await;

    ledger.stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let range = meta.range("").await.unwrap();
    let count: usize = std::str::from_utf8(&range.keys[0].value).unwrap().parse().unwrap();
    let marks: BTreeSet<String> = range.keys.iter().skip(1).map(|row| row.key.clone()).collect();
    assert_eq!(count, marks.len(), "every increment is there once");
    let committed = ledger.committed.lock().unwrap().clone();
    assert!(committed.is_subset(&marks), "an acknowledged increment is lost");
    assert!(
        ledger.unchanged.lock().unwrap().is_disjoint(&marks),
        "what was refused has happened"
    );
    let unknown = ledger.unknown.load(Ordering::SeqCst);
    println!("{count} increments, {unknown} outcomes unknown");
    assert!(u64::try_from(marks.difference(&committed).count()).unwrap() <= unknown);
    mirror.catch_up(&mut *watch, ledger.told.load(Ordering::SeqCst)).await;
    assert!(mirror.keys.into_values().eq(range.keys), "the mirror is another");
}

/// The member that we talk to hangs, and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_endpoint_is_left() {
    let cluster = Cluster::start(3);
    cluster.settled().await;
    let meta = open(&cluster.url("a")).await;
    let other = open(&cluster.url("a")).await;
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("", None));
    let before = commit(&*meta, vec![put("a", "1")]).await;
    mirror.catch_up(&mut *watch, before).await;
    let used = meta.shared.pool.get(Duration::ZERO).await.unwrap().endpoint;
    cluster.signal(used, "STOP");
    let stopped = Instant::now();
    let (lease, ()) = tokio::join!(
        async {
            let lease = meta.lease_grant(Duration::from_secs(60)).await.unwrap();
            println!("endpoint stopped: a lease after {:?}", stopped.elapsed());
            lease
        },
        async {
            let written = commit_sometime(&*other, "b").await;
            println!("endpoint stopped: a commit after {:?}", stopped.elapsed());
            mirror.catch_up(&mut *watch, written).await;
            println!("endpoint stopped: the change seen after {:?}", stopped.elapsed());
        },
    );
    assert!(stopped.elapsed() < RECOVERY);
    meta.lease_keep_alive(lease).await.unwrap();
    assert_ne!(meta.shared.pool.get(Duration::ZERO).await.unwrap().endpoint, used);
    assert_eq!(mirror.snapshots, 1);
}

async fn commit_sometime(meta: &dyn Meta, key: &str) -> Revision {
    loop {
        let changes = vec![put(key, "x")];
        let compare = Vec::new();
        if let Ok(TxnOutcome::Committed(revision)) = meta.txn(Txn { compare, changes }).await {
            return revision;
        }
    }
}
