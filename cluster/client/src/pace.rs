//! Whether this node's clock stands still: that of a virtual machine does while the machine is paused, and nothing on it
//! shows that afterwards. The clocks of OSDs do.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::message::STAMP_LIFE;
use trivet_core::{Now, OsdId, Tick};

/// Ticks further apart are of two starts of an OSD, each of which draws where its clock begins from 585 years.
const ONE_START: Duration = Duration::from_secs(365 * 86_400);

/// What OSDs said their clocks were.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<OsdId, Said>);

/// What the clock of an OSD tells of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It went on. Where this time is known, everything until then is part of that: the OSD was asked then.
    On(Option<Now>),
    /// It stood still for so long at least.
    Stood(Duration),
    /// Nothing: the OSD is heard for the first time, or after another start.
    Unknown,
}

#[derive(Debug, Default)]
struct Said {
    /// When it was asked for what it has not said yet.
    asked: Option<Now>,
    /// A time before it said this, and what it said.
    last: Option<(Now, Tick)>,
}

impl Pace {
    /// An OSD is asked for its clock.
    pub(crate) fn asked(&mut self, now: Now, osd: OsdId) {
        self.0.entry(osd).or_default().asked.get_or_insert(now);
    }

    /// An OSD has said what its clock is, asked or not. This node's stood still if that shows for longer than stamps live. Time
    /// that a message is on its way, however long, does not count.
    pub(crate) fn heard(&mut self, now: Now, osd: OsdId, tick: Tick, asked: bool) -> Gone {
        let said = self.0.entry(osd).or_default();
        // An earlier word, which is here twice or was overtaken.
        if said
            .last
            .is_some_and(|(_, last)| last != tick && tick.age(last) < ONE_START)
        {
            return Gone::On(None);
        }
        let stood = said
            .last
            .map(|(before, last)| last.age(tick).saturating_sub(now.since(before)));
        let when = said.asked.filter(|_| asked);
        if asked {
            // One of several questions without an answer: which of them is not known, the first is early enough.
            let before = said.asked.take().or(said.last.map(|(before, _)| before));
            said.last = before.map(|before| (before, tick));
        } else if stood.is_some_and(|stood| stood > STAMP_LIFE) {
            said.last = Some((now, tick));
        }
        match stood {
            Some(stood) if stood <= STAMP_LIFE => Gone::On(when),
            Some(stood) if stood < ONE_START => Gone::Stood(stood),
            _ => Gone::Unknown,
        }
    }

    /// Whether this OSD has a question that it has not answered.
    pub(crate) fn is_asked(&self, osd: OsdId) -> bool {
        self.0.get(&osd).is_some_and(|said| said.asked.is_some())
    }

    /// Whether what this OSD says from now on tells how this node's clock goes.
    pub(crate) fn compares(&self, osd: OsdId) -> bool {
        self.0.get(&osd).is_some_and(|said| said.last.is_some())
    }

    /// All OSDs of which that is so.
    pub(crate) fn compared(&self) -> impl Iterator<Item = OsdId> {
        self.0.keys().copied().filter(|osd| self.compares(*osd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OSD: OsdId = OsdId(1);

    /// When an OSD was asked and when the answer was here, in ms of this node, the answer in ms of the OSD, and for how long
    /// this node's clock stood still.
    type Row = (Option<u64>, u64, u64, Option<u64>);

    fn run(table: &[Row]) {
        let mut pace = Pace::default();
        for &(asked, at, tick, stood) in table {
            if let Some(asked) = asked {
                pace.asked(Now(asked * 1_000_000), OSD);
            }
            let (now, tick) = (Now(at * 1_000_000), Tick(tick * 1_000_000));
            let found = match pace.heard(now, OSD, tick, asked.is_some()) {
                Gone::Stood(time) => Some(time),
                Gone::On(_) | Gone::Unknown => None,
            };
            assert_eq!(found, stood.map(Duration::from_millis), "{tick:?} at {now:?}");
        }
    }

    #[test]
    fn a_clock_that_stood_still_shows() {
        run(&[
            (None, 5, 900, None),
            (Some(9), 10, 1_000, None),
            (Some(259), 260, 1_250, None),
            (Some(509), 510, 4_500, None),
            (Some(759), 760, 7_752, Some(3_001)),
            (None, 761, 4_500, None),
            (Some(762), 763, 7_755, None),
            (Some(60_000), 60_010, 8_000, None),
            // Another start.
            (Some(60_240), 60_250, 4_000_000_000_000, None),
            (None, 60_500, 4_000_000_030_000, Some(29_740)),
            (None, 60_501, 4_000_000_030_001, None),
        ]);
    }

    #[test]
    fn what_is_heard_first_tells_nothing_and_an_answer_tells_until_its_question() {
        let second = |n: u64| (Now(n * 1_000_000_000), Tick(n * 1_000_000_000));
        let mut pace = Pace::default();
        let mut hear = |n, asked: Option<u64>, tick: Tick| {
            if let Some(asked) = asked {
                pace.asked(second(asked).0, OSD);
            }
            pace.heard(second(n).0, OSD, tick, asked.is_some())
        };
        assert_eq!(hear(1, None, second(1).1), Gone::Unknown);
        assert_eq!(hear(3, Some(2), second(3).1), Gone::Unknown);
        assert_eq!(hear(4, None, second(4).1), Gone::On(None));
        assert_eq!(hear(6, Some(5), second(6).1), Gone::On(Some(second(5).0)));
        assert_eq!(hear(7, None, second(4).1), Gone::On(None), "said before");
        assert_eq!(hear(8, Some(7), second(100_000_000).1), Gone::Unknown);
    }

    #[test]
    fn answers_that_come_late_are_no_sign() {
        run(&[
            (Some(0), 1, 1_000, None),
            (Some(250), 9_000, 1_250, None),
            (None, 9_001, 10_000, None),
            (Some(9_100), 9_101, 10_100, None),
        ]);
    }
}
