//! Requests that came while the gateway was stopped wait until their client was heard of, or go with it.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::keys::gateway_state;
use trivet_core::kv::Change;
use trivet_core::message::STAMP_LIFE;

use super::clients::{Nfs, good, nbd, opaque, words, write};
use super::world::{OWN, World};
use crate::gateway::ConnKey;
use crate::metrics::Protocol;
use crate::session::Ending;

const STOP: Duration = Duration::from_secs(12);
const MILLI: Duration = Duration::from_millis(1);
/// A sign of a client that came later than this proves that it was there meanwhile.
const ROUND: Duration = Duration::from_millis(500);

/// A world with an image and a client that has it open, which sent a write of `fill` while the gateway was stopped.
fn asked_meanwhile(fill: u8) -> (World, ConnKey) {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    let last = world.stop(STOP);
    world.send_after(conn, &write(0, 4096, fill), last);
    world.run();
    (world, conn)
}

fn later(world: &World, time: Duration) -> Option<Now> {
    Some(world.clock.now + time)
}

#[test]
fn a_client_that_waited_is_served_when_it_was_heard_of() {
    let (mut world, conn) = asked_meanwhile(1);
    assert!(world.listening.contains(&conn) && world.waiting_ops() == 0);
    assert!(world.take(conn).is_empty() && world.closed.is_empty());
    // Answers to what was asked before the last byte came.
    for heard in [None, later(&world, Duration::ZERO), later(&world, ROUND)] {
        assert!(world.hear_of(conn, heard));
        assert!(world.take(conn).is_empty());
    }
    let heard = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(1));
    assert!(!world.hear_of(conn, heard));
    assert_eq!(world.take(conn), good(0));
    // From now on everything is as ever.
    world.send(conn, &write(4096, 4096, 2));
    assert_eq!(world.take(conn), good(4096));
}

#[test]
fn what_comes_behind_it_waits_too_and_has_to_be_heard_of() {
    let (mut world, conn) = asked_meanwhile(1);
    let first = later(&world, ROUND + MILLI);
    world.pass(ROUND);
    world.send(conn, &write(4096, 4096, 2));
    let second = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(2));
    assert!(world.hear_of(conn, first), "that is older than the second write");
    assert!(world.take(conn).is_empty());
    assert!(!world.hear_of(conn, second));
    assert_eq!(world.take(conn), [good(0), good(4096)].concat());
}

#[test]
fn nothing_is_made_of_it_if_an_end_shows_up() {
    let (mut world, conn) = asked_meanwhile(1);
    let image = world.mirror().resolve(b"vm").unwrap();
    world.pass(Duration::from_secs(1));
    world.leave(conn);
    let heard = later(&world, Duration::ZERO);
    assert!(!world.hear_of(conn, heard));
    world.pass(Duration::from_secs(5));
    assert_eq!((world.objects(image), world.gateway.sessions()), (0, 0));
}

#[test]
fn a_client_of_which_nothing_is_heard_is_given_up() {
    let (mut world, conn) = asked_meanwhile(1);
    world.pass(Duration::from_secs(9));
    assert!(world.hear_of(conn, None) && world.closed.is_empty());
    world.pass(Duration::from_secs(2));
    let [(closed, Ending::Fault(why))] = &world.closed[..] else {
        panic!("{:?}", world.closed);
    };
    assert!(*closed == conn && why.contains("nothing was heard"), "{why}");
    let image = world.mirror().resolve(b"vm").unwrap();
    assert_eq!(world.objects(image), 0);
}

#[test]
fn names_and_opens_wait_as_well() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let (nfs, target) = (Nfs::mount(&mut world), world.connect(Protocol::Iscsi));
    let mut nfs = nfs;
    let last = world.stop(STOP);
    let create = [opaque(&nfs.root), opaque(b"new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    nfs.call_after(&mut world, 8, &create, last);
    world.send_after(target, &super::freshness::login("vm"), last);
    world.run();
    let exists = |world: &World| world.mirror().resolve(b"new").is_ok();
    assert!(!exists(&world) && world.take(target).is_empty());
    let heard = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(1));
    for conn in [nfs.conn, target] {
        assert!(!world.hear_of(conn, heard));
    }
    assert!(exists(&world));
    assert_eq!(world.take(target)[36..38], [0, 0], "logged in");
}

#[test]
fn requests_that_came_before_a_stop_wait_with_those_behind_them() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    let (first, second) = (write(0, 4096, 1), write(4096, 4096, 2));
    world.send(conn, &first[..100]);
    let last = world.stop(STOP);
    world.send_after(conn, &[&first[100..], &second].concat(), last);
    world.run();
    assert_eq!(world.waiting_ops(), 0);
    let heard = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(1));
    world.hear_of(conn, heard);
    assert_eq!(world.take(conn), [good(0), good(4096)].concat());
}

