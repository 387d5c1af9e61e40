//! The reader's side of a watch: snapshots from the file, changes from the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use trivet_core::kv::{Event, Notice, Revision};

use super::file::{Shared, closed};
use super::hub::{self, Commit, Found, Queue};
use super::tables;
use crate::span::Span;
use crate::{MetaError, Pending, Range, Watch};

/// How long a watch waits after a snapshot failed.
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct EmbeddedWatch {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// Everything up to here was delivered.
    known: Revision,
}

/// Marks the queue stale again if the snapshot is given up half-way.
struct Attempt<'a>(Option<&'a Queue>);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.0 {
            queue.mark_stale();
        }
    }
}

impl EmbeddedWatch {
    pub(super) fn new(shared: Arc<Shared>, span: Span, from: Option<Revision>) -> EmbeddedWatch {
        let queue = shared.hub.register(span, from);
        EmbeddedWatch {
            shared,
            queue,
            known: from.unwrap_or(0),
        }
    }

    async fn advance(&mut self) -> Option<Notice> {
        loop {
            match self.queue.find() {
                Found::Closed => return None,
                Found::Nothing => self.queue.news.notified().await,
                Found::Commits(commits) => {
                    if let Some(notice) = self.changes(&commits) {
                        return Some(notice);
                    }
                }
                Found::Stale => match self.snapshot().await {
                    Ok(notice) => return Some(notice),
                    Err(error) => {
                        tracing::warn!(%error, prefix = self.queue.span().prefix, "no snapshot yet");
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
        }
    }

    async fn snapshot(&mut self) -> Result<Notice, MetaError> {
        self.queue.begin_snapshot();
        let mut attempt = Attempt(Some(&self.queue));
        let span = self.queue.span();
        let mut range = read_range(Arc::clone(&self.shared), span.prefix.clone()).await?;
        range.keys.retain(|row| span.has(&row.key));
        attempt.0 = None;
        drop(attempt);
        self.known = range.revision;
        Ok(Notice::Snapshot {
            revision: range.revision,
            keys: range.keys,
        })
    }

    /// What of these the snapshot did not have.
    fn changes(&mut self, commits: &[Arc<Commit>]) -> Option<Notice> {
        let fresh = commits.iter().filter(|commit| commit.revision > self.known);
        let span = self.queue.span();
        let events: Vec<Event> = fresh
            .flat_map(|commit| &commit.events)
            .filter(|event| span.has(hub::key(event)))
            .cloned()
            .collect();
        if events.is_empty() {
            return None;
        }
        self.known = commits.last()?.revision;
        Some(Notice::Changes {
            revision: self.known,
            events,
        })
    }
}

impl Watch for EmbeddedWatch {
    fn next(&mut self) -> Pending<'_, Option<Notice>> {
        Box::pin(self.advance())
    }
}

/// Reads a range on a thread that may block.
pub(super) async fn read_range(shared: Arc<Shared>, prefix: String) -> Result<Range, MetaError> {
    let read = spawn_blocking(move || shared.with(|db| tables::range(db, &prefix)));
    read.await.unwrap_or_else(|_| Err(closed()))
}
