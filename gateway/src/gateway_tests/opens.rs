//! Whoever has an image open needs the metadata store no more.

use std::time::Duration;

use trivet_namespace::Use;

use super::clients::{Nfs, good, nbd, write, write_args};
use super::freshness::{login, opening};
use super::world::{OWN, World};
use crate::fresh::HOLD;
use crate::gateway::ConnKey;
use crate::metrics::Protocol;
use crate::session::Ending;

/// The end of the answer to a GO: it is over.
const ACK: [u8; 12] = [0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0];

fn usage(world: &World, path: &str) -> Option<Use> {
    let tree = world.mirror();
    tree.use_of(tree.resolve(path.as_bytes()).unwrap(), OWN)
}

/// The store takes nothing any more, and nothing is heard of it.
fn cut_off(world: &mut World) {
    (world.hold_txns, world.hold_notices, world.deaf) = (true, true, true);
}

#[test]
fn an_open_that_was_answered_needs_the_store_no_more() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    world.hold_txns = true;
    let conn = opening(&mut world, "vm");
    assert!(world.take(conn).is_empty(), "the answer would promise too much");
    world.hold_txns = false;
    assert!(world.take(conn).ends_with(&ACK));
    cut_off(&mut world);
    for second in [0, 2, 30, 300] {
        world.pass(Duration::from_secs(second));
        world.send(conn, &write(second * 512, 512, 7));
        assert_eq!(world.take(conn), good(second * 512), "after {second} s");
        assert_eq!(world.byte(image, second * 512), 7);
    }
}

#[test]
fn initiators_are_logged_in_when_the_key_is_there() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.hold_txns = true;
    let conn = world.connect(Protocol::Iscsi);
    world.send(conn, &login("vm"));
    assert!(world.take(conn).is_empty() && usage(&world, "vm").is_none());
    world.hold_txns = false;
    assert_eq!(world.take(conn)[36..38], [0, 0], "logged in");
    assert!(usage(&world, "vm").is_some());
}

#[test]
fn one_who_opens_what_others_have_open_does_not_wait() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    nbd(&mut world, "vm");
    world.hold_txns = true;
    let conn = opening(&mut world, "vm");
    assert!(world.take(conn).ends_with(&ACK));
    assert_eq!(world.txns(), 0);
}

#[test]
fn who_waits_for_a_key_for_too_long_is_told_to_go_elsewhere() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.hold_txns = true;
    let (conn, left) = (opening(&mut world, "vm"), opening(&mut world, "vm"));
    world.leave(left);
    world.pass(HOLD - Duration::from_secs(1));
    assert!(world.closed.is_empty());
    world.pass(Duration::from_secs(2));
    let told = |world: &World, conn: ConnKey| {
        let [(closed, Ending::Fault(why))] = &world.closed[..] else {
            panic!("{:?}", world.closed);
        };
        *closed == conn && why.contains("takes no changes")
    };
    assert!(told(&world, conn), "{:?}", world.closed);
    assert!(world.take(conn).is_empty() && world.take(left).is_empty());
    world.closed.clear();
    world.hold_txns = false;
    nbd(&mut world, "vm");
}

#[test]
fn an_open_of_what_was_removed_meanwhile_is_answered() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.hold_txns = true;
    let conn = opening(&mut world, "vm");
    world.rival(&trivet_namespace::Operation::Remove {
        parent: trivet_namespace::ROOT,
        name: b"vm".to_vec(),
    });
    world.run();
    world.send(conn, &write(0, 512, 1));
    let sent = world.take(conn);
    let reply = sent.strip_suffix(&good(0)[8..]).expect("an answer to the write");
    assert_eq!(reply[reply.len() - 4..], [0, 0, 0, 5], "EIO");
}

#[test]
fn a_key_is_kept_while_the_store_is_away() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 512, 1));
    cut_off(&mut world);
    // Longer than an image has to be left alone until its use ends.
    world.pass(Duration::from_secs(20));
    nfs.done(&mut world, 7, &write_args(&file, 512, 512, 2));
    assert_eq!(world.byte(image, 512), 2);
    (world.hold_txns, world.hold_notices, world.deaf) = (false, false, false);
    world.pass(Duration::from_secs(20));
    assert_eq!(usage(&world, "vm"), None);
}
