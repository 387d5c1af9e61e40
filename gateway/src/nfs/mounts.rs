//! The MOUNT procedures (RFC 1813 appendix I). The list of mounts is for people: nothing depends on it.

use std::net::IpAddr;

use bytes::Bytes;
use trivet_namespace::NsError;
use trivet_nfs::mount::{ExportEntry, MountEntry, MountOk, MountStatus, Path, Reply, Request};
use trivet_nfs::rpc::flavor;
use trivet_nfs::xdr::{Array, List};

use super::call_context::CallContext;
use super::exports::Export;

/// Mounts remembered; further ones are served but not listed.
const MAX_MOUNTS: usize = 4096;

/// Answers a call; none has to wait for anything.
pub(super) fn answer(call_context: &CallContext<'_>, request: &Request) -> Reply {
    let client = call_context.peer.ip();
    let mut mounts = call_context.server.mounts.borrow_mut();
    match request {
        Request::Mount(path) => {
            let outcome = mount(call_context, &path.0);
            if outcome.is_ok() && mounts.len() < MAX_MOUNTS {
                mounts.insert((client, path.0.to_vec()));
            }
            Reply::Mount(outcome)
        }
        Request::Dump => {
            let may_know = call_context
                .server
                .exports()
                .iter()
                .any(|export| export_admits(call_context, export));
            Reply::Dump(List(mounts.iter().filter(|_| may_know).map(entry).collect()))
        }
        Request::Unmount(path) => {
            mounts.remove(&(client, path.0.to_vec()));
            Reply::Unmount
        }
        Request::UnmountAll => {
            mounts.retain(|(address, _)| *address != client);
            Reply::UnmountAll
        }
        Request::Export => Reply::Export(List(exports(call_context))),
    }
}

/// The handle of a directory that is an export or below one; of several, the nearest.
fn mount(call_context: &CallContext<'_>, path: &[u8]) -> Result<MountOk, MountStatus> {
    let admitted = call_context
        .server
        .exports()
        .iter()
        .filter(|export| export_admits(call_context, export));
    let below = admitted.filter_map(|export| Some((export, export.below(path)?)));
    // Whether an export exists is no business of those who may not use it.
    let (export, rest) = below.min_by_key(|(_, rest)| rest.len()).ok_or(MountStatus::Access)?;
    let within = [export.subtree.as_bytes(), rest].concat();
    if within.split(|&byte| byte == b'/').any(|part| part == b"..") {
        return Err(MountStatus::Invalid);
    }
    let id = call_context
        .namespace
        .resolve(&within)
        .map_err(|error| status(&error))?;
    let inode = call_context.namespace.inode(id).ok_or(MountStatus::NoEnt)?;
    if !inode.is_dir() {
        return Err(MountStatus::NotDir);
    }
    let mut flavors = vec![flavor::SYS];
    flavors.extend(export.auth_none.then_some(flavor::NONE));
    Ok(MountOk {
        handle: call_context.handle(export.id, id, inode),
        flavors: Array(flavors),
    })
}

fn export_admits(call_context: &CallContext<'_>, export: &Export) -> bool {
    export.admits(call_context.peer.ip(), call_context.peer.port())
}

fn status(error: &NsError) -> MountStatus {
    match error {
        NsError::NotFound | NsError::Stale => MountStatus::NoEnt,
        NsError::NotDir => MountStatus::NotDir,
        NsError::NameTooLong => MountStatus::NameTooLong,
        NsError::Damaged(_) => MountStatus::Io,
        _ => MountStatus::ServerFault,
    }
}

/// Only what the caller may mount.
fn exports(call_context: &CallContext<'_>) -> Vec<ExportEntry> {
    let admitted = call_context
        .server
        .exports()
        .iter()
        .filter(|export| export_admits(call_context, export));
    let group = |network: &super::exports::Network| Bytes::from(network.to_string());
    let entry = |export: &Export| ExportEntry {
        path: Path(Bytes::from(export.path.clone())),
        groups: List(export.clients.iter().map(group).collect()),
    };
    admitted.map(entry).collect()
}

fn entry((client, path): &(IpAddr, Vec<u8>)) -> MountEntry {
    MountEntry {
        host: Bytes::from(client.to_string()),
        path: Path(Bytes::from(path.clone())),
    }
}
