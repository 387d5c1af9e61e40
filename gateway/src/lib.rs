//! The gateway: exports, the three protocol servers and the admin API, on top of the cluster client and the
//! tree of names.
//!
//! The data path ([`session`], and the servers that implement it) runs on the reactor's thread; the admin API
//! ([`admin`]) runs on tokio and talks to it by messages. It keeps nothing that matters: any number of gateways
//! serve the same tree at once.

pub mod admin;
pub mod session;
