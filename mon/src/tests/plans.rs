//! When plans are made anew.

use super::*;

fn claim(cluster: &mut Cluster, number: u32, missing: u64) {
    let pg = cluster.plan().pgs[number as usize].clone();
    let claim = keys::Claim {
        primary: pg.primary.unwrap(),
        epoch: trivet_core::Epoch(1),
        acting: pg.osds,
        active: true,
        missing,
    };
    cluster.put(keys::claim(trivet_core::PgId::first(POOL, number)), claim);
}

fn claim_all(cluster: &mut Cluster) {
    (0..pool().pg_count).for_each(|number| claim(cluster, number, 0));
}

fn leads(cluster: &Cluster, osd: u32) -> usize {
    let leads = |pg: &&keys::PgPlan| pg.primary == Some(OsdId(osd));
    cluster.plan().pgs.iter().filter(leads).count()
}

#[test]
fn sets_follow_what_is_configured() {
    type Setting = fn(&mut keys::OsdConfig);
    let changes: [(&str, Setting); 4] = [
        ("out", |osd| osd.out = true),
        ("no weight", |osd| osd.reweight = 0),
        ("no tag", |osd| osd.tags.clear()),
        ("elsewhere", |osd| osd.host = Some("far".into())),
    ];
    for (name, change) in changes {
        let mut cluster = Cluster::new(0);
        let near = keys::TreeNode {
            level: "host".into(),
            parent: Some("room".into()),
        };
        cluster.put(keys::tree("near"), near);
        let pool = keys::Pool {
            root: Some("room".into()),
            osd_tags: vec!["ssd".into()],
            ..pool()
        };
        cluster.put(keys::pool(POOL), pool);
        for osd in 1..=4 {
            cluster.join(osd);
            cluster.configure(osd, |osd| {
                osd.host = Some("near".into());
                osd.tags = vec!["ssd".into()];
            });
        }
        cluster.settle(0);
        assert!(cluster.held(3) > 0);
        cluster.configure(3, change);
        assert_eq!(cluster.settle(0), 1, "{name}");
        assert_eq!(cluster.held(3), 0, "{name}");
    }
}

#[test]
fn what_is_full_gets_no_more() {
    let stats = |used| keys::OsdStats {
        capacity: 1000,
        used,
        ..keys::OsdStats::default()
    };
    for (used, gets_some) in [(899, true), (900, false)] {
        let mut cluster = Cluster::new(4);
        cluster.settle(0);
        let held = cluster.held(1);
        cluster.put(keys::osd_stats(OsdId(1)), stats(used));
        assert_eq!(cluster.settle(0), 0, "what it has stays");
        cluster.delete(keys::osd_config(OsdId(2)));
        cluster.settle(0);
        assert_eq!(cluster.held(1) > held, gets_some, "{used}");
        // When there is room again, it gets its share.
        cluster.put(keys::osd_stats(OsdId(1)), stats(0));
        cluster.settle(0);
        assert!(cluster.held(1) > held);
    }
}

#[test]
fn new_primaries_come_first_and_for_all_pools_at_once() {
    let mut cluster = Cluster::new(4);
    (2..=70).for_each(|id| cluster.put(keys::pool(PoolId(id)), pool()));
    assert_eq!(cluster.settle(0), 71);
    cluster.delete(keys::osd_state(OsdId(1)));
    cluster.configure(2, |osd| osd.out = true);
    let txn = cluster.monitors[0].next(cluster.now).unwrap();
    assert_eq!(txn.changes.len(), MAX_CHANGES);
    assert!(txn.compare.len() == MAX_CHANGES + 1);
    let (outcome, notice) = cluster.store.txn(&txn);
    cluster.monitors[0].ended(outcome);
    cluster.hear(&notice);
    assert!(cluster.plan().pgs.iter().all(|pg| pg.primary != Some(OsdId(1))));
    assert!(cluster.held(2) > 0, "sets are made later");
    assert_eq!(cluster.settle(0), 71, "the other primaries, then plans");
    assert_eq!(cluster.held(2), 0);
}

#[test]
fn pgs_are_handed_over_when_all_is_well() {
    let mut cluster = Cluster::new(2);
    cluster.settle(0);
    cluster.delete(keys::osd_state(OsdId(1)));
    cluster.settle(0);
    cluster.boot(1);
    assert_eq!(cluster.pass(100), 0, "nobody has claimed anything");
    claim_all(&mut cluster);
    claim(&mut cluster, 3, 1);
    (0..3).for_each(|number| claim(&mut cluster, number, 7));
    assert_eq!([1, 2].map(|osd| leads(&cluster, osd)), [0, 8]);
    assert_eq!(cluster.pass(9), 0, "a moment ago it looked");
    assert_eq!(cluster.pass(1), 1);
    let found = [1, 2].map(|osd| leads(&cluster, osd));
    assert_eq!(found, [3, 5], "few of those that have all data");
    assert!((0..4).all(|pg| cluster.plan().pgs[pg].primary == Some(OsdId(2))));
    assert_eq!(cluster.pass(100), 0, "those are not claimed yet");
}

#[test]
fn tags_choose_primaries() {
    let mut cluster = Cluster::new(0);
    let tags = vec!["ssd".to_owned()];
    cluster.put(
        keys::pool(POOL),
        keys::Pool {
            primary_tags: tags.clone(),
            ..pool()
        },
    );
    [1, 2].into_iter().for_each(|osd| cluster.join(osd));
    cluster.configure(1, |osd| osd.tags.clone_from(&tags));
    cluster.settle(0);
    assert_eq!([1, 2].map(|osd| leads(&cluster, osd)), [8, 0]);
    cluster.configure(1, |osd| osd.tags.clear());
    cluster.configure(2, |osd| osd.tags.clone_from(&tags));
    claim_all(&mut cluster);
    cluster.pass(10);
    assert_eq!([1, 2].map(|osd| leads(&cluster, osd)), [0, 8]);
}

#[test]
fn a_pool_of_too_many_pgs_has_no_plan() {
    let mut cluster = Cluster::new(2);
    let pg_count = placement::MAX_PGS + 1;
    cluster.put(keys::pool(POOL), keys::Pool { pg_count, ..pool() });
    assert_eq!(cluster.settle(0), 1, "the leader's key");
}

#[test]
fn nobody_looks_at_plans_for_what_is_no_reason() {
    let mut cluster = Cluster::new(2);
    cluster.settle(0);
    for (key, stirs) in [
        (keys::NEXT_IMAGE.to_owned(), false),
        (keys::gateway_state(trivet_core::ClientId(1)), false),
        (keys::claim(trivet_core::PgId::first(POOL, 0)), false),
        (keys::osd_stats(OsdId(1)), false),
        (keys::osd_config(OsdId(9)), true),
        (keys::osd_state(OsdId(9)), true),
        (keys::tree("x"), true),
        (keys::SETTINGS.into(), true),
        (keys::plan(POOL), true),
        (keys::pool(POOL), true),
        (keys::LEADER.into(), true),
    ] {
        cluster.monitors[0].stirred = false;
        cluster.put(key.clone(), keys::OsdStats::default());
        assert_eq!(cluster.monitors[0].stirred, stirs, "{key}");
    }
}
