//! The disk against a simple model of what it may return, and each fault against what it promises to do.

use super::*;

const SIZE: u64 = 64 * BLOCK;

fn disk(seed: u64) -> Disk {
    Disk::new(SIZE, Random::new(seed))
}

/// One block, all of whose sectors hold this value.
fn block(value: u8) -> Bytes {
    Bytes::from(vec![value; BLOCK_LEN])
}

fn write(id: u64, block: u64, data: Bytes) -> DiskOp {
    let offset = block * BLOCK;
    let kind = DiskOpKind::Write { offset, data };
    DiskOp { id: IoId(id), kind }
}

fn read(id: u64, block: u64, blocks: usize) -> DiskOp {
    let kind = DiskOpKind::Read {
        offset: block * BLOCK,
        len: blocks * BLOCK_LEN,
    };
    DiskOp { id: IoId(id), kind }
}

fn flush(id: u64) -> DiskOp {
    let kind = DiskOpKind::Flush;
    DiskOp { id: IoId(id), kind }
}

/// Submits and completes.
fn run(disk: &mut Disk, op: DiskOp) -> Result<Bytes, DiskError> {
    let id = op.id;
    disk.submit(op).unwrap();
    disk.complete(id).unwrap().result
}

/// The values of the sectors of a block.
fn sectors(disk: &Disk, block: u64) -> Vec<u8> {
    let data = disk.peek(block * BLOCK, BLOCK_LEN);
    assert!(data.chunks(SECTOR).all(|sector| sector.iter().all(|&b| b == sector[0])));
    data.iter().step_by(SECTOR).copied().collect()
}

#[test]
fn what_is_written_is_read_when_the_world_says_so() {
    let mut disk = disk(1);
    assert_eq!(run(&mut disk, read(1, 3, 2)).unwrap(), vec![0; 2 * BLOCK_LEN]);
    let both = Bytes::from([block(1), block(2)].concat());
    disk.submit(write(2, 3, both.clone())).unwrap();
    assert_eq!(disk.in_flight().collect::<Vec<_>>(), [IoId(2)]);
    assert_eq!(sectors(&disk, 3), [0; 8], "nothing happens before its time");
    assert_eq!(disk.complete(IoId(2)).unwrap().result.unwrap(), Bytes::new());
    assert!(disk.complete(IoId(2)).is_none() && disk.in_flight().next().is_none());
    assert_eq!(run(&mut disk, read(3, 3, 2)).unwrap(), both);
    let single = run(&mut disk, read(4, 4, 1)).unwrap();
    assert_eq!(single.as_ptr(), both[BLOCK_LEN..].as_ptr(), "by reference");
}

#[test]
fn misuse_is_refused() {
    let mut disk = disk(1);
    disk.submit(write(1, 10, Bytes::from(vec![1; 3 * BLOCK_LEN]))).unwrap();
    disk.submit(read(2, 11, 1)).unwrap();
    let odd = |kind| DiskOp { id: IoId(9), kind };
    let bad = [
        read(1, 0, 1),
        read(3, 63, 2),
        read(3, 0, 0),
        odd(DiskOpKind::Read {
            offset: 512,
            len: BLOCK_LEN,
        }),
        odd(DiskOpKind::Read { offset: 0, len: 512 }),
        odd(DiskOpKind::Read {
            offset: u64::MAX - 4095,
            len: BLOCK_LEN,
        }),
        write(3, 64, block(1)),
        write(3, 10, block(1)),
        write(3, 12, block(1)),
        write(3, 8, Bytes::from(vec![1; 3 * BLOCK_LEN])),
        write(3, 9, Bytes::from(vec![1; 5 * BLOCK_LEN])),
    ];
    for op in bad {
        assert!(disk.submit(op.clone()).is_err(), "{op:?}");
    }
    for op in [write(3, 9, block(1)), write(4, 13, block(1))] {
        disk.submit(op).unwrap();
    }
    disk.complete(IoId(1)).unwrap().result.unwrap();
    disk.submit(write(1, 11, block(1))).unwrap();
}

