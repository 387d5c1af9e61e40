//! What administrators do with pools, and where images go.

use serde_json::{Value, json};
use trivet_api::{
    AdminAnswer, AdminCall, AdminResult, ClusterChange, ClusterQuestion, CreateImage, CreatePool, Df, ErrorKind,
    PatchPool, PoolInfo,
};
use trivet_core::PoolId;
use trivet_core::kv::Change;
use trivet_namespace::Operation;

use super::clients::{Nfs, opaque, results, words};
use super::world::{World, create, remove, status};
use crate::status::OsdReport;

/// The call that a body of `POST /api/v1/pools` makes.
fn make(body: Value) -> AdminCall {
    let body: CreatePool = serde_json::from_value(body).unwrap();
    AdminCall::Change(body.change().unwrap())
}

fn modify(pool: &str, body: Value) -> AdminCall {
    let body: PatchPool = serde_json::from_value(body).unwrap();
    AdminCall::Change(body.change(pool.to_owned()).unwrap())
}

fn drop_pool(pool: &str) -> AdminCall {
    AdminCall::Change(ClusterChange::PoolRemove { pool: pool.to_owned() })
}

fn in_pool(path: &str, pool: &str) -> AdminCall {
    let body = CreateImage {
        path: path.to_owned(),
        size: 512,
        pool: Some(pool.to_owned()),
    };
    body.call().unwrap()
}

fn pool(result: AdminResult) -> PoolInfo {
    match result {
        Ok(AdminAnswer::Pool(pool)) => pool,
        other => panic!("{other:?}"),
    }
}

fn df(world: &mut World) -> Df {
    match world.ask(AdminCall::Ask(ClusterQuestion::Df)) {
        Ok(AdminAnswer::Df(df)) => df,
        other => panic!("{other:?}"),
    }
}

fn names(world: &mut World) -> Vec<(u16, String)> {
    df(world).pools.into_iter().map(|pool| (pool.id, pool.name)).collect()
}

fn image_pool(result: AdminResult) -> String {
    match result {
        Ok(AdminAnswer::Image(image)) => image.pool,
        other => panic!("{other:?}"),
    }
}

fn put(world: &mut World, key: &str, value: Value) {
    world.commit(&[Change::put(key, value.to_string())]);
    world.run();
}

/// OSDs 1 to 4, two each on the hosts `a` and `b`.
fn with_hosts(world: &mut World) {
    for (osd, host) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        put(
            world,
            &format!("osd/{osd}/config"),
            json!({"size": 1000, "host": host, "tags": [host]}),
        );
    }
    world.hear_clock();
}

#[test]
fn a_pool_lives() {
    let mut world = World::with_pool(false);
    with_hosts(&mut world);
    let made = pool(world.ask(make(json!({"name": "fast", "replicas": 2}))));
    assert_eq!((made.id, made.min_size, made.pg_count), (1, 1, 64));
    assert_eq!(made.failure_domain, "host");
    let three = json!({"name": "big", "replicas": 3, "pg_count": 8, "failure_domain": "osd", "osd_tags": ["b"]});
    let three = pool(world.ask(make(three)));
    assert_eq!((three.id, three.min_size), (2, 2));
    assert_eq!(world.keys["config/next_pool"].value, "3");

    let changed = pool(world.ask(modify("2", json!({"min_size": 1, "osd_tags": []}))));
    assert_eq!((changed.min_size, changed.osd_tags.len()), (1, 0));
    world.committed = 0;
    assert_eq!(pool(world.ask(modify("big", json!({"min_size": 1})))), changed);
    assert_eq!(world.committed, 0, "nothing to do");

    assert_eq!(world.ask(drop_pool("big")), Ok(AdminAnswer::Done {}));
    assert_eq!(names(&mut world), [(1, "fast".to_owned())]);
    let left = world.keys.keys().any(|key| key.starts_with("pool/2"));
    assert!(!left, "nothing is left of it");
    assert_eq!(pool(world.ask(make(json!({"name": "new", "replicas": 2})))).id, 3);
}

#[test]
fn the_last_pools_id_is_not_used_again_either() {
    let mut world = World::default();
    assert_eq!(world.ask(drop_pool("test")), Ok(AdminAnswer::Done {}));
    with_hosts(&mut world);
    assert_eq!(pool(world.ask(make(json!({"name": "test", "replicas": 2})))).id, 2);
}

