//! Changes of the tree of names: refused, lost, many at once, merged.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use trivet_api::{AdminAnswer, ErrorKind};
use trivet_core::keys::{self, OsdConfig};
use trivet_core::kv::Change;
use trivet_core::map::encode;
use trivet_core::mark::{Mark, Marks};
use trivet_namespace::Operation;

use super::clients::{Nfs, results, set_mtime, words, write_args};
use super::world::{OSD, OWN, World, create, remove, resize};

fn rival_image(path: &str) -> Operation {
    Operation::CreateImage {
        path: path.into(),
        size: 512,
    }
}

/// A world that has image numbers at hand, so that the next change is the only transaction.
fn started() -> World {
    let mut world = World::default();
    world.image("first", 512);
    (world.committed, world.refused) = (0, 0);
    world
}

#[test]
fn what_was_refused_is_planned_again_and_done_once() {
    for notices_first in [false, true] {
        let mut world = World {
            notices_first,
            hold_notices: true,
            ..started()
        };
        world.rival(&rival_image("rival"));
        let mut answer = world.call(create("own", 512));
        assert_eq!((world.refused, world.committed), (1, 0));
        assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "the mirror is behind");
        world.hold_notices = false;
        world.run();
        assert!(matches!(answer.try_recv(), Ok(Ok(AdminAnswer::Image(_)))));
        assert_eq!((world.refused, world.committed), (1, 1));
        assert_eq!(world.mirror().files().count(), 3);
    }
}

#[test]
fn what_was_refused_for_good_reason_fails() {
    let mut world = World {
        hold_notices: true,
        ..started()
    };
    world.rival(&rival_image("taken"));
    let mut answer = world.call(create("taken", 512));
    world.hold_notices = false;
    world.run();
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ErrorKind::Exists);
    assert_eq!((world.refused, world.committed), (1, 0));
}

