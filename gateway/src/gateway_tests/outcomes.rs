//! Changes whose outcome nobody hears: executed, not executed, executed much later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use trivet_api::{AdminAnswer, AdminCall, ClusterChange, ErrorKind};
use trivet_core::keys;
use trivet_core::kv::{Change, TxnOutcome};
use trivet_namespace::{Attributes, Operation};

use super::clients::{Nfs, opaque, results, words, write_args};
use super::world::{OWN, RIVAL, World, create, remove, rename, resize};

/// A world with an image `vm`, numbers at hand and a counter that begins here.
fn started() -> World {
    let mut world = World::default();
    world.image("vm", 512);
    (world.committed, world.refused) = (0, 0);
    world
}

/// The traces that are left.
fn traces(world: &World) -> usize {
    world.keys.keys().filter(|key| key.starts_with("vfs/done/")).count()
}

fn rival_image(path: &str) -> Operation {
    Operation::CreateImage {
        path: path.into(),
        size: 4096,
    }
}

#[test]
fn what_was_not_executed_is_planned_again_when_that_is_certain() {
    let mut world = started();
    world.lose_txns = 2;
    let mut answer = world.call(create("new", 512));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(
        (world.committed, world.refused),
        (2, 0),
        "the number is taken away, then the change happens"
    );
    assert_eq!(world.mirror().files().count(), 2);
}

#[test]
fn what_was_executed_is_answered_as_it_was_planned() {
    let calls: [AdminCall; 3] = [create("new", 512), rename("vm", "moved"), remove("vm")];
    for call in calls {
        for lost_questions in [0, 1, 2] {
            let mut world = started();
            world.lose_outcomes = 1 + lost_questions;
            let mut answer = world.call(call.clone());
            assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
            world.pass(Duration::from_secs(1));
            let answer = answer.try_recv().expect("it is known by now");
            assert!(answer.is_ok(), "{call:?}: {answer:?}");
            let purges = usize::from(matches!(call, AdminCall::ImageRemove { .. }));
            assert_eq!(world.committed, 1 + purges, "{call:?}");
        }
    }
}

#[test]
fn a_removal_takes_no_newer_image_of_that_name() {
    let mut world = started();
    world.lose_outcomes = 1;
    let mut answer = world.call(remove("vm"));
    world.rival(&rival_image("vm"));
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv().unwrap(), Ok(AdminAnswer::Done {}));
    assert_eq!(world.mirror().files().count(), 1, "the newer one");
}

#[test]
fn a_rename_moves_no_newer_file_over_the_one_that_it_moved() {
    let mut world = started();
    let old = world.mirror().resolve(b"vm").unwrap();
    world.lose_outcomes = 1;
    drop(world.call(rename("vm", "moved")));
    world.rival(&rival_image("vm"));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.mirror().resolve(b"moved"), Ok(old));
    assert!(world.mirror().resolve(b"vm").is_ok());
}

#[test]
fn a_change_that_arrives_late_finds_its_number_taken_away() {
    let mut world = started();
    world.delay_txns = 1;
    let mut answer = world.call(remove("vm"));
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv().unwrap(), Ok(AdminAnswer::Done {}));
    world.rival(&rival_image("vm"));
    world.run();
    assert_eq!(world.arrive(), 0);
    assert_eq!(world.mirror().files().count(), 1);
}

#[test]
fn a_change_that_arrives_before_it_is_asked_for_was_executed() {
    let mut world = started();
    world.delay_txns = 1;
    let mut answer = world.call(remove("vm"));
    assert_eq!(world.arrive(), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv().unwrap(), Ok(AdminAnswer::Done {}));
    assert_eq!(
        (world.committed, world.mirror().files().count()),
        (2, 0),
        "the removal and the end of the purge"
    );
}

#[test]
fn a_question_that_arrives_late_takes_nothing_away() {
    let mut world = started();
    world.lose_outcomes = 1;
    let mut answer = world.call(create("new", 512));
    world.delay_txns = 1;
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    world.arrive();
    world.run();
    assert_eq!(world.mirror().files().count(), 2);
}

#[test]
fn a_growth_that_was_executed_does_not_grow_the_file_again() {
    let mut world = started();
    let image = world.mirror().resolve(b"vm").unwrap();
    world.lose_outcomes = 1;
    let mut answer = world.call(resize("vm", 1 << 20));
    let size = Attributes {
        size: Some(4096),
        ..Attributes::default()
    };
    world.rival(&Operation::SetAttr {
        id: image,
        changes: size,
        guard_ctime: None,
    });
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(world.inode(image).size, 4096);
}

