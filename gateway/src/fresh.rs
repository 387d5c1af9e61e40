//! How old the gateway's mirror of the metadata may be, and what stops when it is older.
//!
//! A mirror does not tell by itself that it has fallen behind. So the control plane asks the metadata store again and again
//! what its last commit is, with a linearizable read: once the mirror has that commit, it has everything that was committed
//! before the question was *sent*, and is as old as the question. Beyond [`FRESH`] a name may mean another image
//! by now, and the gateway opens none: connections that would wait for [`HOLD`] at most, NFS clients are told to come
//! later. Their calls that change names or sizes wait instead, for 30 s: who is told to come later comes with another
//! call, and does twice what another gateway has executed of the first. What is open goes on, for it rests on no name.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use trivet_core::kv::Revision;
use trivet_core::{ImageId, Now};

use crate::gateway::{ConnKey, Effect, Gateway};
use crate::options::{Options, mutant};
use crate::session::Ending;

/// A mirror that is older opens nothing. The store is asked twice a second; an etcd that elects another leader does not
/// answer for one to two seconds, and must not be noticed.
pub(crate) const FRESH: Duration = Duration::from_secs(3);
/// A connection that would open something waits so long for news; then it is closed, so that its client tries elsewhere.
pub(crate) const HOLD: Duration = Duration::from_secs(5);
/// NFS has no opens: a file that was read or written this lately counts as open.
const SERVED: Duration = Duration::from_secs(60);
/// Answers that wait for the mirror.
const AHEAD: usize = 16;
/// The weight of an answer's time in their mean is 1 / this.
const SMOOTH: u32 = 4;

/// What the control plane heard of the metadata store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it asked.
    pub asked: Now,
    /// How long the answer took, or how long there has been none.
    pub took: Duration,
    /// The store's state; or why there is none, for people.
    pub answer: Result<Answer, String>,
}

/// What the metadata store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its last commit.
    pub revision: Revision,
    /// It has no room, and takes no changes.
    pub full: bool,
}

/// What is known of the metadata store and of the mirror's age.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    pub(crate) options: Options,
    /// The mirror has everything that was committed by then.
    as_of: Option<Now>,
    /// The store's last commits as it said, and when it was asked, that the mirror does not have yet.
    ahead: VecDeque<(Revision, Now)>,
    /// The highest commit that the store ever said.
    highest: Revision,
    /// The store said a lower one afterwards: it is another store, or an older state of it. Until the mirror begins
    /// anew it mirrors what is not there any more.
    went_back: Option<(Revision, Revision)>,
    /// Since when there has been no answer, and why.
    failing: Option<(Now, String)>,
    /// How long answers take, the last ones weighing most.
    latency: Duration,
    full: bool,
    /// When files were read or written last, while the mirror was fresh.
    served: HashMap<ImageId, Now>,
}

impl Freshness {
    /// Of a mirror that is never too old.
    #[cfg(test)]
    pub(crate) fn always() -> Freshness {
        Freshness {
            as_of: Some(Now(u64::MAX)),
            ..Freshness::default()
        }
    }

    /// Takes what the control plane heard; the mirror has `mirrored`.
    pub(crate) fn heard(&mut self, heard: &Heard, mirrored: Revision) {
        let answer = match &heard.answer {
            Ok(answer) => answer,
            Err(why) => {
                let since = self.failing.take().map_or(heard.asked, |(since, _)| since);
                self.failing = Some((since, why.clone()));
                return;
            }
        };
        self.failing = None;
        self.full = answer.full;
        self.latency = (self.latency * (SMOOTH - 1) + heard.took) / SMOOTH;
        if answer.revision < self.highest && self.went_back.is_none() {
            self.went_back = Some((self.highest, answer.revision));
        }
        self.highest = self.highest.max(answer.revision);
        // While the mirror lags, the earliest of them is reached first.
        self.ahead.truncate(AHEAD - 1);
        self.ahead.push_back((answer.revision, heard.asked));
        self.mirror_moved(mirrored);
    }

    /// The mirror is of another store from now on: what the one before said of its commits means nothing any more.
    pub(crate) fn replaced(&mut self) {
        self.ahead.clear();
        (self.highest, self.went_back) = (0, None);
    }

