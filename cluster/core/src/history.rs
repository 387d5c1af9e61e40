//! How a PG's history stays short: who must be heard before anybody acts again, without what follows from the rest.
//!
//! Each interval says: somebody of this acting set has to be heard, for each of them has all that the set acknowledged.
//! A later interval whose set is part of an earlier one's says more than that. So the earlier one can go, unless it is
//! the first: the first one was complete when its epoch began, and versions older than that are judged by it alone. After
//! the metadata was adopted all that were heard are the first together, each in an interval of its own of one epoch. The
//! last one stays as it is, too: its primary may still answer reads. Of intervals for PGs of an earlier generation,
//! each generation's PG has a first and a last one.
//!
//! What is left are different sets. Beyond a limit, two that have members in common become one that has only those: to
//! hear one of these is to hear somebody of both. That asks for more than is necessary, never for less. Sets that have
//! nobody in common are at most as many as there are OSDs.

use std::collections::BTreeMap;

use crate::OsdId;
use crate::keys::{Earlier, History, Interval};

impl History {
    /// Leaves out the intervals that say nothing that others do not say, and, beyond `limit` of one PG, makes one of
    /// two. Those that are not active stay.
    pub fn merge(&mut self, limit: usize) {
        drop_implied(&mut self.intervals);
        while self.most() > limit && make_one_of_two(&mut self.intervals) {
            drop_implied(&mut self.intervals);
        }
    }

