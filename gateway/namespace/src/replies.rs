//! What clients were answered whose calls changed names (`vfs/reply/<caller>/<call>`), so that a call that comes again, over
//! whichever gateway, is answered as it was and not executed twice. The key is written in the transaction that the call
//! was, and stays for as long as its client may still ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trivet_core::ImageId;
use trivet_core::kv::{Change, Compare, Revision, Txn};

use crate::inode::{self, Time};
use crate::keys;
use crate::mirror::Namespace;
use crate::operation::Outcome;

/// Replies kept of a caller, however old they are.
const KEPT: usize = 64;
/// Younger ones are kept beside them, seconds: the caller may be looking for another gateway for so long, while it makes
/// other changes through a second connection.
const YOUNG: i64 = 120;
/// Replies kept of a caller at most: more than it can have under way on a few connections.
const MOST: usize = 1024;
/// Older ones that one transaction deletes.
const MAX_OLD: usize = 4;

/// A call of a client, the same at whichever gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallId {
    /// Who calls, as it is known wherever it connects.
    pub caller: Arc<[u8]>,
    /// Which of its calls.
    pub call: u128,
}

impl CallId {
    /// A transaction that is committed if the call was not executed, and changes nothing.
    #[must_use]
    pub fn ask_undone(&self) -> Txn {
        Txn {
            compare: vec![Compare::Absent(keys::reply(&self.caller, self.call))],
            changes: Vec::new(),
        }
    }
}

/// The value of a `vfs/reply/` key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplyValue {
    /// The inode that was made or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<ImageId>,
    /// When it was executed, seconds since 1970.
    #[serde(default)]
    pub(crate) at: i64,
}

/// One caller's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Calls {
    replies: BTreeMap<u128, (ReplyValue, Revision)>,
    /// Oldest first.
    order: BTreeSet<(Revision, u128)>,
}

/// All replies in the store, as of the mirror's commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replies(BTreeMap<Arc<[u8]>, Calls>);

impl Replies {
    pub(crate) fn put(&mut self, caller: &[u8], call: u128, value: ReplyValue, revision: Revision) {
        let calls = self.0.entry(caller.into()).or_default();
        calls.replies.insert(call, (value, revision));
        calls.order.insert((revision, call));
    }

    pub(crate) fn remove(&mut self, caller: &[u8], call: u128) {
        let Some(calls) = self.0.get_mut(caller) else {
            return;
        };
        if let Some((_, revision)) = calls.replies.remove(&call) {
            calls.order.remove(&(revision, call));
        }
        if calls.replies.is_empty() {
            self.0.remove(caller);
        }
    }
}

impl Namespace {
    /// What a call came to that was executed, if that is still known.
    #[must_use]
    pub fn reply(&self, id: &CallId) -> Option<Outcome> {
        let (value, _) = self.replies.0.get(&id.caller)?.replies.get(&id.call)?;
        Some(value.node.map_or(Outcome::Done, Outcome::Node))
    }

    /// Makes `txn` the execution of a call at `now`, which comes to `outcome`: it happens once, and is known afterwards.
    pub fn sign_call(&self, txn: &mut Txn, id: &CallId, outcome: &Outcome, now: Time) {
        let key = keys::reply(&id.caller, id.call);
        let node = if let Outcome::Node(node) = outcome {
            Some(*node)
        } else {
            None
        };
        txn.compare.push(Compare::Absent(key.clone()));
        let at = now.sec;
        txn.changes
            .push(Change::put(key, inode::encode(&ReplyValue { node, at })));
        let Some(calls) = self.replies.0.get(&id.caller) else {
            return;
        };
        let all = calls.order.len() + 1;
        let is_young = |call: &u128| calls.replies[call].0.at.saturating_add(YOUNG) > at;
        let oldest = calls
            .order
            .iter()
            .take(all.saturating_sub(KEPT).min(MAX_OLD))
            .enumerate();
        let too_old = oldest.filter(|(older, (_, call))| all - older > MOST || !is_young(call));
        txn.changes
            .extend(too_old.map(|(_, (_, call))| Change::Delete(keys::reply(&id.caller, *call))));
    }
}
