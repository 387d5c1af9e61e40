//! `trivet-sim`: runs seeds of the simulator, replays one, shrinks one, and tries the mutants.
//!
//! It promises that whatever it reports comes with the command that shows it again, and that it exits with 1 if anything
//! was wrong. Threads and the clock of the machine are its business alone: a seed runs in one thread and reads no clock.
//! It does not decide what is right or wrong; the library does.

#[cfg(feature = "mutants")]
mod hunt;
mod shrink;
mod summary;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use trivet_sim::mutants::Mutant;
use trivet_sim::run::{Report, run};
use trivet_sim::swarm::{Overrides, Swarm};
use trivet_sim::trouble::Trouble;

use summary::Summary;

#[derive(Parser)]
#[command(about = "The whole cluster in one thread, under faults, from one seed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and sums up.
    Run {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many.
        #[arg(long, default_value_t = 300)]
        count: u64,
        /// Seeds that run side by side.
        #[arg(long, default_value_t = 0, help = "Threads; 0: as many as there are processors")]
        threads: usize,
        #[command(flatten)]
        limits: Limits,
    },
    /// Runs one seed again.
    Replay {
        /// Which.
        seed: u64,
        /// Prints every event.
        #[arg(long)]
        trace: bool,
        /// With the deliberate bug of this name.
        #[cfg(feature = "mutants")]
        #[arg(long)]
        mutant: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Looks for fewer troubles and a shorter run with which a seed still fails.
    Shrink {
        /// Which.
        seed: u64,
    },
    /// Tries every deliberate bug until a seed catches it.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Seeds per bug at most.
        #[arg(long, default_value_t = 1000)]
        limit: u64,
        /// Only bugs whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// Threads; 0: as many as there are processors.
        #[arg(long, default_value_t = 0)]
        threads: usize,
    },
}

/// What is left out of a run.
#[derive(Args, Clone, Debug, Default)]
struct Limits {
    /// A kind of trouble that is not made; may be repeated.
    #[arg(long, value_parser = trouble)]
    without: Vec<Trouble>,
    /// No trouble but of these kinds; may be repeated.
    #[arg(long, value_parser = trouble)]
    only: Vec<Trouble>,
    /// The troubles end after so many seconds.
    #[arg(long)]
    until: Option<u64>,
}

fn trouble(name: &str) -> Result<Trouble, String> {
    let names = || {
        Trouble::ALL
            .iter()
            .map(|trouble| trouble.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    Trouble::named(name).ok_or_else(|| format!("no such trouble; there are {}", names()))
}

impl Limits {
    fn left_out(&self) -> Vec<Trouble> {
        let others = Trouble::ALL.iter().filter(|trouble| !self.only.contains(trouble));
        let others = others.filter(|_| !self.only.is_empty());
        self.without.iter().chain(others).copied().collect()
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            without: self.left_out(),
            until: self.until.map(Duration::from_secs),
        }
    }
}

/// The command that runs a seed again.
fn command(seed: u64, overrides: &Overrides) -> String {
    let mut words = format!("trivet-sim replay {seed}");
    let left = Swarm::draw(seed, overrides).troubles;
    let some = if overrides.without.is_empty() { &[] } else { &left[..] };
    for (trouble, _) in some {
        words += &format!(" --only {}", trouble.name());
    }
    if left.is_empty() {
        words += &Trouble::ALL
            .iter()
            .map(|t| format!(" --without {}", t.name()))
            .collect::<String>();
    }
    if let Some(until) = overrides.until {
        words += &format!(" --until {}", until.as_secs());
    }
    words
}

fn main() -> ExitCode {
    // Panics of the machines are reported with their seed; here only where they happened.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        eprintln!(
            "panic at {}: {}",
            place.unwrap_or_default(),
            summary::words(info.payload())
        );
    }));
    match Cli::parse().command {
        Command::Run {
            seed,
            count,
            threads,
            limits,
        } => run_many(seed, count, threads_or_all(threads), &limits.overrides()),
        #[cfg(not(feature = "mutants"))]
        Command::Replay { seed, trace, limits } => replay(seed, trace, None, &limits.overrides()),
        #[cfg(feature = "mutants")]
        Command::Replay {
            seed,
            trace,
            mutant,
            limits,
        } => replay(
            seed,
            trace,
            mutant.and_then(|name| hunt::named(&name)),
            &limits.overrides(),
        ),
        Command::Shrink { seed } => shrink::shrink(seed),
        #[cfg(feature = "mutants")]
        Command::Mutants { limit, only, threads } => hunt::hunt(limit, &only, threads_or_all(threads)),
    }
}

fn threads_or_all(threads: usize) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if threads > 0 { threads } else { all() }
}

/// Runs seeds on several threads; failures are printed as they come.
fn run_many(seed: u64, count: u64, threads: usize, overrides: &Overrides) -> ExitCode {
    let next = AtomicU64::new(seed);
    let summary = Mutex::new(Summary::default());
    let work = || {
        loop {
            let mine = next.fetch_add(1, Ordering::Relaxed);
            if mine >= seed.saturating_add(count) {
                return;
            }
            let started = Instant::now();
            let report = run(mine, overrides, None, None);
            if let Some(violation) = &report.violation {
                println!("seed {mine}: {violation}\n  replay: {}", command(mine, overrides));
            }
            if let Ok(mut summary) = summary.lock() {
                summary.add(&report, started.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let summary = summary.into_inner().unwrap_or_default();
    summary.print();
    if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(seed: u64, trace: bool, mutant: Option<Mutant>, overrides: &Overrides) -> ExitCode {
    println!("seed {seed}: {}", Swarm::draw(seed, overrides).describe());
    let sink: Option<trivet_sim::trace::Sink> = if trace {
        Some(Box::new(|line| println!("{line}")))
    } else {
        None
    };
    let started = Instant::now();
    let report = run(seed, overrides, mutant, sink);
    summary::print_one(&report, started.elapsed());
    verdict(&report)
}

fn verdict(report: &Report) -> ExitCode {
    match &report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("VIOLATION {violation}");
            ExitCode::FAILURE
        }
    }
}
