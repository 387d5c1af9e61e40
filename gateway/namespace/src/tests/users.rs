//! Uses of images by gateways: taken, agreed to truncations, left, ended by others.

use trivet_core::keys::{client, gateway_state};

use super::*;
use crate::Author;

const OTHER: ClientId = ClientId(2);

/// A world with a file of 1000 bytes, and another gateway that may use it.
fn world() -> (World, ImageId, Author) {
    let mut world = World::new();
    let id = world.file(ROOT, "file");
    world.done(&set(id, size(1000)));
    let shown = commit(
        &mut world,
        &Txn {
            compare: vec![],
            changes: vec![Change::put(gateway_state(OTHER), "{}")],
        },
    );
    let registered = commit(
        &mut world,
        &Txn {
            compare: vec![],
            changes: vec![Change::put(client(OTHER), "{}")],
        },
    );
    let author = Author {
        client: OTHER,
        shown,
        registered,
    };
    (world, id, author)
}

fn commit(world: &mut World, txn: &Txn) -> Revision {
    let TxnOutcome::Committed(revision) = world.store.run(txn) else {
        panic!("refused: {txn:?}")
    };
    world.namespace.apply(world.store.log.last().unwrap());
    revision
}

fn take(world: &mut World, author: &Author, id: ImageId) {
    let txn = author.take(&world.namespace, id).unwrap();
    commit(world, &txn);
}

#[test]
fn a_use_begins_with_the_inode_as_it_is() {
    let (mut world, id, author) = world();
    let stale = author.take(&world.namespace, id).unwrap();
    world.done(&set(id, size(100)));
    assert!(matches!(world.store.run(&stale), TxnOutcome::Refused(_)));
    take(&mut world, &author, id);
    let cut = world.inode(id).cut;
    assert_eq!(world.namespace.use_of(id, OTHER).unwrap().agreed, cut);
    assert!(
        world.namespace.others_agree(id, ClientId(1)),
        "it has seen the truncation"
    );
    assert_eq!(author.take(&world.namespace, ImageId(99)), None);
}

#[test]
fn a_truncation_is_agreed_to_by_its_time() {
    let (mut world, id, author) = world();
    take(&mut world, &author, id);
    for bytes in [500, 400] {
        world.done(&set(id, size(bytes)));
        assert!(!world.namespace.others_agree(id, ClientId(1)));
        assert!(world.namespace.others_agree(id, OTHER), "there is no other");
        let usage = world.namespace.use_of(id, OTHER).unwrap();
        let agreed = author.agree(&world.namespace, id, usage, 0).unwrap();
        let late = author.agree(&world.namespace, id, usage, 1 << 20).unwrap();
        commit(&mut world, &agreed);
        assert!(world.namespace.others_agree(id, ClientId(1)));
        assert!(matches!(world.store.run(&late), TxnOutcome::Refused(_)));
        let trimming = world.inode(id).trimming.unwrap();
        world.done(&Operation::TrimDone { id, trimming });
    }
    let usage = world.namespace.use_of(id, OTHER).unwrap();
    commit(&mut world, &author.leave(id, usage));
    assert_eq!(
        (world.namespace.is_used(id), world.namespace.uses().count()),
        (false, 0)
    );
}

#[test]
fn what_was_written_beyond_the_end_goes_with_a_truncation() {
    let (mut world, id, author) = world();
    take(&mut world, &author, id);
    for (bytes, beyond, to) in [(400, 300, 1000), (300, 1200, 1200)] {
        world.done(&set(id, size(bytes)));
        let usage = world.namespace.use_of(id, OTHER).unwrap();
        let agreed = author.agree(&world.namespace, id, usage, beyond).unwrap();
        commit(&mut world, &agreed);
        assert!(world.namespace.others_agree(id, ClientId(1)));
        let trimming = world.inode(id).trimming.unwrap();
        assert_eq!((trimming.from, trimming.to), (bytes, to));
        world.done(&Operation::TrimDone { id, trimming });
        world.done(&set(id, size(1000)));
    }
}

#[test]
fn a_purge_ends_when_nobody_uses_the_image() {
    let (mut world, id, author) = world();
    take(&mut world, &author, id);
    world.done(&remove(ROOT, "file"));
    let plan = world.plan(&Operation::PurgeDone { id }).unwrap();
    assert!(matches!(world.store.run(&plan.txn), TxnOutcome::Refused(_)));
    assert_eq!(author.take(&world.namespace, id), None);
    let usage = world.namespace.use_of(id, OTHER).unwrap();
    commit(&mut world, &author.leave(id, usage));
    world.done(&Operation::PurgeDone { id });
}

#[test]
fn whoever_ends_the_use_of_one_that_is_gone_moves_the_times() {
    let (mut world, id, author) = world();
    take(&mut world, &author, id);
    let before = world.inode(id).clone();
    let end = Operation::EndUse { id, client: OTHER };
    let plan = world.plan(&end).unwrap();
    assert!(
        matches!(world.store.run(&plan.txn), TxnOutcome::Refused(_)),
        "it is not fenced"
    );
    commit(
        &mut world,
        &Txn {
            compare: vec![],
            changes: vec![Change::Delete(client(OTHER))],
        },
    );
    world.done(&end);
    let after = world.inode(id);
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    assert!(!world.namespace.is_used(id));
    let revision = world.store.revision;
    world.done(&end);
    assert_eq!(world.store.revision, revision, "once");
}

#[test]
fn the_use_of_a_removed_image_ends_too() {
    let (mut world, id, author) = world();
    take(&mut world, &author, id);
    world.done(&remove(ROOT, "file"));
    commit(
        &mut world,
        &Txn {
            compare: vec![],
            changes: vec![Change::Delete(client(OTHER))],
        },
    );
    world.done(&Operation::EndUse { id, client: OTHER });
    world.done(&Operation::PurgeDone { id });
}
