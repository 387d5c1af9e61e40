//! How fast recovery is, from how the number of missing copies falls as this gateway sees it.

use std::collections::VecDeque;
use std::time::Duration;

use trivet_api::Recovery;
use trivet_core::Now;

/// What is longer ago does not count.
const WINDOW: Duration = Duration::from_secs(30);

/// How many copies were missing at each of the last looks, from which follows how fast they are made.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When so many were missing, oldest first.
    samples: VecDeque<(Now, u64)>,
}

impl Progress {
    /// So many are missing now. Call it about once a second.
    pub(super) fn sample(&mut self, now: Now, missing: u64) {
        self.samples.push_back((now, missing));
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// What there is to say when so many are missing. What came to be missing meanwhile does not make it slower.
    pub(super) fn recovery(&self, missing: u64) -> Recovery {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let done: u64 = pairs
            .map(|((_, before), (_, after))| before.saturating_sub(*after))
            .sum();
        let time = match (self.samples.front(), self.samples.back()) {
            (Some((first, _)), Some((last, _))) => u64::try_from(last.since(*first).as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        };
        if missing == 0 || done == 0 || time == 0 {
            return Recovery {
                objects_missing: missing,
                ..Recovery::default()
            };
        }
        let eta_ms = u128::from(missing) * u128::from(time) / u128::from(done);
        Recovery {
            objects_missing: missing,
            rate: done.saturating_mul(1000) / time,
            eta_s: u64::try_from(eta_ms.div_ceil(1000)).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_was_done_within_the_window() {
        let mut progress = Progress::default();
        let at = |second: u64| Now(second * 1_000_000_000);
        let said = |progress: &Progress, missing| {
            let said = progress.recovery(missing);
            (said.rate, said.eta_s)
        };
        assert_eq!(said(&progress, 5), (0, None), "nothing is known");
        for second in 0..=10 {
            progress.sample(at(second), 1_000 - 20 * second);
        }
        assert_eq!(said(&progress, 800), (20, Some(40)));
        assert_eq!(said(&progress, 0), (0, None), "done");
        progress.sample(at(11), 2_000);
        progress.sample(at(12), 1_980);
        assert_eq!(said(&progress, 1_980), (18, Some(108)), "more came to be missing");
        for second in 13..60 {
            progress.sample(at(second), 1_980);
        }
        assert_eq!(said(&progress, 1_980), (0, None), "it stands still");
        assert!(progress.samples.len() <= 31);
    }

    #[test]
    fn a_slow_one_has_an_end_too() {
        let mut progress = Progress::default();
        progress.sample(Now(0), 3);
        progress.sample(Now(10_000_000_000), 2);
        let said = progress.recovery(2);
        assert_eq!((said.rate, said.eta_s), (0, Some(20)));
    }
}
