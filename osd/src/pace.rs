//! How many objects an OSD heals at the same time in the background: many while its clients want nothing, fewer while
//! healing makes them wait.
//!
//! It looks at how long operations take, period by period, and compares with the best that it has seen lately: additive
//! increase, multiplicative decrease.

use std::time::Duration;

use trivet_core::Now;

/// How long operations are counted before something is decided.
const PERIOD: Duration = Duration::from_millis(200);
/// Objects at the same time, however long clients wait.
const LEAST: usize = 1;
/// Objects at the same time while clients work.
const BUSY: usize = 16;
/// Objects at the same time while they do not.
const IDLE: usize = 64;
/// Periods in which clients may take this much longer than at best are good ones.
const SLACK: Duration = Duration::from_micros(200);
/// The best mean is forgotten by this part of it, and of the slack, per period: what is best changes with the load, and
/// may have been nothing at all.
const FORGET: u32 = 50;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: usize,
    /// The shortest mean lately.
    best: Option<Duration>,
    since: Now,
    ended: u32,
    took: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            limit: BUSY,
            best: None,
            since: Now(0),
            ended: 0,
            took: Duration::ZERO,
        }
    }
}

impl Pace {
    /// How many objects may be healed at the same time.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// An operation of a client ended, after so long.
    pub(crate) fn ended(&mut self, took: Duration) {
        self.ended += 1;
        self.took += took;
    }

    /// Time passes; `healing` says whether anything is healed now, so that waiting may be its fault.
    pub(crate) fn tick(&mut self, now: Now, healing: bool) {
        if now.since(self.since) < PERIOD {
            return;
        }
        self.since = now;
        let (ended, took) = (std::mem::take(&mut self.ended), std::mem::take(&mut self.took));
        match took.checked_div(ended) {
            None => self.limit = (self.limit + 8).min(IDLE),
            Some(mean) => self.weigh(mean, healing),
        }
    }

    fn weigh(&mut self, mean: Duration, healing: bool) {
        let best = self
            .best
            .map_or(mean, |best| (best + (best + SLACK) / FORGET).min(mean));
        self.best = Some(best);
        if healing && mean > 2 * best + SLACK {
            self.limit = (self.limit.min(BUSY) / 2).max(LEAST);
        } else {
            self.limit = (self.limit + 1).min(BUSY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit after so many periods in which operations took so long.
    fn after(pace: &mut Pace, periods: u64, micros: Option<u64>) -> usize {
        for _ in 0..periods {
            micros
                .into_iter()
                .for_each(|micros| pace.ended(Duration::from_micros(micros)));
            let now = pace.since + PERIOD;
            pace.tick(now, true);
        }
        pace.limit()
    }

    #[test]
    fn clients_that_wait_slow_it_down_and_idle_ones_do_not() {
        let mut pace = Pace::default();
        assert_eq!(after(&mut pace, 1, Some(300)), BUSY);
        assert_eq!(after(&mut pace, 1, Some(2_000)), BUSY / 2);
        assert_eq!(after(&mut pace, 10, Some(2_000)), LEAST, "never nothing");
        assert_eq!(after(&mut pace, 3, Some(400)), LEAST + 3);
        assert_eq!(after(&mut pace, 20, None), IDLE);
        assert_eq!(
            after(&mut pace, 1, Some(2_000)),
            BUSY / 2,
            "at once when clients come back"
        );
    }

    #[test]
    fn what_is_always_slow_is_not_the_fault_of_healing() {
        let mut pace = Pace::default();
        after(&mut pace, 1, Some(300));
        assert_eq!(after(&mut pace, 150, Some(5_000)), BUSY, "the best is forgotten");
        let mut pace = Pace::default();
        after(&mut pace, 1, Some(0));
        assert_eq!(after(&mut pace, 20, Some(1_000)), LEAST);
        assert_eq!(after(&mut pace, 150, Some(1_000)), BUSY, "a best of nothing, too");
        let mut pace = Pace::default();
        pace.ended(Duration::from_micros(300));
        pace.tick(Now(0) + PERIOD, false);
        pace.ended(Duration::from_millis(300));
        pace.tick(Now(0) + 2 * PERIOD, false);
        assert_eq!(pace.limit(), BUSY, "nothing is healed");
    }
}
