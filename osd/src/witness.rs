//! What this OSD testifies while the metadata store is not the one that its data belongs to: all that it has, so that
//! `trivet meta adopt` can write into the store what that has to know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_core::kv::{Change, Compare, LeaseId, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::witness::{self, Head, IMAGES_PER_PART, OfImages, OfPool};
use trivet_core::{Epoch, ImageId, Now, PoolId, keys};

use crate::{Effect, Osd, TxnWait};

/// What was not written is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Keys that are written at once: a value has some 30 KiB at most.
const AT_ONCE: usize = 20;

/// How far this OSD is.
#[derive(Debug, Default)]
pub(crate) struct Testimony {
    /// The halt that it is about, and the lease that it hangs on.
    about: Option<(Revision, LeaseId)>,
    /// What is still to be written, the last first.
    left: Vec<Change>,
    /// The keys that were written.
    written: Vec<String>,
    under_way: Option<u64>,
    tried_at: Option<Now>,
}

impl Osd {
    /// Says what there is, while that is wanted; takes it back afterwards.
    pub(crate) fn testify(&mut self, out: &mut Vec<Effect>) {
        if self.testimony.under_way.is_some() {
            return;
        }
        match (self.map.halted.as_ref().map(|halted| halted.revision), self.lease) {
            (Some(halted), Some(lease)) => self.go_on_testifying((halted, lease), out),
            (None, Some(_)) => self.take_testimony_back(out),
            (_, None) => {}
        }
    }

    fn go_on_testifying(&mut self, about: (Revision, LeaseId), out: &mut Vec<Effect>) {
        if self.testimony.about != Some(about) {
            self.testimony = Testimony {
                about: Some(about),
                left: self.all_there_is(about.1),
                ..Testimony::default()
            };
        }
        let now = self.now;
        let testimony = &mut self.testimony;
        let due = testimony.tried_at.is_none_or(|at| now.since(at) >= TRY_AGAIN);
        if testimony.left.is_empty() || !due {
            return;
        }
        let next = testimony.left.split_off(testimony.left.len().saturating_sub(AT_ONCE));
        testimony
            .written
            .extend(next.iter().map(|change| change.key().to_owned()));
        testimony.under_way = Some(self.next);
        let txn = Txn {
            compare: vec![Compare::ModRevision(keys::HALTED.to_owned(), about.0)],
            changes: next,
        };
        self.run_txn(txn, TxnWait::Testimony, out);
    }

    fn take_testimony_back(&mut self, out: &mut Vec<Effect>) {
        let testimony = &mut self.testimony;
        (testimony.about, testimony.left) = (None, Vec::new());
        if testimony.written.is_empty() {
            return;
        }
        let first = testimony.written.len().saturating_sub(AT_ONCE);
        let changes = testimony.written.split_off(first).into_iter().map(Change::Delete);
        let txn = Txn {
            compare: Vec::new(),
            changes: changes.collect(),
        };
        testimony.under_way = Some(self.next);
        self.run_txn(txn, TxnWait::Testimony, out);
    }

    /// A transaction of the testimony has ended. What was not written is said again from the beginning.
    pub(crate) fn testified(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        if self
            .testimony
            .under_way
            .take_if(|under_way| *under_way == ticket)
            .is_none()
        {
            return;
        }
        if matches!(outcome, TxnOutcome::Committed(_)) {
            return self.testify(out);
        }
        self.testimony.about = None;
        self.testimony.tried_at = Some(self.now);
    }

    /// All of it, the head first, for it is written last.
    fn all_there_is(&self, lease: LeaseId) -> Vec<Change> {
        let put = |key: String, value| Change::Put {
            key,
            value,
            lease: Some(lease),
        };
        let (me, boot) = (self.id(), self.identity.boot);
        let pools = self.of_pools();
        let images: Vec<(String, u64)> = self.of_images().into_iter().collect();
        let parts = images.chunks(IMAGES_PER_PART).map(|part| OfImages {
            boot,
            images: part.iter().cloned().collect(),
        });
        let parts: Vec<OfImages> = parts.collect();
        let highest_image = self.store.objects().map(|(object, _)| object.image.number()).max();
        let head = Head {
            boot,
            size: self.identity.size,
            mark: self.store.mark(),
            next_image: highest_image.map_or(0, |number| number + 1),
            next_pool: self.highest_pool().map_or(0, |pool| u32::from(pool.0) + 1),
            pools: pools.keys().copied().collect(),
            parts: u32::try_from(parts.len()).expect("fewer than 2^32 objects"),
        };
        let head = put(witness::head(me), encode(&head));
        let pools = pools
            .iter()
            .map(|(&pool, value)| put(witness::pool(me, pool), encode(value)));
        let parts = (0..)
            .zip(&parts)
            .map(|(part, value)| put(witness::images(me, part), encode(value)));
        std::iter::once(head).chain(pools).chain(parts).collect()
    }

    fn highest_pool(&self) -> Option<PoolId> {
        let of_objects = self.store.objects().map(|(object, _)| object.image.pool());
        of_objects.chain(self.accepted.iter().map(|(pg, _)| pg.pool)).max()
    }

    /// What it has of each pool that the store knows.
    fn of_pools(&self) -> BTreeMap<PoolId, OfPool> {
        let mut numbers: BTreeMap<PoolId, (BTreeSet<u32>, Epoch)> = BTreeMap::new();
        for (object, info) in self.store.objects() {
            if let Some(pg) = self.map.pg_of(object) {
                let (pgs, epoch) = numbers.entry(pg.pool).or_default();
                pgs.insert(pg.number);
                *epoch = info.version.epoch.max(*epoch);
            }
        }
        let pools = self.map.pools.iter().map(|(&id, pool)| {
            let (pgs, highest) = numbers.remove(&id).unwrap_or_default();
            let accepted = || self.accepted.iter().filter(|(pg, _)| pg.pool == id);
            let value = OfPool {
                boot: self.identity.boot,
                epoch: accepted()
                    .map(|(_, epoch)| epoch)
                    .max()
                    .unwrap_or_default()
                    .max(highest),
                generation: accepted().map(|(pg, _)| pg.generation).max().unwrap_or(0),
                count: pool.value.pg_count,
                pgs: OfPool::bits(pool.value.pg_count, pgs),
            };
            (id, value)
        });
        pools.collect()
    }

    /// The images that it has objects of that are not deleted, and the ends of those.
    fn of_images(&self) -> BTreeMap<String, u64> {
        let mut ends: BTreeMap<ImageId, u64> = BTreeMap::new();
        for (object, _) in self.store.objects().filter(|(_, info)| !info.tombstone) {
            let end = ends.entry(object.image).or_default();
            *end = (object.number + 1).max(*end);
        }
        ends.into_iter().map(|(image, end)| (image.to_string(), end)).collect()
    }
}
