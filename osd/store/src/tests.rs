//! The whole store on a disk that does everything at once, against a model.

use std::collections::BTreeMap;

use bytes::Bytes;
use trivet_core::checksum::unit_sums;
use trivet_core::disk::{DiskDone, DiskOp, DiskOpKind};
use trivet_core::mutation::{Mutation, Patch};
use trivet_core::{
    ClientId, Epoch, ImageId, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, PoolId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask,
    Version,
};

use crate::api::{Output, Reply, Request, StoreError, Ticket};
use crate::store::{Options, State, Store};
use crate::superblock::{Format, format};

/// A store and its disk.
struct Bench {
    disk: Vec<u8>,
    store: Store,
    out: Output,
    ticket: u64,
}

const OSD: OsdId = OsdId(3);
const CLUSTER: [u8; 16] = [4; 16];

impl Bench {
    fn new(size: usize, log: u64) -> Bench {
        let f = Format {
            size: size as u64,
            osd: OSD,
            cluster: CLUSTER,
            store: [5; 16],
            log_size: Some(log),
        };
        let mut disk = vec![0xee; size];
        format(&f)
            .unwrap()
            .into_iter()
            .for_each(|op| drop(execute(&mut disk, op)));
        Bench::open(disk, Options::default())
    }

    fn open(disk: Vec<u8>, options: Options) -> Bench {
        let mut out = Output::default();
        let store = Store::open(disk.len() as u64, options, &mut out);
        let mut bench = Bench {
            disk,
            store,
            out,
            ticket: 0,
        };
        bench.run();
        bench
    }

    fn reopen(self) -> Bench {
        let bench = Bench::open(
            self.disk,
            Options {
                expect: Some((CLUSTER, OSD)),
                mutant: None,
            },
        );
        assert_eq!(bench.store.state(), State::Ready);
        bench
    }

    fn run(&mut self) {
        while !self.out.disk.is_empty() {
            for op in std::mem::take(&mut self.out.disk) {
                let done = execute(&mut self.disk, op);
                self.store.completed(done, &mut self.out);
            }
            self.store.pump(&mut self.out);
        }
    }

    /// Submits without running anything.
    fn submit(&mut self, request: Request) -> Ticket {
        self.ticket += 1;
        self.store.submit(Ticket(self.ticket), request, &mut self.out);
        Ticket(self.ticket)
    }

    fn ask(&mut self, request: Request) -> Result<Reply, StoreError> {
        let ticket = self.submit(request);
        self.store.pump(&mut self.out);
        self.run();
        let mut done = std::mem::take(&mut self.out.done);
        assert_eq!((done.len(), done[0].0), (1, ticket));
        done.remove(0).1
    }

    fn read(&mut self, object: ObjectId) -> (Version, Vec<u8>) {
        match self.ask(Request::Read {
            object,
            first: 0,
            count: UNITS_PER_OBJECT,
        }) {
            Ok(Reply::Data { version, segments }) => (version, segments.concat()),
            other => panic!("{other:?}"),
        }
    }
}

