//! The tables in the file, and transactions on them. Blocking; no queue, no leases' clocks, no watches.
//!
//! `keys`: key -> (revision of its last write, its lease or 0, value). `leased`: (lease, key), so that a
//! lease's keys are found without a scan. `state`: the file's format and the last commit.

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use trivet_core::kv::{Change, Compare, Event, KeyValue, LeaseId, Revision, Txn, TxnOutcome};

use super::hub::Commit;
use crate::{MetaError, Range};

type Row = (u64, i64, &'static [u8]);

const KEYS: TableDefinition<&str, Row> = TableDefinition::new("keys");
const LEASED: TableDefinition<(i64, &str), ()> = TableDefinition::new("leased");
const STATE: TableDefinition<&str, u64> = TableDefinition::new("state");

/// The layout above.
const FORMAT: u64 = 1;
const NO_LEASE: i64 = 0;

/// One thing for the writer to commit.
pub(super) enum Work {
    /// A client's transaction.
    Txn(Txn),
    /// Remove the keys of a lease.
    DropLease(LeaseId),
}

/// What became of a group of works, in their order.
#[derive(Default)]
pub(super) struct Group {
    /// One per work.
    pub(super) outcomes: Vec<Result<TxnOutcome, MetaError>>,
    /// Those that changed something.
    pub(super) commits: Vec<Commit>,
}

/// Makes the tables of a new file, checks the format of an old one; returns the last commit.
pub(super) fn prepare(database: &Database) -> Result<Revision, redb::Error> {
    let write = begin(database)?;
    let mut state = write.open_table(STATE)?;
    let format = state.get("format")?.map(|format| format.value());
    let revision = state.get("revision")?.map_or(0, |revision| revision.value());
    match format {
        Some(FORMAT) => {}
        None => {
            state.insert("format", FORMAT)?;
        }
        Some(other) => {
            return Err(redb::Error::Corrupted(format!("format {other}, known is {FORMAT}")));
        }
    }
    drop(state);
    write.open_table(KEYS)?;
    write.open_table(LEASED)?;
    if format.is_none() {
        write.commit()?;
    }
    Ok(revision)
}

/// Removes all keys that are on any lease, in one commit; returns the last commit.
pub(super) fn drop_leased(database: &Database) -> Result<Revision, redb::Error> {
    let write = begin(database)?;
    let mut tables = Tables::open(&write)?;
    let doomed = tables.leased_keys(i64::MIN, i64::MAX)?;
    tables.remove_all(doomed)?;
    let revision = tables.revision;
    finish(tables)?;
    write.commit()?;
    Ok(revision)
}

/// Executes a group in one durable write; `is_live` knows the leases.
pub(super) fn commit_group(
    database: &Database,
    works: &[Work],
    is_live: impl Fn(LeaseId) -> bool,
) -> Result<Group, redb::Error> {
    let write = begin(database)?;
    let mut tables = Tables::open(&write)?;
    let mut group = Group::default();
    for work in works {
        let before = tables.revision;
        let (outcome, events) = tables.execute(work, &is_live)?;
        if tables.revision != before {
            group.commits.push(Commit::new(tables.revision, events));
        }
        group.outcomes.push(outcome);
    }
    if group.commits.is_empty() {
        drop(tables);
        write.abort()?;
    } else {
        finish(tables)?;
        write.commit()?;
    }
    Ok(group)
}

/// One key.
pub(super) fn get(database: &Database, key: &str) -> Result<Option<KeyValue>, redb::Error> {
    let row = database.begin_read()?.open_table(KEYS)?.get(key)?;
    Ok(row.map(|row| key_value(key, row.value())))
}

/// All keys of a prefix, with the commit as of which.
pub(super) fn range(database: &Database, prefix: &str) -> Result<Range, redb::Error> {
    let read = database.begin_read()?;
    let revision = read
        .open_table(STATE)?
        .get("revision")?
        .map_or(0, |revision| revision.value());
    let mut keys = Vec::new();
    for row in read.open_table(KEYS)?.range(prefix..)? {
        let (key, row) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        keys.push(key_value(key.value(), row.value()));
    }
    Ok(Range { revision, keys })
}

fn key_value(key: &str, (mod_revision, _, value): (u64, i64, &[u8])) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        mod_revision,
    }
}

/// Two-phase with the allocator saved, so that opening after a crash is quick and needs no guessing.
fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

