//! Makes a failing run smaller: fewer kinds of trouble, a shorter time.

use std::process::ExitCode;
use std::time::Duration;

use trivet_sim::run::{Report, run};
use trivet_sim::swarm::{Overrides, Swarm};

use crate::command;

/// Steps in which the length of a run is halved between what fails and what does not.
const HALVINGS: u32 = 6;

/// Prints the smallest run of this seed that still fails, as far as turning off one kind after the other goes.
pub fn shrink(seed: u64) -> ExitCode {
    let mut best = Overrides::default();
    let Some(mut violation) = fails(seed, &best) else {
        println!("seed {seed} does not fail");
        return ExitCode::SUCCESS;
    };
    shorten(seed, &mut best, &mut violation);
    loop {
        let before = best.without.len();
        for (trouble, _) in Swarm::draw(seed, &best).troubles {
            let mut fewer = best.clone();
            fewer.without.push(trouble);
            if let Some(found) = fails(seed, &fewer) {
                (best, violation) = (fewer, found);
            }
        }
        if best.without.len() == before {
            break;
        }
        shorten(seed, &mut best, &mut violation);
    }
    println!("{}", Swarm::draw(seed, &best).describe());
    println!("{violation}");
    println!("{}", command(seed, &best));
    ExitCode::FAILURE
}

fn fails(seed: u64, overrides: &Overrides) -> Option<String> {
    let Report { violation, .. } = run(seed, overrides, None, None);
    violation
}

fn shorten(seed: u64, best: &mut Overrides, violation: &mut String) {
    let mut works = Swarm::draw(seed, best).safety;
    let mut fails_not = Duration::ZERO;
    for _ in 0..HALVINGS {
        let middle = Duration::from_secs(works.saturating_add(fails_not).as_secs() / 2);
        let shorter = Overrides {
            until: Some(middle),
            ..best.clone()
        };
        match fails(seed, &shorter) {
            Some(found) => {
                works = middle;
                (*best, *violation) = (shorter, found);
            }
            None => fails_not = middle,
        }
    }
}
