//! Prints how even plans are, how much moves when a cluster changes, and how long they take.
//! `cargo run --release -p trivet-mon --example placement`; the table is in `docs/decisions/0009-placement.md`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "it measures times and prints numbers"
)]

#[path = "../tests/placement/scenario.rs"]
mod scenario;

use std::time::{Duration, Instant};

use scenario::{Scenario, is_valid, moved, must_move, planned, uniformity};
use trivet_core::keys::{self, Leader, OsdConfig, OsdState, Plan, Pool};
use trivet_core::kv::{Change, Event, KeyValue, LeaseId, Notice, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{Now, OsdId, PoolId};
use trivet_mon::Monitor;

/// OSDs, hosts, hosts per domain (0: the OSD is the domain), PGs, replicas.
const TABLE: [(u32, usize, usize, u32, usize); 9] = [
    (12, 12, 0, 256, 2),
    (12, 4, 1, 256, 3),
    (60, 10, 1, 256, 3),
    (60, 10, 1, 1024, 3),
    (60, 12, 3, 1024, 3),
    (240, 20, 1, 4096, 3),
    (240, 24, 4, 4096, 3),
    (1000, 50, 1, 1024, 3),
    (1000, 50, 1, 16384, 3),
];

fn key_value<T: serde::Serialize>(key: String, value: &T) -> KeyValue {
    KeyValue {
        key,
        value: encode(value),
        mod_revision: 1,
    }
}

/// A monitor that leads a cluster of one pool with a host domain, which has no plan yet.
fn monitor(osds: u32, hosts: u32, pg_count: u32) -> Monitor {
    let pool = Pool {
        pg_count,
        replicas: 3,
        failure_domain: keys::LEVEL_HOST.into(),
        ..Pool::default()
    };
    let mut keys = vec![
        key_value(keys::LEADER.into(), &Leader { id: 1 }),
        key_value(keys::pool(PoolId(1)), &pool),
    ];
    for osd in 1..=osds {
        let config = OsdConfig {
            size: 1 << 40,
            host: Some(format!("h{}", osd % hosts)),
            ..OsdConfig::default()
        };
        let state = OsdState {
            boot: 1,
            size: 1 << 40,
            address: None,
        };
        keys.push(key_value(keys::osd_config(OsdId(osd)), &config));
        keys.push(key_value(keys::osd_state(OsdId(osd)), &state));
    }
    let mut monitor = Monitor::new(1, LeaseId(1));
    monitor.notice(&Notice::Snapshot { revision: 1, keys });
    monitor
}

/// Takes a transaction of the monitor for committed; how long it took to make it.
fn committed(monitor: &mut Monitor, revision: u64) -> Duration {
    let start = Instant::now();
    let txn = monitor.next(Now(0)).expect("there is something to do");
    let time = start.elapsed();
    let event = |change| match change {
        Change::Put { key, value, .. } => Event::Put(KeyValue {
            key,
            value,
            mod_revision: revision,
        }),
        Change::Delete(key) => Event::Delete { key, revision },
    };
    monitor.ended(TxnOutcome::Committed(revision));
    let events = txn.changes.into_iter().map(event).collect();
    monitor.notice(&Notice::Changes { revision, events });
    time
}

/// How long it takes the monitor to plan, and to replace primaries that are gone.
fn fail_over(osds: u32, hosts: u32, pgs: u32) {
    let mut monitor = monitor(osds, hosts, pgs);
    let plan = committed(&mut monitor, 2);
    let gone = Event::Delete {
        key: keys::osd_state(OsdId(1)),
        revision: 3,
    };
    let start = Instant::now();
    monitor.notice(&Notice::Changes {
        revision: 3,
        events: vec![gone],
    });
    let noticed = start.elapsed();
    let primaries = committed(&mut monitor, 4) + noticed;
    println!("{osds} OSDs, {hosts} hosts, {pgs} x 3: first plan {plan:.1?}, new primaries {primaries:.1?}");
}

fn main() {
    fail_over(60, 10, 1024);
    fail_over(1000, 50, 1024);
    fail_over(1000, 50, 16384);
    println!(
        "| cluster, PGs x copies | usable | time | one OSD added: moved (beyond the bound), usable, time | one removed | one halved |"
    );
    println!("|---|---|---|---|---|---|");
    for (osds, hosts, hosts_per_domain, pgs, replicas) in TABLE {
        let scenario = Scenario {
            osds,
            hosts,
            hosts_per_domain,
            pgs,
            replicas,
        };
        let inputs = scenario.inputs();
        let start = Instant::now();
        let plan = planned(&Plan::default(), &inputs);
        let time = start.elapsed();
        assert!(is_valid(&inputs, &plan));
        print!(
            "| {} | {:.3} | {:.1?} |",
            scenario.name(),
            uniformity(&inputs, &plan),
            time
        );
        for (_, changed) in scenario.changes() {
            let start = Instant::now();
            let next = planned(&plan, &changed);
            let time = start.elapsed();
            assert!(is_valid(&changed, &next));
            let bound = must_move(&inputs, &changed);
            let (moved, even) = (moved(&plan, &next) as f64, uniformity(&changed, &next));
            print!(
                " {moved} ({:+.1} %), {even:.3}, {time:.1?} |",
                (moved / bound - 1.0) * 100.0
            );
        }
        println!();
    }
}
