//! The live leases, in memory only: a lease does not outlive the process that granted it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trivet_core::kv::LeaseId;

/// How long after a failed removal of a lease's keys it is tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Lease {
    ttl: Duration,
    deadline: Instant,
    /// Revoked or expired; stays here until its keys are removed.
    ended: bool,
}

/// All leases of this run.
pub(super) struct Leases {
    next: i64,
    live: BTreeMap<i64, Lease>,
}

impl Leases {
    /// `first` is the first id to give, larger than that of any earlier run.
    pub(super) fn new(first: i64) -> Leases {
        Leases {
            next: first.max(1),
            live: BTreeMap::new(),
        }
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        let id = self.next;
        self.next += 1;
        self.live.insert(
            id,
            Lease {
                ttl,
                deadline: now + ttl,
                ended: false,
            },
        );
        LeaseId(id)
    }

    /// False if there is no such lease.
    pub(super) fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> bool {
        let Some(lease) = self.live.get_mut(&lease.0).filter(|lease| !lease.ended) else {
            return false;
        };
        lease.deadline = now + lease.ttl;
        true
    }

    pub(super) fn is_live(&self, lease: LeaseId) -> bool {
        self.live.get(&lease.0).is_some_and(|lease| !lease.ended)
    }

    /// From now on no key can be put on it. False if there is no such lease.
    pub(super) fn end(&mut self, lease: LeaseId) -> bool {
        let Some(lease) = self.live.get_mut(&lease.0).filter(|lease| !lease.ended) else {
            return false;
        };
        lease.ended = true;
        true
    }

    /// Ends those whose time is over; returns them and those whose removal is to be tried again.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<LeaseId> {
        let due = self.live.iter_mut().filter(|(_, lease)| lease.deadline <= now);
        due.map(|(id, lease)| {
            lease.ended = true;
            LeaseId(*id)
        })
        .collect()
    }

    /// Its keys are removed.
    pub(super) fn forget(&mut self, lease: LeaseId) {
        self.live.remove(&lease.0);
    }

    /// Its keys could not be removed.
    pub(super) fn retry_later(&mut self, lease: LeaseId, now: Instant) {
        if let Some(lease) = self.live.get_mut(&lease.0) {
            lease.deadline = now + RETRY;
        }
    }

    /// When `expire` has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.live.values().map(|lease| lease.deadline).min()
    }
}
