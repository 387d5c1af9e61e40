//! How much is done at the same time in the background, such as healing or removing objects: much while clients want
//! nothing, less while it makes them wait.
//!
//! It looks at how long operations take, period by period, and compares with the best that it has seen lately: additive
//! increase, multiplicative decrease.

use std::time::Duration;

use crate::Now;

/// How long operations are counted before something is decided.
const PERIOD: Duration = Duration::from_millis(200);
/// Periods in which clients may take this much longer than at best are good ones.
const SLACK: Duration = Duration::from_micros(200);
/// The best mean is forgotten by this part of it, and of the slack, per period: what is best changes with the load, and
/// may have been nothing at all.
const FORGET: u32 = 50;

/// How many things may be under way at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// However long clients wait.
    pub least: usize,
    /// At most while clients work.
    pub busy: usize,
    /// At most while they do not.
    pub idle: usize,
}

/// How many things of one kind may be done at the same time, as it turns out to be bearable.
#[derive(Debug)]
pub struct Pace {
    bounds: Bounds,
    limit: usize,
    /// The shortest mean lately.
    best: Option<Duration>,
    since: Now,
    ended: u32,
    took: Duration,
}

impl Pace {
    /// A pace to begin with, as if clients worked.
    #[must_use]
    pub fn new(bounds: Bounds) -> Pace {
        Pace {
            bounds,
            limit: bounds.busy,
            best: None,
            since: Now(0),
            ended: 0,
            took: Duration::ZERO,
        }
    }

    /// How many things may be under way now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// An operation of a client ended, after so long. From now on clients work.
    pub fn ended(&mut self, took: Duration) {
        self.limit = self.limit.min(self.bounds.busy);
        self.ended += 1;
        self.took += took;
    }

    /// Time passes; `working` says whether anything is under way now, so that waiting may be its fault.
    pub fn tick(&mut self, now: Now, working: bool) {
        if now.since(self.since) < PERIOD {
            return;
        }
        self.since = now;
        let (ended, took) = (std::mem::take(&mut self.ended), std::mem::take(&mut self.took));
        match took.checked_div(ended) {
            None => self.limit = (self.limit + 8).min(self.bounds.idle),
            Some(mean) => self.weigh(mean, working),
        }
    }

    fn weigh(&mut self, mean: Duration, working: bool) {
        let Bounds { least, busy, .. } = self.bounds;
        let best = self
            .best
            .map_or(mean, |best| (best + (best + SLACK) / FORGET).min(mean));
        self.best = Some(best);
        if working && mean > 2 * best + SLACK {
            self.limit = (self.limit.min(busy) / 2).max(least);
        } else {
            self.limit = (self.limit + 1).min(busy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: usize = 1;
    const BUSY: usize = 16;
    const IDLE: usize = 64;

    fn started() -> Pace {
        Pace::new(Bounds {
            least: LEAST,
            busy: BUSY,
            idle: IDLE,
        })
    }

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
        let mut pace = started();
        assert_eq!(after(&mut pace, 1, Some(300)), BUSY);
        assert_eq!(after(&mut pace, 1, Some(2_000)), BUSY / 2);
        assert_eq!(after(&mut pace, 10, Some(2_000)), LEAST, "never nothing");
        assert_eq!(after(&mut pace, 3, Some(400)), LEAST + 3);
        assert_eq!(after(&mut pace, 20, None), IDLE);
        pace.ended(Duration::ZERO);
        assert_eq!(pace.limit(), BUSY, "with the first of them");
        assert_eq!(after(&mut pace, 20, None), IDLE);
        assert_eq!(
            after(&mut pace, 1, Some(2_000)),
            BUSY / 2,
            "at once when clients come back"
        );
    }

    #[test]
    fn what_is_always_slow_is_not_the_fault_of_healing() {
        let mut pace = started();
        after(&mut pace, 1, Some(300));
        assert_eq!(after(&mut pace, 150, Some(5_000)), BUSY, "the best is forgotten");
        let mut pace = started();
        after(&mut pace, 1, Some(0));
        assert_eq!(after(&mut pace, 20, Some(1_000)), LEAST);
        assert_eq!(after(&mut pace, 150, Some(1_000)), BUSY, "a best of nothing, too");
        let mut pace = started();
        pace.ended(Duration::from_micros(300));
        pace.tick(Now(0) + PERIOD, false);
        pace.ended(Duration::from_millis(300));
        pace.tick(Now(0) + 2 * PERIOD, false);
        assert_eq!(pace.limit(), BUSY, "nothing is healed");
    }
}
