//! Asking the metadata store, again and again, what its last commit is, so that the gateway knows how old its mirror is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};
use trivet_core::Now;
use trivet_core::keys;
use trivet_core::kv::{LeaseId, Revision};
use trivet_gateway::fresh::{Answer, Heard};
use trivet_meta::Meta;
use trivet_reactor::Reactor;

use super::channel::{DataSender, ToData};
use super::presence;

/// Between an answer and the next question.
const PERIOD: Duration = Duration::from_millis(500);
/// A store that has not answered for this long is said to be silent, every time.
const SILENCE: Duration = Duration::from_secs(1);
/// Whether the store has room is asked with every so many questions.
const ROOM_EVERY: u64 = 10;
/// How long changes may be on their way to the mirror before a beat is sent after them.
const ON_THE_WAY: Duration = Duration::from_millis(400);

/// What asking takes.
pub struct Asking {
    /// Whom.
    pub store: Arc<dyn Meta>,
    /// Who is told.
    pub data: DataSender,
    /// How far the mirror was fed.
    pub mirrored: Receiver<Revision>,
    /// The gateway's key for beats.
    pub beat: String,
    /// What the key hangs on.
    pub lease: Receiver<Option<LeaseId>>,
}

impl Asking {
    /// Asks, for ever.
    pub async fn go_on(mut self) {
        let mut full = false;
        for question in 0_u64.. {
            let asked = Now(Reactor::now());
            let revision = self.ask(asked).await;
            if question.is_multiple_of(ROOM_EVERY) {
                // Who does not answer this will not answer the next question either.
                full = self.store.is_full().await.unwrap_or(full);
            }
            if let Some((revision, took)) = revision {
                let answer = Ok(Answer { revision, full });
                self.data.tell(ToData::Heard(Heard { asked, took, answer }));
                self.follow(revision).await;
            }
            sleep(PERIOD).await;
        }
    }

    /// The store's last commit, and how long it took to say so. Tells why when there is no answer, or none yet.
    async fn ask(&self, asked: Now) -> Option<(Revision, Duration)> {
        // Any key will do: a read is answered with the store's last commit.
        let mut reading = self.store.range(keys::CLUSTER);
        loop {
            let answer = timeout(SILENCE, &mut reading).await;
            let took = Now(Reactor::now()).since(asked);
            let (why, over) = match answer {
                Ok(Ok(range)) => return Some((range.revision, took)),
                Ok(Err(error)) => (error.to_string(), true),
                Err(_) => ("the metadata store does not answer".to_owned(), false),
            };
            let answer = Err(why);
            self.data.tell(ToData::Heard(Heard { asked, took, answer }));
            if over {
                return None;
            }
        }
    }

    /// Sees that the mirror gets there. In a store that others use too, the last commit may be theirs, of which a watch says
    /// nothing: then a key of one's own is written, and what comes back with it is all that there was before.
    async fn follow(&mut self, revision: Revision) {
        let there = self.mirrored.wait_for(|mirrored| *mirrored >= revision);
        if timeout(ON_THE_WAY, there).await.is_ok() {
            return;
        }
        let lease = *self.lease.borrow();
        if let Some(lease) = lease {
            presence::write(&self.store, &self.beat, &Bytes::new(), lease).await;
        }
    }
}
