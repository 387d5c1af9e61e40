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

/// Empty windows that are kept.
const SPARE: usize = 64;

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

/// The mutations under way of every object.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Ascending by sequence; the first has no answer.
    objects: HashMap<ObjectId, VecDeque<Mutation>>,
    /// Those that are empty again, for the next objects.
    spare: Vec<VecDeque<Mutation>>,
}

impl Windows {
    /// A mutation that is going to be sent. Its sequence is above all others.
    pub(crate) fn issued(&mut self, object: ObjectId, sequence: u64, units: UnitMask) {
        let mutation = Mutation {
            sequence,
            units,
            place: Place::Here,
        };
        let window = self.objects.entry(object);
        window
            .or_insert_with(|| self.spare.pop().unwrap_or_default())
            .push_back(mutation);
    }

    /// A mutation is sent to this target, unless it has to wait: then none. The smallest sequence of the object without an
    /// answer, and the largest one before this, or 0.
    pub(crate) fn send(&mut self, now: Now, object: ObjectId, sequence: u64, target: Target) -> Option<(u64, u64)> {
        let window = self.objects.get_mut(&object)?;
        let at = window.partition_point(|mutation| mutation.sequence < sequence);
        let units = window.get(at).filter(|_| at < WINDOW)?.units;
        let mut before = window.range(..at);
        if before.any(|earlier| earlier.is_awaited(now, target) && earlier.units.intersects(units)) {
            return None;
        }
        window[at].place = Place::At(target);
        let open = window.range(..at).rev().find(|mutation| mutation.is_open());
        let previous = open.map_or(0, |mutation| mutation.sequence);
        window.front().map(|oldest| (oldest.sequence, previous))
    }

    /// A mutation is there now.
    pub(crate) fn moved(&mut self, object: ObjectId, sequence: u64, place: Place) {
        if let Some(window) = self.objects.get_mut(&object) {
            move_in(window, sequence, place);
        }
    }

    /// The mutations of an object that are here and may be sent as far as there is room for them, ascending.
    pub(crate) fn waiting(&self, object: ObjectId) -> Vec<u64> {
        let window = self.objects.get(&object).into_iter().flatten().take(WINDOW);
        let here = window.filter(|mutation| mutation.place == Place::Here);
        here.map(|mutation| mutation.sequence).collect()
    }

    /// A mutation was answered.
    pub(crate) fn answered(&mut self, object: ObjectId, sequence: u64) {
        let Entry::Occupied(mut entry) = self.objects.entry(object) else {
            return;
        };
        let window = entry.get_mut();
        move_in(window, sequence, Place::Answered);
        let gone = window.iter().take_while(|mutation| !mutation.is_open()).count();
        window.drain(..gone);
        if window.is_empty() {
            let spare = entry.remove();
            if self.spare.len() < SPARE {
                self.spare.push(spare);
            }
        }
    }
}

fn move_in(window: &mut VecDeque<Mutation>, sequence: u64, place: Place) {
    if let Ok(at) = window.binary_search_by_key(&sequence, |mutation| mutation.sequence) {
        window[at].place = place;
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

    fn target(epoch: u64) -> Target {
        Target {
            osd: OsdId(1),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn the_window_begins_with_the_oldest_without_an_answer() {
        let mut windows = Windows::default();
        // Each changes units of its own, as far as there are some.
        (0..W + 3).for_each(|sequence| windows.issued(OBJECT, sequence, UnitMask::EMPTY));
        let send = |windows: &mut Windows, sequence| windows.send(Now(0), OBJECT, sequence, target(1));
        for sequence in 0..W {
            assert_eq!(send(&mut windows, sequence), Some((0, sequence.saturating_sub(1))));
        }
        assert_eq!(send(&mut windows, W), None);
        // Answered, what comes back, the oldest without an answer.
        let table: [(u64, &[u64], u64); 4] = [
            (1, &[], 0),
            (2, &[], 0),
            (0, &[W, W + 1, W + 2], 3),
            (3, &[W, W + 1, W + 2], 4),
        ];
        for (sequence, admitted, oldest) in table {
            windows.answered(OBJECT, sequence);
            assert_eq!(windows.waiting(OBJECT), admitted, "{sequence}");
            assert_eq!(send(&mut windows, W - 1), Some((oldest, W - 2)), "{sequence}");
        }
        for sequence in W..W + 3 {
            assert_eq!(send(&mut windows, sequence), Some((4, sequence - 1)));
        }
        windows.answered(OBJECT, 5);
        assert_eq!(send(&mut windows, 6), Some((4, 4)), "5 is answered");
        assert_eq!(send(&mut windows, 4), Some((4, 0)));
    }

    #[test]
    fn what_changes_the_same_units_waits_for_what_was_before() {
        let second = |n: u64| Now(n * 1_000_000_000);
        // Where the first one is, and what has to wait, at a time, to go to the target.
        let table: [(Place, u64, &[u64]); 5] = [
            (Place::Here, 0, &[3, 4]),
            (Place::At(target(6)), 0, &[3, 4]),
            (Place::At(target(7)), 0, &[]),
            (Place::Late(second(5)), 6, &[3, 4]),
            (Place::Late(second(5)), 7, &[]),
        ];
        for (place, now, expected) in table {
            let mut windows = Windows::default();
            for (sequence, units) in [(1, 0b0011), (2, 0b1100), (3, 0b0010), (4, 0b0001)] {
                windows.issued(OBJECT, sequence, UnitMask(units));
            }
            windows.moved(OBJECT, 1, place);
            let mut waits = |sequence: &u64| windows.send(second(now), OBJECT, *sequence, target(7)).is_none();
            let found: Vec<u64> = (2..5).filter(&mut waits).collect();
            assert_eq!(found, expected, "{place:?} after {now} s");
            windows.answered(OBJECT, 1);
            assert_eq!(windows.waiting(OBJECT), expected, "they waited for it");
        }
    }

    #[test]
    fn nothing_is_kept_of_an_object_that_is_answered() {
        let mut windows = Windows::default();
        windows.issued(OBJECT, 7, UnitMask(1));
        windows.answered(OBJECT, 7);
        windows.answered(OBJECT, 7);
        assert!(windows.objects.is_empty());
    }
}
