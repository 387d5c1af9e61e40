//! Crash, failure and corruption tests of the store on a simulated disk, and the proof that they can fail:
//! every seeded bug of [`Mutant`] must be caught by the same checker.
//!
//! `TRIVET_CRASH_IMAGES` sets the number of crash images (default 50,000) and scales the tests of rot with
//! it, `TRIVET_CRASH_CORRUPTIONS` that of single corruptions (default 10,000), `TRIVET_CRASH_SEED` repeats one
//! run. Figures are printed with `--nocapture`.

mod campaign;
mod corruption;
mod disk;
mod failures;
mod image;
mod journal;
mod marks;
mod model;
mod power;
mod rng;
mod single;
mod workload;
mod world;

use campaign::Options;
use trivet_store::Mutant;

/// A broken promise, in words.
#[derive(Debug)]
pub struct Violation(pub String);

/// Crash images of all crash tests together.
const IMAGES: u64 = 50_000;
/// Stores that are damaged in 200 ways each, for so many images.
const ROTTEN_STORES: u64 = 60;
/// Single corruptions.
const CORRUPTIONS: u64 = 10_000;
/// Within so many images, or seeds of another test, each seeded bug is caught.
const MUTANT_IMAGES: u64 = 20_000;
const MUTANT_SEEDS: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

fn images() -> u64 {
    number("TRIVET_CRASH_IMAGES").unwrap_or(IMAGES)
}

