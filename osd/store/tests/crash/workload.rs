//! Random requests. Every run draws its own mixture, so that some runs fill the log, some the slots,
//! some live on tombstones.

use bytes::{BufMut, Bytes, BytesMut};
use trivet_core::buffer::{aligned, zeroes};
use trivet_core::mutation::{MAX_OPS, Mutation, Ops, Patch};
use trivet_core::{
    ClientId, Epoch, ImageId, ObjectId, OpId, PgId, PoolId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version,
};
use trivet_store::api::Request;

use crate::model::Model;
use crate::rng::{Rng, mix};

/// Kinds of requests, in the order of the weights.
const KINDS: usize = 13;

/// What a run asks for.
#[derive(Clone)]
pub struct Workload {
    objects: Vec<ObjectId>,
    weights: [usize; KINDS],
    /// So many objects get half of the requests.
    hot: usize,
    sequence: u64,
}

impl Workload {
    /// A mixture over `count` objects.
    pub fn new(count: usize, rng: &mut Rng) -> Workload {
        let objects = (0..count as u64).map(|i| object(1 + i % 3, i / 3 * 7)).collect();
        let mut weights: [usize; KINDS] = [8, 5, 2, 2, 2, 2, 2, 1, 6, 1, 2, 1, 1];
        for weight in &mut weights {
            match rng.below(5) {
                0 => *weight *= 4,
                1 => *weight = weight.div_ceil(3),
                _ => {}
            }
        }
        Workload {
            objects,
            weights,
            hot: rng.between(1, 4),
            sequence: 0,
        }
    }

    /// Objects that come and go, all of them alike and most of them without contents.
    pub fn churn(count: usize, rng: &mut Rng) -> Workload {
        let weights = [1, 1, 0, 0, 8, 15, 20, 1, 1, 1, 1, 1, 1];
        Workload {
            weights,
            hot: count,
            ..Workload::new(count, rng)
        }
    }

    /// The same mixture over other objects.
    pub fn over(self, objects: Vec<ObjectId>) -> Workload {
        Workload {
            hot: self.hot.min(objects.len()),
            objects,
            sequence: 1 << 40,
            ..self
        }
    }

    /// The objects of the run.
    pub fn objects(&self) -> &[ObjectId] {
        &self.objects
    }

    /// The next request.
    pub fn draw(&mut self, model: &Model, rng: &mut Rng) -> Request {
        let object = self.pick(rng);
        match rng.weighted(&self.weights) {
            0 => self.write(model, object, UnitMask::EMPTY, &[(rng.below(UNITS_PER_OBJECT), 1)], rng),
            1 => self.scattered(model, object, rng),
            2 => {
                let count = rng.between(16, 31);
                let first = rng.below(UNITS_PER_OBJECT - count + 1);
                self.write(model, object, UnitMask::EMPTY, &[(first, count)], rng)
            }
            3 => {
                let zero = if rng.one_in(2) { UnitMask::ALL } else { UnitMask::EMPTY };
                self.write(model, object, zero, &[(0, UNITS_PER_OBJECT)], rng)
            }
            4 => self.zeroing(model, object, rng),
            5 => self.delete(model, object, rng),
            6 => self.forget(model, object, rng),
            7 => Request::AcceptEpoch {
                pg: PgId::first(PoolId(1), u32::try_from(rng.below(6)).expect("small")),
                epoch: Epoch(1 + rng.below(1000) as u64),
            },
            8 => {
                let count = rng.between(1, UNITS_PER_OBJECT);
                Request::Read {
                    object,
                    first: rng.below(UNITS_PER_OBJECT - count + 1),
                    count,
                }
            }
            9 => self.stale(model, object, rng),
            10 => self.replace(model, object, rng),
            11 => Request::Salvage { object },
            _ => model.marks.next(),
        }
    }

    /// A tombstone for most of the objects.
    pub fn fill(&mut self, model: &Model, rng: &mut Rng) -> Vec<Request> {
        let objects: Vec<ObjectId> = self.objects.iter().copied().filter(|_| !rng.one_in(4)).collect();
        let deletes = objects.into_iter().map(|object| self.delete(model, object, rng));
        deletes.collect()
    }

    fn pick(&self, rng: &mut Rng) -> ObjectId {
        let among = if rng.one_in(2) {
            self.hot.min(self.objects.len())
        } else {
            self.objects.len()
        };
        self.objects[rng.below(among)]
    }

    fn op(&mut self) -> OpId {
        self.sequence += 1;
        OpId {
            client: ClientId(self.sequence % 5),
            sequence: self.sequence,
        }
    }

    /// One operation, whose client has had answers to all but some before it; at times a whole list.
    fn ops(&mut self, rng: &mut Rng) -> Ops {
        if rng.one_in(16) {
            let longest = if rng.one_in(8) { MAX_OPS } else { 4 };
            return Ops::Exactly((0..rng.below(longest + 1)).map(|_| self.op()).collect());
        }
        let op = self.op();
        let unanswered = if rng.one_in(4) { rng.below(500) as u64 } else { 0 };
        Ops::Add {
            op,
            answered: op.sequence.saturating_sub(unanswered),
        }
    }

