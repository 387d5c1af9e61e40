//! What administrators do with OSDs, the placement tree, PGs and settings.

use std::time::Duration;

use serde_json::{Value, json};
use trivet_api::{
    AdminAnswer, AdminCall, AdminResult, ClusterChange, ClusterQuestion, ErrorKind, Health, OsdInfo, PatchOsd,
    PatchSettings, PgExplained, PgFilter, SetPlace, Thousandths, TreeRow,
};
use trivet_core::kv::Change;

use super::world::{World, status};

fn put(world: &mut World, key: &str, value: Value) {
    world.commit(&[Change::put(key, value.to_string())]);
    world.run();
}

fn delete(world: &mut World, key: &str) {
    world.commit(&[Change::Delete(key.to_owned())]);
    world.run();
}

/// OSDs 1 and 2 on the host `a`, 3 on `b`; 1 and 3 are up, and a monitor leads.
fn world() -> World {
    let mut world = World::default();
    for (osd, host) in [(1, "a"), (2, "a"), (3, "b")] {
        put(
            &mut world,
            &format!("osd/{osd}/config"),
            json!({"size": 1000, "host": host}),
        );
    }
    for osd in [1, 3] {
        put(
            &mut world,
            &format!("osd/{osd}/state"),
            json!({"boot": 1, "size": 1000}),
        );
    }
    put(&mut world, "mon/leader", json!({"id": 5}));
    world
}

fn modify(osd: u32, body: Value) -> AdminCall {
    let body: PatchOsd = serde_json::from_value(body).unwrap();
    AdminCall::Change(body.change(osd).unwrap())
}

fn forget(osd: u32) -> AdminCall {
    AdminCall::Change(ClusterChange::OsdRemove { osd })
}

fn place(name: &str, level: &str, parent: Option<&str>) -> AdminCall {
    let place = SetPlace {
        level: level.to_owned(),
        parent: parent.map(ToOwned::to_owned),
    };
    AdminCall::Change(place.change(name.to_owned()).unwrap())
}

fn unplace(name: &str) -> AdminCall {
    AdminCall::Change(ClusterChange::TreeRemove { name: name.to_owned() })
}

fn osd(result: AdminResult) -> OsdInfo {
    match result {
        Ok(AdminAnswer::Osd(osd)) => osd,
        other => panic!("{other:?}"),
    }
}

fn tree(world: &mut World) -> Vec<TreeRow> {
    match world.ask(AdminCall::Ask(ClusterQuestion::Tree)) {
        Ok(AdminAnswer::Tree(tree)) => tree.rows,
        other => panic!("{other:?}"),
    }
}

/// Names, each behind as many dots as it is deep.
fn outline(world: &mut World) -> String {
    let dots = |row: &TreeRow| ".".repeat(usize::try_from(row.depth).unwrap()) + &row.name;
    tree(world).iter().map(dots).collect::<Vec<_>>().join(" ")
}

fn explained(world: &mut World, pg: &str) -> PgExplained {
    match world.ask(AdminCall::Ask(ClusterQuestion::Pg { pg: pg.to_owned() })) {
        Ok(AdminAnswer::Pg(pg)) => pg,
        other => panic!("{other:?}"),
    }
}

