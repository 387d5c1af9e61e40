//! Whose turn it is: operations that make much empty take turns, part by part, and all of them together have few parts
//! under way; fewer when that makes others wait. So they cost others what a few requests cost, however many there are and
//! however much they find.
//!
//! A part that is not answered for a while counts no more, for others need not wait for the PG that it waits for. Its
//! operation goes on having no more than [`MOST`] of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_core::pace::{Bounds, Pace};
use trivet_core::{Now, PgId};

use crate::job::Job;
use crate::{Client, Effect, Ticket};

/// Parts of one operation that are under way at once.
pub(crate) const MOST: usize = 64;
/// Parts of all operations that are under way at once.
pub(crate) const PACE: Bounds = Bounds {
    least: 2,
    busy: 16,
    idle: MOST,
};
/// A part counts for this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The operations that take turns, and how many of their parts are under way.
#[derive(Debug)]
pub(crate) struct Turns {
    pace: Pace,
    /// The parts under way that count, by sequence, and when they were issued.
    under_way: BTreeMap<u64, Now>,
    /// The jobs that may have something to issue.
    waiting: BTreeSet<u64>,
    /// Whose turn it was last.
    last: u64,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            pace: Pace::new(PACE),
            under_way: BTreeMap::new(),
            waiting: BTreeSet::new(),
            last: 0,
        }
    }
}

impl Turns {
    /// A job may have something to issue.
    pub(crate) fn enter(&mut self, job: u64) {
        self.waiting.insert(job);
    }

    /// The job whose turn it is, if there is room; it has to enter again.
    fn next(&mut self) -> Option<u64> {
        if self.under_way.len() >= self.pace.limit() {
            return None;
        }
        let next = self.waiting.range(self.last + 1..).next();
        self.last = next.or_else(|| self.waiting.first()).copied()?;
        self.waiting.remove(&self.last);
        Some(self.last)
    }

    /// A part was answered, or given up. Parts of other operations are none of its concern.
    pub(crate) fn ended(&mut self, sequence: u64) {
        self.under_way.remove(&sequence);
    }

    /// A part of another operation was answered, after so long.
    pub(crate) fn other_ended(&mut self, took: Duration) {
        self.pace.ended(took);
    }

    /// Time passes: parts are late, and others have waited or not.
    pub(crate) fn tick(&mut self, now: Now) {
        let working = !self.under_way.is_empty();
        self.forget_late(now);
        self.pace.tick(now, working);
    }

    fn forget_late(&mut self, now: Now) {
        self.under_way.retain(|_, at| now.since(*at) < PATIENCE);
    }
}

impl Client {
    /// Issues parts of jobs that go by turns, as many as there is room for.
    pub(crate) fn take_turns(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(job) = self.turns.next() {
            if self.issue(now, job, out) {
                self.turns.under_way.insert(self.sequence, now);
                self.turns.enter(job);
            }
        }
    }

    /// Ends a [`ImageOp::Zero`](crate::ImageOp::Zero) before it is through: nothing more of it is issued, and it is done
    /// as soon as what is under way is answered.
    pub fn stop(&mut self, ticket: Ticket, out: &mut Vec<Effect>) {
        let Some(&id) = self.tickets.get(&ticket) else { return };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.stop();
        }
        self.conclude(id, out);
    }

    /// Whether a [`ImageOp::Purge`](crate::ImageOp::Purge) has removed what there was, and waits for PGs that are not clean.
    #[must_use]
    pub fn is_swept(&self, ticket: Ticket) -> bool {
        let job = self.tickets.get(&ticket).and_then(|id| self.jobs.get(id));
        job.is_some_and(Job::is_swept)
    }

    /// Since when nothing of an operation was answered, and a PG that it waits for; none if it waits for its turn, or for PGs to
    /// become clean.
    #[must_use]
    pub fn waits(&self, ticket: Ticket) -> Option<(Now, PgId)> {
        let id = *self.tickets.get(&ticket)?;
        let job = self.jobs.get(&id).filter(|job| !job.is_swept())?;
        let pending = self.pending.values().find(|pending| pending.job == id)?;
        Some((job.moved, pending.pg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_take_turns() {
        let mut turns = Turns::default();
        [3, 5, 9].into_iter().for_each(|job| turns.enter(job));
        let mut taken = Vec::new();
        for sequence in 0..PACE.busy as u64 {
            let job = turns.next().unwrap();
            taken.push(job);
            turns.under_way.insert(sequence, Now(0));
            turns.enter(job);
        }
        assert_eq!(taken[..7], [3, 5, 9, 3, 5, 9, 3]);
        assert_eq!(turns.next(), None, "there is no room");
        turns.ended(4);
        turns.ended(1000);
        assert_eq!(turns.next(), Some(5), "it goes on where it was");
        turns.tick(Now(0) + PATIENCE);
        let rest: Vec<u64> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(rest, [9, 3], "5 has not entered again");
    }

    #[test]
    fn there_is_less_room_while_others_wait() {
        let mut turns = Turns::default();
        let mut now = Now(0);
        let mut limits = Vec::new();
        for millis in [1, 9, 9, 9, 9, 1] {
            now = now + Duration::from_secs(1);
            turns.under_way.insert(1, now);
            turns.other_ended(Duration::from_millis(millis));
            turns.tick(now);
            limits.push(turns.pace.limit());
        }
        assert_eq!(limits, [16, 8, 4, 2, 2, 3]);
    }
}
