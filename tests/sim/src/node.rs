//! What every process of a run has, whatever machine it runs: a life, a clock, a watch, a lease.

use std::collections::BTreeSet;
use std::time::Duration;

use trivet_core::Now;
use trivet_core::kv::{LeaseId, Revision};

use crate::event::{Event, Life};
use crate::random::Random;

/// A clock that does not tell the true time, but goes forward.
#[derive(Clone, Debug)]
pub struct Clock {
    /// What it showed at the true time 0.
    offset: u64,
    /// For how long it stood still so far, nanoseconds.
    stood: u64,
    /// From when to when that was, in order.
    stands: Vec<(Now, Now)>,
    /// Parts per million that it is slow: it shows a million minus so many for each million.
    slow: u64,
}

impl Clock {
    /// A clock that is up to so many parts per million slow. That all are slow, some more, is as good as some fast.
    pub fn draw(random: &mut Random, drift: u64) -> Clock {
        Clock {
            offset: random.below(1 << 50),
            stood: 0,
            stands: Vec::new(),
            slow: random.range(0..=2 * drift),
        }
    }

    /// What it shows.
    #[must_use]
    pub fn local(&self, now: Now) -> Now {
        let now = Now(now.0.saturating_sub(self.stood));
        // 18 minutes of a nanosecond clock are 2^40: no overflow.
        Now(self.offset + now.0 - now.0 / 1_000_000 * self.slow)
    }

    /// It stood still from then until now.
    pub fn stand(&mut self, from: Now, now: Now) {
        self.stood += now.0 - from.0;
        self.stands.push((from, now));
    }

    /// The true time so many nanoseconds before `now`, times at which it stood still not counted.
    #[must_use]
    pub fn before(&self, now: Now, mut nanos: u64) -> Now {
        let mut then = now.0;
        for (from, to) in self.stands.iter().rev().filter(|(from, _)| from.0 < now.0) {
            let ran = then.saturating_sub(to.0);
            if nanos <= ran {
                break;
            }
            nanos -= ran;
            then = from.0;
        }
        Now(then.saturating_sub(nanos))
    }
}

/// A process, or the place where one was or will be.
#[derive(Debug)]
pub struct Process {
    /// Counts its starts and ends.
    pub life: Life,
    /// It runs, or is stopped.
    pub alive: bool,
    /// It is stopped and what happens to it waits.
    pub paused: bool,
    /// When it was stopped last.
    pub paused_at: Now,
    /// Since when its clock stands still, too.
    pub stands_since: Option<Now>,
    /// What happened while it was stopped.
    pub backlog: Vec<Event>,
    /// Its clock.
    pub clock: Clock,
    /// What its watch has told it; none if it has heard nothing.
    pub watch: Option<Revision>,
    /// Which of the stores, one in the place of the other, that was.
    pub era: u64,
    /// Its watch is about to tell it something.
    pub watching: bool,
    /// Its watch is late until then.
    pub watch_late: Now,
    /// Its lease, as far as it knows.
    pub lease: Option<LeaseId>,
    /// When it asked for what was confirmed last about the lease.
    pub kept: Now,
    /// Transactions without an outcome.
    pub txns: BTreeSet<u64>,
}

impl Process {
    /// A place where nothing runs yet.
    pub fn new(random: &mut Random, drift: u64) -> Process {
        Process {
            life: 0,
            alive: false,
            paused: false,
            paused_at: Now(0),
            stands_since: None,
            backlog: Vec::new(),
            clock: Clock::draw(random, drift),
            watch: None,
            era: 0,
            watching: false,
            watch_late: Now(0),
            lease: None,
            kept: Now(0),
            txns: BTreeSet::new(),
        }
    }

    /// A new process begins.
    pub fn begin(&mut self) {
        self.life += 1;
        self.alive = true;
    }

    /// The process is gone, with everything that it knew.
    pub fn end(&mut self) {
        self.life += 1;
        (self.alive, self.paused, self.watching) = (false, false, false);
        (self.watch, self.lease) = (None, None);
        self.stands_since = None;
        self.backlog.clear();
        self.txns.clear();
    }

    /// Its machine stood still from then until now: it does not know, and does not doubt its lease for that.
    pub fn stood_still(&mut self, from: Now, now: Now) {
        self.clock.stand(from, now);
        self.kept = self.kept + now.since(from);
    }

    /// Whether its lease may have run out, as far as it knows.
    #[must_use]
    pub fn doubts_lease(&self, now: Now, ttl: Duration) -> bool {
        self.lease.is_some() && now.since(self.kept) >= ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stood_still_counts_less() {
        let mut clock = Clock::draw(&mut Random::new(1), 0);
        clock.stand(Now(100), Now(1100));
        clock.stand(Now(1200), Now(1500));
        let table = [
            (90, 50, 40),
            (1100, 1, 99),
            (1150, 50, 1100),
            (1150, 60, 90),
            (1600, 100, 1500),
            (1600, 201, 99),
            (1600, 400, 0),
        ];
        for (now, nanos, then) in table {
            assert_eq!(clock.before(Now(now), nanos), Now(then), "{nanos} before {now}");
        }
        assert_eq!(clock.local(Now(1600)).since(clock.local(Now(0))).as_nanos(), 300);
    }
}
