//! The metadata store of the simulation: linearizable, with revisions, leases, transactions and a log of changes.
//!
//! It does at once what it is told; being away, answers lost, watches late are the world's business. It runs through the
//! suite that says what every metadata store has to do (`tests/metadata.rs`). It keeps a bounded past, for watches and for
//! reads that are stale.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use trivet_core::Now;
use trivet_core::kv::{Change, Compare, Event, KeyValue, LeaseId, Notice, Revision, Txn, TxnOutcome};

use crate::random::Random;

/// Commits that are remembered at most.
const MAX_HISTORY: usize = 4096;

/// A key was to be put on a lease that has expired or was revoked or never existed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lease {} does not exist (any more)", .0.0)]
pub struct NoSuchLease(pub LeaseId);

#[derive(Clone, Debug)]
struct Row {
    value: Bytes,
    mod_revision: Revision,
    lease: Option<LeaseId>,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    deadline: Now,
    keys: BTreeSet<String>,
}

/// One commit with what is needed to undo it.
#[derive(Clone, Debug)]
struct Commit {
    revision: Revision,
    events: Vec<Event>,
    /// Each key that it changed, as it was before.
    before: Vec<(String, Option<(Bytes, Revision)>)>,
}

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Kv {
    revision: Revision,
    /// The last commit that was not somebody else's.
    own: Revision,
    rows: BTreeMap<String, Row>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    history: VecDeque<Commit>,
}

impl Kv {
    /// An empty store at revision 0.
    #[must_use]
    pub fn new() -> Kv {
        Kv::default()
    }

    /// The last commit.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The last commit of which a watch tells.
    #[must_use]
    pub fn own_revision(&self) -> Revision {
        self.own
    }

    /// Others that share the store commit something, so many times.
    pub fn commit_foreign(&mut self, times: Revision) {
        self.revision += times;
    }