#[test]
fn a_read_meets_a_write_half_way() {
    let mut disk = disk(2);
    run(&mut disk, write(1, 5, block(1))).unwrap();
    disk.submit(write(2, 4, Bytes::from(vec![2; 3 * BLOCK_LEN]))).unwrap();
    let mut seen = BTreeSet::new();
    for id in 3..40 {
        let data = run(&mut disk, read(id, 5, 1)).unwrap();
        seen.extend(data.iter().step_by(SECTOR).copied());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(sectors(&disk, 5), [1; 8]);
}

/// For each sector of the disk, the values that it may have after a power cut; the last is what reads see.
struct Model(Vec<Vec<u8>>);

impl Model {
    fn each(&mut self, block: u64) -> impl Iterator<Item = &mut Vec<u8>> {
        self.0[length(block * 8)..][..8].iter_mut()
    }
}

/// A random run of writes and flushes, one at a time, and what may be left of it.
fn some_writes(disk: &mut Disk, random: &mut Random) -> Model {
    let mut model = Model(vec![vec![0]; length(SIZE) / SECTOR]);
    for id in 0..random.range(1..=60) {
        if random.one_in(8) {
            run(disk, flush(id)).unwrap();
            model
                .0
                .iter_mut()
                .for_each(|sector| drop(sector.drain(..sector.len() - 1)));
        } else {
            let (at, value) = (random.below(6), u8::try_from(id + 1).unwrap());
            run(disk, write(id, at, block(value))).unwrap();
            model.each(at).for_each(|sector| sector.push(value));
        }
    }
    model
}

#[test]
fn a_power_cut_leaves_any_version_of_each_sector_and_nothing_else() {
    let (mut old, mut torn) = (0, 0);
    let mut random = Random::new(3);
    for seed in 0..2000 {
        let mut disk = disk(seed);
        let mut model = some_writes(&mut disk, &mut random);
        disk.submit(write(100, 6, block(200))).unwrap();
        model.each(6).for_each(|sector| sector.push(200));
        disk.power_cut();
        assert!(disk.in_flight().next().is_none());
        for at in 0..8 {
            let left = sectors(&disk, at);
            torn += usize::from(left.iter().any(|value| *value != left[0]));
            for (sector, value) in model.each(at).zip(left) {
                assert!(sector.contains(&value), "{value} of {sector:?}, seed {seed}");
                old += usize::from(sector.last() != Some(&value));
            }
        }
        let before: Vec<_> = (0..8).map(|at| sectors(&disk, at)).collect();
        disk.power_cut();
        assert_eq!(
            (0..8).map(|at| sectors(&disk, at)).collect::<Vec<_>>(),
            before,
            "it is durable now"
        );
        assert_eq!(disk.faults().count(Harm::PowerCut), 2);
    }
    assert!(old > 10_000 && torn > 1000, "{old} old, {torn} torn");
}

#[test]
fn a_flush_covers_what_completed_before_it_was_submitted() {
    let lost_after = |order: &[u64]| {
        let lost = (0..100).filter(|&seed| {
            let mut disk = disk(seed);
            for step in order {
                match step {
                    1 => disk.submit(write(1, 0, block(1))).unwrap(),
                    2 => disk.submit(flush(2)).unwrap(),
                    _ => drop(disk.complete(IoId(step - 10)).unwrap().result.unwrap()),
                }
            }
            disk.power_cut();
            sectors(&disk, 0) != [1; 8]
        });
        lost.count()
    };
    // 1 submits the write, 2 the flush, 11 and 12 complete them.
    assert_eq!(lost_after(&[1, 11, 2, 12]), 0);
    for order in [&[1, 2, 11, 12][..], &[1, 2, 12, 11], &[1, 11, 2], &[1, 11]] {
        assert!(lost_after(order) > 30, "{order:?}");
    }
}

#[test]
fn a_killed_process_leaves_its_completed_writes_and_any_part_of_those_in_flight() {
    let mut seen = [0; 3];
    for seed in 0..300 {
        let mut disk = disk(seed);
        run(&mut disk, write(1, 0, block(1))).unwrap();
        disk.submit(write(2, 1, block(2))).unwrap();
        disk.kill();
        assert!(disk.complete(IoId(2)).is_none());
        assert_eq!(sectors(&disk, 0), [1; 8]);
        let left = sectors(&disk, 1);
        seen[usize::from(left.contains(&2)) + usize::from(!left.contains(&0))] += 1;
        // The next process may flush what the last one wrote.
        if seed % 2 == 0 {
            run(&mut disk, flush(1)).unwrap();
        }
        disk.power_cut();
        assert!(seed % 2 == 1 || (sectors(&disk, 0), sectors(&disk, 1)) == (vec![1; 8], left));
    }
    assert!(seen.iter().all(|&n| n > 30), "none, some and all: {seen:?}");
}

#[test]
fn read_faults_strike_once_and_where_they_are_aimed() {
    let mut disk = disk(4);
    for id in 0..10 {
        run(&mut disk, write(id, id, block(1))).unwrap();
    }
    disk.arm(Fault::ReadError, 2 * BLOCK..3 * BLOCK);
    disk.arm(Fault::ReadFlip, 5 * BLOCK..6 * BLOCK);
    assert_eq!(run(&mut disk, read(1, 3, 2)).unwrap(), vec![1; 2 * BLOCK_LEN]);
    assert_eq!(run(&mut disk, read(1, 0, 4)).unwrap_err().errno, EIO);
    let flipped = run(&mut disk, read(1, 4, 3)).unwrap();
    let wrong: Vec<usize> = (0..flipped.len()).filter(|&at| flipped[at] != 1).collect();
    assert!(wrong.len() == 1 && wrong[0] / BLOCK_LEN == 1, "{wrong:?}");
    assert_eq!((flipped[wrong[0]] ^ 1).count_ones(), 1);
    assert_eq!(disk.armed(), 0);
    assert_eq!(run(&mut disk, read(1, 0, 10)).unwrap(), vec![1; 10 * BLOCK_LEN]);
    disk.arm(Fault::ReadError, 0..SIZE);
    disk.disarm();
    assert!(run(&mut disk, read(1, 0, 1)).is_ok());
    let incidents: Vec<Harm> = disk.take_incidents().iter().map(|incident| incident.harm).collect();
    assert_eq!(incidents, [Harm::ReadError, Harm::ReadFlip]);
    assert!(disk.take_incidents().is_empty());
}

#[test]
fn broken_blocks_are_whole_again_when_they_are_written() {
    let mut disk = disk(5);
    assert_eq!(disk.break_block(&(0..SIZE)), None, "nothing is stored");
    run(&mut disk, write(1, 7, block(1))).unwrap();
    assert_eq!(disk.break_block(&(8 * BLOCK..SIZE)), None);
    assert_eq!(disk.break_block(&(0..SIZE)), Some(7 * BLOCK));
    for _ in 0..2 {
        assert!(run(&mut disk, read(2, 6, 3)).is_err());
    }
    assert!(run(&mut disk, read(2, 8, 1)).is_ok());
    disk.kill();
    assert_eq!(disk.broken().collect::<Vec<_>>(), [7 * BLOCK]);
    run(&mut disk, write(3, 7, block(2))).unwrap();
    assert_eq!(run(&mut disk, read(2, 7, 1)).unwrap(), block(2));
    let faults = disk.faults();
    assert_eq!(
        (faults.count(Harm::BrokenBlock), faults.count(Harm::BrokenRead)),
        (1, 2)
    );
}

#[test]
fn rot_changes_one_bit_that_stays_changed() {
    let mut disk = disk(6);
    assert_eq!(disk.rot(&(0..SIZE)), None, "nothing is stored");
    for id in 0..10 {
        run(&mut disk, write(id, id, block(1))).unwrap();
    }
    run(&mut disk, flush(20)).unwrap();
    let range = 3 * BLOCK + 100..3 * BLOCK + 132;
    let at = disk.rot(&range).unwrap();
    assert!(range.contains(&at));
    for cut in [false, true] {
        if cut {
            disk.power_cut();
        }
        let all = run(&mut disk, read(1, 0, 10)).unwrap();
        let wrong: Vec<u64> = (0..).zip(&all).filter(|(_, b)| **b != 1).map(|(at, _)| at).collect();
        assert_eq!(wrong, [at]);
    }
    let places: BTreeSet<u64> = (0..200)
        .filter_map(|_| disk.rot(&(0..SIZE)))
        .map(|at| at / BLOCK)
        .collect();
    assert_eq!(places.len(), 10, "everything that is stored");
}

#[test]
fn writes_are_lost_misdirected_or_fail() {
    let mut disk = disk(7);
    for id in 0..10 {
        run(&mut disk, write(id, id, block(1))).unwrap();
    }
    disk.arm(Fault::LostWrite, 2 * BLOCK..3 * BLOCK);
    run(&mut disk, write(1, 3, block(2))).unwrap();
    run(&mut disk, write(1, 2, block(2))).unwrap();
    assert_eq!((sectors(&disk, 2), sectors(&disk, 3)), (vec![1; 8], vec![2; 8]));
    let into = 8 * BLOCK..9 * BLOCK;
    disk.arm(Fault::MisdirectedWrite { into }, 4 * BLOCK..5 * BLOCK);
    run(&mut disk, write(1, 4, block(3))).unwrap();
    assert_eq!((sectors(&disk, 4), sectors(&disk, 8)), (vec![1; 8], vec![3; 8]));
    disk.arm(Fault::WriteError, 0..SIZE);
    assert_eq!(run(&mut disk, write(1, 5, block(4))).unwrap_err().errno, EIO);
    assert!(sectors(&disk, 5).iter().all(|value| [1, 4].contains(value)));
    run(&mut disk, write(1, 5, block(5))).unwrap();
    assert_eq!(sectors(&disk, 5), [5; 8]);
    let counts: Vec<u64> = [Harm::LostWrite, Harm::MisdirectedWrite, Harm::WriteError]
        .map(|harm| disk.faults().count(harm))
        .into();
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn a_write_is_not_misdirected_onto_itself_or_onto_one_in_flight() {
    let mut disk = disk(8);
    for id in 0..2 {
        run(&mut disk, write(id, id, block(1))).unwrap();
    }
    disk.arm(Fault::MisdirectedWrite { into: 0..2 * BLOCK }, 0..BLOCK);
    disk.submit(write(5, 1, block(2))).unwrap();
    for _ in 0..20 {
        run(&mut disk, write(6, 0, block(3))).unwrap();
    }
    assert_eq!((sectors(&disk, 0), disk.armed()), (vec![3; 8], 1));
    disk.complete(IoId(5)).unwrap().result.unwrap();
    while disk.armed() > 0 {
        run(&mut disk, write(6, 0, block(4))).unwrap();
    }
    assert_eq!(
        (sectors(&disk, 1), disk.faults().count(Harm::MisdirectedWrite)),
        (vec![4; 8], 1)
    );
}

#[test]
fn after_a_failed_flush_later_ones_do_not_help() {
    let (mut gone, mut there) = (0, 0);
    for seed in 0..400 {
        let mut disk = disk(seed);
        run(&mut disk, write(1, 0, block(1))).unwrap();
        run(&mut disk, flush(2)).unwrap();
        run(&mut disk, write(3, 0, block(2))).unwrap();
        run(&mut disk, write(3, 1, block(2))).unwrap();
        disk.arm(Fault::FlushError, 0..0);
        assert_eq!(run(&mut disk, flush(4)).unwrap_err().errno, EIO);
        run(&mut disk, flush(5)).unwrap();
        assert_eq!(sectors(&disk, 0), [2; 8], "the process sees its write");
        match seed % 4 {
            0 => disk.power_cut(),
            1 => disk.kill(),
            2 => {
                disk.kill();
                run(&mut disk, flush(1)).unwrap();
                disk.power_cut();
            }
            _ => {
                run(&mut disk, write(6, 0, block(3))).unwrap();
                run(&mut disk, flush(7)).unwrap();
                disk.power_cut();
                assert_eq!(sectors(&disk, 0), [3; 8], "written again it is durable");
                continue;
            }
        }
        let left = sectors(&disk, 0);
        gone += usize::from(left == [1; 8]);
        there += usize::from(left == [2; 8]);
        assert!(left.iter().all(|value| [1, 2].contains(value)));
        assert!(seed % 4 == 0 || left == [left[0]; 8]);
    }
    assert!(gone > 60 && there > 60, "{gone} gone, {there} there");
}

#[test]
fn a_lying_flush_makes_nothing_durable() {
    let lost = (0..100).filter(|&seed| {
        let mut disk = disk(seed);
        run(&mut disk, write(1, 0, block(1))).unwrap();
        disk.arm(Fault::LyingFlush, 0..0);
        run(&mut disk, flush(2)).unwrap();
        if seed % 2 == 0 {
            run(&mut disk, flush(3)).unwrap();
        }
        disk.power_cut();
        assert!(
            seed % 2 == 1 || sectors(&disk, 0) == [1; 8],
            "the next flush was honest"
        );
        sectors(&disk, 0) != [1; 8]
    });
    assert!(lost.count() > 25);
}

#[test]
fn a_wiped_disk_is_new() {
    let mut disk = disk(9);
    run(&mut disk, write(1, 0, block(1))).unwrap();
    disk.break_block(&(0..SIZE)).unwrap();
    disk.submit(write(2, 1, block(1))).unwrap();
    disk.arm(Fault::ReadError, 0..SIZE);
    disk.wipe();
    assert!(disk.complete(IoId(2)).is_none());
    assert_eq!(run(&mut disk, read(1, 0, 64)).unwrap(), vec![0; length(SIZE)]);
}

#[test]
fn the_same_seed_does_the_same_harm() {
    let story = |seed| {
        let mut disk = disk(seed);
        some_writes(&mut disk, &mut Random::new(11));
        disk.submit(write(99, 3, block(250))).unwrap();
        disk.kill();
        some_writes(&mut disk, &mut Random::new(12));
        disk.power_cut();
        disk.rot(&(0..SIZE));
        (disk.peek(0, length(SIZE)), disk.faults().clone(), disk.take_incidents())
    };
    assert_eq!(story(1), story(1));
    assert_ne!(story(1), story(2));
}

#[test]
fn counts_have_names_and_add_up() {
    for (index, (harm, _)) in Harm::ALL.iter().enumerate() {
        assert_eq!(*harm as usize, index);
    }
    let mut faults = DiskFaults::default();
    faults.add(Harm::Rot, 2);
    let mut sum = faults.clone();
    sum.merge(&faults);
    assert_eq!(
        sum.iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>(),
        [("bits rotten", 4)]
    );
}
