//! When the next dial is due: the first at once, then after longer and longer waits.

use std::time::Duration;

use trivet_core::Now;

/// The wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LAST: Duration = Duration::from_secs(2);

/// The waits between dials to one peer.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    next: Now,
    wait: Duration,
}

impl Backoff {
    /// Whether a dial may start.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        now >= self.next
    }

    /// The next dial may start at once.
    pub(crate) fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// A dial failed, or the link that came of it was of no use.
    pub(crate) fn failed(&mut self, now: Now) {
        self.wait = (self.wait * 2).clamp(FIRST, LAST);
        self.next = now + self.wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_after_each_failure() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_due(Now(0)));
        for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
            backoff.failed(Now(7));
            let due = Now(7) + Duration::from_millis(expected);
            assert!(backoff.is_due(due) && !backoff.is_due(Now(due.0 - 1)), "{expected} ms");
        }
        backoff.reset();
        assert!(backoff.is_due(Now(0)));
    }
}
