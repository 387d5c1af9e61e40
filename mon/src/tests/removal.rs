//! What is left of removed pools.

use trivet_core::PgId;

use super::*;

#[test]
fn a_removed_pool_leaves_nothing() {
    let mut cluster = Cluster::new(2);
    let other = PoolId(2);
    cluster.put(keys::pool(other), pool());
    cluster.settle(0);
    for id in [POOL, other] {
        for number in 0..40 {
            let pg = PgId::first(id, number);
            cluster.put(keys::history(pg), keys::History::default());
            cluster.put(keys::scrub(pg), keys::ScrubReport::default());
        }
    }
    let stays = |cluster: &Cluster| cluster.store.keys.keys().filter(|key| key.starts_with("pg/2/")).count();
    let goes = |cluster: &Cluster| cluster.store.keys.keys().filter(|key| key.starts_with("pg/1/")).count();
    cluster.delete(keys::pool(POOL));
    assert_eq!(cluster.settle(0), 3, "the plan, then 80 keys in two transactions");
    assert_eq!((goes(&cluster), stays(&cluster)), (0, 80));
    assert!(!cluster.store.keys.contains_key(&keys::plan(POOL)));
    assert!(cluster.store.keys.contains_key(&keys::plan(other)));
}

#[test]
fn a_pool_that_is_back_keeps_what_it_has() {
    let mut cluster = Cluster::new(2);
    cluster.settle(0);
    cluster.delete(keys::pool(POOL));
    let txn = cluster.monitors[0].next(cluster.now).unwrap();
    assert_eq!(txn.changes, [Change::Delete(keys::plan(POOL))]);
    cluster.store.put(keys::pool(POOL), pool());
    assert!(matches!(cluster.store.txn(&txn).0, TxnOutcome::Refused(_)));
}
