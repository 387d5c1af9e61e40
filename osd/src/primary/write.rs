//! Changes at the primary: merge, give a version, send to every member, answer when all have it.

use trivet_core::buffer::join;
use trivet_core::message::{Op, OpError, OpValue, PeerBody, WriteError};
use trivet_core::mutation::Mutation;
use trivet_core::{ClientId, Now, ObjectId, OpId, OsdId, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::ctx::{Ctx, Wait};
use crate::options::mutant;
use crate::primary::change::{Change, change_of, leaves_nothing, partial_units};
use crate::primary::late::Order;
use crate::primary::pg::{Active, StartOver};
use crate::primary::queue::{Committing, Merging, Running, Stage, mask_of, queue_of};
use crate::primary::remember::remember;
use crate::redundancy::copies;

impl Active {
    /// Reads the units that the operation changes in part, if they exist.
    pub(crate) fn start_change(&mut self, ctx: &mut Ctx, object: ObjectId, client: ClientId, op: Op) {
        let mut merged = UnitMask(partial_units(&op.action).0 & ctx.present(object).0);
        if mutant!(ctx.options, SkipMerge) {
            merged = UnitMask::EMPTY;
        }
        let attempt = ctx.next_number();
        let (target, op_id) = (self.target(object), op.id);
        self.queue(object).running.push(Running {
            client,
            mask: mask_of(&op.action),
            op,
            since: ctx.now,
            stage: Stage::Merging(Merging {
                attempt,
                awaited: merged,
                units: Vec::new(),
            }),
        });
        if merged.is_empty() {
            return self.mutate(ctx, object, op_id);
        }
        for first in merged.iter() {
            let request = Request::Read {
                object,
                first,
                count: 1,
            };
            ctx.ask(request, Wait::Merge(target, op_id, attempt, first));
        }
    }

    /// A unit that is to be merged came back from the store.
    pub(crate) fn merge_read(
        &mut self,
        ctx: &mut Ctx,
        object: ObjectId,
        op: OpId,
        (attempt, unit): (u64, usize),
        result: Result<Reply, StoreError>,
    ) {
        // Another unit of the same attempt could not be read: the operation waits again, or is over.
        let Some(queue) = self.queues.get_mut(&object) else {
            return;
        };
        let Some(merging) = queue.merging(op).filter(|merging| merging.attempt == attempt) else {
            return;
        };
        match result {
            Ok(Reply::Data { segments, .. }) => {
                if merging.take(attempt, unit, join(segments)) {
                    self.mutate(ctx, object, op);
                }
            }
            Err(StoreError::Damaged { units, .. }) => {
                let running = queue.take_running(op);
                self.found_damage(ctx, object, running, units);
            }
            _ => {
                let running = queue.take_running(op);
                ctx.send_on(running.client, op);
                self.go_on(ctx, object);
            }
        }
    }

    /// Gives the operation its version, if it is not too late, and sends it to every member.
    fn mutate(&mut self, ctx: &mut Ctx, object: ObjectId, op_id: OpId) {
        let order = Order::of(self.queue(object).get_running(op_id));
        if let Err(why) = self.order(ctx, object, &order) {
            return self.give_back(ctx, object, op_id, why);
        }
        let (epoch, floor) = (self.epoch, self.floor_counter);
        let queue = self.queue(object);
        let merging = queue.merging(op_id).expect("has no version before all of it is merged");
        let merged = std::mem::take(&mut merging.units);
        let action = &queue.get_running(op_id).op.action;
        let deletes = leaves_nothing(action);
        let Some(change) = change_of(object, action, ctx.present(object), &merged) else {
            return self.nothing_changes(ctx, object, op_id);
        };
        // What rests on nothing, or on a tombstone that members may have forgotten already, and its list with it, names
        // the list.
        let names_list = queue.chain == Version::NONE || change.tombstone;
        let Some(ops) = remember(ctx, object, queue, op_id, deletes, names_list) else {
            return self.send_back(ctx, object, op_id);
        };
        let Change {
            zero,
            patches,
            tombstone,
        } = change;
        let mutation = Mutation {
            version: queue.next_version(epoch, floor),
            ops,
            zero,
            patches,
            tombstone,
        };
        self.send_mutation(ctx, object, op_id, mutation);
    }

    /// There is nothing that the operation would change.
    fn nothing_changes(&mut self, ctx: &mut Ctx, object: ObjectId, op: OpId) {
        let running = self.queue(object).take_running(op);
        ctx.count_op(&running);
        self.answer(ctx, running.client, op, Ok(OpValue::Changed));
        self.go_on(ctx, object);
    }

    /// A change is not executed, and has no outcome: its client knows what to do.
    fn give_back(&mut self, ctx: &mut Ctx, object: ObjectId, op: OpId, why: OpError) {
        let running = self.queue(object).take_running(op);
        ctx.reply(running.client, op, Err(why));
        self.go_on(ctx, object);
    }

    /// An operation that had room when it began has none any more: its client asks again.
    fn send_back(&mut self, ctx: &mut Ctx, object: ObjectId, op: OpId) {
        let running = self.queue(object).take_running(op);
        ctx.send_on(running.client, op);
        self.go_on(ctx, object);
    }

    /// To this OSD's own store first: if it has no room, the mutation never leaves.
    fn send_mutation(&mut self, ctx: &mut Ctx, object: ObjectId, op: OpId, mutation: Mutation) {
        let target = self.target(object);
        let version = mutation.version;
        let answers = ctx.output.done.len();
        let request = Request::Write {
            object,
            mutation: mutation.clone(),
        };
        ctx.ask(request, Wait::OwnWrite(target, version));
        let refused = ctx.output.done[answers..].iter().any(|(_, result)| result.is_err());
        let members = if refused { &self.acting[..1] } else { &self.acting[..] };
        let queue = queue_of(&mut self.queues, object);
        let after = queue.chain;
        queue.running_mut(op).stage = Stage::Committing(Committing {
            after,
            mutation: mutation.clone(),
            awaited: members.to_vec(),
            failed: None,
            refused,
            sent: ctx.now,
        });
        if refused {
            return;
        }
        queue.chain = version;
        queue.note_executed(version);
        for (osd, mutation) in copies::shards(&members[1..], &mutation) {
            let body = PeerBody::Write {
                object,
                after,
                mutation,
            };
            ctx.tell(osd, target, body);
        }
    }

    /// A member (or this OSD's own store) has ended a mutation.
    pub(crate) fn written(
        &mut self,
        ctx: &mut Ctx,
        from: OsdId,
        object: ObjectId,
        version: Version,
        result: Result<(), WriteError>,
    ) -> Result<(), StartOver> {
        // Who is asked twice answers twice.
        let Some(queue) = self.queues.get_mut(&object) else {
            return Ok(());
        };
        if queue.healing.is_some() {
            return self.healed_member(ctx, from, object, version, result);
        }
        let is_lacking = queue.lacking.contains(&from);
        let Some(committing) = queue.committing(version) else {
            return Ok(());
        };
        match result {
            Ok(()) => committing.awaited.retain(|&osd| osd != from),
            Err(WriteError::Behind) if !is_lacking => committing.sent = Now(0),
            Err(WriteError::NoSpace | WriteError::Behind) => {
                committing.awaited.retain(|&osd| osd != from);
                if !mutant!(ctx.options, AckWithoutRoom) {
                    committing.failed = Some(OpError::NoSpace);
                }
                if from != ctx.id() && !is_lacking {
                    queue.lacking.push(from);
                }
            }
            // The member has what it should not have.
            Err(WriteError::Stale) => return Err(StartOver),
            // The member's disk is gone; the map will say so.
            Err(WriteError::Failed) => {}
        }
        let early = mutant!(ctx.options, AckEarly) && from == ctx.id();
        if queue.committing(version).is_some_and(|c| c.awaited.is_empty() || early) {
            self.committed(ctx, object, version);
        }
        Ok(())
    }

    /// Every member has ended the mutation.
    fn committed(&mut self, ctx: &mut Ctx, object: ObjectId, version: Version) {
        let queue = queue_of(&mut self.queues, object);
        let running = queue.take_committing(version);
        let Stage::Committing(Committing { failed, mutation, .. }) = &running.stage else {
            unreachable!("taken as one that is committing");
        };
        ctx.pace.ended(ctx.now.since(running.since));
        match failed {
            Some(error) => ctx.fail(running.client, running.op.id, *error),
            None => {
                queue.acknowledged = true;
                ctx.count_op(&running);
                ctx.reply(running.client, running.op.id, Ok(OpValue::Changed));
                if mutation.tombstone {
                    self.tombstones.note(ctx.now, object, version);
                }
            }
        }
        self.go_on(ctx, object);
    }
}
