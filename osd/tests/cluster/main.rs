//! OSD machines together: replication, peering, healing, exactly-once, deletion, under restarts and any order of
//! events.

#![allow(clippy::unwrap_used, reason = "a test")]

mod renumber;
mod sweeps;
mod usage;
mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use trivet_client::ImageOp;
use trivet_core::{OBJECT_SIZE, ObjectId, OsdId};
use world::{Random, World};

const SIZE: u64 = 6 * OBJECT_SIZE as u64;

/// Every object is on exactly two OSDs, in the same version.
fn assert_replicated(world: &World) {
    let mut copies: BTreeMap<ObjectId, Vec<_>> = BTreeMap::new();
    for objects in world.holdings().values() {
        for (object, state) in objects {
            copies.entry(*object).or_default().push(*state);
        }
    }
    for (object, states) in copies {
        assert_eq!(states.len(), 2, "{object}: {states:?}");
        assert_eq!(states[0], states[1], "{object}");
    }
}

#[test]
fn writes_are_on_two_osds_and_read_back() {
    let mut world = World::new(1, 3);
    let image = World::image(1);
    let data: Vec<u8> = (0..300_000u32)
        .map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1])
        .collect();
    world.write(image, 4000, data.clone()).unwrap();
    assert_eq!(world.read(image, 4000, 300_000).unwrap(), data);
    assert_eq!(world.read(image, 0, 4000).unwrap(), vec![0; 4000]);
    world.heal();
    assert_replicated(&world);
    world.assert_ready();
}

#[test]
fn an_osd_that_was_away_gets_what_it_missed() {
    let mut world = World::new(2, 3);
    let image = World::image(1);
    world.write(image, 0, vec![1; OBJECT_SIZE * 4]).unwrap();
    world.stop(OsdId(2));
    world.write(image, 100, vec![2; OBJECT_SIZE * 3]).unwrap();
    world.start(OsdId(2));
    // While it heals, reads are right.
    let read = world.read(image, 0, OBJECT_SIZE as u64 * 4).unwrap();
    assert!(read[..100].iter().all(|&b| b == 1) && read[100..100 + OBJECT_SIZE * 3].iter().all(|&b| b == 2));
    world.heal();
    assert_replicated(&world);
    // Now the one that took over may go.
    world.stop(OsdId(1));
    let again = world.read(image, 0, OBJECT_SIZE as u64 * 4).unwrap();
    assert_eq!(read, again);
}

#[test]
fn an_osd_that_missed_writes_does_not_serve_alone() {
    let mut world = World::new(3, 2);
    let image = World::image(1);
    world.write(image, 0, vec![1; 4096]).unwrap();
    world.stop(OsdId(1));
    world.write(image, 0, vec![2; 4096]).unwrap();
    world.stop(OsdId(2));
    world.start(OsdId(1));
    let read = world.submit(image, ImageOp::Read { offset: 0, len: 4096 });
    for _ in 0..100 {
        while world.turn() {}
        world.tick();
    }
    assert!(!world.done.contains_key(&read), "OSD 1 does not know the last write");
    world.start(OsdId(2));
    assert_eq!(world.finish(read).unwrap(), vec![2; 4096]);
}

/// An OSD does not show itself while its disk stands still, and yet is a source of what its own PGs heal.
#[test]
fn healing_asks_a_disk_that_stands_still_once() {
    let mut world = World::new(25, 2);
    let image = World::image(1);
    world.write(image, 0, vec![1; OBJECT_SIZE * 6]).unwrap();
    world.stop(OsdId(1));
    world.write(image, 0, vec![2; OBJECT_SIZE * 6]).unwrap();
    world.heal_nothing();
    world.start(OsdId(1));
    pass(&mut world, 50);
    world.frozen = Some(OsdId(2));
    let write = ImageOp::Write {
        offset: 100,
        data: vec![vec![3; OBJECT_SIZE * 6 - 200].into()],
    };
    let ticket = world.submit(image, write);
    pass(&mut world, 10);
    let asked = world.waiting(OsdId(2));
    assert!(asked > 0);
    pass(&mut world, 100);
    assert!(!world.is_shown(OsdId(2)));
    assert!(
        world.waiting(OsdId(2)) < asked + 10,
        "{} of {asked}",
        world.waiting(OsdId(2))
    );
    world.frozen = None;
    world.finish(ticket).unwrap();
}

/// Lets so many ticks pass, and all that they lead to.
fn pass(world: &mut World, ticks: usize) {
    for _ in 0..ticks {
        world.tick();
        while world.turn() {}
    }
}

