//! Changes of the number of a pool's PGs.

use trivet_core::{Numbering, PgId};

use super::*;
use crate::placement::MAX_PGS;

/// A pool of 8 PGs that were all claimed, and that shall have another number of them.
fn wanting(wanted: u32) -> Cluster {
    let mut cluster = Cluster::new(4);
    cluster.settle(0);
    claim(&mut cluster, Numbering::first(8));
    want(&mut cluster, wanted);
    cluster
}

fn claim(cluster: &mut Cluster, numbering: Numbering) {
    for pg in numbering.pgs(POOL) {
        cluster.put(keys::history(pg), keys::History::default());
        cluster.put(keys::scrub(pg), keys::ScrubReport::default());
        act(cluster, pg, 0);
    }
}

/// The primary says that so many objects have too few copies.
fn act(cluster: &mut Cluster, pg: PgId, missing: u64) {
    let claim = keys::Claim {
        primary: OsdId(1),
        epoch: trivet_core::Epoch(1),
        acting: vec![OsdId(1)],
        active: true,
        missing,
    };
    cluster.put(keys::claim(pg), claim);
}

fn want(cluster: &mut Cluster, wanted: u32) {
    let pool = keys::Pool {
        pgs_wanted: Some(wanted),
        ..config(cluster)
    };
    cluster.put(keys::pool(POOL), pool);
}

fn config(cluster: &Cluster) -> keys::Pool {
    cluster.monitors[0].map.pools[&POOL].value.clone()
}

/// Generation, PGs, those before, those wanted.
fn state(cluster: &Cluster) -> (u16, u32, Option<u32>, Option<u32>) {
    let pool = config(cluster);
    (pool.generation, pool.pg_count, pool.pgs_before, pool.pgs_wanted)
}

#[test]
fn each_new_pg_begins_where_its_objects_are() {
    for wanted in [16, 4, 12, 7, 1] {
        let mut cluster = wanting(wanted);
        let old = cluster.plan().clone();
        assert_eq!(cluster.settle(0), 1, "one transaction, to {wanted}");
        assert_eq!(state(&cluster), (1, wanted, Some(8), None));
        let plan = cluster.plan();
        assert_eq!((plan.generation, plan.pgs.len()), (1, wanted as usize));
        let acts = |pg: &keys::PgPlan| pg.osds.len() == 2 && pg.primary.is_some_and(|osd| pg.osds.contains(&osd));
        assert!(plan.pgs.iter().all(acts));
        let parents = old.pgs.iter().cycle();
        let moved: usize = plan
            .pgs
            .iter()
            .zip(parents)
            .map(|(new, old)| new.osds.iter().filter(|osd| !old.osds.contains(osd)).count())
            .sum();
        assert!(moved <= 3, "{moved} members moved, to {wanted} PGs");
    }
}

#[test]
fn what_cannot_be_is_not_wanted_any_more() {
    for wanted in [8, 0, MAX_PGS + 1] {
        let mut cluster = wanting(wanted);
        let plan = cluster.plan().clone();
        assert_eq!(cluster.settle(0), 1);
        assert_eq!(state(&cluster), (0, 8, None, None), "{wanted}");
        assert_eq!(*cluster.plan(), plan);
    }
}

#[test]
fn the_generation_before_goes_when_every_new_pg_was_claimed() {
    let mut cluster = wanting(16);
    cluster.settle(0);
    want(&mut cluster, 32);
    assert_eq!(cluster.pass(2), 0, "nobody has claimed the new ones");
    let now = config(&cluster).numbering();
    let last = PgId {
        number: 15,
        ..now.pgs(POOL).next().unwrap()
    };
    claim(&mut cluster, now);
    cluster.delete(keys::history(last));
    assert_eq!(cluster.pass(2), 0, "one has not");
    cluster.put(keys::history(last), keys::History::default());
    cluster.pass(2);
    let left = |prefix: &str| cluster.store.keys.keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!((left("pg/1/"), left("pg/1.1/")), (0, 48));
    assert_eq!(state(&cluster), (2, 32, Some(16), None), "and then there are more");
}

#[test]
fn a_change_waits_until_objects_have_all_their_copies() {
    let mut cluster = wanting(16);
    let pg = PgId::first(POOL, 3);
    act(&mut cluster, pg, 1);
    assert_eq!(cluster.pass(2), 0);
    act(&mut cluster, pg, 0);
    assert_eq!(cluster.pass(2), 1);
    assert_eq!(state(&cluster), (1, 16, Some(8), None));
}

#[test]
fn who_does_not_know_the_pool_changes_nothing() {
    let mut cluster = wanting(16);
    let txn = cluster.monitors[0].next(cluster.now).unwrap();
    cluster.store.put(keys::pool(POOL), pool());
    assert!(matches!(cluster.store.txn(&txn).0, TxnOutcome::Refused(_)));
}
