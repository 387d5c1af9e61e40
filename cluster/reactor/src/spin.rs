//! Whether to spin before sleeping: a pure function of what idle times were like and of how contended
//! the core is.
//!
//! Waking a sleeping thread costs 20-60 us, more than most waits at queue depth 1. So before it sleeps the loop
//! polls for up to a *window* (50 us), if that is likely to pay:
//!
//! - Each idle phase is a hit (an event ended it within the window) or a miss. An average with
//!   weight 1/16 turns spinning on at one half and off below one quarter.
//! - While it sleeps, an idle phase includes the wake-ups of both ends, so phases up to [`WAKE_ALLOWANCE`] longer
//!   than the window count as hits. If spinning then shows them to be misses, it turns off and holds
//!   off for a time that doubles with each failure; a good run resets it.
//! - If the kernel preempts the thread more than [`CONTENDED_PER_SECOND`] times a second, somebody else needs the
//!   core and the spinner steals it: same hold-off.

/// How much longer than the window an idle phase may look because both ends slept, in ns.
const WAKE_ALLOWANCE: u64 = 100_000;
/// Involuntary switches per second that mean a contended core. A competitor that never sleeps causes 120 to
/// 350 a second with the kernel's slices of 1.4-4 ms; kernel threads on an idle machine 10-50.
const CONTENDED_PER_SECOND: u64 = 100;
/// Time between two looks at the number of switches, in ns.
const SAMPLE_EVERY: u64 = 20_000_000;
/// First and longest time without spinning after it failed, in ns.
const HOLD_MIN: u64 = 2_000_000;
const HOLD_MAX: u64 = 1_000_000_000;

/// The score of a history of hits only.
const FULL: u32 = 4096;
const TURN_ON: u32 = FULL / 2;
const TURN_OFF: u32 = FULL / 4;
const PROVEN: u32 = FULL / 4 * 3;
/// One idle phase moves the score by 1/16 of its distance.
const WEIGHT: u32 = 16;

pub(crate) struct Spin {
    window: u64,
    score: u32,
    on: bool,
    hold: u64,
    held_until: u64,
    sampled_at: Option<u64>,
    switches: u64,
}

impl Spin {
    /// `window` in ns; zero never spins.
    pub(crate) fn new(window: u64) -> Spin {
        Spin {
            window,
            score: 0,
            on: false,
            hold: HOLD_MIN,
            held_until: 0,
            sampled_at: None,
            switches: 0,
        }
    }

    /// How long to spin from `now` on before sleeping, in ns; zero means sleep at once.
    pub(crate) fn window(&self, now: u64) -> u64 {
        if self.on && now >= self.held_until {
            self.window
        } else {
            0
        }
    }

    /// Learns from an idle phase of `idle` ns that ended at `now`, by an event or by the caller's timeout.
    pub(crate) fn idle_ended(&mut self, now: u64, idle: u64, by_event: bool) {
        if self.window == 0 {
            return;
        }
        let limit = if self.on {
            self.window
        } else {
            self.window + WAKE_ALLOWANCE
        };
        self.score -= self.score / WEIGHT;
        if by_event && idle <= limit {
            self.score += FULL / WEIGHT;
        }
        if self.on && self.score < TURN_OFF {
            self.back_off(now);
        } else if !self.on && self.score >= TURN_ON && now >= self.held_until {
            // Idle phases seen asleep prove little: a few misses end the attempt.
            self.on = true;
            self.score = TURN_ON;
        } else if self.on && self.score >= PROVEN {
            self.hold = HOLD_MIN;
        }
    }

    /// Whether [`Spin::sample`] is due.
    pub(crate) fn wants_sample(&self, now: u64) -> bool {
        self.on && self.sampled_at.is_none_or(|at| now.saturating_sub(at) >= SAMPLE_EVERY)
    }

    /// Learns the thread's total of involuntary context switches at `now`.
    pub(crate) fn sample(&mut self, now: u64, switches: u64) {
        let elapsed = self.sampled_at.map_or(u64::MAX, |at| now.saturating_sub(at));
        let grown = switches.saturating_sub(self.switches);
        // A rate over a long pause says nothing about now: the first sample after one is only a start.
        let fresh = elapsed <= 10 * SAMPLE_EVERY;
        self.sampled_at = Some(now);
        self.switches = switches;
        if fresh && grown.saturating_mul(1_000_000_000) > elapsed.saturating_mul(CONTENDED_PER_SECOND) {
            self.back_off(now);
        }
    }

    fn back_off(&mut self, now: u64) {
        self.on = false;
        self.score = 0;
        self.held_until = now.saturating_add(self.hold);
        self.hold = (self.hold * 2).min(HOLD_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 50_000;

    /// Feeds `count` idle phases of `idle` ns and returns the time after them.
    fn feed(spin: &mut Spin, mut now: u64, count: u32, idle: u64) -> u64 {
        for _ in 0..count {
            now += idle;
            spin.idle_ended(now, idle, true);
        }
        now
    }

    #[test]
    fn short_idles_turn_it_on_and_long_ones_off() {
        let mut spin = Spin::new(WINDOW);
        assert_eq!(spin.window(0), 0, "no history, no spin");
        let now = feed(&mut spin, 0, 12, 10_000);
        assert_eq!(spin.window(now), WINDOW);
        let now = feed(&mut spin, now, 30, 1_000_000);
        assert_eq!(spin.window(now), 0);
    }

    #[test]
    fn a_few_misses_change_nothing() {
        let mut spin = Spin::new(WINDOW);
        let mut now = feed(&mut spin, 0, 100, 10_000);
        for _ in 0..50 {
            now = feed(&mut spin, now, 1, 5_000_000);
            now = feed(&mut spin, now, 2, 10_000);
            assert_eq!(spin.window(now), WINDOW);
        }
    }

    #[test]
    fn timeouts_are_misses() {
        let mut spin = Spin::new(WINDOW);
        for now in 0..100 {
            spin.idle_ended(now, 10_000, false);
        }
        assert_eq!(spin.window(100), 0);
    }

    #[test]
    fn idles_that_only_look_short_enough_asleep_hold_it_off_longer_and_longer() {
        let mut spin = Spin::new(WINDOW);
        let mut now = 0;
        let mut spun = 0;
        let mut idles = 0;
        while now < 2_000_000_000 {
            spun += u32::from(spin.window(now) > 0);
            idles += 1;
            now = feed(&mut spin, now, 1, 100_000);
        }
        assert!(spun > 0, "it tries");
        assert!(spun * 20 < idles, "but seldom: {spun} of {idles}");
    }

    #[test]
    fn a_contended_core_stops_it() {
        let table = [(20_000_000, 1, true), (20_000_000, 5, false), (900_000_000, 500, true)];
        for (elapsed, switches, spins) in table {
            let mut spin = Spin::new(WINDOW);
            let now = feed(&mut spin, 0, 100, 10_000);
            assert!(spin.wants_sample(now), "the first look is a start");
            spin.sample(now, 1000);
            assert!(!spin.wants_sample(now));
            assert_eq!(spin.window(now), WINDOW);
            let now = now + elapsed;
            assert!(spin.wants_sample(now));
            spin.sample(now, 1000 + switches);
            assert_eq!(spin.window(now) > 0, spins, "{switches} switches in {elapsed} ns");
        }
    }

    #[test]
    fn a_window_of_zero_never_spins() {
        let mut spin = Spin::new(0);
        let now = feed(&mut spin, 0, 100, 1);
        assert_eq!(spin.window(now), 0);
        assert!(!spin.wants_sample(now + SAMPLE_EVERY));
    }
}
