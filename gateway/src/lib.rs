//! The gateway: exports, the three protocol servers and the admin API, on top of the cluster client and the
//! tree of names.
//!
//! The data path ([`gateway`], [`session`] and the servers that implement it) is a pure machine that runs on the
//! reactor's thread; the admin API ([`admin`]) runs on tokio and talks to it by messages. It keeps nothing that
//! matters: any number of gateways serve the same tree at once.

pub mod admin;
mod background;
mod changes;
mod cluster;
pub mod gateway;
#[cfg(test)]
mod gateway_tests;
mod images;
pub mod iscsi;
pub mod nbd;
pub mod nfs;
mod outcomes;
mod scrub;
pub mod session;
pub mod status;
#[cfg(test)]
mod test_tree;
mod uses;
