//! OSDs that do not answer any more: the metadata store is told at once, so that others take over before a lease runs
//! out. A wrong word does no harm: who is told gone and is not, registers again, and epochs keep what it did before
//! from mattering.

use trivet_core::OsdId;
use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Revision, Txn, TxnOutcome};

use crate::ctx::{Ctx, TxnWait};

impl Ctx {
    /// Nobody listens at the address of another OSD any more. False if that says nothing.
    pub(crate) fn is_gone(&mut self, osd: OsdId) -> bool {
        let Some(boot) = self.map.osds.get(&osd).map(|state| state.value.boot) else {
            return false;
        };
        if osd == self.id() {
            return false;
        }
        self.reach.gone(osd, boot);
        self.report_loss(osd);
        true
    }

    /// Tells of those who have been silent for a while. Whoever does not hear most, itself included, of those that it
    /// asks may itself be the one that is cut off, and tells nothing.
    pub(crate) fn report_silent(&mut self) {
        let silent = self.reach.silent(self.now);
        if hears_most(self.reach.asked(), silent.len()) {
            silent.into_iter().for_each(|osd| self.report_loss(osd));
        }
    }

    /// Removes the key of an OSD: once for each of its starts, until it is heard again.
    fn report_loss(&mut self, osd: OsdId) {
        // Its key is gone already.
        let Some(state) = self.map.osds.get(&osd) else { return };
        let (boot, revision) = (state.value.boot, state.revision);
        if self.is_present() && self.reach.may_report(osd, boot) {
            self.run_txn(removal(osd, revision), TxnWait::Loss(osd));
        }
    }

    /// Whether the word came through. If nobody knows, it is given again.
    pub(crate) fn loss_told(&mut self, osd: OsdId, outcome: TxnOutcome) {
        if matches!(outcome, TxnOutcome::Unknown) {
            self.reach.not_reported(osd);
        }
    }
}

/// Whether an OSD that asks so many others, of which so many are silent, hears most of them and itself.
fn hears_most(asked: usize, silent: usize) -> bool {
    let all = asked + 1;
    (all - silent) * 2 > all
}

fn removal(osd: OsdId, revision: Revision) -> Txn {
    let key = keys::osd_state(osd);
    Txn {
        compare: vec![Compare::ModRevision(key.clone(), revision)],
        changes: vec![Change::Delete(key)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_no_majority_believes_nobody_lost() {
        let table = [
            (1, 1, false),
            (2, 1, true),
            (2, 2, false),
            (3, 1, true),
            (3, 2, false),
            (4, 2, true),
            (4, 3, false),
        ];
        for (asked, silent, told) in table {
            assert_eq!(hears_most(asked, silent), told, "{silent} of {asked}");
        }
    }
}