#[test]
fn the_history_of_a_pg_that_is_never_clean_stays_short() {
    let mut world = World::new(12, 2);
    let image = World::image(1);
    world.write(image, 0, vec![1; 4096]).unwrap();
    world.heal();
    world.heal_nothing();
    let rounds = 300;
    for round in 1..=rounds {
        world.stop(OsdId(1));
        world
            .write(image, (1 + round % 40) * OBJECT_SIZE as u64, vec![2; 4096])
            .unwrap();
        world.start(OsdId(1));
        pass(&mut world, 12);
    }
    let claims = world.client.map().claims.values();
    assert!(
        claims.map(|claim| claim.value.missing).sum::<u64>() > 0,
        "it was not clean"
    );
    let histories = || world.client.map().histories.values().map(|history| &history.value);
    let epochs = histories().map(|history| history.epoch.0).max().unwrap();
    assert!(epochs > 2 * rounds, "it began anew often enough: {epochs}");
    let longest = histories().map(|history| history.intervals.len()).max().unwrap();
    assert!((2..=4).contains(&longest), "{longest} intervals");
}

#[test]
fn an_osd_that_is_said_to_be_gone_loses_its_key_once_and_comes_back() {
    let mut world = World::new(7, 3);
    let image = World::image(1);
    world.write(image, 0, vec![1; OBJECT_SIZE * 4]).unwrap();
    world.heal();
    // It is not true: OSD 2 runs.
    world.lose(OsdId(1), OsdId(2));
    world.lose(OsdId(1), OsdId(2));
    while world.turn() {}
    assert_eq!(world.removals.get(&OsdId(2)), Some(&1));
    assert!(!world.is_shown(OsdId(2)));
    pass(&mut world, 40);
    assert!(world.is_shown(OsdId(2)), "it registers again");
    assert_eq!(world.removals.get(&OsdId(2)), Some(&1), "not twice");
    world.heal();
    assert_replicated(&world);
    assert_eq!(world.read(image, 0, 4096).unwrap(), vec![1; 4096]);
    world.assert_ready();
}

#[test]
fn a_loss_is_told_again_if_nobody_knows_whether_it_was() {
    let mut world = World::new(8, 3);
    world.write(World::image(1), 0, vec![1; OBJECT_SIZE]).unwrap();
    world.heal();
    world.lose(OsdId(1), OsdId(2));
    assert_eq!(world.forget_removals(OsdId(1), OsdId(2)), 1);
    world.lose(OsdId(1), OsdId(2));
    while world.turn() {}
    assert_eq!(world.removals.get(&OsdId(2)), Some(&1));
}

#[test]
fn everything_survives_a_restart_of_everybody() {
    let mut world = World::new(4, 3);
    let image = World::image(1);
    for i in 0..40u8 {
        world.write(image, u64::from(i) * 20_000, vec![i; 20_000]).unwrap();
    }
    for osd in 1..=3 {
        world.stop(OsdId(osd));
    }
    for osd in 1..=3 {
        world.start(OsdId(osd));
    }
    for i in 0..40u8 {
        assert_eq!(
            world.read(image, u64::from(i) * 20_000, 20_000).unwrap(),
            vec![i; 20_000]
        );
    }
    world.heal();
    assert_replicated(&world);
}

#[test]
fn what_was_deleted_while_an_osd_was_away_does_not_come_back_and_tombstones_go() {
    let mut world = World::new(5, 3);
    let image = World::image(1);
    world.write(image, 0, vec![7; OBJECT_SIZE * 6]).unwrap();
    world.stop(OsdId(3));
    let purge = world.submit(image, ImageOp::Purge);
    world.finish(purge).unwrap();
    let tombstones = |world: &World| {
        world
            .holdings()
            .values()
            .flat_map(BTreeMap::values)
            .filter(|s| s.1)
            .count()
    };
    assert!(tombstones(&world) > 0, "somebody may bring the objects back");
    world.start(OsdId(3));
    world.heal();
    assert_eq!(world.read(image, 0, SIZE).unwrap(), vec![0; OBJECT_SIZE * 6]);
    for _ in 0..700 {
        world.tick();
        while world.turn() {}
    }
    assert_eq!(
        world.holdings().values().map(BTreeMap::len).sum::<usize>(),
        0,
        "nothing is left"
    );
    // Made anew, versions go on.
    world.write(image, 0, vec![8; 4096]).unwrap();
    assert_eq!(world.read(image, 0, 4096).unwrap(), vec![8; 4096]);
}

