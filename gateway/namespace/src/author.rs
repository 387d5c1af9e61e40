//! Who changes the tree, and which of its changes were executed, so that an outcome that nobody heard can be asked for.
//!
//! Each change of a gateway has a number, and writes `vfs/done/<client>/<number>` in the transaction that it is, which
//! compares that this key is absent: so it happens at most once, and leaves a trace. If its outcome is not known,
//! [`Author::void`] takes the number away from it: either that is committed, and the change never happens, or it is refused,
//! and the key says that it did.
//!
//! What a gateway has left that is fenced is swept up. As every transaction compares its registration (`client/<id>`), one that
//! arrives after the fence is refused, and whoever comes back finds that its outcomes cannot be known any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trivet_core::ClientId;
use trivet_core::keys::{client as registration, gateway_state};
use trivet_core::kv::{Change, Compare, MAX_CHANGES, Revision, Txn};

use crate::inode;
use crate::keys;
use crate::mirror::Namespace;

/// Keys of settled outcomes that one transaction takes along.
const MAX_SETTLED: usize = 16;

/// The value of a `vfs/done/` key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneValue {
    /// The change was not executed, and never will be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) void: bool,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It was executed.
    Executed,
    /// It was not executed, and never will be.
    Void,
}

/// The traces in the store, as of the mirror's commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authors {
    done: BTreeMap<ClientId, BTreeMap<u64, DoneValue>>,
}

impl Authors {
    pub(crate) fn put(&mut self, client: ClientId, number: u64, value: DoneValue) {
        self.done.entry(client).or_default().insert(number, value);
    }

    pub(crate) fn remove(&mut self, client: ClientId, number: u64) {
        if let Some(done) = self.done.get_mut(&client) {
            done.remove(&number);
            if done.is_empty() {
                self.done.remove(&client);
            }
        }
    }
}

/// A gateway that may change the tree, as its mirror has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// Which gateway.
    pub client: ClientId,
    /// The commit that wrote its key `gateway/<id>/state`: a gateway that others take for dead changes nothing.
    pub shown: Revision,
    /// The commit that registered it, which wrote `client/<id>`: a gateway that is fenced changes nothing.
    pub registered: Revision,
}

impl Author {
    /// What every transaction of this gateway compares.
    #[must_use]
    pub fn compares(&self) -> [Compare; 2] {
        [
            Compare::ModRevision(gateway_state(self.client), self.shown),
            self.same_registration(),
        ]
    }

    fn same_registration(&self) -> Compare {
        Compare::ModRevision(registration(self.client), self.registered)
    }

    /// Makes `txn` the change with this number. It takes along traces of `settled`, whose outcomes are known; returns how
    /// many of them, from the first.
    pub fn sign(&self, txn: &mut Txn, number: u64, settled: &[u64]) -> usize {
        let key = keys::done(self.client, number);
        txn.compare.extend(self.compares());
        txn.compare.push(Compare::Absent(key.clone()));
        txn.changes.push(Change::put(key, inode::encode(&DoneValue::default())));
        let room = MAX_CHANGES.saturating_sub(txn.changes.len()).min(MAX_SETTLED);
        let taken = settled.len().min(room);
        let traces = settled[..taken]
            .iter()
            .map(|&number| Change::Delete(keys::done(self.client, number)));
        txn.changes.extend(traces);
        taken
    }

    /// The transaction that takes the number away from the change that was sent with it. It does not ask for the
    /// gateway's lease, without which the change cannot happen either.
    #[must_use]
    pub fn void(&self, number: u64) -> Txn {
        let key = keys::done(self.client, number);
        Txn {
            compare: vec![self.same_registration(), Compare::Absent(key.clone())],
            changes: vec![Change::put(key, inode::encode(&DoneValue { void: true }))],
        }
    }
}

impl Namespace {
    /// What a gateway's change with this number has left.
    #[must_use]
    pub fn trace(&self, client: ClientId, number: u64) -> Option<Trace> {
        let value = self.authors.done.get(&client)?.get(&number)?;
        Some(if value.void { Trace::Void } else { Trace::Executed })
    }

    /// The gateways that have left traces.
    pub fn authors(&self) -> impl Iterator<Item = ClientId> {
        self.authors.done.keys().copied()
    }

    /// The transaction that sweeps up the next part of what a gateway has left that is fenced; nothing when there is
    /// nothing left. It is refused if the gateway is registered.
    #[must_use]
    pub fn sweep(&self, client: ClientId) -> Option<Txn> {
        let traces = self.authors.done.get(&client)?.keys().take(MAX_CHANGES);
        Some(Txn {
            compare: vec![Compare::Absent(registration(client))],
            changes: traces
                .map(|&number| Change::Delete(keys::done(client, number)))
                .collect(),
        })
    }
}
