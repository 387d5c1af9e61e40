//! Sessions: clients that leave early, more work than is good, input that is left over.

use std::time::Duration;

use trivet_core::OBJECT_SIZE;
use trivet_namespace::Operation;

use super::clients::{
    DISC, Nfs, READ, REPLY_LEN, good, nbd, opaque, request, results, set_size, words, write, write_args,
};
use super::world::World;
use crate::session::Ending;

#[test]
fn nothing_of_a_client_that_left_is_sent_again() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let (stays, leaves) = (nbd(&mut world, "vm"), nbd(&mut world, "vm"));
    world.send(leaves, &write(0, 4096, 1));
    world.run();
    world.take(leaves);
    world.hold_osd = true;
    world.send(leaves, &[write(0, 4096, 1), write(4096, 4096, 2)].concat());
    world.send(stays, &write(8192, 4096, 3));
    world.run();
    assert_eq!(world.waiting_ops(), 3);
    world.leave(leaves);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.waiting_ops(), 4, "the write of the client that is there");
    assert_eq!(world.gateway.sessions(), 1);
    world.hold_osd = false;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.take(stays).len(), REPLY_LEN);
    assert!(
        world.sent.is_empty() && world.closed.is_empty(),
        "nobody is there to be told"
    );
}

#[test]
fn the_last_write_of_a_client_that_left_is_noted() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    world.send(conn, &write(0, 4096, 1));
    world.run();
    // Within a second of the first write the session only remembers that it is to be noted.
    world.pass(Duration::from_millis(250));
    let wrote = world.clock.wall;
    world.send(conn, &write(0, 4096, 2));
    world.run();
    world.leave(conn);
    world.pass(Duration::from_secs(4));
    assert!(world.inode(image).mtime >= wrote);
}

#[test]
fn an_idle_client_that_left_is_forgotten() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    world.leave(conn);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.gateway.sessions(), 0);
}

#[test]
fn a_call_under_way_is_not_done_twice_over_a_new_connection() {
    let mut world = World::default();
    let mut first = Nfs::mount(&mut world);
    world.hold_txns = true;
    // A guarded create: done twice, it would fail with NFS3ERR_EXIST.
    let arguments = [opaque(&first.root), opaque(b"new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    let xid = first.call(&mut world, 8, &arguments);
    world.leave(first.conn);
    let second = Nfs::mount(&mut world);
    second.repeat(&mut world, xid, 8, &arguments);
    world.hold_txns = false;
    world.run();
    world.pass(Duration::from_secs(1));
    let replies = results(&world.take(second.conn));
    assert_eq!((replies.len(), replies[0].0), (1, xid));
    assert_eq!(replies[0].1[..4], words(&[0]), "the answer to the first");
    assert_eq!((world.mirror().files().count(), world.gateway.sessions()), (1, 1));
}

#[test]
fn a_write_that_waits_goes_with_its_client() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    world.rival(&Operation::Resize { id: image, size: 4096 });
    world.run();
    nfs.call(&mut world, 7, &write_args(&file, 8192, 4096, 1));
    world.leave(nfs.conn);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.gateway.sessions(), 0);
    world.rival_dies();
    world.pass(Duration::from_secs(5));
    assert_eq!((world.inode(image).size, world.inode(image).trimming), (4096, None));
}

#[test]
fn a_truncation_by_nfs_is_answered_when_the_data_is_gone() {
    let mut world = World::default();
    let image = world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 8192, 9));
    world.hold_osd = true;
    nfs.call(&mut world, 2, &set_size(&file, 10));
    assert!(world.take(nfs.conn).is_empty());
    world.hold_osd = false;
    assert_eq!(results(&world.take(nfs.conn))[0].1[..4], words(&[0]));
    assert_eq!(
        (world.byte(image, 9), world.byte(image, 10), world.inode(image).size),
        (9, 0, 10)
    );
}

#[test]
fn reading_pauses_while_too_much_is_under_way() {
    const LARGE: u32 = 32 << 20;
    let mut world = World::default();
    world.image("vm", 64 << 20);
    let conn = nbd(&mut world, "vm");
    world.pauses.clear();
    world.hold_osd = true;
    world.send(conn, &request(READ, 0, LARGE, b""));
    world.run();
    assert!(world.pauses.is_empty());
    world.send(conn, &request(READ, u64::from(LARGE), LARGE, b""));
    world.run();
    assert_eq!(world.pauses, [true]);
    world.hold_osd = false;
    world.run();
    assert_eq!(world.pauses, [true, false]);
    assert_eq!(world.take(conn).len(), 2 * (REPLY_LEN + LARGE as usize));
}

#[test]
fn input_that_was_left_over_is_asked_for_again() {
    const REQUESTS: u32 = 600;
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    world.hold_osd = true;
    let all: Vec<u8> = (0..REQUESTS)
        .flat_map(|n| request(READ, u64::from(n) * 512, 512, b""))
        .collect();
    world.send(conn, &all);
    world.run();
    let room = world.ops();
    assert!(room < REQUESTS as usize && world.again == 0, "{room}");
    world.run_ops(1);
    assert_eq!((world.ops(), world.again), (room, 1), "one went, one came");
    world.hold_osd = false;
    assert_eq!(world.take(conn).len(), REQUESTS as usize * (REPLY_LEN + 512));
}

#[test]
fn an_operation_that_spans_objects_is_one() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    let offset = OBJECT_SIZE as u64 - 512;
    world.send(conn, &write(offset, 1024, 7));
    assert_eq!(world.take(conn), good(offset));
    assert_eq!((world.byte(image, offset), world.byte(image, offset + 1023)), (7, 7));
    world.send(conn, &request(READ, offset, 1024, b""));
    assert_eq!(world.take(conn), [good(offset), vec![7; 1024]].concat());
}

#[test]
fn a_goodbye_closes_and_a_fault_says_why() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let (polite, faulty) = (nbd(&mut world, "vm"), nbd(&mut world, "vm"));
    world.send(polite, &request(DISC, 0, 0, b""));
    world.send(faulty, &[0; 28]);
    world.run();
    assert_eq!(world.closed[0], (polite, Ending::Graceful));
    assert!(matches!(&world.closed[1], (conn, Ending::Fault(_)) if *conn == faulty));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.gateway.sessions(), 0);
}
