//! The replies of calls whose step has ended. Failures carry the attributes of what was to be changed.

use bytes::Bytes;
use trivet_client::IoError;
use trivet_core::ImageId;
use trivet_namespace::{NsError, Outcome};
use trivet_nfs::nfs3::{CreateOk, Failure, LinkWcc, ReadOk, RenameWcc, Reply, Status, WccData};

use super::call_context::{CallContext, Made, Then, Written, io_status, modify, ns_status};
use super::io::written;

/// After reading or writing data.
///
/// # Panics
/// If `then` does not go on from data.
pub(super) fn io(call_context: &CallContext<'_>, then: Then, result: Result<Vec<Bytes>, IoError>) -> Reply {
    match then {
        Then::Read { file, eof } => read(call_context, file, eof, result.map_err(io_status)),
        Then::Write(Written { file, count, .. }) => {
            let wcc = if result.is_ok() {
                written_now(call_context, file)
            } else {
                call_context.wcc(file)
            };
            write(call_context, wcc, count, result.map(|_| ()).map_err(io_status))
        }
        then => panic!("{then:?} does not go on from data"),
    }
}

fn read(call_context: &CallContext<'_>, file: ImageId, eof: bool, result: Result<Vec<Bytes>, Status>) -> Reply {
    let attributes = call_context.attributes(file);
    // The data of a file that is gone may have been gone too when it was read.
    let data = if attributes.is_some() {
        result
    } else {
        Err(Status::Stale)
    };
    Reply::Read(match data {
        Ok(data) => Ok(ReadOk { attributes, eof, data }),
        Err(status) => Err(Failure { status, attributes }),
    })
}

/// After writing data and, where necessary, moving the size.
fn write(call_context: &CallContext<'_>, wcc: WccData, count: u32, result: Result<(), Status>) -> Reply {
    let result = if wcc.after.is_some() {
        result
    } else {
        Err(Status::Stale)
    };
    match result {
        Ok(()) => written(call_context, wcc, count),
        Err(status) => Reply::Write(Err(Failure {
            status,
            attributes: wcc,
        })),
    }
}

/// A file that was written in place: the gateway moves its time to this instant after the call.
fn written_now(call_context: &CallContext<'_>, file: ImageId) -> WccData {
    let mut wcc = call_context.wcc(file);
    wcc.after
        .iter_mut()
        .for_each(|attributes| modify(attributes, call_context.wall));
    wcc
}

/// After a change of the tree of names.
///
/// # Panics
/// If `then` does not go on from a change.
pub(super) fn change(call_context: &CallContext<'_>, then: Then, result: Result<Outcome, NsError>) -> Reply {
    let status = result.as_ref().err().map(ns_status);
    match then {
        Then::Grow(Written { file, count, .. }) => {
            write(call_context, call_context.wcc(file), count, status.map_or(Ok(()), Err))
        }
        Then::SetAttr { object } => Reply::SetAttr(either(status, call_context.wcc(object))),
        Then::Removed { dir } => Reply::Remove(either(status, call_context.wcc(dir))),
        Then::DirRemoved { dir } => Reply::RemoveDir(either(status, call_context.wcc(dir))),
        Then::Renamed { from, to } => {
            let (from_dir, to_dir) = (call_context.wcc(from), call_context.wcc(to));
            Reply::Rename(either(status, RenameWcc { from_dir, to_dir }))
        }
        Then::Linked { object, dir } => {
            let (attributes, dir_wcc) = (call_context.attributes(object), call_context.wcc(dir));
            Reply::Link(either(status, LinkWcc { attributes, dir_wcc }))
        }
        Then::Made { made, export, dir } => new_object(call_context, made, (export, dir), result),
        then @ (Then::Read { .. } | Then::Write(_) | Then::Refused(_)) => {
            panic!("{then:?} does not go on from a change")
        }
    }
}

/// For procedures whose two arms carry the same.
fn either<T>(status: Option<Status>, attributes: T) -> Result<T, Failure<T>> {
    match status {
        None => Ok(attributes),
        Some(status) => Err(Failure { status, attributes }),
    }
}

fn new_object(
    call_context: &CallContext<'_>,
    made: Made,
    (export, dir): (u32, ImageId),
    result: Result<Outcome, NsError>,
) -> Reply {
    let dir_wcc = call_context.wcc(dir);
    let outcome = match result {
        Ok(outcome) => {
            let id = if let Outcome::Node(id) = outcome {
                Some(id)
            } else {
                None
            };
            // It may be gone again already.
            let found = id.and_then(|id| Some((id, call_context.namespace.inode(id)?)));
            let object = found.map(|(id, inode)| call_context.handle(export, id, inode));
            let attributes = found.map(|(id, inode)| call_context.fattr3(id, inode));
            Ok(CreateOk {
                object,
                attributes,
                dir_wcc,
            })
        }
        Err(error) => Err(Failure {
            status: ns_status(&error),
            attributes: dir_wcc,
        }),
    };
    match made {
        Made::File => Reply::Create(outcome),
        Made::Dir => Reply::MakeDir(outcome),
        Made::Symlink => Reply::Symlink(outcome),
        Made::Node => Reply::MakeNode(outcome),
    }
}
