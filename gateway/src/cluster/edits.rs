//! Changes that administrators make: plan on the mirror, run the transaction, answer when the mirror has it. One that was
//! refused met a mirror that was behind: it is planned again when the mirror has caught up, a few times.

use std::collections::BTreeMap;

use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Revision, Txn, TxnOutcome};
use trivet_core::witness::Witnesses;

use super::conflict;
use super::marks::Marks;
use crate::admin::{AdminAnswer, AdminError, AdminReply, AdminResult, ClusterChange, ErrorKind, PatchSettings};
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
    reply: AdminReply,
    refused: u32,
    then: Then,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub marks: Marks,
    pub witnesses: Witnesses,
    /// Transactions under way, by ticket.
    running: BTreeMap<u64, Edit>,
    /// Wait until the mirror has a commit; whether it is their own.
    waiting: Vec<(Revision, Edit, bool)>,
}

impl Gateway {
    /// Starts a change of what the cluster is made of.
    pub(crate) fn change_cluster(&mut self, change: ClusterChange, reply: AdminReply, out: &mut Vec<Effect>) {
        let edit = Edit {
            change,
            reply,
            refused: 0,
            then: Then::Answer,
        };
        self.plan_edit(edit, out);
    }

    fn plan_edit(&mut self, mut edit: Edit, out: &mut Vec<Effect>) {
        match self.planned(&edit.change) {
            Err(error) => answer(edit, Err(error)),
            Ok(planned) if planned.txn.changes.is_empty() => {
                let result = self.changed(&edit.change);
                answer(edit, result);
            }
            Ok(planned) => {
                let ticket = self.number();
                edit.then = planned.then;
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
        Planned::whole(vec![self.edits.marks.same_settings()], changes)
    }

    /// The answer to a change that is done.
    fn changed(&self, change: &ClusterChange) -> AdminResult {
        match change {
            ClusterChange::PoolCreate(pool) => self.pool_info(&pool.name).map(AdminAnswer::Pool),
            ClusterChange::PoolModify { pool, .. } => self.pool_info(pool).map(AdminAnswer::Pool),
            ClusterChange::OsdModify { osd, .. } => self.osd_info(*osd).map(AdminAnswer::Osd),
            ClusterChange::Settings(_) => Ok(AdminAnswer::Settings(self.client.map().settings.clone())),
            ClusterChange::PoolRemove { .. }
            | ClusterChange::OsdRemove { .. }
            | ClusterChange::TreeSet { .. }
            | ClusterChange::TreeRemove { .. }
            | ClusterChange::Adopt(_) => Ok(AdminAnswer::Done {}),
        }
    }

    /// A transaction has ended; false if it was not about such a change.
    pub(crate) fn edit_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) -> bool {
        let Some(mut edit) = self.edits.running.remove(&ticket) else {
            return false;
        };
        edit.refused += 1;
        match outcome {
            TxnOutcome::Committed(revision) => self.edits.waiting.push((revision, edit, true)),
            TxnOutcome::Refused(_) if edit.refused >= TRIES => {
                let error = conflict("others change the same all the time; look, and try again");
                answer(edit, Err(error));
            }
            TxnOutcome::Refused(revision) => self.edits.waiting.push((revision, edit, false)),
            TxnOutcome::Unknown => answer(edit, Err(unknown())),
        }
        self.edits_moved(out);
        true
    }

    /// The metadata store was put back: commits of the one before mean nothing, and all is planned again.
    pub(crate) fn edits_replaced(&mut self) {
        for (at, _, committed) in &mut self.edits.waiting {
            (*at, *committed) = (0, false);
        }
    }

    /// Goes on with what the mirror has by now.
    pub(crate) fn edits_moved(&mut self, out: &mut Vec<Effect>) {
        let revision = self.client.map().revision;
        let (seen, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.edits.waiting)
            .into_iter()
            .partition(|(at, ..)| *at <= revision);
        self.edits.waiting = rest;
        for (_, edit, committed) in seen {
            if committed {
                self.edit_committed(edit, out);
            } else {
                self.plan_edit(edit, out);
            }
        }
    }

    fn edit_committed(&mut self, edit: Edit, out: &mut Vec<Effect>) {
        match edit.then.clone() {
            Then::Answer => {
                let result = self.changed(&edit.change);
                answer(edit, result);
            }
            Then::Again => self.plan_edit(Edit { refused: 0, ..edit }, out),
            Then::Fail(error) => answer(edit, Err(error)),
        }
    }
}

fn answer(edit: Edit, result: AdminResult) {
    // A caller that has given up is no concern of ours.
    let _ = edit.reply.send(result);
}

fn unknown() -> AdminError {
    AdminError::new(
        ErrorKind::Unavailable,
        "the metadata store did not answer, and the change may have happened: look before trying again",
    )
}
