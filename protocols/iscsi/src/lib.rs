//! The target's side of an iSCSI connection (RFC 7143) as a machine without I/O.
//!
//! A [`Connection`] is fed bytes ([`Connection::receive`]), results of backend operations ([`Connection::finished`]) and time
//! ([`Connection::tick`]); it emits bytes to send and [`Action`]s to take. It logs an initiator in, answers discovery, collects
//! a command's data (immediate, unsolicited, solicited), hands it to the SCSI device server (`trivet-scsi`), and sends data and
//! status back with exact residuals. What it asks about the world, it asks through [`Targets`].
//!
//! Promises: no panic on any input; every length is checked before memory is taken; payloads go by reference both ways; a task
//! that was aborted is answered never, and a task management function only when nothing of the tasks it covers can execute any
//! more. NOP-Out is answered at once, whatever the backend does.
//!
//! One connection per session, error recovery level 0, no digests, no authentication: not here yet are CHAP, digests, several
//! connections, asynchronous messages and redirection.

mod command;
mod connection;
mod data;
mod discovery;
pub mod fuzz;
mod login;
mod management;
mod negotiate;
mod pdu;
mod targets;
mod task;
#[cfg(test)]
mod tests;
mod text;
mod wire;

pub use connection::{Action, CloseReason, Connection};
pub use targets::{TargetInfo, Targets};
pub use task::Tag;
pub use trivet_scsi::{BackendError, BackendOp, Unit};

/// Commands that an initiator may have outstanding: MaxCmdSN - ExpCmdSN + 1 while it has none (open-iscsi's cmds_max).
pub const WINDOW: u32 = 128;
/// Immediate commands that may be outstanding besides (RFC 7143 4.2.2.1 asks for two at least).
pub const IMMEDIATE: u32 = 16;
/// Bytes of transfers that are under way at once; commands beyond wait, their data in the initiator. Writes whose data came
/// unasked (at most a first burst each) come on top.
pub const TRANSFER_BUDGET: u64 = 64 << 20;
/// From the connection's start to full feature phase, milliseconds.
pub const LOGIN_DEADLINE_MS: u64 = 10_000;
/// Silence after which the initiator is pinged, milliseconds.
pub const PING_AFTER_MS: u64 = 15_000;
/// Silence after a ping that ends the connection, milliseconds.
pub const PING_TIMEOUT_MS: u64 = 10_000;
