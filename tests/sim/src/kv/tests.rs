//! What the suite in `cluster/meta` demands of every backend, and what the simulation needs beyond.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn second(n: u64) -> Now {
    Now(0) + SECOND * u32::try_from(n).unwrap()
}

fn put(key: &str, value: &str) -> Change {
    Change::put(key, value.to_owned())
}

fn leased(key: &str, lease: LeaseId) -> Change {
    Change::Put {
        key: key.into(),
        value: Bytes::from_static(b"x"),
        lease: Some(lease),
    }
}

fn txn(compare: Vec<Compare>, changes: Vec<Change>) -> Txn {
    Txn { compare, changes }
}

fn commit(kv: &mut Kv, now: Now, changes: Vec<Change>) -> Revision {
    match kv.transact(now, &txn(vec![], changes)) {
        TxnOutcome::Committed(revision) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

fn keys(kv: &Kv) -> Vec<String> {
    keys_of(&kv.snapshot())
}

fn keys_of(notice: &Notice) -> Vec<String> {
    match notice {
        Notice::Snapshot { keys, .. } => keys.iter().map(|row| row.key.clone()).collect(),
        Notice::Replaced { .. } | Notice::Changes { .. } => panic!("{notice:?}"),
    }
}

#[test]
fn conditions() {
    let mut kv = Kv::new();
    let a = commit(&mut kv, second(0), vec![put("dir/a", "1")]);
    let key = |key: &str| key.to_owned();
    let table = [
        (Compare::ModRevision(key("dir/a"), a), true),
        (Compare::ModRevision(key("dir/a"), a + 1), false),
        (Compare::ModRevision(key("none"), a), false),
        (Compare::ModRevision(key("none"), 0), false),
        (Compare::Absent(key("dir/a")), false),
        (Compare::Absent(key("dir/")), true),
        (Compare::Exists(key("dir/a")), true),
        (Compare::Exists(key("none")), false),
        (Compare::EmptyPrefix(key("dir/")), false),
        (Compare::EmptyPrefix(key("dir/a")), false),
        (Compare::EmptyPrefix(key("dir/b")), true),
        (Compare::EmptyPrefix(key("c")), true),
        (Compare::EmptyPrefix(key("e")), true),
        (Compare::EmptyPrefix(key("")), false),
    ];
    for (index, (compare, holds)) in table.into_iter().enumerate() {
        let mark = format!("mark/{index}");
        let before = kv.revision();
        let both = vec![Compare::Exists(key("dir/a")), compare.clone()];
        let outcome = kv.transact(second(0), &txn(both, vec![put(&mark, "x"), put("mark", "x")]));
        let expected = match holds {
            true => TxnOutcome::Committed(before + 1),
            false => TxnOutcome::Refused(before),
        };
        assert_eq!(outcome, expected, "{compare:?}");
        assert_eq!(kv.get(&mark).is_some(), holds, "{compare:?}");
    }
}

#[test]
fn revisions_count_commits_that_change_something() {
    let mut kv = Kv::new();
    let now = second(0);
    let first = commit(&mut kv, now, vec![put("a", "1"), put("b", "1")]);
    let second = commit(&mut kv, now, vec![put("b", "2"), Change::Delete("none".into())]);
    assert_eq!((first, second), (1, 2));
    assert_eq!(kv.get("a").unwrap().mod_revision, first);
    assert_eq!(kv.get("b").unwrap().mod_revision, second);
    assert_eq!(commit(&mut kv, now, vec![]), second);
    assert_eq!(commit(&mut kv, now, vec![Change::Delete("none".into())]), second);
    assert_eq!(commit(&mut kv, now, vec![Change::Delete("a".into())]), second + 1);
    assert_eq!(
        (kv.get("a"), kv.get("b").unwrap().value),
        (None, Bytes::from_static(b"2"))
    );
    assert_eq!(
        commit(&mut kv, now, vec![put("b", "2")]),
        second + 2,
        "the same value counts"
    );
}

#[test]
fn transactions_that_no_backend_takes_are_refused_loudly() {
    let many = |n: usize| (0..n).map(|i| put(&format!("k{i}"), "x")).collect::<Vec<_>>();
    let bad = [
        txn(vec![], many(MAX_CHANGES + 1)),
        txn(vec![Compare::Absent("a".into()); MAX_COMPARES + 1], vec![]),
        txn(vec![], vec![put("a", "1"), Change::Delete("a".into())]),
        txn(vec![], vec![put("", "1")]),
        txn(vec![], vec![put(&"k".repeat(5000), "1")]),
        txn(vec![], vec![put("big", &"x".repeat(MAX_VALUES + 1))]),
    ];
    for txn in bad {
        let refused = std::panic::catch_unwind(|| Kv::new().transact(second(0), &txn));
        assert!(refused.is_err(), "{} changes", txn.changes.len());
    }
    assert_eq!(commit(&mut Kv::new(), second(0), many(MAX_CHANGES)), 1);
}

#[test]
fn changes_lead_from_any_remembered_state_to_the_last() {
    let mut kv = Kv::new();
    let mut random = Random::new(1);
    let mut states = vec![kv.snapshot()];
    for n in 0..300 {
        let key = |random: &mut Random| format!("k{}", random.below(12));
        let change = match random.one_in(3) {
            true => Change::Delete(key(&mut random)),
            false => put(&key(&mut random), &n.to_string()),
        };
        commit(&mut kv, second(0), vec![change, put("n", &n.to_string())]);
        states.push(kv.snapshot());
    }
    for (revision, state) in (0..).zip(&states) {
        assert_eq!(kv.snapshot_at(revision).as_ref(), Some(state));
        let Some(Notice::Changes { revision: last, events }) = kv.changes_since(revision) else {
            panic!("revision {revision} is remembered");
        };
        assert_eq!((last, replay(state, events)), (300, kv.snapshot()));
    }
    assert_eq!((kv.changes_since(301), kv.snapshot_at(301)), (None, None));
    kv.compact(200);
    assert_eq!(kv.oldest(), 200);
    for (revision, remembered) in [(199, false), (200, true), (300, true)] {
        assert_eq!(kv.changes_since(revision).is_some(), remembered, "{revision}");
        assert_eq!(kv.snapshot_at(revision).is_some(), remembered, "{revision}");
    }
    let stale: BTreeSet<Revision> = (0..2000).map(|_| kv.stale_snapshot(&mut random).revision()).collect();
    assert_eq!(
        (stale.first(), stale.last(), stale.len()),
        (Some(&200), Some(&300), 101)
    );
    kv.compact(1000);
    assert_eq!(kv.stale_snapshot(&mut random), kv.snapshot());
    assert_eq!(
        kv.changes_since(300),
        Some(Notice::Changes {
            revision: 300,
            events: vec![]
        })
    );
}

/// The mirror of a watch.
fn replay(state: &Notice, events: Vec<Event>) -> Notice {
    let Notice::Snapshot { mut revision, keys } = state.clone() else {
        panic!("{state:?}");
    };
    let mut rows: BTreeMap<String, KeyValue> = keys.into_iter().map(|row| (row.key.clone(), row)).collect();
    for event in events {
        revision = match event {
            Event::Put(row) => {
                let at = row.mod_revision;
                rows.insert(row.key.clone(), row);
                at
            }
            Event::Delete { key, revision } => {
                rows.remove(&key).expect("only what exists can be deleted");
                revision
            }
        };
    }
    Notice::Snapshot {
        revision,
        keys: rows.into_values().collect(),
    }
}

#[test]
fn the_past_is_bounded() {
    let mut kv = Kv::new();
    for n in 0..2 * MAX_HISTORY {
        commit(&mut kv, second(0), vec![put("k", &n.to_string())]);
    }
    assert_eq!(kv.revision() - kv.oldest(), MAX_HISTORY as u64);
}

#[test]
fn leases_expire_with_their_keys() {
    let mut kv = Kv::new();
    assert_eq!(kv.next_expiry(), None);
    let short = kv.grant(second(0), SECOND);
    let kept = kv.grant(second(0), 3 * SECOND);
    assert_ne!(short, kept);
    commit(&mut kv, second(0), vec![leased("short", short), leased("also", short)]);
    let both = vec![leased("kept", kept), leased("moved", short), put("plain", "x")];
    commit(&mut kv, second(0), both);
    let before = commit(&mut kv, second(0), vec![put("moved", "x")]);
    assert_eq!(kv.next_expiry(), Some(second(1)));
    assert!(!kv.expire(Now(second(1).0 - 1)));
    assert!(kv.keep_alive(Now(second(1).0 - 1), kept));
    assert!(kv.expire(second(1)), "its keys went");
    assert_eq!(kv.revision(), before + 1, "both in one commit");
    assert_eq!(keys(&kv), ["kept", "moved", "plain"]);
    assert!(!kv.expire(second(3)) && kv.expire(second(4)));
    assert_eq!(keys(&kv), ["moved", "plain"]);
    assert!(!kv.keep_alive(second(4), kept) && !kv.keep_alive(second(4), LeaseId(77)));
    let late = txn(vec![], vec![put("beside", "x"), leased("late", short)]);
    assert_eq!(kv.transact(second(4), &late), TxnOutcome::Refused(kv.revision()));
    assert_eq!(kv.get("beside"), None);
}

#[test]
fn a_lease_that_ran_out_is_gone_even_if_nobody_looked() {
    let mut kv = Kv::new();
    let lease = kv.grant(second(0), SECOND);
    commit(&mut kv, second(0), vec![leased("a", lease)]);
    let takeover = txn(vec![Compare::Absent("a".into())], vec![put("b", "x")]);
    assert_eq!(kv.transact(second(0), &takeover), TxnOutcome::Refused(1));
    assert_eq!(kv.transact(second(1), &takeover), TxnOutcome::Committed(3));
    let empty = kv.grant(second(1), SECOND);
    assert!(!kv.keep_alive(second(2), empty));
}

#[test]
fn leases_are_revoked_and_prolonged() {
    let mut kv = Kv::new();
    let lease = kv.grant(second(0), SECOND);
    let other = kv.grant(second(0), SECOND);
    commit(
        &mut kv,
        second(0),
        vec![leased("a", lease), leased("b", other), leased("c", lease)],
    );
    commit(
        &mut kv,
        second(0),
        vec![leased("c", other), Change::Delete("none".into())],
    );
    assert!(kv.revoke(lease) && !kv.revoke(lease));
    assert_eq!(keys(&kv), ["b", "c"]);
    kv.extend_all(Now(second(1).0 - 1));
    assert!(!kv.expire(second(1)));
    assert_eq!(kv.next_expiry(), Some(Now(second(2).0 - 1)));
    commit(&mut kv, second(1), vec![leased("d", other), Change::Delete("b".into())]);
    kv.extend_all(second(3));
    assert_eq!((keys(&kv), kv.next_expiry()), (vec![], None), "too late");
}

#[test]
fn of_what_others_commit_a_watch_says_nothing() {
    let mut kv = Kv::new();
    let first = commit(&mut kv, second(0), vec![put("a", "1")]);
    kv.commit_foreign(7);
    assert_eq!((kv.own_revision(), kv.revision()), (first, first + 7));
    let notice = kv.changes_since(first);
    assert!(matches!(notice, Some(Notice::Changes { revision, events }) if revision == first && events.is_empty()));
    let refused = kv.transact(second(0), &txn(vec![Compare::Absent("a".into())], vec![put("a", "2")]));
    assert_eq!(
        refused,
        TxnOutcome::Refused(first + 7),
        "a commit that no watch tells of"
    );
    let next = commit(&mut kv, second(0), vec![put("a", "3")]);
    let notice = kv.changes_since(first);
    assert!(matches!(notice, Some(Notice::Changes { revision, .. }) if revision == next && next == first + 8));
}
