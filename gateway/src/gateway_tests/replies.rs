//! Calls of NFS clients that come again at another gateway.

use std::time::Duration;

use trivet_core::kv::Change;
use trivet_core::map::encode;
use trivet_namespace::{Inode, Operation, Trimming};

use super::clients::{Nfs, opaque, results, set_mtime, words, write_args};
use super::world::{RIVAL, World};

const CREATE: u32 = 8;
const MKDIR: u32 = 9;
const REMOVE: u32 = 12;
const RENAME: u32 = 14;
const LINK: u32 = 15;
const SETATTR: u32 = 2;

/// Another gateway on the same metadata store: nothing is left of the first but what it wrote there.
fn another(first: &World) -> World {
    let mut world = World::default();
    let ours = first.keys.iter().filter(|(key, _)| !key.starts_with("vfs/done/"));
    world.keys = ours.map(|(key, row)| (key.clone(), row.clone())).collect();
    world.revision = first.revision;
    world.snapshot();
    (world.committed, world.refused) = (0, 0);
    world
}

fn entry(dir: &[u8], name: &str) -> Vec<u8> {
    [opaque(dir), opaque(name.as_bytes())].concat()
}

/// SETATTR of the mode, guarded by the ctime that the file has.
fn guarded(world: &mut World, nfs: &mut Nfs, file: &[u8]) -> Vec<u8> {
    let attributes = nfs.done(world, 1, &opaque(file));
    let ctime = &attributes[76..84];
    let mode = words(&[1, 0o600, 0, 0, 0, 0, 0, 1]);
    [&opaque(file)[..], &mode, ctime].concat()
}

