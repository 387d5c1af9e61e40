//! What all NFS connections of a gateway thread share: the settings, the replies and the list of mounts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use trivet_nfs::nfs3::Verifier;

use super::exports::Export;
use super::handles::Sealer;
use super::replies::ReplyCache;

/// How NFS is served. All but the verifier are the same on every gateway of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// What is exported; their ids differ.
    pub exports: Vec<Export>,
    /// The secret that file handles are made with.
    pub key: [u8; 16],
    /// The number of the file system, from the cluster's id.
    pub fsid: u64,
    /// Drawn at random when the gateway starts.
    pub verifier: Verifier,
}

impl std::fmt::Debug for Settings {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("exports", &self.exports)
            .field("fsid", &self.fsid)
            .finish()
    }
}

/// The NFS server of one gateway thread.
#[derive(Debug)]
pub struct NfsServer {
    settings: Settings,
    sealer: Sealer,
    pub(super) replies: RefCell<ReplyCache>,
    /// Client and path; for people only (DUMP).
    pub(super) mounts: RefCell<BTreeSet<(IpAddr, Vec<u8>)>>,
}

impl NfsServer {
    /// A server without connections.
    #[must_use]
    pub fn new(settings: Settings) -> NfsServer {
        let sealer = Sealer::new(settings.key);
        NfsServer {
            settings,
            sealer,
            replies: RefCell::default(),
            mounts: RefCell::default(),
        }
    }

    pub(super) fn exports(&self) -> &[Export] {
        &self.settings.exports
    }

    pub(super) fn export(&self, id: u32) -> Option<&Export> {
        self.settings.exports.iter().find(|export| export.id == id)
    }

    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    pub(super) fn verifier(&self) -> Verifier {
        self.settings.verifier
    }

    pub(super) fn fsid(&self) -> u64 {
        self.settings.fsid
    }
}
