//! Plans for clusters of disks of mixed sizes are even, move little, and never put two copies in one place.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test, numbers are small"
)]

mod scenario;

use scenario::{Scenario, is_valid, moved, must_move, planned, uniformity};
use trivet_core::keys::Plan;

/// Space that must be usable, of the ideal.
const UNIFORM: f64 = 0.96;
/// What may move, of what must.
const MOVEMENT: f64 = 1.05;

fn scenarios() -> Vec<Scenario> {
    let scenario = |osds, hosts, hosts_per_domain, pgs, replicas| Scenario {
        osds,
        hosts,
        hosts_per_domain,
        pgs,
        replicas,
    };
    vec![
        scenario(12, 12, 0, 256, 2),
        scenario(12, 4, 1, 256, 3),
        scenario(12, 3, 1, 256, 3),
        scenario(13, 4, 1, 256, 2),
        scenario(60, 10, 1, 1024, 3),
        scenario(60, 12, 4, 1024, 3),
        scenario(60, 12, 3, 1024, 3),
        scenario(61, 60, 0, 1024, 2),
        scenario(240, 20, 1, 4096, 3),
        scenario(240, 24, 4, 4096, 3),
        scenario(240, 24, 8, 4096, 3),
    ]
}

#[test]
fn plans_are_even_and_move_little() {
    for scenario in scenarios() {
        let inputs = scenario.inputs();
        let name = scenario.name();
        let plan = planned(&Plan::default(), &inputs);
        assert!(is_valid(&inputs, &plan), "{name}");
        let even = uniformity(&inputs, &plan);
        assert!(even >= UNIFORM, "{name}: {even}");
        assert_eq!(planned(&plan, &inputs), plan, "{name}: nothing to do");
        for (change, changed) in scenario.changes() {
            let next = planned(&plan, &changed);
            assert!(is_valid(&changed, &next), "{name}, {change}");
            let even = uniformity(&changed, &next);
            assert!(even >= UNIFORM, "{name}, {change}: {even}");
            let (moved, bound) = (moved(&plan, &next) as f64, must_move(&inputs, &changed));
            assert!(
                moved <= (bound * MOVEMENT).ceil(),
                "{name}, {change}: {moved} of {bound} moved"
            );
            assert_eq!(planned(&next, &changed), next, "{name}, {change}: nothing more to do");
        }
    }
}
