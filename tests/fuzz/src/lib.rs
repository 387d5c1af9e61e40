//! Every fuzz target of Trivet in one list ([`targets::TARGETS`]), and a seeded driver that feeds them.
//!
//! An input is a function of target and seed: pure noise, or samples of a small corpus of valid bytes, repeated, spliced and
//! mutated. The driver catches panics and inputs that take too long, and prints target, seed, input and the line that
//! replays it. `TRIVET_FUZZ_SECONDS=60` runs each target that long instead of a fixed number of inputs;
//! `TRIVET_FUZZ_TARGET=nbd` runs only that one; `TRIVET_FUZZ_SEED=7` starts at that seed.
//!
//! It does not measure coverage, and it keeps no corpus between runs.

pub mod corpus;
pub mod driver;
pub mod generate;
pub mod rng;
pub mod scsi;
pub mod targets;

#[cfg(test)]
mod canaries;
#[cfg(test)]
mod smoke;
