//! The writer: the only thread that changes the file. Takes what has queued up, commits it as one
//! group, tells the watches, answers; then ends the leases whose time is over.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use trivet_core::kv::{LeaseId, Txn, TxnOutcome};

use super::QUEUE_LENGTH;
use super::file::Shared;
use super::leases::Leases;
use super::tables::{self, Group, Work};
use crate::MetaError;

/// The longest life of a lease.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

type Answer<T> = oneshot::Sender<Result<T, MetaError>>;

/// What the handle asks of the writer.
pub(super) enum Request {
    Txn { txn: Txn, answer: Answer<TxnOutcome> },
    Grant { ttl: Duration, answer: Answer<LeaseId> },
    KeepAlive { lease: LeaseId, answer: Answer<()> },
    Revoke { lease: LeaseId, answer: Answer<()> },
}

/// Who waits for a work.
enum Waiter {
    Txn(Answer<TxnOutcome>),
    Revoke(LeaseId, Answer<()>),
    Expiry(LeaseId),
}

struct Writer {
    shared: Arc<Shared>,
    leases: Leases,
    works: Vec<Work>,
    waiters: Vec<Waiter>,
}

/// Starts the writer; it ends when all senders are gone and the queue is empty.
pub(super) fn spawn(shared: Arc<Shared>, queue: mpsc::Receiver<Request>) -> Result<JoinHandle<()>, MetaError> {
    let unavailable = |error: std::io::Error| MetaError::Unavailable(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(unavailable)?;
    let leases = Leases::new(first_lease());
    let writer = Writer {
        shared,
        leases,
        works: Vec::new(),
        waiters: Vec::new(),
    };
    std::thread::Builder::new()
        .name("meta".into())
        .spawn(move || runtime.block_on(writer.run(queue)))
        .map_err(unavailable)
}

/// Microseconds since 1970: a lease of an earlier run is never mistaken for one of this run.
fn first_lease() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(1)
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(QUEUE_LENGTH);
        loop {
            let deadline = self.leases.next_deadline();
            tokio::select! {
                biased;
                received = queue.recv_many(&mut requests, QUEUE_LENGTH) => {
                    if received == 0 {
                        return;
                    }
                }
                () = until(deadline) => {}
            }
            // All that had queued up: a keep-alive that came in time is seen before its lease ends.
            requests.drain(..).for_each(|request| self.accept(request));
            self.expire();
            self.commit();
        }
    }

    fn accept(&mut self, request: Request) {
        match request {
            Request::Txn { txn, answer } => self.add(Work::Txn(txn), Waiter::Txn(answer)),
            Request::Grant { ttl, answer } => {
                let lease = self.leases.grant(ttl.min(MAX_TTL), Instant::now());
                let _ = answer.send(Ok(lease));
            }
            Request::KeepAlive { lease, answer } => {
                let alive = self.leases.keep_alive(lease, Instant::now());
                let _ = answer.send(alive.then_some(()).ok_or(MetaError::NoSuchLease(lease)));
            }
            Request::Revoke { lease, answer } => {
                // What came before it in the queue may still put keys on it.
                self.commit();
                if self.leases.end(lease) {
                    self.add(Work::DropLease(lease), Waiter::Revoke(lease, answer));
                } else {
                    let _ = answer.send(Err(MetaError::NoSuchLease(lease)));
                }
            }
        }
    }

    fn expire(&mut self) {
        for lease in self.leases.expire(Instant::now()) {
            self.add(Work::DropLease(lease), Waiter::Expiry(lease));
        }
    }

    fn add(&mut self, work: Work, waiter: Waiter) {
        self.works.push(work);
        self.waiters.push(waiter);
    }

    /// Commits what was collected and answers it.
    fn commit(&mut self) {
        if self.works.is_empty() {
            return;
        }
        let works = std::mem::take(&mut self.works);
        let outcomes = match self.execute(&works) {
            Ok(group) => {
                self.shared.hub.publish(group.commits);
                group.outcomes
            }
            Err(failed) => vec![failed; works.len()],
        };
        let waiters: Vec<Waiter> = self.waiters.drain(..).collect();
        for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
            self.answer(waiter, outcome);
        }
    }

    /// The error is for all works alike: none of them happened, or nobody can say.
    fn execute(&mut self, works: &[Work]) -> Result<Group, Result<TxnOutcome, MetaError>> {
        if self.shared.is_closed() {
            let revision = self.shared.reopen().map_err(Err)?;
            self.shared.hub.resync(revision);
        }
        let leases = &self.leases;
        self.shared
            .with(|db| tables::commit_group(db, works, |lease| leases.is_live(lease)))
            .map_err(|error| self.recover(error))
    }

    /// After an error, only the file itself knows whether the group is in it.
    fn recover(&self, error: MetaError) -> Result<TxnOutcome, MetaError> {
        tracing::error!(%error, "a commit of the metadata store failed");
        let before = self.shared.hub.revision();
        match self.shared.reopen() {
            Ok(after) => {
                self.shared.hub.resync(after);
                if after == before {
                    Err(error)
                } else {
                    Ok(TxnOutcome::Unknown)
                }
            }
            Err(again) => {
                tracing::error!(error = %again, "the metadata store cannot be opened again");
                Ok(TxnOutcome::Unknown)
            }
        }
    }

    fn answer(&mut self, waiter: Waiter, outcome: Result<TxnOutcome, MetaError>) {
        match waiter {
            Waiter::Txn(answer) => {
                let _ = answer.send(outcome);
            }
            Waiter::Revoke(lease, answer) => {
                let result = self.lease_ended(lease, outcome);
                let _ = answer.send(result);
            }
            Waiter::Expiry(lease) => {
                if let Err(error) = self.lease_ended(lease, outcome) {
                    tracing::warn!(%error, lease = lease.0, "an expired lease's keys are still there");
                }
            }
        }
    }

    fn lease_ended(&mut self, lease: LeaseId, outcome: Result<TxnOutcome, MetaError>) -> Result<(), MetaError> {
        match outcome {
            Ok(TxnOutcome::Committed(_)) => {
                self.leases.forget(lease);
                Ok(())
            }
            Ok(_) => {
                self.leases.retry_later(lease, Instant::now());
                Err(MetaError::Unavailable("its keys will be removed later".into()))
            }
            Err(error) => {
                self.leases.retry_later(lease, Instant::now());
                Err(error)
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
