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

/// So many are looked at one by one before others are searched for.
const LAST: usize = 4;

/// That the connection of a caller has no end counts for so long, in the clock of the OSD, after something was heard of it:
/// who is behind a cut link shows no end. A change that such a caller asked for is older than this and [`STAMP_LIFE`] at
/// most.
const STANDS_FOR: Duration = Duration::from_millis(1_500);

/// Who wants an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// This client itself, which is there whenever it sends.
    Own,
    /// Somebody else, of whom this is known.
    Seen(Presence),
}

/// What is known of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Presence {
    /// It was there after this time: something came from it.
    pub heard: Now,
    /// Its connection had no end at this time.
    pub stood: Now,
}

impl Presence {
    /// Something came from it after this time.
    #[must_use]
    pub fn heard(at: Now) -> Presence {
        Presence { heard: at, stood: at }
    }

    /// What both say together.
    #[must_use]
    pub fn and(self, other: Presence) -> Presence {
        Presence {
            heard: self.heard.max(other.heard),
            stood: self.stood.max(other.stood),
        }
    }

    /// Whether the caller counts as there at the time at which its connection had no end, as far as this node's clock
    /// tells; it may have stood still.
    #[must_use]
    pub fn stands(self) -> bool {
        self.stood.since(self.heard) <= STANDS_FOR
    }
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
        // Mostly one of the last.
        let before = |at: Now| {
            let mut last = ticks.iter().rev().take(LAST);
            let found = last.find(|(heard, _)| *heard < at).map(|(_, tick)| *tick);
            found.or_else(|| {
                let count = ticks.partition_point(|(heard, _)| *heard < at);
                count.checked_sub(1).map(|last| ticks[last].1)
            })
        };
        match caller {
            Caller::Own => ticks.back().map_or(Tick::default(), |(_, tick)| *tick),
            Caller::Seen(presence) => {
                let Some(heard) = before(presence.heard) else {
                    return Tick::default();
                };
                if presence.stood == presence.heard {
                    return heard;
                }
                let stood = before(presence.stood).unwrap_or(heard);
                if heard.age(stood) <= STANDS_FOR { stood } else { heard }
            }
        }
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
            let caller = Caller::Seen(Presence::heard(Now(seen * 1_000_000)));
            assert_eq!(stamps.stamp(OSD, caller), Tick(tick), "seen at {seen}");
        }
        assert_eq!(stamps.stamp(OSD, Caller::Own), Tick(3));
        assert_eq!(stamps.stamp(OsdId(2), Caller::Own), Tick(0));
    }

    /// That a connection has no end counts for 1.5 s of the OSD's clock after the caller was heard, whatever this node's says.
    #[test]
    fn who_only_shows_no_end_counts_for_a_while() {
        let mut stamps = Stamps::default();
        // When a tick came, in ms of this node, and what it was, in ms of the OSD: this node stands still once.
        for (at, tick) in [(10, 1_000), (510, 1_500), (1_500, 2_490), (1_520, 9_000)] {
            stamps.heard(Now(at * 1_000_000), OSD, Tick(tick * 1_000_000));
        }
        // Heard and stood after these times; the tick that counts.
        let table = [
            (20, 20, 1_000),
            (20, 600, 1_500),
            (20, 1_510, 2_490),
            (20, 1_530, 1_000),
            (1_530, 20, 9_000),
            (1_510, 1_530, 2_490),
            (5, 600, 0),
        ];
        for (heard, stood, tick) in table {
            let (heard, stood) = (Now(heard * 1_000_000), Now(stood * 1_000_000));
            let stamp = stamps.stamp(OSD, Caller::Seen(Presence { heard, stood }));
            assert_eq!(stamp, Tick(tick * 1_000_000), "{heard:?} {stood:?}");
        }
    }

    #[test]
    fn many_ticks_take_little_and_the_newest_is_there() {
        let mut stamps = Stamps::default();
        for n in 0..100_000 {
            stamps.heard(Now(n * 100_000), OSD, Tick(n));
            assert_eq!(stamps.stamp(OSD, Caller::Own), Tick(n));
            let before = stamps.stamp(OSD, Caller::Seen(Presence::heard(Now(n * 100_000))));
            assert!(before.0 + 25 >= n, "{before:?} at {n}");
        }
        assert!(stamps.0[&OSD].len() <= 3500, "{}", stamps.0[&OSD].len());
    }
}
