//! The administration of a gateway on tokio: the HTTP API, and what stands behind it.
//!
//! What may be asked is `trivet_api`. Questions are answered by the [`Clerk`], on a thread
//! of its own and from its own mirror of the metadata; changes go through a queue to the data path, which is also asked how
//! it is. Here all that gets sockets, deadlines and locks.

mod administration;
mod body;
mod calls;
mod clerk;
mod cluster_http;
mod counters;
mod exposition;
mod failure;
mod guard;
pub mod http;
mod listener;
mod scrape;
mod scrape_usage;

#[cfg(test)]
mod http_tests;

pub use administration::Administration;
pub use calls::{AdminHandle, AdminReceiver, AdminReply, Request, channel};
pub use clerk::{Clerk, Errand};
pub use counters::Counters;
pub use exposition::Format;
