//! What came while this gateway was stopped.
//!
//! Behind it there may be an end that is still on its way: its client turned to another gateway, repeated all of it there
//! and wrote something newer. So nothing is made of it until the client has been heard of a round trip after the last of
//! it; an end that shows up meanwhile takes it along. A client that waited patiently is served on and notices a delay.
//! Decision 0012 has the reasons.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::message::STAMP_LIFE;

use crate::gateway::{Clock, ConnKey, Effect, Gateway};

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

impl Gateway {
    /// Something happens now. A gap says that this gateway did not run: what came meanwhile may be of clients that are gone.
    pub(crate) fn at(&mut self, clock: Clock) {
        if clock.now.since(self.clock.now) > STAMP_LIFE {
            self.stopped_from = Some(self.clock.now);
        }
        self.clock = clock;
    }

    /// Whether nothing is made of a connection's input, `len` bytes by now, what is new of them later than `quiet`:
    /// it may have come while this gateway was stopped.
    pub(crate) fn holds_back(&mut self, conn: ConnKey, len: usize, quiet: Now, out: &mut Vec<Effect>) -> bool {
        let stopped = self.stopped_from.is_some_and(|from| quiet <= from);
        let now = self.clock.now;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return false;
        };
        if connection.gone || !connection.attendance.holds_back(now, len, stopped) {
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
