//! Ranges that are made empty while PGs peer, heal and are renumbered: what was acknowledged before is gone.

use trivet_client::ImageOp;
use trivet_core::{OBJECT_SIZE, OsdId};

use crate::assert_replicated;
use crate::world::{PGS, World};

const OBJECTS: usize = 24;
const LEN: usize = OBJECTS * OBJECT_SIZE;
/// What is discarded: more objects than are zeroed without asking what there is, the first and the last in part.
const FROM: usize = OBJECT_SIZE + 100;
const TO: usize = 23 * OBJECT_SIZE - 5000;

fn write(world: &mut World) {
    world.write(World::image(1), 0, vec![7; LEN]).unwrap();
}

fn discard(world: &mut World) -> u64 {
    let op = ImageOp::Zero {
        offset: FROM as u64,
        len: (TO - FROM) as u64,
    };
    world.submit(World::image(1), op)
}

fn assert_discarded(world: &mut World, why: &str) {
    let mut expected = vec![7; LEN];
    expected[FROM..TO].fill(0);
    let read = world.read(World::image(1), 0, LEN as u64).unwrap();
    assert!(read == expected, "{why}");
}

#[test]
fn what_the_primary_lacks_is_discarded_too() {
    for seed in 1..20 {
        let mut world = World::new(seed, 3);
        world.stop(OsdId(1));
        write(&mut world);
        world.start(OsdId(1));
        let ticket = discard(&mut world);
        world.finish(ticket).unwrap();
        assert_discarded(&mut world, &format!("seed {seed}"));
        world.heal();
        assert_replicated(&world);
        assert_discarded(&mut world, &format!("seed {seed}, healed"));
    }
}

#[test]
fn other_numbers_of_pgs_and_restarts_in_the_middle_hide_nothing() {
    for seed in 1..30 {
        let mut world = World::new(seed, 3);
        write(&mut world);
        let ticket = discard(&mut world);
        for _ in 0..5 * seed {
            world.turn();
        }
        world.renumber(2 * PGS + 1);
        for _ in 0..3 * seed {
            world.turn();
        }
        world.stop(OsdId(2));
        world.start(OsdId(2));
        world.finish(ticket).unwrap();
        assert_discarded(&mut world, &format!("seed {seed}"));
    }
}

#[test]
fn a_discard_gives_back_whole_objects() {
    let mut world = World::new(2, 3);
    write(&mut world);
    let ticket = discard(&mut world);
    world.finish(ticket).unwrap();
    world.heal();
    let there: Vec<u64> = world
        .holdings()
        .values()
        .flat_map(|objects| {
            objects
                .iter()
                .filter(|(_, state)| !state.1)
                .map(|(object, _)| object.number)
        })
        .collect();
    assert!(there.iter().all(|number| [0, 1, 22, 23].contains(number)), "{there:?}");
    assert_replicated(&world);
}

#[test]
fn what_is_not_there_is_found_out_by_asking_each_pg_once() {
    let mut world = World::new(3, 3);
    world.write(World::image(1), 0, vec![1; 4096]).unwrap();
    let image = World::image(2);
    let zero = ImageOp::Zero {
        offset: 0,
        len: u64::MAX,
    };
    let ticket = world.submit(image, zero);
    // The last object is in the range in part.
    assert_eq!(world.client.in_flight(), PGS as usize + 1);
    world.finish(ticket).unwrap();
}
