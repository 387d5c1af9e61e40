//! The member's side of a PG: accept epochs, list, execute what the primary of the accepted epoch asks.

use std::collections::BTreeSet;

use trivet_core::message::{Listed, PeerBody, WriteError};
use trivet_core::mutation::{Mutation, Patch};
use trivet_core::{Epoch, ObjectId, OsdId, PgId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::{Effect, Osd, Wait};

/// Objects per part of a listing.
const LISTING_PART: usize = 4096;

impl Osd {
    /// A primary claims an epoch. From here on nothing of a lower one is executed.
    pub(crate) fn fence(&mut self, from: OsdId, pg: PgId, epoch: Epoch, out: &mut Vec<Effect>) {
        let known = self.map.histories.get(&pg).map_or(Epoch(0), |h| h.value.epoch);
        let accepted = self.accepted.get(&pg).copied().unwrap_or_default().max(known);
        if epoch < accepted {
            self.to_peer(from, pg, epoch, PeerBody::Refused { accepted }, out);
            return;
        }
        self.accepted.insert(pg, epoch);
        if self.pgs.get(&pg).is_some_and(|own| own.epoch < epoch) {
            self.depose(pg, out);
        }
        // The log is in order: when this is durable, so is every write of a lower epoch that was accepted before,
        // and the listing is complete.
        self.ask(Request::AcceptEpoch { pg, epoch }, Wait::Fence { pg, epoch, from });
    }

    pub(crate) fn fence_durable(
        &mut self,
        from: OsdId,
        pg: PgId,
        epoch: Epoch,
        result: &Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        if result.is_err() || self.accepted.get(&pg) != Some(&epoch) {
            return;
        }
        let objects = self.objects_of(pg);
        let mut recent: Vec<_> = self.recent.get(&pg).map(|r| r.iter().collect()).unwrap_or_default();
        let parts = objects.len().div_ceil(LISTING_PART).max(1);
        let mut objects = objects.into_iter();
        for part in 1..=parts {
            let body = PeerBody::Listing {
                objects: objects.by_ref().take(LISTING_PART).collect(),
                recent: std::mem::take(&mut recent),
                last: part == parts,
            };
            self.to_peer(from, pg, epoch, body, out);
        }
    }

    fn objects_of(&self, pg: PgId) -> Vec<Listed> {
        let Some(pool) = self.map.pools.get(&pg.pool) else {
            return Vec::new();
        };
        let count = pool.value.pg_count;
        let mut listed: Vec<Listed> = self
            .store
            .objects()
            .filter(|(object, _)| object.image.pool() == pg.pool && object.pg(count) == pg)
            .map(|(object, info)| Listed {
                object,
                version: info.version,
                op: info.op,
                present: info.present,
                tombstone: info.tombstone,
            })
            .collect();
        listed.sort_unstable_by_key(|l| l.object);
        listed
    }

    /// Whether a request of this epoch may be executed; if not, the sender is told.
    fn admits(&self, from: OsdId, pg: PgId, epoch: Epoch, out: &mut Vec<Effect>) -> bool {
        let accepted = self.accepted.get(&pg).copied().unwrap_or_default();
        if epoch != accepted {
            self.to_peer(from, pg, epoch, PeerBody::Refused { accepted }, out);
        }
        epoch == accepted
    }

    pub(crate) fn member_write(
        &mut self,
        from: OsdId,
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
        mutation: Mutation,
        out: &mut Vec<Effect>,
    ) {
        if !self.admits(from, pg, epoch, out) {
            return;
        }
        let (version, op) = (mutation.version, mutation.op);
        if self.store.info(object).is_some_and(|info| info.version == version) {
            let body = PeerBody::Written {
                object,
                version,
                result: Err(WriteError::Stale),
            };
            self.to_peer(from, pg, epoch, body, out);
            return;
        }
        let wait = Wait::MemberWrite {
            pg,
            epoch,
            from,
            object,
            version,
            op,
        };
        self.ask(Request::Write { object, mutation }, wait);
    }

    pub(crate) fn member_fetch(
        &mut self,
        from: OsdId,
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
        out: &mut Vec<Effect>,
    ) {
        if !self.admits(from, pg, epoch, out) {
            return;
        }
        let wait = Wait::Fetch {
            pg,
            epoch,
            from,
            object,
        };
        self.ask(
            Request::Read {
                object,
                first: 0,
                count: UNITS_PER_OBJECT,
            },
            wait,
        );
    }

    pub(crate) fn member_forget(
        &mut self,
        from: OsdId,
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
        version: Version,
        out: &mut Vec<Effect>,
    ) {
        if self.admits(from, pg, epoch, out) {
            self.ask(Request::Forget { object, version }, Wait::Forget);
        }
    }

    /// An object that was read as a whole, as the mutation that makes it elsewhere.
    pub(crate) fn whole_object(&self, object: ObjectId, result: Result<Reply, StoreError>) -> Option<Mutation> {
        let Ok(Reply::Data { version, segments }) = result else {
            return None;
        };
        let info = self.store.info(object).filter(|info| info.version == version)?;
        let patches = info
            .present
            .runs()
            .map(|(first, count)| {
                let data = trivet_core::buffer::slice_segments(&segments, first * UNIT_SIZE, count * UNIT_SIZE);
                Patch::seal(object, first, trivet_core::buffer::join(data))
            })
            .collect();
        Some(Mutation {
            version,
            op: info.op,
            zero: UnitMask::ALL,
            patches,
            tombstone: info.tombstone,
        })
    }

    /// The object numbers of an image in a PG after `after`, ascending, at most `limit`.
    pub(crate) fn image_objects(
        &self,
        pg: PgId,
        image: trivet_core::ImageId,
        after: Option<u64>,
        limit: usize,
    ) -> Vec<u64> {
        let Some(pool) = self.map.pools.get(&pg.pool) else {
            return Vec::new();
        };
        let count = pool.value.pg_count;
        let numbers: BTreeSet<u64> = self
            .store
            .objects()
            .filter(|(object, info)| {
                object.image == image
                    && !info.tombstone
                    && after.is_none_or(|after| object.number > after)
                    && object.pg(count) == pg
            })
            .map(|(object, _)| object.number)
            .collect();
        numbers.into_iter().take(limit).collect()
    }
}