#[test]
fn what_is_wrong_with_pools_is_said() {
    let mut world = World::default();
    with_hosts(&mut world);
    let table = [
        (
            make(json!({"name": "test", "replicas": 1})),
            ErrorKind::Exists,
            "exists already",
        ),
        (
            make(json!({"name": "p", "replicas": 3})),
            ErrorKind::Invalid,
            "3 copies on different hosts need 3 hosts, and 2",
        ),
        (
            make(json!({"name": "p", "replicas": 2, "osd_tags": ["b"]})),
            ErrorKind::Invalid,
            "and 1 is known",
        ),
        (
            make(json!({"name": "p", "replicas": 2, "failure_domain": "rack"})),
            ErrorKind::Invalid,
            "there are: host, osd",
        ),
        (
            make(json!({"name": "p", "replicas": 2, "root": "r"})),
            ErrorKind::NotFound,
            "no place r",
        ),
        (
            make(json!({"name": "p", "replicas": 2, "osd_tags": ["x"]})),
            ErrorKind::Conflict,
            "with the tags x",
        ),
        (
            make(json!({"name": "p", "replicas": 2, "root": "a", "osd_tags": ["b"]})),
            ErrorKind::Conflict,
            "no OSD below a with",
        ),
        (
            modify("none", json!({"replicas": 2})),
            ErrorKind::NotFound,
            "there are: test",
        ),
        (modify("test", json!({"min_size": 2})), ErrorKind::Invalid, "min_size 2"),
        (
            modify("test", json!({"failure_domain": "rack"})),
            ErrorKind::Invalid,
            "level rack",
        ),
        (drop_pool("none"), ErrorKind::NotFound, "no pool none"),
        (in_pool("vm", "none"), ErrorKind::NotFound, "no pool none"),
    ];
    for (call, kind, why) in table {
        let error = world.ask(call.clone()).unwrap_err();
        assert_eq!(error.kind, kind, "{call:?}: {error}");
        assert!(error.message.contains(why), "{call:?}: {error}");
    }
    assert_eq!(names(&mut world).len(), 1);
}

