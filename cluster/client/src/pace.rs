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

    /// An OSD has said what its clock is, asked or not. Returns for how long this node's stood still meanwhile at least, if
    /// that was longer than stamps live. Time that a message is on its way, however long, does not count.
    pub(crate) fn heard(&mut self, now: Now, osd: OsdId, tick: Tick, asked: bool) -> Option<Duration> {
        let said = self.0.entry(osd).or_default();
        let stood = said.last.map_or(Duration::ZERO, |(before, last)| {
            last.age(tick).saturating_sub(now.since(before))
        });
        let jumps = stood > STAMP_LIFE;
        if asked {
            // One of several questions without an answer: which of them is not known, the first is early enough.
            let before = said.asked.take().or(said.last.map(|(before, _)| before));
            said.last = before.map(|before| (before, tick));
        } else if jumps {
            said.last = Some((now, tick));
        }
        (jumps && stood < ONE_START).then_some(stood)
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
            let found = pace.heard(now, OSD, tick, asked.is_some());
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
            (Some(60_000), 60_010, 8_000, None),
            // Another start.
            (Some(60_240), 60_250, 4_000_000_000_000, None),
            (None, 60_500, 4_000_000_030_000, Some(29_740)),
            (None, 60_501, 4_000_000_030_001, None),
        ]);
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
