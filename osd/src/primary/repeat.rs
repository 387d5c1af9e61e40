//! Sending again what may have got lost: mutations to members that have not answered, and steps of healing.

use std::time::Duration;

use trivet_core::message::PeerBody;

use crate::ctx::{Ctx, Target};
use crate::options::mutant;
use crate::primary::pg::Active;
use crate::primary::queue::{Committing, ObjectQueue, Stage};
use crate::redundancy::copies;

/// What was not answered for this long is sent again. Members recognise it.
const AFTER: Duration = Duration::from_millis(500);

impl Active {
    /// Sends again what is due.
    pub(crate) fn repeat(&mut self, ctx: &mut Ctx) {
        if mutant!(ctx.options, NeverRepeat) {
            return;
        }
        let (pg, epoch) = (self.id, self.epoch);
        for (&object, queue) in &mut self.queues {
            let target = Target { pg, epoch, object };
            repeat_mutations(ctx, queue, target);
            repeat_healing(ctx, queue, target);
        }
    }
}

/// If one mutation of an object is due, all that are on their way go again, in their order: each rests on the one
/// before.
fn repeat_mutations(ctx: &mut Ctx, queue: &mut ObjectQueue, target: Target) {
    let (me, now) = (ctx.id(), ctx.now);
    let mut under_way: Vec<&mut Committing> = queue
        .running
        .iter_mut()
        .filter_map(|running| match &mut running.stage {
            Stage::Committing(committing) if committing.awaited.iter().any(|&osd| osd != me) => Some(committing),
            _ => None,
        })
        .collect();
    if !under_way.iter().any(|c| now.since(c.sent) >= AFTER) {
        return;
    }
    under_way.sort_unstable_by_key(|c| c.mutation.version);
    for committing in under_way {
        committing.sent = now;
        for (osd, mutation) in copies::shards(&committing.awaited, &committing.mutation) {
            let body = PeerBody::Write {
                object: target.object,
                after: committing.after,
                mutation,
            };
            if osd != me {
                ctx.tell(osd, target, body);
            }
        }
    }
}

fn repeat_healing(ctx: &mut Ctx, queue: &mut ObjectQueue, target: Target) {
    let (me, now, object) = (ctx.id(), ctx.now, target.object);
    let Some(healing) = queue.healing.as_mut().filter(|h| now.since(h.sent) >= AFTER) else {
        return;
    };
    healing.sent = now;
    if let Some(whole) = &healing.whole {
        for (osd, mutation) in copies::shards(&healing.awaited, whole) {
            if osd != me {
                ctx.tell(osd, target, PeerBody::Push { object, mutation });
            }
        }
    } else if let Some(osd) = healing.asked.filter(|osd| *osd != me) {
        ctx.tell(osd, target, PeerBody::Fetch { object });
    }
}
