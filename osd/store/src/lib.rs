//! The store of one OSD: objects of 128 KiB on one disk, as a pure state machine.
//!
//! It is given requests and disk completions and returns answers and disk operations. A write is answered
//! only when it is durable; after a crash at any instant every answered write is there, whole. Layout and
//! invariants: `docs/on-disk-format.md`.
//!
//! It does not open devices, choose versions, verify the sums of what it is given, or talk to peers.

pub mod api;
mod batch;
mod checkpoint;
mod commit;
mod cycle;
mod disk;
mod extent;
pub mod fuzz;
mod groups;
mod index;
mod layout;
mod mirror;
mod mutant;
mod ops;
mod policy;
mod read;
mod record;
mod recovery;
mod replay;
mod ring;
mod settle;
mod slots;
mod store;
mod superblock;

#[cfg(test)]
mod tests;

pub use api::{ObjectInfo, Output, Reply, Request, StoreError, StoreStats, Ticket};
#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;
pub use store::{Options, State, Store};
pub use superblock::{Format, IDENTITY, Regions, data_start, format, identify, regions};
