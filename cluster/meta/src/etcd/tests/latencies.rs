//! How long requests take, printed for the decision record on etcd; none waits for a timer.

use std::time::{Duration, Instant};

use trivet_core::kv::{Compare, Txn, TxnOutcome};

use super::open;
use super::server::Cluster;
use crate::Meta;
use crate::suite::{commit, next, put};

const ROUNDS: usize = 200;
/// TCP's delayed acknowledgement, which small messages that are held back wait for.
const TIMER: Duration = Duration::from_millis(40);

async fn measure(what: &str, mut request: impl AsyncFnMut(usize)) {
    let mut times = Vec::new();
    for n in 0..ROUNDS {
        let begun = Instant::now();
        request(n).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let (median, slow) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    println!("{what}: p50 {median:?}, p99 {slow:?}");
    assert!(median < TIMER, "{what}: {median:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latencies() {
    for members in [1, 3] {
        println!("-- members: {members}");
        let cluster = Cluster::start(members);
        cluster.settled().await;
        let meta = open(&cluster.url("a")).await;
        requests(&*meta).await;
    }
}

async fn requests(meta: &dyn Meta) {
    measure("put", async |n| {
        commit(meta, vec![put("a", &n.to_string())]).await;
    })
    .await;
    let count = std::cell::Cell::new(commit(meta, vec![put("b", "x")]).await);
    let count = &count;
    measure("txn that compares", async |n| {
        let compare = vec![Compare::ModRevision("b".into(), count.get())];
        let changes = vec![put("b", &n.to_string())];
        match meta.txn(Txn { compare, changes }).await {
            Ok(TxnOutcome::Committed(revision)) => count.set(revision),
            other => panic!("{other:?}"),
        }
    })
    .await;
    measure("get", async |_| drop(meta.get("a").await.unwrap())).await;
    let lease = meta.lease_grant(Duration::from_secs(60)).await.unwrap();
    measure("keep-alive", async |_| meta.lease_keep_alive(lease).await.unwrap()).await;
    let mut watch = meta.watch("w/", None);
    next(&mut *watch).await;
    measure("put, until the watch has it", async |n| {
        tokio::join!(commit(meta, vec![put("w/a", &n.to_string())]), next(&mut *watch));
    })
    .await;
}
