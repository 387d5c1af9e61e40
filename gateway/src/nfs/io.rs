//! READ, WRITE and COMMIT (RFC 1813 sections 3.3.6, 7, 21).
//!
//! The cluster answers a write when it is durable on every acting member, so every WRITE is FILE_SYNC and
//! COMMIT has nothing left to do. The verifier changes with the gateway all the same.

use trivet_client::ImageOp;
use trivet_namespace::{Access, Inode, MAX_SIZE, Time};
use trivet_nfs::connection::MAX_TRANSFER;
use trivet_nfs::nfs3::{CommitArgs, CommitOk, ReadArgs, ReadOk, Reply, StableHow, Status, WccData, WriteArgs, WriteOk};

use super::call_context::{CallContext, Denied, Step, Then, Written};

pub(super) fn read(call_context: &CallContext<'_>, args: &ReadArgs) -> Result<Step, Denied> {
    let file = call_context.open(&args.file)?.file()?;
    // Whoever may execute a file must be able to read it (section 4.4).
    if !file.may_or_owns(Access::READ) && !file.may(Access::EXECUTE) {
        return Err(Status::Access.into());
    }
    let left = file.inode.size.saturating_sub(args.offset);
    let len = left.min(u64::from(args.count.min(MAX_TRANSFER)));
    let eof = len == left;
    if len == 0 {
        let attributes = call_context.attributes(file.id);
        return Ok(Step::Reply(Reply::Read(Ok(ReadOk {
            attributes,
            eof,
            data: Vec::new(),
        }))));
    }
    let op = ImageOp::Read {
        offset: args.offset,
        len,
    };
    Ok(Step::Io(file.id, op, Then::Read { file: file.id, eof }))
}

pub(super) fn write(call_context: &CallContext<'_>, args: &WriteArgs) -> Result<Step, Denied> {
    let file = call_context.open_to_change(&args.file)?.file()?;
    if !file.may_or_owns(Access::WRITE) {
        return Err(Status::Access.into());
    }
    let count = u32::try_from(args.data.len()).ok().filter(|count| *count == args.count);
    let count = count.ok_or(Status::Invalid)?;
    let end = args.offset.checked_add(u64::from(count)).filter(|end| *end <= MAX_SIZE);
    let end = end.ok_or(Status::FileTooBig)?;
    if count == 0 {
        return Ok(Step::Reply(written(call_context, call_context.wcc(file.id), 0)));
    }
    let op = ImageOp::Write {
        offset: args.offset,
        data: vec![args.data.clone()],
    };
    Ok(Step::Io(
        file.id,
        op,
        Then::Write(Written {
            file: file.id,
            count,
            end,
            cut: None,
        }),
    ))
}

/// How a WRITE goes on whose data is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The size has to follow, if there is no other truncation than this one.
    Grow(Option<Time>),
    /// It is done.
    Done,
    /// It came before a truncation that is not known yet to take all of it that lies beyond the end.
    Wait,
}

/// Where the size is by now.
pub(super) fn next(inode: &Inode, written: &Written) -> Next {
    // Until this gateway agrees to a truncation nothing is removed, and then also what it has written beyond the size: it
    // goes as if it had come first.
    // In a store that was put back the truncation may be an older one.
    let is_cut_off = inode.cut > written.cut || inode.cut != written.cut && inode.trimming.is_some();
    match inode.trimming {
        Some(trimming) if is_cut_off && written.end > trimming.to => Next::Wait,
        _ if is_cut_off || written.end <= inode.size => Next::Done,
        _ => Next::Grow(inode.cut),
    }
}

/// The reply to a WRITE of `count` bytes.
pub(super) fn written(call_context: &CallContext<'_>, wcc: WccData, count: u32) -> Reply {
    let verifier = call_context.server.verifier();
    Reply::Write(Ok(WriteOk {
        wcc,
        count,
        committed: StableHow::FileSync,
        verifier,
    }))
}

pub(super) fn commit(call_context: &CallContext<'_>, args: &CommitArgs) -> Result<Step, Denied> {
    let file = call_context.open_to_change(&args.file)?.file()?;
    let verifier = call_context.server.verifier();
    Ok(Step::Reply(Reply::Commit(Ok(CommitOk {
        wcc: call_context.wcc(file.id),
        verifier,
    }))))
}
