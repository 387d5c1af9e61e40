//! An etcd that is put back to an earlier time, or wiped, under those who watch it.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::open;
use super::server::Cluster;
use crate::suite::{Mirror, commit, next, put};
use crate::{Etcd, Meta, Watch};

/// A watch that has seen everything up to a commit, and a backup that is one commit older.
struct Watched {
    mirror: Mirror,
    watch: Box<dyn Watch>,
    backup: TempDir,
    /// The watch ends with it.
    _meta: Arc<Etcd>,
}

async fn watched(cluster: &mut Cluster) -> Watched {
    let meta = open(&cluster.url("a")).await;
    commit(&*meta, vec![put("x", "1"), put("y", "1")]).await;
    cluster.kill(0);
    let backup = cluster.backup(0);
    cluster.restart(0);
    let mut mirror = Mirror::default();
    let mut watch = meta.watch("", None);
    let last = commit(&*meta, vec![put("x", "2"), put("z", "1")]).await;
    mirror.catch_up(&mut *watch, last).await;
    Watched {
        mirror,
        watch,
        backup,
        _meta: meta,
    }
}

async fn until_replaced(mirror: &mut Mirror, watch: &mut dyn Watch) {
    while mirror.replaced == 0 {
        let notice = tokio::time::timeout(Duration::from_secs(20), next(watch)).await;
        mirror.apply(notice.expect("the watch says that the store is another one"));
    }
}

async fn assert_same(mirror: &Mirror, meta: &dyn Meta) {
    let want = meta.range("").await.unwrap().keys;
    assert_eq!(mirror.keys.values().cloned().collect::<Vec<_>>(), want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_back_replaces_everything() {
    let mut cluster = Cluster::start(1);
    let Watched {
        mut mirror,
        mut watch,
        backup,
        _meta,
    } = watched(&mut cluster).await;
    let before = mirror.revision;
    cluster.kill(0);
    cluster.restore(0, Some(&backup));
    cluster.restart(0);
    until_replaced(&mut mirror, &mut *watch).await;
    assert!(mirror.revision < before);
    let meta = open(&cluster.url("a")).await;
    assert_same(&mirror, &*meta).await;
    let after = commit(&*meta, vec![put("y", "3")]).await;
    mirror.catch_up(&mut *watch, after).await;
    assert_same(&mirror, &*meta).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_on_from_a_backup_is_not_taken_for_the_one_before() {
    let mut cluster = Cluster::start(1);
    let Watched {
        mut mirror,
        mut watch,
        backup,
        _meta,
    } = watched(&mut cluster).await;
    let before = mirror.revision;
    // While nobody watches, others that share it have it run past what was known.
    cluster.kill(0);
    cluster.restore(0, Some(&backup));
    let known = cluster.restart_elsewhere();
    let other = open(&cluster.url("b")).await;
    while commit(&*other, vec![put("others", "1")]).await <= before + 5 {}
    cluster.restart_at(&known);
    until_replaced(&mut mirror, &mut *watch).await;
    assert!(mirror.revision > before);
    let meta = open(&cluster.url("a")).await;
    assert_same(&mirror, &*meta).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_store_is_empty() {
    let mut cluster = Cluster::start(1);
    let Watched {
        mut mirror,
        mut watch,
        _meta,
        ..
    } = watched(&mut cluster).await;
    cluster.kill(0);
    cluster.restore(0, None);
    cluster.restart(0);
    until_replaced(&mut mirror, &mut *watch).await;
    assert!(mirror.keys.is_empty());
}