    fn write(
        &mut self,
        model: &Model,
        object: ObjectId,
        zero: UnitMask,
        runs: &[(usize, usize)],
        rng: &mut Rng,
    ) -> Request {
        let version = model.next_version(object);
        let patches = runs
            .iter()
            .map(|&(first, count)| patch(object, version, first, count, rng))
            .collect();
        let ops = self.ops(rng);
        Request::Write {
            object,
            mutation: Mutation {
                version,
                ops,
                zero,
                patches,
                tombstone: false,
            },
        }
    }

    fn scattered(&mut self, model: &Model, object: ObjectId, rng: &mut Rng) -> Request {
        let mut units = UnitMask::EMPTY;
        for _ in 0..rng.between(1, 3) {
            let count = rng.between(1, 6);
            units = units.union(UnitMask::range(rng.below(UNITS_PER_OBJECT - count + 1), count));
        }
        let runs: Vec<_> = units.runs().collect();
        self.write(model, object, UnitMask::EMPTY, &runs, rng)
    }

    /// Unmaps units, all of them at times, and may write some of them in the same change.
    fn zeroing(&mut self, model: &Model, object: ObjectId, rng: &mut Rng) -> Request {
        let count = rng.between(1, UNITS_PER_OBJECT);
        let zero = UnitMask::range(rng.below(UNITS_PER_OBJECT - count + 1), count);
        let zero = if rng.one_in(4) { UnitMask::ALL } else { zero };
        let runs = if rng.one_in(2) {
            vec![(rng.below(UNITS_PER_OBJECT), 1)]
        } else {
            Vec::new()
        };
        self.write(model, object, zero, &runs, rng)
    }

    fn delete(&mut self, model: &Model, object: ObjectId, rng: &mut Rng) -> Request {
        let (version, ops) = (model.next_version(object), self.ops(rng));
        let mutation = Mutation {
            version,
            ops,
            zero: UnitMask::ALL,
            patches: Vec::new(),
            tombstone: true,
        };
        Request::Write { object, mutation }
    }

    /// Forgets a tombstone if there is one, else asks for one that never was.
    fn forget(&mut self, model: &Model, object: ObjectId, rng: &mut Rng) -> Request {
        let tombstones: Vec<_> = model
            .objects()
            .filter_map(|(&object, history)| {
                let settled = history.settled().filter(|now| now.tombstone)?;
                Some((object, settled.version))
            })
            .collect();
        let never = Version {
            epoch: Epoch(1 << 40),
            counter: 1,
        };
        let (object, version) = if tombstones.is_empty() {
            (object, never)
        } else {
            tombstones[rng.below(tombstones.len())]
        };
        Request::Forget { object, version }
    }

    /// Repair: the same again, or all of a newer version.
    fn replace(&mut self, model: &Model, object: ObjectId, rng: &mut Rng) -> Request {
        let settled = model.history(object).settled().filter(|now| now.exists);
        match settled.filter(|_| !rng.one_in(4)) {
            Some(now) => Request::Replace {
                object,
                mutation: now.as_mutation(object),
            },
            None => match self.write(
                model,
                object,
                UnitMask::ALL,
                &[(0, rng.between(1, UNITS_PER_OBJECT))],
                rng,
            ) {
                Request::Write { object, mutation } => Request::Replace { object, mutation },
                other => other,
            },
        }
    }

    /// A write with the newest version or an older one: must be refused. So must a replacement by an older one.
    fn stale(&mut self, model: &Model, object: ObjectId, rng: &mut Rng) -> Request {
        let settled = model.history(object).settled();
        let Some(now) = settled.filter(|now| now.exists) else {
            return self.write(model, object, UnitMask::EMPTY, &[(0, 1)], rng);
        };
        let version = Version {
            counter: now.version.counter.div_ceil(rng.between(1, 2) as u64),
            ..now.version
        };
        let patches = vec![patch(object, version, 3, 1, rng)];
        let mutation = Mutation {
            version,
            ops: self.ops(rng),
            zero: UnitMask::EMPTY,
            patches,
            tombstone: false,
        };
        if version < now.version && rng.one_in(2) {
            let zero = UnitMask::ALL;
            return Request::Replace {
                object,
                mutation: Mutation { zero, ..mutation },
            };
        }
        Request::Write { object, mutation }
    }
}

fn object(image: u64, number: u64) -> ObjectId {
    ObjectId {
        image: ImageId::new(PoolId(1), image),
        number,
    }
}

/// New contents for `count` units; one in 32 patches is all zero, which is not the same as unwritten.
fn patch(object: ObjectId, version: Version, first: usize, count: usize, rng: &mut Rng) -> Patch {
    let data = if rng.one_in(32) {
        zeroes(count * UNIT_SIZE)
    } else {
        stamped(object, version, first, count)
    };
    Patch::seal(object, first, data)
}

/// Units whose every word depends on object, unit and version: no two sectors of a run are equal.
fn stamped(object: ObjectId, version: Version, first: usize, count: usize) -> Bytes {
    let mut data: BytesMut = aligned(count * UNIT_SIZE);
    let base = mix(object.image.0 ^ mix(object.number)) ^ mix(version.epoch.0 << 16 ^ version.counter);
    for unit in first..first + count {
        let mut word = mix(base ^ unit as u64);
        for _ in 0..UNIT_SIZE / 8 {
            word = word
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            data.put_u64_le(word);
        }
    }
    data.freeze()
}
