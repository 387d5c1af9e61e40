//! Prints how even plans are, how much moves when a cluster changes, and how long they take.
//! `cargo run --release -p trivet-mon --example placement`; the table is in `docs/decisions/0009-placement.md`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "it measures times and prints numbers"
)]

#[path = "../tests/scenario/mod.rs"]
mod scenario;

use std::time::Instant;

use scenario::{Scenario, is_valid, moved, must_move, planned, uniformity};
use trivet_core::keys::Plan;

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

fn main() {
    println!("| cluster, PGs x copies | usable | time | add: moved, of it needless | remove | reweight |");
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
