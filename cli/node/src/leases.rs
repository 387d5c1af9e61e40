//! Leases that are kept: granted, kept alive, and replaced by new ones when they are lost.
//!
//! A lease is lost when the process did not run for a while (it was stopped, or the machine slept), or when the metadata
//! store lost it. What hung on it is gone then, and has to be written again on the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use trivet_core::kv::LeaseId;
use trivet_meta::{Meta, MetaError};

/// A lease runs out if nobody keeps it alive for this long.
const LEASE: Duration = Duration::from_secs(5);
/// Leases are kept alive this often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A lease under care; dropped, it runs out.
pub struct Held {
    lease: watch::Receiver<Option<LeaseId>>,
    keeper: JoinHandle<()>,
}

impl Held {
    /// Takes care that there is a lease from soon on.
    pub fn new(store: Arc<dyn Meta>) -> Held {
        let (tell, lease) = watch::channel(None);
        let keeper = tokio::spawn(keep(store, tell));
        Held { lease, keeper }
    }

    /// The lease as it comes and goes; every change since the beginning counts as not seen.
    pub fn lease(&self) -> watch::Receiver<Option<LeaseId>> {
        self.lease.clone()
    }

    /// Ends the lease now.
    pub async fn give_back(self, store: &Arc<dyn Meta>) {
        self.keeper.abort();
        let lease = *self.lease.borrow();
        let Some(lease) = lease else { return };
        match store.lease_revoke(lease).await {
            Ok(()) | Err(MetaError::NoSuchLease(_)) => {}
            // It runs out.
            Err(error) => tracing::warn!("a lease was not given back: {error}"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(store: Arc<dyn Meta>, tell: watch::Sender<Option<LeaseId>>) {
    loop {
        match store.lease_grant(LEASE).await {
            Ok(lease) => {
                tell.send_replace(Some(lease));
                until_lost(&store, lease).await;
                tell.send_replace(None);
            }
            Err(error) => {
                tracing::warn!("no lease to be had, trying again: {error}");
                tokio::time::sleep(KEEP_ALIVE).await;
            }
        }
    }
}

/// Keeps a lease alive. A store that does not answer may have it still: only its word that it is gone counts.
async fn until_lost(store: &Arc<dyn Meta>, lease: LeaseId) {
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        match store.lease_keep_alive(lease).await {
            Ok(()) => {}
            Err(MetaError::NoSuchLease(_)) => {
                tracing::warn!("lease {} was lost, taking a new one", lease.0);
                return;
            }
            Err(error) => tracing::warn!("lease {} was not kept alive, trying again: {error}", lease.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_meta::Embedded;

    /// The next lease that is told.
    async fn next(lease: &mut watch::Receiver<Option<LeaseId>>) -> LeaseId {
        let there = tokio::time::timeout(LEASE, lease.wait_for(Option::is_some));
        there.await.unwrap().unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_lost_lease_is_replaced_and_a_returned_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Meta> = Arc::new(Embedded::open(folder.path().join("meta")).unwrap());
        let held = Held::new(Arc::clone(&store));
        let mut lease = held.lease();
        let first = next(&mut lease).await;
        store.lease_revoke(first).await.unwrap();
        lease.wait_for(|lease| *lease != Some(first)).await.unwrap();
        let second = next(&mut lease).await;
        assert_ne!(first, second);
        store.lease_keep_alive(second).await.unwrap();
        held.give_back(&store).await;
        let gone = store.lease_keep_alive(second).await;
        assert_eq!(gone, Err(MetaError::NoSuchLease(second)));
        while lease.changed().await.is_ok() {}
        assert_eq!(*lease.borrow(), Some(second), "no third one");
    }
}
