//! Stamps: what OSDs said their clocks were, and which of that may be said of a caller.
//!
//! A change goes to its primary with the latest tick of it that was here *before* the caller was seen: what another client
//! changed after that tick may be newer than the caller's wish, and the primary then does not execute it. No clock of this
//! node counts: times of it only say what came before what.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trivet_core::message::STAMP_LIFE;
use trivet_core::{Now, OsdId, Tick};

/// OSDs are asked for their clocks this often.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(250);
/// Ticks of one OSD are kept about this far apart.
const GRAIN: Duration = Duration::from_millis(1);

/// Who wants an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// This client itself, which is there whenever it sends.
    Own,
    /// Somebody who was there after this time, as far as is known.
    Seen(Now),
}

/// The ticks that came from each OSD, oldest first, and when they came.
#[derive(Debug, Default)]
pub(crate) struct Stamps(BTreeMap<OsdId, VecDeque<(Now, Tick)>>);

impl Stamps {
    /// An OSD says what its clock is.
    pub(crate) fn heard(&mut self, now: Now, osd: OsdId, tick: Tick) {
        let ticks = self.0.entry(osd).or_default();
        while ticks.front().is_some_and(|(at, _)| now.since(*at) > STAMP_LIFE) {
            ticks.pop_front();
        }
        let crowded = ticks.iter().rev().nth(1).is_some_and(|(at, _)| now.since(*at) < GRAIN);
        if crowded {
            ticks.pop_back();
        }
        ticks.push_back((now, tick));
    }

    /// What a change of this caller carries to an OSD; the default if nothing is known.
    pub(crate) fn stamp(&self, osd: OsdId, caller: Caller) -> Tick {
        let Some(ticks) = self.0.get(&osd) else {
            return Tick::default();
        };
        let count = match caller {
            Caller::Own => ticks.len(),
            Caller::Seen(at) => ticks.partition_point(|(heard, _)| *heard < at),
        };
        let last = count.checked_sub(1).and_then(|last| ticks.get(last));
        last.map_or(Tick::default(), |(_, tick)| *tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OSD: OsdId = OsdId(1);

    #[test]
    fn only_what_was_here_before_the_caller_was_seen_counts() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.stamp(OSD, Caller::Own), Tick(0));
        for (at, tick) in [(10, 1), (20, 2), (30, 3)] {
            stamps.heard(Now(at * 1_000_000), OSD, Tick(tick));
        }
        // Seen after this time (in ms); the tick that counts.
        for (seen, tick) in [(10, 0), (11, 1), (20, 1), (21, 2), (30, 2), (31, 3), (99, 3)] {
            let caller = Caller::Seen(Now(seen * 1_000_000));
            assert_eq!(stamps.stamp(OSD, caller), Tick(tick), "seen at {seen}");
        }
        assert_eq!(stamps.stamp(OSD, Caller::Own), Tick(3));
        assert_eq!(stamps.stamp(OsdId(2), Caller::Own), Tick(0));
    }

    #[test]
    fn many_ticks_take_little_and_the_newest_is_there() {
        let mut stamps = Stamps::default();
        for n in 0..100_000 {
            stamps.heard(Now(n * 100_000), OSD, Tick(n));
            assert_eq!(stamps.stamp(OSD, Caller::Own), Tick(n));
            let before = stamps.stamp(OSD, Caller::Seen(Now(n * 100_000)));
            assert!(before.0 + 25 >= n, "{before:?} at {n}");
        }
        assert!(stamps.0[&OSD].len() <= 3500, "{}", stamps.0[&OSD].len());
    }
}
