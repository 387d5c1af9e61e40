//! A client's operation at the primary: whether it may be executed at all, and when its turn comes.

use bytes::Bytes;
use trivet_core::kv::Revision;
use trivet_core::message::{Action, Op, OpError, OpValue};
use trivet_core::{ClientId, OBJECT_SIZE, ObjectId};

use crate::ctx::Ctx;
use crate::node::clients::Known;
use crate::options::mutant;
use crate::primary::pg::Active;
use crate::primary::queue::{ObjectQueue, mask_of};
use crate::primary::remember::room_to_remember;

impl Active {
    /// A client's operation.
    pub(crate) fn client_op(&mut self, ctx: &mut Ctx, client: ClientId, op: Op) {
        if op.epoch != self.epoch {
            return ctx.reply(client, op.id, Err(OpError::OtherEpoch(self.epoch)));
        }
        // Who was fenced before the PG became active is known from then on.
        if ctx.map.revision < self.served_from {
            return ctx.send_on(client, op.id);
        }
        match ctx.clients.heard(op.id, op.settled, ctx.now) {
            Known::No => {}
            Known::Settled => return,
            Known::Ended(result) => return ctx.reply(client, op.id, result),
        }
        match op.action {
            Action::List { from, end, .. } if from >= end => ctx.reply(client, op.id, Err(OpError::Malformed)),
            Action::List { image, from, end } => {
                let numbers = self.image_objects(ctx, image, from..end);
                self.answer(ctx, client, op.id, Ok(OpValue::Objects(numbers)));
            }
            Action::Barrier { revision } => self.barrier(ctx, client, &op, revision),
            _ => match checked_object(ctx, &op) {
                Some(object) => self.admit(ctx, client, op, object),
                None => ctx.reply(client, op.id, Err(OpError::Malformed)),
            },
        }
    }

    /// Is asked again until it holds.
    fn barrier(&mut self, ctx: &mut Ctx, client: ClientId, op: &Op, revision: Revision) {
        if ctx.map.revision >= revision && !self.runs_for_fenced(ctx) {
            self.answer(ctx, client, op.id, Ok(OpValue::Passed));
        } else {
            ctx.send_on(client, op.id);
        }
    }

    fn admit(&mut self, ctx: &mut Ctx, client: ClientId, op: Op, object: ObjectId) {
        let serve_missing = mutant!(ctx.options, ServeMissing);
        let read_unsettled = mutant!(ctx.options, ReadUnsettled) && !op.action.is_mutation();
        let crowded = op.action.is_mutation() && !self.can_remember(ctx, object, &op);
        let is_missing = self.recovery.missing.contains_key(&object) && !serve_missing;
        if self.confirmation.is_awaited(op.id) {
            return;
        }
        let queue = self
            .queues
            .entry(object)
            .or_insert_with(|| ObjectQueue::of(&ctx.store, object));
        if queue.knows(op.id) {
            queue.renew(&op, ctx.tick_now());
            return self.go_on(ctx, object);
        }
        let has_to_wait = !queue.waiting.is_empty() || queue.changing().intersects(mask_of(&op.action));
        let blocked = is_missing || queue.is_unequal() || crowded || (has_to_wait && !read_unsettled);
        if !blocked {
            self.start(ctx, object, client, op);
            return self.drop_if_idle(object);
        }
        queue.waiting.push_back((client, op));
        // What waits before it may lack the room to be remembered that this one has, and nothing else may ever end here.
        let nothing_ends = queue.running.is_empty();
        if is_missing {
            self.heal(ctx, object);
        } else if nothing_ends {
            self.go_on(ctx, object);
        }
    }

    fn can_remember(&self, ctx: &Ctx, object: ObjectId, op: &Op) -> bool {
        let queue = self.queues.get(&object);
        queue.is_none_or(|queue| room_to_remember(ctx, object, queue)(op))
    }

    /// Starts an operation that nothing stands in the way of.
    fn start(&mut self, ctx: &mut Ctx, object: ObjectId, client: ClientId, op: Op) {
        let executed = op.action.is_mutation() && ctx.store.executed(object, op.id);
        if executed && !mutant!(ctx.options, ExecuteTwice) {
            return ctx.reply(client, op.id, Ok(OpValue::Changed));
        }
        match op.action {
            Action::Read { offset, len, .. } => self.start_read(ctx, object, client, op, (offset, len)),
            _ => self.start_change(ctx, object, client, op),
        }
    }

    /// Answers held reads and starts waiting operations of an object after something ended.
    pub(crate) fn go_on(&mut self, ctx: &mut Ctx, object: ObjectId) {
        let is_missing = self.recovery.missing.contains_key(&object);
        // What ended may have been the last there was.
        let Some(queue) = self.queues.get_mut(&object) else {
            return;
        };
        if queue.is_unequal() {
            return self.make_equal(ctx, object);
        }
        let settled = queue.take_settled();
        let waits = !queue.waiting.is_empty();
        for held in settled {
            self.answer(ctx, held.client, held.op, Ok(OpValue::Data(held.data)));
        }
        if is_missing && waits {
            return self.heal(ctx, object);
        }
        // One by one: what is answered at once makes way for the next.
        while let Some((client, op)) = self.take_startable(ctx, object) {
            self.start(ctx, object, client, op);
        }
        self.drop_if_idle(object);
    }

    fn take_startable(&mut self, ctx: &Ctx, object: ObjectId) -> Option<(ClientId, Op)> {
        let queue = self.queues.get_mut(&object)?;
        let index = queue.startable(room_to_remember(ctx, object, queue))?;
        queue.waiting.remove(index)
    }

    pub(crate) fn drop_if_idle(&mut self, object: ObjectId) {
        if self.queues.get(&object).is_some_and(ObjectQueue::is_idle) {
            self.queues.remove(&object);
        }
    }
}

/// The object of a well-formed operation.
fn checked_object(ctx: &Ctx, op: &Op) -> Option<ObjectId> {
    let object = op.action.object()?;
    let (offset, len) = match &op.action {
        Action::Read { offset, len, .. } | Action::Zero { offset, len, .. } => (*offset, *len),
        Action::Write { offset, data, .. } => (*offset, data.iter().map(Bytes::len).sum()),
        Action::Remove { .. } | Action::List { .. } | Action::Barrier { .. } => (0, 1),
    };
    let fits = len > 0 && offset.checked_add(len).is_some_and(|end| end <= OBJECT_SIZE);
    (fits && ctx.map.pg_of(object) == Some(op.pg)).then_some(object)
}
