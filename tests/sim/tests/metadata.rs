//! The suite that says what every metadata store has to do, over the simulated one: machines must not meet anything in a
//! simulation that no real store does.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch::{self, Receiver, Sender};
use trivet_core::Now;
use trivet_core::kv::{Event, KeyValue, LeaseId, Notice, Revision, Txn, TxnOutcome};
use trivet_meta::{Meta, MetaError, Pending, Range, Watch, suite};
use trivet_sim::kv::Kv;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_store_does_what_every_store_does() {
    suite::run(|| Arc::new(Simulated::new()), 1..=1).await;
}

/// The simulated store, in real time and shared.
#[derive(Clone)]
struct Simulated(Arc<Shared>);

struct Shared {
    kv: Mutex<Kv>,
    began: Instant,
    /// The last commit: wakes those who watch.
    last: Sender<Revision>,
}

impl Simulated {
    fn new() -> Simulated {
        Simulated(Arc::new(Shared {
            kv: Mutex::new(Kv::new()),
            began: Instant::now(),
            last: watch::channel(0).0,
        }))
    }

    /// Does something now, when the leases that ran out have ended.
    fn with<R>(&self, act: impl FnOnce(&mut Kv, Now) -> R) -> R {
        let mut kv = self.0.kv.lock().unwrap();
        let now = Now(0) + self.0.began.elapsed();
        kv.expire(now);
        let result = act(&mut kv, now);
        let news = |last: &mut Revision| std::mem::replace(last, kv.revision()) != kv.revision();
        self.0.last.send_if_modified(news);
        result
    }

    fn reader(&self, span: Span, from: Option<Revision>) -> Box<dyn Watch> {
        Box::new(Reader {
            store: self.clone(),
            span,
            known: from,
            last: self.0.last.subscribe(),
        })
    }
}

fn ready<'a, T: Send + 'a>(result: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(result))
}

fn of_lease(lives: bool, lease: LeaseId) -> Result<(), MetaError> {
    lives.then_some(()).ok_or(MetaError::NoSuchLease(lease))
}

impl Meta for Simulated {
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<KeyValue>, MetaError>> {
        ready(Ok(self.with(|kv, _| kv.get(key))))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Pending<'a, Result<Range, MetaError>> {
        let span = Span::Prefix(prefix.to_owned());
        let range = match self.with(|kv, _| kv.snapshot()) {
            Notice::Snapshot { revision, keys } => Range {
                revision,
                keys: span.keys(keys),
            },
            other => panic!("{other:?}"),
        };
        ready(Ok(range))
    }

    fn txn(&self, txn: Txn) -> Pending<'_, Result<TxnOutcome, MetaError>> {
        let allowed = txn.check().map_err(MetaError::Invalid);
        ready(allowed.and_then(|()| {
            let outcome = self.with(|kv, now| kv.txn(now, &txn));
            outcome.map_err(|gone| MetaError::NoSuchLease(gone.0))
        }))
    }

    fn watch(&self, prefix: &str, from: Option<Revision>) -> Box<dyn Watch> {
        self.reader(Span::Prefix(prefix.to_owned()), from)
    }

    fn watch_before(&self, end: &str, from: Option<Revision>) -> Box<dyn Watch> {
        self.reader(Span::Before(end.to_owned()), from)
    }

    fn is_full(&self) -> Pending<'_, Result<bool, MetaError>> {
        ready(Ok(false))
    }

    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, MetaError>> {
        ready(Ok(self.with(|kv, now| kv.grant(now, ttl))))
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>> {
        ready(of_lease(self.with(|kv, now| kv.keep_alive(now, lease)), lease))
    }

    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), MetaError>> {
        ready(of_lease(self.with(|kv, _| kv.revoke(lease)), lease))
    }
}

/// A watch: all keys, then what changed, or all again if that is not remembered.
struct Reader {
    store: Simulated,
    span: Span,
    /// The last commit that it told of.
    known: Option<Revision>,
    last: Receiver<Revision>,
}

impl Reader {
    fn find(&mut self) -> Option<Notice> {
        let known = self.known;
        let notice = self.store.with(|kv, _| {
            let changes = known.and_then(|known| kv.changes_since(known));
            changes.unwrap_or_else(|| kv.snapshot())
        });
        self.known = Some(notice.revision());
        self.span.of(notice)
    }

    async fn advance(&mut self) -> Option<Notice> {
        loop {
            self.last.mark_unchanged();
            if let Some(notice) = self.find() {
                return Some(notice);
            }
            let expiry = self
                .store
                .with(|kv, now| kv.next_expiry().map(|expiry| expiry.since(now)));
            let commit = self.last.changed();
            match expiry {
                Some(wait) => drop(tokio::time::timeout(wait, commit).await),
                None => drop(commit.await),
            }
        }
    }
}

impl Watch for Reader {
    fn next(&mut self) -> Pending<'_, Option<Notice>> {
        Box::pin(self.advance())
    }
}

/// The keys that a watch is about.
enum Span {
    Prefix(String),
    Before(String),
}

impl Span {
    fn has(&self, key: &str) -> bool {
        match self {
            Span::Prefix(prefix) => key.starts_with(prefix),
            Span::Before(end) => key < end.as_str(),
        }
    }

    fn keys(&self, mut keys: Vec<KeyValue>) -> Vec<KeyValue> {
        keys.retain(|row| self.has(&row.key));
        keys
    }

    /// What a notice says of these keys, if anything.
    fn of(&self, notice: Notice) -> Option<Notice> {
        match notice {
            Notice::Snapshot { revision, keys } => Some(Notice::Snapshot {
                revision,
                keys: self.keys(keys),
            }),
            Notice::Changes { revision, mut events } => {
                events.retain(|event| match event {
                    Event::Put(row) => self.has(&row.key),
                    Event::Delete { key, .. } => self.has(key),
                });
                (!events.is_empty()).then_some(Notice::Changes { revision, events })
            }
            Notice::Replaced { .. } => panic!("nobody replaces it"),
        }
    }
}
