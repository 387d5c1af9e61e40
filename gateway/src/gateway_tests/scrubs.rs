//! Asking for a scrub, and seeing how far it is.

use trivet_api::{AdminAnswer, AdminCall, ErrorKind, Health, Scrub, ScrubAsked};
use trivet_core::PgId;
use trivet_core::keys::{self, ScrubReport, ScrubRequest};
use trivet_core::kv::Change;
use trivet_core::map::encode;

use super::world::{POOL, World, status};

fn report(world: &mut World, pg: u32, report: &ScrubReport) {
    let id = PgId::first(POOL, pg);
    world.commit(&[Change::put(keys::scrub(id), encode(report))]);
    world.run();
}

#[test]
fn a_scrub_is_asked_for_answered_and_asked_for_again() {
    let mut world = World::default();
    assert_eq!(
        status(&mut world).scrub,
        Scrub {
            pgs: 2,
            ..Scrub::default()
        }
    );
    let asked = |number| Ok(AdminAnswer::Scrub(ScrubAsked { number }));
    assert_eq!(world.ask(AdminCall::Scrub), asked(1));
    let request: ScrubRequest = serde_json::from_slice(&world.keys[keys::SCRUB].value).unwrap();
    assert_eq!((request.number, request.at), (1, 1_000));

    let clean = ScrubReport {
        number: 1,
        objects: 5,
        repaired: 2,
        ..ScrubReport::default()
    };
    report(&mut world, 0, &clean);
    let bad = ScrubReport {
        lost: 1,
        inconsistent: 3,
        ..clean
    };
    report(&mut world, 1, &bad);
    world.pass(std::time::Duration::from_secs(7));
    let found = Scrub {
        number: 1,
        asked: Some(1_000),
        age_s: 7,
        pgs: 2,
        done: 2,
        objects: 10,
        repaired: 4,
        inconsistent: 3,
        lost: 1,
    };
    let given = status(&mut world);
    assert_eq!(given.scrub, found);
    assert_ne!(given.health, Health::Ok);
    assert!(given.reasons.iter().any(|r| r.contains("no good copy")), "{given:?}");

    assert_eq!(world.ask(AdminCall::Scrub), asked(2));
    let begun = Scrub {
        number: 2,
        asked: Some(1_007),
        age_s: 0,
        done: 0,
        objects: 0,
        repaired: 0,
        ..found
    };
    assert_eq!(
        status(&mut world).scrub,
        begun,
        "what is wrong stays until it is looked at again"
    );
}

#[test]
fn a_number_is_never_asked_for_twice() {
    let mut world = World::default();
    let seen = ScrubReport {
        number: 9,
        ..ScrubReport::default()
    };
    report(&mut world, 0, &seen);
    let asked = Ok(AdminAnswer::Scrub(ScrubAsked { number: 10 }));
    assert_eq!(world.ask(AdminCall::Scrub), asked);

    // Somebody else asks, and this gateway's mirror is behind.
    world.hold_notices = true;
    let rival = ScrubRequest { number: 11, at: 0 };
    world.commit(&[Change::put(keys::SCRUB, encode(&rival))]);
    assert_eq!(world.error(AdminCall::Scrub), ErrorKind::Conflict);
    world.hold_notices = false;
    world.run();
    world.lose_txns = 1;
    assert_eq!(world.error(AdminCall::Scrub), ErrorKind::Unavailable);
    let asked = Ok(AdminAnswer::Scrub(ScrubAsked { number: 12 }));
    assert_eq!(world.ask(AdminCall::Scrub), asked);
}