#[test]
fn another_number_of_pgs_is_a_wish_until_the_monitor_grants_it() {
    let mut world = World::default();
    for (count, wanted) in [(4, Some(4)), (6, Some(6)), (2, None)] {
        let answer = world.ask(modify("test", json!({"pg_count": count})));
        let Ok(AdminAnswer::Pool(pool)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((pool.pg_count, pool.pgs_wanted), (2, wanted));
    }
}

#[test]
fn a_lone_copy_needs_no_hosts_and_unknown_hosts_none_with_osd() {
    let mut world = World::with_pool(false);
    assert_eq!(
        pool(world.ask(make(json!({"name": "one", "replicas": 1})))).failure_domain,
        "osd"
    );
    let asked = json!({"name": "two", "replicas": 2, "failure_domain": "host"});
    assert_eq!(
        pool(world.ask(make(asked))).failure_domain,
        "host",
        "OSDs may come later"
    );
}

#[test]
fn images_go_where_they_are_told() {
    let mut world = World::default();
    with_hosts(&mut world);
    pool(world.ask(make(json!({"name": "other", "replicas": 2}))));
    assert_eq!(image_pool(world.ask(create("a", 512))), "test");
    assert_eq!(image_pool(world.ask(in_pool("b", "other"))), "other");
    assert_eq!(image_pool(world.ask(in_pool("c", "2"))), "other");
    let id = world.mirror().resolve(b"b").unwrap();
    assert_eq!(id.pool(), PoolId(2));
    let pools = df(&mut world).pools;
    assert_eq!([pools[0].images, pools[1].images], [1, 2]);
    assert_eq!(pools[1].provisioned, 1024);

    let error = world.ask(drop_pool("other")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(
        error.message.contains("2 images live in pool other") && error.message.contains("b, c"),
        "{error}"
    );
    world.hold_osd = true;
    for path in ["b", "c"] {
        world.ask(remove(path)).unwrap();
    }
    // Nobody serves the pool, so the data stays.
    let error = world.ask(drop_pool("other")).unwrap_err();
    assert!(error.message.contains("still being deleted"), "{error}");
}

#[test]
fn without_a_pool_everybody_hears_how_to_make_one() {
    let mut world = World::with_pool(false);
    let error = world.ask(create("vm", 512)).unwrap_err();
    let hint = "there is no pool yet; make one with 'trivet pool create NAME --replicas 2'";
    assert!(error.message.contains(hint), "{error}");
    let error = world.ask(in_pool("vm", "p")).unwrap_err();
    assert!(error.message.contains(hint), "{error}");
    let mut nfs = Nfs::mount(&mut world);
    let arguments = [opaque(&nfs.root), opaque(b"file"), words(&[0; 7])].concat();
    nfs.call(&mut world, 8, &arguments);
    let replies = results(&world.take(nfs.conn));
    assert_eq!(replies[0].1[..4], words(&[28]), "NFS3ERR_NOSPC");
}

#[test]
fn an_image_that_another_gateway_makes_keeps_the_pool() {
    let mut world = World {
        hold_notices: true,
        ..World::default()
    };
    // Its mirror does not have the image when the removal begins.
    world.rival(&Operation::CreateImage {
        path: "theirs".into(),
        size: 512,
    });
    let mut answer = world.call(drop_pool("test"));
    world.hold_notices = false;
    world.run();
    let error = answer.try_recv().unwrap().unwrap_err();
    assert!(error.message.contains("1 image lives in pool test"), "{error}");
    assert!(!world.keys.contains_key("pool/1/removing"), "the mark is gone");
    assert_eq!(image_pool(world.ask(create("own", 512))), "test");
}

#[test]
fn no_image_is_made_in_a_pool_that_goes() {
    let mut world = World::default();
    with_hosts(&mut world);
    pool(world.ask(make(json!({"name": "other", "replicas": 2}))));
    world.ask(create("first", 512)).unwrap();
    world.hold_notices = true;
    world.commit(&[Change::put("pool/2/removing", "{}")]);
    let mut answer = world.call(in_pool("vm", "other"));
    world.hold_notices = false;
    world.run();
    assert!(answer.try_recv().unwrap().is_err(), "the mirror was behind");
    assert_eq!(world.error(in_pool("vm", "other")), ErrorKind::Conflict);
    // Somebody has begun to remove it and died.
    assert_eq!(world.ask(drop_pool("other")), Ok(AdminAnswer::Done {}));
}

#[test]
fn a_refused_change_is_planned_again_and_one_that_never_fits_ends() {
    let mut world = World::default();
    with_hosts(&mut world);
    let other = json!({"name": "other", "replicas": 2, "failure_domain": "osd"});
    world.hold_notices = true;
    world.commit(&[Change::put("config/next_pool", "7")]);
    let mut answer = world.call(make(other));
    assert!(answer.try_recv().is_err() && world.refused == 1);
    world.hold_notices = false;
    world.run();
    assert_eq!(pool(answer.try_recv().unwrap()).id, 7);

    world.lose_txns = 1;
    assert_eq!(
        world.error(modify("other", json!({"min_size": 2}))),
        ErrorKind::Unavailable
    );

    world.hold_txns = true;
    let mut answer = world.call(modify("other", json!({"replicas": 3})));
    for _ in 0..5 {
        // Always one step ahead of it.
        let row = world.keys["pool/7"].value.clone();
        world.commit(&[Change::put("pool/7", row)]);
        world.hold_txns = false;
        world.hold_notices = true;
        world.run();
        world.hold_txns = true;
        world.hold_notices = false;
        world.run();
    }
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, ErrorKind::Conflict);
}

#[test]
fn what_others_commit_to_the_store_keeps_no_refused_change_waiting() {
    let mut world = World::default();
    with_hosts(&mut world);
    let other = json!({"name": "other", "replicas": 2, "failure_domain": "osd"});
    world.hold_notices = true;
    world.commit(&[Change::put("config/next_pool", "7")]);
    world.revision += 1000;
    let mut answer = world.call(make(other));
    world.hold_notices = false;
    world.run();
    assert!(answer.try_recv().is_err() && world.refused == 1);
    world.pass(std::time::Duration::from_millis(250));
    assert_eq!(pool(answer.try_recv().unwrap()).id, 7);
}

#[test]
fn space_is_what_the_fullest_osd_lets_in() {
    let mut world = World::default();
    with_hosts(&mut world);
    world.ask(modify("test", json!({"replicas": 2}))).unwrap();
    let plan = json!({"pgs": [{"osds": [1, 3], "primary": 1}, {"osds": [1, 4], "primary": 1}]});
    put(&mut world, "plan/1", plan);
    for (osd, used) in [(1, 400), (2, 0), (3, 100), (4, 300)] {
        let stats = json!({"path": "/dev/x", "capacity": 1000, "used": used, "objects": 1});
        put(&mut world, &format!("osd/{osd}/stats"), stats);
    }
    let now = df(&mut world);
    assert_eq!((now.raw.total, now.raw.used, now.raw.free), (4000, 800, 3200));
    // OSD 1 has both PGs: 600 more bytes. OSDs 3 and 4 could take twice what is left on them.
    assert_eq!(now.pools[0].max_avail, 600);
    world.pass(std::time::Duration::from_secs(1));
    let space = world.gateway.space();
    assert_eq!((space.total, space.free), (1500, 600), "OSD 2 is not in the plan");

    // What an OSD says within the process wins.
    let report = OsdReport {
        capacity: 1000,
        used: 900,
        ..OsdReport::default()
    };
    world.gateway.osd_report(trivet_core::OsdId(4), report);
    assert_eq!(df(&mut world).pools[0].max_avail, 200);
    assert_eq!(status(&mut world).capacity.used, 1400);
}
