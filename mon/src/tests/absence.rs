//! OSDs that are down for long.

use super::*;

/// The out time of the settings' default, seconds.
const OUT: u64 = 600;

fn planned(osds: u32) -> Cluster {
    let mut cluster = Cluster::new(osds);
    cluster.settle(0);
    cluster
}

#[test]
fn who_is_down_for_long_is_dropped_until_it_is_up() {
    let mut cluster = planned(4);
    cluster.delete(keys::osd_state(OsdId(2)));
    assert_eq!(cluster.settle(0), 1, "other primaries");
    let held = cluster.held(2);
    assert_eq!(cluster.pass(OUT - 1), 0);
    assert_eq!((cluster.held(2), cluster.config(2).dropped), (held, false));
    assert_eq!(cluster.pass(1), 2, "dropped, and a plan without it");
    assert_eq!((cluster.held(2), cluster.config(2).dropped), (0, true));
    assert_eq!(cluster.pass(10 * OUT), 0);
    cluster.boot(2);
    cluster.pass(1);
    assert_eq!((cluster.held(2), cluster.config(2).dropped), (held, false));
}

#[test]
fn whoever_comes_back_in_time_begins_anew() {
    let mut cluster = planned(4);
    for _ in 0..5 {
        cluster.delete(keys::osd_state(OsdId(2)));
        cluster.pass(OUT - 1);
        cluster.boot(2);
        cluster.pass(1);
        assert!(cluster.held(2) > 0 && !cluster.config(2).dropped);
    }
}

#[test]
fn the_exempt_and_the_settings() {
    let mut cluster = planned(4);
    cluster.configure(2, |osd| osd.noout = true);
    cluster.delete(keys::osd_state(OsdId(2)));
    cluster.settle(0);
    assert_eq!(cluster.pass(10 * OUT), 0, "exempt");
    cluster.configure(2, |osd| osd.noout = false);
    cluster.pass(1);
    assert!(cluster.config(2).dropped);
    cluster.configure(2, |osd| osd.noout = true);
    cluster.pass(1);
    assert!(!cluster.config(2).dropped, "exempt again");
    assert_eq!(cluster.held(2), 0, "what is down gets nothing");

    let settings = keys::Settings {
        osd_out_s: 5,
        ..keys::Settings::default()
    };
    cluster.put(keys::SETTINGS.into(), settings);
    cluster.delete(keys::osd_state(OsdId(3)));
    cluster.settle(0);
    cluster.pass(4);
    assert!(!cluster.config(3).dropped);
    cluster.pass(1);
    assert!(cluster.config(3).dropped);
}

#[test]
fn nobody_is_dropped_whose_copies_could_live_nowhere() {
    // OSDs, those that go down, how many of them are dropped; pools have two copies.
    let table: [(u32, &[u32], usize); 5] = [
        (2, &[1], 0),
        (3, &[1], 1),
        (3, &[1, 2], 0),
        (5, &[1, 2, 3], 3),
        (5, &[1, 2, 3, 4], 0),
    ];
    for (osds, down, expected) in table {
        let mut cluster = planned(osds);
        down.iter().for_each(|&osd| cluster.delete(keys::osd_state(OsdId(osd))));
        cluster.settle(0);
        let commits = cluster.pass(OUT);
        let dropped = down.iter().filter(|&&osd| cluster.config(osd).dropped).count();
        assert_eq!(dropped, expected, "{down:?} of {osds}");
        assert_eq!(commits, if expected > 0 { 2 } else { 0 }, "all at once, then a plan");
    }
}

#[test]
fn what_is_not_so_any_more_is_not_written() {
    let mut cluster = planned(4);
    cluster.delete(keys::osd_state(OsdId(2)));
    cluster.settle(0);
    cluster.now = cluster.now + Duration::from_secs(OUT);
    let drop = cluster.monitors[0].next(cluster.now).expect("it is dropped");
    let state = cluster.store.keys.clone();
    for (key, value) in [
        (keys::osd_state(OsdId(2)), "{}"),
        (keys::osd_config(OsdId(2)), "{}"),
        (keys::LEADER.into(), "{}"),
    ] {
        cluster.store.keys = state.clone();
        cluster.store.put(key.clone(), value);
        assert!(matches!(cluster.store.txn(&drop).0, TxnOutcome::Refused(_)), "{key}");
    }
}
