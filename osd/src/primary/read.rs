//! Reads at the primary: from its own copy, answered when no mutation that they saw is still on its way to a member.

use std::collections::BTreeSet;
use std::ops::Range;

use trivet_core::buffer::slice_segments;
use trivet_core::message::{Action, LIST_LIMIT, Op, OpValue};
use trivet_core::{ClientId, ImageId, ObjectId, OpId, UNIT_SIZE, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::ctx::{Ctx, Wait};
use crate::node::inventory::objects;
use crate::options::mutant;
use crate::primary::pg::Active;
use crate::primary::queue::{Held, Running, Stage, mask_of};

impl Active {
    /// Asks the store for the units that a read touches.
    pub(crate) fn start_read(
        &mut self,
        ctx: &mut Ctx,
        object: ObjectId,
        client: ClientId,
        op: Op,
        (offset, len): (usize, usize),
    ) {
        let wait = Wait::Read(self.target(object), op.id);
        self.queue(object).running.push(Running {
            client,
            mask: mask_of(&op.action),
            op,
            since: ctx.now,
            stage: Stage::Reading,
        });
        let request = Request::Read {
            object,
            first: offset / UNIT_SIZE,
            count: UnitMask::touched(offset, len).len(),
        };
        ctx.ask(request, wait);
    }

    /// A client's read came back from the store.
    pub(crate) fn read_done(&mut self, ctx: &mut Ctx, object: ObjectId, op: OpId, result: Result<Reply, StoreError>) {
        let queue = self.queue(object);
        let running = queue.take_running(op);
        let Action::Read { offset, len, .. } = running.op.action else {
            unreachable!("only a read waits for what it reads");
        };
        ctx.pace.ended(ctx.now.since(running.since));
        match result {
            Ok(Reply::Data { version, segments }) => {
                ctx.count_op(&running);
                let data = slice_segments(&segments, offset % UNIT_SIZE, len);
                self.show(ctx, object, &running, version, data);
            }
            Err(StoreError::Damaged { units, .. }) => return self.found_damage(ctx, object, running, units),
            // The disk failed, not the data: others take over.
            _ => ctx.send_on(running.client, op),
        }
        self.go_on(ctx, object);
    }

    /// Answers a read with what was read, now or when all members have it.
    fn show(&mut self, ctx: &mut Ctx, object: ObjectId, read: &Running, version: Version, data: Vec<bytes::Bytes>) {
        let (client, op, mask) = (read.client, read.op.id, read.mask);
        let queue = self.queue(object);
        if queue.is_settled(mask, version) || mutant!(ctx.options, ReadUnsettled) {
            return self.answer(ctx, client, op, Ok(OpValue::Data(data)));
        }
        queue.held.push(Held {
            client,
            op,
            mask,
            version,
            data,
        });
    }

    /// The first [`LIST_LIMIT`] of the numbers that objects of an image have in the PG, ascending; those that this OSD
    /// still lacks, and those of which it may be that not every member has deleted them, too. What was acknowledged is
    /// among them.
    pub(crate) fn image_objects(&self, ctx: &Ctx, image: ImageId, numbers: Range<u64>) -> Vec<u64> {
        let range = objects(image, numbers);
        let stored = ctx.inventory.list(self.id, range.clone());
        let missing = self.recovery.missing.range(range.clone()).map(|(&object, _)| object);
        let missing = missing.filter(|_| !mutant!(ctx.options, ListOnlyOwn));
        let queues = self.queues.range(range);
        let changing = queues
            .filter(|(_, queue)| !queue.changing().is_empty())
            .map(|(&object, _)| object);
        let found: BTreeSet<ObjectId> = stored
            .take(LIST_LIMIT)
            .chain(missing.take(LIST_LIMIT))
            .chain(changing.take(LIST_LIMIT))
            .collect();
        found.into_iter().map(|object| object.number).take(LIST_LIMIT).collect()
    }
}
