//! Uses of images: keys before changes, grace before data goes, times of what gateways that died have written.

use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use trivet_core::keys::{self, gateway_state};
use trivet_core::kv::Change;
use trivet_core::{ClientId, ImageId, OBJECT_SIZE};
use trivet_namespace::{Operation, Use};

use super::clients::{Nfs, good, nbd, results, words, write, write_args};
use super::freshness::opening;
use super::world::{OWN, RIVAL, World, remove, resize};

const OBJECT: u64 = OBJECT_SIZE as u64;

fn usage(world: &World, image: ImageId, client: ClientId) -> Option<Use> {
    world.mirror().use_of(image, client)
}

fn rival_truncates(world: &mut World, image: ImageId, size: u64) {
    world.rival(&Operation::Resize { id: image, size });
    world.run();
}

/// The rival has removed what its truncation cut off.
fn rival_has_trimmed(world: &mut World, image: ImageId) {
    let trimming = world.inode(image).trimming.unwrap();
    for (object, bytes) in &mut world.objects {
        let begin = object.number * OBJECT;
        for (at, byte) in (begin..).zip(bytes).filter(|_| object.image == image) {
            if (trimming.from..trimming.to).contains(&at) {
                *byte = 0;
            }
        }
    }
    world.rival(&Operation::TrimDone { id: image, trimming });
    world.run();
}

/// The statuses of all replies, in order of their xids.
fn statuses(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut all = results(stream);
    all.sort_by_key(|(xid, _)| *xid);
    all.into_iter().map(|(_, result)| result[..4].to_vec()).collect()
}

#[test]
fn an_open_waits_for_the_key() {
    for lost in [0, 2] {
        let mut world = World::default();
        let image = world.image("vm", OBJECT);
        (world.hold_txns, world.lose_outcomes) = (true, lost);
        let conn = opening(&mut world, "vm");
        world.send(conn, &write(0, 4096, 1));
        assert!(world.take(conn).is_empty());
        assert_eq!((world.ops(), world.txns(), world.objects(image)), (0, 1, 0));
        world.hold_txns = false;
        world.pass(Duration::from_secs(1));
        assert!(world.take(conn).ends_with(&good(0)));
        let taken = usage(&world, image, OWN).expect("it is used");
        world.send(conn, &write(4096, 4096, 1));
        assert_eq!(world.take(conn), good(4096));
        assert_eq!(usage(&world, image, OWN), Some(taken), "once is enough");
        world.pass(Duration::from_secs(15));
        assert!(usage(&world, image, OWN).is_some(), "it is open");
        world.leave(conn);
        world.pass(Duration::from_secs(9));
        assert!(usage(&world, image, OWN).is_some());
        world.lose_txns = lost;
        world.pass(Duration::from_secs(5));
        assert_eq!(usage(&world, image, OWN), None, "it was left alone");
        let conn = nbd(&mut world, "vm");
        world.send(conn, &write(0, 4096, 2));
        assert_eq!(world.take(conn), good(0));
        assert!(usage(&world, image, OWN).is_some());
    }
}

#[test]
fn a_key_is_taken_on_the_inode_as_it_is() {
    let mut world = World::default();
    let image = world.image("vm", 2 * OBJECT);
    world.hold_notices = true;
    rival_truncates(&mut world, image, OBJECT);
    let conn = opening(&mut world, "vm");
    world.send(conn, &write(OBJECT, 4096, 1));
    assert_eq!((world.ops(), usage(&world, image, OWN)), (0, None));
    world.hold_notices = false;
    let sent = world.take(conn);
    let reply = &sent[sent.len() - good(0).len()..];
    assert_eq!(reply[4..8], words(&[28]), "ENOSPC: the image has become smaller");
    assert_eq!(world.objects(image), 0);
}

