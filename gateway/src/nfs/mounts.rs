//! The MOUNT procedures (RFC 1813 appendix I). The list of mounts is for people: nothing depends on it.

use std::net::IpAddr;

use bytes::Bytes;
use trivet_namespace::NsError;
use trivet_nfs::mount::{ExportEntry, MountEntry, MountOk, MountStatus, Path, Reply, Request};
use trivet_nfs::rpc::flavor;
use trivet_nfs::xdr::{Array, List};

use super::exports::Export;
use super::scene::Scene;

/// Mounts remembered; further ones are served but not listed.
const MAX_MOUNTS: usize = 4096;

/// Answers a call; none has to wait for anything.
pub(super) fn answer(scene: &Scene<'_>, request: &Request) -> Reply {
    let client = scene.peer.ip();
    let mut mounts = scene.server.mounts.borrow_mut();
    match request {
        Request::Mount(path) => {
            let outcome = mount(scene, &path.0);
            if outcome.is_ok() && mounts.len() < MAX_MOUNTS {
                mounts.insert((client, path.0.to_vec()));
            }
            Reply::Mount(outcome)
        }
        Request::Dump => {
            let may_know = scene.server.exports().iter().any(|export| export_admits(scene, export));
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
        Request::Export => Reply::Export(List(exports(scene))),
    }
}

/// The handle of a directory that is an export or below one; of several, the nearest.
fn mount(scene: &Scene<'_>, path: &[u8]) -> Result<MountOk, MountStatus> {
    let admitted = scene
        .server
        .exports()
        .iter()
        .filter(|export| export_admits(scene, export));
    let below = admitted.filter_map(|export| Some((export, export.below(path)?)));
    // Whether an export exists is no business of those who may not use it.
    let (export, rest) = below.min_by_key(|(_, rest)| rest.len()).ok_or(MountStatus::Access)?;
    let within = [export.subtree.as_bytes(), rest].concat();
    if within.split(|&byte| byte == b'/').any(|part| part == b"..") {
        return Err(MountStatus::Invalid);
    }
    let id = scene.namespace.resolve(&within).map_err(|error| status(&error))?;
    let inode = scene.namespace.inode(id).ok_or(MountStatus::NoEnt)?;
    if !inode.is_dir() {
        return Err(MountStatus::NotDir);
    }
    let mut flavors = vec![flavor::SYS];
    flavors.extend(export.auth_none.then_some(flavor::NONE));
    Ok(MountOk {
        handle: scene.handle(export.id, id, inode),
        flavors: Array(flavors),
    })
}

fn export_admits(scene: &Scene<'_>, export: &Export) -> bool {
    export.admits(scene.peer.ip(), scene.peer.port())
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
fn exports(scene: &Scene<'_>) -> Vec<ExportEntry> {
    let admitted = scene
        .server
        .exports()
        .iter()
        .filter(|export| export_admits(scene, export));
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
