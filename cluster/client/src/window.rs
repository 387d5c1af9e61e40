//! The mutations of each object that are under way, oldest first: which of them may be sent, and which sequence the
//! oldest without an answer has.
//!
//! An object remembers [`MAX_OPS`] operations. So that it still knows the oldest one that may be repeated, only the
//! [`WINDOW`] mutations from that one on are sent, whether the later of them are answered or not; the others wait.
//!
//! Those of the same bytes are executed in their order: one waits while an earlier one is not where it would be sent. What
//! a client of the gateway wrote before comes out before what another one writes, though its primary fails meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use trivet_core::mutation::MAX_OPS;
use trivet_core::{Now, ObjectId, UnitMask};

use crate::dispatch::Target;

/// Mutations of one object, from the oldest without an answer, that are sent: half of what the object remembers, for
/// another client may write it as well.
pub(crate) const WINDOW: usize = MAX_OPS / 2;

/// Nobody waits longer for a mutation that came late: its caller may be gone, and nothing shows it.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Mutation {
    sequence: u64,
    units: UnitMask,
    place: Place,
}

/// Where a mutation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here: it was not sent, or was refused, or may be lost.
    Here,
    /// Here since then: it came late, and waits for a sign of its caller.
    Late(Now),
    /// It was sent there.
    At(Target),
    /// Nowhere: it is answered.
    Answered,
}

impl Mutation {
    fn is_open(&self) -> bool {
        self.place != Place::Answered
    }

