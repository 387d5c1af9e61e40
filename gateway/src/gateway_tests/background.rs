//! What the gateway does on its own: truncations, removals, times of modification.

use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use trivet_api::{AdminAnswer, ErrorKind};
use trivet_core::message::OpError;
use trivet_core::{ImageId, OBJECT_SIZE};
use trivet_namespace::{Operation, Trimming};

use super::clients::{good, nbd, write};
use super::world::{OWN, PGS, RIVAL, World, remove, resize, status};

const OBJECT: u64 = OBJECT_SIZE as u64;

/// A world with an image of four objects, all of them written.
fn written() -> (World, ImageId) {
    let mut world = World::default();
    let image = world.image("vm", 4 * OBJECT);
    let conn = nbd(&mut world, "vm");
    world.send(conn, &write(0, 4 * OBJECT_SIZE, 0xaa));
    assert_eq!(world.take(conn), good(0));
    world.pass(Duration::from_secs(3));
    (world, image)
}

#[test]
fn a_shrink_is_answered_when_the_data_is_gone() {
    for notices_first in [false, true] {
        let (mut world, image) = written();
        (world.hold_osd, world.notices_first) = (true, notices_first);
        let mut answer = world.call(resize("vm", OBJECT + 100));
        assert_eq!(world.inode(image).size, OBJECT + 100, "the size is cut off at once");
        world.run_ops(2);
        assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "data is left");
        world.hold_osd = false;
        world.run();
        assert!(answer.try_recv().unwrap().is_ok());
        assert_eq!(
            (world.byte(image, OBJECT + 99), world.byte(image, OBJECT + 100)),
            (0xaa, 0)
        );
        assert_eq!(world.byte(image, 4 * OBJECT - 1), 0);
        assert_eq!(world.inode(image).trimming, None);
    }
}

#[test]
fn removal_that_fails_is_tried_again() {
    let (mut world, image) = written();
    world.fail = Some(OpError::Damaged);
    let mut answer = world.call(resize("vm", OBJECT));
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    world.fail = None;
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(world.byte(image, OBJECT), 0);
}

#[test]
fn a_shrink_costs_what_there_is() {
    let mut world = World::default();
    let size = u64::try_from(i64::MAX).unwrap();
    let image = world.image("vm", size);
    let conn = nbd(&mut world, "vm");
    for offset in [0, 1 << 40, size - 1] {
        world.send(conn, &write(offset, 1, 0xaa));
        assert_eq!(world.take(conn), good(offset));
    }
    world.hold_osd = true;
    let mut answer = world.call(resize("vm", OBJECT));
    // Two PGs are asked; the last object is in the range in part.
    assert_eq!(world.ops(), 3);
    world.run_ops(5);
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!((world.ops(), world.objects(image)), (0, 2));
    assert_eq!((world.byte(image, 0), world.byte(image, size - 1)), (0xaa, 0));
}

#[test]
fn a_truncation_ends_when_its_file_is_removed() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 50);
    let conn = nbd(&mut world, "vm");
    for number in 0..200 {
        world.send(conn, &write(number << 40, 1, 0xaa));
        assert_eq!(world.take(conn), good(number << 40));
    }
    world.hold_osd = true;
    let mut answer = world.call(resize("vm", 0));
    world.run_ops(3);
    assert_eq!(
        (answer.try_recv(), world.objects(image)),
        (Err(TryRecvError::Empty), 199)
    );
    assert_eq!(world.ask(remove("vm")), Ok(AdminAnswer::Done {}));
    let gone = answer.try_recv().unwrap().map_err(|error| error.kind);
    assert_eq!(gone, Err(ErrorKind::NotFound), "nobody waits for it any more");
    // What was under way, two lists, and nothing but removals.
    world.hold_osd = false;
    world.run();
    assert_eq!(world.objects(image), 0);
    assert!(!world.keys.contains_key(&purge_key(image)));
    assert!(world.zeroed <= 1 + 16, "{}", world.zeroed);
}