#[test]
fn what_is_made_anew_while_its_tombstone_is_forgotten_remembers_the_same_everywhere() {
    // Tombstones are kept for 600 ticks.
    for ticks in 595..605 {
        let mut world = World::new(ticks, 2);
        let image = World::image(1);
        world.write(image, 0, vec![7; OBJECT_SIZE * 6]).unwrap();
        let purge = world.submit(image, ImageOp::Purge);
        world.finish(purge).unwrap();
        for _ in 0..ticks {
            while world.turn() {}
            world.tick();
        }
        world.restart_client();
        // Members may be told to forget at this moment, and what the client that is gone did with it.
        world.write(image, 0, vec![8; OBJECT_SIZE * 6]).unwrap();
        world.heal();
        assert_replicated(&world);
    }
}

#[test]
fn a_primary_that_lacks_everything_still_purges_everything() {
    for seed in 1..20 {
        let mut world = World::new(seed, 3);
        let image = World::image(1);
        world.stop(OsdId(1));
        world.write(image, 0, vec![7; OBJECT_SIZE * 6]).unwrap();
        world.start(OsdId(1));
        let purge = world.submit(image, ImageOp::Purge);
        world.finish(purge).unwrap();
        assert_eq!(
            world.read(image, 0, SIZE).unwrap(),
            vec![0; OBJECT_SIZE * 6],
            "seed {seed}"
        );
    }
}

#[test]
fn sub_sector_writes_in_flight_together_all_count() {
    let mut world = World::new(6, 3);
    let image = World::image(1);
    let tickets: Vec<u64> = (0..64u8)
        .map(|i| {
            let data = vec![Bytes::from(vec![i + 1; 100])];
            world.submit(
                image,
                ImageOp::Write {
                    offset: u64::from(i) * 100,
                    data,
                },
            )
        })
        .collect();
    for ticket in tickets {
        world.finish(ticket).unwrap();
    }
    let read = world.read(image, 0, 6400).unwrap();
    for i in 0..64u8 {
        assert!(read[usize::from(i) * 100..][..100].iter().all(|&b| b == i + 1), "{i}");
    }
}

#[test]
fn an_object_that_was_filled_by_many_writes_at_once_remembers_few_of_them() {
    let mut world = World::new(11, 3);
    let image = World::image(1);
    let unit = |number: u64| ImageOp::Write {
        offset: number * 4096,
        data: vec![Bytes::from(vec![1; 4096])],
    };
    let tickets: Vec<u64> = (0..32).map(|number| world.submit(image, unit(number))).collect();
    for ticket in tickets {
        world.finish(ticket).unwrap();
    }
    world.heal();
    let object = ObjectId { image, number: 0 };
    let lists = (1..=3).map(|osd| world.remembered(OsdId(osd), object).len());
    let lists: Vec<usize> = lists.filter(|len| *len > 0).collect();
    assert!(lists.len() == 2 && lists.iter().all(|len| *len <= 2), "{lists:?}");
}

#[test]
fn a_full_member_makes_writes_fail_and_nothing_else() {
    let mut world = World::with_sizes(7, &[32 << 20, 10 << 20, 32 << 20]);
    let image = World::image(1);
    let object = OBJECT_SIZE as u64;
    let data = |number: u64| vec![u8::try_from(number % 250).unwrap() + 1; 70_000];
    let written: Vec<bool> = (0..200)
        .map(|n| world.write(image, n * object, data(n)).is_ok())
        .collect();
    let refused = written.iter().filter(|ok| !**ok).count();
    assert!((20..180).contains(&refused), "{refused} of 200 writes were refused");
    for (number, ok) in (0..).zip(&written) {
        let read = world.read(image, number * object, 70_000).unwrap();
        assert_eq!(
            read,
            if *ok { data(number) } else { vec![0; 70_000] },
            "object {number}"
        );
    }
    world.heal();
    assert_replicated(&world);
    // Overwrites go on; what is deleted makes room.
    let kept = (0..200).find(|n| written[usize::try_from(*n).unwrap()]).unwrap();
    world.write(image, kept * object + 5, vec![9; 100]).unwrap();
    let purge = world.submit(image, ImageOp::Purge);
    world.finish(purge).unwrap();
    world.heal();
    while world.turn() {}
    (0..40).for_each(|n| drop(world.write(image, n * object, data(n)).unwrap()));
    assert_replicated(&world);
}