    /// This gateway's clock stood still for so long, until just now: what it says is older is older by that.
    pub(crate) fn stood_still(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // What was before this clock began is not known at all.
        let earlier = |at: Now| at.0.checked_sub(time).map(Now);
        self.as_of = self.as_of.and_then(earlier);
        self.ahead = std::mem::take(&mut self.ahead)
            .into_iter()
            .filter_map(|(revision, asked)| Some((revision, earlier(asked)?)))
            .collect();
    }

    /// The mirror has this commit now.
    pub(crate) fn mirror_moved(&mut self, mirrored: Revision) {
        if let Some((from, to)) = self.went_back {
            if mirrored >= from {
                self.ahead.clear();
                return;
            }
            // The mirror was made anew, of what is there.
            self.went_back = None;
            self.highest = to.max(mirrored);
        }
        while let Some((revision, asked)) = self.ahead.front().copied()
            && revision <= mirrored
        {
            self.ahead.pop_front();
            self.as_of = self.as_of.max(Some(asked));
        }
    }

    /// How old the mirror is; none: nothing is known of it yet.
    pub(crate) fn age(&self, now: Now) -> Option<Duration> {
        self.as_of.map(|as_of| now.since(as_of))
    }

    /// Whether nothing may be opened by its name.
    pub(crate) fn is_stale(&self, now: Now) -> bool {
        let too_old = |age| age > FRESH && !mutant!(self.options, OpenStale);
        self.went_back.is_some() || self.age(now).is_none_or(too_old)
    }

    /// The commit that the store had, and the lower one that it has now.
    pub(crate) fn went_back(&self) -> Option<(Revision, Revision)> {
        self.went_back
    }

    /// Why the store does not answer, if it does not.
    pub(crate) fn failing(&self) -> Option<&str> {
        self.failing.as_ref().map(|(_, why)| why.as_str())
    }

    /// How long answers take.
    pub(crate) fn latency(&self) -> Duration {
        self.latency
    }

    /// Whether the store has no room.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// A client reads or writes an image.
    pub(crate) fn serve(&mut self, now: Now, image: ImageId) {
        if !self.is_stale(now) {
            self.served.insert(image, now);
        }
    }

    /// Whether clients read or wrote it lately: before the mirror became stale, if it is.
    pub(crate) fn was_served(&self, image: ImageId) -> bool {
        self.served.contains_key(&image)
    }

    /// Forgets what was served long ago; while nothing can be opened, what is open stays so.
    fn forget_served(&mut self, now: Now) {
        if !self.is_stale(now) {
            self.served.retain(|_, last| now.since(*last) < SERVED);
        }
    }
}

impl Gateway {
    /// The control plane has heard of the metadata store, or waits for an answer. Call it at least once a second.
    pub fn heard(&mut self, clock: crate::gateway::Clock, heard: &Heard, out: &mut Vec<Effect>) {
        self.at(clock);
        let mirrored = self.namespace.revision();
        self.freshness.heard(heard, mirrored);
        self.let_go(out);
    }

