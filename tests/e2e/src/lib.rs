//! The rig of the end-to-end tests: starts the real binary, runs clients that
//! others wrote, stamps and checks sectors, sends malformed input.
//!
//! Promises: everything it starts is bounded in time and gone at the end, all
//! traffic stays on 127.0.0.1, and what a checker here claims to notice, its
//! own tests prove. It links nothing of the product; the cases are in `cases/`.

pub mod cluster;
pub mod command;
pub mod fuzz;
pub mod image_file;
pub mod initiator;
pub mod iscsi;
pub mod ledger;
pub mod nbd;
pub mod rng;
pub mod rpc;
pub mod server;
pub mod stamp;
pub mod storm;
mod turn;
pub mod way;

pub use command::{Tool, client};
pub use rng::Rng;
pub use server::{Cluster, Server};

/// Whether the long form of the tests was asked for (`make long`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("TRIVET_LONG").is_some()
}

/// `short` in CI, `full` in the long form.
#[must_use]
pub fn sized<T>(short: T, full: T) -> T {
    if long() { full } else { short }
}
