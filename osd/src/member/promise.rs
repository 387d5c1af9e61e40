//! What this OSD, as a member, promised to primaries: that nobody else starts to act before a while has passed. A primary
//! answers reads from its own copy as long as all members keep such a promise, so that a primary that was replaced
//! without knowing it never answers what is old.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::message::{LEASE, LEASE_MARGIN, Promise};
use trivet_core::{Now, OsdId, PgId, PoolId};

/// What was promised, and to whom.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// Of a pool's PGs it is not known what was promised: until here, anything may have been, before the restart or to
    /// primaries of earlier generations.
    unknown_until: BTreeMap<PoolId, Now>,
    /// Until when each primary was promised something, for all of its PGs together.
    given: BTreeMap<OsdId, Now>,
    /// Whose epoch was accepted last.
    accepted_by: BTreeMap<PgId, OsdId>,
    /// What was still promised to earlier primaries when the present one was accepted.
    standing: BTreeMap<PgId, (Option<OsdId>, Now)>,
}

impl Promises {
    /// The OSD has restarted, and had accepted epochs of these PGs; of pools that it had no part in, nothing was promised.
    pub(crate) fn restarted(&mut self, accepted: impl IntoIterator<Item = PgId>, now: Now) {
        let until = now + LEASE + LEASE_MARGIN;
        self.unknown_until = accepted.into_iter().map(|pg| (pg.pool, until)).collect();
    }

    /// With this PG a generation takes over: its objects were in other PGs, whose primaries may have been promised
    /// anything until now.
    pub(crate) fn renumbered(&mut self, pg: PgId, now: Now) {
        self.unknown_until.insert(pg.pool, now + LEASE + LEASE_MARGIN);
        let is_over = |old: &PgId| old.pool == pg.pool && old.generation < pg.generation;
        self.accepted_by.retain(|old, _| !is_over(old));
        self.standing.retain(|old, _| !is_over(old));
    }

    /// A promise to a primary whose epochs are the accepted ones.
    pub(crate) fn give(&mut self, to: OsdId, now: Now) {
        self.given.insert(to, now + LEASE + LEASE_MARGIN);
    }

    /// A primary asks about an epoch that is the accepted one: after a restart this shows whose it is.
    pub(crate) fn confirmed(&mut self, pg: PgId, from: OsdId, now: Now) {
        if !self.accepted_by.contains_key(&pg) {
            self.accept(pg, from, now);
        }
    }

    /// A primary's higher epoch is accepted: nothing more is promised to the one before.
    pub(crate) fn accept(&mut self, pg: PgId, from: OsdId, now: Now) {
        let mut standing = self.standing.get(&pg).copied().filter(|(_, until)| *until > now);
        let mut add = |to: Option<OsdId>, until: Now| {
            if until > now {
                standing = Some(match standing {
                    Some((other, late)) => (to.filter(|_| other == to), until.max(late)),
                    None => (to, until),
                });
            }
        };
        match self.accepted_by.insert(pg, from) {
            Some(old) => {
                if let Some(&until) = self.given.get(&old) {
                    add(Some(old), until);
                }
            }
            None => {
                add(None, self.unknown_until.get(&pg.pool).copied().unwrap_or_default());
            }
        }
        match standing {
            Some(standing) => drop(self.standing.insert(pg, standing)),
            None => drop(self.standing.remove(&pg)),
        }
    }

    /// What the primary that was accepted last has to wait for.
    pub(crate) fn standing(&self, pg: PgId, now: Now) -> Option<Promise> {
        let &(to, until) = self.standing.get(&pg)?;
        let left = until.since(now);
        let own = to.is_some() && to == self.accepted_by.get(&pg).copied();
        (left > Duration::ZERO && !own).then_some(Promise { to, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PG: PgId = PgId::first(PoolId(1), 0);

    fn at(millis: u64) -> Now {
        Now(millis * 1_000_000)
    }

    #[test]
    fn a_new_primary_learns_what_the_old_one_was_promised() {
        let mut promises = Promises::default();
        promises.accept(PG, OsdId(1), at(1000));
        assert_eq!(promises.standing(PG, at(1000)), None);
        promises.give(OsdId(1), at(2000));
        promises.accept(PG, OsdId(2), at(2100));
        let left = LEASE + LEASE_MARGIN;
        let expected = |to, passed| {
            Some(Promise {
                to,
                left: left.saturating_sub(Duration::from_millis(passed)),
            })
        };
        assert_eq!(promises.standing(PG, at(2100)), expected(Some(OsdId(1)), 100));
        // The next one learns of both.
        promises.give(OsdId(2), at(2200));
        promises.accept(PG, OsdId(3), at(2300));
        assert_eq!(promises.standing(PG, at(2300)), expected(None, 100));
        assert_eq!(promises.standing(PG, at(2200) + left), None);
    }

    #[test]
    fn who_is_claimed_again_by_the_same_primary_has_nothing_to_wait_for() {
        let mut promises = Promises::default();
        promises.accept(PG, OsdId(1), at(0));
        promises.give(OsdId(1), at(10));
        promises.accept(PG, OsdId(1), at(20));
        assert_eq!(promises.standing(PG, at(20)), None);
    }

    #[test]
    fn a_new_generation_waits_for_what_any_earlier_primary_was_promised() {
        let mut promises = Promises::default();
        let left = LEASE + LEASE_MARGIN;
        promises.accept(PG, OsdId(1), at(0));
        promises.give(OsdId(1), at(1000));
        let heir = PgId {
            generation: 1,
            number: 7,
            ..PG
        };
        promises.renumbered(heir, at(1100));
        for (pg, from) in [(heir, OsdId(1)), (PgId { number: 8, ..heir }, OsdId(2))] {
            promises.accept(pg, from, at(1200));
            let left = left.saturating_sub(Duration::from_millis(100));
            assert_eq!(promises.standing(pg, at(1200)), Some(Promise { to: None, left }));
        }
        assert_eq!(promises.standing(heir, at(1100) + left), None);
    }

    #[test]
    fn after_a_restart_promises_to_the_same_primary_count() {
        let mut promises = Promises::default();
        promises.restarted([PG], at(0));
        promises.confirmed(PG, OsdId(1), at(300));
        promises.give(OsdId(1), at(5000));
        promises.accept(PG, OsdId(2), at(5100));
        let left = LEASE + LEASE_MARGIN - Duration::from_millis(100);
        let to = Some(OsdId(1));
        assert_eq!(promises.standing(PG, at(5100)), Some(Promise { to, left }));
        // What was promised before the restart counts all the same.
        let mut promises = Promises::default();
        promises.restarted([PG], at(0));
        promises.confirmed(PG, OsdId(1), at(100));
        promises.accept(PG, OsdId(2), at(200));
        assert!(promises.standing(PG, at(200)).is_some());
    }

    #[test]
    fn after_a_restart_anything_may_have_been_promised() {
        let mut promises = Promises::default();
        promises.restarted([PG], at(0));
        promises.accept(PG, OsdId(1), at(100));
        let promise = promises.standing(PG, at(100)).unwrap();
        assert_eq!(
            (promise.to, promise.left),
            (None, LEASE + LEASE_MARGIN - Duration::from_millis(100))
        );
        let new = PgId::first(PoolId(2), 0);
        promises.accept(new, OsdId(1), at(100));
        assert_eq!(
            promises.standing(new, at(100)),
            None,
            "the OSD had no part in this pool"
        );
    }
}
