//! Raising the mark, and keeping still in a store that is not the right one.

use trivet_core::mark::{Halted, Marks};

use super::*;

fn at(seconds: u64) -> Now {
    Now(seconds * 1_000_000_000)
}

/// A leading monitor in a store without pools, which has nothing to do but to raise the mark.
fn leader() -> (Store, Monitor) {
    let mut store = Store::default();
    let mut monitor = Monitor::new(7, LeaseId(1));
    monitor.notice(&Notice::Snapshot {
        revision: 0,
        keys: Vec::new(),
    });
    run(&mut store, &mut monitor, at(0));
    assert!(monitor.map.leader.is_some());
    (store, monitor)
}

/// Runs what the monitor wants at that time, until it wants nothing.
fn run(store: &mut Store, monitor: &mut Monitor, now: Now) {
    while let Some(txn) = monitor.next(now) {
        let (outcome, notice) = store.txn(&txn);
        monitor.ended(outcome);
        monitor.notice(&notice);
    }
}

fn marks(store: &Store) -> Option<Marks> {
    let (value, _) = store.keys.get(keys::MARK)?;
    Some(serde_json::from_slice(value).unwrap())
}

#[test]
fn the_leader_raises_the_mark_every_ten_seconds() {
    let (mut store, mut monitor) = leader();
    assert_eq!(marks(&store), None);
    let mut seen = Vec::new();
    for second in 1..=25 {
        run(&mut store, &mut monitor, at(second));
        seen.push(marks(&store).unwrap().latest());
    }
    let counts: Vec<u64> = [0, 9, 10, 19, 20, 24].map(|index: usize| seen[index].count).to_vec();
    assert_eq!(counts, [1, 1, 2, 2, 3, 3]);
    let last = marks(&store).unwrap();
    assert!(seen.iter().all(|mark| last.contradiction(*mark).is_none()));
    assert!(seen[0].draw != seen[10].draw && seen[10].draw != seen[20].draw);
}

#[test]
fn two_branches_of_a_store_have_different_marks() {
    let (mut store, mut monitor) = leader();
    run(&mut store, &mut monitor, at(1));
    let (copy, revision) = (store.keys.clone(), store.revision);
    run(&mut store, &mut monitor, at(11));
    let lost = marks(&store).unwrap().latest();
    (store.keys, store.revision) = (copy, revision);
    let keys = store.keys.iter().map(|(key, (value, mod_revision))| KeyValue {
        key: key.clone(),
        value: value.clone(),
        mod_revision: *mod_revision,
    });
    monitor.notice(&Notice::Replaced {
        revision,
        keys: keys.collect(),
    });
    run(&mut store, &mut monitor, at(21));
    let other = marks(&store).unwrap();
    assert_eq!(other.latest().count, lost.count);
    assert!(other.contradiction(lost).is_some());
}

#[test]
fn nothing_is_done_in_a_store_that_is_not_the_right_one() {
    let (mut store, mut monitor) = leader();
    run(&mut store, &mut monitor, at(1));
    let halted = Halted {
        reason: "mark 1 < 2".to_owned(),
        by: OsdId(3),
    };
    monitor.notice(&store.put(keys::HALTED.to_owned(), &halted));
    monitor.notice(&store.put(keys::pool(POOL), pool()));
    for second in 2..40 {
        assert!(monitor.next(at(second)).is_none(), "{second}");
    }
    monitor.notice(&store.run(Change::Delete(keys::HALTED.to_owned())));
    run(&mut store, &mut monitor, at(40));
    assert_eq!(marks(&store).unwrap().latest().count, 2);
}
