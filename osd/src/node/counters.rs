//! What the objects take of which this OSD is the primary, and the operations on them: per image and per pool, kept up to
//! date with every change of the store, and without looking at all objects but when a PG becomes active.
//!
//! What it promises: the numbers of a PG are those of the objects that the store has, from [`UsageCounters::begin`] to
//! [`UsageCounters::end`]; an image's and a pool's are the sums over such PGs. An operation costs one look into a hash table.
//! What it does not do: say anything about PGs of other primaries, but for how many copies of objects there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hashbrown::HashMap;
use trivet_core::usage::{IMAGES_PER_PART, ImageUsage, OpCount, Ops, PoolUsage};
use trivet_core::{ImageId, Now, PgId, PoolId, UNIT_SIZE, UnitMask};
use trivet_store::api::Changed;

/// Images that are counted one by one, at most; all others count for their pools only.
const MAX_IMAGES: usize = 65_536;

/// Nothing of an image is here, and nobody asked for it for so long: its counters are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Units and objects. Signed: what a change takes away may be more than what it is laid over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    units: i64,
    objects: i64,
}

impl Space {
    /// Of one object with these units.
    pub(crate) fn of(units: UnitMask) -> Space {
        Space {
            units: i64::try_from(units.len()).expect("at most 32"),
            objects: i64::from(!units.is_empty()),
        }
    }

    fn plus(self, other: Space) -> Space {
        Space {
            units: self.units.wrapping_add(other.units),
            objects: self.objects.wrapping_add(other.objects),
        }
    }

    fn minus(self, other: Space) -> Space {
        Space {
            units: self.units.wrapping_sub(other.units),
            objects: self.objects.wrapping_sub(other.objects),
        }
    }

    fn is_empty(self) -> bool {
        self == Space::default()
    }

    /// Bytes that are written.
    pub(crate) fn bytes(self) -> u64 {
        u64::try_from(self.units).unwrap_or(0).saturating_mul(UNIT_SIZE as u64)
    }

    /// Objects.
    pub(crate) fn objects(self) -> u64 {
        u64::try_from(self.objects).unwrap_or(0)
    }
}

/// What a client's operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Zero,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    count: u64,
    bytes: u64,
    took: Duration,
}

