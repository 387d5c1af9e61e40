//! Strays: objects of PGs in which this OSD has no part any more. It asks the primary whether they may go; the primary
//! says so when the PG is clean without them.

use std::time::Duration;

use trivet_core::keys::History;
use trivet_core::message::PeerBody;
use trivet_core::mutation::{Mutation, Ops};
use trivet_core::{Epoch, Now, ObjectId, OsdId, PgId, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::Osd;
use crate::ctx::{Ctx, Wait};
use crate::member::Member;

/// How often this OSD looks for PGs in which it has no part.
const INTERVAL: Duration = Duration::from_secs(5);

/// Objects that are dropped with one tick at most.
const AT_ONCE: usize = 64;

/// What is under way about strays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Strays {
    /// When it asked about them last.
    asked: Now,
    /// Requests to the store that drop something and have no answer.
    under_way: usize,
}

impl Strays {
    /// The store has answered one.
    pub(crate) fn dropped(&mut self) {
        self.under_way -= 1;
    }
}

impl Member {
    /// Asks about strays, and drops those that may go.
    pub(crate) fn drop_strays(&mut self, ctx: &mut Ctx) {
        // Nothing is dropped on the word of a metadata store that is not the one that the data belongs to.
        if ctx.is_halted() {
            return self.dropping.clear();
        }
        if ctx.now.since(self.strays.asked) >= INTERVAL {
            self.strays.asked = ctx.now;
            self.ask_about_strays(ctx);
        }
        // A disk that does not answer has enough to do.
        if self.strays.under_way > 0 {
            return;
        }
        let dropping: Vec<(PgId, Epoch)> = self.dropping.iter().map(|(&pg, &epoch)| (pg, epoch)).collect();
        for (pg, epoch) in dropping {
            if self.accepted_epoch(pg) == epoch {
                self.drop_some(ctx, pg, epoch);
            } else {
                self.dropping.remove(&pg);
            }
        }
    }

    fn ask_about_strays(&self, ctx: &mut Ctx) {
        let strays = unplanned(ctx).into_iter();
        for pg in strays.filter(|pg| !self.dropping.contains_key(pg)) {
            let claim = ctx.map.claims.get(&pg).map(|claim| &claim.value);
            if let Some(claim) = claim.filter(|claim| claim.active && !has_part(ctx, pg)) {
                let (primary, epoch) = (claim.primary, claim.epoch);
                ctx.tell_peer(primary, pg, epoch, PeerBody::Stray);
            }
        }
    }

    /// The epoch in which the PG has to go is durable, or the disk has failed.
    pub(crate) fn may_drop(&mut self, ctx: &Ctx, (pg, epoch): (PgId, Epoch), result: &Result<Reply, StoreError>) {
        if result.is_ok() && self.accepted_epoch(pg) == epoch && !ctx.is_halted() {
            self.dropping.insert(pg, epoch);
        }
    }

    /// Deletes some objects of the PG: a tombstone of a version beyond all that the epoch can give, which is forgotten
    /// at once.
    fn drop_some(&mut self, ctx: &mut Ctx, pg: PgId, epoch: Epoch) {
        let version = Version {
            epoch,
            counter: u64::MAX,
        };
        let mut objects: Vec<ObjectId> = ctx.objects_of(pg).map(|(object, _)| object).collect();
        if objects.is_empty() {
            self.dropping.remove(&pg);
            return;
        }
        objects.sort_unstable();
        objects.truncate(AT_ONCE);
        for object in objects {
            let mutation = Mutation {
                version,
                ops: Ops::Exactly(Vec::new()),
                zero: UnitMask::ALL,
                patches: Vec::new(),
                tombstone: true,
            };
            self.strays.under_way += 2;
            ctx.ask(Request::Replace { object, mutation }, Wait::Dropped);
            ctx.ask(Request::Forget { object, version }, Wait::Dropped);
        }
    }
}

impl Osd {
    /// Somebody asks whether his objects may go.
    pub(crate) fn stray(&mut self, from: OsdId, id: PgId, epoch: Epoch) {
        let active = self.pgs.get(&id).and_then(|pg| pg.active());
        // He asks again, if this OSD is not the one to ask, or not yet.
        let Some(active) = active.filter(|active| active.epoch == epoch) else {
            return;
        };
        if active.is_clean_on_up_set(&self.ctx) && !active.acting.contains(&from) {
            self.ctx.tell_peer(from, id, epoch, PeerBody::Drop);
        }
    }

    /// A primary says that the PG is clean without this OSD.
    pub(crate) fn member_drop(&mut self, from: OsdId, pg: PgId, epoch: Epoch) {
        if self.ctx.is_halted()
            || !self.ctx.map.is_current(pg)
            || epoch < self.member.accepted_epoch(pg)
            || self.member.dropping.get(&pg) == Some(&epoch)
        {
            return;
        }
        self.accept(from, pg, epoch);
        self.ctx.ask(Request::AcceptEpoch { pg, epoch }, Wait::Drop(pg, epoch));
    }
}

/// The PGs of which this OSD has objects without being in their up sets.
fn unplanned(ctx: &Ctx) -> Vec<PgId> {
    let me = ctx.id();
    let is_planned = |pg: &PgId| ctx.map.plan_of(*pg).is_some_and(|plan| plan.osds.contains(&me));
    ctx.store.pgs().filter(|pg| !is_planned(pg)).collect()
}

/// Whether this OSD is in the up set, or in a set that the history still needs.
fn has_part(ctx: &Ctx, pg: PgId) -> bool {
    let me = ctx.id();
    let planned = ctx.map.plan_of(pg).is_none_or(|plan| plan.osds.contains(&me));
    let acted = |history: &History| history.intervals.iter().any(|interval| interval.acting.contains(&me));
    planned || ctx.map.history(pg).is_none_or(|history| acted(&history))
}