#[test]
fn what_does_not_end_is_told() {
    let (mut world, _) = written();
    let told = |world: &mut World| -> Vec<String> {
        let reasons = status(world).reasons.into_iter();
        reasons.filter(|reason| reason.contains("the truncation of")).collect()
    };
    world.hold_osd = true;
    let mut answer = world.call(resize("vm", OBJECT));
    world.pass(Duration::from_secs(4));
    assert_eq!(told(&mut world), [""; 0]);
    world.pass(Duration::from_secs(2));
    assert!(
        told(&mut world)[0].contains("waits for PG 1/"),
        "{:?}",
        told(&mut world)
    );
    world.fail = Some(OpError::Damaged);
    world.hold_osd = false;
    world.pass(Duration::from_secs(2));
    assert!(
        told(&mut world)[0].contains("fails: the data is damaged"),
        "{:?}",
        told(&mut world)
    );
    world.fail = None;
    world.hold_txns = true;
    world.pass(Duration::from_secs(7));
    assert!(
        told(&mut world)[0].contains("waits for the metadata store"),
        "{:?}",
        told(&mut world)
    );
    world.hold_txns = false;
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(told(&mut world), [""; 0]);
}

#[test]
fn growing_waits_for_a_truncation() {
    let (mut world, image) = written();
    world.hold_osd = true;
    let mut shrunk = world.call(resize("vm", OBJECT));
    let mut grown = world.call(resize("vm", 4 * OBJECT));
    world.pass(Duration::from_secs(1));
    assert_eq!(grown.try_recv(), Err(TryRecvError::Empty), "it would show old data");
    world.hold_osd = false;
    world.run();
    assert!(shrunk.try_recv().unwrap().is_ok());
    assert!(grown.try_recv().unwrap().is_ok());
    assert_eq!((world.inode(image).size, world.byte(image, OBJECT)), (4 * OBJECT, 0));
}

#[test]
fn a_dead_gateways_truncation_is_taken_over() {
    let (mut world, image) = written();
    world.rival(&Operation::Resize {
        id: image,
        size: OBJECT,
    });
    world.pass(Duration::from_secs(5));
    let trimming = world.inode(image).trimming.expect("it is the other's to finish");
    assert_eq!((trimming.by, world.byte(image, OBJECT)), (RIVAL, 0xaa));
    let mut grown = world.call(resize("vm", 2 * OBJECT));
    assert_eq!(grown.try_recv(), Err(TryRecvError::Empty));
    world.rival_dies();
    world.hold_osd = true;
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.inode(image).trimming,
        Some(trimming),
        "the other may still be at it before every PG knows that it is fenced"
    );
    // The barriers, one for each PG, before the removal.
    world.run_ops(usize::try_from(PGS).unwrap());
    assert_eq!(world.inode(image).trimming, Some(Trimming { by: OWN, ..trimming }));
    world.hold_osd = false;
    world.pass(Duration::from_secs(1));
    assert!(grown.try_recv().unwrap().is_ok());
    assert_eq!((world.inode(image).trimming, world.byte(image, OBJECT)), (None, 0));
}

#[test]
fn a_late_removal_does_not_end_a_newer_truncation() {
    let (mut world, image) = written();
    world.hold_osd = true;
    drop(world.call(resize("vm", 3 * OBJECT)));
    let first = world.inode(image).trimming.unwrap();
    // Another gateway takes this one for dead and finishes its work.
    world.rival(&Operation::TakeTrim {
        id: image,
        trimming: first,
    });
    world.rival(&Operation::TrimDone {
        id: image,
        trimming: Trimming { by: RIVAL, ..first },
    });
    world.run();
    let mut answer = world.call(resize("vm", OBJECT));
    let second = world.inode(image).trimming.unwrap();
    assert_eq!((second.by, second.from), (OWN, OBJECT));
    world.run_ops(1);
    assert_eq!(world.byte(image, 3 * OBJECT), 0, "the first removal has ended");
    assert_eq!(world.inode(image).trimming, Some(second));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    world.hold_osd = false;
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!((world.byte(image, OBJECT), world.inode(image).trimming), (0, None));
}

fn purge_key(image: ImageId) -> String {
    format!("vfs/purge/{image}")
}