impl From<Count> for OpCount {
    fn from(count: Count) -> OpCount {
        OpCount {
            count: count.count,
            bytes: count.bytes,
            micros: u64::try_from(count.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[derive(Debug)]
struct Image {
    id: ImageId,
    space: Space,
    ops: [Count; 3],
    /// When an operation ended last.
    used_at: Now,
}

#[derive(Debug, Default)]
struct Pool {
    space: Space,
    copies: i64,
}

/// What this OSD counts.
#[derive(Debug, Default)]
pub(crate) struct UsageCounters {
    /// The place of each image that is counted.
    places: HashMap<ImageId, usize>,
    /// Places never move; `IMAGES_PER_PART` of them are a part of what is reported.
    images: Vec<Option<Image>>,
    free: BTreeSet<usize>,
    pools: BTreeMap<PoolId, Pool>,
    /// The PGs that this OSD is the primary of, with what they have of each image.
    pgs: BTreeMap<PgId, BTreeMap<ImageId, Space>>,
    /// Parts, and whether the pools, changed since they were taken.
    changed: BTreeSet<usize>,
    pools_changed: bool,
}

impl UsageCounters {
    /// The store has a copy of an object of this pool.
    pub(crate) fn found_copy(&mut self, pool: PoolId, units: UnitMask) {
        self.add_copies(pool, Space::of(units).objects);
    }

    fn add_copies(&mut self, pool: PoolId, copies: i64) {
        if copies != 0 {
            self.pools.entry(pool).or_default().copies += copies;
            self.pools_changed = true;
        }
    }

    /// An object of the store has become larger or smaller; its PG, as far as it is known.
    pub(crate) fn changed(&mut self, pg: Option<PgId>, changed: &Changed, now: Now) {
        let image = changed.object.image;
        let delta = Space::of(changed.after).minus(Space::of(changed.before));
        self.add_copies(image.pool(), delta.objects);
        let Some(images) = pg.and_then(|pg| self.pgs.get_mut(&pg)) else {
            return;
        };
        let space = images.entry(image).or_default();
        *space = space.plus(delta);
        if space.is_empty() {
            images.remove(&image);
        }
        self.add(image, delta, now);
    }

    /// This OSD serves a PG that has these objects.
    pub(crate) fn begin(&mut self, pg: PgId, objects: impl Iterator<Item = (ImageId, UnitMask)>, now: Now) {
        self.end(pg, now);
        let mut images: BTreeMap<ImageId, Space> = BTreeMap::new();
        for (image, units) in objects.filter(|(_, units)| !units.is_empty()) {
            let space = images.entry(image).or_default();
            *space = space.plus(Space::of(units));
        }
        // First the PG, then its images: one that was not counted is counted with all of its PGs.
        self.pgs.insert(pg, BTreeMap::new());
        for (image, space) in images {
            self.pgs.entry(pg).or_default().insert(image, space);
            self.add(image, space, now);
        }
    }

    /// It does not any more.
    pub(crate) fn end(&mut self, pg: PgId, now: Now) {
        for (image, space) in self.pgs.remove(&pg).unwrap_or_default() {
            self.add(image, Space::default().minus(space), now);
        }
    }

    /// The PGs that are counted.
    pub(crate) fn pgs(&self) -> impl Iterator<Item = PgId> + '_ {
        self.pgs.keys().copied()
    }

    /// Adds to an image and its pool what was added to one of its PGs.
    fn add(&mut self, image: ImageId, delta: Space, now: Now) {
        let pool = self.pools.entry(image.pool()).or_default();
        pool.space = pool.space.plus(delta);
        self.pools_changed = true;
        match self.places.get(&image) {
            Some(&place) => {
                if let Some(counted) = &mut self.images[place] {
                    counted.space = counted.space.plus(delta);
                }
                self.changed.insert(place / IMAGES_PER_PART);
            }
            // What is new has the delta already.
            None => drop(self.admit(image, now)),
        }
    }

    /// Makes a place for an image, with what its PGs have of it. None if there are too many.
    fn admit(&mut self, id: ImageId, now: Now) -> Option<usize> {
        let place = match self.free.pop_first() {
            Some(place) => place,
            None if self.images.len() < MAX_IMAGES => {
                self.images.push(None);
                self.images.len() - 1
            }
            None => return None,
        };
        let spaces = self.pgs.values().filter_map(|images| images.get(&id));
        self.images[place] = Some(Image {
            id,
            space: spaces.fold(Space::default(), |sum, space| sum.plus(*space)),
            ops: [Count::default(); 3],
            used_at: now,
        });
        self.places.insert(id, place);
        self.changed.insert(place / IMAGES_PER_PART);
        Some(place)
    }

    /// A client's operation was answered.
    pub(crate) fn answered(&mut self, image: ImageId, kind: Kind, bytes: usize, took: Duration, now: Now) {
        let found = self.places.get(&image).copied();
        let Some(place) = found.or_else(|| self.admit(image, now)) else {
            return;
        };
        let Some(counted) = &mut self.images[place] else { return };
        counted.used_at = now;
        let count = &mut counted.ops[kind as usize];
        count.count += 1;
        count.bytes += bytes as u64;
        count.took += took;
        self.changed.insert(place / IMAGES_PER_PART);
    }

    /// Forgets images of which nothing is here and that nobody uses, and pools of which nothing is here.
    pub(crate) fn forget_idle(&mut self, now: Now) {
        for (place, slot) in self.images.iter_mut().enumerate() {
            let idle = |image: &mut Image| image.space.is_empty() && now.since(image.used_at) >= FORGOTTEN_AFTER;
            if let Some(image) = slot.take_if(idle) {
                self.places.remove(&image.id);
                self.free.insert(place);
                self.changed.insert(place / IMAGES_PER_PART);
            }
        }
        self.pools.retain(|_, pool| pool.copies != 0 || !pool.space.is_empty());
    }

    /// What is to be said about pools.
    pub(crate) fn pools(&self) -> BTreeMap<PoolId, PoolUsage> {
        let usage = |pool: &Pool| PoolUsage {
            used: pool.space.bytes(),
            objects: pool.space.objects(),
            copies: u64::try_from(pool.copies).unwrap_or(0),
        };
        self.pools.iter().map(|(&id, pool)| (id, usage(pool))).collect()
    }

    /// Whether that changed since the last call.
    pub(crate) fn take_pools_changed(&mut self) -> bool {
        std::mem::take(&mut self.pools_changed)
    }

    /// What is to be said about the images of a part.
    pub(crate) fn part(&self, part: usize) -> BTreeMap<ImageId, ImageUsage> {
        let places = self.images.iter().skip(part * IMAGES_PER_PART).take(IMAGES_PER_PART);
        places.flatten().map(|image| (image.id, image.usage())).collect()
    }

    /// What is to be said about all images that are counted.
    pub(crate) fn all(&self) -> BTreeMap<ImageId, ImageUsage> {
        (0..self.parts()).flat_map(|part| self.part(part)).collect()
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> usize {
        self.images.len().div_ceil(IMAGES_PER_PART)
    }

    /// The parts that changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.changed)
    }
}

impl Image {
    fn usage(&self) -> ImageUsage {
        let [read, write, zero] = self.ops.map(OpCount::from);
        ImageUsage {
            used: self.space.bytes(),
            objects: self.space.objects(),
            ops: Ops { read, write, zero },
        }
    }
}

#[cfg(test)]
mod tests {
    use trivet_core::ObjectId;

    use super::*;

    const POOL: PoolId = PoolId(1);

    fn pg(number: u32) -> PgId {
        PgId::first(POOL, number)
    }

    fn image(number: u64) -> ImageId {
        ImageId::new(POOL, number)
    }

    fn change(image: ImageId, before: u32, after: u32) -> Changed {
        let object = ObjectId { image, number: 0 };
        Changed {
            object,
            before: UnitMask(before),
            after: UnitMask(after),
        }
    }

    /// Bytes and objects of an image, and of the pool, and the pool's copies.
    fn seen(counters: &UsageCounters, image: ImageId) -> [u64; 5] {
        let one = counters.all().get(&image).copied().unwrap_or_default();
        let pool = counters.pools().get(&POOL).copied().unwrap_or_default();
        [one.used, one.objects, pool.used, pool.objects, pool.copies].map(|n| if n >= 4096 { n / 4096 } else { n })
    }

    #[test]
    fn only_pgs_of_this_primary_count() {
        let mut counters = UsageCounters::default();
        let (a, b, now) = (image(1), image(2), Now(0));
        let changed = |counters: &mut UsageCounters, of, image, before, after| {
            counters.changed(of, &change(image, before, after), now);
        };
        counters.found_copy(POOL, UnitMask(0b111));
        counters.found_copy(POOL, UnitMask::EMPTY);
        assert_eq!(seen(&counters, a), [0, 0, 0, 0, 1]);
        changed(&mut counters, Some(pg(1)), a, 0, 0b1);
        changed(&mut counters, None, a, 0, 0b1);
        assert_eq!(seen(&counters, a), [0, 0, 0, 0, 3], "copies of other primaries");

        let objects = [(a, UnitMask(0b11)), (b, UnitMask::EMPTY), (a, UnitMask(1))];
        counters.begin(pg(1), objects.into_iter(), now);
        assert_eq!(seen(&counters, a), [3, 2, 3, 2, 3]);
        assert_eq!(counters.all().len(), 1, "a tombstone is nothing");
        changed(&mut counters, Some(pg(1)), b, 0, 0b1111);
        changed(&mut counters, Some(pg(1)), a, 0b11, 0b10);
        changed(&mut counters, Some(pg(2)), a, 0, 0b11);
        assert_eq!(seen(&counters, a), [2, 2, 6, 3, 5]);
        counters.begin(pg(2), [(a, UnitMask(0b11))].into_iter(), now);
        assert_eq!(seen(&counters, a), [4, 3, 8, 4, 5]);

        // Served anew: what was counted before does not count twice.
        counters.begin(pg(2), [(a, UnitMask(0b111))].into_iter(), now);
        assert_eq!(seen(&counters, a), [5, 3, 9, 4, 5]);
        counters.end(pg(1), now);
        assert_eq!(seen(&counters, b), [0, 0, 3, 1, 5]);
        changed(&mut counters, Some(pg(2)), a, 0b111, 0);
        assert_eq!(seen(&counters, a), [0, 0, 0, 0, 4]);
    }

    #[test]
    fn operations_are_counted_by_kind() {
        let mut counters = UsageCounters::default();
        let took = Duration::from_micros(1500);
        counters.answered(image(1), Kind::Read, 4096, took, Now(0));
        counters.answered(image(1), Kind::Read, 1, took, Now(0));
        counters.answered(image(1), Kind::Zero, 8192, took, Now(0));
        let ops = counters.all()[&image(1)].ops;
        assert_eq!(ops.read, OpCount::from([2, 4097, 3000]));
        assert_eq!(ops.write, OpCount::default());
        assert_eq!(ops.zero, OpCount::from([1, 8192, 1500]));
    }

    #[test]
    fn parts_say_when_they_changed() {
        let mut counters = UsageCounters::default();
        let per_part = IMAGES_PER_PART as u64;
        let op = |counters: &mut UsageCounters, number| {
            counters.answered(image(number), Kind::Write, 1, Duration::ZERO, Now(0))
        };
        (0..=per_part).for_each(|number| op(&mut counters, number));
        assert_eq!((counters.parts(), counters.take_changed()), (2, BTreeSet::from([0, 1])));
        assert_eq!((counters.part(0).len(), counters.part(1).len()), (IMAGES_PER_PART, 1));
        assert_eq!(counters.take_changed(), BTreeSet::new());
        op(&mut counters, per_part);
        assert_eq!(counters.take_changed(), BTreeSet::from([1]));
        assert!(
            !counters.take_pools_changed(),
            "operations are not part of what pools take"
        );
        counters.found_copy(POOL, UnitMask(1));
        assert!(counters.take_pools_changed() && !counters.take_pools_changed());
    }

    #[test]
    fn what_is_idle_and_empty_is_forgotten() {
        let mut counters = UsageCounters::default();
        let late = Now(0) + FORGOTTEN_AFTER;
        counters.begin(pg(1), [(image(2), UnitMask(1))].into_iter(), Now(0));
        counters.answered(image(1), Kind::Read, 1, Duration::ZERO, Now(0));
        counters.answered(image(3), Kind::Read, 1, Duration::ZERO, Now(1));
        counters.forget_idle(late);
        let left: Vec<ImageId> = counters.all().into_keys().collect();
        assert_eq!(left, [image(2), image(3)], "it has something, and is used");
        counters.answered(image(4), Kind::Read, 1, Duration::ZERO, late);
        assert_eq!(
            (counters.images.len(), counters.free.len()),
            (3, 0),
            "the place is used again"
        );
        counters.changed(Some(pg(1)), &change(image(2), 1, 0), late);
        counters.pools.entry(POOL).or_default().copies = 0;
        counters.forget_idle(late);
        assert!(counters.pools().is_empty());
    }

    #[test]
    fn images_beyond_the_limit_count_for_their_pool_and_later_in_full() {
        let mut counters = UsageCounters::default();
        let count = MAX_IMAGES as u64;
        for number in 0..count {
            counters.answered(image(number), Kind::Read, 1, Duration::ZERO, Now(0));
        }
        let beyond = image(count);
        counters.begin(pg(1), [(beyond, UnitMask(0b11))].into_iter(), Now(0));
        counters.answered(beyond, Kind::Read, 1, Duration::ZERO, Now(0));
        assert_eq!(seen(&counters, beyond)[..3], [0, 0, 2]);
        let late = Now(0) + FORGOTTEN_AFTER;
        counters.forget_idle(late);
        counters.changed(Some(pg(1)), &change(beyond, 0b11, 0b111), late);
        assert_eq!(seen(&counters, beyond)[..3], [3, 1, 3]);
        counters.end(pg(1), late);
        assert_eq!(seen(&counters, beyond)[..3], [0, 0, 0]);
    }
}
