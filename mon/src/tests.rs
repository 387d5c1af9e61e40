//! Monitors against a small store that checks what they compare.

use std::collections::BTreeMap;

use bytes::Bytes;
use trivet_core::PoolId;
use trivet_core::keys::Plan;
use trivet_core::kv::{Event, KeyValue};

use super::*;

const POOL: PoolId = PoolId(1);

/// Keys with their values and the commits that wrote them.
#[derive(Default)]
struct Store {
    revision: Revision,
    keys: BTreeMap<String, (Bytes, Revision)>,
}

impl Store {
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, revision) => self.keys.get(key).is_some_and(|found| found.1 == *revision),
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Exists(key) => self.keys.contains_key(key),
            Compare::EmptyPrefix(prefix) => !self.keys.keys().any(|key| key.starts_with(prefix)),
        }
    }

    fn txn(&mut self, txn: &Txn) -> (TxnOutcome, Notice) {
        let mut events = Vec::new();
        let outcome = if txn.compare.iter().all(|compare| self.holds(compare)) {
            self.revision += 1;
            events = txn.changes.iter().map(|change| self.change(change)).collect();
            TxnOutcome::Committed(self.revision)
        } else {
            TxnOutcome::Refused(self.revision)
        };
        let revision = self.revision;
        (outcome, Notice::Changes { revision, events })
    }

    fn change(&mut self, change: &Change) -> Event {
        let revision = self.revision;
        match change.clone() {
            Change::Put { key, value, .. } => {
                self.keys.insert(key.clone(), (value.clone(), revision));
                Event::Put(KeyValue {
                    key,
                    value,
                    mod_revision: revision,
                })
            }
            Change::Delete(key) => {
                self.keys.remove(&key);
                Event::Delete { key, revision }
            }
        }
    }

    fn put(&mut self, key: String, value: impl serde::Serialize) -> Notice {
        self.run(Change::put(key, encode(&value)))
    }

    fn run(&mut self, change: Change) -> Notice {
        let (compare, changes) = (vec![], vec![change]);
        self.txn(&Txn { compare, changes }).1
    }
}

fn pool() -> keys::Pool {
    keys::Pool {
        name: "p".into(),
        replicas: 2,
        min_size: 1,
        pg_count: 8,
        ..keys::Pool::default()
    }
}

/// A store, and monitors that mirror it.
struct Cluster {
    now: Now,
    store: Store,
    monitors: Vec<Monitor>,
}

impl Cluster {
    /// A pool, OSDs that are up, and one monitor with a lease.
    fn new(osds: u32) -> Cluster {
        Cluster::with(Monitor::new(7, LeaseId(1)), osds)
    }

    fn with(monitor: Monitor, osds: u32) -> Cluster {
        let monitors = vec![monitor];
        let store = Store::default();
        let now = Now::default();
        let mut cluster = Cluster { now, store, monitors };
        cluster.put(keys::pool(POOL), pool());
        (1..=osds).for_each(|osd| cluster.join(osd));
        cluster
    }

    fn hear(&mut self, notice: &Notice) {
        self.monitors.iter_mut().for_each(|monitor| monitor.notice(notice));
    }

    fn put(&mut self, key: String, value: impl serde::Serialize) {
        let notice = self.store.put(key, value);
        self.hear(&notice);
    }

    /// Changes what is configured of an OSD.
    fn configure(&mut self, osd: u32, change: impl Fn(&mut keys::OsdConfig)) {
        let mut config = self.config(osd).clone();
        change(&mut config);
        self.put(keys::osd_config(OsdId(osd)), config);
    }

    fn config(&self, osd: u32) -> &keys::OsdConfig {
        &self.monitors[0].map.members[&OsdId(osd)].value
    }

    fn boot(&mut self, osd: u32) {
        let state = keys::OsdState {
            boot: 1,
            size: 100,
            address: None,
        };
        self.put(keys::osd_state(OsdId(osd)), state);
    }

    /// Time passes, and the monitor does what it wants; how many of its transactions were committed.
    fn pass(&mut self, seconds: u64) -> usize {
        self.now = self.now + Duration::from_secs(seconds);
        self.settle(0)
    }

    fn delete(&mut self, key: String) {
        let notice = self.store.run(Change::Delete(key));
        self.hear(&notice);
    }

    fn join(&mut self, osd: u32) {
        self.put(
            keys::osd_config(OsdId(osd)),
            keys::OsdConfig {
                size: 100,
                ..keys::OsdConfig::default()
            },
        );
        self.boot(osd);
    }

    /// Runs what one monitor wants until it wants nothing more; how many of its transactions were committed, besides those
    /// that raise the mark (`mark.rs`).
    fn settle(&mut self, which: usize) -> usize {
        let mut committed = 0;
        for _ in 0..100 {
            let Some(txn) = self.monitors[which].next(self.now) else {
                return committed;
            };
            let (outcome, notice) = self.store.txn(&txn);
            let is_mark = txn.changes.iter().any(|change| change.key() == keys::MARK);
            committed += usize::from(matches!(outcome, TxnOutcome::Committed(_)) && !is_mark);
            self.monitors[which].ended(outcome);
            self.hear(&notice);
        }
        panic!("the monitor never has enough")
    }

    fn plan(&self) -> &Plan {
        &self.monitors[0].map.plans[&POOL].value
    }

    fn held(&self, osd: u32) -> usize {
        self.plan()
            .pgs
            .iter()
            .filter(|pg| pg.osds.contains(&OsdId(osd)))
            .count()
    }
}

