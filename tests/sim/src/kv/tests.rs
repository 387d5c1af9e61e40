//! What the simulation needs beyond what the suite in `cluster/meta` demands of every metadata store.

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
#[should_panic(expected = "two changes of one key")]
fn a_transaction_that_no_store_takes_ends_the_run() {
    commit(
        &mut Kv::new(),
        second(0),
        vec![put("a", "1"), Change::Delete("a".into())],
    );
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
fn leases_expire_at_the_instant_that_is_foretold() {
    let mut kv = Kv::new();
    assert_eq!(kv.next_expiry(), None);
    let short = kv.grant(second(0), SECOND);
    let kept = kv.grant(second(0), 3 * SECOND);
    commit(&mut kv, second(0), vec![leased("short", short), leased("kept", kept)]);
    assert_eq!(kv.next_expiry(), Some(second(1)));
    assert!(!kv.expire(Now(second(1).0 - 1)));
    assert!(kv.keep_alive(Now(second(1).0 - 1), kept));
    assert!(kv.expire(second(1)), "its keys went");
    assert!(!kv.expire(second(3)) && kv.expire(second(4)));
    assert_eq!((keys(&kv), kv.next_expiry()), (vec![], None));
}

#[test]
fn machines_hear_of_a_lease_that_is_gone_as_of_an_unknown_outcome() {
    let (mut kv, gone) = (Kv::new(), LeaseId(77));
    let late = txn(vec![], vec![put("beside", "x"), leased("late", gone)]);
    assert_eq!(kv.txn(second(0), &late), Err(NoSuchLease(gone)));
    assert_eq!(kv.transact(second(0), &late), TxnOutcome::Unknown);
    assert_eq!((kv.revision(), keys(&kv)), (0, vec![]));
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
fn all_leases_are_prolonged_but_those_that_ran_out() {
    let mut kv = Kv::new();
    let lease = kv.grant(second(0), SECOND);
    commit(&mut kv, second(0), vec![leased("a", lease)]);
    kv.extend_all(Now(second(1).0 - 1));
    assert!(!kv.expire(second(1)));
    assert_eq!(kv.next_expiry(), Some(Now(second(2).0 - 1)));
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
