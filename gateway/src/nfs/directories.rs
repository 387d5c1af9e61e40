//! MKDIR, RMDIR, READDIR and READDIRPLUS (RFC 1813 sections 3.3.9, 13, 16, 17).
//!
//! A cookie stays valid for the life of its name and beyond, on every gateway: a listing goes on behind it
//! whether the name is still there or not. So the cookie verifier is always zero and never checked.

use trivet_core::ImageId;
use trivet_namespace::{Access, Operation, ROOT};
use trivet_nfs::nfs3::{
    DirOpArgs, Failure, MakeDirArgs, ReadDirArgs, ReadDirBuilder, ReadDirPlusArgs, ReadDirPlusBuilder, Reply, Status,
    Verifier,
};

use super::attributes::attributes;
use super::call_context::{CallContext, Denied, Made, Object, Step, Then};
use super::files::{made, target, without_size};

/// A cookie stays valid as long as anybody may use it, so the verifier never changes.
const COOKIE_VERIFIER: Verifier = [0; 8];
/// Cookies of the two names that every directory has; those of others are larger.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// Bytes of a listing, whatever the client asks for.
const MAX_LISTING: u32 = 128 * 1024;

pub(super) fn make(call_context: &CallContext<'_>, args: &MakeDirArgs) -> Result<Step, Denied> {
    let (dir, name) = target(call_context, &args.target)?;
    let attributes = attributes(&without_size(args.attributes))?;
    let operation = Operation::MakeDir {
        parent: dir.id,
        name,
        attributes,
    };
    Ok(made(Made::Dir, dir, operation))
}

pub(super) fn remove(call_context: &CallContext<'_>, args: &DirOpArgs) -> Result<Step, Denied> {
    let (dir, name) = target(call_context, args)?;
    let operation = Operation::RemoveDir { parent: dir.id, name };
    Ok(Step::Change(operation, dir.caller, Then::DirRemoved { dir: dir.id }))
}

pub(super) fn read(call_context: &CallContext<'_>, args: &ReadDirArgs) -> Result<Step, Denied> {
    let dir = call_context.open(&args.dir)?.directory()?;
    if !dir.may_or_owns(Access::READ) {
        return Err(Status::Access.into());
    }
    let count = args.count.min(MAX_LISTING);
    let mut listing = ReadDirBuilder::new(count, call_context.attributes(dir.id), COOKIE_VERIFIER);
    let eof = walk(call_context, &dir, args.cookie, |id, name, cookie| {
        listing.push(id.0, name, cookie)
    });
    Ok(Step::Reply(Reply::ReadDir(listing.finish(eof).map_err(Failure::from))))
}

pub(super) fn read_plus(call_context: &CallContext<'_>, args: &ReadDirPlusArgs) -> Result<Step, Denied> {
    let dir = call_context.open(&args.dir)?.directory()?;
    if !dir.may_or_owns(Access::READ) {
        return Err(Status::Access.into());
    }
    let (dir_count, max_count) = (args.dir_count, args.max_count.min(MAX_LISTING));
    let attributes = call_context.attributes(dir.id);
    let mut listing = ReadDirPlusBuilder::new(dir_count, max_count, attributes, COOKIE_VERIFIER);
    // Without the right to look names up there are no handles to be had.
    let reachable = dir.may(Access::EXECUTE);
    let eof = walk(call_context, &dir, args.cookie, |id, name, cookie| {
        let inode = call_context.namespace.inode(id).filter(|_| reachable);
        let attributes = inode.map(|inode| call_context.fattr3(id, inode));
        let handle = inode.map(|inode| call_context.handle(dir.export.id, id, inode));
        listing.push(id.0, name, cookie, &attributes, handle.as_ref())
    });
    Ok(Step::Reply(Reply::ReadDirPlus(
        listing.finish(eof).map_err(Failure::from),
    )))
}

/// Gives the entries behind `cookie` until one is refused; whether all were taken.
fn walk(
    call_context: &CallContext<'_>,
    dir: &Object<'_>,
    cookie: u64,
    mut push: impl FnMut(ImageId, &[u8], u64) -> bool,
) -> bool {
    (cookie >= DOT || push(dir.id, b".", DOT))
        && (cookie >= DOT_DOT || push(parent(call_context, dir), b"..", DOT_DOT))
        && call_context
            .namespace
            .entries(dir.id, cookie.max(DOT_DOT))
            .all(|entry| push(entry.id, entry.name, entry.cookie))
}

/// The directory above; an export's root is its own.
fn parent(call_context: &CallContext<'_>, dir: &Object<'_>) -> ImageId {
    let is_root = call_context.namespace.resolve(dir.export.subtree.as_bytes()) == Ok(dir.id);
    if is_root {
        dir.id
    } else {
        dir.inode.parent.unwrap_or(ROOT)
    }
}
