//! Reads without asking anybody: as long as every member has promised lately that nobody else acts, what the own copy says
//! is true. Otherwise an answer waits for the members' next confirmation (decision 0007).

use std::collections::BTreeMap;

use trivet_core::message::{LEASE, OpError, OpValue};
use trivet_core::{ClientId, Now, OpId, OsdId};

use crate::ctx::Ctx;
use crate::options::{Options, mutant};
use crate::primary::pg::Active;

/// An answer to a client.
#[derive(Debug)]
struct Answer {
    client: ClientId,
    op: OpId,
    result: Result<OpValue, OpError>,
}

/// What members confirmed of an epoch, and the answers that wait for more.
#[derive(Debug, Default)]
pub(crate) struct Confirmation {
    /// When each member was asked for its latest confirmation.
    confirmed: BTreeMap<OsdId, Now>,
    /// Pings after this are about this epoch.
    pinged_from: Now,
    unconfirmed: Vec<Answer>,
}

impl Confirmation {
    /// All members accepted the epoch when they were asked at `asked`: their listings were as good as answers to pings.
    pub(crate) fn new(members: impl Iterator<Item = OsdId>, asked: Now, now: Now) -> Confirmation {
        Confirmation {
            confirmed: members.map(|osd| (osd, asked)).collect(),
            pinged_from: now,
            unconfirmed: Vec::new(),
        }
    }

    /// Whether an answer to this operation waits.
    pub(crate) fn is_awaited(&self, op: OpId) -> bool {
        self.unconfirmed.iter().any(|answer| answer.op == op)
    }

    /// Sends everybody who waits on to the next primary.
    pub(crate) fn send_all_on(self, ctx: &mut Ctx) {
        for answer in self.unconfirmed {
            ctx.send_on(answer.client, answer.op);
        }
    }
}

impl Active {
    /// Whether every member promised lately that nobody else acts.
    pub(crate) fn is_confirmed(&self, now: Now, options: &Options) -> bool {
        let confirmed = &self.confirmation.confirmed;
        let confirms = |osd: OsdId| confirmed.get(&osd).is_some_and(|&sent| now.since(sent) < LEASE);
        let by_any = mutant!(options, ConfirmByAny) && self.others().any(confirms);
        by_any || self.others().all(confirms)
    }

    /// A member confirms the epoch, as of a ping that was sent then.
    pub(crate) fn confirmed_by(&mut self, ctx: &mut Ctx, from: OsdId, sent: Now) {
        // A ping of the same instant may have gone out before, without this PG.
        if sent <= self.confirmation.pinged_from || !self.acting.contains(&from) {
            return;
        }
        let confirmed = self.confirmation.confirmed.entry(from).or_insert(sent);
        *confirmed = sent.max(*confirmed);
        if self.confirmation.unconfirmed.is_empty() || !self.is_confirmed(ctx.now, &ctx.options) {
            return;
        }
        for answer in self.confirmation.unconfirmed.drain(..) {
            give(ctx, answer);
        }
    }

    /// Answers a client with what the own copy says: at once if no other primary can act, else when that is confirmed.
    pub(crate) fn answer(&mut self, ctx: &mut Ctx, client: ClientId, op: OpId, result: Result<OpValue, OpError>) {
        let answer = Answer { client, op, result };
        if self.is_confirmed(ctx.now, &ctx.options) || mutant!(ctx.options, ReadWithoutLease) {
            give(ctx, answer);
        } else {
            self.confirmation.unconfirmed.push(answer);
        }
    }
}

/// Gives an answer. A mutation that is answered like this changed nothing, and no object remembers it.
fn give(ctx: &mut Ctx, answer: Answer) {
    let Answer { client, op, result } = answer;
    if result == Ok(OpValue::Changed) && !ctx.clients.ends(op, Ok(())) {
        return ctx.send_on(client, op);
    }
    ctx.reply(client, op, result);
}
