//! What the acting set still lacks: the objects that peering found missing, or that became unequal later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trivet_core::{Now, ObjectId, UnitMask};

use crate::primary::decide::Missing;

/// Objects of one PG that are healed at the same time in the background.
pub(crate) const WINDOW: usize = 16;

/// An object that could not be healed is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// The objects that are not equal on the whole acting set.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub missing: BTreeMap<ObjectId, Missing>,
    /// Those of `missing` that are deletions and were not begun: they go first, for they make room.
    pub deletions: Vec<ObjectId>,
    /// Objects of `missing` that are being healed.
    pub healing: BTreeSet<ObjectId>,
    /// Objects of `missing` that could not be healed for now.
    pub stuck: VecDeque<(Now, ObjectId)>,
    /// Of objects that could not be repaired: the units of which no copy can be read, and what else the own copy lacks.
    pub lost: BTreeMap<ObjectId, UnitMask>,
}

impl Recovery {
    /// What peering has decided.
    pub(crate) fn of(missing: BTreeMap<ObjectId, Missing>) -> Recovery {
        let deletions = missing.iter().filter(|(_, missing)| missing.newest.tombstone);
        Recovery {
            deletions: deletions.map(|(&object, _)| object).collect(),
            missing,
            ..Recovery::default()
        }
    }

    /// How many copies the next object has; none if nothing is missing, or enough of it is being healed.
    pub(crate) fn urgency(&self) -> Option<usize> {
        let next = self.missing.values().next().filter(|_| self.healing.len() < WINDOW);
        next.map(|missing| missing.sources.len())
    }

    /// The object to be healed next in the background.
    pub(crate) fn next(&mut self, now: Now) -> Option<ObjectId> {
        while self.stuck.front().is_some_and(|(since, _)| now.since(*since) >= RETRY) {
            self.stuck.pop_front();
        }
        if self.healing.len() >= WINDOW {
            return None;
        }
        let Recovery {
            missing,
            deletions,
            healing,
            stuck,
            ..
        } = self;
        let is_stuck = |object: &ObjectId| stuck.iter().any(|(_, s)| s == object);
        let may_start = |object: &ObjectId| !healing.contains(object) && !is_stuck(object);
        let deletion = std::iter::from_fn(|| deletions.pop()).find(|o| missing.contains_key(o) && may_start(o));
        deletion.or_else(|| missing.keys().copied().find(may_start))
    }

    /// Whether some member may still have to delete something.
    pub(crate) fn is_deleting(&self) -> bool {
        let is_deletion = |object| self.missing.get(object).is_some_and(|missing| missing.newest.tombstone);
        !self.deletions.is_empty() || self.healing.iter().any(is_deletion)
    }
}