    /// The key as of the last commit.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<KeyValue> {
        self.rows
            .get(key)
            .map(|row| key_value(key, &row.value, row.mod_revision))
    }

    /// As [`Kv::txn`], and as a process tells its machines: of a lease that is gone they hear that the outcome is unknown.
    pub fn transact(&mut self, now: Now, txn: &Txn) -> TxnOutcome {
        self.txn(now, txn).unwrap_or(TxnOutcome::Unknown)
    }

    /// Compares, and changes if all conditions hold. What changes nothing (only deletes of absent keys, or no change
    /// at all) is committed as of the last commit. Leases that ran out by `now` end first.
    ///
    /// # Errors
    /// The conditions hold, and a lease is gone.
    ///
    /// # Panics
    /// When the transaction breaks a limit or names a key twice: no store would take it.
    pub fn txn(&mut self, now: Now, txn: &Txn) -> Result<TxnOutcome, NoSuchLease> {
        if let Err(why) = txn.check() {
            panic!("{why} in {txn:?}");
        }
        self.expire(now);
        if !txn.compare.iter().all(|compare| self.holds(compare)) {
            return Ok(TxnOutcome::Refused(self.revision));
        }
        if let Some(gone) = txn.changes.iter().find_map(|change| self.lease_that_is_gone(change)) {
            return Err(NoSuchLease(gone));
        }
        self.commit(&txn.changes);
        Ok(TxnOutcome::Committed(self.revision))
    }

    fn lease_that_is_gone(&self, change: &Change) -> Option<LeaseId> {
        match change {
            Change::Put { lease, .. } => lease.filter(|lease| !self.leases.contains_key(lease)),
            Change::Delete(_) => None,
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, revision) => self.rows.get(key).is_some_and(|row| row.mod_revision == *revision),
            Compare::Absent(key) => !self.rows.contains_key(key),
            Compare::Exists(key) => self.rows.contains_key(key),
            Compare::EmptyPrefix(prefix) => {
                let first = self
                    .rows
                    .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
                    .next();
                !first.is_some_and(|(key, _)| key.starts_with(prefix.as_str()))
            }
        }
    }

    /// Does the changes as one commit, if they change anything.
    fn commit(&mut self, changes: &[Change]) {
        let revision = self.revision + 1;
        let mut commit = Commit {
            revision,
            events: Vec::with_capacity(changes.len()),
            before: Vec::with_capacity(changes.len()),
        };
        for change in changes {
            self.change(change, &mut commit);
        }
        if commit.events.is_empty() {
            return;
        }
        (self.revision, self.own) = (revision, revision);
        self.history.push_back(commit);
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    fn change(&mut self, change: &Change, commit: &mut Commit) {
        let key = change.key();
        let old = self.rows.remove(key);
        if let Some(lease) = old.as_ref().and_then(|row| row.lease)
            && let Some(lease) = self.leases.get_mut(&lease)
        {
            lease.keys.remove(key);
        }
        let revision = commit.revision;
        match change {
            Change::Delete(_) if old.is_none() => return,
            Change::Delete(_) => commit.events.push(Event::Delete {
                key: key.to_owned(),
                revision,
            }),
            Change::Put { value, lease, .. } => {
                commit.events.push(Event::Put(key_value(key, value, revision)));
                self.put(key, value, *lease, revision);
            }
        }
        let before = old.map(|row| (row.value, row.mod_revision));
        commit.before.push((key.to_owned(), before));
    }

    fn put(&mut self, key: &str, value: &Bytes, lease: Option<LeaseId>, mod_revision: Revision) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(key.to_owned());
        }
        let row = Row {
            value: value.clone(),
            mod_revision,
            lease,
        };
        self.rows.insert(key.to_owned(), row);
    }

    /// Makes a lease that lives for `ttl` after now and after each keep-alive.
    pub fn grant(&mut self, now: Now, ttl: Duration) -> LeaseId {
        self.last_lease += 1;
        let lease = Lease {
            ttl,
            deadline: now + ttl,
            keys: BTreeSet::new(),
        };
        self.leases.insert(LeaseId(self.last_lease), lease);
        LeaseId(self.last_lease)
    }

    /// Lets the lease live for another `ttl`; false if it is gone.
    pub fn keep_alive(&mut self, now: Now, lease: LeaseId) -> bool {
        self.expire(now);
        let Some(lease) = self.leases.get_mut(&lease) else {
            return false;
        };
        lease.deadline = now + lease.ttl;
        true
    }

    /// Ends the lease and removes its keys, in one commit; false if it is gone.
    pub fn revoke(&mut self, lease: LeaseId) -> bool {
        let Some(lease) = self.leases.remove(&lease) else {
            return false;
        };
        let changes: Vec<Change> = lease.keys.into_iter().map(Change::Delete).collect();
        self.commit(&changes);
        true
    }

    /// Ends the leases that ran out, in one commit each; whether any key went with them.
    pub fn expire(&mut self, now: Now) -> bool {
        let before = self.revision;
        let over = self.leases.iter().filter(|(_, lease)| lease.deadline <= now);
        let over: Vec<LeaseId> = over.map(|(&id, _)| id).collect();
        for id in over {
            self.revoke(id);
        }
        self.revision > before
    }

    /// When the next lease runs out.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Now> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    /// Lets every lease live for another `ttl`, as etcd does when its leader changes.
    pub fn extend_all(&mut self, now: Now) {
        self.expire(now);
        for lease in self.leases.values_mut() {
            lease.deadline = now + lease.ttl;
        }
    }

    /// Everything, as of the last commit.
    #[must_use]
    pub fn snapshot(&self) -> Notice {
        let rows = self.rows.iter();
        Notice::Snapshot {
            revision: self.revision,
            keys: rows
                .map(|(key, row)| key_value(key, &row.value, row.mod_revision))
                .collect(),
        }
    }

    /// The keys that begin with this.
    #[must_use]
    pub fn keys_below(&self, prefix: &str) -> Vec<String> {
        let keys = self.rows.range(prefix.to_owned()..).map(|(key, _)| key.clone());
        keys.take_while(|key| key.starts_with(prefix)).collect()
    }

    /// Puts an earlier state of the store, or another store, in the place of this one, as of at least that commit: others
    /// that share it went on. Leases begin anew; their numbers are not given again.
    pub fn put_back(&mut self, now: Now, earlier: &Kv, revision: Revision) {
        let revision = revision.max(earlier.revision);
        *self = Kv {
            revision,
            own: revision,
            last_lease: self.last_lease,
            history: VecDeque::new(),
            ..earlier.clone()
        };
        for lease in self.leases.values_mut() {
            lease.deadline = now + lease.ttl;
        }
    }

    /// Everything, as of the last commit, for those who watched another store.
    #[must_use]
    pub fn replaced(&self) -> Notice {
        let rows = self.rows.iter();
        Notice::Replaced {
            revision: self.revision,
            keys: rows
                .map(|(key, row)| key_value(key, &row.value, row.mod_revision))
                .collect(),
        }
    }

    /// The oldest commit that [`Kv::changes_since`] and [`Kv::snapshot_at`] can begin with.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        self.history.front().map_or(self.revision, |commit| commit.revision - 1)
    }

    /// The changes after that commit, none if it is the last; `None` if they are not remembered any more or the
    /// commit is not one of this store. Of what others commit it says nothing.
    #[must_use]
    pub fn changes_since(&self, revision: Revision) -> Option<Notice> {
        if !(self.oldest()..=self.revision).contains(&revision) {
            return None;
        }
        let missed = self.history.iter().filter(|commit| commit.revision > revision);
        Some(Notice::Changes {
            revision: self.own.max(revision),
            events: missed.flat_map(|commit| commit.events.iter().cloned()).collect(),
        })
    }

    /// Forgets how the store came to that commit.
    pub fn compact(&mut self, up_to: Revision) {
        while self.history.front().is_some_and(|commit| commit.revision <= up_to) {
            self.history.pop_front();
        }
    }

    /// Everything as of an older commit; `None` if that is not remembered any more.
    #[must_use]
    pub fn snapshot_at(&self, revision: Revision) -> Option<Notice> {
        if !(self.oldest()..=self.revision).contains(&revision) {
            return None;
        }
        let rows = self.rows.iter();
        let mut state: BTreeMap<&str, (&Bytes, Revision)> = rows
            .map(|(key, row)| (key.as_str(), (&row.value, row.mod_revision)))
            .collect();
        for commit in self
            .history
            .iter()
            .rev()
            .take_while(|commit| commit.revision > revision)
        {
            for (key, before) in &commit.before {
                match before {
                    Some((value, mod_revision)) => state.insert(key, (value, *mod_revision)),
                    None => state.remove(key.as_str()),
                };
            }
        }
        let keys = state.into_iter();
        Some(Notice::Snapshot {
            revision,
            keys: keys
                .map(|(key, (value, mod_revision))| key_value(key, value, mod_revision))
                .collect(),
        })
    }

    /// Everything as of some remembered commit, the last one or an older one: a stale read.
    pub fn stale_snapshot(&self, random: &mut Random) -> Notice {
        let revision = random.range(self.oldest()..=self.revision);
        self.snapshot_at(revision).unwrap_or_else(|| self.snapshot())
    }
}

fn key_value(key: &str, value: &Bytes, mod_revision: Revision) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: value.clone(),
        mod_revision,
    }
}

#[cfg(test)]
mod tests;
