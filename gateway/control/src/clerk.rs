//! The clerk: a thread of its own that keeps an [`Overview`] and makes of it what administrators are shown, so that nobody's
//! data and no lease waits for a listing.
//!
//! It hears what the metadata store says before the data path does, in the same order. So whoever was told of a change by
//! the data path, and asks then, is shown the change.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;
use trivet_api::{AdminAnswer, AdminCall, AdminError, AdminResult, ClusterQuestion, ErrorKind};
use trivet_core::ClientId;
use trivet_core::kv::Notice;
use trivet_gateway::gateway::Clock;
use trivet_gateway::overview::{Inside, Overview};

use crate::calls::AdminReply;
use crate::counters::Counters;
use crate::exposition::Format;
use crate::scrape::{Shown, scrape};

/// The overview hears of the time at least this often.
const TICK: Duration = Duration::from_secs(1);

/// What the clerk is told and asked for. With each question goes what the data path says of itself, unless it says nothing.
#[derive(Debug)]
pub enum Errand {
    /// The metadata store changed.
    Notice(Arc<Notice>),
    /// Answer a question.
    Answer(AdminCall, Option<Inside>, AdminReply),
    /// Show what a change has led to.
    Show(AdminCall, Option<Inside>, AdminReply),
    /// Write down all that is counted.
    Scrape(Option<Inside>, Format, oneshot::Sender<String>),
}

/// Whoever has one can tell and ask the clerk, who is there until the last one is gone.
#[derive(Clone)]
pub struct Clerk {
    errands: Sender<Errand>,
}

impl Clerk {
    /// Starts the clerk of the gateway `id`. `counters` are what the data path counts, `clock` tells the time.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(id: ClientId, counters: Arc<Counters>, clock: fn() -> Clock) -> io::Result<Clerk> {
        let (clerk, errands) = Clerk::absent();
        let worker = Worker {
            overview: Overview::new(id),
            counters,
            clock,
        };
        thread::Builder::new()
            .name("clerk".into())
            .spawn(move || worker.work(&errands))?;
        Ok(clerk)
    }

    /// A clerk without a thread: whoever takes the errands is to run them.
    #[must_use]
    pub fn absent() -> (Clerk, Receiver<Errand>) {
        let (errands, taken) = channel();
        (Clerk { errands }, taken)
    }

    /// The metadata store changed. Say it here before the data path hears of it.
    pub fn notice(&self, notice: Arc<Notice>) {
        // A clerk that is gone shows nothing, and that is told to those who ask.
        let _ = self.errands.send(Errand::Notice(notice));
    }

    pub(crate) async fn answer(&self, call: AdminCall, inside: Option<Inside>) -> AdminResult {
        self.ask(|reply| Errand::Answer(call, inside, reply)).await?
    }

    pub(crate) async fn show(&self, call: AdminCall, inside: Option<Inside>) -> AdminResult {
        self.ask(|reply| Errand::Show(call, inside, reply)).await?
    }

    pub(crate) async fn scrape(&self, inside: Option<Inside>, format: Format) -> Result<String, AdminError> {
        self.ask(|reply| Errand::Scrape(inside, format, reply)).await
    }

    async fn ask<T>(&self, errand: impl FnOnce(oneshot::Sender<T>) -> Errand) -> Result<T, AdminError> {
        let gone = || AdminError::new(ErrorKind::Internal, "nobody is left to answer; see the gateway's log");
        let (reply, answer) = oneshot::channel();
        self.errands.send(errand(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// What the clerk works with.
struct Worker {
    overview: Overview,
    counters: Arc<Counters>,
    clock: fn() -> Clock,
}

impl Worker {
    fn work(mut self, errands: &Receiver<Errand>) {
        loop {
            match errands.recv_timeout(TICK) {
                Ok(errand) => self.run(errand),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.overview.tick((self.clock)().now);
        }
    }

    /// Who asked and has given up is no concern of ours.
    fn run(&mut self, errand: Errand) {
        let clock = (self.clock)();
        match errand {
            Errand::Notice(notice) => self.overview.notice(&notice),
            Errand::Answer(call, inside, reply) => {
                let _ = reply.send(self.overview.answer(clock, &call, inside.as_ref()));
            }
            Errand::Show(call, inside, reply) => {
                let _ = reply.send(self.overview.changed(clock, &call, inside.as_ref()));
            }
            Errand::Scrape(inside, format, reply) => {
                let _ = reply.send(format.write(self.scrape(clock, inside.as_ref())));
            }
        }
    }

    fn scrape(&mut self, clock: Clock, inside: Option<&Inside>) -> String {
        let mut ask = |call: &AdminCall| self.overview.answer(clock, call, inside);
        let mut shown = Shown::default();
        if let Ok(AdminAnswer::Status(status)) = ask(&AdminCall::Status) {
            shown.status = Some(*status);
        }
        if let Ok(AdminAnswer::Osds(list)) = ask(&AdminCall::OsdList) {
            shown.osds = list.osds;
        }
        if let Ok(AdminAnswer::Pools(list)) = ask(&AdminCall::Ask(ClusterQuestion::Pools)) {
            shown.pools = list.pools;
        }
        if let Ok(AdminAnswer::Images(list)) = ask(&AdminCall::ImageList) {
            shown.images = list.images;
        }
        let counted = self.counters.read(|image| self.overview.path_of(image));
        scrape(counted, shown)
    }
}
