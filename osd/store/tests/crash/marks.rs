//! What the store must know of the marks that it was asked to keep.

use trivet_core::mark::Mark;
use trivet_store::Request;

use crate::Violation;

/// The highest marks that the store was asked to keep, and that it said it has. Marks are asked for in rising order.
#[derive(Clone, Copy, Default)]
pub struct Marks {
    asked: u64,
    answered: u64,
}

impl Marks {
    /// The mark of a count.
    fn mark(count: u64) -> Mark {
        let draw = u32::try_from(count % 1000).expect("small") * 7;
        Mark { count, draw }
    }

    /// Asks for the next one to be kept.
    pub fn next(&self) -> Request {
        let mark = Marks::mark(self.asked + 1);
        Request::KeepMark { mark }
    }

    pub fn ask(&mut self, mark: Mark) {
        self.asked = self.asked.max(mark.count);
    }

    pub fn answer(&mut self, mark: Mark) -> Result<(), Violation> {
        if mark.count > self.asked {
            return Err(Violation(format!("mark {} was not asked for", mark.count)));
        }
        self.answered = self.answered.max(mark.count);
        Ok(())
    }

    /// After a crash: what is kept is what was answered, or a later one that was asked for.
    pub fn survived(self, kept: Option<Mark>) -> Result<Marks, Violation> {
        let count = kept.map_or(0, |mark| mark.count);
        let possible = (self.answered..=self.asked).contains(&count);
        if possible && kept.is_none_or(|mark| mark == Marks::mark(count)) {
            return Ok(Marks {
                asked: count,
                answered: count,
            });
        }
        Err(Violation(format!(
            "{kept:?} is kept, of {} that were answered and {} asked for",
            self.answered, self.asked
        )))
    }
}