fn crash_images(seed: u64, images: u64, churn: bool) {
    match campaign::run(
        seed,
        images,
        Options {
            churn,
            ..Options::default()
        },
    ) {
        Ok(tally) => println!("{tally}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn crash_images_first_half() {
    crash_images(1, images().div_ceil(2), false);
}

#[test]
fn crash_images_second_half() {
    crash_images(2, images().div_ceil(2), false);
}

#[test]
fn crash_images_while_objects_come_and_go() {
    crash_images(4, images().div_ceil(10), true);
}

#[test]
fn failed_writes_and_flushes_are_final() {
    let mut tally = failures::Tally::default();
    for seed in 0..400 {
        failures::final_failure(seed, None, &mut tally).unwrap_or_else(|v| panic!("seed {seed}: {}", v.0));
    }
    println!(
        "{} disk failures after {} writes, {} requests answered with the failure, {} images: 0 violations",
        tally.failures, tally.writes, tally.answered_failed, tally.images
    );
    assert!(
        tally.answered_failed > tally.failures * 20,
        "requests were waiting when the disk failed"
    );
}

#[test]
fn failed_reads_are_only_failed_reads() {
    let mut tally = failures::Tally::default();
    for seed in 0..100 {
        failures::read_errors(seed, &mut tally).unwrap_or_else(|v| panic!("seed {seed}: {}", v.0));
    }
    println!(
        "{} runs with read errors, {} writes: 0 violations",
        tally.failures, tally.writes
    );
}

#[test]
fn rot_is_never_served_and_never_hides_what_was_acknowledged() {
    let mut tally = corruption::Tally::default();
    let seeds = (ROTTEN_STORES * images()).div_ceil(IMAGES);
    for seed in 0..seeds {
        corruption::run(seed, &mut tally).unwrap_or_else(|v| panic!("seed {seed}: {}", v.0));
    }
    println!(
        "{} rotten disks: {} unharmed, {} reported damage ({} reads), {} refused to open: 0 violations",
        tally.disks, tally.unharmed, tally.reported, tally.damaged_reads, tally.refused
    );
    for (reason, count) in &tally.reasons {
        println!("  {count} x {reason}");
    }
    assert!(
        tally.disks >= seeds * 200 && tally.reported > tally.disks / 20,
        "the rot hit something"
    );
}

#[test]
fn single_corruptions_are_detected_repaired_or_harmless() {
    let goal = number("TRIVET_CRASH_CORRUPTIONS").unwrap_or(CORRUPTIONS);
    let mut tally = single::Tally::default();
    let first = number("TRIVET_CRASH_SEED").unwrap_or(0);
    for seed in first.. {
        single::run(seed, None, &mut tally).unwrap_or_else(|v| panic!("TRIVET_CRASH_SEED={seed}: {}", v.0));
        if tally.injected >= goal {
            break;
        }
    }
    println!("{tally}");
}

/// What catches a seeded bug.
#[derive(Clone, Copy, Debug)]
enum Catcher {
    PowerCuts,
    Corruptions,
    Failures,
    /// A unit test of the smallest case: the crash tests find it, too, but only after some 10,000 corruptions.
    Unit,
}

/// The catcher of each seeded bug: a store alone shows all of them, none needs a cluster.
const CATCHERS: [(Mutant, Catcher); Mutant::ALL.len()] = [
    (Mutant::SkipFlush, Catcher::PowerCuts),
    (Mutant::AckBeforeBatch, Catcher::PowerCuts),
    (Mutant::IgnoreFlushError, Catcher::Failures),
    (Mutant::AcceptTornBatch, Catcher::PowerCuts),
    (Mutant::SkipLastBatchVerify, Catcher::PowerCuts),
    (Mutant::TruncateAtRot, Catcher::Corruptions),
    (Mutant::NeverProve, Catcher::Corruptions),
    (Mutant::ReuseSlotEarly, Catcher::PowerCuts),
    (Mutant::CheckpointBeforeFlush, Catcher::PowerCuts),
    (Mutant::TailBeforeHeader, Catcher::PowerCuts),
    (Mutant::StaleChunks, Catcher::Unit),
    (Mutant::ForgetOps, Catcher::PowerCuts),
    (Mutant::ForgetEpoch, Catcher::PowerCuts),
    (Mutant::NoVerifyOnRead, Catcher::Corruptions),
    (Mutant::SalvageHidesDamage, Catcher::Corruptions),
    (Mutant::SettleUnverified, Catcher::Corruptions),
    (Mutant::SettleOverNewer, Catcher::PowerCuts),
    (Mutant::EqualVersionOverwrites, Catcher::PowerCuts),
    (Mutant::TombstoneDropsVersion, Catcher::PowerCuts),
];

/// How the bug showed itself; `None` if it did not.
fn caught(mutant: Mutant, catcher: Catcher) -> Option<String> {
    match catcher {
        Catcher::PowerCuts => {
            let mutant = Some(mutant);
            let options = campaign::Options {
                mutant,
                ..Options::default()
            };
            let failure = campaign::run(3, MUTANT_IMAGES, options).err()?;
            Some(format!("at image {}: {}", failure.images, failure.violation.0))
        }
        Catcher::Corruptions => {
            let mut tally = single::Tally::default();
            let violation = (0..MUTANT_SEEDS).find_map(|seed| single::run(seed, Some(mutant), &mut tally).err())?;
            Some(format!("at corruption {}: {}", tally.injected, violation.0))
        }
        Catcher::Unit => Some("by a unit test".to_owned()),
        Catcher::Failures => {
            let mut tally = failures::Tally::default();
            let mut seeds = 0..MUTANT_SEEDS;
            let violation = seeds.find_map(|seed| failures::final_failure(seed, Some(mutant), &mut tally).err())?;
            Some(format!("at failure {}: {}", tally.failures, violation.0))
        }
    }
}

/// A checker that cannot fail proves nothing.
#[test]
fn every_seeded_bug_is_caught() {
    let mut survivors = Vec::new();
    for (mutant, catcher) in CATCHERS {
        match std::panic::catch_unwind(|| caught(mutant, catcher)) {
            Ok(Some(how)) => println!("{mutant:?} caught {how}"),
            Ok(None) => survivors.push(mutant),
            Err(_) => println!("{mutant:?} caught: it panicked"),
        }
    }
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
    let known = |mutant| CATCHERS.iter().any(|caught| caught.0 == mutant);
    assert!(Mutant::ALL.into_iter().all(known), "a seeded bug that nobody looks for");
}
