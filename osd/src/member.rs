//! The member's side of a PG: accept epochs, list, execute what the primary of the accepted epoch asks.

use std::collections::BTreeSet;
use std::ops::Range;

use trivet_core::buffer::{join, slice_segments};
use trivet_core::message::{LIST_LIMIT, Listed, PeerBody, WriteError};
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::{Epoch, ImageId, ObjectId, OsdId, PgId, UNIT_SIZE, UnitMask, Version};
use trivet_store::api::{ObjectInfo, Reply, Request, StoreError};

use crate::inventory::objects;
use crate::options::mutant;
use crate::{Effect, Osd, Target, Wait};

/// Objects per part of a listing.
const LISTING_PART: usize = 4096;

/// So many parts surely get through to somebody who asks for a listing.
const LISTING_BURST: u32 = 256;

impl Osd {
    /// A primary claims an epoch. From here on nothing of a lower one is executed.
    pub(crate) fn fence(&mut self, from: OsdId, pg: PgId, epoch: Epoch, out: &mut Vec<Effect>) {
        // Who claims in a store that is not the right one is not helped to.
        if self.is_halted() {
            return;
        }
        let known = self.map.histories.get(&pg).map_or(Epoch(0), |h| h.value.epoch);
        let accepted = self.accepted_epoch(pg);
        if epoch < accepted.max(known) || self.accepted.is_past(pg) {
            let accepted = accepted.max(known);
            self.to_peer(from, pg, epoch, PeerBody::Refused { accepted }, out);
            return;
        }
        // Which objects a PG has is known only with the numbering that it belongs to: the primary asks again.
        if !self.map.is_current(pg) && !mutant!(self.options, ListByOldCount) {
            return;
        }
        self.accept(from, pg, epoch, out);
        if mutant!(self.options, ListBeforeFence) {
            return self.send_listing(from, pg, epoch, out);
        }
        // The log is in order: when this is durable, so is every write of a lower epoch that was accepted before,
        // and the listing is complete.
        self.ask(Request::AcceptEpoch { pg, epoch }, Wait::Fence(from, pg, epoch));
    }

    /// Takes an epoch that is not lower than the accepted one for the accepted one; it is still to be made durable. This
    /// OSD acts for no lower one any more.
    pub(crate) fn accept(&mut self, from: OsdId, pg: PgId, epoch: Epoch, out: &mut Vec<Effect>) {
        if epoch > self.accepted_epoch(pg) {
            if self.accepted.accept(pg, epoch) {
                self.promises.renumbered(pg, self.now);
            }
            self.promises.accept(pg, from, self.now);
        }
        if self.pgs.get(&pg).is_some_and(|own| own.epoch < epoch) {
            self.depose(pg, out);
        }
    }

    /// The highest epoch of the PG that was accepted.
    pub(crate) fn accepted_epoch(&self, pg: PgId) -> Epoch {
        self.accepted.get(pg).unwrap_or_default()
    }

    pub(crate) fn fence_durable(
        &mut self,
        from: OsdId,
        pg: PgId,
        epoch: Epoch,
        result: &Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        if result.is_ok() && self.accepted_epoch(pg) == epoch {
            self.send_listing(from, pg, epoch, out);
        }
    }

