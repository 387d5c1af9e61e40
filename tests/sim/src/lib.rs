//! The deterministic simulator: a whole cluster in one thread, under faults, from one seed.
//!
//! It runs the machines that production runs on a simulated disk, network, clock and metadata store. The same
//! seed gives the same run. It opens no files or sockets and reads no clock.

pub mod disk;
pub mod kv;
pub mod random;
pub mod register;
pub mod stamp;
pub mod workload;