#[test]
fn a_member_that_was_left_out_for_lack_of_room_comes_back_when_it_has_less_to_hold() {
    // OSD 5 leads nothing: what it has no room for, others have.
    let mut world = World::with_sizes(8, &[32 << 20, 32 << 20, 32 << 20, 32 << 20, 5 << 20]);
    let image = World::image(1);
    let fill = |world: &mut World, numbers: std::ops::Range<u64>| {
        let written = numbers.map(|n| world.write(image, n * OBJECT_SIZE as u64, vec![1; 70_000]));
        written.for_each(|result| drop(result.unwrap()));
    };
    fill(&mut world, 0..60);
    world.stop(OsdId(5));
    fill(&mut world, 60..240);
    world.start(OsdId(5));
    let left_out = |world: &World| {
        let mut claims = world.client.map().claims.values();
        claims.any(|claim| claim.value.active && claim.value.acting == [OsdId(4)] && claim.value.missing == 0)
    };
    for _ in 0..100 {
        while world.turn() {}
        world.tick();
    }
    assert!(left_out(&world), "it has no room");
    let held = world.holdings()[&OsdId(5)].len();
    assert!(held > 20, "it holds {held} objects");
    // Nobody tells it of this, and its disk stays full.
    let purge = world.submit(image, ImageOp::Purge);
    world.finish(purge).unwrap();
    world.heal();
    assert_replicated(&world);
    fill(&mut world, 0..60);
    assert_replicated(&world);
}

#[test]
fn what_a_full_member_lacks_can_be_removed() {
    let mut world = World::with_sizes(9, &[32 << 20, 5 << 20]);
    let image = World::image(1);
    let object = |number| ObjectId { image, number };
    let at = |number: u64| number * OBJECT_SIZE as u64;
    world.stop(OsdId(2));
    for number in 0..100 {
        world.write(image, at(number), vec![1; 70_000]).unwrap();
    }
    world.start(OsdId(2));
    world.require_both();
    pass(&mut world, 100);
    let lacks = |world: &World, number: u64| !world.holdings()[&OsdId(2)].contains_key(&object(number));
    let lacking: Vec<u64> = (0..100).filter(|&number| lacks(&world, number)).collect();
    assert!(
        (20..80).contains(&lacking.len()),
        "{} of 100 are missing",
        lacking.len()
    );
    let refused = world.write(image, at(lacking[0]), vec![2; 10]);
    assert!(refused.is_err(), "there is no room for the rest of it");
    for &number in &lacking {
        let len = OBJECT_SIZE as u64;
        let zero = world.submit(
            image,
            ImageOp::Zero {
                offset: at(number),
                len,
            },
        );
        world.finish(zero).unwrap();
        assert_eq!(world.read(image, at(number), 70_000).unwrap(), vec![0; 70_000]);
    }
    world.heal();
    assert_replicated(&world);
}

#[test]
fn what_is_undone_for_lack_of_room_leaves_the_tombstone_its_memory() {
    let mut world = World::with_sizes(10, &[32 << 20, 5 << 20]);
    let image = World::image(1);
    let len = OBJECT_SIZE as u64;
    let memory = |world: &World, number| {
        let object = ObjectId { image, number };
        [1, 2].map(|osd| world.remembered(OsdId(osd), object))
    };
    // OSD 1 leads some of them, and OSD 2 the others.
    let removed = 0..8;
    for number in removed.clone() {
        world.write(image, number * len, vec![1; 70_000]).unwrap();
        let offset = number * len;
        let zero = world.submit(image, ImageOp::Zero { offset, len });
        world.finish(zero).unwrap();
    }
    let before: Vec<_> = removed.clone().map(|number| memory(&world, number)).collect();
    assert!(before.iter().all(|[one, two]| !one.is_empty() && one == two));
    let written = (8..200).filter(|number| world.write(image, number * len, vec![1; 70_000]).is_ok());
    assert!(written.count() < 100, "OSD 2 is full");
    for number in removed.clone() {
        world.write(image, number * len, vec![2; 70_000]).unwrap_err();
    }
    world.heal();
    let after: Vec<_> = removed.map(|number| memory(&world, number)).collect();
    assert_eq!(
        after, before,
        "a late copy of those is known, one of the write that failed is not"
    );
}

#[test]
fn what_overtakes_a_write_and_leaves_nothing_else_does_not_answer_it() {
    let mut world = World::new(12, 3);
    let image = World::image(1);
    world.write(image, 0, vec![1; 4096]).unwrap();
    let data = vec![Bytes::from(vec![2; 4096])];
    let write = world.submit(image, ImageOp::Write { offset: 86_016, data });
    assert_eq!(world.lose_writes(), 1);
    // All that there is becomes zero, but not all that there could be.
    let zero = world.submit(image, ImageOp::Zero { offset: 0, len: 32_768 });
    world.finish(zero).unwrap();
    assert!(!world.done.contains_key(&write));
    world.finish(write).unwrap();
    assert_eq!(world.read(image, 86_016, 4096).unwrap(), vec![2; 4096]);
    world.heal();
    assert_replicated(&world);
}

