//! The embedded backend: one redb file, one thread that writes it.
//!
//! Reads go straight to redb from the caller's thread. Transactions and leases go through a bounded
//! queue to the writer (`writer.rs`), which commits many in one redb transaction (`tables.rs`), each
//! with its own revision, then tells the watches (`hub.rs`, `watch.rs`), then answers.

mod file;
mod hub;
mod leases;
mod tables;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trivet_core::kv::{KeyValue, LeaseId, Revision, Txn, TxnOutcome};

use crate::span::Span;
use crate::{Meta, MetaError, Pending, Range, Watch};
use file::{Open, Shared};
use writer::Request;

/// Requests that wait for the writer; more make their callers wait.
const QUEUE_LENGTH: usize = 1024;

/// A metadata store in one file of this machine. Dropping it closes the file.
pub struct Embedded {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store in the file at `path`, which is made if it does not exist. Keys on leases of
    /// an earlier run are removed. Blocks while the file is checked (about a second per GiB).
    ///
    /// # Errors
    /// `InUse`, `Corrupt`, `NoSpace` or, for other errors of the file system, `Unavailable`.
    pub fn open(path: impl AsRef<Path>) -> Result<Embedded, MetaError> {
        Embedded::start(file::opener(path.as_ref()))
    }

    fn start(open: Open) -> Result<Embedded, MetaError> {
        let shared = Arc::new(Shared::open(open)?);
        let (requests, queue) = mpsc::channel(QUEUE_LENGTH);
        let writer = writer::spawn(Arc::clone(&shared), queue)?;
        Ok(Embedded {
            shared,
            requests: Some(requests),
            writer: Some(writer),
        })
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, MetaError>>) -> Request,
    ) -> Result<T, MetaError> {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().expect("open until dropped");
        requests.send(request(answer)).await.map_err(|_| file::closed())?;
        answered.await.map_err(|_| file::closed())?
    }
}

impl Meta for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<KeyValue>, MetaError>> {
        Box::pin(async move { self.shared.with(|db| tables::get(db, key)) })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Pending<'a, Result<Range, MetaError>> {
        Box::pin(watch::read_range(Arc::clone(&self.shared), prefix.to_owned()))
    }

    fn txn(&self, txn: Txn) -> Pending<'_, Result<TxnOutcome, MetaError>> {
        Box::pin(async move {
            txn.check().map_err(MetaError::Invalid)?;
            let (answer, answered) = oneshot::channel();
            let requests = self.requests.as_ref().expect("open until dropped");
            requests
                .send(Request::Txn { txn, answer })
                .await
                .map_err(|_| file::closed())?;
            // A writer that died half-way has told nobody whether it committed.
            answered.await.unwrap_or(Ok(TxnOutcome::Unknown))
        })
    }

    fn watch(&self, prefix: &str, from: Option<Revision>) -> Box<dyn Watch> {
        Box::new(watch::EmbeddedWatch::new(
            Arc::clone(&self.shared),
            Span::prefix(prefix),
            from,
        ))
    }

    fn watch_before(&self, end: &str, from: Option<Revision>) -> Box<dyn Watch> {
        Box::new(watch::EmbeddedWatch::new(
            Arc::clone(&self.shared),
            Span::before(end),
            from,
        ))
    }

    /// Its transactions say so themselves: the disk's room is not only its own.
    fn is_full(&self) -> Pending<'_, Result<bool, MetaError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, MetaError>> {
        Box::pin(self.ask(move |answer| Request::Grant { ttl, answer }))
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>> {
        Box::pin(self.ask(move |answer| Request::KeepAlive { lease, answer }))
    }

    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>> {
        Box::pin(self.ask(move |answer| Request::Revoke { lease, answer }))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the metadata writer panicked");
        }
        self.shared.close();
    }
}
