//! The monitor: decides where PGs live and who shall act for each of them, and keeps no data of its own.
//!
//! A pure machine: notices of the metadata store come in, transactions go out. Several monitors may run; one leads, and
//! every plan is written in a transaction that compares the leader's key and the plan it replaces. So it does no harm
//! when its mirror is stale, its lease is gone, or an outcome is unknown: then it looks again.
//! What it does not do yet: statistics, failure domains, out time, and placement by linear programming.

mod mutant;
mod placement;

use std::collections::BTreeMap;

use trivet_core::keys::{self, Leader, Plan};
use trivet_core::kv::{Change, Compare, LeaseId, Notice, Revision, Txn, TxnOutcome};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{OsdId, PoolId};

use mutant::mutant;

#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;

/// So many times [`Monitor::next`] waits for what should come, an outcome or a notice, before it gives it up: several
/// seconds of ticks. Asking too early does no harm.
const PATIENCE: u32 = 50;

/// What has to come before the next transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Nothing,
    /// The outcome of the one under way.
    Outcome,
    /// The mirror must have this commit, which the last outcome told of.
    Commit(Revision),
}

/// The monitor machine.
#[derive(Debug)]
pub struct Monitor {
    id: u64,
    lease: Option<LeaseId>,
    map: ClusterMap,
    awaited: Awaited,
    /// How often it has been waited for.
    waited: u32,
    #[cfg(any(test, feature = "mutants"))]
    mutant: Option<Mutant>,
}

impl Monitor {
    /// A monitor; `id` is drawn at random, its leadership hangs on `lease`.
    #[must_use]
    pub fn new(id: u64, lease: LeaseId) -> Monitor {
        Monitor {
            id,
            lease: Some(lease),
            map: ClusterMap::default(),
            awaited: Awaited::Nothing,
            waited: 0,
            #[cfg(any(test, feature = "mutants"))]
            mutant: None,
        }
    }

    /// A monitor with a deliberate bug.
    #[cfg(any(test, feature = "mutants"))]
    #[must_use]
    pub fn with_mutant(id: u64, lease: LeaseId, mutant: Mutant) -> Monitor {
        Monitor {
            mutant: Some(mutant),
            ..Monitor::new(id, lease)
        }
    }

    /// Its lease was lost, or there is another one. Without a lease it does nothing.
    pub fn lease(&mut self, lease: Option<LeaseId>) {
        self.lease = lease;
    }

    /// Takes in what the metadata store says.
    pub fn notice(&mut self, notice: &Notice) {
        self.map.apply(notice);
    }

    /// The transaction that this monitor wants to run now, if any. Call it after notices and with every tick; there is
    /// one under way at a time, which ends with [`Monitor::ended`].
    #[expect(clippy::should_implement_trait, reason = "there may be more after none")]
    pub fn next(&mut self) -> Option<Txn> {
        if self.has_to_wait() {
            return None;
        }
        let txn = self.wanted()?;
        self.wait_for(Awaited::Outcome);
        Some(txn)
    }

    /// What became of the transaction that [`Monitor::next`] returned last.
    pub fn ended(&mut self, outcome: TxnOutcome) {
        self.wait_for(match outcome {
            TxnOutcome::Committed(revision) | TxnOutcome::Refused(revision) => Awaited::Commit(revision),
            TxnOutcome::Unknown => Awaited::Nothing,
        });
    }

    fn wait_for(&mut self, awaited: Awaited) {
        self.awaited = awaited;
        self.waited = 0;
    }

    fn has_to_wait(&mut self) -> bool {
        self.waited += 1;
        let came = match self.awaited {
            Awaited::Nothing => true,
            Awaited::Outcome => false,
            Awaited::Commit(revision) => self.map.revision >= revision,
        };
        if came || self.waited > PATIENCE {
            self.wait_for(Awaited::Nothing);
        }
        self.awaited != Awaited::Nothing
    }

    fn wanted(&self) -> Option<Txn> {
        let lease = self.lease?;
        match &self.map.leader {
            _ if mutant!(self, TwoLeaders) => self.replan(None),
            None => Some(self.stand(lease)),
            Some(leader) if leader.value.id == self.id => self.replan(Some(leader.revision)),
            Some(_) => None,
        }
    }

    fn stand(&self, lease: LeaseId) -> Txn {
        let leader = Leader { id: self.id };
        let change = Change::Put {
            key: keys::LEADER.into(),
            value: encode(&leader),
            lease: Some(lease),
        };
        Txn {
            compare: vec![Compare::Absent(keys::LEADER.into())],
            changes: vec![change],
        }
    }

    fn replan(&self, leader: Option<Revision>) -> Option<Txn> {
        self.map.pools.keys().find_map(|&pool| self.replan_pool(pool, leader))
    }

    fn replan_pool(&self, id: PoolId, leader: Option<Revision>) -> Option<Txn> {
        let pool = &self.map.pools.get(&id)?.value;
        let weights: BTreeMap<OsdId, u64> = self.map.members.iter().map(|(&osd, c)| (osd, c.value.size)).collect();
        let current = self.map.plans.get(&id);
        let empty = Plan::default();
        let old = current.map_or(&empty, |plan| &plan.value);
        let mut plan = placement::place(old, &weights, pool.pg_count, pool.replicas);
        placement::choose_primaries(&mut plan, |osd| self.map.is_up(osd));
        if current.is_some_and(|current| current.value == plan) || weights.is_empty() {
            return None;
        }
        let key = keys::plan(id);
        let unchanged = match current {
            Some(current) => Compare::ModRevision(key.clone(), current.revision),
            None => Compare::Absent(key.clone()),
        };
        let leads = leader.map(|revision| Compare::ModRevision(keys::LEADER.into(), revision));
        let mut compare: Vec<Compare> = leads.into_iter().chain([unchanged]).collect();
        if mutant!(self, PlanWithoutCompare) {
            compare.clear();
        }
        Some(Txn {
            compare,
            changes: vec![Change::put(key, encode(&plan))],
        })
    }
}

#[cfg(test)]
mod tests;