fn execute(disk: &mut [u8], op: DiskOp) -> DiskDone {
    let result = match op.kind {
        DiskOpKind::Read { offset, len } => {
            assert!(offset % 4096 == 0 && len % 4096 == 0 && len > 0);
            Bytes::copy_from_slice(&disk[offset as usize..][..len])
        }
        DiskOpKind::Write { offset, data } => {
            assert!(offset % 4096 == 0 && data.len() % 4096 == 0 && !data.is_empty());
            disk[offset as usize..][..data.len()].copy_from_slice(&data);
            Bytes::new()
        }
        DiskOpKind::Flush => Bytes::new(),
    };
    DiskDone {
        id: op.id,
        result: Ok(result),
    }
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn object(number: u64) -> ObjectId {
    ObjectId {
        image: ImageId::new(PoolId(1), 2),
        number,
    }
}

fn version(counter: u64) -> Version {
    Version {
        epoch: Epoch(1),
        counter,
    }
}

fn op(sequence: u64) -> OpId {
    OpId {
        client: ClientId(9),
        sequence,
    }
}

fn patch(object: ObjectId, first: usize, units: usize, byte: u8) -> Patch {
    Patch::seal(object, first, Bytes::from(vec![byte; units * UNIT_SIZE]))
}

fn write(number: u64, counter: u64, zero: UnitMask, patches: Vec<Patch>) -> Request {
    let mutation = Mutation {
        version: version(counter),
        op: op(counter),
        zero,
        patches,
        tombstone: false,
    };
    Request::Write {
        object: object(number),
        mutation,
    }
}

fn delete(number: u64, counter: u64) -> Request {
    let mutation = Mutation {
        version: version(counter),
        op: op(counter),
        zero: UnitMask::ALL,
        patches: vec![],
        tombstone: true,
    };
    Request::Write {
        object: object(number),
        mutation,
    }
}

/// What the model knows of an object.
#[derive(Clone)]
struct Model {
    version: Version,
    tombstone: bool,
    present: UnitMask,
    data: Vec<u8>,
}

fn random_write(random: &mut Random, number: u64, counter: u64, models: &mut BTreeMap<u64, Model>) -> Request {
    let empty = Model {
        version: Version::NONE,
        tombstone: false,
        present: UnitMask::EMPTY,
        data: vec![0; OBJECT_SIZE],
    };
    let model = models.entry(number).or_insert(empty);
    model.version = version(counter);
    model.tombstone = random.below(12) == 0;
    let (zero, extents) = match random.below(8) {
        _ if model.tombstone => (UnitMask::ALL, vec![]),
        0 => (UnitMask::ALL, vec![(0, 32)]),
        1 => (UnitMask::EMPTY, vec![(0, 32)]),
        2 => (UnitMask::range(random.below(16), 16), vec![(8, 16)]),
        3 => (UnitMask::range(random.below(32), 1), vec![]),
        4 => (UnitMask::EMPTY, vec![(1, 3), (6, 20), (31, 1)]),
        _ => (UnitMask::EMPTY, vec![(random.below(32), 1)]),
    };
    for unit in zero.iter() {
        model.data[unit * UNIT_SIZE..][..UNIT_SIZE].fill(0);
    }
    model.present = model.present.minus(zero);
    let mut patches = Vec::new();
    for (first, units) in extents {
        let mut data = vec![0; units * UNIT_SIZE];
        data.iter_mut()
            .step_by(61)
            .for_each(|byte| *byte = random.below(256) as u8);
        model.data[first * UNIT_SIZE..][..data.len()].copy_from_slice(&data);
        model.present = model.present.union(UnitMask::range(first, units));
        let sums = unit_sums(object(number), first, &data);
        patches.push(Patch {
            first,
            data: data.into(),
            sums,
        });
    }
    let mutation = Mutation {
        version: model.version,
        op: op(counter),
        zero,
        patches,
        tombstone: model.tombstone,
    };
    Request::Write {
        object: object(number),
        mutation,
    }
}

fn check(bench: &mut Bench, models: &BTreeMap<u64, Model>) {
    let objects: BTreeMap<_, _> = bench.store.objects().collect();
    assert_eq!(objects.len(), models.len());
    for (&number, model) in models {
        let info = objects[&object(number)];
        assert_eq!(
            (info.version, info.present, info.tombstone),
            (model.version, model.present, model.tombstone),
            "{number}"
        );
        let (version, data) = bench.read(object(number));
        assert_eq!(version, model.version);
        assert!(data == model.data, "object {number}");
    }
}

#[test]
fn ten_thousand_random_operations_against_a_model() {
    for seed in 1..=4 {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut bench = Bench::new(8 << 20, 288 << 10);
        let mut models = BTreeMap::new();
        let mut epoch = 0;
        for counter in 1..=2500 {
            let number = random.below(30) as u64;
            match random.below(40) {
                0 => {
                    epoch += 1;
                    let pg = PgId {
                        pool: PoolId(1),
                        number: 5,
                    };
                    assert_eq!(
                        bench.ask(Request::AcceptEpoch {
                            pg,
                            epoch: Epoch(epoch)
                        }),
                        Ok(Reply::Accepted)
                    );
                }
                1 => {
                    let asked = models.get(&number).map_or(version(1), |model: &Model| model.version);
                    assert_eq!(
                        bench.ask(Request::Forget {
                            object: object(number),
                            version: asked
                        }),
                        Ok(Reply::Forgotten)
                    );
                    if models.get(&number).is_some_and(|model| model.tombstone) {
                        models.remove(&number);
                    }
                }
                2 => {
                    bench = bench.reopen();
                    check(&mut bench, &models);
                    assert_eq!(
                        bench.store.accepted_epochs().map(|(_, e)| e.0).max().unwrap_or(0),
                        epoch
                    );
                }
                _ => {
                    let request = random_write(&mut random, number, counter, &mut models);
                    assert_eq!(bench.ask(request), Ok(Reply::Written), "{seed} {counter}");
                }
            }
        }
        check(&mut bench, &models);
        let used = models.values().filter(|model| !model.present.is_empty()).count() * OBJECT_SIZE;
        assert_eq!(bench.store.stats().used, used as u64);
    }
}
