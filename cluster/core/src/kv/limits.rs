//! What a transaction may look like, the same for every store (the limits are etcd's defaults or less).

use std::collections::BTreeSet;

use super::{Change, Compare, Txn};

/// Conditions of one transaction (etcd's `--max-txn-ops`).
pub const MAX_COMPARES: usize = 128;
/// Changes of one transaction.
pub const MAX_CHANGES: usize = 100;
/// Length of a key, bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// Length of all values of a transaction, bytes (etcd's `--max-request-bytes` is 1.5 MiB).
pub const MAX_VALUE_BYTES: usize = 1 << 20;

impl Txn {
    /// Whether every store could execute it.
    ///
    /// # Errors
    /// Which limit it breaks.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.compare.len() > MAX_COMPARES {
            return Err("more than 128 conditions");
        }
        if self.changes.len() > MAX_CHANGES {
            return Err("more than 100 changes");
        }
        self.compare.iter().try_for_each(condition)?;
        let mut bytes = 0;
        let mut seen = BTreeSet::new();
        for change in &self.changes {
            key(change.key())?;
            if !seen.insert(change.key()) {
                return Err("two changes of one key");
            }
            if let Change::Put { value, .. } = change {
                bytes += value.len();
            }
        }
        if bytes > MAX_VALUE_BYTES {
            return Err("values of more than 1 MiB");
        }
        Ok(())
    }
}

fn condition(compare: &Compare) -> Result<(), &'static str> {
    match compare {
        Compare::ModRevision(name, _) | Compare::Absent(name) | Compare::Exists(name) => key(name),
        Compare::EmptyPrefix(prefix) if prefix.len() > MAX_KEY_BYTES => Err("a prefix of more than 4096 bytes"),
        Compare::EmptyPrefix(_) => Ok(()),
    }
}

fn key(key: &str) -> Result<(), &'static str> {
    match key.len() {
        0 => Err("an empty key"),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => Err("a key of more than 4096 bytes"),
    }
}
