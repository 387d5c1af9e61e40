//! PGs that do not serve clients: those that are changing hands, and those that nobody takes.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::{Now, PgId};

/// A PG that serves again within this time was changing hands: that takes up to a second, and is nobody's concern.
const GRACE: Duration = Duration::from_secs(2);

/// Since when each PG that serves nobody has done so.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Since when PGs do not serve, as far as anybody looked.
    since: BTreeMap<PgId, Now>,
}

impl Moving {
    /// These do not serve now. Call it about once a second.
    pub(super) fn look(&mut self, now: Now, idle: impl Iterator<Item = PgId>) {
        self.since = idle
            .map(|pg| (pg, self.since.get(&pg).copied().unwrap_or(now)))
            .collect();
    }

    /// Whether a PG that does not serve has not done so for long.
    pub(super) fn is_stuck(&self, now: Now, pg: PgId) -> bool {
        self.since.get(&pg).is_some_and(|since| now.since(*since) >= GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::PoolId;

    #[test]
    fn only_what_stays_idle_is_stuck() {
        let (one, two) = (PgId::first(PoolId(1), 1), PgId::first(PoolId(1), 2));
        let at = |second: u64| Now(second * 1_000_000_000);
        let mut moving = Moving::default();
        moving.look(at(10), [one, two].into_iter());
        moving.look(at(11), [one].into_iter());
        assert!(!moving.is_stuck(at(11), one));
        moving.look(at(12), [one, two].into_iter());
        assert!(moving.is_stuck(at(12), one) && !moving.is_stuck(at(12), two));
    }
}
