//! What each sector of a region may hold after a crash: what the last
//! acknowledged write put there, or what a write that was in flight did.
//!
//! Writes in flight at the same time must not overlap; the writer sees to that.

use std::collections::BTreeSet;
use std::fmt;

use crate::stamp::{self, Found, SECTOR};

/// Sectors from `first` on.
#[derive(Debug)]
pub struct Ledger {
    first: u64,
    /// Sequence number that each sector surely held last (0: zeroes).
    settled: Vec<u64>,
    /// Issued, not acknowledged: sequence, first sector, sectors.
    open: Vec<(u64, u64, u64)>,
    sequence: u64,
    /// Sequence numbers of writes that were sent more than once.
    again: BTreeSet<u64>,
}

/// A sector that holds what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// Its number.
    pub sector: u64,
    /// The sequence number that it holds (0: zeroes); none if it is no whole stamp of this place.
    pub found: Option<u64>,
    /// The one that was acknowledged last.
    pub acknowledged: u64,
    /// What it holds is of a write that was sent more than once: an earlier copy of it came out late.
    pub again: bool,
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let twice = if self.again { ", which was sent twice" } else { "" };
        let (found, acknowledged) = (self.found, self.acknowledged);
        write!(
            out,
            "sector {}: found {found:?}{twice}, acknowledged {acknowledged}",
            self.sector
        )
    }
}

impl Ledger {
    /// A region of `count` sectors, all zero.
    #[must_use]
    pub fn new(first: u64, count: u64) -> Self {
        let settled = vec![0; usize::try_from(count).expect("a small region")];
        Self {
            first,
            settled,
            open: Vec::new(),
            sequence: 0,
            again: BTreeSet::new(),
        }
    }

    /// The same with sequence numbers that no other writer's ledger gives out, so that sectors of one are not
    /// taken for another's.
    #[must_use]
    pub fn of_writer(writer: u16, first: u64, count: u64) -> Self {
        Self {
            sequence: u64::from(writer) << 32,
            ..Self::new(first, count)
        }
    }

    /// The writes in flight (sequence, first sector, sectors), oldest first, of which the same data is about to be
    /// sent again: their connection is gone.
    pub fn resend(&mut self) -> Vec<(u64, u64, u64)> {
        self.again.extend(self.open.iter().map(|open| open.0));
        let mut open = self.open.clone();
        open.sort_unstable();
        open
    }

    /// The first sector and the number of sectors.
    #[must_use]
    pub fn region(&self) -> (u64, u64) {
        (self.first, u64::try_from(self.settled.len()).expect("64-bit lengths"))
    }

    /// Whether these sectors are free of writes in flight.
    #[must_use]
    pub fn is_free(&self, first: u64, count: u64) -> bool {
        self.open
            .iter()
            .all(|(_, at, len)| first + count <= *at || at + len <= first)
    }

    /// Notes a write before it is sent, and returns its sequence number.
    pub fn issue(&mut self, first: u64, count: u64) -> u64 {
        assert!(self.is_free(first, count), "writes in flight overlap");
        self.sequence += 1;
        self.open.push((self.sequence, first, count));
        self.sequence
    }

    /// Notes that the write has been acknowledged.
    pub fn acknowledge(&mut self, sequence: u64) {
        let at = self
            .open
            .iter()
            .position(|open| open.0 == sequence)
            .expect("an issued write");
        let (_, first, count) = self.open.swap_remove(at);
        for number in first..first + count {
            let index = self.index(number);
            self.settled[index] = sequence;
        }
    }

    /// Writes in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number - self.first).expect("inside the region")
    }

    /// Compares sectors from `number` on with what they may hold; what is
    /// found is settled from now on. Returns a line for each that is wrong.
    pub fn compare(&mut self, number: u64, data: &[u8]) -> Vec<String> {
        self.judge(number, data).iter().map(Wrong::to_string).collect()
    }

    /// The same; returns what is wrong.
    pub fn judge(&mut self, number: u64, data: &[u8]) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for (number, sector) in (number..).zip(data.chunks_exact(SECTOR)) {
            let found = match stamp::read(sector, number) {
                Found::Empty => Some(0),
                Found::Stamp(sequence) => Some(sequence),
                Found::Wrong => None,
            };
            let index = self.index(number);
            let settled = self.settled[index];
            match found {
                Some(sequence) if sequence == settled || self.is_open(sequence, number) => {
                    self.settled[index] = sequence
                }
                _ => wrong.push(Wrong {
                    sector: number,
                    found,
                    acknowledged: settled,
                    again: found.is_some_and(|sequence| self.again.contains(&sequence)),
                }),
            }
        }
        wrong
    }

    fn is_open(&self, sequence: u64, number: u64) -> bool {
        self.open
            .iter()
            .any(|(open, first, count)| *open == sequence && (*first..first + count).contains(&number))
    }

    /// After a crash and a full comparison: nothing is in flight any more.
    pub fn crashed(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use crate::stamp::{SECTOR, run};

    /// Sectors 10..14: write 1 acknowledged on all, write 2 in flight on 12..14.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(10, 4);
        assert_eq!(ledger.issue(10, 4), 1);
        ledger.acknowledge(1);
        assert_eq!(ledger.issue(12, 2), 2);
        ledger
    }

    #[test]
    fn accepts_what_may_be() {
        let old = run(10, 4, 1);
        let half = [run(10, 3, 1), run(13, 1, 2)].concat();
        for data in [old, half] {
            assert_eq!(ledger().compare(10, &data), Vec::<String>::new());
        }
    }

    #[test]
    fn refuses_what_may_not_be() {
        let zero = vec![0; SECTOR];
        let table = [
            ("lost", [run(10, 3, 1), zero].concat()),
            ("invented", [run(10, 3, 1), run(13, 1, 3)].concat()),
            ("in flight elsewhere", [run(10, 1, 2), run(11, 3, 1)].concat()),
            ("misplaced", [run(11, 1, 1), run(11, 3, 1)].concat()),
        ];
        for (name, data) in table {
            assert_eq!(ledger().compare(10, &data).len(), 1, "{name}");
        }
    }

    #[test]
    fn what_was_read_once_must_stay() {
        let mut ledger = ledger();
        assert!(ledger.compare(10, &[run(10, 2, 1), run(12, 2, 2)].concat()).is_empty());
        ledger.crashed();
        assert_eq!(ledger.compare(10, &run(10, 4, 1)).len(), 2, "went back");
    }

    #[test]
    fn a_write_that_is_sent_again_may_not_come_after_a_later_one() {
        let mut ledger = Ledger::of_writer(3, 0, 2);
        let first = ledger.issue(0, 2);
        assert_eq!(first, (3 << 32) + 1);
        assert_eq!(ledger.resend(), vec![(first, 0, 2)]);
        ledger.acknowledge(first);
        let second = ledger.issue(0, 1);
        ledger.acknowledge(second);
        let wrong = ledger.compare(0, &run(0, 2, first));
        assert!(wrong.len() == 1 && wrong[0].contains("sent twice"), "{wrong:?}");
    }
}
