//! A mirror that is too old opens nothing; what is open goes on.

use std::time::Duration;

use trivet_namespace::{Attributes, CreateHow, Operation, ROOT};

use super::clients::{Nfs, READ, good, nbd, opaque, request, results, set_size, words, write, write_args};
use super::world::World;
use crate::fresh::{FRESH, HOLD, Heard};
use crate::gateway::ConnKey;
use crate::metrics::Protocol;
use crate::session::Ending;

/// `NFS3ERR_JUKEBOX`.
const LATER: u32 = 10_008;
/// `MNT3ERR_SERVERFAULT`.
const FAULT: u32 = 10_006;
/// Longer than a mirror may be old.
const STALE: Duration = Duration::from_millis(3_500);

/// A client that opens an export, as far as it can.
pub(super) fn opening(world: &mut World, export: &str) -> ConnKey {
    let conn = world.connect(Protocol::Nbd);
    world.take(conn);
    let mut bytes = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0".to_vec();
    bytes.push(u8::try_from(export.len() + 6).unwrap());
    bytes.extend([0, 0, 0, u8::try_from(export.len()).unwrap()]);
    bytes.extend([export.as_bytes(), &[0, 0]].concat());
    world.send(conn, &bytes);
    world.run();
    conn
}

/// A login to the target of `path`.
pub(super) fn login(path: &str) -> Vec<u8> {
    let mut text = format!("InitiatorName=i\0TargetName=iqn.2026-11.io.trivet:{path}\0").into_bytes();
    let mut bytes = [
        &[0x43, 0x87, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()][..],
        &[0; 40],
    ]
    .concat();
    text.resize(text.len().next_multiple_of(4), 0);
    bytes.extend(text);
    bytes
}

/// Another gateway gives the name to a new image of `size` bytes.
fn given_anew(world: &mut World, name: &str, size: u64) {
    let name = name.as_bytes().to_vec();
    world.rival(&Operation::Remove {
        parent: ROOT,
        name: name.clone(),
    });
    let attributes = Attributes {
        size: Some(size),
        ..Attributes::default()
    };
    world.rival(&Operation::CreateFile {
        parent: ROOT,
        name,
        how: CreateHow::Guarded,
        attributes,
    });
}

#[test]
fn a_name_that_was_given_anew_is_not_opened_from_an_old_mirror() {
    const NEW: u64 = 3 << 20;
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.hold_notices = true;
    given_anew(&mut world, "vm", NEW);
    world.pass(STALE);
    let conn = opening(&mut world, "vm");
    let target = world.connect(Protocol::Iscsi);
    world.send(target, &login("vm"));
    world.run();
    assert!(world.take(conn).is_empty() && world.take(target).is_empty());
    world.hold_notices = false;
    world.run();
    let sent = world.take(conn);
    assert!(sent.windows(8).any(|size| size == NEW.to_be_bytes()), "{sent:02x?}");
    assert_eq!(world.take(target)[36..38], [0, 0], "logged in");
    // Both wait for a fresh mirror, then both until all gateways know of them.
    let (stopped, again) = ([true, true], [false, false]);
    assert_eq!(world.pauses, [stopped, again, stopped, again].concat());
}

#[test]
fn who_waits_for_too_long_is_told_to_go_elsewhere() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.deaf = true;
    world.pass(STALE);
    let conn = opening(&mut world, "vm");
    world.pass(HOLD - Duration::from_millis(1_500));
    assert!(world.closed.is_empty());
    world.pass(Duration::from_millis(2_500));
    let [(closed, Ending::Fault(why))] = &world.closed[..] else {
        panic!("{:?}", world.closed);
    };
    assert!(*closed == conn && why.contains("the metadata is"), "{why}");
    world.deaf = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(std::mem::take(&mut world.closed).len(), 1);
    nbd(&mut world, "vm");
}

#[test]
fn what_is_open_goes_on() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    let (conn, mut nfs) = (nbd(&mut world, "vm"), Nfs::mount(&mut world));
    let file = nfs.lookup(&mut world, "vm");
    nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    world.deaf = true;
    world.pass(Duration::from_secs(300));
    world.send(conn, &write(4096, 512, 2));
    assert_eq!(world.take(conn), good(4096));
    nfs.done(&mut world, 7, &write_args(&file, 8192, 512, 3));
    nfs.done(&mut world, 1, &opaque(&file));
    assert_eq!((world.byte(image, 4096), world.byte(image, 8192)), (2, 3));
}

