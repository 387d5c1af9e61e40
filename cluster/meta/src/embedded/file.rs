//! The open file: who may use it, how it is opened again after an error, and what errors mean.
//!
//! redb refuses everything after an I/O error until the file is opened anew, so the database sits in
//! a slot: readers and the writer share the slot, only opening and closing own it.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use redb::{Builder, Database, DatabaseError};
use trivet_core::kv::Revision;

use super::hub::Hub;
use super::tables;
use crate::MetaError;

/// Opens the database, again and again if need be; also returns the last commit in it.
pub(super) type Open = Box<dyn Fn() -> Result<(Database, Revision), MetaError> + Send + Sync>;

/// What the handle, the writer and the watches share.
pub(super) struct Shared {
    open: Open,
    slot: RwLock<Option<Database>>,
    pub(super) hub: Hub,
}

impl Shared {
    /// Opens the file and removes what leases of an earlier run have left.
    pub(super) fn open(open: Open) -> Result<Shared, MetaError> {
        let (database, _) = open()?;
        let revision = guarded(|| tables::drop_leased(&database).map_err(|error| meaning(&error)))?;
        Ok(Shared {
            open,
            slot: RwLock::new(Some(database)),
            hub: Hub::new(revision),
        })
    }

    /// Uses the database if it is open. Where redb panics on a damaged page, that is an error.
    pub(super) fn with<T>(&self, use_it: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, MetaError> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(closed)?;
        guarded(|| use_it(database).map_err(|error| meaning(&error)))
    }

    /// Opens the file anew after an error; returns the last commit that is in it.
    pub(super) fn reopen(&self) -> Result<Revision, MetaError> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the lock on the file is ours.
        *slot = None;
        let (database, revision) = (self.open)()?;
        *slot = Some(database);
        Ok(revision)
    }

    /// Whether an error has closed the file.
    pub(super) fn is_closed(&self) -> bool {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Closes the file and ends all watches.
    pub(super) fn close(&self) {
        *self.slot.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.hub.close();
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, MetaError>) -> Result<T, MetaError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(MetaError::Unavailable(
            "the file is damaged (redb gave up on it)".into(),
        ))
    })
}

/// Opens the file at `path`.
pub(super) fn opener(path: &Path) -> Open {
    let path = path.to_owned();
    let name = path.display().to_string();
    opening(name, move || {
        let database = Builder::new().set_check_integrity_on_open(true).create(&path)?;
        sync_directory(&path)?;
        Ok(database)
    })
}

/// Opens what `make` makes and checks that it is a store of ours; errors call it `name`.
pub(super) fn opening(
    name: String,
    make: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
) -> Open {
    Box::new(move || {
        let attempt = || {
            let database = make().map_err(redb::Error::from)?;
            let revision = tables::prepare(&database)?;
            Ok((database, revision))
        };
        catch_unwind(AssertUnwindSafe(attempt))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("redb gave up on it".into())))
            .map_err(|error| open_meaning(&name, error))
    })
}

/// Makes the name of a new file durable.
fn sync_directory(path: &Path) -> Result<(), DatabaseError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn open_meaning(name: &str, error: redb::Error) -> MetaError {
    let path = name.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => MetaError::InUse(path),
        redb::Error::Corrupted(reason) => MetaError::Corrupt { path, reason },
        redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_) => MetaError::Corrupt {
            path,
            reason: error.to_string(),
        },
        redb::Error::Io(io) if not_a_database(io.kind()) => MetaError::Corrupt {
            path,
            reason: io.to_string(),
        },
        error => with_name(name, meaning(&error)),
    }
}

fn not_a_database(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

fn with_name(name: &str, error: MetaError) -> MetaError {
    match error {
        MetaError::Unavailable(reason) => MetaError::Unavailable(format!("{name}: {reason}")),
        MetaError::NoSpace(reason) => MetaError::NoSpace(format!("{name}: {reason}")),
        other => other,
    }
}

/// What an error of redb means for who asked.
pub(super) fn meaning(error: &redb::Error) -> MetaError {
    match error {
        redb::Error::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            MetaError::NoSpace(io.to_string())
        }
        other => MetaError::Unavailable(other.to_string()),
    }
}

/// The error of a store that is closed, for good or until the disk works again.
pub(super) fn closed() -> MetaError {
    MetaError::Unavailable("it is closed".into())
}
