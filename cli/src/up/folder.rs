//! The data folder: one process at a time, the metadata store's file, one file per OSD.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use trivet_core::OsdId;
use trivet_meta::{Embedded, Meta};
use trivet_node::osds::Disk;

use super::startup::Plan;

/// Held by the process that runs on the folder.
const LOCK: &str = "lock";
/// The metadata store.
const META: &str = "meta.redb";

/// Makes a folder, and those that it is in, so that a power cut does not take them away again.
fn make_durably(path: &Path) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let made = path.ancestors().take_while(|folder| !folder.exists()).count();
    std::fs::create_dir_all(&path)?;
    // The last one's name at least: an earlier start may have been cut short.
    for folder in path.ancestors().skip(1).take(made.max(1)) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// An open data folder; the lock goes with the process.
pub struct Folder {
    path: PathBuf,
    made: bool,
    _lock: File,
}

impl Folder {
    /// Whether there is a metadata store in a folder, and so a cluster, as far as can be seen from outside.
    pub fn has_store(path: &Path) -> bool {
        path.join(META).exists()
    }

    /// Makes the folder if it is not there, and locks it.
    pub fn open(path: &Path) -> anyhow::Result<Folder> {
        let made = !path.exists();
        make_durably(path).with_context(|| format!("--data {}: cannot make the folder", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
            .with_context(|| format!("--data {}: cannot write there", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder {
                path: path.to_path_buf(),
                made,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "--data {}: another trivet is running on this folder; stop it or choose another folder",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("--data {}: cannot lock the folder", path.display()))
            }
        }
    }

    /// Opens the metadata store.
    pub fn open_store(&self) -> anyhow::Result<Arc<dyn Meta>> {
        Ok(Arc::new(Embedded::open(self.path.join(META))?))
    }

    /// Where an OSD's file is, or would be.
    pub fn disk(&self, osd: OsdId) -> PathBuf {
        self.path.join(format!("osd.{osd}"))
    }

    /// The OSDs' files; with `listen`, OSDs can be reached from other processes.
    pub fn disks(&self, plan: &Plan, listen: Option<SocketAddr>) -> Vec<Disk> {
        let disk = |&(osd, size): &(OsdId, u64)| Disk {
            osd,
            path: self.disk(osd),
            size,
            fresh: plan.new,
            listen,
            advertise: None,
        };
        plan.osds.iter().map(disk).collect()
    }

    /// A cluster that could not be made leaves nothing behind.
    pub fn undo_if_new(&self, plan: &Plan) {
        if !plan.new {
            return;
        }
        for disk in self.disks(plan, None) {
            // What is not there needs no removing.
            let _ = std::fs::remove_file(disk.path);
        }
        if self.made {
            let _ = std::fs::remove_file(self.path.join(META));
            let _ = std::fs::remove_file(self.path.join(LOCK));
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
