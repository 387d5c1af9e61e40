//! What a transaction may look like, the same for every backend (the limits are etcd's defaults or less).

use std::collections::BTreeSet;

use trivet_core::kv::{Change, Compare, Txn};

use crate::MetaError;

/// Conditions of one transaction (etcd's `--max-txn-ops`).
pub const MAX_COMPARES: usize = 128;
/// Changes of one transaction.
pub const MAX_CHANGES: usize = 100;
/// Length of a key, bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// Length of all values of a transaction, bytes (etcd's `--max-request-bytes` is 1.5 MiB).
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Refuses transactions that some backend could not execute.
pub(crate) fn txn(txn: &Txn) -> Result<(), MetaError> {
    if txn.compare.len() > MAX_COMPARES {
        return Err(MetaError::Invalid("more than 128 conditions"));
    }
    if txn.changes.len() > MAX_CHANGES {
        return Err(MetaError::Invalid("more than 100 changes"));
    }
    txn.compare.iter().try_for_each(condition)?;
    let mut bytes = 0;
    let mut seen = BTreeSet::new();
    for change in &txn.changes {
        key(change.key())?;
        if !seen.insert(change.key()) {
            return Err(MetaError::Invalid("two changes of one key"));
        }
        if let Change::Put { value, .. } = change {
            bytes += value.len();
        }
    }
    if bytes > MAX_VALUE_BYTES {
        return Err(MetaError::Invalid("values of more than 1 MiB"));
    }
    Ok(())
}

fn condition(compare: &Compare) -> Result<(), MetaError> {
    match compare {
        Compare::ModRevision(name, _) | Compare::Absent(name) | Compare::Exists(name) => key(name),
        Compare::EmptyPrefix(prefix) if prefix.len() > MAX_KEY_BYTES => {
            Err(MetaError::Invalid("a prefix of more than 4096 bytes"))
        }
        Compare::EmptyPrefix(_) => Ok(()),
    }
}

fn key(key: &str) -> Result<(), MetaError> {
    match key.len() {
        0 => Err(MetaError::Invalid("an empty key")),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => Err(MetaError::Invalid("a key of more than 4096 bytes")),
    }
}