    /// Whether it goes before what is sent to this target.
    fn is_awaited(&self, now: Now, target: Target) -> bool {
        match self.place {
            Place::Here => true,
            Place::Late(since) => now.since(since) < PATIENCE,
            Place::At(at) => at != target,
            Place::Answered => false,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Ascending by sequence; the first has no answer.
    objects: HashMap<ObjectId, VecDeque<Mutation>>,
}

impl Windows {
    /// A mutation that is going to be sent. Its sequence is above all others.
    pub(crate) fn issued(&mut self, object: ObjectId, sequence: u64, units: UnitMask) {
        let mutation = Mutation {
            sequence,
            units,
            place: Place::Here,
        };
        self.objects.entry(object).or_default().push_back(mutation);
    }

    /// The smallest sequence without an answer, and the largest one before the mutation `sequence`, or 0; none while that
    /// has to wait.
    pub(crate) fn unanswered(&self, object: ObjectId, sequence: u64) -> Option<(u64, u64)> {
        let window = self.objects.get(&object)?;
        if window.get(WINDOW).is_some_and(|first| first.sequence <= sequence) {
            return None;
        }
        let before = window.partition_point(|mutation| mutation.sequence < sequence);
        let open = window.range(..before).rev().find(|mutation| mutation.is_open());
        let previous = open.map_or(0, |mutation| mutation.sequence);
        window.front().map(|oldest| (oldest.sequence, previous))
    }

    fn find(&mut self, object: ObjectId, sequence: u64) -> Option<&mut Mutation> {
        let window = self.objects.get_mut(&object)?;
        let at = window
            .binary_search_by_key(&sequence, |mutation| mutation.sequence)
            .ok()?;
        window.get_mut(at)
    }

    /// A mutation is there now. Returns where it was.
    pub(crate) fn moved(&mut self, object: ObjectId, sequence: u64, place: Place) -> Option<Place> {
        let mutation = self.find(object, sequence)?;
        Some(std::mem::replace(&mut mutation.place, place))
    }

    /// Whether a mutation has to wait until an earlier one of the same units is at this target, too.
    pub(crate) fn is_behind(&self, now: Now, object: ObjectId, sequence: u64, target: Target) -> bool {
        let Some(window) = self.objects.get(&object) else {
            return false;
        };
        let before = window.partition_point(|mutation| mutation.sequence < sequence);
        let Some(units) = window.get(before).map(|mutation| mutation.units) else {
            return false;
        };
        let mut earlier = window.range(..before);
        earlier.any(|mutation| mutation.is_awaited(now, target) && mutation.units.intersects(units))
    }

    /// The mutations of an object without an answer that come after this one, ascending.
    pub(crate) fn after(&self, object: ObjectId, sequence: u64) -> Vec<u64> {
        let window = self.objects.get(&object).into_iter().flatten();
        let after = window.filter(|mutation| mutation.is_open() && mutation.sequence > sequence);
        after.map(|mutation| mutation.sequence).collect()
    }

    /// A mutation was answered. Those that need not wait any more come back, ascending.
    pub(crate) fn answered(&mut self, object: ObjectId, sequence: u64) -> Vec<u64> {
        let place = self.moved(object, sequence, Place::Answered);
        let Entry::Occupied(mut entry) = self.objects.entry(object) else {
            return Vec::new();
        };
        let window = entry.get_mut();
        let gone = window.iter().take_while(|mutation| !mutation.is_open()).count();
        window.drain(..gone);
        if window.is_empty() {
            entry.remove();
            return Vec::new();
        }
        // Where it was not, others may have waited for it.
        if matches!(place, Some(Place::Here | Place::Late(_))) {
            return self.after(object, sequence);
        }
        let admitted = window.iter().take(WINDOW).skip(WINDOW - gone.min(WINDOW));
        admitted.map(|mutation| mutation.sequence).collect()
    }
}

#[cfg(test)]
mod tests {
    use trivet_core::{Epoch, ImageId, OsdId};

    use super::*;

    const OBJECT: ObjectId = ObjectId {
        image: ImageId(1),
        number: 2,
    };
    const W: u64 = WINDOW as u64;

    #[test]
    fn the_window_begins_with_the_oldest_without_an_answer() {
        let mut windows = Windows::default();
        for sequence in 0..W + 3 {
            windows.issued(OBJECT, sequence, UnitMask(1));
            windows.moved(OBJECT, sequence, Place::At(target(1)));
        }
        assert_eq!(windows.unanswered(OBJECT, W - 1), Some((0, W - 2)));
        assert_eq!(windows.unanswered(OBJECT, W), None);
        // Answered, what comes back, the oldest without an answer.
        let table: [(u64, &[u64], u64); 4] = [(1, &[], 0), (2, &[], 0), (0, &[W, W + 1, W + 2], 3), (3, &[], 4)];
        for (sequence, admitted, oldest) in table {
            assert_eq!(windows.answered(OBJECT, sequence), admitted, "{sequence}");
            assert_eq!(windows.unanswered(OBJECT, W - 1), Some((oldest, W - 2)), "{sequence}");
        }
        assert_eq!(windows.unanswered(OBJECT, W + 2), Some((4, W + 1)));
        assert_eq!(windows.answered(OBJECT, 5), [] as [u64; 0]);
        assert_eq!(windows.unanswered(OBJECT, 6), Some((4, 4)), "5 is answered");
        assert_eq!(windows.unanswered(OBJECT, 4), Some((4, 0)));
    }

    fn target(epoch: u64) -> Target {
        Target {
            osd: OsdId(1),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn what_changes_the_same_units_waits_for_what_was_before() {
        let mut windows = Windows::default();
        for (sequence, units) in [(1, 0b0011), (2, 0b1100), (3, 0b0110), (4, 0b0001)] {
            windows.issued(OBJECT, sequence, UnitMask(units));
        }
        // Where the first one is, and what has to wait, at a time, to go to the target.
        let second = |n: u64| Now(n * 1_000_000_000);
        let table: [(Place, u64, &[u64]); 5] = [
            (Place::Here, 0, &[3, 4]),
            (Place::At(target(6)), 0, &[3, 4]),
            (Place::At(target(7)), 0, &[3]),
            (Place::Late(second(5)), 6, &[3, 4]),
            (Place::Late(second(5)), 7, &[3]),
        ];
        for (place, now, waiting) in table {
            windows.moved(OBJECT, 1, place);
            let behind = |&sequence: &u64| windows.is_behind(second(now), OBJECT, sequence, target(7));
            let found: Vec<u64> = (1..5).filter(behind).collect();
            assert_eq!(found, waiting, "{place:?} after {now} s");
        }
        assert_eq!(windows.answered(OBJECT, 1), [2, 3, 4], "it was here");
        windows.moved(OBJECT, 2, Place::At(target(7)));
        assert!(!windows.is_behind(second(0), OBJECT, 3, target(7)));
    }

    #[test]
    fn nothing_is_kept_of_an_object_that_is_answered() {
        let mut windows = Windows::default();
        windows.issued(OBJECT, 7, UnitMask(1));
        assert!(windows.answered(OBJECT, 7).is_empty());
        assert!(windows.answered(OBJECT, 7).is_empty(), "a repeated answer");
        assert!(windows.objects.is_empty());
    }
}
