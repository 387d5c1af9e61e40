//! What this OSD testifies while the metadata store is not the one that its data belongs to: all that it has, so that
//! `trivet meta adopt` can write into the store what that has to know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_core::kv::{Change, Compare, LeaseId, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::witness::{self, Head, IMAGES_PER_PART, OfImages, OfPool};
use trivet_core::{Epoch, Epochs, ImageId, Now, PoolId, keys};

use crate::ctx::{Ctx, TxnWait};

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

impl Testimony {
    /// Says what there is, while that is wanted; takes it back afterwards.
    pub(crate) fn testify(&mut self, ctx: &mut Ctx, accepted: &Epochs) {
        if self.under_way.is_some() {
            return;
        }
        match (ctx.map.halted.as_ref().map(|halted| halted.revision), ctx.lease) {
            (Some(halted), Some(lease)) => self.go_on(ctx, accepted, (halted, lease)),
            (None, Some(_)) => self.take_back(ctx),
            (_, None) => {}
        }
    }

    fn go_on(&mut self, ctx: &mut Ctx, accepted: &Epochs, about: (Revision, LeaseId)) {
        if self.about != Some(about) {
            *self = Testimony {
                about: Some(about),
                left: all_there_is(ctx, accepted, about.1),
                ..Testimony::default()
            };
        }
        let due = self.tried_at.is_none_or(|at| ctx.now.since(at) >= TRY_AGAIN);
        if self.left.is_empty() || !due {
            return;
        }
        let next = self.left.split_off(self.left.len().saturating_sub(AT_ONCE));
        self.written.extend(next.iter().map(|change| change.key().to_owned()));
        let txn = Txn {
            compare: vec![Compare::ModRevision(keys::HALTED.to_owned(), about.0)],
            changes: next,
        };
        self.under_way = Some(ctx.run_txn(txn, TxnWait::Testimony));
    }

    fn take_back(&mut self, ctx: &mut Ctx) {
        (self.about, self.left) = (None, Vec::new());
        if self.written.is_empty() {
            return;
        }
        let first = self.written.len().saturating_sub(AT_ONCE);
        let changes = self.written.split_off(first).into_iter().map(Change::Delete);
        let txn = Txn {
            compare: Vec::new(),
            changes: changes.collect(),
        };
        self.under_way = Some(ctx.run_txn(txn, TxnWait::Testimony));
    }

    /// A transaction of the testimony has ended. What was not written is said again from the beginning.
    pub(crate) fn ended(&mut self, ctx: &mut Ctx, accepted: &Epochs, ticket: u64, outcome: TxnOutcome) {
        // One of an earlier halt.
        if self.under_way.take_if(|under_way| *under_way == ticket).is_none() {
            return;
        }
        if matches!(outcome, TxnOutcome::Committed(_)) {
            return self.testify(ctx, accepted);
        }
        self.about = None;
        self.tried_at = Some(ctx.now);
    }
}

/// All of it, the head first, for it is written last.
fn all_there_is(ctx: &Ctx, accepted: &Epochs, lease: LeaseId) -> Vec<Change> {
    let put = |key: String, value| Change::Put {
        key,
        value,
        lease: Some(lease),
    };
    let (me, boot) = (ctx.id(), ctx.identity.boot);
    let pools = of_pools(ctx, accepted);
    let images: Vec<(String, u64)> = of_images(ctx).into_iter().collect();
    let parts = images.chunks(IMAGES_PER_PART).map(|part| OfImages {
        boot,
        images: part.iter().cloned().collect(),
    });
    let parts: Vec<OfImages> = parts.collect();
    let highest_image = ctx.store.objects().map(|(object, _)| object.image.number()).max();
    let head = Head {
        boot,
        size: ctx.identity.size,
        mark: ctx.store.mark(),
        next_image: highest_image.map_or(0, |number| number + 1),
        next_pool: highest_pool(ctx, accepted).map_or(0, |pool| u32::from(pool.0) + 1),
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

fn highest_pool(ctx: &Ctx, accepted: &Epochs) -> Option<PoolId> {
    let of_objects = ctx.store.objects().map(|(object, _)| object.image.pool());
    of_objects.chain(accepted.iter().map(|(pg, _)| pg.pool)).max()
}

/// What it has of each pool that the store knows.
fn of_pools(ctx: &Ctx, accepted: &Epochs) -> BTreeMap<PoolId, OfPool> {
    let mut numbers: BTreeMap<PoolId, (BTreeSet<u32>, Epoch)> = BTreeMap::new();
    for (object, info) in ctx.store.objects() {
        if let Some(pg) = ctx.map.pg_of(object) {
            let (pgs, epoch) = numbers.entry(pg.pool).or_default();
            pgs.insert(pg.number);
            *epoch = info.version.epoch.max(*epoch);
        }
    }
    let pools = ctx.map.pools.iter().map(|(&id, pool)| {
        let (pgs, highest) = numbers.remove(&id).unwrap_or_default();
        let own = || accepted.iter().filter(|(pg, _)| pg.pool == id);
        let value = OfPool {
            boot: ctx.identity.boot,
            epoch: own().map(|(_, epoch)| epoch).max().unwrap_or_default().max(highest),
            generation: own().map(|(pg, _)| pg.generation).max().unwrap_or(0),
            count: pool.value.pg_count,
            pgs: OfPool::bits(pool.value.pg_count, pgs),
        };
        (id, value)
    });
    pools.collect()
}

/// The images that it has objects of that are not deleted, and the ends of those.
fn of_images(ctx: &Ctx) -> BTreeMap<String, u64> {
    let mut ends: BTreeMap<ImageId, u64> = BTreeMap::new();
    for (object, _) in ctx.store.objects().filter(|(_, info)| !info.tombstone) {
        let end = ends.entry(object.image).or_default();
        *end = (object.number + 1).max(*end);
    }
    ends.into_iter().map(|(image, end)| (image.to_string(), end)).collect()
}
