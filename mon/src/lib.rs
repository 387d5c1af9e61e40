//! The monitor: decides where PGs live and who shall act for each of them, and keeps no data of its own.
//!
//! A pure machine: notices of the metadata store and the time come in, transactions go out. Several monitors may run; one
//! leads, and everything it writes is written in a transaction that compares the leader's key and what it was decided
//! on. So it does no harm when its mirror is stale, its lease is gone, or an outcome is unknown: then it looks again.
//! First things first: a PG gets a new primary before anything else is thought about.
//! What it does not do: statistics.

mod absence;
mod mark;
mod mutant;
pub mod placement;
mod plans;
mod removal;
mod renumber;

#[cfg(test)]
mod tests;

use std::time::Duration;

use trivet_core::keys::{self, Leader};
use trivet_core::kv::{Change, Compare, Event, LeaseId, Notice, Revision, Txn, TxnOutcome};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{Now, OsdId};

use absence::Absences;
use mutant::mutant;
use plans::Planned;

#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;

/// So many times [`Monitor::next`] waits for what should come, an outcome or a notice, before it gives it up: several
/// seconds of ticks. Asking too early does no harm.
const PATIENCE: u32 = 50;

/// So many times it waits for what made a transaction fail. The store says only which commit was the last, which may be
/// one that monitors are not told of.
const PATIENCE_REFUSED: u32 = 2;

/// How often it looks for what only time brings.
const LOOK: Duration = Duration::from_secs(1);

/// Changes of one transaction, and a little less than half of its comparisons (see [`Txn`]).
const MAX_CHANGES: usize = 45;

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
    /// How often it may still be waited for.
    patience: u32,
    /// Something came that may call for something to be done.
    stirred: bool,
    /// When it looks for what only time brings.
    look: Now,
    /// When it raises the mark again.
    mark_due: Option<Now>,
    absences: Absences,
    planned: Planned,
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
            patience: 0,
            stirred: true,
            look: Now::default(),
            mark_due: None,
            absences: Absences::default(),
            planned: Planned::default(),
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
        self.stirred = true;
    }

    /// Takes in what the metadata store says.
    pub fn notice(&mut self, notice: &Notice) {
        let told = keys_of(notice).is_some_and(|mut keys| keys.any(is_statistics));
        let full = told.then(|| self.full_osds());
        self.map.apply(notice);
        self.absences.interrupt(notice);
        self.forget_commits(notice);
        self.stirred |= stirs(notice) || full.is_some_and(|full| full != self.full_osds());
    }

    fn full_osds(&self) -> Vec<OsdId> {
        let osds = self.map.stats.keys().copied();
        osds.filter(|&osd| placement::is_full(&self.map, osd)).collect()
    }

    /// The transaction that this monitor wants to run now, if any. Call it after notices and with every tick; there is
    /// one under way at a time, which ends with [`Monitor::ended`].
    pub fn next(&mut self, now: Now) -> Option<Txn> {
        if self.stirred {
            self.absences.observe(&self.map, now);
        }
        if self.has_to_wait() {
            return None;
        }
        let txn = self.wanted(now)?;
        self.wait_for(Awaited::Outcome, PATIENCE);
        Some(txn)
    }

    /// What became of the transaction that [`Monitor::next`] returned last.
    pub fn ended(&mut self, outcome: TxnOutcome) {
        match outcome {
            TxnOutcome::Committed(revision) => self.wait_for(Awaited::Commit(revision), PATIENCE),
            TxnOutcome::Refused(revision) => self.wait_for(Awaited::Commit(revision), PATIENCE_REFUSED),
            TxnOutcome::Unknown => self.wait_for(Awaited::Nothing, 0),
        }
    }

    fn wait_for(&mut self, awaited: Awaited, patience: u32) {
        (self.awaited, self.patience) = (awaited, patience);
    }

    fn has_to_wait(&mut self) -> bool {
        let came = match self.awaited {
            Awaited::Nothing => true,
            Awaited::Outcome => false,
            Awaited::Commit(revision) => self.map.revision >= revision,
        };
        if came || self.patience == 0 {
            self.wait_for(Awaited::Nothing, 0);
        }
        self.patience = self.patience.saturating_sub(1);
        self.awaited != Awaited::Nothing
    }

    fn wanted(&mut self, now: Now) -> Option<Txn> {
        let lease = self.lease?;
        match &self.map.leader {
            _ if mutant!(self, TwoLeaders) => self.lead(Guard(None), now),
            None => Some(self.stand(lease)),
            Some(leader) if leader.value.id == self.id => {
                let guard = Guard(Some(leader.revision));
                self.lead(guard, now)
            }
            Some(_) => {
                self.stirred = false;
                None
            }
        }
    }

    /// What a leader has to do, the most urgent first. In a metadata store that is not the one that the data belongs to,
    /// nothing: what it says of OSDs and PGs is of another time.
    fn lead(&mut self, guard: Guard, now: Now) -> Option<Txn> {
        let looks = now >= self.look;
        if self.map.halted.is_some() || !self.stirred && !looks {
            return None;
        }
        let mut txn = self.appoint(guard);
        txn = txn.or_else(|| looks.then(|| self.mark_absent(guard, now)).flatten());
        txn = txn.or_else(|| self.renumber(guard));
        txn = txn.or_else(|| self.replan(guard));
        txn = txn.or_else(|| self.clear_removed(guard));
        txn = txn.or_else(|| looks.then(|| self.hand_over(guard, now)).flatten());
        txn = txn.or_else(|| looks.then(|| self.raise_mark(guard, now)).flatten());
        if txn.is_none() {
            self.stirred = false;
            if looks {
                self.look = now + LOOK;
            }
        }
        txn
    }

    /// The store was replaced by another one: its commits are not those that were waited for.
    fn forget_commits(&mut self, notice: &Notice) {
        if matches!((notice, self.awaited), (Notice::Replaced { .. }, Awaited::Commit(_))) {
            self.wait_for(Awaited::Nothing, 0);
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
}

/// Who leads, as far as the monitor knows: all its transactions compare that.
#[derive(Clone, Copy)]
struct Guard(Option<Revision>);

impl Guard {
    fn txn(self, compare: Vec<Compare>, changes: Vec<Change>) -> Txn {
        let leads = self
            .0
            .map(|revision| Compare::ModRevision(keys::LEADER.into(), revision));
        Txn {
            compare: leads.into_iter().chain(compare).collect(),
            changes,
        }
    }
}

/// The keys that a notice is about; none for everything.
fn keys_of(notice: &Notice) -> Option<impl Iterator<Item = &str>> {
    let Notice::Changes { events, .. } = notice else {
        return None;
    };
    Some(events.iter().map(|event| match event {
        Event::Put(kv) => kv.key.as_str(),
        Event::Delete { key, .. } => key.as_str(),
    }))
}

fn is_statistics(key: &str) -> bool {
    key.starts_with(keys::OSDS) && key.ends_with("/stats")
}

/// Whether a notice has anything but gateways, PGs, image numbers and statistics: those call for nothing.
fn stirs(notice: &Notice) -> bool {
    let idle = |key: &str| {
        let prefixes = [keys::GATEWAYS, keys::PGS, keys::NEXT_IMAGE];
        is_statistics(key) || prefixes.iter().any(|prefix| key.starts_with(prefix))
    };
    keys_of(notice).is_none_or(|mut keys| !keys.all(idle))
}
