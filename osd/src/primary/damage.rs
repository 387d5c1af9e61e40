//! Copies that are not equal: damage that a read or a scrub found, and members that had no room for a mutation.

use trivet_core::message::{Listed, OpError};
use trivet_core::{ObjectId, UnitMask};

use crate::ctx::Ctx;
use crate::options::mutant;
use crate::primary::decide::Missing;
use crate::primary::pg::Active;
use crate::primary::queue::{Running, queue_of};

impl Active {
    /// The own copy is damaged: it is repaired from another one before the operation is tried again, unless there is
    /// none, or none that is whole.
    pub(crate) fn found_damage(&mut self, ctx: &mut Ctx, object: ObjectId, running: Running, units: UnitMask) {
        let lost = self.recovery.lost.get(&object).copied().unwrap_or(UnitMask::EMPTY);
        let is_alone = self.others().next().is_none();
        if units.intersects(lost) || is_alone || mutant!(ctx.options, NoReadRepair) {
            ctx.fail(running.client, running.op.id, OpError::Damaged);
        } else {
            let queue = self.queue(object);
            queue.waiting.push_front((running.client, running.op));
            queue.note_damaged(ctx.id());
        }
        self.go_on(ctx, object);
    }

    /// Some member does not have what the others have: it had no room for a mutation, or its copy is damaged. Once
    /// nothing is under way, all get the same again. A new object of which nothing was acknowledged is undone
    /// everywhere; any other is brought to those members.
    pub(crate) fn make_equal(&mut self, ctx: &mut Ctx, object: ObjectId) {
        let queue = queue_of(&mut self.queues, object);
        if !queue.running.is_empty() {
            return;
        }
        let (roomless, damaged) = (std::mem::take(&mut queue.lacking), std::mem::take(&mut queue.damaged));
        // What failed may be undone.
        queue.executed.clear();
        // What was read of a mutation that failed is read again.
        for held in std::mem::take(&mut queue.held) {
            ctx.send_on(held.client, held.op);
        }
        let info = ctx.store.info(object).expect("some copy is not equal to the one here");
        let newest = Listed {
            object,
            version: info.version,
            tombstone: info.tombstone,
        };
        let acting = self.acting.iter().copied();
        let undone = queue
            .blank
            .as_ref()
            .filter(|_| !queue.acknowledged && !roomless.is_empty());
        let missing = match undone {
            Some(ops) => Missing::deletion(newest, &self.acting, ops.clone()),
            None => Missing {
                newest,
                sources: acting.clone().filter(|osd| !roomless.contains(osd)).collect(),
                repair: roomless.is_empty(),
                lacking: acting
                    .filter(|osd| roomless.contains(osd) || damaged.contains(osd))
                    .collect(),
                ops: Vec::new(),
                renew: false,
                fallback: None,
            },
        };
        self.recovery.missing.insert(object, missing);
        self.heal(ctx, object);
    }
}
