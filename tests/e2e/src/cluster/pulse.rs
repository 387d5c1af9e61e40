//! How long clients had to wait: the slowest operation and the longest time in which none at all was answered,
//! since somebody looked last.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// The longest time without an answer to anybody.
    pub gap: Duration,
    /// The longest time between a request and its answer.
    pub slowest: Duration,
    /// Answers.
    pub operations: u64,
}

#[derive(Debug)]
struct State {
    last: Instant,
    stall: Stall,
}

/// Shared by all clients of a test.
#[derive(Debug)]
pub struct Pulse(Mutex<State>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(State {
            last: Instant::now(),
            stall: Stall::default(),
        }))
    }
}

impl Pulse {
    /// An operation that was sent then is answered.
    pub fn beat(&self, sent: Instant) {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = now.saturating_duration_since(state.last);
        state.stall.gap = state.stall.gap.max(gap);
        state.stall.slowest = state.stall.slowest.max(now.saturating_duration_since(sent));
        state.stall.operations += 1;
        state.last = now;
    }

    /// What happened since the last call. An operation counts when it is answered.
    pub fn take(&self) -> Stall {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stall = std::mem::take(&mut state.stall);
        stall.gap = stall.gap.max(state.last.elapsed());
        stall
    }
}

/// The middle one of some durations.
#[must_use]
pub fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::{Pulse, Stall, median};

    #[test]
    fn sees_slow_operations_and_silence() {
        let pulse = Pulse::default();
        let sent = Instant::now();
        sleep(Duration::from_millis(60));
        pulse.beat(sent);
        pulse.beat(Instant::now());
        let stall = pulse.take();
        assert!(
            stall.slowest >= Duration::from_millis(60) && stall.gap >= Duration::from_millis(60),
            "{stall:?}"
        );
        assert_eq!(stall.operations, 2);
        sleep(Duration::from_millis(30));
        let quiet = pulse.take();
        assert!(quiet.gap >= Duration::from_millis(30), "{quiet:?}");
        assert_eq!(
            Stall {
                gap: Duration::ZERO,
                ..quiet
            },
            Stall::default()
        );
    }

    #[test]
    fn takes_the_middle() {
        let table = [(vec![], 0), (vec![3], 3), (vec![9, 1, 5], 5), (vec![1, 2, 3, 4], 3)];
        for (seconds, middle) in table {
            let durations: Vec<Duration> = seconds.into_iter().map(Duration::from_secs).collect();
            assert_eq!(median(&durations), Duration::from_secs(middle));
        }
    }
}
