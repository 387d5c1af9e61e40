//! Damage, what is said about it, and repair: the smallest case of each.

use super::*;
use crate::layout::Layout;
use crate::mutant::Mutant;
use crate::superblock::regions;

const LOG: u64 = 288 << 10;
const SIZE: usize = 4 << 20;

/// What happens to a unit on the disk.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    /// What was there before.
    Lost,
    /// Another unit of the object.
    Misdirected,
    Unreadable,
}

const DAMAGES: [Damage; 4] = [Damage::Flip, Damage::Lost, Damage::Misdirected, Damage::Unreadable];

/// All of object 1: unit `n` is full of `byte + n`.
fn all(counter: u64, byte: u8) -> Mutation {
    let data: Vec<u8> = (byte..)
        .take(UNITS_PER_OBJECT)
        .flat_map(|byte| [byte; UNIT_SIZE])
        .collect();
    Mutation {
        version: version(counter),
        ops: Ops::Exactly(vec![op(3), op(7)]),
        zero: UnitMask::ALL,
        patches: vec![Patch::seal(object(1), 0, data.into())],
        tombstone: false,
    }
}

/// The same in small patches, which travel in the log.
fn small(counter: u64, byte: u8) -> Mutation {
    let whole = all(counter, byte);
    let data = whole.patches[0].data.clone();
    let part = |first: usize| Patch::seal(object(1), first, data.slice(first * UNIT_SIZE..(first + 8) * UNIT_SIZE));
    Mutation {
        patches: [0, 8, 16, 24].map(part).to_vec(),
        ..whole
    }
}

/// Writes another object so often that the log is emptied at least once.
fn settle(bench: &mut Bench, writes: u64) {
    let from = bench.store.latest(object(2)).0.counter + 1;
    (from..from + writes).for_each(|counter| drop(bench.ask(unit(2, counter, 0, 200)).unwrap()));
}

/// Where unit 5 of object 1 is, after a version 1 with other contents was there.
fn with_object(in_slot: bool) -> (Bench, usize, Vec<u8>) {
    let mut bench = Bench::new(SIZE, LOG);
    let write = |mutation| Request::Write {
        object: object(1),
        mutation,
    };
    bench.ask(write(all(1, 100))).unwrap();
    let before = bench.disk.clone();
    bench
        .ask(write(if in_slot { all(2, 10) } else { small(2, 10) }))
        .unwrap();
    let at = (0..SIZE)
        .step_by(UNIT_SIZE)
        .find(|&at| bench.disk[at] == 15 && bench.disk[at + UNIT_SIZE - 1] == 15);
    (bench, at.unwrap(), before)
}

fn spoil(bench: &mut Bench, at: usize, before: &[u8], damage: Damage) {
    let unit = at..at + UNIT_SIZE;
    match damage {
        Damage::Flip => bench.disk[at + 99] ^= 8,
        Damage::Lost => bench.disk[unit.clone()].copy_from_slice(&before[unit]),
        Damage::Misdirected => bench.disk.copy_within(at + UNIT_SIZE..at + 2 * UNIT_SIZE, at),
        Damage::Unreadable => bench.unreadable = unit,
    }
}

fn read_all() -> Request {
    Request::Read {
        object: object(1),
        first: 0,
        count: UNITS_PER_OBJECT,
    }
}

