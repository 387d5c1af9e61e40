//! Why an admin call failed: one type from the data path to the JSON body and on to the CLI.

use serde::{Deserialize, Serialize};

/// The class of a failure; decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No such image, OSD or route.
    NotFound,
    /// Something has that name already.
    Exists,
    /// The request is wrong and will stay wrong.
    Invalid,
    /// It is right, but not in the present state: a directory that is not empty, an OSD that is stopped already.
    Conflict,
    /// The cluster has not the room.
    NoSpace,
    /// Cannot be done at the moment.
    Unavailable,
    /// No answer in time; a change may still happen.
    Timeout,
    /// The request came from where none is welcome.
    Forbidden,
    /// The route exists, the method does not.
    Method,
    /// The body is not JSON by its content type.
    MediaType,
    /// The body is too large.
    TooLarge,
    /// The route is longer than any that there is.
    TooLong,
    /// A fault of the gateway.
    Internal,
}

/// A failed call: its class, and one line for a human that says what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// The class.
    pub kind: ErrorKind,
    /// One line, without a full stop.
    pub message: String,
}

impl AdminError {
    /// A failure of `kind` with a line for the human.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> AdminError {
        AdminError {
            kind,
            message: message.into(),
        }
    }

    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> AdminError {
        AdminError::new(ErrorKind::Invalid, message)
    }
}

/// The JSON body of every failed request: `{"error": {"kind": .., "message": ..}}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: AdminError,
}