#[test]
fn data_goes_when_all_users_have_agreed() {
    let mut world = World::default();
    let image = world.image("vm", 2 * OBJECT);
    world.uses(RIVAL, image);
    let mut answer = world.call(resize("vm", OBJECT));
    world.pass(Duration::from_secs(20));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "the rival may be writing");
    assert!(world.inode(image).trimming.is_some());
    world.uses(RIVAL, image);
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(world.inode(image).trimming, None);
    // What it agreed to once says nothing about the next one.
    world.ask(resize("vm", 2 * OBJECT)).unwrap();
    let mut answer = world.call(resize("vm", OBJECT));
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn own_changes_under_way_end_before_data_goes() {
    let mut world = World::default();
    let image = world.image("vm", 2 * OBJECT);
    let conn = nbd(&mut world, "vm");
    world.hold_osd = true;
    world.send(conn, &write(OBJECT, 4096, 1));
    world.run();
    let mut answer = world.call(resize("vm", OBJECT));
    assert_eq!((world.ops(), world.inode(image).size), (1, OBJECT));
    world.run_ops(1);
    assert_eq!(world.take(conn), good(OBJECT));
    world.hold_osd = false;
    world.run();
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(world.byte(image, OBJECT), 0);
    world.send(conn, &write(OBJECT, 4096, 1));
    assert_eq!(world.take(conn)[4..8], words(&[28]));
    assert_eq!(world.byte(image, OBJECT), 0);
}

/// A third gateway has taken its key, and died before every PG knew and its uses were ended.
#[test]
fn a_fence_that_was_left_half_done_is_ended() {
    for removed in [false, true] {
        let mut world = World::default();
        let image = world.image("vm", 2 * OBJECT);
        world.uses(RIVAL, image);
        if removed {
            world.ask(remove("vm")).unwrap();
        }
        world.commit(&[Change::Delete(keys::client(RIVAL))]);
        world.rival_dies();
        world.pass(Duration::from_secs(2));
        assert_eq!(usage(&world, image, RIVAL), None, "removed: {removed}");
        let purges = world.keys.keys().filter(|key| key.starts_with("vfs/purge/"));
        assert_eq!(purges.count(), 0);
    }
}

/// Who was fenced is registered again in an older store, and may write again.
#[test]
fn no_fence_outlives_the_store_that_it_was_made_in() {
    let mut world = World::default();
    let image = world.image("vm", 2 * OBJECT);
    world.uses(RIVAL, image);
    let before = world.keys.clone();
    world.rival_dies();
    let mut answer = world.call(resize("vm", OBJECT));
    world.pass(Duration::from_secs(2));
    assert!(answer.try_recv().unwrap().is_ok(), "it was fenced");
    world.put_back(before);
    let mut answer = world.call(resize("vm", OBJECT));
    world.pass(Duration::from_secs(20));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "the rival may be writing");
    world.rival_dies();
    world.pass(Duration::from_secs(2));
    assert!(answer.try_recv().unwrap().is_ok());
}

/// Other gateways do not know of the key that was taken since.
#[test]
fn a_key_is_taken_again_in_an_older_store() {
    let mut world = World::default();
    let image = world.image("vm", OBJECT);
    let before = world.keys.clone();
    (0..9).for_each(|_| world.commit(&[]));
    let conn = nbd(&mut world, "vm");
    world.send(conn, &write(0, 4096, 1));
    assert_eq!(world.take(conn), good(0));
    world.hold_txns = true;
    world.put_back(before);
    assert_eq!(usage(&world, image, OWN), None);
    world.send(conn, &write(4096, 4096, 1));
    assert!(world.take(conn).is_empty());
    world.hold_txns = false;
    world.run();
    assert_eq!(world.take(conn), good(4096));
    assert!(usage(&world, image, OWN).is_some());
}

#[test]
fn users_that_died_hold_nothing_up_and_their_files_times_move() {
    let mut world = World::default();
    let image = world.image("vm", 2 * OBJECT);
    world.uses(RIVAL, image);
    world.pass(Duration::from_secs(5));
    let before = world.inode(image);
    let mut answer = world.call(resize("vm", OBJECT));
    world.rival_dies();
    world.pass(Duration::from_secs(2));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(usage(&world, image, RIVAL), None);
    assert!(world.inode(image).mtime > before.mtime);

    let third = ClientId(9);
    world.show(third);
    world.uses(third, image);
    let before = world.inode(image);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.inode(image).mtime, before.mtime, "it is there");
    world.commit(&[Change::Delete(gateway_state(third))]);
    world.pass(Duration::from_secs(2));
    let after = world.inode(image);
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
}