fn contents(reply: Result<Reply, StoreError>) -> Vec<u8> {
    match reply {
        Ok(Reply::Data { segments, .. } | Reply::Salvaged { segments, .. }) => segments.concat(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn replacing_an_object_makes_it_whole() {
    for (damage, in_slot) in DAMAGES.into_iter().flat_map(|d| [(d, false), (d, true)]) {
        let (mut bench, at, before) = with_object(in_slot);
        let right = contents(bench.ask(read_all()));
        let digest = bench.store.digest(object(1));
        spoil(&mut bench, at, &before, damage);
        let units = UnitMask::range(5, 1);
        let object = object(1);
        assert_eq!(
            bench.ask(read_all()),
            Err(StoreError::Damaged { object, units }),
            "{damage:?}"
        );
        let salvaged = bench.ask(Request::Salvage { object });
        assert!(matches!(salvaged, Ok(Reply::Salvaged { damaged, .. }) if damaged == units));
        let mut expected = right.clone();
        expected[5 * UNIT_SIZE..6 * UNIT_SIZE].fill(0);
        assert!(contents(salvaged) == expected);

        let replace = |mutation| Request::Replace { object, mutation };
        let stale = bench.ask(replace(all(1, 10)));
        assert!(
            matches!(stale, Err(StoreError::StaleVersion { .. })),
            "an older version"
        );
        assert_eq!(bench.ask(replace(small(2, 10))), Ok(Reply::Written));
        assert!(contents(bench.ask(read_all())) == right);
        assert_eq!(bench.store.digest(object), digest);
        settle(&mut bench, 80);
        assert!(contents(bench.ask(read_all())) == right);
        let unreadable = bench.unreadable.clone();
        let mut bench = bench.reopen();
        bench.unreadable = if in_slot { unreadable } else { 0..0 };
        assert!(contents(bench.ask(read_all())) == right, "in another slot");
        assert_eq!(
            (bench.store.digest(object), bench.store.ops(object)),
            (digest, vec![op(3), op(7)])
        );
    }
}

#[test]
fn a_replacement_is_replayed_over_the_same_version() {
    let (mut bench, at, before) = with_object(true);
    settle(&mut bench, 80);
    spoil(&mut bench, at, &before, Damage::Flip);
    let mutation = all(2, 10);
    let right = mutation.patches[0].data.clone();
    bench
        .ask(Request::Replace {
            object: object(1),
            mutation,
        })
        .unwrap();
    let mut bench = bench.reopen();
    assert!(contents(bench.ask(read_all())) == right);
}

#[test]
fn settling_does_not_launder_damage_and_does_not_stop_at_it() {
    for damage in DAMAGES {
        let (mut bench, at, before) = with_object(false);
        let right = contents(bench.ask(read_all()));
        spoil(&mut bench, at, &before, damage);
        settle(&mut bench, 80);
        bench.unreadable = 0..0;
        let object = object(1);
        let units = UnitMask::range(5, 1);
        assert_eq!(
            bench.ask(read_all()),
            Err(StoreError::Damaged { object, units }),
            "{damage:?}"
        );
        let mut bench = bench.reopen();
        assert_eq!(
            bench.ask(read_all()),
            Err(StoreError::Damaged { object, units }),
            "{damage:?}"
        );
        bench.ask(unit(1, 99, 5, 15)).unwrap();
        assert!(
            contents(bench.ask(read_all())) == right,
            "a unit that is overwritten is whole"
        );
    }
}

#[test]
fn a_lost_last_batch_is_noticed_once_the_store_was_quiet() {
    for (mutant, noticed) in [(None, true), (Some(Mutant::NeverProve), false)] {
        let mut bench = Bench::new(SIZE, LOG);
        bench = Bench::open(bench.disk, Options { expect: None, mutant });
        bench.ask(unit(1, 1, 0, 1)).unwrap();
        bench.submit(unit(1, 2, 0, 2));
        let at = place(writes_of(&mut bench)[0].0);
        let before = bench.disk.clone();
        bench.run();
        for _ in 0..100 {
            bench.store.pump(&mut bench.out);
            bench.run();
        }
        bench.disk[at..at + 2 * UNIT_SIZE].copy_from_slice(&before[at..at + 2 * UNIT_SIZE]);
        let bench = Bench::open(bench.disk, Options::default());
        assert_eq!(bench.store.state() != State::Ready, noticed);
    }
}

#[test]
fn a_batch_that_went_astray_is_noticed() {
    let mut bench = Bench::new(SIZE, LOG);
    bench.submit(unit(1, 1, 0, 1));
    let (at, data) = writes_of(&mut bench)[0].clone();
    let before = bench.disk.clone();
    bench.run();
    let at = place(at);
    bench.disk[at..at + data.len()].copy_from_slice(&before[at..at + data.len()]);
    bench.disk[at + 20 * UNIT_SIZE..][..data.len()].copy_from_slice(&data);
    let bench = Bench::open(bench.disk, Options::default());
    let why = "batch 2 of the log was written to a wrong place";
    assert_eq!(bench.store.state(), State::Failed(why.into()));
}

/// A store with a checkpoint that has object 3, the log does not reach back to it; and where the areas' chunks are.
fn with_checkpoint() -> (Bench, [usize; 2]) {
    let layout = Layout::new(SIZE as u64, Some(LOG)).unwrap();
    let mut bench = Bench::new(SIZE, LOG);
    bench.ask(unit(3, 1, 0, 3)).unwrap();
    settle(&mut bench, 20);
    let chunks = [0, 1].map(|area| place(crate::checkpoint::chunks_start(&layout, area)));
    (bench, chunks)
}

/// Chunks that a power cut left behind are not those of a checkpoint whose own were lost.
#[test]
fn a_checkpoint_is_made_of_its_own_chunks() {
    for (mutant, right) in [(None, true), (Some(Mutant::StaleChunks), false)] {
        let (mut bench, areas) = with_checkpoint();
        let mut stale = crate::checkpoint::Chunk::new(&[5; 16], 1, 0);
        stale.put_removed(object(9));
        let stale = stale.finish();
        bench.disk[areas[0]..][..stale.len()].copy_from_slice(&stale);
        bench.disk[areas[1]..][..stale.len()].copy_from_slice(&stale);
        let bench = Bench::open(bench.disk, Options { expect: None, mutant });
        assert_eq!(bench.store.state() == State::Ready, !right);
    }
}

#[test]
fn either_copy_of_the_checkpoint_is_enough() {
    for (area, at) in [(0, 100), (1, 100), (0, 30 - 8192), (1, 30 - 8192)] {
        let (mut bench, areas) = with_checkpoint();
        let at = areas[area].checked_add_signed(at).unwrap();
        bench.disk[at] ^= 1;
        for _ in 0..3 {
            bench = bench.reopen();
            assert_eq!(bench.read_version(object(3)), Some(version(1)), "{area} {at}");
            settle(&mut bench, 40);
        }
        bench.disk[areas[1 - area]..][..UNIT_SIZE].fill(0xee);
        let mut bench = bench.reopen();
        assert_eq!(
            bench.read_version(object(3)),
            Some(version(1)),
            "the copy was made again"
        );
    }
}

#[test]
fn a_block_that_cannot_be_read_costs_the_store_only_where_the_log_may_end() {
    let layout = Layout::new(SIZE as u64, Some(LOG)).unwrap();
    let (bench, areas) = with_checkpoint();
    let headers = areas
        .iter()
        .flat_map(|chunks| [chunks - 2 * UNIT_SIZE, chunks - UNIT_SIZE]);
    let log = (place(layout.log)..place(layout.data)).step_by(UNIT_SIZE);
    let log = log.take(place(layout.log_blocks()));
    let found = |mut bench: Bench| {
        let versions = [2, 3].map(|number| bench.read_version(object(number)));
        let units = [2, 3].map(|number| bench.ask(Request::Salvage { object: object(number) }).is_ok());
        (bench.store.state(), versions, units)
    };
    let whole = found(Bench::open(bench.disk.clone(), Options::default()));
    let (mut ready, mut refused, mut lost) = (0, 0, 0);
    let blocks: Vec<usize> = headers.chain(log).collect();
    for &at in &blocks {
        let block = at..at + UNIT_SIZE;
        let mut rotten = bench.disk.clone();
        rotten[block.clone()].fill(0);
        let rotten = found(Bench::open(rotten, Options::default()));
        let unreadable = found(Bench::open_without(bench.disk.clone(), Options::default(), block));
        ready += usize::from(unreadable.0 == State::Ready);
        if matches!(&unreadable.0, State::Failed(why) if why.contains("cannot be read")) {
            refused += 1;
            lost += usize::from(rotten.0 == State::Ready && rotten.1 != whole.1);
        } else {
            assert_eq!(unreadable, rotten, "block at {at}");
        }
    }
    assert!(
        lost > 0 && refused < 20,
        "{lost} of {refused}: rot of the last batch is a torn write"
    );
    assert!(ready + 20 > blocks.len(), "{ready} of {} opened", blocks.len());
}

#[test]
fn either_superblock_is_enough_and_mends_the_other() {
    let f = Format {
        size: SIZE as u64,
        osd: OSD,
        cluster: CLUSTER,
        store: [5; 16],
        log_size: Some(LOG),
    };
    for copy in regions(&f).unwrap().superblocks {
        let mut bench = Bench::new(SIZE, LOG);
        let whole = bench.disk.clone();
        let copy = place(copy.start)..place(copy.end);
        for at in [3, 60, 2000] {
            bench.disk[copy.start + at] ^= 1;
            bench = Bench::open(bench.disk, Options::default());
            assert_eq!(bench.store.state(), State::Ready);
            assert!(bench.disk[copy.clone()] == whole[copy.clone()], "written again");
        }
        let mut other = Bench::new(SIZE, LOG).disk;
        let ops = format(&Format {
            store: [6; 16],
            ..f.clone()
        })
        .unwrap();
        let half = ops
            .into_iter()
            .filter(|op| matches!(op.kind, DiskOpKind::Write { offset, .. } if offset == 4096));
        half.for_each(|op| drop(execute(&mut other, op)));
        let state = Bench::open(other, Options::default()).store.state();
        assert!(matches!(state, State::Failed(why) if why.contains("differ")));
    }
}

#[test]
fn operations_are_remembered_across_checkpoints() {
    let mut bench = Bench::new(SIZE, LOG);
    let executed = |bench: &Bench| [1, 2, 3, 4].map(|n| bench.store.executed(object(1), op(n)));
    let with = |counter, ops| Request::Write {
        object: object(1),
        mutation: Mutation { ops, ..all(counter, 1) },
    };
    bench.ask(with(1, Ops::Exactly(vec![op(1), op(2)]))).unwrap();
    bench.submit(with(2, Ops::Exactly(vec![op(2), op(4)])));
    assert_eq!(bench.store.latest(object(1)), (version(2), false));
    assert!(!bench.store.executed(object(1), op(4)), "not durable yet");
    bench.store.pump(&mut bench.out);
    bench.run();
    bench.out.done.clear();
    let now = executed(&bench);
    assert!(now[1] && now[3] && !now[2]);
    for _ in 0..2 {
        bench = bench.reopen();
        assert_eq!(
            (executed(&bench), bench.store.ops(object(1))),
            (now, vec![op(2), op(4)])
        );
        settle(&mut bench, 80);
    }
    bench.submit(delete(1, 3));
    assert_eq!(bench.store.latest(object(1)), (version(3), true));
    assert_eq!(bench.store.latest(object(77)), (Version::NONE, true));
}

#[test]
fn equal_replicas_have_equal_digests() {
    let (mut one, mut other) = (Bench::new(SIZE, LOG), Bench::new(2 * SIZE, 2 * LOG));
    one.ask(unit(1, 1, 9, 9)).unwrap();
    let step = |bench: &mut Bench, mutation| {
        let object = object(1);
        bench.ask(Request::Replace { object, mutation }).unwrap();
        bench.store.digest(object)
    };
    let mut seen = vec![0, one.store.digest(object(1))];
    let variants = [
        all(2, 1),
        all(3, 1),
        all(4, 2),
        Mutation {
            ops: Ops::Exactly(vec![op(3)]),
            ..all(4, 2)
        },
        Mutation {
            patches: vec![],
            ..all(4, 2)
        },
        Mutation {
            patches: vec![],
            tombstone: true,
            ..all(4, 2)
        },
    ];
    for mutation in variants {
        let digest = step(&mut one, mutation.clone());
        assert_eq!(digest, step(&mut other, mutation));
        assert!(!seen.contains(&digest), "another state, another digest");
        seen.push(digest);
    }
    assert_eq!(one.store.digest(object(50)), 0);
    assert_eq!(one.reopen().store.digest(object(1)), seen[seen.len() - 1]);
}

/// A checkpoint has room for so many operations and no more; what needs no more goes on.
#[test]
fn operations_are_bounded_and_their_checkpoint_fits() {
    let mut bench = Bench::new(SIZE, LOG);
    let remember = |number, counter, ops| Request::Write {
        object: object(number),
        mutation: Mutation {
            version: version(counter),
            ops: Ops::Exactly(ops),
            zero: UnitMask::ALL,
            patches: vec![],
            tombstone: false,
        },
    };
    let list: Vec<OpId> = (0..128).map(op).collect();
    let fits = (10..).find(|&n| bench.ask(remember(n, 1, list.clone())) == Err(StoreError::NoSpace));
    let fits = fits.unwrap() - 10;
    let most = Layout::new(SIZE as u64, Some(LOG)).unwrap().max_ops() / 128;
    assert_eq!(usize::try_from(fits).unwrap(), most);
    assert_eq!(bench.ask(remember(9, 1, vec![])), Ok(Reply::Written));
    assert_eq!(
        bench.ask(remember(11, 2, vec![op(1)])),
        Ok(Reply::Written),
        "now there are fewer"
    );
    settle(&mut bench, 100);
    let bench = bench.reopen();
    assert_eq!(
        (bench.store.ops(object(10)), bench.store.ops(object(11))),
        (list, vec![op(1)])
    );
}
