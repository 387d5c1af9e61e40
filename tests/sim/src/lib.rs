//! The deterministic simulator: a whole cluster in one thread, under faults, from one seed.
//!
//! It runs the machines that production runs on a simulated disk, network, clock and metadata store. The same
//! seed gives the same run. It opens no files or sockets and reads no clock.

mod administrator;
mod atlas;
mod callers;
mod clients;
mod control;
mod converge;
mod copies;
mod counted;
pub mod disk;
mod event;
mod exile;
mod forsaken;
mod gateway_troubles;
mod gateways;
mod handover;
pub mod kv;
pub mod mutants;
mod nemesis;
mod network;
mod node;
mod online;
mod osds;
mod owners;
pub mod random;
pub mod register;
mod relic;
mod restore;
pub mod run;
mod schedule;
pub mod sized;
pub mod stamp;
mod strand;
mod streams;
pub mod swarm;
mod times;
pub mod trace;
mod tree;
pub mod trouble;
mod unseen;
pub mod users;
pub mod workload;
mod world;