fn pgs(world: &mut World, filter: Value) -> Vec<String> {
    let filter: PgFilter = serde_json::from_value(filter).unwrap();
    match world.ask(AdminCall::Ask(ClusterQuestion::Pgs(filter))) {
        Ok(AdminAnswer::Pgs(list)) => list.pgs.into_iter().map(|pg| pg.id).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_osd_is_used_as_told() {
    let mut world = world();
    let changed = osd(world.ask(modify(
        1,
        json!({"reweight": 0.5, "tags": ["ssd", "fast"], "noout": true}),
    )));
    assert_eq!(changed.reweight, Thousandths::new(500));
    assert_eq!((changed.tags.join(","), changed.noout), ("fast,ssd".to_owned(), true));
    let changed = osd(world.ask(modify(1, json!({"add_tags": ["new"], "remove_tags": ["ssd", "none"]}))));
    assert_eq!((changed.tags.join(","), changed.noout), ("fast,new".to_owned(), true));
    assert!(osd(world.ask(modify(1, json!({"out": true})))).out);
    assert!(!osd(world.ask(modify(1, json!({"out": false})))).out);
    put(&mut world, "osd/2/config", json!({"size": 1000, "dropped": true}));
    let back = osd(world.ask(modify(2, json!({"out": false}))));
    assert!(!back.dropped && !back.out);
    world.committed = 0;
    assert_eq!(osd(world.ask(modify(2, json!({"out": false})))), back);
    assert_eq!(world.committed, 0);
    assert_eq!(world.error(modify(9, json!({"out": true}))), ErrorKind::NotFound);
    let error = world.ask(modify(
        1,
        json!({"add_tags": (0..16).map(|n| format!("t{n}")).collect::<Vec<_>>()}),
    ));
    assert!(error.unwrap_err().message.contains("18 tags"));
}

#[test]
fn only_an_osd_that_nothing_needs_is_forgotten() {
    let mut world = world();
    let why = |world: &mut World, osd| world.ask(forget(osd)).unwrap_err().message;
    assert!(why(&mut world, 3).contains("OSD 3 is up"));
    assert_eq!(world.error(forget(9)), ErrorKind::NotFound);

    put(
        &mut world,
        "plan/1",
        json!({"pgs": [{"osds": [1, 2], "primary": 1}, {"osds": [1], "primary": 1}]}),
    );
    let said = why(&mut world, 2);
    assert!(said.contains("1 PG is planned on OSD 2: 1.0;"), "{said}");

    put(
        &mut world,
        "plan/1",
        json!({"pgs": [{"osds": [1], "primary": 1}, {"osds": [1], "primary": 1}]}),
    );
    let interval = |active| json!({"epoch": 1, "intervals": [{"epoch": 1, "acting": [1, 2], "active": active}]});
    put(&mut world, "pg/1/1/history", interval(true));
    let said = why(&mut world, 2);
    assert!(
        said.contains("1 PG may need what OSD 2 has") && said.contains("pg explain 1.1"),
        "{said}"
    );

    put(&mut world, "pg/1/1/history", interval(false));
    put(&mut world, "osd/2/stats", json!({"capacity": 1}));
    // Another one plans with it in the meantime.
    world.hold_notices = true;
    world.commit(&[Change::put(
        "plan/1",
        json!({"pgs": [{"osds": [2], "primary": null}]}).to_string(),
    )]);
    let mut answer = world.call(forget(2));
    world.hold_notices = false;
    world.run();
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ErrorKind::Conflict);
    put(&mut world, "plan/1", json!({"pgs": []}));
    assert_eq!(world.ask(forget(2)), Ok(AdminAnswer::Done {}));
    assert!(!world.keys.keys().any(|key| key.starts_with("osd/2/")));
}

#[test]
fn an_osd_of_another_process_is_stopped_there() {
    let mut world = world();
    put(&mut world, "osd/4/config", json!({"size": 1000}));
    for (osd, kind, said) in [
        (
            3,
            ErrorKind::Conflict,
            "does not run OSD 3: it is a process of its own on host b",
        ),
        (4, ErrorKind::Conflict, "does not run OSD 4, but another one does"),
        (9, ErrorKind::NotFound, "there is no OSD 9"),
    ] {
        for call in [AdminCall::OsdStop { osd }, AdminCall::OsdStart { osd }] {
            let error = world.ask(call).unwrap_err();
            assert!(error.kind == kind && error.message.contains(said), "{error}");
        }
    }
}

#[test]
fn places_are_made_moved_and_removed() {
    let mut world = world();
    put(&mut world, "osd/4/config", json!({"size": 500, "reweight": 500}));
    assert_eq!(outline(&mut world), "a .1 .2 b .3 4");
    for call in [
        place("room", "room", None),
        place("r1", "rack", Some("room")),
        place("r2", "rack", Some("room")),
        place("a", "host", Some("r1")),
        place("b", "host", Some("r2")),
    ] {
        assert_eq!(world.ask(call.clone()), Ok(AdminAnswer::Done {}), "{call:?}");
    }
    assert_eq!(outline(&mut world), "room .r1 ..a ...1 ...2 .r2 ..b ...3 4");
    let rows = tree(&mut world);
    assert_eq!((rows[0].weight, rows[1].weight, rows[8].weight), (3000, 2000, 250));

    let table = [
        (place("room", "room", Some("r1")), ErrorKind::Conflict, "circle"),
        (place("r1", "rack", Some("r1")), ErrorKind::Conflict, "circle"),
        (place("c", "rack", Some("a")), ErrorKind::Conflict, "a is a host"),
        (place("a", "rack", None), ErrorKind::Conflict, "a is a host"),
        (place("c", "osd", None), ErrorKind::Invalid, "host"),
        (place("c", "rack", Some("none")), ErrorKind::NotFound, "no place none"),
        (unplace("r1"), ErrorKind::Conflict, "something in r1: a"),
        (unplace("none"), ErrorKind::NotFound, "no place none"),
    ];
    for (call, kind, why) in table {
        let error = world.ask(call.clone()).unwrap_err();
        assert!(error.kind == kind && error.message.contains(why), "{call:?}: {error}");
    }
    assert_eq!(world.ask(place("a", "host", Some("r2"))), Ok(AdminAnswer::Done {}));
    assert_eq!(world.ask(unplace("r1")), Ok(AdminAnswer::Done {}));
    assert_eq!(world.ask(unplace("a")), Ok(AdminAnswer::Done {}));
    assert_eq!(outline(&mut world), "a .1 .2 room .r2 ..b ...3 4");
    put(
        &mut world,
        "pool/1",
        json!({"name": "test", "pg_count": 2, "root": "room"}),
    );
    delete(&mut world, "tree/r2");
    let error = world.ask(unplace("room")).unwrap_err();
    assert!(error.message.contains("the root of pools: test"), "{error}");
}

#[test]
fn two_moves_at_once_make_no_circle() {
    let mut world = world();
    for name in ["x", "y"] {
        world.ask(place(name, "rack", None)).unwrap();
    }
    world.hold_txns = true;
    let mut first = world.call(place("x", "rack", Some("y")));
    let mut second = world.call(place("y", "rack", Some("x")));
    world.hold_txns = false;
    world.run();
    assert!(first.try_recv().unwrap().is_ok());
    assert!(second.try_recv().unwrap().unwrap_err().message.contains("circle"));

    // A circle that somebody else has written does no harm.
    put(&mut world, "tree/y", json!({"level": "rack", "parent": "x"}));
    assert_eq!(outline(&mut world), "a .1 .2 b .3 x .y");
}

#[test]
fn a_place_does_not_go_while_something_comes_in() {
    let mut world = world();
    world.ask(place("x", "rack", None)).unwrap();
    world.hold_txns = true;
    let mut moved = world.call(place("y", "rack", Some("x")));
    let mut removed = world.call(unplace("x"));
    world.hold_txns = false;
    world.run();
    assert!(moved.try_recv().unwrap().is_ok());
    assert!(
        removed
            .try_recv()
            .unwrap()
            .unwrap_err()
            .message
            .contains("something in x")
    );
}

#[test]
fn settings_are_shown_and_changed() {
    let mut world = world();
    let change = |osd_out_s, backfill_full_pct| {
        let patch = PatchSettings {
            osd_out_s,
            backfill_full_pct,
            no_recovery: None,
        };
        AdminCall::Change(patch.change().unwrap())
    };
    let show = AdminCall::Ask(ClusterQuestion::Settings);
    let said = |result: AdminResult| match result {
        Ok(AdminAnswer::Settings(settings)) => (settings.osd_out_s, settings.backfill_full_pct),
        other => panic!("{other:?}"),
    };
    assert_eq!(said(world.ask(show.clone())), (600, 90));
    assert_eq!(said(world.ask(change(Some(60), None))), (60, 90));
    assert_eq!(said(world.ask(change(None, Some(80)))), (60, 80));
    // Two gateways at once: neither change is lost.
    world.hold_notices = true;
    world.commit(&[Change::put(
        "config/settings",
        r#"{"osd_out_s":7,"backfill_full_pct":80}"#,
    )]);
    let mut answer = world.call(change(None, Some(95)));
    world.hold_notices = false;
    world.run();
    assert_eq!(said(answer.try_recv().unwrap()), (7, 95));
}

#[test]
fn monitors_and_gateways_are_listed() {
    let mut world = world();
    put(&mut world, "mon/0000000000000004/state", json!({"host": "h4"}));
    let answer = serde_json::to_value(world.ask(AdminCall::Ask(ClusterQuestion::Monitors)).unwrap()).unwrap();
    let monitors = json!([
        {"id": "0000000000000004", "host": "h4", "leads": false},
        {"id": "0000000000000005", "leads": true},
    ]);
    assert_eq!(answer, json!({"monitors": monitors}));
    let answer = serde_json::to_value(world.ask(AdminCall::Ask(ClusterQuestion::Gateways)).unwrap()).unwrap();
    assert_eq!(
        answer["gateways"][0],
        json!({"id": "0000000000000007", "name": "g", "this": true})
    );
    assert_eq!(answer["gateways"][1]["this"], false);
}

#[test]
fn pgs_are_listed_and_explained() {
    let mut world = world();
    put(
        &mut world,
        "plan/1",
        json!({"pgs": [{"osds": [1], "primary": 1}, {"osds": [2], "primary": 2}]}),
    );
    delete(&mut world, "pg/1/1/claim");
    let interval = json!({"epoch": 3, "acting": [2], "active": true});
    put(
        &mut world,
        "pg/1/1/history",
        json!({"epoch": 4, "intervals": [interval]}),
    );
    assert_eq!(pgs(&mut world, json!({})), ["1.0", "1.1"]);
    assert_eq!(pgs(&mut world, json!({"pool": "test", "osd": 2})), ["1.1"]);
    assert_eq!(pgs(&mut world, json!({"state": "clean"})), ["1.0"]);
    assert_eq!(pgs(&mut world, json!({"osd": 3})), Vec::<String>::new());
    for bad in [json!({"state": "odd"}), json!({"pool": "none"})] {
        let filter = serde_json::from_value(bad).unwrap();
        assert!(world.ask(AdminCall::Ask(ClusterQuestion::Pgs(filter))).is_err());
    }

    let pg = explained(&mut world, "test.1");
    assert_eq!(
        (pg.pg.id.as_str(), pg.pg.state.as_str(), pg.pg.epoch),
        ("1.1", "inactive", 4)
    );
    assert_eq!((pg.waits_for, pg.intervals.len()), (vec![vec![2]], 1));
    assert!(pg.reasons[0].contains("start 1 of 2"), "{:?}", pg.reasons);
    assert_eq!(explained(&mut world, "1.0").reasons, ["every object is on all members"]);
    for (bad, kind) in [
        ("1", ErrorKind::Invalid),
        ("1.x", ErrorKind::Invalid),
        ("1.2", ErrorKind::NotFound),
        ("2.0", ErrorKind::NotFound),
    ] {
        let call = AdminCall::Ask(ClusterQuestion::Pg { pg: bad.to_owned() });
        assert_eq!(world.error(call), kind, "{bad}");
    }
    assert_eq!(status(&mut world).health, Health::Warn, "it may be changing hands");
    world.pass(Duration::from_secs(4));
    let now = status(&mut world);
    assert_eq!(now.health, Health::Error);
    assert!(
        now.reasons.iter().any(|why| why.contains("start 1 of 2")),
        "{:?}",
        now.reasons
    );
}

#[test]
fn the_status_tells_how_recovery_goes() {
    let mut world = world();
    put(&mut world, "osd/2/state", json!({"boot": 1, "size": 1000}));
    assert_eq!(status(&mut world).health, Health::Ok);
    for missing in [100, 90, 80, 70, 60] {
        let claim = json!({"primary": 1, "epoch": 1, "acting": [1], "active": true, "missing": missing});
        put(&mut world, "pg/1/0/claim", claim);
        world.pass(Duration::from_secs(1));
    }
    let now = status(&mut world);
    assert_eq!((now.recovery.objects_missing, now.recovery.rate), (60, 10));
    assert_eq!((now.recovery.eta_s, now.health), (Some(6), Health::Warn));
}

#[test]
fn full_osds_and_those_that_are_out_make_the_health_a_warning() {
    let mut world = world();
    put(&mut world, "osd/2/state", json!({"boot": 1, "size": 1000}));
    for (osd, used) in [(1, 84), (2, 85), (3, 90)] {
        put(
            &mut world,
            &format!("osd/{osd}/stats"),
            json!({"capacity": 100, "used": used}),
        );
    }
    world.ask(modify(1, json!({"out": true}))).unwrap();
    let now = status(&mut world);
    assert_eq!(now.health, Health::Warn);
    let text = now.reasons.join("; ");
    for part in ["nearly full: 2 (85 %)", "add others: 3 (90 %)", "taken out: 1"] {
        assert!(text.contains(part), "{text}");
    }
    delete(&mut world, "mon/leader");
    assert!(status(&mut world).reasons.join("; ").contains("no monitor leads"));
}
