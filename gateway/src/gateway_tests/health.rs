//! The verdict tells the truth about the metadata store, the gateway and stuck work.

use std::time::Duration;

use serde_json::json;
use trivet_api::Health;
use trivet_core::keys;
use trivet_core::kv::Change;

use super::clients::{Nfs, nbd, opaque, words, write};
use super::world::{OWN, RIVAL, World, resize, status};
use crate::fresh::{Answer, Heard};

/// The control plane hears this now.
fn hears(world: &mut World, took: Duration, answer: Result<Answer, String>) {
    world.deaf = true;
    let heard = Heard {
        asked: world.clock.now,
        took,
        answer,
    };
    world.gateway.heard(world.clock, &heard, &mut world.effects);
    world.run();
}

/// The store says that it has no other commit than the mirror.
fn answer(world: &World, full: bool) -> Result<Answer, String> {
    let revision = world.revision;
    Ok(Answer { revision, full })
}

/// The verdict is this, for a reason with these words.
fn says(world: &mut World, verdict: Health, words: &str) {
    let status = status(world);
    let told = status.reasons.iter().any(|why| why.contains(words));
    assert!(status.health == verdict && told, "{words}: {status:?}");
}

#[test]
fn a_metadata_store_that_is_gone_or_hangs_is_told() {
    let mut world = World::default();
    world.pass(Duration::from_secs(1));
    let before = status(&mut world);
    assert!(before.gateway.serves && before.gateway.opens, "{before:?}");
    hears(&mut world, Duration::from_secs(1), Err("connection refused".into()));
    says(
        &mut world,
        Health::Warn,
        "no answer from the metadata store: connection refused",
    );
    world.pass(Duration::from_secs(12));
    says(
        &mut world,
        Health::Error,
        "the metadata is 12 s old: connection refused; nothing is opened",
    );
    let during = status(&mut world).gateway;
    assert!(
        during.serves && !during.opens && during.metadata_age_ms == Some(12_000),
        "{during:?}"
    );
    world.deaf = false;
    world.pass(Duration::from_secs(1));
    assert!(status(&mut world).gateway.opens);
}

#[test]
fn one_that_is_slow_full_or_restored_is_told() {
    let mut world = World::default();
    for _ in 0..10 {
        let said = answer(&world, false);
        hears(&mut world, Duration::from_millis(500), said);
    }
    says(&mut world, Health::Warn, "slow: it answers in 4");
    let full = answer(&world, true);
    hears(&mut world, Duration::from_millis(1), full);
    says(&mut world, Health::Error, "full");
    let back = Answer {
        revision: 1,
        full: false,
    };
    hears(&mut world, Duration::from_millis(1), Ok(back));
    says(&mut world, Health::Error, "the metadata store went back from commit");
}

#[test]
fn a_gateway_that_lost_its_registration_says_so() {
    let mut world = World::default();
    let key = keys::gateway_state(OWN);
    world.commit(&[Change::Delete(key.clone())]);
    world.pass(Duration::from_secs(1));
    says(&mut world, Health::Warn, "this gateway is not registered");
    let state = serde_json::to_vec(&json!({"name": "g"})).unwrap();
    world.commit(&[Change::put(key, state)]);
    world.pass(Duration::from_secs(1));
    let again = status(&mut world);
    assert!(again.reasons.iter().all(|why| !why.contains("registered")), "{again:?}");
}

#[test]
fn work_that_is_stuck_is_told() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    let mut nfs = Nfs::mount(&mut world);
    world.hold_osd = true;
    world.send(conn, &[write(0, 4096, 1), write(4096, 4096, 2)].concat());
    world.run();
    world.pass(Duration::from_secs(9));
    let quiet = status(&mut world);
    assert!(quiet.reasons.iter().all(|why| !why.contains("stuck")), "{quiet:?}");
    world.pass(Duration::from_secs(3));
    says(
        &mut world,
        Health::Error,
        "2 reads and writes of clients are stuck, the oldest for 12 s",
    );
    world.hold_osd = false;
    world.hold_txns = true;
    let create = [opaque(&nfs.root), opaque(b"new"), words(&[1, 0, 0, 0, 0, 0, 0])].concat();
    nfs.call(&mut world, 8, &create);
    world.pass(Duration::from_secs(11));
    says(
        &mut world,
        Health::Error,
        "1 change of names of a client is stuck, for 11 s",
    );
    world.hold_txns = false;
    world.pass(Duration::from_secs(1));
    let after = status(&mut world);
    assert!(after.reasons.iter().all(|why| !why.contains("stuck")), "{after:?}");
}

#[test]
fn a_fence_that_is_stuck_is_told() {
    let mut world = World::default();
    let image = world.image("vm", 2 << 20);
    world.uses(RIVAL, image);
    world.rival_dies();
    world.hold_osd = true;
    let mut answer = world.call(resize("vm", 1 << 20));
    world.pass(Duration::from_secs(12));
    says(
        &mut world,
        Health::Error,
        "1 fence of a gateway that is gone is stuck, for 11 s",
    );
    world.hold_osd = false;
    world.pass(Duration::from_secs(2));
    assert!(answer.try_recv().unwrap().is_ok());
    let after = status(&mut world);
    assert!(after.reasons.iter().all(|why| !why.contains("stuck")), "{after:?}");
}
