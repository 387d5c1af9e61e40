//! The whole store on a disk that does everything at once, against a model.

mod damage;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use trivet_core::checksum::unit_sums;
use trivet_core::disk::{DiskDone, DiskError, DiskOp, DiskOpKind};
use trivet_core::mark::Mark;
use trivet_core::mutation::{Mutation, Ops, Patch};
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
    /// Bytes that cannot be read.
    unreadable: Range<usize>,
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
        Bench::open_without(disk, options, 0..0)
    }

    /// Opens a disk on which these bytes cannot be read.
    fn open_without(disk: Vec<u8>, options: Options, unreadable: Range<usize>) -> Bench {
        let mut out = Output::default();
        let store = Store::open(disk.len() as u64, options, &mut out);
        let mut bench = Bench {
            disk,
            unreadable,
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
                let hit = matches!(op.kind, DiskOpKind::Read { offset, len }
                    if place(offset) < self.unreadable.end && self.unreadable.start < place(offset) + len);
                let mut done = execute(&mut self.disk, op);
                if hit {
                    done.result = Err(failure());
                }
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

    fn read_version(&mut self, object: ObjectId) -> Option<Version> {
        self.store.info(object).map(|info| info.version)
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

fn failure() -> DiskError {
    DiskError {
        errno: 5,
        what: "test".into(),
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn execute(disk: &mut [u8], op: DiskOp) -> DiskDone {
    let result = match op.kind {
        DiskOpKind::Read { offset, len } => {
            assert!(offset % 4096 == 0 && len % 4096 == 0 && len > 0);
            Bytes::copy_from_slice(&disk[place(offset)..][..len])
        }
        DiskOpKind::Write { offset, data } => {
            assert!(offset % 4096 == 0 && data.len() % 4096 == 0 && !data.is_empty());
            disk[place(offset)..][..data.len()].copy_from_slice(&data);
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
        usize::try_from(self.0 % n as u64).unwrap()
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

/// Of this client's operations only the newest two are remembered.
fn add(sequence: u64) -> Ops {
    Ops::Add {
        op: op(sequence),
        answered: sequence.saturating_sub(1),
    }
}

fn patch(object: ObjectId, first: usize, units: usize, byte: u8) -> Patch {
    Patch::seal(object, first, Bytes::from(vec![byte; units * UNIT_SIZE]))
}

fn write(number: u64, counter: u64, zero: UnitMask, patches: Vec<Patch>) -> Request {
    let mutation = Mutation {
        version: version(counter),
        ops: add(counter),
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
        ops: add(counter),
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
            .for_each(|byte| *byte = random.below(256).to_le_bytes()[0]);
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
        ops: add(counter),
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

fn accept(bench: &mut Bench, epoch: u64) {
    let pg = PgId::first(PoolId(1), 5);
    let epoch = Epoch(epoch);
    assert_eq!(bench.ask(Request::AcceptEpoch { pg, epoch }), Ok(Reply::Accepted));
}

fn keep_mark(bench: &mut Bench, count: u64) {
    let mark = Mark { count, draw: 5 };
    assert_eq!(bench.ask(Request::KeepMark { mark }), Ok(Reply::Kept));
}

fn forget(bench: &mut Bench, number: u64, models: &mut BTreeMap<u64, Model>) {
    let version = models.get(&number).map_or(version(1), |model| model.version);
    let object = object(number);
    assert_eq!(bench.ask(Request::Forget { object, version }), Ok(Reply::Forgotten));
    if models.get(&number).is_some_and(|model| model.tombstone) {
        models.remove(&number);
    }
}

/// Random operations, each finished before the next. `overflow`: no checkpoint of changes fits.
fn compare_with_model(seed: u64, overflow: bool) {
    let mut random = Random(seed * 0x9e37_79b9);
    let mut bench = Bench::new(8 << 20, 288 << 10);
    let mut models = BTreeMap::new();
    let mut epoch = 0;
    for counter in 1..=2500 {
        bench.store.cycle().unwrap().overflow = overflow;
        let number = random.below(30) as u64;
        match random.below(40) {
            0 => {
                epoch += 1;
                accept(&mut bench, epoch);
                keep_mark(&mut bench, epoch);
                keep_mark(&mut bench, epoch / 2);
            }
            1 => forget(&mut bench, number, &mut models),
            2 => {
                bench = bench.reopen();
                check(&mut bench, &models);
                let accepted = bench.store.accepted_epochs().map(|(_, e)| e.0).max();
                assert_eq!(accepted.unwrap_or(0), epoch);
                assert_eq!(bench.store.mark().map_or(0, |mark| mark.count), epoch);
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

#[test]
fn ten_thousand_random_operations_against_a_model() {
    (1..=4).for_each(|seed| compare_with_model(seed, false));
}

#[test]
fn changes_that_do_not_fit_become_a_full_checkpoint() {
    compare_with_model(5, true);
}

fn done(bench: &mut Bench) -> BTreeMap<Ticket, Result<Reply, StoreError>> {
    std::mem::take(&mut bench.out.done).into_iter().collect()
}

fn unit(number: u64, counter: u64, at: usize, byte: u8) -> Request {
    write(
        number,
        counter,
        UnitMask::EMPTY,
        vec![patch(object(number), at, 1, byte)],
    )
}

fn whole(number: u64, counter: u64, byte: u8) -> Request {
    write(
        number,
        counter,
        UnitMask::ALL,
        vec![patch(object(number), 0, UNITS_PER_OBJECT, byte)],
    )
}

/// Starts what was submitted; takes the writes out instead of executing them.
fn writes_of(bench: &mut Bench) -> Vec<(u64, Bytes)> {
    bench.store.pump(&mut bench.out);
    let write = |op: &DiskOp| match &op.kind {
        DiskOpKind::Write { offset, data } => Some((*offset, data.clone())),
        _ => None,
    };
    bench.out.disk.iter().filter_map(write).collect()
}

#[test]
fn space_runs_out_for_new_objects_only() {
    let mut bench = Bench::new(4 << 20, 288 << 10);
    let slots = bench.store.stats().capacity / OBJECT_SIZE as u64;
    let fits = slots - 2;
    for number in 0..fits {
        assert_eq!(bench.ask(unit(number, 1, 0, 1)), Ok(Reply::Written));
    }
    assert_eq!(bench.store.room(), 0);
    let ticket = bench.submit(unit(fits, 1, 0, 1));
    assert_eq!(
        bench.out.done.pop(),
        Some((ticket, Err(StoreError::NoSpace))),
        "decided at once"
    );
    assert_eq!(bench.store.info(object(fits)), None);
    for counter in 2..40 {
        assert_eq!(bench.ask(whole(0, counter, 2)), Ok(Reply::Written));
        assert_eq!(bench.ask(unit(1, counter, 9, 2)), Ok(Reply::Written));
    }
    let zero = write(fits, 1, UnitMask::ALL, vec![]);
    assert_eq!(bench.ask(zero), Ok(Reply::Written), "no present unit needs no slot");
    assert_eq!(bench.ask(delete(2, 2)), Ok(Reply::Written));
    assert_eq!(bench.store.room(), OBJECT_SIZE as u64);
    assert_eq!(bench.ask(unit(fits, 2, 0, 1)), Ok(Reply::Written));
    let mut bench = bench.reopen();
    assert_eq!(bench.store.stats().used, fits * OBJECT_SIZE as u64);
    assert_eq!(bench.ask(unit(fits + 1, 1, 0, 1)), Err(StoreError::NoSpace));
}

#[test]
fn versions_only_go_up_even_in_the_queue() {
    let mut bench = Bench::new(4 << 20, 288 << 10);
    let stale = |got, have| StoreError::StaleVersion {
        object: object(1),
        got: version(got),
        have: version(have),
    };
    let first = bench.submit(unit(1, 5, 0, 1));
    let second = bench.submit(unit(1, 5, 0, 2));
    assert_eq!(bench.out.done.pop(), Some((second, Err(stale(5, 5)))));
    assert_eq!(bench.store.info(object(1)), None, "not durable yet");
    bench.store.pump(&mut bench.out);
    bench.run();
    assert_eq!(done(&mut bench).remove(&first), Some(Ok(Reply::Written)));
    assert_eq!(bench.ask(unit(1, 4, 0, 1)), Err(stale(4, 5)));
    // After a forget that is only queued, any version may follow.
    bench.ask(delete(1, 6)).unwrap();
    let tickets = [
        bench.submit(Request::Forget {
            object: object(1),
            version: version(6),
        }),
        bench.submit(unit(1, 2, 7, 3)),
    ];
    bench.store.pump(&mut bench.out);
    bench.run();
    let done = done(&mut bench);
    assert_eq!(
        tickets.map(|ticket| done[&ticket].clone()),
        [Ok(Reply::Forgotten), Ok(Reply::Written)]
    );
    let info = bench.store.info(object(1)).unwrap();
    assert_eq!(
        (info.version, info.present, info.tombstone),
        (version(2), UnitMask(1 << 7), false)
    );
    let bench = bench.reopen();
    assert_eq!(bench.store.info(object(1)), Some(info));
}

#[test]
fn what_waits_is_one_device_write() {
    let mut bench = Bench::new(8 << 20, 1 << 20);
    let expected: Vec<Ticket> = (0..20).map(|number| bench.submit(unit(number, 1, 3, 1))).collect();
    bench.submit(Request::AcceptEpoch {
        pg: PgId::default(),
        epoch: Epoch(4),
    });
    let writes = writes_of(&mut bench);
    assert_eq!(writes.iter().map(|w| w.1.len()).collect::<Vec<_>>(), [21 * UNIT_SIZE]);
    let late = bench.submit(unit(50, 1, 0, 1));
    assert_eq!(writes_of(&mut bench).len(), 1, "one batch in flight at a time");
    bench.run();
    let order: Vec<Ticket> = bench.out.done.iter().map(|d| d.0).collect();
    assert_eq!(order[..20], expected);
    assert_eq!(order.last(), Some(&late));
    assert_eq!(bench.store.stats().commits, 2);
}

#[test]
fn a_read_sees_only_what_is_durable() {
    let mut bench = Bench::new(4 << 20, 288 << 10);
    bench.ask(whole(1, 1, 1)).unwrap();
    bench.submit(whole(1, 2, 2));
    bench.store.pump(&mut bench.out);
    let ops = std::mem::take(&mut bench.out.disk);
    let (old, data) = bench.read(object(1));
    assert_eq!((old, data[0]), (version(1), 1));
    bench.out.disk = ops;
    bench.run();
    bench.out.done.clear();
    let (new, data) = bench.read(object(1));
    assert_eq!((new, data[0]), (version(2), 2));
}

#[test]
fn damaged_units_are_named_and_the_others_are_read() {
    for settled in [false, true] {
        let mut bench = Bench::new(4 << 20, 288 << 10);
        bench.submit(write(1, 1, UnitMask::EMPTY, vec![patch(object(1), 4, 2, 0xa1)]));
        let log = writes_of(&mut bench)[0].0;
        bench.run();
        bench.out.done.clear();
        if settled {
            (2..60).for_each(|counter| drop(bench.ask(unit(2, counter, 0, 1)).unwrap()));
        }
        let places: Vec<usize> = (0..bench.disk.len())
            .step_by(UNIT_SIZE)
            .filter(|&at| bench.disk[at] == 0xa1)
            .collect();
        let in_slot = places.iter().any(|&at| at > place(log) + (288 << 10));
        assert_eq!(in_slot, settled);
        for at in places {
            bench.disk[at + 77] ^= if at % (2 * UNIT_SIZE) == place(log) % (2 * UNIT_SIZE) {
                0
            } else {
                4
            };
        }
        let read = |first| Request::Read {
            object: object(1),
            first,
            count: 1,
        };
        let results: Vec<_> = (3..7).map(|unit| bench.ask(read(unit))).collect();
        let bad: Vec<usize> = (0..4).filter(|&n| results[n].is_err()).collect();
        assert_eq!(bad.len(), 1, "{settled}");
        let units = UnitMask::range(3 + bad[0], 1);
        let damaged = Err(StoreError::Damaged {
            object: object(1),
            units,
        });
        assert_eq!(results[bad[0]], damaged);
        assert_eq!(
            bench.ask(Request::Read {
                object: object(1),
                first: 0,
                count: 32
            }),
            damaged
        );
        bench.ask(unit(1, 99, 3 + bad[0], 5)).unwrap();
        assert!(bench.ask(read(3 + bad[0])).is_ok(), "a write heals");
    }
}

#[test]
fn a_failed_write_or_flush_is_final() {
    for fail_flush in [false, true] {
        let mut bench = Bench::new(4 << 20, 288 << 10);
        let flying = bench.submit(unit(1, 1, 0, 1));
        bench.store.pump(&mut bench.out);
        let queued = bench.submit(unit(2, 1, 0, 1));
        let mut op = bench.out.disk.remove(0);
        if fail_flush {
            let finished = execute(&mut bench.disk, op);
            bench.store.completed(finished, &mut bench.out);
            op = bench.out.disk.remove(0);
            assert!(matches!(op.kind, DiskOpKind::Flush));
        }
        let result = Err(failure());
        bench.store.completed(DiskDone { id: op.id, result }, &mut bench.out);
        bench.store.pump(&mut bench.out);
        assert!(bench.out.disk.is_empty(), "nothing is tried again");
        let later = bench.submit(unit(3, 1, 0, 1));
        let done = done(&mut bench);
        for ticket in [flying, queued, later] {
            assert!(matches!(done[&ticket], Err(StoreError::Failed(_))));
        }
        assert!(matches!(bench.store.state(), State::Failed(_)));
    }
}

#[test]
fn rot_within_the_log_is_not_its_end() {
    let mut bench = Bench::new(4 << 20, 288 << 10);
    let mut places = Vec::new();
    for counter in 1..5 {
        bench.submit(unit(1, counter, 0, 1));
        places.push(place(writes_of(&mut bench)[0].0));
        bench.run();
    }
    let state = |damage: usize| {
        let mut disk = bench.disk.clone();
        disk[damage] ^= 1;
        let mut bench = Bench::open(disk, Options::default());
        (bench.store.state(), bench.read_version(object(1)))
    };
    let (failed, _) = state(places[1] + 80);
    assert!(matches!(failed, State::Failed(why) if why.contains("batch 3 of the log")));
    assert_eq!(
        state(places[1] + UNIT_SIZE + 80),
        (State::Ready, Some(version(4))),
        "payload that was replaced"
    );
    assert_eq!(
        state(places[3] + UNIT_SIZE + 80),
        (State::Ready, Some(version(3))),
        "like a torn batch"
    );
}

#[test]
fn the_wrong_disk_is_refused() {
    let disk = Bench::new(4 << 20, 288 << 10).disk;
    let table = [(CLUSTER, OSD, true), ([0; 16], OSD, false), (CLUSTER, OsdId(9), false)];
    for (cluster, osd, right) in table {
        let bench = Bench::open(
            disk.clone(),
            Options {
                expect: Some((cluster, osd)),
                mutant: None,
            },
        );
        assert_eq!(bench.store.state() == State::Ready, right);
    }
    let mut half = disk.clone();
    half[..UNIT_SIZE].fill(0);
    assert_eq!(
        Bench::open(half, Options::default()).store.state(),
        State::Ready,
        "the second superblock"
    );
    let blank = Bench::open(vec![0; 4 << 20], Options::default());
    assert_eq!(blank.store.state(), State::Failed("not a Trivet store".into()));
}

#[test]
fn requests_before_the_store_is_open_fail() {
    let mut out = Output::default();
    let mut store = Store::open(4 << 20, Options::default(), &mut out);
    assert_eq!(store.state(), State::Opening);
    store.submit(Ticket(1), unit(1, 1, 0, 1), &mut out);
    assert_eq!(out.done, [(Ticket(1), Err(StoreError::Failed("not open yet".into())))]);
}

#[test]
fn changes_are_appended_to_the_checkpoint() {
    let mut bench = Bench::new(64 << 20, 288 << 10);
    for number in 0..300 {
        bench.ask(unit(number, 1, 0, 1)).unwrap();
    }
    let written = |bench: &Bench| bench.store.stats().device_written;
    let before = written(&bench);
    for counter in 2..2000 {
        bench.ask(unit(7, counter, 0, 1)).unwrap();
    }
    // Two blocks of log for each write; settling and checkpoints of few objects, twice, add little.
    let per_write = (written(&bench) - before) / 1998;
    assert!((8192..9400).contains(&per_write), "{per_write}");
    let mut bench = bench.reopen();
    assert_eq!(bench.store.stats().objects, 300);
    assert_eq!(bench.read(object(299)).0, version(1));
}
