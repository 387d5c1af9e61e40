//! Tries the deliberate bugs: each has to be caught by some seed. Those of the store are tried only if they are asked
//! for: its own crash tests catch them all where they are, and some do no harm that a cluster can see.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use trivet_sim::mutants::{Mutant, all, name, needs};
use trivet_sim::run::run;
use trivet_sim::swarm::{Overrides, Swarm};

/// Seeds from here on: not those of the usual runs.
const FIRST: u64 = 1;

/// A bug that was caught: by which seed, and how.
type Catch = Option<(u64, String)>;

/// Prints for each bug how it was caught.
pub fn hunt(limit: u64, only: &str, threads: usize) -> ExitCode {
    let mutants: Vec<Mutant> = all()
        .into_iter()
        .filter(|mutant| match only {
            "" => !matches!(mutant, Mutant::Store(_)),
            only => name(*mutant).contains(only),
        })
        .collect();
    let mut survivors = 0;
    let started = Instant::now();
    for &mutant in &mutants {
        let caught = catch(mutant, limit, threads);
        let line = match &caught {
            Some((seed, how)) => {
                let how = how.lines().next().unwrap_or_default();
                format!("seed {seed:>4}  {}", how.chars().take(110).collect::<String>())
            }
            None => format!("SURVIVED {limit} seeds"),
        };
        println!("{:<44} {line}", name(mutant));
        survivors += u64::from(caught.is_none());
    }
    let caught = mutants.len() as u64 - survivors;
    println!("{} s", started.elapsed().as_secs());
    println!(
        "test result: {}. {caught} passed; {survivors} failed",
        if survivors == 0 { "ok" } else { "FAILED" }
    );
    println!("{caught} of {} mutants caught", mutants.len());
    if survivors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The bug whose name ends so.
pub fn named(text: &str) -> Option<Mutant> {
    all().into_iter().find(|mutant| name(*mutant).ends_with(text))
}

/// Whether a run has what the bug is about.
fn can_show(mutant: Mutant, swarm: &Swarm) -> bool {
    let has_it = needs(mutant).iter().all(|trouble| swarm.has(*trouble));
    has_it && (swarm.gateways > 0 || !matches!(mutant, Mutant::Gateway(_)))
}

fn catch(mutant: Mutant, limit: u64, threads: usize) -> Catch {
    let next = AtomicU64::new(FIRST);
    let end = AtomicU64::new(FIRST.saturating_add(limit));
    let caught: Mutex<Catch> = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return;
            }
            let overrides = Overrides::default();
            // What is not there cannot show it.
            if !can_show(mutant, &Swarm::draw(seed, &overrides)) {
                continue;
            }
            let report = run(seed, &overrides, Some(mutant), None);
            // A seed that fails without the bug proves nothing.
            let proves = report.violation.is_some() && run(seed, &overrides, None, None).violation.is_none();
            let (Some(violation), true, Ok(mut caught)) = (report.violation, proves, caught.lock()) else {
                continue;
            };
            end.fetch_min(seed, Ordering::Relaxed);
            if caught.as_ref().is_none_or(|(first, _)| *first > seed) {
                *caught = Some((seed, violation));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    caught.into_inner().ok().flatten()
}
