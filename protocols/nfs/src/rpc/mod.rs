//! ONC RPC version 2 (RFC 5531), the server's side: records of a TCP stream, the header of a call with
//! its credentials, and the header of every kind of reply.
//!
//! Knows no program; authenticates nobody (AUTH_SYS is an assertion of the client, appendix A).

mod auth;
mod message;
mod record;

pub use auth::{
    AuthStat, Credentials, Groups, MAX_AUTH_BODY, MAX_GROUPS, MAX_MACHINE_NAME, MachineName, SysCredentials,
};
pub use message::{
    CallHeader, HeaderError, RPC_VERSION, Refusal, begin_reply, finish_record, write_call_header, write_refusal,
};
pub use record::{Assembler, LAST_FRAGMENT, MARK_SIZE};

/// The authentication flavours (RFC 5531 section 8.2) that are known here.
pub mod flavor {
    /// No authentication.
    pub const NONE: u32 = 0;
    /// The client asserts uid and gids (appendix A).
    pub const SYS: u32 = 1;
    /// A shorthand that a server may hand out; this one never does.
    pub const SHORT: u32 = 2;
}
