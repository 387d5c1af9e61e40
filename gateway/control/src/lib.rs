//! The administration of a gateway on tokio: the HTTP API, and the queue between it and the data path.
//!
//! What may be asked, and how it is answered, is `trivet_gateway::admin`: plain data of the gateway, a pure machine that
//! runs on the data-path thread. Here it gets sockets, deadlines and locks.

mod calls;
mod cluster_http;
mod counters;
mod failure;
mod guard;
pub mod http;
mod listener;
mod scrape;
mod scrape_usage;

#[cfg(test)]
mod http_tests;

pub use calls::{AdminHandle, AdminReceiver, AdminReply, channel};
pub use counters::Counters;