#[test]
fn a_write_that_meets_a_truncation_comes_first() {
    let mut world = World::default();
    let image = world.image("f", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "f");
    nfs.done(&mut world, 7, &write_args(&file, 0, 8192, 0xaa));
    world.hold_osd = true;
    nfs.call(&mut world, 7, &write_args(&file, 0, 4096, 0xbb));
    rival_truncates(&mut world, image, 0);
    let cut = world.inode(image).cut;
    assert_ne!(usage(&world, image, OWN).unwrap().agreed, cut, "it is still under way");
    // One that comes later waits for the end of the truncation.
    nfs.call(&mut world, 7, &write_args(&file, 4096, 4096, 0xcc));
    world.run_ops(1);
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[0])]);
    assert_eq!(usage(&world, image, OWN).unwrap().agreed, cut);
    assert_eq!(world.inode(image).size, 0);
    world.hold_osd = false;
    rival_has_trimmed(&mut world, image);
    world.pass(Duration::from_secs(2));
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[0])]);
    assert_eq!(world.inode(image).size, 8192);
    assert_eq!((world.byte(image, 0), world.byte(image, 4096)), (0, 0xcc));
}

/// A file of 4,096 bytes that a client of this gateway knows, by its handle.
fn short_file() -> (World, ImageId, Nfs, Vec<u8>) {
    let mut world = World::default();
    let image = world.image("f", 4096);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "f");
    (world, image, nfs, file)
}

/// It was asked for before the truncation, and its bytes were begun behind it.
#[test]
fn a_write_whose_key_meets_a_truncation_lets_the_file_grow() {
    let (mut world, image, mut nfs, file) = short_file();
    world.hold_txns = true;
    nfs.call(&mut world, 7, &write_args(&file, 4096, 4096, 0xbb));
    world.hold_notices = true;
    rival_truncates(&mut world, image, 0);
    world.hold_txns = false;
    world.hold_notices = false;
    world.run();
    rival_has_trimmed(&mut world, image);
    world.pass(Duration::from_secs(2));
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[0])]);
    assert_eq!(world.inode(image).size, 8192);
    assert_eq!((world.byte(image, 0), world.byte(image, 8191)), (0, 0xbb));
}

#[test]
fn a_write_beyond_the_end_that_meets_a_truncation_goes_with_it() {
    let (mut world, image, mut nfs, file) = short_file();
    world.hold_osd = true;
    nfs.call(&mut world, 7, &write_args(&file, 0, 8192, 0xbb));
    rival_truncates(&mut world, image, 0);
    world.run_ops(1);
    assert_eq!(usage(&world, image, OWN).unwrap().agreed, world.inode(image).cut);
    assert_eq!(world.inode(image).trimming.unwrap().to, 8192, "all of it goes");
    world.hold_osd = false;
    rival_has_trimmed(&mut world, image);
    world.pass(Duration::from_secs(2));
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[0])], "it came first");
    assert_eq!(world.inode(image).size, 0);
    assert_eq!((world.byte(image, 0), world.byte(image, 8191)), (0, 0));
}

#[test]
fn a_truncation_takes_what_its_own_gateway_has_written_beyond_the_end() {
    let (mut world, image, mut nfs, file) = short_file();
    world.hold_osd = true;
    nfs.call(&mut world, 7, &write_args(&file, 0, 8192, 0xbb));
    let mut answer = world.call(resize("f", 0));
    world.run_ops(1);
    assert_eq!(world.inode(image).trimming.unwrap().to, 8192);
    world.hold_osd = false;
    world.pass(Duration::from_secs(2));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[0])]);
    assert_eq!((world.inode(image).size, world.inode(image).trimming), (0, None));
    assert_eq!((world.byte(image, 0), world.byte(image, 8191)), (0, 0));
}

#[test]
fn a_write_whose_growth_meets_a_truncation_goes_with_it() {
    let (mut world, image, mut nfs, file) = short_file();
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 0xaa));
    world.hold_txns = true;
    nfs.call(&mut world, 7, &write_args(&file, 0, 8192, 0xbb));
    assert_eq!((world.ops(), world.txns()), (0, 1), "the size has to follow");
    world.hold_notices = true;
    rival_truncates(&mut world, image, 0);
    world.hold_txns = false;
    world.run();
    assert_ne!(usage(&world, image, OWN).unwrap().agreed, world.inode(image).cut);
    world.hold_notices = false;
    world.run();
    assert_eq!(usage(&world, image, OWN).unwrap().agreed, world.inode(image).cut);
    assert_eq!(world.inode(image).trimming.unwrap().to, 8192);
    rival_has_trimmed(&mut world, image);
    world.pass(Duration::from_secs(2));
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[0])]);
    assert_eq!(world.inode(image).size, 0);
    assert_eq!((world.byte(image, 0), world.byte(image, 8191)), (0, 0));
}