#[test]
fn traces_of_what_is_known_go_with_later_changes() {
    let mut world = started();
    for n in 0..40 {
        world.ask(create(&format!("vm{n}"), 512)).unwrap();
        assert!(traces(&world) <= 2, "{}", traces(&world));
    }
    let mut answers: Vec<_> = (0..40).map(|n| world.call(remove(&format!("vm{n}")))).collect();
    assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap().is_ok()));
    assert!(traces(&world) <= 2);
    world.lose_txns = 1;
    drop(world.call(remove("vm")));
    world.pass(Duration::from_secs(1));
    world.ask(create("last", 512)).unwrap();
    world.ask(create("very_last", 512)).unwrap();
    assert_eq!(
        traces(&world),
        2,
        "the one of the last change, and one that was taken away"
    );
}

#[test]
fn what_others_commit_to_the_store_delays_no_change() {
    let mut world = World {
        shared: 1000,
        ..started()
    };
    world.hold_notices = true;
    let mut answers: Vec<_> = (0..10).map(|n| world.call(create(&format!("vm{n}"), 512))).collect();
    assert_eq!((world.committed, world.refused), (1, 9));
    world.hold_notices = false;
    world.run();
    assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap().is_ok()));
}

#[test]
fn a_gateway_that_is_not_shown_changes_nothing() {
    let mut world = started();
    world.commit(&[Change::Delete(keys::gateway_state(OWN))]);
    let mut answer = world.call(remove("vm"));
    world.pass(Duration::from_secs(2));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    assert_eq!((world.committed, world.mirror().files().count()), (0, 1));
    world.show(OWN);
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv().unwrap(), Ok(AdminAnswer::Done {}));
}

#[test]
fn what_a_gateway_left_that_is_fenced_is_swept_up() {
    let mut world = started();
    let left = [
        format!("vfs/done/{:016x}/1", RIVAL.0),
        format!("vfs/done/{:016x}/f", RIVAL.0),
    ];
    let changes: Vec<Change> = left.iter().map(|key| Change::put(key.clone(), "{}")).collect();
    world.commit(&changes);
    world.rival_dies();
    world.pass(Duration::from_secs(10));
    assert!(left.iter().all(|key| world.keys.contains_key(key)), "it may come back");
    world.commit(&[Change::Delete(keys::client(RIVAL))]);
    world.pass(Duration::from_secs(2));
    assert!(!left.iter().any(|key| world.keys.contains_key(key)));
}

#[test]
fn whoever_was_swept_up_says_that_it_does_not_know() {
    let mut world = started();
    world.lose_outcomes = 1;
    let mut answer = world.call(remove("vm"));
    let ours = |key: &&String| **key == keys::client(OWN) || key.starts_with("vfs/done/");
    let swept = world.keys.keys().filter(ours).cloned().map(Change::Delete);
    let swept: Vec<Change> = swept.collect();
    world.commit(&swept);
    world.pass(Duration::from_secs(1));
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ErrorKind::Unavailable);
}

#[test]
fn who_was_fenced_does_not_come_back_under_its_id() {
    let mut world = started();
    world.commit(&[Change::Delete(keys::client(OWN))]);
    world.pass(Duration::from_secs(5));
    assert!(!world.keys.contains_key(&keys::client(OWN)), "others count on it");
    let mut answer = world.call(create("new", 512));
    world.pass(Duration::from_secs(5));
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(world.mirror().files().count(), 1);
}

/// Arguments of CREATE with defaults for all attributes; by its verifier, or guarded, or unchecked.
fn create_args(dir: &[u8], name: &[u8], how: u32) -> Vec<u8> {
    let rest = match how {
        2 => vec![0, 5],
        _ => vec![0; 6],
    };
    [opaque(dir), opaque(name), words(&[how]), words(&rest)].concat()
}

#[test]
fn what_an_nfs_client_makes_does_not_meet_itself() {
    for how in 0..3 {
        let mut world = started();
        let mut nfs = Nfs::mount(&mut world);
        world.lose_outcomes = 1;
        let xid = nfs.call(&mut world, 8, &create_args(&nfs.root.clone(), b"new", how));
        world.pass(Duration::from_secs(1));
        let replies = results(&world.take(nfs.conn));
        assert_eq!((replies.len(), replies[0].0), (1, xid));
        assert_eq!(replies[0].1[..4], words(&[0]), "{how}");
        assert_eq!((world.committed, world.mirror().files().count()), (1, 2));
    }
}

