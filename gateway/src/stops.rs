//! What comes after this gateway was stopped.
//!
//! Behind it there may be an end that is still on its way: its client turned to another gateway, repeated all of it there
//! and wrote something newer. So nothing is made of it until the client has been heard of a round trip after the last of
//! it; an end that shows up meanwhile takes it along. A client that waited patiently is served on and notices a delay.
//!
//! A process that was stopped sees it by its own clock. That of a virtual machine stands still with it; then the clock of an
//! OSD tells, which is asked four times a second, and before its answer is here the OSDs refuse changes as outdated. For
//! changes of names its own lease tells as well: without it none is begun, and if it has ended the gateway may have been stopped.
//! Decision 0012 has the reasons.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::kv::Revision;
use trivet_core::message::STAMP_LIFE;

use crate::callers::Attendance;
use crate::gateway::{Clock, ConnKey, Effect, Gateway};
use crate::options::mutant;

/// A client's host that acknowledges something this long after an event answers what was sent after that event, and every
/// end that it had sent before has come: round trips are shorter, and what was lost once was sent again (Linux: after
/// 200 ms at first).
const ROUND: Duration = Duration::from_millis(500);

/// Why nothing is made of what a connection received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    /// Since when.
    since: Now,
    /// When the last of it came.
    last: Now,
}

impl Doubt {
    pub(crate) fn new(now: Now) -> Doubt {
        Doubt { since: now, last: now }
    }

    /// More came.
    pub(crate) fn grows(&mut self, now: Now) {
        self.last = now;
    }

    pub(crate) fn since(&self) -> Now {
        self.since
    }

    /// A time after all of it came and at which the client was there, if its host acknowledged something after `heard`.
    pub(crate) fn resolved(&self, heard: Option<Now>) -> Option<Now> {
        let heard = heard.filter(|heard| heard.since(self.last) > ROUND)?;
        Some(self.last + (heard.since(self.last) - ROUND))
    }
}

/// This gateway's key in the metadata store, which is gone when its lease ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    /// The commit that wrote it; none while there is none.
    by: Option<Revision>,
    ever: bool,
}

impl Shown {
    /// The key is as this commit wrote it by now. Whether the lease ended since it was looked at.
    fn ended(&mut self, by: Option<Revision>) -> bool {
        let ended = self.ever && self.by != by;
        self.ever |= by.is_some();
        self.by = by;
        ended
    }
}

impl Gateway {
    /// Something happens now. A gap says that this gateway did not run.
    pub(crate) fn at(&mut self, clock: Clock) {
        let stopped = clock.now.since(self.clock.now) > STAMP_LIFE;
        self.clock = clock;
        if stopped {
            self.doubt_all();
        }
    }

    /// The clock of an OSD went on for so much longer than this gateway's, lately.
    pub(crate) fn stood_still(&mut self, time: Duration) {
        if mutant!(self.options, TrustOwnClock) {
            return;
        }
        self.freshness.stood_still(time);
        self.doubt_all();
    }

    /// Whether an OSD has yet to tell that this gateway did not stand still until now; some are asked.
    pub(crate) fn awaits_vouching(&mut self) -> bool {
        let now = self.clock.now;
        let waits = self.client.went_on().is_some_and(|until| until < now);
        if waits {
            self.client.ask_clocks(now, &mut self.from_client);
        }
        waits
    }

    /// A lease that ended may have done so because this gateway was stopped.
    pub(crate) fn look_for_own_lease(&mut self) {
        let own = self.client.map().gateways.get(&self.id);
        if self.shown.ended(own.map(|state| state.revision)) {
            self.doubt_all();
        }
    }

    /// It was stopped until now: clients that are connected may be gone.
    fn doubt_all(&mut self) {
        if mutant!(self.options, ReadAfterStop) {
            return;
        }
        self.woke = Some(self.clock.now);
        let standing = self.connections.values_mut().filter(|connection| !connection.gone);
        standing.for_each(|connection| connection.attendance.doubt(self.clock.now));
    }

    /// What is known of a client that connects now. It may have asked for that while this gateway was stopped.
    pub(crate) fn new_attendance(&self) -> Attendance {
        let now = self.clock.now;
        let mut attendance = Attendance::new(now);
        if self.has_just_woken() {
            attendance.doubt(now);
        }
        attendance
    }

    /// Whether it was stopped for long until just now.
    pub(crate) fn has_just_woken(&self) -> bool {
        self.woke.is_some_and(|woke| self.clock.now.since(woke) <= ROUND)
    }

    /// Whether nothing is made of a connection's input, `len` bytes by now.
    pub(crate) fn holds_back(&mut self, conn: ConnKey, len: usize, out: &mut Vec<Effect>) -> bool {
        let now = self.clock.now;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return false;
        };
        if connection.gone || !connection.attendance.holds_back(now, len) {
            return false;
        }
        out.push(Effect::Listen(conn));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Now {
        Now(ms * 1_000_000)
    }

    #[test]
    fn a_lease_ends_when_it_was_there() {
        let mut shown = Shown::default();
        let table = [
            (None, false),
            (Some(3), false),
            (Some(3), false),
            (None, true),
            (None, false),
            (Some(7), true),
            (Some(9), true),
            (Some(9), false),
        ];
        for (by, ended) in table {
            assert_eq!(shown.ended(by), ended, "{by:?}");
        }
    }

    #[test]
    fn what_is_heard_within_a_round_trip_says_nothing() {
        let mut doubt = Doubt::new(ms(100));
        // When something more comes if it does, when the client's host acknowledged something, since when all is clear.
        let table = [
            (None, None, None),
            (None, Some(99), None),
            (None, Some(600), None),
            (None, Some(601), Some(101)),
            (Some(300), Some(601), None),
            (None, Some(800), None),
            (None, Some(1500), Some(1000)),
        ];
        for (more, heard, there) in table {
            if let Some(more) = more {
                doubt.grows(ms(more));
            }
            assert_eq!(doubt.resolved(heard.map(ms)), there.map(ms), "{more:?} {heard:?}");
        }
        assert_eq!(doubt.since(), ms(100));
    }
}
