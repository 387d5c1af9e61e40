//! The backend on etcd, for clusters of several processes and machines.
//!
//! Keys are `/PREFIX/<key>` (`keyspace.rs`), so that several clusters share one etcd. Requests go over one
//! connection (`connection.rs`, `requests.rs`), each watch has its own (`watch.rs`, `commits.rs`); what
//! does not answer is left for another endpoint. An error says that nothing happened; whatever may have happened
//! is `Unknown` (`failure.rs`). Reads are linearizable.
//!
//! Does not: compact etcd's history (its `--auto-compaction-*` options do), or keep leases alive by itself.

mod commits;
mod connection;
mod delivered;
mod failure;
mod keyspace;
mod requests;
#[cfg(test)]
mod tests;
mod url;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use trivet_core::kv::{KeyValue, LeaseId, Revision, Txn, TxnOutcome};

pub use url::{MetaUrl, MetaUrlError};

use crate::span::Span;
use crate::{Meta, MetaError, Pending, Range, Watch};
use connection::{Endpoints, Pool};
use keyspace::Keyspace;
use requests::Shared;

/// How long `open` waits for an endpoint.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// A wait that took so much longer was one in which this process did not run.
const STOPPED: Duration = Duration::from_millis(500);

/// A metadata store in etcd. Dropping it ends its watches.
pub struct Etcd {
    shared: Arc<Shared>,
}

impl Etcd {
    /// Connects to any of the endpoints. Needs a tokio runtime, and may be used in that one only.
    ///
    /// # Errors
    /// `Unavailable`, with what each endpoint said, if none answers within 5 s in which this process runs; with the file's name
    /// if a TLS file cannot be read.
    pub async fn open(url: &MetaUrl) -> Result<Arc<Etcd>, MetaError> {
        let keyspace = Keyspace::new(url.prefix());
        let endpoints = Arc::new(Endpoints::new(url, &keyspace)?);
        let etcd = Etcd {
            shared: Arc::new(Shared {
                keyspace,
                pool: Pool::new(Arc::clone(&endpoints)),
                endpoints,
                closed: tokio::sync::watch::Sender::new(false),
            }),
        };
        loop {
            let began = Instant::now();
            match etcd.shared.pool.get(OPEN_WAIT).await {
                Ok(_) => return Ok(Arc::new(etcd)),
                // This process was stopped meanwhile: nobody had the time to answer.
                Err(_) if began.elapsed() > OPEN_WAIT + STOPPED => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Meta for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<KeyValue>, MetaError>> {
        Box::pin(self.shared.get(key))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Pending<'a, Result<Range, MetaError>> {
        Box::pin(async move { self.shared.range(&Span::prefix(prefix)).await })
    }

    fn txn(&self, txn: Txn) -> Pending<'_, Result<TxnOutcome, MetaError>> {
        Box::pin(async move {
            txn.check().map_err(MetaError::Invalid)?;
            self.shared.txn(txn).await
        })
    }

    fn watch(&self, prefix: &str, from: Option<Revision>) -> Box<dyn Watch> {
        let span = Span::prefix(prefix);
        Box::new(watch::EtcdWatch::new(Arc::clone(&self.shared), span, from))
    }

    fn watch_before(&self, end: &str, from: Option<Revision>) -> Box<dyn Watch> {
        let span = Span::before(end);
        Box::new(watch::EtcdWatch::new(Arc::clone(&self.shared), span, from))
    }

    fn is_full(&self) -> Pending<'_, Result<bool, MetaError>> {
        Box::pin(self.shared.is_full())
    }

    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, MetaError>> {
        Box::pin(self.shared.lease_grant(ttl))
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>> {
        Box::pin(self.shared.lease_keep_alive(lease))
    }

    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>> {
        Box::pin(self.shared.lease_revoke(lease))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.closed.send_replace(true);
    }
}
