//! Epochs: a primary claims one, and from then on nothing of a lower one is executed. Whoever accepts lists what it has.

use trivet_core::message::{Listed, PeerBody};
use trivet_core::{Epoch, OsdId, PgId};
use trivet_store::api::{Reply, Request, StoreError};

use crate::Osd;
use crate::ctx::{Ctx, Wait};
use crate::member::Member;
use crate::options::mutant;

/// Objects per part of a listing.
const LISTING_PART: usize = 4096;

/// So many parts surely get through to somebody who asks for a listing.
const LISTING_BURST: u32 = 256;

impl Osd {
    /// A primary claims an epoch. From here on nothing of a lower one is executed.
    pub(crate) fn fence(&mut self, from: OsdId, pg: PgId, epoch: Epoch) {
        // Who claims in a store that is not the right one is not helped to.
        if self.ctx.is_halted() {
            return;
        }
        let known = self.ctx.map.histories.get(&pg).map_or(Epoch(0), |h| h.value.epoch);
        let accepted = self.member.accepted_epoch(pg).max(known);
        if epoch < accepted || self.member.accepted.is_past(pg) {
            return self.ctx.tell_peer(from, pg, epoch, PeerBody::Refused { accepted });
        }
        // Which objects a PG has is known only with the numbering that it belongs to: the primary asks again.
        if !self.ctx.map.is_current(pg) && !mutant!(self.ctx.options, ListByOldCount) {
            return;
        }
        self.accept(from, pg, epoch);
        if mutant!(self.ctx.options, ListBeforeFence) {
            return self.member.send_listing(&mut self.ctx, from, (pg, epoch));
        }
        // The log is in order: when this is durable, so is every write of a lower epoch that was accepted before,
        // and the listing is complete.
        self.ctx
            .ask(Request::AcceptEpoch { pg, epoch }, Wait::Fence(from, pg, epoch));
    }

    /// Takes an epoch that is not lower than the accepted one for the accepted one; it is still to be made durable. This
    /// OSD acts for no lower one any more.
    pub(crate) fn accept(&mut self, from: OsdId, pg: PgId, epoch: Epoch) {
        self.member.accept(&self.ctx, from, pg, epoch);
        if self.pgs.get(&pg).is_some_and(|own| own.epoch < epoch) {
            self.depose(pg);
        }
    }
}

impl Member {
    fn accept(&mut self, ctx: &Ctx, from: OsdId, pg: PgId, epoch: Epoch) {
        if epoch <= self.accepted_epoch(pg) {
            return;
        }
        if self.accepted.accept(pg, epoch) {
            self.promises.renumbered(pg, ctx.now);
        }
        self.promises.accept(pg, from, ctx.now);
    }

    /// The epoch that a primary claimed is durable, or the disk has failed.
    pub(crate) fn fence_durable(
        &mut self,
        ctx: &mut Ctx,
        from: OsdId,
        (pg, epoch): (PgId, Epoch),
        result: &Result<Reply, StoreError>,
    ) {
        if result.is_ok() && self.accepted_epoch(pg) == epoch {
            self.send_listing(ctx, from, (pg, epoch));
        }
    }

    fn send_listing(&mut self, ctx: &mut Ctx, from: OsdId, (pg, epoch): (PgId, Epoch)) {
        self.promises.give(from, ctx.now);
        let standing = self.promises.standing(pg, ctx.now);
        let promise = standing.filter(|_| !mutant!(ctx.options, ForgetPromises));
        let listed = listed(ctx, pg);
        let parts = listed.len().div_ceil(LISTING_PART).max(1);
        let parts = u32::try_from(parts).expect("fewer than 2^32 objects");
        // A link takes only so much at once and drops the rest: the next time other parts come first.
        let first = self.listings.wrapping_mul(LISTING_BURST) % parts;
        self.listings = self.listings.wrapping_add(1);
        for part in (first..parts).chain(0..first) {
            let start = part as usize * LISTING_PART;
            let end = listed.len().min(start + LISTING_PART);
            let body = PeerBody::Listing {
                part,
                parts,
                promise,
                objects: listed[start..end].to_vec(),
            };
            ctx.tell_peer(from, pg, epoch, body);
        }
    }
}

/// What this OSD has of a PG, ascending.
fn listed(ctx: &Ctx, pg: PgId) -> Vec<Listed> {
    let objects = ctx.objects_of(pg).map(|(object, info)| Listed {
        object,
        version: info.version,
        tombstone: info.tombstone,
    });
    let mut listed: Vec<Listed> = objects.collect();
    listed.sort_unstable_by_key(|l| l.object);
    listed
}
