//! What the claim says of a PG that is active: how many objects are missing, and, when none is, a history that names nobody
//! but the members.

use std::time::Duration;

use trivet_core::kv::{Change, Compare, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{Now, keys};

use crate::ctx::{Ctx, TxnWait};
use crate::primary::pg::{Active, Pg};

/// How often the number of missing objects is written to the metadata store.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the metadata store was told.
#[derive(Debug)]
pub(crate) struct Report {
    /// How many objects are missing; none if it is not known whether that was written.
    said: Option<usize>,
    at: Now,
    under_way: Option<u64>,
}

impl Report {
    /// The PG's claim says so from its activation on.
    pub(crate) fn activated(missing: usize, now: Now) -> Report {
        Report {
            said: Some(missing),
            at: now,
            under_way: None,
        }
    }

    /// The metadata store says that nothing is missing.
    pub(crate) fn says_clean(&self) -> bool {
        self.under_way.is_none() && self.said == Some(0)
    }

    /// A transaction that concerns the PG's history is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    fn is_due(&self, missing: usize, now: Now) -> bool {
        let may_wait = missing > 0 && now.since(self.at) < INTERVAL;
        self.under_way.is_none() && self.said != Some(missing) && !may_wait
    }
}

impl Pg {
    /// Writes to the metadata store how far healing is; the history shrinks when the PG is clean.
    pub(crate) fn report_if_due(&mut self, ctx: &mut Ctx) {
        let Some(active) = self.active_mut() else { return };
        if ctx.lease.is_some() && active.report.is_due(active.recovery.missing.len(), ctx.now) {
            active.report(ctx);
        }
    }

    pub(crate) fn report_ended(&mut self, ticket: u64, outcome: TxnOutcome) {
        let Some(active) = self
            .active_mut()
            .filter(|active| active.report.under_way == Some(ticket))
        else {
            return;
        };
        let report = &mut active.report;
        report.under_way = None;
        match outcome {
            TxnOutcome::Committed(revision) if report.said == Some(0) => active.recorded.revision = revision,
            TxnOutcome::Committed(_) => {}
            // Said again with the next tick; a foreign claim shows in the notices.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => report.said = None,
        }
    }
}

impl Active {
    fn report(&mut self, ctx: &mut Ctx) {
        let mut changes = vec![self.claim(ctx)];
        if self.is_clean() {
            let epoch = self.epoch;
            let history = &mut self.recorded.history;
            history.intervals.retain(|interval| interval.epoch == epoch);
            changes.push(Change::put(keys::history(self.id), encode(history)));
        }
        let txn = Txn {
            compare: self.same_history(ctx),
            changes,
        };
        let ticket = ctx.run_txn(txn, TxnWait::Report(self.id));
        self.report = Report {
            said: Some(self.recovery.missing.len()),
            at: ctx.now,
            under_way: Some(ticket),
        };
    }

    /// The PG is still this OSD's, of the same generation. Nobody else writes its history with this epoch, but this OSD may
    /// have written it without hearing of the outcome.
    pub(crate) fn same_history(&self, ctx: &Ctx) -> Vec<Compare> {
        let mirrored = ctx.map.histories.get(&self.id).filter(|h| h.value.epoch == self.epoch);
        let revision = mirrored.map_or(0, |h| h.revision).max(self.recorded.revision);
        vec![
            Compare::ModRevision(keys::history(self.id), revision),
            ctx.same_generation(self.id),
        ]
    }
}