struct Tables<'t> {
    keys: Table<'t, &'static str, Row>,
    leased: Table<'t, (i64, &'static str), ()>,
    state: Table<'t, &'static str, u64>,
    revision: Revision,
}

fn finish(mut tables: Tables<'_>) -> Result<(), redb::Error> {
    tables.state.insert("revision", tables.revision)?;
    Ok(())
}

type Executed = (Result<TxnOutcome, MetaError>, Vec<Event>);

impl<'t> Tables<'t> {
    fn open(write: &'t WriteTransaction) -> Result<Tables<'t>, redb::Error> {
        let state = write.open_table(STATE)?;
        let revision = state.get("revision")?.map_or(0, |revision| revision.value());
        let (keys, leased) = (write.open_table(KEYS)?, write.open_table(LEASED)?);
        Ok(Tables {
            keys,
            leased,
            state,
            revision,
        })
    }

    fn execute(&mut self, work: &Work, is_live: &impl Fn(LeaseId) -> bool) -> Result<Executed, redb::Error> {
        let events = match work {
            Work::DropLease(lease) => {
                let doomed = self.leased_keys(lease.0, lease.0)?;
                self.remove_all(doomed)?
            }
            Work::Txn(txn) => {
                if let Some(lease) = dead_lease(txn, is_live) {
                    return Ok((Err(MetaError::NoSuchLease(lease)), Vec::new()));
                }
                for compare in &txn.compare {
                    if !self.holds(compare)? {
                        return Ok((Ok(TxnOutcome::Refused(self.revision)), Vec::new()));
                    }
                }
                self.apply(&txn.changes)?
            }
        };
        Ok((Ok(TxnOutcome::Committed(self.revision)), events))
    }

    fn holds(&self, compare: &Compare) -> Result<bool, redb::Error> {
        Ok(match compare {
            Compare::ModRevision(key, revision) => self
                .keys
                .get(key.as_str())?
                .is_some_and(|row| row.value().0 == *revision),
            Compare::Absent(key) => self.keys.get(key.as_str())?.is_none(),
            Compare::Exists(key) => self.keys.get(key.as_str())?.is_some(),
            Compare::EmptyPrefix(prefix) => match self.keys.range(prefix.as_str()..)?.next() {
                Some(row) => !row?.0.value().starts_with(prefix.as_str()),
                None => true,
            },
        })
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Event>, redb::Error> {
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put { key, value, lease } => {
                    self.put(key, value, lease.map_or(NO_LEASE, |lease| lease.0), revision)?;
                    events.push(Event::Put(KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        mod_revision: revision,
                    }));
                }
                Change::Delete(key) => {
                    if self.remove(key)? {
                        events.push(Event::Delete {
                            key: key.clone(),
                            revision,
                        });
                    }
                }
            }
        }
        if !events.is_empty() {
            self.revision = revision;
        }
        Ok(events)
    }

    fn put(&mut self, key: &str, value: &[u8], lease: i64, revision: Revision) -> Result<(), redb::Error> {
        let before = self
            .keys
            .insert(key, (revision, lease, value))?
            .map(|row| row.value().1);
        if let Some(before) = before.filter(|&before| before != NO_LEASE && before != lease) {
            self.leased.remove((before, key))?;
        }
        if lease != NO_LEASE {
            self.leased.insert((lease, key), ())?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<bool, redb::Error> {
        let Some(lease) = self.keys.remove(key)?.map(|row| row.value().1) else {
            return Ok(false);
        };
        if lease != NO_LEASE {
            self.leased.remove((lease, key))?;
        }
        Ok(true)
    }

    fn leased_keys(&self, first: i64, last: i64) -> Result<Vec<String>, redb::Error> {
        let mut keys = Vec::new();
        for row in self.leased.range((first, "")..)? {
            let (row, _) = row?;
            let (lease, key) = row.value();
            if lease > last {
                break;
            }
            keys.push(key.to_owned());
        }
        Ok(keys)
    }

    fn remove_all(&mut self, keys: Vec<String>) -> Result<Vec<Event>, redb::Error> {
        let doomed: Vec<Change> = keys.into_iter().map(Change::Delete).collect();
        self.apply(&doomed)
    }
}

fn dead_lease(txn: &Txn, is_live: &impl Fn(LeaseId) -> bool) -> Option<LeaseId> {
    txn.changes.iter().find_map(|change| match change {
        Change::Put { lease: Some(lease), .. } if !is_live(*lease) => Some(*lease),
        _ => None,
    })
}
