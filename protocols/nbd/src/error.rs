//! The two kinds of failure: of one request, told to the client, and of the connection, told to the caller.

use thiserror::Error;

/// Why one request failed (specification, "Error values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NbdError {
    /// The export is read-only.
    #[error("operation not permitted")]
    Permission,
    /// The storage failed.
    #[error("input/output error")]
    Io,
    /// No memory for this request now.
    #[error("cannot allocate memory")]
    NoMemory,
    /// The request breaks a rule or was never offered.
    #[error("invalid argument")]
    Invalid,
    /// A write past the end, or no room in the cluster.
    #[error("no space left on device")]
    NoSpace,
    /// A read that must not be fragmented is too long for one chunk.
    #[error("value too large")]
    Overflow,
    /// Not supported for this export.
    #[error("operation not supported")]
    NotSupported,
    /// The server is going away.
    #[error("server is shutting down")]
    Shutdown,
}

impl NbdError {
    /// The value on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            NbdError::Permission => 1,
            NbdError::Io => 5,
            NbdError::NoMemory => 12,
            NbdError::Invalid => 22,
            NbdError::NoSpace => 28,
            NbdError::Overflow => 75,
            NbdError::NotSupported => 95,
            NbdError::Shutdown => 108,
        }
    }
}

/// What the peer did that the connection cannot go on after. Always a fault of the peer: a client that leaves
/// in good order is seen by [`crate::Connection::is_finished`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// Client flags that were not offered.
    #[error("handshake: client flags {flags:#010x} hold bits that were not offered")]
    ClientFlags {
        /// As received.
        flags: u32,
    },
    /// An option did not start with `IHAVEOPT`.
    #[error("handshake: option {index} starts with {magic:#018x} instead of IHAVEOPT")]
    OptionMagic {
        /// As received.
        magic: u64,
        /// Which option, counted from 1.
        index: u32,
    },
    /// Anything but EXPORT_NAME from a client that cannot take replies to options.
    #[error("handshake: option {option} from a client without fixed newstyle")]
    NotFixedNewstyle {
        /// The option's number.
        option: u32,
    },
    /// More options than [`crate::Limits::options`].
    #[error("handshake: more than {limit} options")]
    TooManyOptions {
        /// The limit.
        limit: u32,
    },
    /// More option data than [`crate::Limits::handshake_bytes`].
    #[error("handshake: option {option} announces {length} bytes, more than {limit} in all options together")]
    TooMuchOptionData {
        /// The option's number.
        option: u32,
        /// Bytes it announces.
        length: u32,
        /// The limit, bytes.
        limit: u32,
    },
    /// EXPORT_NAME, which has no error reply, with a name over the limit.
    #[error("handshake: EXPORT_NAME of {length} bytes, limit {limit}")]
    NameTooLong {
        /// Bytes announced.
        length: u32,
        /// The limit, bytes.
        limit: u32,
    },
    /// EXPORT_NAME, which has no error reply, with a name that is not exported.
    #[error("handshake: EXPORT_NAME of unknown export {name:?}")]
    UnknownExport {
        /// The name, at most 64 characters of it, invalid UTF-8 replaced.
        name: Box<str>,
    },
    /// A request did not start with the request magic: the stream is out of step.
    #[error("transmission: request {index} starts with {magic:#010x} instead of 0x25609513")]
    RequestMagic {
        /// As received.
        magic: u32,
        /// Which request, counted from 1.
        index: u64,
    },
}