#[test]
fn a_change_is_answered_when_the_mirror_has_it() {
    let mut world = World {
        hold_notices: true,
        ..started()
    };
    let mut answer = world.call(create("vm", 512));
    assert_eq!(world.committed, 1);
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    world.hold_notices = false;
    world.run();
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_snapshot_in_the_middle_answers_and_plans_again() {
    let mut world = World {
        hold_notices: true,
        ..started()
    };
    let mut committed = world.call(create("vm", 512));
    let mut refused = world.call(create("second", 512));
    assert_eq!((world.committed, world.refused), (1, 1));
    world.snapshot();
    assert!(committed.try_recv().unwrap().is_ok());
    assert_eq!(
        refused.try_recv(),
        Err(TryRecvError::Empty),
        "planned again, and committed behind the snapshot"
    );
    world.snapshot();
    assert!(refused.try_recv().unwrap().is_ok());
    assert_eq!(world.mirror().files().count(), 3);
}

#[test]
fn many_creates_at_once_share_reservations() {
    const IMAGES: usize = 300;
    let mut world = World::default();
    for dir in 0..10 {
        world.image(&format!("d{dir}/x"), 512);
    }
    world.hold_txns = true;
    let mut answers: Vec<_> = (0..IMAGES)
        .map(|n| world.call(create(&format!("d{}/{n}", n % 10), 512)))
        .collect();
    world.hold_txns = false;
    let next = |world: &World| {
        String::from_utf8(world.keys["config/next_image"].value.to_vec())
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = next(&world);
    world.run();
    let made = answers.iter_mut().map(|answer| match answer.try_recv() {
        Ok(Ok(AdminAnswer::Image(info))) => info.id,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        made.collect::<BTreeSet<_>>().len(),
        IMAGES,
        "every image has its own number"
    );
    assert!(next(&world) > before, "more than one reservation was needed");
    assert_eq!(world.mirror().files().count(), IMAGES + 10);
}

#[test]
fn the_first_create_reserves_numbers_once() {
    let mut world = World {
        hold_txns: true,
        ..World::default()
    };
    let mut answers: Vec<_> = (0..20).map(|n| world.call(create(&format!("vm{n}"), 512))).collect();
    assert_eq!(world.txns(), 1, "one reservation for all");
    world.hold_txns = false;
    world.run();
    assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap().is_ok()));
}

/// The xids whose results say that all is well.
fn well(stream: &[u8]) -> Vec<u32> {
    results(stream)
        .into_iter()
        .filter(|(_, result)| result[..4] == words(&[0]))
        .map(|(xid, _)| xid)
        .collect()
}

#[test]
fn growths_of_a_file_are_merged() {
    let mut world = World::default();
    let image = world.image("vm", 0);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    world.uses(OWN, image);
    (world.committed, world.hold_txns) = (0, true);
    let mut xids = Vec::new();
    for block in [3, 1, 9, 2, 5] {
        xids.push(nfs.call(&mut world, 7, &write_args(&file, block * 4096, 4096, 1)));
    }
    assert_eq!(world.txns(), 1, "one is under way, the others wait");
    assert!(
        world.take(nfs.conn).is_empty(),
        "nothing is answered before the size has followed"
    );
    world.hold_txns = false;
    let stream = world.take(nfs.conn);
    let mut answered = well(&stream);
    answered.sort_unstable();
    assert_eq!(answered, xids);
    assert_eq!((world.inode(image).size, world.committed), (10 * 4096, 2));
}

#[test]
fn a_growth_that_is_refused_still_happens() {
    let mut world = World::default();
    let image = world.image("vm", 0);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    world.uses(OWN, image);
    world.hold_txns = true;
    let mut xids: Vec<u32> = (0..3)
        .map(|block| nfs.call(&mut world, 7, &write_args(&file, block * 4096, 4096, 1)))
        .collect();
    world.rival(&Operation::Grow {
        id: image,
        size: 100,
        mtime: world.clock.wall,
        cut: None,
    });
    world.hold_txns = false;
    let mut answered = well(&world.take(nfs.conn));
    answered.sort_unstable();
    xids.sort_unstable();
    assert_eq!((answered, world.inode(image).size), (xids, 3 * 4096));
    assert_eq!(world.refused, 1);
}

#[test]
fn a_touch_among_growths_neither_fails_them_nor_gets_lost() {
    let mut world = World::default();
    let image = world.image("vm", 4096);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    world.hold_txns = true;
    let first = nfs.call(&mut world, 7, &write_args(&file, 4096, 4096, 1));
    let second = nfs.call(&mut world, 7, &write_args(&file, 8192, 4096, 1));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.txns(), 1, "the touch waits behind the growth");
    // The merged growth is refused once: that must not reach the client as an error.
    world.hold_notices = true;
    world.hold_txns = false;
    world.run();
    world.rival(&Operation::Grow {
        id: image,
        size: 0,
        mtime: world.clock.wall,
        cut: None,
    });
    world.hold_notices = false;
    let mut answered = well(&world.take(nfs.conn));
    answered.sort_unstable();
    assert_eq!((answered, world.inode(image).size), (vec![first, second], 3 * 4096));
    world.pass(Duration::from_secs(10));
    let before = world.inode(image).mtime;
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 2));
    world.pass(Duration::from_secs(2));
    assert!(world.inode(image).mtime > before, "later writes are still noted");
}

#[test]
fn an_explicit_time_stays() {
    let mut world = World::default();
    let image = world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    nfs.done(&mut world, 2, &set_mtime(&file, 77));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.inode(image).mtime.sec, 77);
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 2));
    world.pass(Duration::from_secs(2));
    assert!(world.inode(image).mtime.sec > 1_000, "a later write counts again");
}

#[test]
fn an_explicit_time_wins_over_a_touch_on_its_way() {
    let mut world = World::default();
    let image = world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    world.hold_txns = true;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.txns(), 1, "the touch is on its way");
    nfs.call(&mut world, 2, &set_mtime(&file, 77));
    world.hold_txns = false;
    world.run();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.inode(image).mtime.sec, 77);
}

