//! How this OSD shows in the metadata store that it serves: its state key, on its lease, while its disk answers.

use std::time::Duration;

use trivet_core::keys::{self, OsdState};
use trivet_core::kv::{Change, Compare, LeaseId, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{Now, OsdId};

use crate::ctx::{Ctx, TxnWait};

/// A key that was not written is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A disk that has not ended any operation for this long is taken for dead until it does: others take over.
const FROZEN_AFTER: Duration = Duration::from_secs(5);

/// What became of the state key.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// The lease with which it was written.
    written: Option<LeaseId>,
    /// The transaction under way, and what it writes.
    under_way: Option<(u64, Option<LeaseId>)>,
    tried_at: Option<Now>,
    pub(crate) disk: DiskWatch,
}

impl Presence {
    /// The lease came, went or was replaced: there is nothing to wait for.
    pub(crate) fn try_at_once(&mut self) {
        self.tried_at = None;
    }

    /// Writes the state key if it has to be there and is not; takes it back while the disk does not answer.
    pub(crate) fn register(&mut self, ctx: &mut Ctx) {
        let due = self.tried_at.is_none_or(|at| ctx.now.since(at) >= TRY_AGAIN);
        let Some(lease) = ctx.lease.filter(|_| due && self.under_way.is_none()) else {
            return;
        };
        let frozen = self.disk.is_frozen(ctx.now);
        let there = ctx.is_present() && self.written == Some(lease);
        let txn = match (frozen, there) {
            (false, false) => come(ctx, lease),
            (true, true) => go(ctx),
            (false, true) | (true, false) => return,
        };
        let ticket = ctx.run_txn(txn, TxnWait::Presence);
        self.tried_at = Some(ctx.now);
        self.under_way = Some((ticket, (!frozen).then_some(lease)));
    }

    pub(crate) fn ended(&mut self, ticket: u64, outcome: TxnOutcome) {
        if let Some((_, lease)) = self.under_way.take_if(|(t, _)| *t == ticket)
            && matches!(outcome, TxnOutcome::Committed(_))
        {
            self.written = lease;
        }
    }
}

/// Whether the disk answers.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    under_way: usize,
    /// When it began to work, or ended something last.
    heard: Now,
}

impl DiskWatch {
    pub(crate) fn began(&mut self, operations: usize, now: Now) {
        if self.under_way == 0 {
            self.heard = now;
        }
        self.under_way += operations;
    }

    pub(crate) fn ended(&mut self, now: Now) {
        self.under_way = self.under_way.saturating_sub(1);
        self.heard = now;
    }

    fn is_frozen(&self, now: Now) -> bool {
        self.under_way > 0 && now.since(self.heard) >= FROZEN_AFTER
    }
}

impl Ctx {
    /// Whether the metadata store shows this start of this OSD, as far as it is known here.
    pub(crate) fn is_present(&self) -> bool {
        let state = self.map.osds.get(&self.id());
        self.lease.is_some() && state.is_some_and(|state| state.value.boot == self.identity.boot)
    }

    /// Whether another OSD can be counted on: it shows in the metadata store and answers.
    pub(crate) fn is_reachable(&self, osd: OsdId) -> bool {
        let Some(state) = self.map.osds.get(&osd) else {
            return false;
        };
        let answers = || !self.reach.is_silent(osd, self.now) && !self.reach.is_gone(osd, state.value.boot);
        osd == self.id() || answers()
    }
}

/// What shows this OSD in the metadata store.
fn come(ctx: &Ctx, lease: LeaseId) -> Txn {
    let state = OsdState {
        boot: ctx.identity.boot,
        size: ctx.identity.size,
        address: ctx.identity.address.clone(),
    };
    let change = Change::Put {
        key: keys::osd_state(ctx.id()),
        value: encode(&state),
        lease: Some(lease),
    };
    // An OSD that was removed from the cluster must not come back.
    Txn {
        compare: vec![Compare::Exists(keys::osd_config(ctx.id()))],
        changes: vec![change],
    }
}

/// What takes that back.
fn go(ctx: &Ctx) -> Txn {
    let key = keys::osd_state(ctx.id());
    let revision = ctx.map.osds.get(&ctx.id()).map_or(0, |state| state.revision);
    Txn {
        compare: vec![Compare::ModRevision(key.clone(), revision)],
        changes: vec![Change::Delete(key)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_frozen_when_nothing_ends() {
        let at = |seconds: u64| Now(seconds * 1_000_000_000);
        let mut watch = DiskWatch::default();
        assert!(!watch.is_frozen(at(100)), "nothing to do");
        watch.began(2, at(100));
        assert!(!watch.is_frozen(at(104)));
        assert!(watch.is_frozen(at(105)));
        watch.ended(at(106));
        assert!(!watch.is_frozen(at(110)) && watch.is_frozen(at(111)));
        watch.ended(at(112));
        assert!(!watch.is_frozen(at(200)));
    }
}