#[test]
fn a_removed_images_data_goes_when_nobody_uses_it() {
    let mut world = World::default();
    let image = world.image("vm", OBJECT);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    let conn = nbd(&mut world, "vm");
    world.uses(RIVAL, image);
    world.hold_osd = true;
    world.send(conn, &write(0, 4096, 1));
    world.run();
    world.ask(remove("vm")).unwrap();
    world.run_ops(1);
    assert_eq!(world.take(conn), good(0), "it came first");
    assert_eq!(usage(&world, image, OWN), None, "nothing more will come");
    world.hold_osd = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.objects(image), 1, "the rival may be writing");
    nfs.call(&mut world, 7, &write_args(&file, 0, 4096, 1));
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[70])], "STALE");
    let key = format!("vfs/use/{image}/{:016x}", RIVAL.0);
    world.commit(&[Change::Delete(key)]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.objects(image), 0);
    assert!(!world.keys.contains_key(&format!("vfs/purge/{image}")));
}

#[test]
fn a_write_that_waits_for_its_key_when_the_image_goes_is_not_done() {
    let mut world = World::default();
    let image = world.image("vm", OBJECT);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    world.hold_txns = true;
    nfs.call(&mut world, 7, &write_args(&file, 0, 4096, 1));
    world.hold_notices = true;
    world.rival(&Operation::RemoveImage { path: b"vm".to_vec() });
    world.hold_txns = false;
    world.hold_notices = false;
    world.run();
    assert_eq!(statuses(&world.take(nfs.conn)), [words(&[70])], "STALE");
    assert_eq!((world.objects(image), usage(&world, image, OWN)), (0, None));
}

/// A file of this size that a rival cuts off, and a write of bytes 0xbb that waits for the end of that: where, and how long.
fn put_off(size: u64, cut: u64, (offset, len): (u32, usize)) -> (World, ImageId, Nfs, Vec<u8>) {
    let mut world = World::default();
    let image = world.image("f", size);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "f");
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 0xaa));
    rival_truncates(&mut world, image, cut);
    nfs.call(&mut world, 7, &write_args(&file, offset, len, 0xbb));
    assert!(
        world.take(nfs.conn).is_empty(),
        "it waits for the end of the truncation"
    );
    (world, image, nfs, file)
}

/// A client that turned to another connection, without an end that shows, has what it asks for there done last.
#[test]
fn what_a_truncation_put_off_is_done_before_what_comes_later() {
    let (mut world, image, nfs, file) = put_off(8192, 0, (4096, 4096));
    rival_has_trimmed(&mut world, image);
    let mut later = Nfs::mount(&mut world);
    later.done(&mut world, 7, &write_args(&file, 4096, 4096, 0xcc));
    world.pass(Duration::from_secs(2));
    assert_eq!(statuses(&world.take(nfs.conn)).len(), 1, "both were answered");
    assert_eq!(world.byte(image, 4096), 0xcc);
}

/// The later one ends before what is cut off, and would not have to wait by itself.
#[test]
fn what_has_bytes_in_common_with_a_write_that_was_put_off_waits_behind_it() {
    let (mut world, image, nfs, file) = put_off(12_288, 8192, (4096, 8192));
    let mut later = Nfs::mount(&mut world);
    later.call(&mut world, 7, &write_args(&file, 4096, 4096, 0xcc));
    assert!(world.take(later.conn).is_empty(), "it waits behind the other one");
    later.done(&mut world, 7, &write_args(&file, 0, 4096, 0xdd));
    rival_has_trimmed(&mut world, image);
    world.run();
    let answers = [nfs.conn, later.conn].map(|conn| statuses(&world.take(conn)).len());
    assert_eq!(answers, [1, 1]);
    let bytes = [0, 4096, 8192].map(|offset| world.byte(image, offset));
    assert_eq!(bytes, [0xdd, 0xcc, 0xbb]);
}

#[test]
fn what_was_put_off_is_not_begun_for_a_client_that_left() {
    let (mut world, image, nfs, _) = put_off(8192, 0, (4096, 4096));
    let before = world.ops();
    world.leave(nfs.conn);
    rival_has_trimmed(&mut world, image);
    world.pass(Duration::from_secs(2));
    assert_eq!((world.ops(), world.byte(image, 4096)), (before, 0));
    assert_eq!(world.inode(image).size, 0);
    // Nothing is left of it that a truncation would wait for.
    rival_truncates(&mut world, image, 8192);
    rival_truncates(&mut world, image, 0);
    world.pass(Duration::from_secs(2));
    assert_eq!(usage(&world, image, OWN).unwrap().agreed, world.inode(image).cut);
}