#[test]
fn a_removed_images_data_goes_and_then_its_key() {
    let (mut world, image) = written();
    world.hold_osd = true;
    assert_eq!(
        world.ask(remove("vm")),
        Ok(AdminAnswer::Done {}),
        "nobody waits for the data"
    );
    assert!(world.keys.contains_key(&purge_key(image)));
    assert_eq!(
        (world.objects(image), world.ops()),
        (4, 2),
        "both PGs are asked what they have"
    );
    world.run_ops(5);
    assert_eq!(world.objects(image), 1);
    assert!(world.keys.contains_key(&purge_key(image)), "data is left");
    world.hold_osd = false;
    world.run();
    assert_eq!(world.objects(image), 0);
    assert!(!world.keys.contains_key(&purge_key(image)));
}

#[test]
fn a_purge_that_fails_is_tried_again() {
    let (mut world, image) = written();
    world.fail = Some(OpError::Damaged);
    world.ask(remove("vm")).unwrap();
    world.pass(Duration::from_secs(1));
    assert!(world.keys.contains_key(&purge_key(image)));
    world.fail = None;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.objects(image), 0);
    assert!(!world.keys.contains_key(&purge_key(image)));
}

#[test]
fn many_purges_happen_a_few_at_a_time() {
    let mut world = World::default();
    let images: Vec<ImageId> = (0..10).map(|n| world.image(&format!("vm{n}"), OBJECT)).collect();
    world.hold_osd = true;
    (0..10).for_each(|n| drop(world.ask(remove(&format!("vm{n}")))));
    // Not so long that the client asks again.
    world.pass(Duration::from_millis(500));
    assert_eq!(world.ops(), 4 * 2, "four images, two PGs");
    world.hold_osd = false;
    world.pass(Duration::from_secs(1));
    assert!(images.iter().all(|&image| !world.keys.contains_key(&purge_key(image))));
}

#[test]
fn removals_that_wait_for_clean_pgs_keep_no_others_from_making_room() {
    let mut world = World::default();
    let images: Vec<ImageId> = (0..9).map(|n| world.image(&format!("vm{n}"), OBJECT)).collect();
    for n in 0..9 {
        let conn = nbd(&mut world, &format!("vm{n}"));
        world.send(conn, &write(0, OBJECT_SIZE, 0xaa));
        assert_eq!(world.take(conn), good(0));
        world.leave(conn);
    }
    world.histories(&[0, 1]);
    for n in 0..9 {
        assert_eq!(world.ask(remove(&format!("vm{n}"))), Ok(AdminAnswer::Done {}));
    }
    // Keys of use go after a while.
    world.pass(Duration::from_secs(15));
    assert!(images.iter().all(|&image| world.objects(image) == 0));
    assert!(
        images.iter().all(|&image| world.keys.contains_key(&purge_key(image))),
        "an OSD that is away may bring back more"
    );
    let reasons = status(&mut world).reasons;
    assert!(
        !reasons.iter().any(|reason| reason.contains("the removal")),
        "{reasons:?}"
    );
    world.histories(&[1]);
    world.pass(Duration::from_secs(2));
    assert!(images.iter().all(|&image| !world.keys.contains_key(&purge_key(image))));
}

#[test]
fn writes_move_the_time_of_modification_within_ticks() {
    let (mut world, image) = written();
    let before = world.inode(image).mtime;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.inode(image).mtime, before, "nothing was written");
    let conn = nbd(&mut world, "vm");
    let wrote = world.clock.wall;
    world.send(conn, &write(0, 4096, 1));
    assert_eq!(world.take(conn), good(0));
    world.pass(Duration::from_secs(2));
    let after = world.inode(image).mtime;
    assert!(after >= wrote && after.sec <= wrote.sec + 2, "{after:?}");
}

#[test]
fn a_lost_touch_is_written_later() {
    let (mut world, image) = written();
    let before = world.inode(image).mtime;
    let conn = nbd(&mut world, "vm");
    world.lose_txns = 1;
    world.send(conn, &write(0, 4096, 1));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.inode(image).mtime, world.lose_txns), (before, 0));
    world.pass(Duration::from_secs(2));
    assert!(world.inode(image).mtime > before);
}
