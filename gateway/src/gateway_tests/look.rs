//! What the gateway machine says of itself, and what it counts.

use std::time::Duration;

use trivet_api::{AdminCall, CallId, ClusterQuestion, ErrorKind};
use trivet_core::ImageId;
use trivet_namespace::Operation;

use super::clients::{Nfs, nbd, write, write_args};
use super::world::{OWN, World, create, info, remove, rename, settings};
use crate::gateway::{Effect, Gateway};
use crate::metrics::{Op, Protocol};
use crate::nfs::NfsServer;
use crate::overview::{Inside, Overview};

/// The images that are counted, and by what protocol, if they are others than when this was asked last.
fn counted(world: &mut World) -> Option<Vec<(Protocol, ImageId)>> {
    let list = world.gateway.metrics.take_changed()?;
    Some(
        list.into_iter()
            .filter_map(|(protocol, image, _)| Some((protocol, image?)))
            .collect(),
    )
}

#[test]
fn counters_go_with_their_image_whoever_removes_it() {
    let mut world = World::default();
    let (kept, gone) = (world.image("kept", 1 << 20), world.image("gone", 1 << 20));
    let mut nfs = Nfs::mount(&mut world);
    for name in ["kept", "gone"] {
        let file = nfs.lookup(&mut world, name);
        nfs.done(&mut world, 7, &write_args(&file, 0, 4096, 1));
    }
    let conn = nbd(&mut world, "gone");
    world.send(conn, &write(0, 4096, 1));
    world.run();
    let three = vec![(Protocol::Nbd, gone), (Protocol::Nfs, kept), (Protocol::Nfs, gone)];
    assert_eq!(counted(&mut world).unwrap_or_default(), three);

    world.ask(rename("gone", "elsewhere")).unwrap();
    assert_eq!(counted(&mut world), None, "its name is no concern of the counters");
    world.rival(&Operation::RemoveImage {
        path: b"elsewhere".to_vec(),
    });
    world.run();
    assert_eq!(counted(&mut world), Some(vec![(Protocol::Nfs, kept)]));
    // A client that has it open is not counted again.
    world.send(conn, &write(4096, 4096, 1));
    world.run();
    assert_eq!(counted(&mut world), None);
}

#[test]
fn counters_of_images_that_a_snapshot_does_not_have_are_forgotten() {
    let mut world = World::default();
    let image = world.image("vm", 1 << 20);
    let conn = nbd(&mut world, "vm");
    world.send(conn, &write(0, 4096, 1));
    world.run();
    assert_eq!(counted(&mut world), Some(vec![(Protocol::Nbd, image)]));
    let reading = world.gateway.metrics.export(Protocol::Nbd, image).read(Op::Write);
    assert_eq!((reading.count, reading.bytes), (1, 4096));
    world.rival(&Operation::RemoveImage { path: b"vm".to_vec() });
    world.snapshot();
    assert_eq!(counted(&mut world), Some(Vec::new()));
}

#[test]
fn before_the_metadata_is_read_nothing_is_taken_for_empty() {
    let clock = World::default().clock;
    let mut overview = Overview::new(OWN);
    let inside = Inside::default();
    for call in [
        AdminCall::ImageList,
        info("vm"),
        AdminCall::OsdList,
        AdminCall::Ask(ClusterQuestion::Pools),
    ] {
        let error = overview.answer(clock, &call, Some(&inside)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{call:?}");
    }
    assert!(overview.answer(clock, &AdminCall::Status, Some(&inside)).is_ok());

    let mut gateway = Gateway::new(OWN, clock, NfsServer::new(settings()), 1);
    for call in [create("vm", 512), remove("vm"), AdminCall::Scrub] {
        let mut effects = Vec::new();
        gateway.admin(clock, CallId(1), call.clone(), &mut effects);
        let refused = |effect: &Effect| matches!(effect, Effect::Answered(CallId(1), Err(error)) if error.kind == ErrorKind::Unavailable);
        assert!(effects.iter().any(refused), "{call:?}");
    }
}

#[test]
fn it_says_who_is_connected_and_how_it_is() {
    let mut world = World::default();
    world.image("vm", 1 << 20);
    let first = nbd(&mut world, "vm");
    let _second = nbd(&mut world, "vm");
    let _third = Nfs::mount(&mut world);
    world.leave(first);
    world.pass(Duration::from_secs(2));
    let inside = world.gateway.look(world.clock);
    let clients = inside.clients;
    assert_eq!((clients.nbd, clients.iscsi, clients.nfs), (1, 0, 1));
    assert_eq!(inside.uptime, Duration::from_secs(2));
    assert!(
        inside.gateway.serves && inside.gateway.opens && inside.broken.is_empty(),
        "{inside:?}"
    );
}
