//! Marks: by which an OSD recognises the metadata store that it knows.
//!
//! The leading monitor raises the mark every few seconds: the count goes up by one, with a new random draw. An OSD keeps
//! the latest mark that it saw on its disk. A store that was copied earlier has a lower count, and one that went on from
//! such a copy has other draws: neither is the store that the OSD's data belongs to.

use serde::{Deserialize, Serialize};

use crate::ids::OsdId;
use crate::time::Now;

/// Draws that are kept: those of the last hours.
pub const KEPT: usize = 1000;

/// One moment in the life of a metadata store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// How often the mark was raised before.
    pub count: u64,
    /// Drawn anew each time.
    pub draw: u32,
}

impl Mark {
    /// The mark of a count that the monitor `by` makes at `now`. Its draw is as good as random: the monitor's id is, and one
    /// monitor makes no two marks at the same time.
    #[must_use]
    pub fn made(count: u64, by: u64, now: Now) -> Mark {
        let seed = [by, count, now.0].map(u64::to_le_bytes).concat();
        let draw = crc32c::crc32c(&seed);
        Mark { count, draw }
    }
}

/// The later one of the mark that was known and another one.
#[must_use]
pub fn later(known: Option<Mark>, other: Mark) -> Option<Mark> {
    Some(known.filter(|known| known.count >= other.count).unwrap_or(other))
}

/// Value of `config/mark`: the latest mark, and the draws of those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Marks {
    latest: Mark,
    /// Of the marks before the latest, the nearest first.
    before: Vec<u32>,
}

/// As it is in JSON: eight hexadecimal digits for each draw, the latest first.
#[derive(Serialize, Deserialize)]
struct Written {
    count: u64,
    draws: String,
}

impl Marks {
    /// A mark with nothing before it.
    #[must_use]
    pub fn first(latest: Mark) -> Marks {
        Marks {
            latest,
            before: Vec::new(),
        }
    }

    /// These, and then the next one.
    ///
    /// # Panics
    /// If its count is not the next one.
    #[must_use]
    pub fn followed_by(&self, next: Mark) -> Marks {
        assert_eq!(Some(next.count), self.latest.count.checked_add(1), "marks rise by one");
        let before = std::iter::once(self.latest.draw).chain(self.before.iter().copied());
        Marks {
            latest: next,
            before: before.take(KEPT - 1).collect(),
        }
    }

    /// The latest mark.
    #[must_use]
    pub fn latest(&self) -> Mark {
        self.latest
    }

    /// The mark that the store had at that count, if it is kept.
    fn at(&self, count: u64) -> Option<Mark> {
        let back = usize::try_from(self.latest.count.checked_sub(count)?).ok()?;
        let draw = match back.checked_sub(1) {
            None => Some(self.latest.draw),
            Some(index) => self.before.get(index).copied(),
        };
        Some(Mark { count, draw: draw? })
    }

    /// Why a store with these marks is not the one, or not of a later time, in which `seen` was the mark; none if it may
    /// be: what is not kept any more contradicts nothing.
    #[must_use]
    pub fn contradiction(&self, seen: Mark) -> Option<String> {
        let Mark { count, .. } = seen;
        if self.latest.count < count {
            return Some(format!("mark {} < {count}", self.latest.count));
        }
        let other = self.at(count).is_some_and(|known| known != seen);
        other.then(|| format!("mark {count} was drawn by another store"))
    }
}

impl From<Marks> for Written {
    fn from(marks: Marks) -> Written {
        let draws = std::iter::once(marks.latest.draw).chain(marks.before);
        Written {
            count: marks.latest.count,
            draws: draws.map(|draw| format!("{draw:08x}")).collect(),
        }
    }
}

impl TryFrom<Written> for Marks {
    type Error = String;

    fn try_from(written: Written) -> Result<Marks, String> {
        let digits = written.draws.as_bytes();
        let draw = |eight: &[u8]| {
            let text = std::str::from_utf8(eight).ok()?;
            u32::from_str_radix(text, 16).ok()
        };
        let draws: Option<Vec<u32>> = digits.chunks(8).take(KEPT).map(draw).collect();
        let mut draws = draws.ok_or("draws have eight hexadecimal digits each")?.into_iter();
        let latest = Mark {
            count: written.count,
            draw: draws.next().ok_or("there is no draw")?,
        };
        Ok(Marks {
            latest,
            before: draws.collect(),
        })
    }
}

/// Value of `config/halted`: nobody acts for any PG while it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// By what the metadata store was found not to be the one that the data belongs to.
    pub reason: String,
    /// The OSD that found it.
    pub by: OsdId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(count: u64, draw: u32) -> Mark {
        Mark { count, draw }
    }

    /// Marks up to a count, whose draws are ten times their counts.
    fn up_to(first: u64, last: u64) -> Marks {
        let draw = |count: u64| u32::try_from(10 * count).unwrap();
        let begin = Marks::first(mark(first, draw(first)));
        (first + 1..=last).fold(begin, |marks, count| marks.followed_by(mark(count, draw(count))))
    }

    #[test]
    fn a_store_that_goes_on_contradicts_nothing_that_was_seen_in_it() {
        let marks = up_to(1, 1500);
        for seen in [mark(1500, 15_000), mark(1499, 14_990), mark(501, 5010)] {
            assert_eq!(marks.contradiction(seen), None, "{seen:?}");
        }
        // What is not kept any more may have been so.
        assert_eq!(marks.contradiction(mark(500, 7)), None);
    }

    #[test]
    fn an_older_store_and_another_branch_are_told() {
        let marks = up_to(700, 812);
        let table = [
            (mark(1034, 10_340), Some("mark 812 < 1034")),
            (mark(813, 8130), Some("mark 812 < 813")),
            (mark(812, 1), Some("mark 812 was drawn by another store")),
            (mark(811, 1), Some("mark 811 was drawn by another store")),
            (mark(700, 1), Some("mark 700 was drawn by another store")),
            (mark(812, 8120), None),
            (mark(699, 1), None),
        ];
        for (seen, why) in table {
            assert_eq!(marks.contradiction(seen).as_deref(), why, "{seen:?}");
        }
    }

    #[test]
    fn values_round_trip_and_what_is_none_is_refused() {
        let marks = up_to(3, 5);
        let json = serde_json::to_string(&marks).unwrap();
        assert_eq!(json, r#"{"count":5,"draws":"00000032000000280000001e"}"#);
        assert_eq!(serde_json::from_str::<Marks>(&json).unwrap(), marks);
        for bad in [
            r#"{"count":5,"draws":""}"#,
            r#"{"count":5,"draws":"0000003x"}"#,
            r#"{"count":5,"draws":"00000032é"}"#,
        ] {
            assert!(serde_json::from_str::<Marks>(bad).is_err(), "{bad}");
        }
        let long = serde_json::to_string(&up_to(1, 1500)).unwrap();
        assert!(long.len() < 9000, "{}", long.len());
    }
}
