//! GETATTR, SETATTR, ACCESS, FSSTAT, FSINFO and PATHCONF (RFC 1813 sections 3.3.1, 2, 4, 18-20).

use trivet_namespace::{Access, Attributes, MAX_LINKS, MAX_NAME, MAX_SIZE, Operation, SetTime, Time};
use trivet_nfs::connection::MAX_TRANSFER;
use trivet_nfs::nfs3::{
    self, AccessArgs, AccessOk, FsInfoOk, FsStatOk, Handle, PathConfOk, Reply, Sattr3, SetAttrArgs, Status, access,
    properties,
};

use super::call_context::{CallContext, Denied, Object, Step, Then};

/// Bytes: transfers of whole units need no read before the write.
const TRANSFER_MULTIPLE: u32 = 4096;
/// Bytes of a directory listing that clients should ask for.
const PREFERRED_LISTING: u32 = 64 * 1024;
/// Files that there could be; the real limit is the space.
const MAX_FILES: u64 = 1 << 48;
/// Nanoseconds in a second.
const SECOND: u32 = 1_000_000_000;

pub(super) fn get(call_context: &CallContext<'_>, handle: &Handle) -> Result<Step, Denied> {
    let object = call_context.open(handle)?;
    Ok(Step::Reply(Reply::GetAttr(Ok(
        call_context.fattr3(object.id, object.inode)
    ))))
}

pub(super) fn set(call_context: &CallContext<'_>, args: &SetAttrArgs) -> Result<Step, Denied> {
    let object = call_context.open_to_change(&args.object)?;
    let changes = attributes(&args.attributes)?;
    // The client's guard is the ctime that it was shown.
    if args
        .guard
        .is_some_and(|guard| guard != call_context.fattr3(object.id, object.inode).ctime)
        && !call_context.is_repeat
    {
        return Err(Status::NotSync.into());
    }
    let guard_ctime = args.guard.map(|_| object.inode.ctime);
    let operation = Operation::SetAttr {
        id: object.id,
        changes,
        guard_ctime,
    };
    Ok(Step::Change(
        operation,
        object.caller,
        Then::SetAttr { object: object.id },
    ))
}

/// The attributes to set; `size` and times must be such that exist.
pub(super) fn attributes(sattr: &Sattr3) -> Result<Attributes, Denied> {
    if sattr.size.is_some_and(|size| size > MAX_SIZE) {
        return Err(Status::FileTooBig.into());
    }
    let Sattr3 {
        mode,
        uid,
        gid,
        size,
        atime,
        mtime,
    } = *sattr;
    Ok(Attributes {
        mode,
        uid,
        gid,
        size,
        atime: set_time(atime)?,
        mtime: set_time(mtime)?,
    })
}

fn set_time(set: nfs3::SetTime) -> Result<SetTime, Denied> {
    match set {
        nfs3::SetTime::Keep => Ok(SetTime::Keep),
        nfs3::SetTime::Server => Ok(SetTime::Now),
        nfs3::SetTime::Client(time) if time.nanoseconds >= SECOND => Err(Status::Invalid.into()),
        nfs3::SetTime::Client(time) => Ok(SetTime::To(Time {
            sec: i64::from(time.seconds),
            nsec: time.nanoseconds,
        })),
    }
}

pub(super) fn access(call_context: &CallContext<'_>, args: &AccessArgs) -> Result<Step, Denied> {
    let object = call_context.open(&args.object)?;
    let allowed = if object.inode.is_dir() {
        of_directory(&object)
    } else {
        of_file(&object)
    };
    let changes = access::MODIFY | access::EXTEND | access::DELETE;
    let possible = if object.export.read_only { !changes } else { u32::MAX };
    let attributes = Some(call_context.fattr3(object.id, object.inode));
    let access = allowed & possible & args.access;
    Ok(Step::Reply(Reply::Access(Ok(AccessOk { attributes, access }))))
}

fn of_directory(object: &Object<'_>) -> u32 {
    bits(object, Access::READ, access::READ)
        | bits(object, Access::EXECUTE, access::LOOKUP)
        | bits(
            object,
            Access::CHANGE_ENTRIES,
            access::MODIFY | access::EXTEND | access::DELETE,
        )
}

fn of_file(object: &Object<'_>) -> u32 {
    bits(object, Access::READ, access::READ)
        | bits(object, Access::WRITE, access::MODIFY | access::EXTEND)
        | bits(object, Access::EXECUTE, access::EXECUTE)
}

fn bits(object: &Object<'_>, wanted: Access, bits: u32) -> u32 {
    if object.may(wanted) { bits } else { 0 }
}

pub(super) fn fs_stat(call_context: &CallContext<'_>, handle: &Handle) -> Result<Step, Denied> {
    let object = call_context.open(handle)?;
    let (total, free) = (call_context.space.total, call_context.space.free);
    Ok(Step::Reply(Reply::FsStat(Ok(FsStatOk {
        attributes: Some(call_context.fattr3(object.id, object.inode)),
        total_bytes: total,
        free_bytes: free,
        available_bytes: free,
        total_files: MAX_FILES,
        free_files: MAX_FILES,
        available_files: MAX_FILES,
        invariant_seconds: 0,
    }))))
}

pub(super) fn fs_info(call_context: &CallContext<'_>, handle: &Handle) -> Result<Step, Denied> {
    let object = call_context.open(handle)?;
    Ok(Step::Reply(Reply::FsInfo(Ok(FsInfoOk {
        attributes: Some(call_context.fattr3(object.id, object.inode)),
        read_max: MAX_TRANSFER,
        read_preferred: MAX_TRANSFER,
        read_multiple: TRANSFER_MULTIPLE,
        write_max: MAX_TRANSFER,
        write_preferred: MAX_TRANSFER,
        write_multiple: TRANSFER_MULTIPLE,
        dir_preferred: PREFERRED_LISTING,
        max_file_size: MAX_SIZE,
        time_delta: nfs3::Time {
            seconds: 0,
            nanoseconds: 1,
        },
        properties: properties::LINK | properties::SYMLINK | properties::HOMOGENEOUS | properties::CAN_SET_TIME,
    }))))
}

pub(super) fn path_conf(call_context: &CallContext<'_>, handle: &Handle) -> Result<Step, Denied> {
    let object = call_context.open(handle)?;
    Ok(Step::Reply(Reply::PathConf(Ok(PathConfOk {
        attributes: Some(call_context.fattr3(object.id, object.inode)),
        link_max: MAX_LINKS,
        name_max: u32::try_from(MAX_NAME).expect("255"),
        no_trunc: true,
        chown_restricted: true,
        case_insensitive: false,
        case_preserving: true,
    }))))
}
