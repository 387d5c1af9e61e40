//! Runs one target over many inputs and says what it found.
//!
//! The target runs on a thread of its own, so that one that never returns is found too; such a thread is left behind.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::generate::input;
use crate::targets::Target;

/// An input must be done within this. One that is not gets a second try: the machine may have been busy.
pub const SLOW: Duration = Duration::from_secs(1);
/// The patience of a usual run.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often the watcher looks.
const LOOK: Duration = Duration::from_millis(20);
/// The first seed of a run by count.
const FIRST_SEED: u64 = 20_261_122;

/// How long a run is, and where it starts.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed of the first input; each further one is one higher.
    pub seed: u64,
    /// When it ends.
    pub end: End,
    /// An input that is not done by then never will be.
    pub patience: Duration,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// After so many inputs.
    Inputs(u64),
    /// After this time.
    Time(Duration),
}

impl Plan {
    /// From the environment: none if another target was asked for.
    ///
    /// # Panics
    /// If a variable is no number: a mistyped run must not pass.
    #[must_use]
    pub fn from_environment(target: &Target) -> Option<Plan> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let number = |name| variable(name).map(|text| text.parse::<u64>().expect("TRIVET_FUZZ_* is a decimal number"));
        let wanted = variable("TRIVET_FUZZ_TARGET").is_none_or(|name| name == target.name);
        let end = match number("TRIVET_FUZZ_SECONDS") {
            Some(seconds) => End::Time(Duration::from_secs(seconds)),
            None => End::Inputs(target.inputs),
        };
        let seed = number("TRIVET_FUZZ_SEED").unwrap_or(FIRST_SEED);
        wanted.then_some(Plan {
            seed,
            end,
            patience: PATIENCE,
        })
    }
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which target.
    pub target: &'static str,
    /// Inputs fed.
    pub inputs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
    /// The slowest input.
    pub slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            target, inputs, bytes, ..
        } = self;
        let (time, slowest) = (self.time.as_secs_f64(), self.slowest.as_millis());
        write!(
            f,
            "fuzz {target}: {inputs} inputs, {bytes} bytes, {time:.2} s, slowest {slowest} ms"
        )
    }
}

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The target panicked, saying this.
    Panic(String),
    /// It took longer than [`SLOW`], twice.
    Slow,
    /// It was not done within [`Plan::patience`].
    Hung,
}

/// An input that breaks the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which target.
    pub target: &'static str,
    /// The input's seed.
    pub seed: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What happened.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            target,
            seed,
            input,
            fault,
        } = self;
        writeln!(f, "fuzz {target}: {fault:?}")?;
        write!(f, "seed {seed}, {} bytes: ", input.len())?;
        input.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(
            f,
            "\nTRIVET_FUZZ_SEED={seed} TRIVET_FUZZ_TARGET={target} cargo test -p trivet-fuzz {target}"
        )
    }
}

/// The input that is being run, for the watcher.
type Current = Arc<Mutex<Option<(Instant, u64)>>>;

/// Feeds `target` as `plan` says.
///
/// # Errors
/// The first input that breaks it.
pub fn run(target: &'static Target, plan: Plan) -> Result<Report, Box<Finding>> {
    let current = Current::default();
    let runner = {
        let current = Arc::clone(&current);
        thread::spawn(move || campaign(target, plan, &current))
    };
    while !runner.is_finished() {
        thread::sleep(LOOK);
        let running = *current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seed)) = running.filter(|(since, _)| since.elapsed() > plan.patience) {
            return Err(finding(target, seed, Fault::Hung));
        }
    }
    runner.join().expect("the campaign catches what targets throw")
}

fn finding(target: &Target, seed: u64, fault: Fault) -> Box<Finding> {
    let input = input(seed, &(target.corpus)());
    Box::new(Finding {
        target: target.name,
        seed,
        input,
        fault,
    })
}

fn campaign(target: &Target, plan: Plan, current: &Current) -> Result<Report, Box<Finding>> {
    let (samples, start) = ((target.corpus)(), Instant::now());
    let mut report = Report {
        target: target.name,
        inputs: 0,
        bytes: 0,
        time: Duration::ZERO,
        slowest: Duration::ZERO,
    };
    let goes_on = |report: &Report| match plan.end {
        End::Inputs(inputs) => report.inputs < inputs,
        End::Time(time) => start.elapsed() < time,
    };
    while goes_on(&report) {
        let seed = plan.seed.wrapping_add(report.inputs);
        let data = input(seed, &samples);
        let watched = || {
            let started = Instant::now();
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some((started, seed));
            attempt(target, &data).map(|()| started.elapsed())
        };
        let took = unless_slow(watched).map_err(|fault| finding(target, seed, fault))?;
        report.inputs += 1;
        report.bytes += data.len() as u64;
        report.slowest = report.slowest.max(took);
    }
    report.time = start.elapsed();
    Ok(report)
}

/// Runs once, and once more if that was slow.
fn unless_slow(watched: impl Fn() -> Result<Duration, Fault>) -> Result<Duration, Fault> {
    let mut took = watched()?;
    if took > SLOW {
        took = watched()?;
    }
    if took > SLOW { Err(Fault::Slow) } else { Ok(took) }
}

fn attempt(target: &Target, data: &[u8]) -> Result<(), Fault> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(data))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Fault::Panic(text.unwrap_or_else(|| "a panic without text".to_owned()))
    })
}
