//! The gateway: exports and the three protocol servers, on top of the cluster client and the tree of names; and what
//! administrators are shown ([`overview`]). What they may ask is `trivet_api`.
//!
//! A pure machine ([`gateway`], [`session`] and the servers that implement it): events and the time come in, effects go
//! out as data; sockets and HTTP are elsewhere (`cli/node/src`, `gateway/control`). Beside it, and never on its thread, the
//! overview answers questions. The machine keeps nothing that matters: any number of gateways serve the same tree at once.

mod background;
mod block;
mod callers;
mod changes;
mod cluster;
mod confirm;
mod fences;
pub mod fresh;
pub mod gateway;
#[cfg(test)]
mod gateway_tests;
mod images;
pub mod iscsi;
pub mod memory;
pub mod metrics;
pub mod nbd;
pub mod nfs;
mod opens;
mod options;
mod outcomes;
pub mod overview;
mod scrub;
pub mod session;
pub mod status;
mod stops;
#[cfg(test)]
mod test_tree;
mod uses;

#[cfg(feature = "mutants")]
pub use options::Mutant;
