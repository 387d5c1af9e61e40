//! Changes that administrators make: plan on the mirror, run the transaction, answer when the mirror has it. One that was
//! refused met a mirror that was behind: it is planned again, a few times, when the mirror has caught up, or with the next
//! tick if it has moved at all: the commit that the store names may be somebody else's, of which the mirror never hears. If
//! nobody can say what became of one, the administrator is told so. One whose administrator is gone is not begun.

use std::collections::BTreeMap;

use trivet_api::{AdminAnswer, AdminError, CallId, ClusterChange, ErrorKind, PatchSettings};
use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Revision, Txn, TxnOutcome};
use trivet_core::witness::Witnesses;

use super::admin_keys::AdminKeys;
use super::conflict;
use crate::callers::Wish;
use crate::gateway::{Effect, Gateway};

/// So often a change is tried before it is given up.
const TRIES: u32 = 5;

/// What is to happen when a transaction is committed and the mirror has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The change is done.
    Answer,
    /// It goes on: plan it again.
    Again,
    /// It has failed, and this was its end.
    Fail(AdminError),
}

/// A step of a change.
#[derive(Debug)]
pub(super) struct Planned {
    /// Compares all that was decided on; without changes there is nothing to do.
    pub txn: Txn,
    pub then: Then,
}

impl Planned {
    /// A transaction that does all of it.
    pub fn whole(compare: Vec<Compare>, changes: Vec<Change>) -> Planned {
        Planned {
            txn: Txn { compare, changes },
            then: Then::Answer,
        }
    }
}

#[derive(Debug)]
struct Edit {
    change: ClusterChange,
    call: CallId,
    /// A part of it is committed: then it is brought to its end, whoever is there.
    begun: bool,
    refused: u32,
    /// The commit on which it was planned.
    planned: Revision,
    then: Then,
}

/// The changes of administrators that are planned, running, or committed and not mirrored yet.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub admin_keys: AdminKeys,
    pub witnesses: Witnesses,
    /// Transactions under way, by ticket.
    running: BTreeMap<u64, Edit>,
    /// Done when the mirror has this commit, which is their own.
    committed: Vec<(Revision, Edit)>,
    /// Refused as of this commit.
    refused: Vec<(Revision, Edit)>,
}

impl Gateway {
    /// Starts a change of what the cluster is made of.
    pub(crate) fn change_cluster(&mut self, call: CallId, change: ClusterChange, out: &mut Vec<Effect>) {
        let edit = Edit {
            change,
            call,
            begun: false,
            refused: 0,
            planned: 0,
            then: Then::Answer,
        };
        self.plan_edit(edit, out);
    }

    fn plan_edit(&mut self, mut edit: Edit, out: &mut Vec<Effect>) {
        match self.wish_of(edit.call) {
            _ if edit.begun => {}
            Wish::Stands => {}
            // With one of the next ticks.
            Wish::Unsure => return self.edits.refused.push((Revision::MAX, Edit { planned: 0, ..edit })),
            Wish::Over => return self.answer_call(edit.call, Err(conflict("whoever asked for it is gone"))),
        }
        match self.planned(&edit.change) {
            Err(error) => self.answer_call(edit.call, Err(error)),
            Ok(planned) if planned.txn.changes.is_empty() => {
                self.answer_call(edit.call, Ok(AdminAnswer::Done {}));
            }
            Ok(planned) => {
                let ticket = self.number();
                edit.then = planned.then;
                edit.planned = self.client.map().revision;
                self.edits.running.insert(ticket, edit);
                out.push(Effect::Txn(ticket, planned.txn));
            }
        }
    }

    fn planned(&self, change: &ClusterChange) -> Result<Planned, AdminError> {
        match change {
            ClusterChange::PoolCreate(pool) => self.plan_pool_create(pool),
            ClusterChange::PoolModify { pool, patch } => self.plan_pool_modify(pool, patch),
            ClusterChange::PoolRemove { pool } => self.plan_pool_remove(pool),
            ClusterChange::OsdModify { osd, patch } => self.plan_osd_modify(*osd, patch),
            ClusterChange::OsdRemove { osd } => self.plan_osd_remove(*osd),
            ClusterChange::TreeSet { name, place } => self.plan_tree_set(name, place),
            ClusterChange::TreeRemove { name } => self.plan_tree_remove(name),
            ClusterChange::Settings(patch) => Ok(self.plan_settings(patch)),
            ClusterChange::Adopt(adopt) => self.plan_adopt(&adopt.without),
        }
    }

    fn plan_settings(&self, patch: &PatchSettings) -> Planned {
        let old = &self.client.map().settings;
        let new = patch.on(old);
        let mut changes = Vec::new();
        if new != *old {
            changes.push(Change::put(keys::SETTINGS, trivet_core::map::encode(&new)));
        }
        Planned::whole(vec![self.edits.admin_keys.same_settings()], changes)
    }

    /// A transaction has ended; false if it was not about such a change.
    pub(crate) fn edit_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) -> bool {
        let Some(mut edit) = self.edits.running.remove(&ticket) else {
            return false;
        };
        edit.refused += 1;
        match outcome {
            TxnOutcome::Committed(revision) => self.edits.committed.push((revision, edit)),
            TxnOutcome::Refused(_) if edit.refused >= TRIES => {
                let error = conflict("others change the same all the time; look, and try again");
                self.answer_call(edit.call, Err(error));
            }
            TxnOutcome::Refused(revision) => self.edits.refused.push((revision, edit)),
            TxnOutcome::Unknown => self.answer_call(edit.call, Err(unknown())),
        }
        self.edits_moved(out);
        true
    }

    /// The metadata store was put back: commits of the one before mean nothing, and all is planned again.
    pub(crate) fn edits_replaced(&mut self) {
        let Edits { committed, refused, .. } = &mut self.edits;
        refused.append(committed);
        refused.iter_mut().for_each(|(at, _)| *at = 0);
    }

    /// Goes on with what the mirror has by now.
    pub(crate) fn edits_moved(&mut self, out: &mut Vec<Effect>) {
        let revision = self.client.map().revision;
        let seen = self.edits.committed.extract_if(.., |(at, _)| *at <= revision);
        for (_, edit) in Vec::from_iter(seen) {
            self.edit_committed(edit, out);
        }
        self.plan_refused(|at, _| at <= revision, out);
    }

    /// Plans again what was refused and may wait in vain for a commit of ours.
    pub(crate) fn retry_edits(&mut self, out: &mut Vec<Effect>) {
        let revision = self.client.map().revision;
        self.plan_refused(|_, edit| edit.planned < revision, out);
    }

    fn plan_refused(&mut self, is_due: impl Fn(Revision, &Edit) -> bool, out: &mut Vec<Effect>) {
        let due = self.edits.refused.extract_if(.., |(at, edit)| is_due(*at, edit));
        for (_, edit) in Vec::from_iter(due) {
            self.plan_edit(edit, out);
        }
    }

    fn edit_committed(&mut self, edit: Edit, out: &mut Vec<Effect>) {
        match edit.then.clone() {
            Then::Answer => self.answer_call(edit.call, Ok(AdminAnswer::Done {})),
            Then::Again => {
                let (begun, refused) = (true, 0);
                self.plan_edit(Edit { begun, refused, ..edit }, out);
            }
            Then::Fail(error) => self.answer_call(edit.call, Err(error)),
        }
    }
}

fn unknown() -> AdminError {
    AdminError::new(
        ErrorKind::Unavailable,
        "the metadata store did not answer, and the change may have happened: look before trying again",
    )
}