    fn send_listing(&mut self, from: OsdId, pg: PgId, epoch: Epoch, out: &mut Vec<Effect>) {
        self.promises.give(from, self.now);
        let standing = self.promises.standing(pg, self.now);
        let promise = standing.filter(|_| !mutant!(self.options, ForgetPromises));
        let listed = self.listed(pg);
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
            self.to_peer(from, pg, epoch, body, out);
        }
    }

    fn listed(&self, pg: PgId) -> Vec<Listed> {
        let mut listed: Vec<Listed> = self
            .objects_of(pg)
            .map(|(object, info)| Listed {
                object,
                version: info.version,
                tombstone: info.tombstone,
            })
            .collect();
        listed.sort_unstable_by_key(|l| l.object);
        listed
    }

    /// The objects of a PG that the store has, in no particular order; none if the PG is not of its pool's present
    /// generation.
    pub(crate) fn objects_of(&self, pg: PgId) -> impl Iterator<Item = (ObjectId, ObjectInfo)> + '_ {
        let numbering = self.map.numbering(pg.pool);
        let is_own = move |object: &ObjectId| numbering.is_some_and(|numbering| object.pg(numbering) == pg);
        self.store
            .objects()
            .filter(move |(object, _)| object.image.pool() == pg.pool && is_own(object))
    }

    /// Whether a request of this epoch may be executed; if not, the sender is told.
    pub(crate) fn admits(&self, from: OsdId, target: Target, out: &mut Vec<Effect>) -> bool {
        let accepted = self.accepted_epoch(target.pg);
        let admitted = target.epoch == accepted || mutant!(self.options, AcceptOldEpoch);
        if !admitted {
            self.tell(from, target, PeerBody::Refused { accepted }, out);
        }
        admitted
    }

    /// A mutation, to be executed on top of the version that the primary names, and no other. One that was executed
    /// before is answered again; one that is just being executed will be.
    pub(crate) fn member_write(
        &mut self,
        from: OsdId,
        target: Target,
        after: Version,
        mutation: Mutation,
        out: &mut Vec<Effect>,
    ) {
        if !self.admits(from, target, out) {
            return;
        }
        let Target { object, .. } = target;
        let version = mutation.version;
        let durable = self.store.info(object).map_or(Version::NONE, |info| info.version);
        let (latest, is_nothing) = self.store.latest(object);
        let fits = latest == after || is_nothing && after == Version::NONE;
        if version <= durable {
            self.say_written(from, target, version, Ok(()), out);
        } else if version > latest && (fits || mutant!(self.options, IgnorePredecessor)) {
            self.ask(
                Request::Write { object, mutation },
                Wait::MemberWrite(from, target, version),
            );
        } else if version > latest {
            let error = if after == Version::NONE {
                WriteError::Stale
            } else {
                WriteError::Behind
            };
            self.say_written(from, target, version, Err(error), out);
        }
    }

    /// A whole object. What is there already and newer is at least as good: it came after it in this epoch.
    pub(crate) fn member_push(&mut self, from: OsdId, target: Target, mutation: Mutation, out: &mut Vec<Effect>) {
        if !self.admits(from, target, out) {
            return;
        }
        let Target { object, .. } = target;
        let version = mutation.version;
        if self.store.latest(object).0 > version {
            return self.say_written(from, target, version, Ok(()), out);
        }
        self.ask(
            Request::Replace { object, mutation },
            Wait::MemberWrite(from, target, version),
        );
    }

    pub(crate) fn say_written(
        &self,
        to: OsdId,
        target: Target,
        version: Version,
        result: Result<(), WriteError>,
        out: &mut Vec<Effect>,
    ) {
        let body = PeerBody::Written {
            object: target.object,
            version,
            result,
        };
        self.tell(to, target, body, out);
    }

    pub(crate) fn member_fetch(&mut self, from: OsdId, target: Target, out: &mut Vec<Effect>) {
        if self.admits(from, target, out) {
            let object = target.object;
            self.ask(Request::Salvage { object }, Wait::Fetch(from, target));
        }
    }

    /// The whole object was read, as far as it can be.
    pub(crate) fn salvaged(
        &mut self,
        from: OsdId,
        target: Target,
        result: Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let (whole, damaged) = self.whole_object(target.object, result);
        let body = PeerBody::Fetched {
            object: target.object,
            whole,
            damaged,
        };
        self.tell(from, target, body, out);
    }

    pub(crate) fn member_forget(&mut self, from: OsdId, target: Target, version: Version, out: &mut Vec<Effect>) {
        if !self.is_halted() && self.admits(from, target, out) {
            let object = target.object;
            self.ask(Request::Forget { object, version }, Wait::Forget(from, target, version));
        }
    }

    pub(crate) fn say_forgotten(
        &self,
        to: OsdId,
        target: Target,
        version: Version,
        result: &Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        if result.is_ok() {
            let object = target.object;
            self.tell(to, target, PeerBody::Forgotten { object, version }, out);
        }
    }

    /// An object that was read as a whole, as the mutation that makes it elsewhere, and the units of it that cannot be
    /// read.
    fn whole_object(&self, object: ObjectId, result: Result<Reply, StoreError>) -> (Option<Mutation>, UnitMask) {
        let Ok(Reply::Salvaged {
            version,
            segments,
            damaged,
        }) = result
        else {
            return (None, UnitMask::EMPTY);
        };
        let Some(info) = self.store.info(object).filter(|info| info.version == version) else {
            return (None, UnitMask::EMPTY);
        };
        let damaged = if mutant!(self.options, RepairWithZeroes) {
            UnitMask::EMPTY
        } else {
            damaged
        };
        let patches = info.present.minus(damaged).runs().map(|(first, count)| {
            let data = slice_segments(&segments, first * UNIT_SIZE, count * UNIT_SIZE);
            Patch::seal(object, first, join(data))
        });
        let mut ops = self.store.ops(object);
        if mutant!(self.options, HealWithoutOps) {
            ops.clear();
        }
        let whole = Mutation {
            version,
            ops: Ops::Exactly(ops),
            zero: UnitMask::ALL,
            patches: patches.collect(),
            tombstone: info.tombstone,
        };
        (Some(whole), damaged)
    }

    /// The first [`LIST_LIMIT`] of the numbers that objects of an image have in a PG that is served, ascending; those that
    /// this OSD still lacks, and those of which it may be that not every member has deleted them, too. What was
    /// acknowledged is among them.
    pub(crate) fn image_objects(&self, pg: PgId, image: ImageId, numbers: Range<u64>) -> Vec<u64> {
        let range = objects(image, numbers);
        let Some(served) = self.pgs.get(&pg) else {
            return Vec::new();
        };
        let stored = self.inventory.list(pg, range.clone());
        let missing = served.missing.range(range.clone()).map(|(&object, _)| object);
        let missing = missing.filter(|_| !mutant!(self.options, ListOnlyOwn));
        let lanes = served.lanes.range(range);
        let changing = lanes
            .filter(|(_, lane)| !lane.changing().is_empty())
            .map(|(&object, _)| object);
        let found: BTreeSet<ObjectId> = stored
            .take(LIST_LIMIT)
            .chain(missing.take(LIST_LIMIT))
            .chain(changing.take(LIST_LIMIT))
            .collect();
        found.into_iter().map(|object| object.number).take(LIST_LIMIT).collect()
    }
}
