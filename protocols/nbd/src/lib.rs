//! The server side of the NBD protocol: one state machine per connection.
//!
//! [`Connection`] turns received bytes into [`Request`]s and their results into bytes to send. It speaks
//! the fixed newstyle handshake and simple or structured replies as `doc/proto.md` of the NBD project
//! (called *the specification* below) lays them down.
//!
//! It promises: no panic on any bytes; every buffer and queue bounded by [`Limits`]; payloads passed by
//! reference, never copied; a request that breaks a rule is answered with an error and never reaches the
//! caller; a peer that breaks the framing ends the connection with a [`CloseReason`].
//!
//! It does not touch sockets, clocks, threads or storage. Handshake deadlines, TLS, and the memory budget over
//! all connections are the caller's. Meta contexts and extended headers are refused as unsupported.

mod connection;
mod error;
mod export;
pub mod fuzz;
mod handshake;
mod in_flight;
mod limits;
mod reply;
mod request;
mod transmission;
mod wire;

pub use connection::Connection;
pub use error::{CloseReason, NbdError};
pub use export::{Export, Exports};
pub use in_flight::{Handle, InFlight};
pub use limits::{Limits, MAX_PAYLOAD};
pub use request::{Command, Request};

#[cfg(test)]
mod tests;
