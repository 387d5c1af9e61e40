//! Another number of PGs, while clients write and OSDs come and go.

use trivet_client::ImageOp;
use trivet_core::{OBJECT_SIZE, OsdId};

use crate::world::{PGS, World};
use crate::{SIZE, assert_replicated, pass};

/// Numbers of PGs, one after the other.
const COUNTS: [u32; 4] = [8, 2, 3, 1];

fn write(world: &mut World, byte: u8) {
    let image = World::image(1);
    let size = usize::try_from(SIZE).unwrap();
    world.write(image, 0, vec![byte; size]).unwrap();
}

#[test]
fn what_was_written_is_read_through_the_new_pgs() {
    for seed in 1..20 {
        let mut world = World::new(seed, 3);
        write(&mut world, 1);
        for (byte, count) in (2..).zip(COUNTS) {
            let image = World::image(1);
            let data = vec![byte; 4096].into();
            let offset = 0;
            let ticket = world.submit(
                image,
                ImageOp::Write {
                    offset,
                    data: vec![data],
                },
            );
            world.renumber(count);
            world.finish(ticket).unwrap();
            let read = world.read(image, 0, SIZE).unwrap();
            assert!(
                read[..4096].iter().all(|&found| found == byte),
                "seed {seed}, {count} PGs"
            );
            assert!(
                read[4096..].iter().all(|&found| found == byte - 1),
                "seed {seed}, {count} PGs"
            );
            world.heal();
            // Copies of those who are no members any more go within seconds.
            pass(&mut world, 120);
            assert_replicated(&world);
            write(&mut world, byte);
        }
    }
}

#[test]
fn a_member_that_was_away_meanwhile_brings_nothing_back() {
    let mut world = World::new(3, 3);
    write(&mut world, 1);
    world.stop(OsdId(2));
    write(&mut world, 2);
    let purge = world.submit(World::image(1), ImageOp::Purge);
    world.finish(purge).unwrap();
    world.renumber(8);
    world.start(OsdId(2));
    world.heal();
    let read = world.read(World::image(1), 0, SIZE).unwrap();
    assert!(read.iter().all(|&byte| byte == 0));
}

#[test]
fn who_is_not_shown_to_be_up_does_not_answer_for_pgs_that_are_over() {
    for seed in 1..60 {
        let mut world = World::new(seed, 2);
        write(&mut world, 1);
        let image = World::image(1);
        let tickets: Vec<u64> = (0..SIZE / OBJECT_SIZE as u64)
            .map(|number| {
                let offset = number * OBJECT_SIZE as u64;
                world.submit(image, ImageOp::Read { offset, len: 4096 })
            })
            .collect();
        world.hide(OsdId(1));
        world.hide(OsdId(2));
        world.renumber(8);
        for ticket in tickets {
            assert!(world.finish(ticket).is_ok(), "seed {seed}");
        }
    }
}

#[test]
fn a_former_member_that_goes_while_it_is_asked_is_not_waited_for() {
    for seed in 1..30 {
        let mut world = World::new(seed, 3);
        let image = World::image(1);
        let len = 24 * OBJECT_SIZE as u64;
        let data = vec![3; 24 * OBJECT_SIZE];
        world.write(image, 0, data.clone()).unwrap();
        world.heal();
        world.renumber(2 * PGS + 1);
        // Each object has another copy.
        for _ in 0..8 * seed {
            world.turn();
        }
        world.stop(OsdId(2));
        assert!(world.read(image, 0, len).unwrap() == data, "seed {seed}");
    }
}
