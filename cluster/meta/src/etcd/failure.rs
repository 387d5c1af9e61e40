//! What an error of etcd or of the way to it says about the request: done, not done, or nobody knows.

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, Status};

use crate::MetaError;

/// Why a request was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not happen, and never will: it is wrong in itself.
    Final(MetaError),
    /// It names a lease that does not exist.
    NoLease,
    /// It asks for a revision that is compacted or not there yet.
    NoSuchRevision,
    /// The answer is larger than the limit.
    TooLarge,
    /// It did not happen, and may do at another time or endpoint.
    Refused(String),
    /// It may or may not have happened.
    Lost(String),
}

impl Failure {
    /// The error of a request that changes nothing, or of one that certainly did not happen.
    pub(super) fn into_error(self) -> MetaError {
        match self {
            Failure::Final(error) => error,
            Failure::NoLease => MetaError::Invalid("a lease where there can be none"),
            Failure::NoSuchRevision => MetaError::Unavailable("the revision is not there any more".into()),
            Failure::TooLarge => MetaError::Unavailable("etcd's answer is too large".into()),
            Failure::Refused(why) | Failure::Lost(why) => MetaError::Unavailable(why),
        }
    }
}

/// The words of etcd (`etcdserver/api/v3rpc/rpctypes`) for requests that it did not begin to execute.
const NOT_BEGUN: [&str; 5] = [
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "raft proposal dropped",
    "etcdserver: user name is empty",
    "etcdserver: revision of auth store is old",
];

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::GRpcStatus(status) => of_status(&status),
            // The client's word for a lease whose remaining time is 0.
            Error::LeaseKeepAliveError(why) if why == "lease not found" => Failure::NoLease,
            other => Failure::Lost(other.to_string()),
        }
    }
}

fn of_status(status: &Status) -> Failure {
    let message = status.message();
    if NOT_BEGUN.iter().any(|word| message.contains(word)) {
        return Failure::Refused(message.to_owned());
    }
    let by_etcd = message.starts_with("etcdserver: ");
    match status.code() {
        Code::NotFound if message.contains("lease not found") => Failure::NoLease,
        Code::ResourceExhausted if message.contains("database space exceeded") => Failure::Final(MetaError::NoSpace(
            "etcd's quota is used up: compact, defragment and disarm the alarm".into(),
        )),
        Code::OutOfRange if message.contains("required revision") => Failure::NoSuchRevision,
        Code::OutOfRange if message.contains("message length too large") => Failure::TooLarge,
        Code::InvalidArgument if message.contains("authentication failed") => Failure::Refused(message.to_owned()),
        Code::InvalidArgument if by_etcd => Failure::Final(invalid(message)),
        Code::PermissionDenied if by_etcd => Failure::Final(MetaError::Unavailable(message.to_owned())),
        Code::Unauthenticated if by_etcd => Failure::Refused(message.to_owned()),
        _ => Failure::Lost(described(status)),
    }
}

fn invalid(message: &str) -> MetaError {
    MetaError::Invalid(if message.contains("too many operations") {
        "more operations than etcd's --max-txn-ops allows (128 are needed)"
    } else if message.contains("request is too large") {
        "larger than etcd's --max-request-bytes (1.5 MiB are needed)"
    } else {
        "etcd refuses the request as malformed"
    })
}

/// The status with the cause at its root (`connection refused` rather than `transport error`).
fn described(status: &Status) -> String {
    match status.source() {
        Some(source) if status.message().is_empty() => root(source),
        Some(source) => format!("{}: {}", status.message(), root(source)),
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// The last in a chain of causes.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_an_error() {
        let table = [
            (Code::Unavailable, "etcdserver: no leader", "refused"),
            (Code::Unavailable, "etcdserver: request timed out", "lost"),
            (Code::Unavailable, "etcdserver: leader changed", "lost"),
            (Code::Unavailable, "etcdserver: server stopped", "lost"),
            (Code::Unavailable, "connection reset", "lost"),
            (Code::Cancelled, "operation was canceled", "lost"),
            (Code::DeadlineExceeded, "", "lost"),
            (Code::Internal, "h2 protocol error", "lost"),
            (Code::Unknown, "raft proposal dropped", "refused"),
            (Code::Unknown, "anything else", "lost"),
            (Code::ResourceExhausted, "etcdserver: too many requests", "refused"),
            (Code::ResourceExhausted, "enhance your calm", "lost"),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                "final",
            ),
            (Code::InvalidArgument, "etcdserver: request is too large", "final"),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                "refused",
            ),
            (Code::Unauthenticated, "etcdserver: invalid auth token", "refused"),
            (Code::PermissionDenied, "etcdserver: permission denied", "final"),
            (Code::NotFound, "etcdserver: requested lease not found", "lease"),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                "revision",
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9",
                "size",
            ),
        ];
        for (code, message, want) in table {
            let got = match Failure::from(Error::GRpcStatus(Status::new(code, message))) {
                Failure::Final(_) => "final",
                Failure::NoLease => "lease",
                Failure::NoSuchRevision => "revision",
                Failure::TooLarge => "size",
                Failure::Refused(_) => "refused",
                Failure::Lost(_) => "lost",
            };
            assert_eq!(got, want, "{code:?} {message}");
        }
    }
}