/// Others go by the time of modification whether what they have read still holds.
#[test]
fn a_time_that_is_not_set_leaves_that_of_the_last_write() {
    let mut world = World::default();
    let image = world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    world.pass(Duration::from_secs(2));
    let (before, set) = (world.inode(image).mtime, set_mtime(&file, 77));
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    // Guarded by another ctime than the file has.
    let guarded = [&set[..set.len() - 4], &words(&[1, 5, 5])].concat();
    nfs.call(&mut world, 2, &guarded);
    assert_eq!(results(&world.take(nfs.conn))[0].1[..4], words(&[10_002]));
    world.pass(Duration::from_secs(2));
    let after = world.inode(image).mtime;
    assert!(after > before && after.sec != 77);
}

/// Ticks come between the mirror's news of the change and the gateway's knowing that it was its own.
#[test]
fn an_explicit_time_stays_that_was_set_without_an_answer() {
    for executed in [false, true] {
        let mut world = World::default();
        let image = world.image("vm", 8192);
        let mut nfs = Nfs::mount(&mut world);
        let file = nfs.lookup(&mut world, "vm");
        nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
        (world.lose_txns, world.lose_outcomes) = (usize::from(!executed), usize::from(executed));
        nfs.call(&mut world, 2, &set_mtime(&file, 77));
        world.pass(Duration::from_secs(5));
        assert_eq!(results(&world.take(nfs.conn))[0].1[..4], words(&[0]));
        assert_eq!(world.inode(image).mtime.sec, 77, "executed {executed}");
    }
}

#[test]
fn a_touch_of_what_was_removed_is_forgotten() {
    let mut world = World::default();
    world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    assert_eq!(world.gateway.background.touched.len(), 1);
    world.ask(remove("vm")).unwrap();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.gateway.background.touched.len(), 0);
}

#[test]
fn times_of_many_files_travel_together() {
    let mut world = World::default();
    let images: Vec<_> = (0..100).map(|n| world.image(&format!("vm{n}"), 4096)).collect();
    let mut nfs = Nfs::mount(&mut world);
    world.pass(Duration::from_secs(2));
    let before: Vec<_> = images.iter().map(|&image| world.inode(image).mtime).collect();
    let files: Vec<_> = (0..100).map(|n| nfs.lookup(&mut world, &format!("vm{n}"))).collect();
    for file in &files {
        nfs.done(&mut world, 7, &write_args(file, 0, 4096, 1));
    }
    (world.committed, world.refused) = (0, 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.committed, 1);
    // Another gateway changes one of them all the time; the others are none the worse.
    let busy = images[99];
    for _ in 0..20 {
        world.hold_txns = true;
        world.pass(Duration::from_secs(1));
        world.hold_txns = false;
        let mtime = world.clock.wall;
        world.rival(&Operation::Grow {
            id: busy,
            size: 0,
            mtime,
            cut: None,
        });
        world.run();
    }
    let moved = images
        .iter()
        .zip(&before)
        .filter(|(image, before)| world.inode(**image).mtime > **before);
    assert_eq!(moved.count(), 100);
}

#[test]
fn a_resize_to_the_same_size_is_answered_without_a_transaction() {
    let mut world = started();
    world.ask(resize("first", 512)).unwrap();
    assert_eq!(world.committed, 0);
}

/// A backup may have been put back, of which nobody knows yet, and which has given numbers that it does not know of.
#[test]
fn numbers_come_from_a_store_that_an_osd_knows() {
    let mut world = World::default();
    let mark = Mark { count: 3, draw: 7 };
    world.mark_of_osd = Some(mark);
    world.commit(&[Change::put(keys::osd_config(OSD), encode(&OsdConfig::default()))]);
    world.run();
    let mut answer = world.call(create("vm", 512));
    for known in [false, true] {
        if known {
            world.commit(&[Change::put(keys::MARK, encode(&Marks::first(mark)))]);
        }
        world.pass(Duration::from_secs(2));
        world.hear_clock();
        world.pass(Duration::from_secs(2));
        let answered = answer.try_recv();
        assert_eq!(answered.is_ok(), known, "{answered:?}");
    }
}