const REGION: usize = 40_000;
const REGIONS: usize = 8;

/// An operation under way in a region; of a read also where it looks.
type Waiting = (u64, Option<(usize, usize)>);

/// Finishes what is under way in a region, and compares a read with the model.
fn settle(world: &mut World, model: &[Vec<u8>], region: usize, (ticket, read): Waiting, seed: u64) {
    let result = finish(world, ticket);
    if let Some((offset, len)) = read {
        assert_eq!(
            result,
            model[region][offset..offset + len],
            "seed {seed}, region {region}"
        );
    }
}

/// A random operation on a region, done to the model at once; and of a read where it looks.
fn operation(random: &mut Random, model: &mut [u8], region: usize, byte: u8) -> (ImageOp, Option<(usize, usize)>) {
    let offset = random.below(REGION);
    let len = 1 + random.below((REGION - offset).min(9000));
    let at = (region * REGION + offset) as u64;
    let part = &mut model[offset..offset + len];
    match random.below(5) {
        0 | 1 => (
            ImageOp::Read {
                offset: at,
                len: len as u64,
            },
            Some((offset, len)),
        ),
        2 => {
            part.fill(0);
            (
                ImageOp::Zero {
                    offset: at,
                    len: len as u64,
                },
                None,
            )
        }
        _ => {
            part.fill(byte);
            (
                ImageOp::Write {
                    offset: at,
                    data: vec![Bytes::from(vec![byte; len])],
                },
                None,
            )
        }
    }
}

/// Random operations on a few regions, each with one operation in flight at a time, against a model, while OSDs come
/// and go. Returns how many operations were checked.
fn chaos(seed: u64) -> usize {
    let mut world = World::new(seed, 3);
    let mut random = Random(seed.wrapping_mul(77) | 1);
    let image = World::image(1);
    let mut model = vec![vec![0u8; REGION]; REGIONS];
    let mut waiting: BTreeMap<usize, Waiting> = BTreeMap::new();
    let rounds = 600;
    for round in 0..rounds {
        let region = random.below(REGIONS);
        if let Some(under_way) = waiting.remove(&region) {
            settle(&mut world, &model, region, under_way, seed);
        }
        let byte = u8::try_from(round % 251).unwrap() + 1;
        let (op, read) = operation(&mut random, &mut model[region], region, byte);
        waiting.insert(region, (world.submit(image, op), read));
        for _ in 0..random.below(60) {
            world.turn();
        }
        disturb(&mut world, &mut random);
    }
    start_all(&mut world);
    for (region, under_way) in waiting {
        settle(&mut world, &model, region, under_way, seed);
    }
    world.heal();
    while world.turn() {}
    let whole = world.read(image, 0, (REGION * REGIONS) as u64).unwrap();
    assert_eq!(whole, model.concat(), "seed {seed}: the whole image");
    assert_replicated(&world);
    rounds
}

/// Finishes an operation; if it waits for an OSD that is away, that one comes back.
fn finish(world: &mut World, ticket: u64) -> Vec<u8> {
    for _ in 0..30 {
        while !world.done.contains_key(&ticket) && world.turn() {}
        if !world.done.contains_key(&ticket) {
            world.tick();
        }
    }
    if !world.done.contains_key(&ticket) {
        start_all(world);
    }
    world.finish(ticket).unwrap()
}

fn start_all(world: &mut World) {
    for osd in (1..=3).map(OsdId) {
        if !world.is_up(osd) {
            world.start(osd);
        }
    }
}

/// Now and then an OSD goes (one at a time) or comes.
fn disturb(world: &mut World, random: &mut Random) {
    if random.below(12) != 0 {
        return;
    }
    let down = (1..=3).map(OsdId).find(|osd| !world.is_up(*osd));
    match down {
        Some(osd) => world.start(osd),
        None => world.stop(OsdId(u32::try_from(random.below(3)).unwrap() + 1)),
    }
    if random.below(2) == 0 {
        world.tick();
    }
}

#[test]
fn chaos_over_many_seeds() {
    let seeds: u64 = std::env::var("TRIVET_CHAOS_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(40);
    let checked: usize = (1..=seeds).map(chaos).sum();
    println!("{seeds} seeds, {checked} operations checked, 0 violations");
}