/// It may be done, and another gateway answers its repetition with what became of it.
#[test]
fn who_was_swept_up_tells_no_client_that_its_call_failed() {
    // With numbers at hand; and where they have to be reserved first, which is what nobody hears of.
    for mut world in [started(), World::default()] {
        let mut nfs = Nfs::mount(&mut world);
        world.lose_outcomes = 1;
        nfs.call(&mut world, 8, &create_args(&nfs.root.clone(), b"new", 0));
        let ours = |key: &&String| **key == keys::client(OWN) || key.starts_with("vfs/done/");
        let swept: Vec<Change> = world.keys.keys().filter(ours).cloned().map(Change::Delete).collect();
        assert_eq!(swept.len(), 2, "{swept:?}");
        world.commit(&swept);
        world.pass(Duration::from_secs(2));
        assert!(world.take(nfs.conn).is_empty());
    }
}

/// Its commit has a number that the store which took the place of that one reaches much later.
#[test]
fn an_outcome_of_the_store_before_says_nothing() {
    let mut world = started();
    let before = world.keys.clone();
    world.hold_txns = true;
    let mut answer = world.call(create("new", 512));
    let (ticket, _) = world.txns.pop_front().expect("it was sent");
    world.put_back(before);
    world.outcomes.push_back((ticket, TxnOutcome::Committed(1_000)));
    world.hold_txns = false;
    world.pass(Duration::from_secs(1));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(world.mirror().files().count(), 2);
}

/// The metadata store was emptied: that a file is gone is no news of the file.
#[test]
fn who_is_fenced_by_an_empty_store_tells_no_client_that_its_file_is_gone() {
    let mut world = World::default();
    world.image("vm", 8192);
    let mut nfs = Nfs::mount(&mut world);
    let file = nfs.lookup(&mut world, "vm");
    world.hold_txns = true;
    nfs.call(&mut world, 7, &write_args(&file, 0, 4096, 1));
    world.put_back(BTreeMap::new());
    world.hold_txns = false;
    world.pass(Duration::from_secs(2));
    assert!(world.take(nfs.conn).is_empty());
}

/// It was not executed, which is known when its client may have asked for it elsewhere, and for something newer since.
#[test]
fn a_change_that_is_late_is_begun_only_while_its_client_is_there() {
    let make = |world: &mut World| {
        let mut nfs = Nfs::mount(world);
        // That it was not executed is not known earlier than after 3 s.
        world.lose_txns = 12;
        nfs.call(world, 8, &create_args(&nfs.root.clone(), b"new", 0));
        world.pass(Duration::from_secs(4));
        assert_eq!(world.lose_txns, 0);
        nfs.conn
    };
    let exists = |world: &World| world.mirror().resolve(b"new").is_ok();
    let mut world = started();
    let conn = make(&mut world);
    assert!(!exists(&world) && world.listening.contains(&conn), "nothing was heard");
    world.hear_of(conn, Some(world.clock.now));
    world.pass(Duration::from_secs(1));
    assert!(exists(&world));
    assert_eq!(results(&world.take(conn)).len(), 1);
    let mut world = started();
    let conn = make(&mut world);
    world.leave(conn);
    world.pass(Duration::from_secs(2));
    assert!(!exists(&world));
    assert_eq!(world.gateway.sessions(), 0);
}

/// An administrator's command gave up and was given again at another gateway, which did it: the first one is not to do it, too.
#[test]
fn what_an_administrator_has_given_up_is_not_begun() {
    for gives_up in [false, true] {
        let mut world = started();
        world.lose_txns = 3;
        let answer = world.call(create("new", 512));
        if gives_up {
            world.give_up_calls();
        }
        world.pass(Duration::from_secs(2));
        assert_eq!(world.mirror().resolve(b"new").is_ok(), !gives_up);
        drop(answer);
    }
}

#[test]
fn nothing_of_an_administrator_is_begun_just_after_a_stop() {
    for gives_up in [false, true] {
        let mut world = started();
        world.stop(Duration::from_secs(12));
        let image = world.call(create("new", 512));
        let patch = serde_json::from_str(r#"{"no_recovery":true}"#).unwrap();
        let settings = world.call(AdminCall::Change(ClusterChange::Settings(patch)));
        assert_eq!(world.committed, 0);
        if gives_up {
            world.give_up_calls();
        }
        world.pass(Duration::from_secs(2));
        assert_eq!(world.mirror().resolve(b"new").is_ok(), !gives_up);
        assert_eq!(world.keys.contains_key(keys::SETTINGS), !gives_up);
        drop((image, settings));
    }
}
