//! The mutations of each object that are under way, oldest first: which of them may be sent, and which sequence the
//! oldest without an answer has.
//!
//! An object remembers [`MAX_OPS`] operations. So that it still knows the oldest one that may be repeated, only the
//! [`WINDOW`] mutations from that one on are sent, whether the later of them are answered or not; the others wait.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use trivet_core::ObjectId;
use trivet_core::mutation::MAX_OPS;

/// Mutations of one object, from the oldest without an answer, that are sent: half of what the object remembers, for
/// another client may write it as well.
pub(crate) const WINDOW: usize = MAX_OPS / 2;

#[derive(Debug)]
struct Mutation {
    sequence: u64,
    answered: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Ascending by sequence; the first has no answer.
    objects: HashMap<ObjectId, VecDeque<Mutation>>,
}

impl Windows {
    /// A mutation that is going to be sent. Its sequence is above all others.
    pub(crate) fn issued(&mut self, object: ObjectId, sequence: u64) {
        let mutation = Mutation {
            sequence,
            answered: false,
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
        let open = window.range(..before).rev().find(|mutation| !mutation.answered);
        let previous = open.map_or(0, |mutation| mutation.sequence);
        window.front().map(|oldest| (oldest.sequence, previous))
    }

    /// A mutation was answered. Those that need not wait any more come back, ascending.
    pub(crate) fn answered(&mut self, object: ObjectId, sequence: u64) -> Vec<u64> {
        let Entry::Occupied(mut entry) = self.objects.entry(object) else {
            return Vec::new();
        };
        let window = entry.get_mut();
        if let Ok(at) = window.binary_search_by_key(&sequence, |mutation| mutation.sequence) {
            window[at].answered = true;
        }
        let gone = window.iter().take_while(|mutation| mutation.answered).count();
        window.drain(..gone);
        if window.is_empty() {
            entry.remove();
            return Vec::new();
        }
        let admitted = window.iter().take(WINDOW).skip(WINDOW - gone.min(WINDOW));
        admitted.map(|mutation| mutation.sequence).collect()
    }
}

#[cfg(test)]
mod tests {
    use trivet_core::ImageId;

    use super::*;

    const OBJECT: ObjectId = ObjectId {
        image: ImageId(1),
        number: 2,
    };
    const W: u64 = WINDOW as u64;

    #[test]
    fn the_window_begins_with_the_oldest_without_an_answer() {
        let mut windows = Windows::default();
        (0..W + 3).for_each(|sequence| windows.issued(OBJECT, sequence));
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

    #[test]
    fn nothing_is_kept_of_an_object_that_is_answered() {
        let mut windows = Windows::default();
        windows.issued(OBJECT, 7);
        assert!(windows.answered(OBJECT, 7).is_empty());
        assert!(windows.answered(OBJECT, 7).is_empty(), "a repeated answer");
        assert!(windows.objects.is_empty());
    }
}