#[test]
fn a_call_that_comes_again_elsewhere_is_answered_as_it_was() {
    let mut world = World::default();
    for name in ["old", "from", "to", "gone"] {
        world.image(name, 512);
    }
    let mut nfs = Nfs::mount(&mut world);
    let root = nfs.root.clone();
    let old = nfs.lookup(&mut world, "old");
    let set = guarded(&mut world, &mut nfs, &old);
    let calls = [
        (SETATTR, set),
        (CREATE, [entry(&root, "new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat()),
        (MKDIR, [entry(&root, "dir"), words(&[0; 6])].concat()),
        (LINK, [opaque(&old), entry(&root, "link")].concat()),
        (RENAME, [entry(&root, "from"), entry(&root, "to")].concat()),
        (REMOVE, entry(&root, "gone")),
    ];
    for (procedure, arguments) in calls {
        let xid = nfs.call(&mut world, procedure, &arguments);
        let first = results(&world.take(nfs.conn));
        assert_eq!(first[0].1[..4], words(&[0]), "{procedure}");
        let mut world = another(&world);
        let again = Nfs::mount(&mut world);
        again.repeat(&mut world, xid, procedure, &arguments);
        let second = results(&world.take(again.conn));
        assert_eq!((&second[0], second.len()), (&first[0], 1), "{procedure}");
        assert_eq!((world.committed, world.refused), (0, 0), "{procedure}");
    }
}

#[test]
fn a_truncation_that_comes_again_elsewhere_is_answered_when_its_data_is_gone() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    let empty = [opaque(&file), words(&[0, 0, 0, 1, 0, 0, 0, 0, 0])].concat();
    world.hold_osd = true;
    let xid = nfs.call(&mut world, SETATTR, &empty);
    assert!(world.take(nfs.conn).is_empty());
    let id = world.mirror().resolve(b"vm").unwrap();
    let trimming = world.inode(id).trimming.unwrap();
    let by_rival = Trimming { by: RIVAL, ..trimming };
    let key = format!("vfs/inode/{id}");
    let inode = Inode {
        trimming: Some(by_rival),
        ..world.inode(id)
    };
    world.commit(&[Change::put(key, encode(&inode))]);
    let mut world = another(&world);
    let again = Nfs::mount(&mut world);
    again.repeat(&mut world, xid, SETATTR, &empty);
    world.pass(Duration::from_secs(2));
    assert!(
        world.take(again.conn).is_empty(),
        "others may still write what is cut off"
    );
    world.rival(&Operation::TrimDone { id, trimming: by_rival });
    world.pass(Duration::from_secs(1));
    assert_eq!(results(&world.take(again.conn))[0].1[..4], words(&[0]));
}

#[test]
fn a_mirror_that_is_behind_executes_no_call_again() {
    let mut world = World::default();
    world.image("vm", 512);
    let mut nfs = Nfs::mount(&mut world);
    let root = nfs.root.clone();
    let mut late = another(&world);
    let again = Nfs::mount(&mut late);
    let xid = nfs.call(&mut world, REMOVE, &entry(&root, "vm"));
    late.keys = another(&world).keys;
    late.revision = world.revision;
    again.repeat(&mut late, xid, REMOVE, &entry(&root, "vm"));
    assert_eq!((late.committed, late.refused), (0, 1));
    assert!(late.take(again.conn).is_empty());
    late.snapshot();
    assert_eq!(results(&late.take(again.conn))[0].1[..4], words(&[0]));
}

#[test]
fn what_differs_is_another_call() {
    let mut world = World::default();
    let mut nfs = Nfs::mount(&mut world);
    let root = nfs.root.clone();
    let make = |name: &str| [entry(&root, name), words(&[0; 6])].concat();
    let xid = nfs.call(&mut world, MKDIR, &make("a"));
    nfs.repeat(&mut world, xid, MKDIR, &make("b"));
    assert_eq!(results(&world.take(nfs.conn)).len(), 2);
    assert!(world.mirror().resolve(b"b").is_ok());
    // A call that failed is tried again.
    let xid = nfs.call(&mut world, REMOVE, &entry(&root, "c"));
    assert_eq!(results(&world.take(nfs.conn))[0].1[..4], words(&[2]));
    let mut world = another(&world);
    world.image("c", 512);
    let again = Nfs::mount(&mut world);
    again.repeat(&mut world, xid, REMOVE, &entry(&root, "c"));
    assert_eq!(results(&world.take(again.conn))[0].1[..4], words(&[0]));
}

/// The client did not hear of the refusal, and turned to another gateway when the name had become free, which made its file.
#[test]
fn what_was_refused_here_and_done_elsewhere_is_done() {
    let mut world = World::default();
    world.image("f", 512);
    let mut nfs = Nfs::mount(&mut world);
    let create = [entry(&nfs.root, "f"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    let xid = nfs.call(&mut world, CREATE, &create);
    let refused = results(&world.take(nfs.conn));
    assert_eq!(refused[0].1[..4], words(&[17]));
    let mut elsewhere = another(&world);
    let mut other = Nfs::mount(&mut elsewhere);
    let remove = entry(&other.root, "f");
    other.done(&mut elsewhere, REMOVE, &remove);
    other.repeat(&mut elsewhere, xid, CREATE, &create);
    let done = results(&elsewhere.take(other.conn));
    assert_eq!(done[0].1[..4], words(&[0]));
    // As long as nobody has done it, the refusal is given again.
    nfs.repeat(&mut world, xid, CREATE, &create);
    assert_eq!(results(&world.take(nfs.conn)), refused);
    // The metadata store knows of it before this gateway's mirror does.
    (world.keys, world.revision) = (elsewhere.keys, elsewhere.revision);
    nfs.repeat(&mut world, xid, CREATE, &create);
    assert!(world.take(nfs.conn).is_empty());
    assert_eq!(std::mem::take(&mut world.closed).len(), 1);
    world.snapshot();
    let nfs = Nfs::mount(&mut world);
    let committed = world.committed;
    for _ in 0..2 {
        nfs.repeat(&mut world, xid, CREATE, &create);
        assert_eq!(results(&world.take(nfs.conn)), done);
    }
    assert_eq!(world.committed, committed);
}

/// What the tree says of a call, it says also when it is too old for everything else.
#[test]
fn what_was_done_is_answered_however_old_the_tree_is() {
    let mut world = World::default();
    world.image("vm", 512);
    let mut nfs = Nfs::mount(&mut world);
    let remove = entry(&nfs.root, "vm");
    let xid = nfs.call(&mut world, REMOVE, &remove);
    let mut late = another(&world);
    let mut again = Nfs::mount(&mut late);
    late.deaf = true;
    late.pass(Duration::from_secs(10));
    let make = [entry(&again.root, "dir"), words(&[0; 6])].concat();
    again.call(&mut late, MKDIR, &make);
    again.repeat(&mut late, xid, REMOVE, &remove);
    assert_eq!(results(&late.take(again.conn)), results(&world.take(nfs.conn)));
    // The other one waits, and is not begun when its client is gone.
    late.leave(again.conn);
    late.deaf = false;
    late.pass(Duration::from_secs(3));
    assert!(late.mirror().resolve(b"dir").is_err());
    Nfs::mount(&mut late).done(&mut late, MKDIR, &make);
}

#[test]
fn a_time_that_was_set_before_leaves_that_of_the_last_write() {
    let mut world = World::default();
    let image = world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let set = set_mtime(&nfs.lookup(&mut world, "vm"), 77);
    let xid = nfs.call(&mut world, SETATTR, &set);
    assert_eq!(world.inode(image).mtime.sec, 77);
    let mut world = another(&world);
    let mut again = Nfs::mount(&mut world);
    let file = again.lookup(&mut world, "vm");
    again.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    again.repeat(&mut world, xid, SETATTR, &set);
    assert_eq!(results(&world.take(again.conn))[0].1[..4], words(&[0]));
    world.pass(Duration::from_secs(2));
    assert_ne!(world.inode(image).mtime.sec, 77);
}

#[test]
fn a_caller_has_a_bounded_number_of_replies() {
    let mut world = World::default();
    let mut nfs = Nfs::mount(&mut world);
    let root = nfs.root.clone();
    let replies = |world: &World| world.keys.keys().filter(|key| key.starts_with("vfs/reply/")).count();
    let mut made = 0;
    let mut make = |world: &mut World, nfs: &mut Nfs, count: usize| {
        for _ in 0..count {
            made += 1;
            let entry = entry(&root, &made.to_string());
            nfs.done(world, MKDIR, &[entry, words(&[0; 6])].concat());
        }
    };
    // The client may still ask again for any of what it did a moment ago.
    make(&mut world, &mut nfs, 80);
    assert_eq!(replies(&world), 80);
    // Later there are fewer with each change.
    world.pass(Duration::from_secs(121));
    make(&mut world, &mut nfs, 2);
    assert_eq!(replies(&world), 80 - 2 * 3);
    make(&mut world, &mut nfs, 8);
    assert_eq!(replies(&world), 64);
    // More than there should be become fewer: those without a time are old.
    let more: Vec<Change> = (0..6)
        .map(|n| Change::put(format!("vfs/reply/192.0.2.1/{n:x}"), "{}"))
        .collect();
    world.commit(&more);
    world.pass(Duration::from_secs(121));
    make(&mut world, &mut nfs, 4);
    assert_eq!(replies(&world), 64);
    // There is an end to what is kept of a moment.
    make(&mut world, &mut nfs, 1100);
    assert_eq!(replies(&world), 1024);
}