    /// Whether a connection has to wait because it would open something, and the mirror is too old for that.
    pub(crate) fn holds(&mut self, conn: ConnKey, out: &mut Vec<Effect>) -> bool {
        let now = self.clock.now;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return false;
        };
        if !connection.session.opens() || !self.freshness.is_stale(now) {
            return false;
        }
        connection.held.get_or_insert(now);
        out.extend(connection.pause_or_go_on(conn));
        true
    }

    /// Lets connections go on that waited, if the mirror is fresh.
    pub(crate) fn let_go(&mut self, out: &mut Vec<Effect>) {
        if self.freshness.is_stale(self.clock.now) {
            return;
        }
        for conn in self.held() {
            let Some(connection) = self.connections.get_mut(&conn) else {
                continue;
            };
            connection.held = None;
            out.extend(connection.pause_or_go_on(conn));
            out.push(Effect::Again(conn));
        }
    }

    /// Closes connections that have waited for too long.
    pub(crate) fn look_at_held(&mut self, out: &mut Vec<Effect>) {
        self.let_go(out);
        let now = self.clock.now;
        self.freshness.forget_served(now);
        for conn in self.held() {
            let since = self.connections.get(&conn).and_then(|connection| connection.held);
            if since.is_some_and(|since| now.since(since) >= HOLD) {
                let why = self.why_stale().unwrap_or_default();
                self.end(conn, Ending::Fault(format!("nothing can be opened: {why}")), out);
            }
        }
    }

    /// Connections that wait, in order.
    fn held(&self) -> Vec<ConnKey> {
        let waiting = self.connections.iter().filter(|(_, c)| c.held.is_some() && !c.gone);
        let mut held: Vec<ConnKey> = waiting.map(|(&conn, _)| conn).collect();
        held.sort_unstable();
        held
    }

    /// In words, why nothing is opened; none if it is.
    pub(crate) fn why_stale(&self) -> Option<String> {
        let fresh = &self.freshness;
        if let Some((from, to)) = fresh.went_back() {
            return Some(format!(
                "the metadata store went back from commit {from} to {to}: it was restored or is another one"
            ));
        }
        if !fresh.is_stale(self.clock.now) {
            return None;
        }
        let age = fresh.age(self.clock.now);
        let age = age.map_or("of unknown age".to_owned(), |age| format!("{} s old", age.as_secs()));
        Some(match fresh.failing() {
            Some(why) => format!("the metadata is {age}: {why}"),
            None => format!("the metadata is {age}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now(millis * 1_000_000)
    }

    fn said(asked: u64, revision: Revision) -> Heard {
        Heard {
            asked: at(asked),
            took: Duration::from_millis(4),
            answer: Ok(Answer { revision, full: false }),
        }
    }

    #[test]
    fn a_mirror_is_as_old_as_the_question_whose_answer_it_has() {
        let mut fresh = Freshness::default();
        assert!(fresh.is_stale(at(0)), "nothing is known");
        fresh.heard(&said(100, 7), 7);
        assert_eq!(fresh.age(at(1100)), Some(Duration::from_secs(1)));
        fresh.heard(&said(600, 9), 8);
        assert_eq!(fresh.age(at(1100)), Some(Duration::from_secs(1)), "commit 9 is missing");
        fresh.mirror_moved(9);
        assert_eq!(fresh.age(at(1100)), Some(Duration::from_millis(500)));
        assert!(!fresh.is_stale(at(3600)) && fresh.is_stale(at(3601)));
    }

    #[test]
    fn a_mirror_that_lags_is_as_old_as_what_it_has() {
        let mut fresh = Freshness::default();
        for n in 0..100 {
            fresh.heard(&said(n * 500, n + 10), 0);
        }
        assert_eq!(fresh.age(at(0)), None);
        fresh.mirror_moved(12);
        assert_eq!(fresh.age(at(1000)), Some(Duration::ZERO));
        fresh.mirror_moved(109);
        assert_eq!(fresh.age(at(49_500)), Some(Duration::ZERO), "the last answer counts");
    }

    #[test]
    fn silence_ages_and_keeps_its_reason() {
        let mut fresh = Freshness::default();
        fresh.heard(&said(0, 1), 1);
        let silent = Heard {
            asked: at(500),
            took: Duration::from_secs(1),
            answer: Err("it does not answer".into()),
        };
        fresh.heard(&silent, 1);
        assert!(!fresh.is_stale(at(3000)) && fresh.is_stale(at(3001)));
        assert_eq!(fresh.failing(), Some("it does not answer"));
        fresh.heard(&said(3500, 1), 1);
        assert!(!fresh.is_stale(at(3600)) && fresh.failing().is_none());
    }

    #[test]
    fn a_store_that_went_back_is_not_mirrored() {
        let mut fresh = Freshness::default();
        fresh.heard(&said(0, 20), 20);
        fresh.heard(&said(500, 12), 20);
        assert_eq!(fresh.went_back(), Some((20, 12)));
        assert!(fresh.is_stale(at(600)));
        fresh.heard(&said(1000, 25), 20);
        fresh.mirror_moved(25);
        assert!(fresh.is_stale(at(1100)), "its later commits follow on another past");
        // The mirror begins anew, with a snapshot of what is there.
        fresh.mirror_moved(13);
        fresh.heard(&said(1500, 13), 13);
        assert!(!fresh.is_stale(at(1600)) && fresh.went_back().is_none());
    }

    #[test]
    fn what_is_served_while_fresh_stays_open() {
        let (mut fresh, image, other) = (Freshness::default(), ImageId(1), ImageId(2));
        fresh.heard(&said(0, 1), 1);
        fresh.serve(at(100), image);
        fresh.serve(at(5000), other);
        fresh.forget_served(at(100_000));
        assert!(fresh.was_served(image) && !fresh.was_served(other));
        fresh.heard(&said(100_000, 1), 1);
        fresh.forget_served(at(100_001));
        assert!(!fresh.was_served(image), "it may be opened again by its name");
    }
}
