//! Requests: what is tried again, for how long, and what an answer that did not come means.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::proto::PbKeyValue;
use etcd_client::{AlarmAction, AlarmType, Client, GetOptions};
use tokio::time::{Instant, sleep, timeout};
use trivet_core::kv::{KeyValue, LeaseId, Revision, Txn, TxnOutcome};

use super::connection::{Endpoints, Pool};
use super::failure::Failure;
use super::keyspace::{self, Keyspace};
use crate::span::Span;
use crate::{MetaError, Range};

/// How long a transaction may take once it was sent.
const TXN_WAIT: Duration = Duration::from_secs(3);
/// How long a request that may be tried again may take, each time.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long such a request is tried again, and how long any request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Keys read at once; fewer where values are large.
const PAGE_KEYS: i64 = 1000;
/// How much smaller the page is that follows one which was too large.
const PAGE_SHRINKS: i64 = 8;
/// How often a range is read from the start because its revision was compacted meanwhile.
const RANGE_TRIES: usize = 3;
/// What one answer may hold, bytes; a page of small values, or any single value, is less.
pub(super) const ANSWER_BYTES: usize = 16 << 20;

/// What requests and watches share.
pub(super) struct Shared {
    pub(super) keyspace: Keyspace,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) pool: Pool,
    /// Turns true when the store is closed.
    pub(super) closed: tokio::sync::watch::Sender<bool>,
}

impl Shared {
    pub(super) async fn txn(&self, txn: Txn) -> Result<TxnOutcome, MetaError> {
        let lease = txn.changes.iter().find_map(lease_of);
        let request = self.keyspace.txn(txn);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let connection = self.pool.get(left(give_up)).await?;
            let mut kv = connection.client.kv_client();
            let answer = timeout(TXN_WAIT, kv.txn(request.clone())).await;
            let failure = match answer {
                Ok(Ok(answer)) => return Ok(outcome(answer.0)),
                Ok(Err(error)) => Failure::from(error),
                Err(_) => Failure::Lost("a transaction was not answered in time".to_owned()),
            };
            match failure {
                Failure::NoLease => return Err(MetaError::NoSuchLease(lease.unwrap_or(LeaseId(0)))),
                Failure::Refused(why) if Instant::now() < give_up => self.pool.failed(&connection, &why),
                Failure::Final(_) | Failure::Refused(_) => return Err(failure.into_error()),
                Failure::Lost(_) | Failure::TooLarge | Failure::NoSuchRevision => {
                    self.pool.failed(&connection, &failure.into_error().to_string());
                    return Ok(TxnOutcome::Unknown);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks until there is an answer or an error that will not go away.
    async fn ask<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let connection = self.pool.get(left(give_up)).await.map_err(Failure::Final)?;
            let failure = match timeout(ATTEMPT, request(connection.client.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::from(error),
                Err(_) => Failure::Lost("etcd does not answer in time".to_owned()),
            };
            match &failure {
                Failure::Refused(why) | Failure::Lost(why) => self.pool.failed(&connection, why),
                _ => return Err(failure),
            }
            if Instant::now() >= give_up {
                return Err(failure);
            }
            sleep(PAUSE).await;
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<KeyValue>, MetaError> {
        let full = self.keyspace.full(key);
        let answer = self.ask(|client| get(client, full.clone(), GetOptions::new())).await;
        let rows = answer.map_err(Failure::into_error)?.kvs;
        Ok(rows.into_iter().find_map(|row| self.keyspace.row(row)))
    }

    pub(super) async fn range(&self, span: &Span) -> Result<Range, MetaError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.pages(span).await {
                Err(Failure::NoSuchRevision) if tries < RANGE_TRIES => {}
                read => return read.map_err(Failure::into_error),
            }
        }
    }

    /// The first page decides on the revision, the others are read as of it.
    async fn pages(&self, span: &Span) -> Result<Range, Failure> {
        let mut from = self.keyspace.full(&span.prefix).into_bytes();
        let end = self.keyspace.end(span);
        let (mut revision, mut limit, mut keys) = (0, PAGE_KEYS, Vec::new());
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(limit);
            let options = options.with_revision(revision);
            let page = self.ask(|client| get(client, from.clone(), options.clone())).await;
            let page = match page {
                Err(Failure::TooLarge) if limit > 1 => {
                    limit = (limit / PAGE_SHRINKS).max(1);
                    continue;
                }
                page => page?,
            };
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|row| row.key.clone());
            keys.extend(page.kvs.into_iter().filter_map(|row| self.keyspace.row(row)));
            match last {
                Some(last) if page.more => from = [&last[..], b"\0"].concat(),
                _ => break,
            }
        }
        let revision = keyspace::revision(revision);
        Ok(Range { revision, keys })
    }

