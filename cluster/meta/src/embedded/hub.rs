//! Where commits become known: the last revision, a short history, and the queues of the watches.
//!
//! Everything is bounded. A queue that would overflow is emptied and marked; its reader then takes a
//! snapshot from the file by itself, so that the writer never waits for a reader nor works for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use trivet_core::kv::{Event, Revision};

use crate::span::Span;

/// What the history and each queue may hold, bytes of keys and values (each event counts 100 more).
const BACKLOG_BYTES: usize = 8 << 20;
const EVENT_OVERHEAD: usize = 100;

/// The events of one revision.
pub(super) struct Commit {
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
    bytes: usize,
}

impl Commit {
    pub(super) fn new(revision: Revision, events: Vec<Event>) -> Commit {
        let bytes = events.iter().map(size).sum();
        Commit {
            revision,
            events,
            bytes,
        }
    }
}

fn size(event: &Event) -> usize {
    EVENT_OVERHEAD
        + match event {
            Event::Put(row) => row.key.len() + row.value.len(),
            Event::Delete { key, .. } => key.len(),
        }
}

/// The key that an event is about.
pub(super) fn key(event: &Event) -> &str {
    match event {
        Event::Put(row) => &row.key,
        Event::Delete { key, .. } => key,
    }
}

/// Commits in order, up to a size.
#[derive(Default)]
struct Backlog {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
}

impl Backlog {
    fn push(&mut self, commit: &Arc<Commit>) {
        self.bytes += commit.bytes;
        self.commits.push_back(Arc::clone(commit));
    }

    fn is_over(&self) -> bool {
        self.bytes > BACKLOG_BYTES
    }

    fn pop(&mut self) -> Option<Arc<Commit>> {
        let commit = self.commits.pop_front()?;
        self.bytes -= commit.bytes;
        Some(commit)
    }

    fn clear(&mut self) {
        *self = Backlog::default();
    }
}

#[derive(Default)]
struct QueueState {
    backlog: Backlog,
    /// The reader needs a snapshot; until it begins to take one, nothing is queued.
    stale: bool,
    closed: bool,
}

/// The commits that one watch has still to read.
pub(super) struct Queue {
    span: Span,
    state: Mutex<QueueState>,
    pub(super) news: Notify,
}

/// What a watch finds in its queue.
pub(super) enum Found {
    /// Take a snapshot, after `Queue::begin_snapshot`.
    Stale,
    /// These, in order.
    Commits(Vec<Arc<Commit>>),
    /// Wait for `news`.
    Nothing,
    /// The store is closed and everything was read.
    Closed,
}

impl Queue {
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self) -> Found {
        let mut state = self.lock();
        if state.closed && (state.stale || state.backlog.commits.is_empty()) {
            return Found::Closed;
        }
        if state.stale {
            return Found::Stale;
        }
        let found: Vec<_> = std::iter::from_fn(|| state.backlog.pop()).collect();
        if found.is_empty() {
            Found::Nothing
        } else {
            Found::Commits(found)
        }
    }

    /// From here on commits are queued again; what is read from the file after this call has
    /// everything that was dropped before.
    pub(super) fn begin_snapshot(&self) {
        let mut state = self.lock();
        state.backlog.clear();
        state.stale = false;
    }

    /// The snapshot was not taken after all.
    pub(super) fn mark_stale(&self) {
        let mut state = self.lock();
        state.backlog.clear();
        state.stale = true;
        drop(state);
        self.news.notify_one();
    }

    fn push(&self, commit: &Arc<Commit>) {
        let mut state = self.lock();
        if state.stale || !commit.events.iter().any(|event| self.span.has(key(event))) {
            return;
        }
        state.backlog.push(commit);
        if state.backlog.is_over() {
            state.backlog.clear();
            state.stale = true;
        }
        drop(state);
        self.news.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }
}

struct HubState {
    revision: Revision,
    history: Backlog,
    queues: Vec<Weak<Queue>>,
    closed: bool,
}

/// The last revision, a short history, and the queues of all watches, behind one lock.
pub(super) struct Hub {
    state: Mutex<HubState>,
}

impl Hub {
    pub(super) fn new(revision: Revision) -> Hub {
        let history = Backlog::default();
        Hub {
            state: Mutex::new(HubState {
                revision,
                history,
                queues: Vec::new(),
                closed: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last commit in the file.
    pub(super) fn revision(&self) -> Revision {
        self.lock().revision
    }

    /// Tells all watches.
    pub(super) fn publish(&self, commits: Vec<Commit>) {
        let mut state = self.lock();
        state.queues.retain(|queue| queue.strong_count() > 0);
        for commit in commits.into_iter().map(Arc::new) {
            state.revision = commit.revision;
            state
                .queues
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|queue| queue.push(&commit));
            state.history.push(&commit);
            while state.history.is_over() {
                state.history.pop();
            }
        }
    }

    /// The file may have commits that nobody was told of: everybody reads anew.
    pub(super) fn resync(&self, revision: Revision) {
        let mut state = self.lock();
        state.revision = revision;
        state.history.clear();
        state
            .queues
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|queue| queue.mark_stale());
    }

    /// A queue for a span that holds what came after `from`, or is marked for a snapshot.
    pub(super) fn register(&self, span: Span, from: Option<Revision>) -> Arc<Queue> {
        let mut state = self.lock();
        let covered = from.is_some_and(|from| state.covers(from));
        let queue = Arc::new(Queue {
            span,
            state: Mutex::new(QueueState {
                stale: !covered,
                closed: state.closed,
                ..QueueState::default()
            }),
            news: Notify::new(),
        });
        let missed = state
            .history
            .commits
            .iter()
            .filter(|commit| Some(commit.revision) > from);
        missed.for_each(|commit| queue.push(commit));
        state.queues.push(Arc::downgrade(&queue));
        queue
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state
            .queues
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|queue| queue.close());
    }
}

impl HubState {
    /// Whether every commit after `from` is in the history.
    fn covers(&self, from: Revision) -> bool {
        let oldest = self
            .history
            .commits
            .front()
            .map_or(self.revision + 1, |first| first.revision);
        from <= self.revision && from + 1 >= oldest
    }
}
