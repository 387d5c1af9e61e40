//! What is going to happen, in the order of time; what is due at the same time comes in the order of its making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use trivet_core::Now;

/// The queue of events. It moves small keys about, never the events.
#[derive(Debug)]
pub struct Schedule<T> {
    heap: BinaryHeap<Reverse<(Now, u64, u32)>>,
    events: Vec<Option<T>>,
    free: Vec<u32>,
    made: u64,
}

impl<T> Default for Schedule<T> {
    fn default() -> Schedule<T> {
        Schedule {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            made: 0,
        }
    }
}

impl<T> Schedule<T> {
    /// Lets something happen at that time.
    pub fn at(&mut self, when: Now, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("events are bounded")
        });
        self.events[place as usize] = Some(event);
        self.made += 1;
        self.heap.push(Reverse((when, self.made, place)));
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(Now, T)> {
        let Reverse((when, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.events[place as usize].take()?;
        Some((when, event))
    }

    /// When the next event is due.
    #[must_use]
    pub fn peek(&self) -> Option<Now> {
        self.heap.peek().map(|Reverse((when, ..))| *when)
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_their_making() {
        let mut schedule = Schedule::default();
        for (when, name) in [(5, 'd'), (1, 'a'), (1, 'b'), (3, 'c')] {
            schedule.at(Now(when), name);
        }
        assert_eq!(schedule.next(), Some((Now(1), 'a')));
        schedule.at(Now(1), 'x');
        let rest: String = std::iter::from_fn(|| schedule.next()).map(|(_, name)| name).collect();
        assert_eq!(rest, "bxcd");
        assert_eq!((schedule.len(), schedule.peek()), (0, None));
    }
}
