//! The monitor: decides where PGs live and who shall act for each of them, and keeps no data of its own.
//!
//! A pure machine: notices of the metadata store come in, transactions go out. Several monitors may run; one leads, and
//! every plan is written in a transaction that compares the leader's key and the plan it replaces.
//! What it does not do yet: statistics, failure domains, out time, and placement by linear programming.

mod placement;

use std::collections::BTreeMap;

use trivet_core::keys::{self, Leader, Plan};
use trivet_core::kv::{Change, Compare, LeaseId, Notice, Txn};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{OsdId, PoolId};

/// The monitor machine.
#[derive(Debug)]
pub struct Monitor {
    id: u64,
    lease: LeaseId,
    map: ClusterMap,
}

impl Monitor {
    /// A monitor; `id` is drawn at random, its leadership hangs on `lease`.
    #[must_use]
    pub fn new(id: u64, lease: LeaseId) -> Monitor {
        Monitor {
            id,
            lease,
            map: ClusterMap::default(),
        }
    }

    /// Takes in what the metadata store says.
    pub fn notice(&mut self, notice: &Notice) {
        self.map.apply(notice);
    }

    /// The transaction that this monitor wants to run now, if any. Ask again after its outcome was noticed.
    #[must_use]
    pub fn next(&self) -> Option<Txn> {
        match &self.map.leader {
            None => Some(self.stand()),
            Some(leader) if leader.value.id == self.id => self.replan(leader.revision),
            Some(_) => None,
        }
    }

    fn stand(&self) -> Txn {
        let leader = Leader { id: self.id };
        let change = Change::Put {
            key: keys::LEADER.into(),
            value: encode(&leader),
            lease: Some(self.lease),
        };
        Txn {
            compare: vec![Compare::Absent(keys::LEADER.into())],
            changes: vec![change],
        }
    }

    fn replan(&self, leader: u64) -> Option<Txn> {
        self.map.pools.keys().find_map(|&pool| self.replan_pool(pool, leader))
    }

    fn replan_pool(&self, id: PoolId, leader: u64) -> Option<Txn> {
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
        Some(Txn {
            compare: vec![Compare::ModRevision(keys::LEADER.into(), leader), unchanged],
            changes: vec![Change::put(key, encode(&plan))],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::kv::{Event, KeyValue};

    /// Applies a transaction without checking it.
    fn commit(monitor: &mut Monitor, txn: &Txn, revision: u64) {
        let events = txn
            .changes
            .iter()
            .map(|change| match change {
                Change::Put { key, value, .. } => Event::Put(KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    mod_revision: revision,
                }),
                Change::Delete(key) => Event::Delete {
                    key: key.clone(),
                    revision,
                },
            })
            .collect();
        monitor.notice(&Notice::Changes { revision, events });
    }

    fn put(key: String, value: impl serde::Serialize) -> Txn {
        Txn {
            compare: vec![],
            changes: vec![Change::put(key, encode(&value))],
        }
    }

    #[test]
    fn leads_plans_and_replaces_a_primary_that_is_gone() {
        let mut monitor = Monitor::new(7, LeaseId(1));
        let pool = keys::Pool {
            name: "p".into(),
            replicas: 2,
            min_size: 1,
            pg_count: 8,
        };
        commit(&mut monitor, &put(keys::pool(PoolId(1)), pool), 1);
        for osd in 1..=3 {
            commit(
                &mut monitor,
                &put(keys::osd_config(OsdId(osd)), keys::OsdConfig { size: 100 }),
                2,
            );
            let state = keys::OsdState {
                boot: 1,
                size: 100,
                address: None,
            };
            commit(&mut monitor, &put(keys::osd_state(OsdId(osd)), state), 3);
        }
        let stand = monitor.next().unwrap();
        assert_eq!(stand.compare, [Compare::Absent(keys::LEADER.into())]);
        commit(&mut monitor, &stand, 4);
        let first = monitor.next().unwrap();
        commit(&mut monitor, &first, 5);
        assert!(monitor.next().is_none(), "nothing more to do");

        let gone = Txn {
            compare: vec![],
            changes: vec![Change::Delete(keys::osd_state(OsdId(1)))],
        };
        commit(&mut monitor, &gone, 6);
        let second = monitor.next().unwrap();
        assert!(second.compare.contains(&Compare::ModRevision(keys::LEADER.into(), 4)));
        commit(&mut monitor, &second, 7);
        let plan = &monitor.map.plans[&PoolId(1)].value;
        assert!(
            plan.pgs
                .iter()
                .all(|pg| pg.osds.len() == 2 && pg.primary.is_some_and(|osd| osd != OsdId(1)))
        );
        assert!(
            plan.pgs.iter().any(|pg| pg.osds.contains(&OsdId(1))),
            "it stays in the up sets"
        );

        let other = put(keys::LEADER.into(), Leader { id: 8 });
        commit(&mut monitor, &other, 8);
        assert!(monitor.next().is_none(), "somebody else leads");
    }
}
