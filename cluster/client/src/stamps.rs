//! Stamps: what OSDs said their clocks were, and which of that may be said of a caller.
//!
//! A change goes to its primary with the latest tick of it that was here *before* the caller was seen: what another client
//! changed after that tick may be newer than the caller's wish, and the primary then does not execute it. No clock of this
//! node counts: times of it only say what came before what.
//!
//! That holds as long as this node runs. What it finds after it stood still may be of callers who left meanwhile, and what an
//! OSD says first of all does not tell whether it did: it is *doubted*, and said of no caller, until another OSD has told
//! that this node's clock went on until then (see [`Pace`](crate::pace::Pace)).

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

/// Who is heard first counts after this time even if nobody tells that this node did not stand still; it is taken to have.
const VOUCH: Duration = Duration::from_millis(500);

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

/// The latest ticks of every OSD's clock, and which of them are doubted.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// The ticks that came from each OSD, oldest first, and when they came.
    ticks: BTreeMap<OsdId, VecDeque<(Now, Tick)>>,
    /// Whose ticks are doubted, and since when.
    doubted: BTreeMap<OsdId, Now>,
}

impl Stamps {
    /// An OSD says what its clock is.
    pub(crate) fn heard(&mut self, now: Now, osd: OsdId, tick: Tick) {
        let ticks = self.ticks.entry(osd).or_default();
        while ticks.front().is_some_and(|(at, _)| now.since(*at) > STAMP_LIFE) {
            ticks.pop_front();
        }
        let crowded = ticks.iter().rev().nth(1).is_some_and(|(at, _)| now.since(*at) < GRAIN);
        if crowded {
            ticks.pop_back();
        }
        ticks.push_back((now, tick));
    }

    /// What this OSD says is doubted from now on. Whether it was not so far.
    pub(crate) fn doubt(&mut self, now: Now, osd: OsdId) -> bool {
        let is_new = !self.doubted.contains_key(&osd);
        self.doubted.entry(osd).or_insert(now);
        is_new
    }

    /// Whether what this OSD says is doubted.
    pub(crate) fn doubts(&self, osd: OsdId) -> bool {
        self.doubted.contains_key(&osd)
    }

    /// This node's clock went on until then: what was said before counts, if the OSD tells from now on when it does not.
    /// Whether anything counts now that did not.
    pub(crate) fn believe(&mut self, until: Now, tells: impl Fn(OsdId) -> bool) -> bool {
        let before = self.doubted.len();
        let ticks = &mut self.ticks;
        self.doubted.retain(|osd, since| {
            let believed = *since <= until && tells(*osd);
            if believed && let Some(ticks) = ticks.get_mut(osd) {
                ticks.retain(|(heard, _)| *heard <= until);
            }
            !believed
        });
        self.doubted.len() < before
    }

    /// This node doubts its callers instead. What was said meanwhile counts for nobody: it may be of the first moment after
    /// this node stood still, and what waits for it is of callers who may have left before.
    pub(crate) fn believe_all(&mut self) {
        for osd in std::mem::take(&mut self.doubted).into_keys() {
            self.ticks.remove(&osd);
        }
    }

    /// Whether anything is doubted.
    pub(crate) fn has_doubts(&self) -> bool {
        !self.doubted.is_empty()
    }

    /// Whether nobody has told for long what something that is doubted depends on.
    pub(crate) fn has_doubted_for_long(&self, now: Now) -> bool {
        self.doubted.values().any(|since| now.since(*since) >= VOUCH)
    }

    /// What a change of this caller carries to an OSD; the default if nothing is known.
    pub(crate) fn stamp(&self, osd: OsdId, caller: Caller) -> Tick {
        let Some(ticks) = self.ticks.get(&osd) else {
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

    #[test]
    fn what_is_doubted_counts_when_the_clock_went_on_until_then() {
        let mut stamps = Stamps::default();
        let second = |n: u64| Now(n * 1_000_000_000);
        stamps.heard(second(2), OSD, Tick(2));
        assert!(stamps.doubt(second(2), OSD) && !stamps.doubt(second(3), OSD));
        stamps.heard(second(4), OSD, Tick(4));
        assert!(
            stamps.doubts(OSD) && stamps.has_doubted_for_long(second(3)) && !stamps.has_doubted_for_long(second(2))
        );
        assert!(!stamps.believe(second(1), |_| true), "it was heard later");
        assert!(
            !stamps.believe(second(3), |_| false),
            "nothing would tell the next time"
        );
        assert!(stamps.believe(second(3), |_| true) && !stamps.doubts(OSD));
        let caller = Caller::Seen(Presence::heard(second(9)));
        assert_eq!(
            stamps.stamp(OSD, caller),
            Tick(2),
            "what came later nobody has vouched for"
        );
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
        assert!(stamps.ticks[&OSD].len() <= 3500, "{}", stamps.ticks[&OSD].len());
    }
}