    /// Whether a member has raised the alarm that its quota is used up: from then on none of them takes changes. Whoever may
    /// not ask hears *no*.
    pub(super) async fn is_full(&self) -> Result<bool, MetaError> {
        let asked = self.ask(|client| async move {
            let mut maintenance = client.maintenance_client();
            maintenance.alarm(AlarmAction::Get, AlarmType::Nospace, None).await
        });
        match asked.await {
            Ok(answer) => Ok(answer.alarms().iter().any(|alarm| alarm.alarm() == AlarmType::Nospace)),
            Err(Failure::Final(MetaError::Unavailable(_))) => Ok(false),
            Err(failure) => Err(failure.into_error()),
        }
    }

    pub(super) async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, MetaError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).map_err(|_| MetaError::Invalid("a lease of more than 2^63 s"))?;
        // One that was granted in an answer that was lost runs out unused.
        let granted = self.ask(|client| async move { client.lease_client().grant(seconds.max(1), None).await });
        Ok(LeaseId(granted.await.map_err(Failure::into_error)?.id()))
    }

    pub(super) async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), MetaError> {
        // The answer to the first keep-alive of a stream makes the stream, which is then dropped.
        let kept = self.ask(|client| async move { client.lease_client().keep_alive(lease.0).await.map(drop) });
        kept.await.map_err(|failure| of_lease(failure, lease))
    }

    pub(super) async fn lease_revoke(&self, lease: LeaseId) -> Result<(), MetaError> {
        let tries = AtomicUsize::new(0);
        let revoked = self.ask(|client| {
            tries.fetch_add(1, Ordering::Relaxed);
            async move { client.lease_client().revoke(lease.0).await }
        });
        match revoked.await {
            Ok(_) => Ok(()),
            // An attempt whose answer was lost has revoked it.
            Err(Failure::NoLease) if tries.load(Ordering::Relaxed) > 1 => Ok(()),
            Err(failure) => Err(of_lease(failure, lease)),
        }
    }
}

fn of_lease(failure: Failure, lease: LeaseId) -> MetaError {
    match failure {
        Failure::NoLease => MetaError::NoSuchLease(lease),
        other => other.into_error(),
    }
}

/// Reads keys, with a limit for the answer.
async fn get(
    client: Client,
    key: impl Into<Vec<u8>>,
    options: GetOptions,
) -> Result<etcd_client::proto::PbRangeResponse, etcd_client::Error> {
    let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
    Ok(kv.get(key, Some(options)).await?.0)
}

/// What etcd knows of an earlier time.
pub(super) enum Past {
    /// All changes after it, and a key as it was then.
    Known(Option<PbKeyValue>),
    /// It is compacted, or did not happen.
    Unknown,
}

/// A key as of `revision`. The answer is linearizable, so a member that lags behind does not deny a commit.
pub(super) async fn as_of(client: Client, key: String, revision: Revision) -> Result<Past, Failure> {
    let Ok(revision) = i64::try_from(revision) else {
        return Ok(Past::Unknown);
    };
    match once(client, key, GetOptions::new().with_revision(revision)).await {
        Ok(row) => Ok(Past::Known(row)),
        Err(Failure::NoSuchRevision) => Ok(Past::Unknown),
        Err(failure) => Err(failure),
    }
}

/// Whether the member answers a linearizable read, so lives and has a leader.
pub(super) async fn answers(client: Client, key: String) -> Result<(), Failure> {
    once(client, key, GetOptions::new().with_keys_only()).await.map(drop)
}

/// One attempt to read a key.
async fn once(client: Client, key: String, options: GetOptions) -> Result<Option<PbKeyValue>, Failure> {
    match timeout(ATTEMPT, get(client, key, options)).await {
        Ok(Ok(answer)) => Ok(answer.kvs.into_iter().next()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure::Lost("etcd does not answer in time".to_owned())),
    }
}

fn lease_of(change: &trivet_core::kv::Change) -> Option<LeaseId> {
    match change {
        trivet_core::kv::Change::Put { lease, .. } => *lease,
        trivet_core::kv::Change::Delete(_) => None,
    }
}

fn outcome(answer: etcd_client::proto::PbTxnResponse) -> TxnOutcome {
    let revision = keyspace::header(answer.header);
    if answer.succeeded {
        TxnOutcome::Committed(revision)
    } else {
        TxnOutcome::Refused(revision)
    }
}

/// The time until then.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