#[test]
fn nfs_clients_are_told_to_come_later() {
    let mut world = World::default();
    let id = world.image("open", 1 << 20);
    world.image("idle", 1 << 20);
    let mut nfs = Nfs::mount(&mut world);
    let (open, idle) = (nfs.lookup(&mut world, "open"), nfs.lookup(&mut world, "idle"));
    nfs.done(&mut world, 6, &[opaque(&open), words(&[0, 0, 512])].concat());
    world.deaf = true;
    world.pass(STALE);
    let read = |file: &[u8]| [opaque(file), words(&[0, 0, 512])].concat();
    let lookup = [opaque(&nfs.root), opaque(b"open")].concat();
    let create = [opaque(&nfs.root), opaque(b"new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    let list = [opaque(&nfs.root), words(&[0, 0, 0, 0, 4096])].concat();
    for (procedure, arguments, status) in [
        (3, lookup, LATER),
        (16, list, LATER),
        (6, read(&open), 0),
        (6, read(&idle), LATER),
        (1, opaque(&idle), 0),
    ] {
        nfs.call(&mut world, procedure, &arguments);
        let result = &results(&world.take(nfs.conn))[0].1;
        assert_eq!(result[..4], words(&[status]), "procedure {procedure}");
    }
    // Who is told to come later comes with another call: changes, which another gateway may have executed, wait.
    nfs.call(&mut world, 8, &create);
    nfs.call(&mut world, 2, &set_size(&open, 512));
    world.pass(Duration::from_secs(20));
    assert!(world.take(nfs.conn).is_empty());
    world.deaf = false;
    world.pass(Duration::from_secs(1));
    assert!(
        world.take(nfs.conn).is_empty(),
        "nothing was heard of the client for long"
    );
    nfs.done(&mut world, 1, &opaque(&open));
    world.pass(Duration::from_secs(1));
    let done = results(&world.take(nfs.conn));
    assert!(done.len() == 2 && done.iter().all(|(_, result)| result[..4] == words(&[0])));
    let tree = world.mirror();
    assert_eq!(
        (tree.resolve(b"new").is_ok(), tree.inode(id).unwrap().size),
        (true, 512)
    );
}

#[test]
fn changes_over_nfs_wait_for_a_while() {
    let mut world = World::default();
    let mut nfs = Nfs::mount(&mut world);
    world.deaf = true;
    world.pass(STALE);
    let create = [opaque(&nfs.root), opaque(b"new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    let xid = nfs.call(&mut world, 8, &create);
    world.pass(Duration::from_secs(29));
    assert!(world.closed.is_empty());
    world.pass(Duration::from_secs(2));
    assert_eq!(std::mem::take(&mut world.closed).len(), 1);
    world.deaf = false;
    world.pass(Duration::from_secs(2));
    assert!(world.mirror().resolve(b"new").is_err(), "nobody may want it any more");
    let again = Nfs::mount(&mut world);
    again.repeat(&mut world, xid, 8, &create);
    assert!(world.mirror().resolve(b"new").is_ok());
}

#[test]
fn mounting_waits_for_a_while() {
    let mut world = World {
        deaf: true,
        ..World::default()
    };
    world.pass(STALE);
    let mount = [
        &words(&[0x8000_0000 | 48, 1, 0, 2, 100_005, 3, 1, 0, 0, 0, 0])[..],
        &opaque(b"/"),
    ]
    .concat();
    let (first, second) = (world.connect(Protocol::Nfs), world.connect(Protocol::Nfs));
    world.send(first, &mount);
    world.pass(Duration::from_secs(4));
    assert!(world.take(first).is_empty());
    world.send(second, &mount);
    world.pass(Duration::from_secs(2));
    assert_eq!(results(&world.take(first))[0].1[..4], words(&[FAULT]));
    world.deaf = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(results(&world.take(second))[0].1[..4], words(&[0]));
}

#[test]
fn an_election_is_not_noticed() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.deaf = true;
    world.pass(FRESH - Duration::from_millis(250));
    let conn = nbd(&mut world, "vm");
    world.send(conn, &request(READ, 0, 512, b""));
    assert_eq!(world.take(conn).len(), 16 + 512);
}

#[test]
fn a_store_that_went_back_opens_nothing_however_far_it_goes_on() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    world.deaf = true;
    for revision in [2, 1_000] {
        let heard = Heard {
            asked: world.clock.now,
            took: Duration::from_millis(1),
            answer: Ok(crate::fresh::Answer { revision, full: false }),
        };
        world.gateway.heard(world.clock, &heard, &mut world.effects);
    }
    let conn = opening(&mut world, "vm");
    world.pass(HOLD + Duration::from_secs(2));
    assert!(
        matches!(&world.closed[..], [(closed, Ending::Fault(why))] if *closed == conn && why.contains("went back"))
    );
}
