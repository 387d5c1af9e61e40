//! OSDs that do not answer any more: the metadata store is told at once, so that others take over before a lease runs
//! out. A wrong word does no harm: who is told gone and is not, registers again, and epochs keep what it did before
//! from mattering.

use trivet_core::OsdId;
use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Revision, Txn};

use crate::{Effect, Osd, TxnWait};

impl Osd {
    /// The connection to an OSD broke. `gone`: nobody listens at its address.
    pub(crate) fn lost(&mut self, osd: OsdId, gone: bool, out: &mut Vec<Effect>) {
        let Some(boot) = self.map.osds.get(&osd).map(|state| state.value.boot) else {
            return;
        };
        if gone && osd != self.id() {
            self.reach.gone(osd, boot);
            self.report_loss(osd, out);
            self.consider_all(out);
        }
    }

    /// Tells of those who have been silent for a while. Whoever does not hear most, itself included, of those that it
    /// asks may itself be the one that is cut off, and tells nothing.
    pub(crate) fn report_silent(&mut self, out: &mut Vec<Effect>) {
        let silent = self.reach.silent(self.now);
        let all = self.reach.asked() + 1;
        if (all - silent.len()) * 2 > all {
            silent.into_iter().for_each(|osd| self.report_loss(osd, out));
        }
    }

    /// Removes the key of an OSD: once for each of its starts, until it is heard again.
    fn report_loss(&mut self, osd: OsdId, out: &mut Vec<Effect>) {
        let Some(state) = self.map.osds.get(&osd) else { return };
        let (boot, revision) = (state.value.boot, state.revision);
        if self.is_present() && self.reach.may_report(osd, boot) {
            self.run_txn(removal(osd, revision), TxnWait::Loss, out);
        }
    }
}

fn removal(osd: OsdId, revision: Revision) -> Txn {
    let key = keys::osd_state(osd);
    Txn {
        compare: vec![Compare::ModRevision(key.clone(), revision)],
        changes: vec![Change::Delete(key)],
    }
}
