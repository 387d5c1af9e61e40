//! LOOKUP, READLINK, CREATE, SYMLINK, MKNOD, REMOVE, RENAME and LINK (RFC 1813 sections 3.3.3, 5, 8, 10-12, 14, 15).

use bytes::Bytes;
use trivet_core::ImageId;
use trivet_namespace::{Access, Attributes, CreateHow, Operation, Special};
use trivet_nfs::nfs3::{
    self, CreateArgs, DirOpArgs, Handle, LinkArgs, LookupOk, MakeNode, MakeNodeArgs, ReadLinkOk, RenameArgs, Reply,
    Sattr3, Status, SymlinkArgs,
};

use super::attributes::attributes;
use super::call_context::{CallContext, Denied, Made, Object, Step, Then};

pub(super) fn lookup(call_context: &CallContext<'_>, args: &DirOpArgs) -> Result<Step, Denied> {
    let dir = call_context.open(&args.dir)?.directory()?;
    if !dir.may(Access::EXECUTE) {
        return Err(Status::Access.into());
    }
    let id = find(call_context, &dir, &args.name)?;
    let inode = call_context.namespace.inode(id).ok_or(Status::Stale)?;
    Ok(Step::Reply(Reply::Lookup(Ok(LookupOk {
        object: call_context.handle(dir.export.id, id, inode),
        attributes: call_context.attributes(id),
        dir_attributes: call_context.attributes(dir.id),
    }))))
}

/// As the tree says, but nothing is above an export's root.
fn find(call_context: &CallContext<'_>, dir: &Object<'_>, name: &[u8]) -> Result<ImageId, Denied> {
    if name == b".." && call_context.namespace.resolve(dir.export.subtree.as_bytes()) == Ok(dir.id) {
        return Ok(dir.id);
    }
    Ok(call_context.namespace.lookup(dir.id, name)?)
}

pub(super) fn read_link(call_context: &CallContext<'_>, handle: &Handle) -> Result<Step, Denied> {
    let object = call_context.open(handle)?;
    let target = object.inode.target.as_deref().ok_or(Status::Invalid)?;
    let path = Bytes::copy_from_slice(target);
    Ok(Step::Reply(Reply::ReadLink(Ok(ReadLinkOk {
        attributes: call_context.attributes(object.id),
        path,
    }))))
}

/// The directory, to be changed, and the name.
pub(super) fn target<'a>(call_context: &CallContext<'a>, args: &DirOpArgs) -> Result<(Object<'a>, Vec<u8>), Denied> {
    let dir = call_context.open_to_change(&args.dir)?.directory()?;
    Ok((dir, args.name.to_vec()))
}

pub(super) fn made(made: Made, dir: Object<'_>, operation: Operation) -> Step {
    let then = Then::Made {
        made,
        export: dir.export.id,
        dir: dir.id,
    };
    Step::Change(operation, dir.caller, then)
}

pub(super) fn create(call_context: &CallContext<'_>, args: &CreateArgs) -> Result<Step, Denied> {
    let (dir, name) = target(call_context, &args.target)?;
    let (how, attributes) = match &args.how {
        nfs3::CreateHow::Unchecked(sattr) => (CreateHow::Unchecked, attributes(sattr)?),
        nfs3::CreateHow::Guarded(sattr) => (CreateHow::Guarded, attributes(sattr)?),
        nfs3::CreateHow::Exclusive(verifier) => (
            CreateHow::Exclusive(u64::from_be_bytes(*verifier)),
            Attributes::default(),
        ),
    };
    let operation = Operation::CreateFile {
        parent: dir.id,
        name,
        how,
        attributes,
    };
    Ok(made(Made::File, dir, operation))
}

pub(super) fn symlink(call_context: &CallContext<'_>, args: &SymlinkArgs) -> Result<Step, Denied> {
    let (dir, name) = target(call_context, &args.target)?;
    let attributes = attributes(&without_size(args.attributes))?;
    let operation = Operation::Symlink {
        parent: dir.id,
        name,
        target: args.path.to_vec(),
        attributes,
    };
    Ok(made(Made::Symlink, dir, operation))
}

pub(super) fn make_node(call_context: &CallContext<'_>, args: &MakeNodeArgs) -> Result<Step, Denied> {
    let (dir, name) = target(call_context, &args.target)?;
    let (special, sattr) = match args.what {
        MakeNode::Character(sattr, device) => (Special::Char(device.major, device.minor), sattr),
        MakeNode::Block(sattr, device) => (Special::Block(device.major, device.minor), sattr),
        MakeNode::Socket(sattr) => (Special::Socket, sattr),
        MakeNode::Fifo(sattr) => (Special::Fifo, sattr),
        MakeNode::Other(_) => return Err(Status::BadType.into()),
    };
    let attributes = attributes(&without_size(sattr))?;
    let operation = Operation::MakeNode {
        parent: dir.id,
        name,
        special,
        attributes,
    };
    Ok(made(Made::Node, dir, operation))
}

/// Only files have a size to set; some clients send one with everything.
pub(super) fn without_size(sattr: Sattr3) -> Sattr3 {
    Sattr3 { size: None, ..sattr }
}

pub(super) fn remove(call_context: &CallContext<'_>, args: &DirOpArgs) -> Result<Step, Denied> {
    let (dir, name) = target(call_context, args)?;
    let operation = Operation::Remove { parent: dir.id, name };
    Ok(Step::Change(operation, dir.caller, Then::Removed { dir: dir.id }))
}

pub(super) fn rename(call_context: &CallContext<'_>, args: &RenameArgs) -> Result<Step, Denied> {
    let (from, from_name) = target(call_context, &args.from)?;
    let (to, to_name) = target(call_context, &args.to)?;
    if from.export.id != to.export.id {
        return Err(Status::CrossDevice.into());
    }
    let operation = Operation::Rename {
        from: from.id,
        from_name,
        to: to.id,
        to_name,
    };
    Ok(Step::Change(
        operation,
        from.caller,
        Then::Renamed {
            from: from.id,
            to: to.id,
        },
    ))
}

pub(super) fn link(call_context: &CallContext<'_>, args: &LinkArgs) -> Result<Step, Denied> {
    let object = call_context.open_to_change(&args.file)?;
    let (dir, name) = target(call_context, &args.link)?;
    if object.export.id != dir.export.id {
        return Err(Status::CrossDevice.into());
    }
    let operation = Operation::Link {
        id: object.id,
        parent: dir.id,
        name,
    };
    Ok(Step::Change(
        operation,
        dir.caller,
        Then::Linked {
            object: object.id,
            dir: dir.id,
        },
    ))
}