    /// The active intervals of the PG that has most.
    fn most(&self) -> usize {
        let mut counts: BTreeMap<Option<Earlier>, usize> = BTreeMap::new();
        for interval in self.intervals.iter().filter(|interval| interval.active) {
            *counts.entry(interval.of).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }
}

/// Whether an interval is neither the first nor the last active one of its PG.
fn is_between(intervals: &[Interval], index: usize) -> bool {
    let own = &intervals[index];
    let same = |other: &&Interval| other.active && other.of == own.of;
    let is_earlier = |other: &Interval| same(&other) && other.epoch < own.epoch;
    own.active && intervals[..index].iter().any(is_earlier) && intervals[index + 1..].iter().any(|i| same(&i))
}

fn common(one: &Interval, other: &Interval) -> Vec<OsdId> {
    let shared = other.acting.iter().filter(|osd| one.acting.contains(osd));
    shared.copied().collect()
}

fn drop_implied(intervals: &mut Vec<Interval>) {
    let is_implied = |index: usize| {
        let own = &intervals[index];
        let says_more = |later: &Interval| {
            later.active && later.of == own.of && later.acting.iter().all(|osd| own.acting.contains(osd))
        };
        is_between(intervals, index) && intervals[index + 1..].iter().any(says_more)
    };
    let implied: Vec<bool> = (0..intervals.len()).map(is_implied).collect();
    let mut implied = implied.into_iter();
    intervals.retain(|_| implied.next() != Some(true));
}

/// Takes the two that have most members in common, of these the oldest. False if there are none.
fn make_one_of_two(intervals: &mut Vec<Interval>) -> bool {
    let between: Vec<usize> = (0..intervals.len())
        .filter(|&index| is_between(intervals, index))
        .collect();
    let mut best: Option<(usize, usize, Vec<OsdId>)> = None;
    for (at, &one) in between.iter().enumerate() {
        for &other in between[at + 1..]
            .iter()
            .filter(|&&other| intervals[other].of == intervals[one].of)
        {
            let shared = common(&intervals[one], &intervals[other]);
            if shared.len() > best.as_ref().map_or(0, |(.., shared)| shared.len()) {
                best = Some((one, other, shared));
            }
        }
    }
    let Some((one, other, shared)) = best else {
        return false;
    };
    intervals[other].acting = shared;
    intervals.remove(one);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    /// Intervals of epochs 1, 2, .. with these acting sets; "x12" is one for an earlier PG, "12?" is not active.
    fn history(text: &str) -> History {
        let parse = |(epoch, word): (u64, &str)| Interval {
            epoch: Epoch(epoch),
            acting: word.chars().filter_map(|c| c.to_digit(16)).map(OsdId).collect(),
            active: !word.ends_with('?'),
            of: word.starts_with('x').then_some(Earlier { count: 2, number: 0 }),
        };
        History {
            epoch: Epoch(99),
            intervals: (1..).zip(text.split_whitespace()).map(parse).collect(),
        }
    }

    fn words(history: &History) -> String {
        let word = |interval: &Interval| {
            let acting: String = interval.acting.iter().map(|osd| format!("{:x}", osd.0)).collect();
            let (before, after) = (interval.of.map_or("", |_| "x"), if interval.active { "" } else { "?" });
            format!("{before}{acting}@{}{after}", interval.epoch)
        };
        let words: Vec<String> = history.intervals.iter().map(word).collect();
        words.join(" ")
    }

    #[test]
    fn what_others_say_goes() {
        let table = [
            ("12", "12@1"),
            ("12 12", "12@1 12@2"),
            ("12 13 12 13 12", "12@1 13@4 12@5"),
            // The order of the members says who was primary: the last one counts.
            ("12 12 21 12 21", "12@1 21@5"),
            // A later part of a set says more; an earlier one does not.
            ("12 123 13 34", "12@1 13@3 34@4"),
            ("12 13 123 34", "12@1 13@2 123@3 34@4"),
            // Whoever does not serve yet says nothing.
            ("12 12 12 1?", "12@1 12@3 1@4?"),
            // PGs of an earlier generation are others.
            ("x12 x13 x12 x12 12 13 13", "x12@1 x13@2 x12@4 12@5 13@7"),
        ];
        for (text, expected) in table {
            let mut history = history(text);
            history.merge(32);
            assert_eq!(words(&history), expected, "{text}");
        }
    }

    #[test]
    fn beyond_the_limit_who_is_in_both_has_to_be_heard() {
        let table = [
            ("12 13 14 15 16", 4, "12@1 1@3 15@4 16@5"),
            ("12 13 14 15 16", 3, "12@1 1@4 16@5"),
            ("12 134 345 67 89", 4, "12@1 34@3 67@4 89@5"),
            // They have nobody in common.
            ("12 3 4 5 67", 2, "12@1 3@2 4@3 5@4 67@5"),
        ];
        for (text, limit, expected) in table {
            let mut history = history(text);
            history.merge(limit);
            assert_eq!(words(&history), expected, "{text}");
        }
    }

    /// Whether somebody of each active interval is there.
    fn is_heard(history: &History, present: u32) -> bool {
        let there = |osd: &OsdId| present >> osd.0 & 1 == 1;
        let mut active = history.intervals.iter().filter(|interval| interval.active);
        active.all(|interval| interval.acting.iter().any(there))
    }

    /// A PG that is never clean: each member of every set that acted has what that acknowledged. Whoever may act by the
    /// short history may act by the long one, too; and as long as the limit is not reached, the other way round.
    #[test]
    fn thousands_of_intervals_ask_for_no_less_than_they_did() {
        let mut seed = 5u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((seed >> 33) % n).unwrap()
        };
        for run in 0..20 {
            let (limit, osds) = if run % 2 == 0 { (1000, 5) } else { (4, 8) };
            let (mut long, mut short) = (history(""), history(""));
            for epoch in 1..1000 {
                let mut acting: Vec<OsdId> = (0..osds).filter(|_| random(3) == 0).map(OsdId).collect();
                if acting.is_empty() {
                    continue;
                }
                let first = random(3) as usize % acting.len();
                acting.rotate_left(first);
                let interval = Interval {
                    epoch: Epoch(epoch),
                    acting,
                    active: true,
                    of: None,
                };
                long.intervals.push(interval.clone());
                short.intervals.push(interval);
                short.merge(limit);
                // Sets that have nobody in common, the first and the last.
                let most = if limit == 4 { osds + 2 } else { 1 << osds };
                assert!(short.intervals.len() <= most as usize, "{}", words(&short));
                for present in (0..40).map(|_| random(1 << osds)) {
                    let (may, might) = (is_heard(&short, present), is_heard(&long, present));
                    assert!(might || !may, "{present:b} for {}", words(&short));
                    assert!(may == might || limit == 4, "{present:b} for {}", words(&short));
                }
            }
            assert_eq!(long.intervals.last(), short.intervals.last());
            assert_eq!(long.intervals.first(), short.intervals.first());
        }
    }

    /// Who was heard when the metadata was adopted: versions from before are judged by all of them.
    #[test]
    fn those_that_are_the_first_together_stay() {
        let mut history = history("1 2 3 2 31");
        for interval in &mut history.intervals[..3] {
            interval.epoch = Epoch(1);
        }
        for limit in [9, 1] {
            history.merge(limit);
            let first = history.intervals.iter().filter(|interval| interval.epoch == Epoch(1));
            assert_eq!(first.count(), 3, "{}", words(&history));
        }
    }
}
