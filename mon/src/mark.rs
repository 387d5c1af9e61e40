//! The mark by which OSDs recognise the metadata store: the leader raises it every few seconds.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Txn};
use trivet_core::map::encode;
use trivet_core::mark::{Mark, Marks};

use crate::{Guard, LOOK, Monitor};

/// How often the mark is raised. A copy of the store that is younger than this is told only by what it says of PGs and
/// images.
const INTERVAL: Duration = Duration::from_secs(10);

impl Monitor {
    /// The next mark, if it is due.
    pub(crate) fn raise_mark(&mut self, guard: Guard, now: Now) -> Option<Txn> {
        // Who has just begun to lead has more urgent things to do.
        if now < *self.mark_due.get_or_insert(now + LOOK) {
            return None;
        }
        let (same, next) = match &self.map.mark {
            Some(known) => {
                let count = known.value.latest().count.checked_add(1)?;
                let next = known.value.followed_by(Mark::made(count, self.id, now));
                (Compare::ModRevision(keys::MARK.to_owned(), known.revision), next)
            }
            None => {
                let first = Marks::first(Mark::made(1, self.id, now));
                (Compare::Absent(keys::MARK.to_owned()), first)
            }
        };
        self.mark_due = Some(now + INTERVAL);
        let not_halted = Compare::Absent(keys::HALTED.to_owned());
        let change = Change::put(keys::MARK, encode(&next));
        Some(guard.txn(vec![same, not_halted], vec![change]))
    }
}
