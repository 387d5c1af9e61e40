//! Watches: a task per watch that keeps a stream from some endpoint of etcd going, on a connection of its own.
//!
//! A reader that is slow makes the task wait, and the task etcd, which keeps the changes anyway. What etcd
//! has compacted meanwhile is replaced by a snapshot, and so is everything when the store turns out to be another one
//! (`delivered.rs`). When a stream is silent, a read over the same connection
//! shows whether the member is there. (etcd's progress reports would not do: some versions answer requests for them with
//! revisions whose changes are still to come, some not at all before the first change.)

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{WatchOptions, WatchStream, proto};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use trivet_core::kv::{Notice, Revision};

use super::commits::Commits;
use super::connection::Connection;
use super::delivered::Delivered;
use super::failure::Failure;
use super::requests::{ANSWER_BYTES, Past, Shared, answers, as_of};
use crate::span::Span;
use crate::{Pending, Watch};

/// Notices that wait for the reader; each is a snapshot or one message of etcd's (about 2 MiB).
const QUEUE_LENGTH: usize = 4;
/// How long a stream may be silent before its member is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(2);
/// How long etcd may take to begin a stream.
const OPENING: Duration = Duration::from_secs(3);
/// Between one stream and the next.
const RETRY: Duration = Duration::from_millis(100);

/// The reader's side.
pub(super) struct EtcdWatch {
    notices: mpsc::Receiver<Notice>,
    /// The task that is not yet started, since that takes a runtime.
    idle: Option<Feed>,
    /// Ends with the watch.
    tasks: JoinSet<()>,
}

impl EtcdWatch {
    pub(super) fn new(shared: Arc<Shared>, span: Span, from: Option<Revision>) -> EtcdWatch {
        let (out, notices) = mpsc::channel(QUEUE_LENGTH);
        let feed = Feed {
            shared,
            span,
            delivered: Delivered::nothing(from),
            first: usize::try_from(std::process::id()).unwrap_or(0),
            out,
        };
        EtcdWatch {
            notices,
            idle: Some(feed),
            tasks: JoinSet::new(),
        }
    }
}

impl Watch for EtcdWatch {
    fn next(&mut self) -> Pending<'_, Option<Notice>> {
        Box::pin(async move {
            if let Some(feed) = self.idle.take() {
                self.tasks.spawn(feed.run());
            }
            self.notices.recv().await
        })
    }
}

/// The task's side.
struct Feed {
    shared: Arc<Shared>,
    span: Span,
    delivered: Delivered,
    /// The endpoint to begin with.
    first: usize,
    out: mpsc::Sender<Notice>,
}

/// Why a stream was left.
enum End {
    /// Nobody reads.
    Unread,
    /// The changes after what is known are not there any more.
    Forgotten,
    /// The endpoint does not work.
    Lost(String),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        match failure {
            Failure::NoSuchRevision | Failure::TooLarge => End::Forgotten,
            other => End::Lost(other.into_error().to_string()),
        }
    }
}

impl Feed {
    async fn run(mut self) {
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => {}
            () = self.feed() => {}
        }
    }

    async fn feed(&mut self) {
        loop {
            match self.stream().await {
                End::Unread => return,
                End::Forgotten => self.delivered.lost_changes(),
                End::Lost(why) => {
                    tracing::debug!(prefix = self.span.prefix, why, "watching etcd anew");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// One stream, from what is known on until it ends.
    async fn stream(&mut self) -> End {
        match self.shared.endpoints.race(self.first).await {
            Err(why) => End::Lost(why),
            Ok(connection) => {
                self.first = connection.endpoint;
                let Err(end) = self.follow(connection).await;
                if matches!(end, End::Lost(_)) {
                    self.first += 1;
                }
                end
            }
        }
    }

    async fn follow(&mut self, connection: Connection) -> Result<std::convert::Infallible, End> {
        let known = self.begin(&connection).await?;
        let mut stream = self.open(&connection, known).await?;
        let mut commits = Commits::after(known);
        loop {
            let message = self.heard(&connection, &mut stream).await?;
            if message.canceled {
                return Err(cancelled(message));
            }
            let keyspace = &self.shared.keyspace;
            let events = message.events.into_iter().filter_map(|event| keyspace.event(event));
            if let Some(notice) = commits.take(events, message.fragment) {
                self.deliver(notice).await?;
            }
        }
    }

    /// The revision to go on from: what is known if etcd has what follows, else a snapshot's.
    async fn begin(&mut self, connection: &Connection) -> Result<Revision, End> {
        let mut is_other = false;
        if let Some(known) = self.delivered.resume_from() {
            let keyspace = &self.shared.keyspace;
            let key = keyspace.full(self.delivered.witness());
            if let Past::Known(row) = as_of(connection.client.clone(), key, known).await? {
                let row = row.and_then(|row| keyspace.row(row));
                if self.delivered.is_witnessed_by(row.as_ref()) {
                    return Ok(known);
                }
                is_other = true;
            }
        }
        let range = self.shared.range(&self.span).await;
        let range = range.map_err(|error| End::Lost(error.to_string()))?;
        is_other |= self.delivered.contradicts(&range);
        let (revision, keys) = (range.revision, range.keys);
        let notice = if is_other {
            tracing::warn!(
                revision,
                "etcd is not the store any more that was watched so far: it was restored, or wiped"
            );
            Notice::Replaced { revision, keys }
        } else {
            Notice::Snapshot { revision, keys }
        };
        self.deliver(notice).await?;
        Ok(revision)
    }

    async fn open(&self, connection: &Connection, known: Revision) -> Result<WatchStream, End> {
        let from = i64::try_from(known + 1).map_err(|_| End::Forgotten)?;
        let options = WatchOptions::new()
            .with_range(self.shared.keyspace.end(&self.span))
            .with_fragment()
            .with_start_revision(from);
        let client = connection.client.watch_client();
        let mut client = client.max_decoding_message_size(ANSWER_BYTES);
        let opened = timeout(
            OPENING,
            client.watch(self.shared.keyspace.full(&self.span.prefix), Some(options)),
        )
        .await;
        let opened = opened.map_err(|_| End::Lost("etcd does not begin the stream".to_owned()))?;
        opened.map_err(|error| Failure::from(error).into())
    }

    /// The next message, while the member lives.
    async fn heard(&self, connection: &Connection, stream: &mut WatchStream) -> Result<proto::PbWatchResponse, End> {
        loop {
            match timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(message))) => return Ok(message.0),
                Ok(Ok(None)) => return Err(End::Lost("the stream ended".to_owned())),
                Ok(Err(error)) => return Err(Failure::from(error).into()),
                Err(_) => answers(connection.client.clone(), self.shared.keyspace.full("")).await?,
            }
        }
    }

    async fn deliver(&mut self, notice: Notice) -> Result<(), End> {
        let room = self.out.reserve().await.map_err(|_| End::Unread)?;
        self.delivered.note(&notice);
        room.send(notice);
        Ok(())
    }
}

fn cancelled(message: proto::PbWatchResponse) -> End {
    if message.compact_revision > 0 {
        End::Forgotten
    } else {
        End::Lost(message.cancel_reason)
    }
}
