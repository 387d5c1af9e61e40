//! The same seed gives the same run, event by event.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use trivet_sim::run::run;
use trivet_sim::swarm::Overrides;

/// Short runs: this is built without much optimization.
fn short() -> Overrides {
    Overrides {
        until: Some(Duration::from_secs(40)),
        ..Overrides::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut hashes = Vec::new();
    for seed in 1..=6 {
        let (first, second) = (run(seed, &short(), None, None), run(seed, &short(), None, None));
        assert!(first.events > 1000, "seed {seed} did nothing");
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        assert_eq!(first.stats, second.stats, "seed {seed}");
        hashes.push(first.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 6, "seeds differ");
}

#[test]
fn reading_the_trace_does_not_change_it() {
    let quiet = run(3, &short(), None, None);
    let lines = std::rc::Rc::new(std::cell::Cell::new(0_u64));
    let counter = std::rc::Rc::clone(&lines);
    let sink = Box::new(move |_: std::fmt::Arguments<'_>| counter.set(counter.get() + 1));
    let loud = run(3, &short(), None, Some(sink));
    assert_eq!(quiet.hash, loud.hash);
    assert!(lines.get() > 1000);
}
