//! What the decision record on etcd says that requests take: `cargo test --release -p trivet-meta -- --ignored
//! --nocapture latencies`.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use trivet_core::kv::{Compare, Txn, TxnOutcome};

use super::open;
use super::server::{self, Cluster};
use crate::Meta;
use crate::suite::{commit, next, put};

const ROUNDS: usize = 500;

async fn measure(what: &str, mut request: impl AsyncFnMut(usize)) {
    let mut times = Vec::new();
    for n in 0..ROUNDS {
        let begun = Instant::now();
        request(n).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "{what}: p50 {:?}, p99 {:?}",
        times[ROUNDS / 2],
        times[ROUNDS * 99 / 100]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and checks nothing"]
async fn latencies() {
    let table: [(&str, usize, TempDir); 3] = [
        ("1 member, memory", 1, server::directory()),
        ("3 members, memory", 3, server::directory()),
        ("1 member, disk", 1, TempDir::new().unwrap()),
    ];
    for (name, members, directory) in table {
        println!("-- {name}");
        let cluster = Cluster::with_options(members, "http", directory, &[]);
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
