//! What administrators do with images.

use trivet_api::{AdminAnswer, AdminCall, ErrorKind, ImageInfo, MAX_IMAGE_SIZE};
use trivet_core::kv::Change;

use super::world::{World, create, info, remove, rename, resize};

fn one(answer: Result<AdminAnswer, trivet_api::AdminError>) -> ImageInfo {
    match answer {
        Ok(AdminAnswer::Image(info)) => info,
        other => panic!("{other:?}"),
    }
}

fn list(world: &mut World) -> Vec<(String, u64)> {
    match world.ask(AdminCall::ImageList) {
        Ok(AdminAnswer::Images(list)) => list.images.into_iter().map(|image| (image.path, image.size)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_lives() {
    for notices_first in [false, true] {
        let mut world = World {
            notices_first,
            ..World::default()
        };
        let made = one(world.ask(create("vms/web", 4096)));
        assert_eq!((&*made.path, made.size, made.modified), ("vms/web", 4096, Some(1_000)));
        assert_eq!(one(world.ask(info("vms/web"))), made);
        world.image("a", 512);
        assert_eq!(list(&mut world), [("a".to_owned(), 512), ("vms/web".to_owned(), 4096)]);
        assert_eq!(one(world.ask(resize("vms/web", 1 << 22))).size, 1 << 22);
        assert_eq!(one(world.ask(resize("vms/web", 1 << 20))).size, 1 << 20);
        let moved = one(world.ask(rename("vms/web", "db")));
        assert_eq!((&*moved.path, &moved.id, moved.size), ("db", &made.id, 1 << 20));
        assert_eq!(world.error(info("vms/web")), ErrorKind::NotFound);
        assert_eq!(world.ask(remove("db")), Ok(AdminAnswer::Done {}));
        assert_eq!(list(&mut world), [("a".to_owned(), 512)]);
    }
}

#[test]
fn every_error_has_its_kind() {
    let mut world = World::default();
    world.image("dir/image", 4096);
    world.image("other", 4096);
    let long = "x".repeat(256);
    for (call, kind) in [
        (info("none"), ErrorKind::NotFound),
        (info("dir"), ErrorKind::NotFound),
        (info("dir/none"), ErrorKind::NotFound),
        (remove("none"), ErrorKind::NotFound),
        (remove("dir"), ErrorKind::NotFound),
        (resize("none", 512), ErrorKind::NotFound),
        (rename("none", "new"), ErrorKind::NotFound),
        (rename("other", "none/new"), ErrorKind::NotFound),
        (create("other", 512), ErrorKind::Exists),
        (create("dir", 512), ErrorKind::Exists),
        (rename("other", "dir/image"), ErrorKind::Exists),
        (rename("other", "dir"), ErrorKind::Exists),
        (create("other/below", 512), ErrorKind::Conflict),
        (info("other/below"), ErrorKind::Conflict),
        (rename("other", "dir/image/below"), ErrorKind::Conflict),
        (create(&"d/".repeat(60), 512), ErrorKind::Conflict),
        (create(&long, 512), ErrorKind::Invalid),
        (rename("other", &long), ErrorKind::Invalid),
        (create("..", 512), ErrorKind::Invalid),
        (create("big", MAX_IMAGE_SIZE + 512), ErrorKind::Invalid),
        (resize("other", u64::MAX), ErrorKind::Invalid),
        (AdminCall::OsdStop { osd: 1 }, ErrorKind::NotFound),
    ] {
        assert_eq!(world.error(call.clone()), kind, "{call:?}");
    }
    assert_eq!(list(&mut world).len(), 2);
    assert_eq!(one(world.ask(create("largest", MAX_IMAGE_SIZE))).size, MAX_IMAGE_SIZE);
}

#[test]
fn without_a_pool_there_are_no_images() {
    let mut world = World::with_pool(false);
    assert_eq!(world.error(create("vm", 512)), ErrorKind::Unavailable);
}

#[test]
fn when_all_numbers_are_used_creating_fails() {
    let mut world = World::default();
    world.commit(&[Change::put("config/next_image", format!("{}", 1_u64 << 48))]);
    world.run();
    assert_eq!(world.error(create("vm", 512)), ErrorKind::NoSpace);
    assert_eq!(world.error(create("again", 512)), ErrorKind::NoSpace);
}

#[test]
fn an_administrator_who_left_stops_nothing() {
    let mut world = World {
        hold_txns: true,
        ..World::default()
    };
    drop(world.call(create("vm", 512)));
    world.hold_txns = false;
    world.run();
    assert_eq!(list(&mut world).len(), 1);
}