#[test]
fn a_stop_shorter_than_stamps_live_is_none() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    let last = world.stop(STAMP_LIFE);
    world.send_after(conn, &write(0, 4096, 1), last);
    assert_eq!(world.take(conn), good(0));
}

#[test]
fn sessions_do_not_miss_what_is_held_back() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = world.connect(Protocol::Iscsi);
    world.send(conn, &super::freshness::login("vm"));
    world.take(conn);
    // It is pinged, and answers while the gateway is stopped for longer than an answer may take.
    world.pass(Duration::from_secs(16));
    let ping = world.take(conn);
    assert_eq!(ping[0], 0x20, "a NOP-In");
    let last = world.stop(STOP);
    let mut answer = [&[0x40, 0x80][..], &[0; 46]].concat();
    answer[16..20].fill(0xff);
    answer[20..24].copy_from_slice(&ping[20..24]);
    world.send_after(conn, &answer, last);
    let heard = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(2));
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    world.hear_of(conn, heard);
    world.pass(Duration::from_secs(2));
    assert!(world.closed.is_empty(), "{:?}", world.closed);
}

#[test]
fn an_osd_tells_a_machine_that_it_stood_still() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.show_osd();
    let conn = nbd(&mut world, "vm");
    world.pass(Duration::from_secs(1));
    world.hear_clock();
    world.send(conn, &write(0, 4096, 1));
    assert_eq!(world.take(conn), good(0));
    world.stood += 12_000_000_000;
    world.hear_clock();
    // Late, perhaps; nor is anything opened until the metadata store has answered.
    world.send(conn, &write(4096, 4096, 2));
    let target = world.connect(Protocol::Iscsi);
    world.send(target, &super::freshness::login("vm"));
    world.run();
    assert_eq!(world.waiting_ops(), 0);
    let heard = later(&world, ROUND + MILLI);
    for conn in [conn, target] {
        world.hear_of(conn, heard);
    }
    assert_eq!(world.take(conn), good(4096));
    assert!(world.take(target).is_empty(), "the mirror may be 12 s old");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take(target)[36..38], [0, 0], "logged in");
}

/// A client asks for a file with the name `new`.
fn create_new(world: &mut World, nfs: &mut Nfs) {
    let create = [opaque(&nfs.root), opaque(b"new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    nfs.call(world, 8, &create);
}

fn exists(world: &World) -> bool {
    world.mirror().resolve(b"new").is_ok()
}

/// Its clock stood still, and no OSD has said so yet.
#[test]
fn names_wait_when_its_own_lease_has_ended() {
    let mut world = World::default();
    let mut nfs = Nfs::mount(&mut world);
    world.commit(&[Change::Delete(gateway_state(OWN))]);
    create_new(&mut world, &mut nfs);
    world.show(OWN);
    world.run();
    assert!(!exists(&world));
    let heard = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(1));
    assert!(!world.hear_of(nfs.conn, heard));
    world.pass(Duration::from_secs(1));
    assert!(exists(&world));
}

/// The gateway's clock stood still for so many nanoseconds while its lease lived on, and then a client asks for a change of
/// names, which waits.
fn asked_for_names(stood: u64) -> (World, Nfs) {
    let mut world = World::default();
    world.show_osd();
    let mut nfs = Nfs::mount(&mut world);
    world.pass(Duration::from_secs(1));
    world.hear_clock();
    world.stood += stood;
    create_new(&mut world, &mut nfs);
    assert!(!exists(&world));
    (world, nfs)
}

#[test]
fn names_wait_until_an_osd_has_told_that_the_clock_went_on() {
    let (mut world, _) = asked_for_names(0);
    world.hear_clock();
    assert!(exists(&world));
    let (mut world, nfs) = asked_for_names(12_000_000_000);
    world.hear_clock();
    world.pass(Duration::from_secs(2));
    world.hear_clock();
    assert!(!exists(&world), "the client may be gone");
    let heard = later(&world, Duration::ZERO);
    world.hear_of(nfs.conn, heard);
    world.pass(Duration::from_secs(2));
    assert!(exists(&world));
}

#[test]
fn names_change_though_all_osds_are_silent() {
    let (mut world, _) = asked_for_names(0);
    world.pass(Duration::from_secs(2));
    assert!(exists(&world));
}

#[test]
fn who_connects_just_afterwards_has_to_be_heard_of() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.stop(STOP);
    let target = world.connect(Protocol::Iscsi);
    world.send(target, &super::freshness::login("vm"));
    assert!(world.take(target).is_empty());
    let heard = later(&world, ROUND + MILLI);
    world.pass(Duration::from_secs(1));
    world.hear_of(target, heard);
    assert_eq!(world.take(target)[36..38], [0, 0], "logged in");
}