#[test]
fn leads_plans_and_replaces_a_primary_that_is_gone() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.settle(0), 2, "the leader's key and a plan");
    cluster.delete(keys::osd_state(OsdId(1)));
    assert_eq!(cluster.settle(0), 1);
    let elsewhere = |pg: &keys::PgPlan| pg.osds.len() == 2 && pg.primary.is_some_and(|osd| osd != OsdId(1));
    assert!(cluster.plan().pgs.iter().all(elsewhere));
    assert!(cluster.held(1) > 0, "it stays in the up sets");
    cluster.put(keys::LEADER.into(), Leader { id: 8 });
    cluster.delete(keys::osd_state(OsdId(2)));
    assert_eq!(cluster.settle(0), 0, "somebody else leads");
}

#[test]
fn members_are_replaced_when_they_leave_and_get_a_share_when_they_join() {
    let mut cluster = Cluster::new(3);
    cluster.settle(0);
    cluster.delete(keys::osd_config(OsdId(2)));
    assert_eq!(cluster.settle(0), 1);
    assert_eq!([1, 2, 3].map(|osd| cluster.held(osd)), [8, 0, 8]);
    let acts = |pg: &keys::PgPlan| pg.primary.is_some_and(|osd| pg.osds.contains(&osd));
    assert!(cluster.plan().pgs.iter().all(acts));
    cluster.join(4);
    cluster.settle(0);
    assert!((5..=6).contains(&cluster.held(4)), "{}", cluster.held(4));
    cluster.delete(keys::osd_config(OsdId(1)));
    cluster.delete(keys::osd_config(OsdId(4)));
    cluster.settle(0);
    assert_eq!(
        [1, 3, 4].map(|osd| cluster.held(osd)),
        [0, 8, 0],
        "as many as there are"
    );
}

#[test]
fn one_transaction_is_under_way_at_a_time() {
    let mut cluster = Cluster::new(2);
    let monitor = &mut cluster.monitors[0];
    let stand = monitor.next(Now::default()).unwrap();
    assert_eq!(monitor.next(Now::default()), None);
    let (outcome, notice) = cluster.store.txn(&stand);
    monitor.ended(outcome);
    assert_eq!(monitor.next(Now::default()), None, "the mirror does not have it yet");
    monitor.notice(&notice);
    let plan = monitor.next(Now::default()).unwrap();
    assert_ne!(plan, stand);
    monitor.ended(TxnOutcome::Unknown);
    assert_eq!(
        monitor.next(Now::default()),
        Some(plan.clone()),
        "it may not have happened"
    );
    // It had: the repetition is refused, and the notice shows why.
    let (_, notice) = cluster.store.txn(&plan);
    let (refused, _) = cluster.store.txn(&plan);
    assert!(matches!(refused, TxnOutcome::Refused(_)));
    monitor.ended(refused);
    assert_eq!(monitor.next(Now::default()), None);
    monitor.notice(&notice);
    monitor.notice(&notice);
    assert_eq!(monitor.next(Now::default()), None, "nothing more to do");
}

#[test]
fn what_never_comes_is_given_up() {
    let mut cluster = Cluster::new(2);
    let monitor = &mut cluster.monitors[0];
    let stand = monitor.next(Now::default());
    let calls = |monitor: &mut Monitor| (1..1000).find_map(|call| monitor.next(Now::default()).map(|txn| (call, txn)));
    let stand = stand.unwrap();
    let again = Some((PATIENCE + 1, stand.clone()));
    assert_eq!(calls(monitor), again, "no outcome");
    monitor.ended(TxnOutcome::Committed(1000));
    assert_eq!(calls(monitor), again, "no notice");
    // The last commit, when it was refused, may be one of keys that monitors do not watch.
    monitor.ended(TxnOutcome::Refused(1000));
    assert_eq!(calls(monitor), Some((PATIENCE_REFUSED + 1, stand)));
}

#[test]
fn a_monitor_stands_with_the_lease_that_it_has() {
    let mut cluster = Cluster::new(2);
    cluster.settle(0);
    cluster.monitors[0].lease(None);
    cluster.delete(keys::osd_state(OsdId(1)));
    assert_eq!(cluster.settle(0), 0, "without a lease it does not lead");
    cluster.delete(keys::LEADER.into());
    assert_eq!(cluster.settle(0), 0, "nor stand");
    cluster.monitors[0].lease(Some(LeaseId(2)));
    let stand = cluster.monitors[0].next(cluster.now).unwrap();
    assert!(matches!(
        stand.changes[0],
        Change::Put {
            lease: Some(LeaseId(2)),
            ..
        }
    ));
    cluster.monitors[0].ended(TxnOutcome::Unknown);
    assert_eq!(cluster.settle(0), 2);
}

/// A leader that heard of an OSD that is gone, but not of the leader after it: what becomes of its plan.
fn stale_plan(first: Monitor) -> TxnOutcome {
    let mut cluster = Cluster::with(first, 3);
    cluster.settle(0);
    cluster.delete(keys::osd_state(OsdId(1)));
    cluster.store.run(Change::Delete(keys::LEADER.into()));
    cluster.store.put(keys::LEADER.into(), Leader { id: 8 });
    let plan = cluster.monitors[0]
        .next(cluster.now)
        .expect("a plan without the primary that is gone");
    cluster.store.txn(&plan).0
}

#[test]
fn a_leader_that_does_not_know_better_writes_nothing() {
    let lease = LeaseId(1);
    let outcome = stale_plan(Monitor::new(7, lease));
    assert!(matches!(outcome, TxnOutcome::Refused(_)));
    for mutant in [Mutant::PlanWithoutCompare, Mutant::TwoLeaders] {
        let outcome = stale_plan(Monitor::with_mutant(7, lease, mutant));
        assert!(matches!(outcome, TxnOutcome::Committed(_)), "{mutant:?}");
    }
}

mod absence;
mod mark;
mod plans;
mod removal;
mod renumber;
