//! Whether this node's clock stands still: that of a virtual machine does while the machine is paused, and nothing on it
//! shows that afterwards. The clocks of OSDs do.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::message::STAMP_LIFE;
use trivet_core::{Now, OsdId, Tick};

/// Ticks further apart are of two starts of an OSD, each of which draws where its clock begins from 585 years.
const ONE_START: Duration = Duration::from_secs(365 * 86_400);

/// A word that is older than the last one by less than this was overtaken, and is of the same start.
const LATE: Duration = Duration::from_secs(60);

/// For each OSD a time before it said last what its clock was, and what it said.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<OsdId, (Now, Tick)>);

/// What the clock of an OSD tells of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It went on, as far as can be seen; until this time for sure: the OSD was asked then.
    On(Option<Now>),
    /// It stood still for so long at least.
    Stood(Duration),
    /// Nothing: the OSD has not said before what could be compared, or did so in another start.
    Unknown {
        /// It has not.
        first: bool,
    },
}

impl Pace {
    /// An OSD says what its clock is; asked for it at `sent`, if it was. This node's stood still if that shows for longer than
    /// stamps live. Time that a message is on its way, however long, does not count.
    pub(crate) fn heard(&mut self, now: Now, osd: OsdId, tick: Tick, sent: Option<Now>) -> Gone {
        let Some(&(before, last)) = self.0.get(&osd) else {
            if let Some(sent) = sent {
                self.0.insert(osd, (sent, tick));
            }
            return Gone::Unknown { first: true };
        };
        if last != tick && tick.age(last) < LATE {
            return Gone::On(None);
        }
        let age = last.age(tick);
        let stood = age.saturating_sub(now.since(before));
        if let Some(since) = sent.or_else(|| (stood > STAMP_LIFE).then_some(now)) {
            self.0.insert(osd, (since, tick));
        }
        match stood {
            // All that the OSD's clock has gone on for would have to have passed before the question.
            stood if stood <= STAMP_LIFE => Gone::On(sent.filter(|sent| age <= sent.since(before) + STAMP_LIFE)),
            stood if stood < ONE_START => Gone::Stood(stood),
            _ => Gone::Unknown { first: false },
        }
    }

    /// Whether what this OSD says from now on tells how this node's clock goes.
    pub(crate) fn compares(&self, osd: OsdId) -> bool {
        self.0.contains_key(&osd)
    }

    /// All OSDs of which that is so.
    pub(crate) fn osds(&self) -> impl Iterator<Item = OsdId> {
        self.0.keys().copied()
    }

    /// The same, those that said something last first.
    pub(crate) fn compared(&self) -> Vec<OsdId> {
        let mut all: Vec<(Now, OsdId)> = self.0.iter().map(|(&osd, &(at, _))| (at, osd)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.into_iter().map(|(_, osd)| osd).collect()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
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
            let (now, tick) = (Now(at * 1_000_000), Tick(tick * 1_000_000));
            let sent = asked.map(|asked| Now(asked * 1_000_000));
            let found = match pace.heard(now, OSD, tick, sent) {
                Gone::Stood(time) => Some(time),
                Gone::On(_) | Gone::Unknown { .. } => None,
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
            let sent = asked.map(|asked| second(asked).0);
            pace.heard(second(n).0, OSD, tick, sent)
        };
        assert_eq!(hear(1, None, second(1).1), Gone::Unknown { first: true });
        assert_eq!(hear(3, Some(2), second(3).1), Gone::Unknown { first: true });
        assert_eq!(hear(4, None, second(4).1), Gone::On(None));
        assert_eq!(hear(6, Some(5), second(6).1), Gone::On(Some(second(5).0)));
        assert_eq!(hear(7, None, second(4).1), Gone::On(None), "said before");
        assert_eq!(hear(8, Some(7), second(100_000_000).1), Gone::Unknown { first: false });
        assert_eq!(
            hear(28, Some(18), second(100_000_010).1),
            Gone::On(Some(second(18).0)),
            "10 s after the word before"
        );
        assert_eq!(
            hear(48, Some(30), second(100_000_028).1),
            Gone::On(None),
            "6 of 18 s may have passed before the question, or behind it"
        );
    }

    #[test]
    fn a_start_whose_clock_begins_a_little_earlier_is_another_one() {
        let mut pace = Pace::default();
        let tick = |second: u64| Tick(second * 1_000_000_000);
        pace.heard(Now(0), OSD, tick(1_000), Some(Now(0)));
        assert_eq!(
            pace.heard(Now(5), OSD, tick(950), Some(Now(5))),
            Gone::On(None),
            "it was overtaken"
        );
        assert_eq!(
            pace.heard(Now(5), OSD, tick(900), Some(Now(5))),
            Gone::Unknown { first: false }
        );
        assert_eq!(pace.heard(Now(9), OSD, tick(900), Some(Now(9))), Gone::On(Some(Now(9))));
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
