//! What OSDs count and report: written units once, whoever is the primary, and what is given back.

use trivet_client::ImageOp;
use trivet_core::usage::ImageUsage;
use trivet_core::{ImageId, OBJECT_SIZE, OsdId};

use crate::world::World;
use crate::{SIZE, pass};

const OBJECT: u64 = OBJECT_SIZE as u64;

fn run(world: &mut World, image: ImageId, op: ImageOp) {
    let ticket = world.submit(image, op);
    world.finish(ticket).unwrap();
}

fn zero(offset: u64, len: u64) -> ImageOp {
    ImageOp::Zero { offset, len }
}

/// What all OSDs answered of an image.
fn ops(world: &World, image: ImageId) -> [(u64, u64); 3] {
    let usages: Vec<ImageUsage> = (1..=3).map(|osd| world.usage(OsdId(osd), image)).collect();
    let sum = |of: fn(&ImageUsage) -> (u64, u64)| {
        usages
            .iter()
            .map(of)
            .fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    };
    [
        sum(|usage| (usage.ops.read.count, usage.ops.read.bytes)),
        sum(|usage| (usage.ops.write.count, usage.ops.write.bytes)),
        sum(|usage| (usage.ops.zero.count, usage.ops.zero.bytes)),
    ]
}

#[test]
fn what_is_written_counts_once_and_is_given_back() {
    let mut world = World::new(21, 3);
    let image = World::image(1);
    let write = |offset, len: usize| ImageOp::Write {
        offset,
        data: vec![vec![1; len].into()],
    };
    let steps: [(&str, ImageOp, (u64, u64)); 11] = [
        ("a unit", write(0, 4096), (4096, 1)),
        ("the same unit", write(0, 4096), (4096, 1)),
        ("a part of it", write(100, 8), (4096, 1)),
        ("a byte makes a unit", write(OBJECT, 1), (8192, 2)),
        ("across objects", write(2 * OBJECT - 4096, 8192), (16_384, 3)),
        (
            "whole objects",
            write(3 * OBJECT, 2 * OBJECT_SIZE),
            (16_384 + 2 * OBJECT, 5),
        ),
        ("a discard of a part of a unit", zero(0, 100), (16_384 + 2 * OBJECT, 5)),
        ("a discard of units", zero(3 * OBJECT, 8192), (8192 + 2 * OBJECT, 5)),
        ("what was never written", zero(5 * OBJECT, 4096), (8192 + 2 * OBJECT, 5)),
        ("whole objects go", zero(3 * OBJECT, 2 * OBJECT), (16_384, 3)),
        ("all of it goes", ImageOp::Purge, (0, 0)),
    ];
    for (name, op, counted) in steps {
        run(&mut world, image, op);
        while world.turn() {}
        assert_eq!(world.counted(image), counted, "{name}");
    }
    world.read(image, 0, OBJECT).unwrap();
    let [reads, writes, zeroes] = ops(&world, image);
    assert_eq!(reads, (1, OBJECT));
    assert_eq!(writes, (8, 2 * 4096 + 8 + 1 + 8192 + 2 * OBJECT));
    assert_eq!(zeroes, (5, 100 + 8192 + 4096 + 2 * OBJECT), "a purge is no discard");
}

#[test]
fn another_primary_counts_the_same() {
    let mut world = World::new(22, 3);
    let (one, two) = (World::image(1), World::image(2));
    let write = |world: &mut World, image, offset, len| world.write(image, offset, vec![3; len]).unwrap();
    write(&mut world, one, 0, 3 * OBJECT_SIZE);
    write(&mut world, two, OBJECT, 8192);
    world.heal();
    let counted = [(3 * OBJECT, 3), (8192, 1)];
    let now = |world: &World| [world.counted(one), world.counted(two)];
    assert_eq!(now(&world), counted);
    for osd in [1, 2, 3].map(OsdId) {
        world.stop(osd);
        // Everything is read, so everything is served.
        world.read(one, 0, SIZE).unwrap();
        world.read(two, 0, SIZE).unwrap();
        pass(&mut world, 20);
        assert_eq!(now(&world), counted, "without OSD {osd}");
        // Overwritten and written anew while it is away.
        write(&mut world, one, 4096, 4096);
        world.start(osd);
        world.heal();
        pass(&mut world, 20);
        assert_eq!(now(&world), counted, "with OSD {osd} again");
    }
    run(&mut world, one, ImageOp::Purge);
    pass(&mut world, 700);
    assert_eq!(now(&world), [(0, 0), (8192, 1)]);
}

/// The reports of an OSD: keys without their prefix, with their values and commits.
fn reports(world: &World, osd: u32) -> Vec<(String, String, u64)> {
    world.shown(&format!("usage/{osd}/"))
}

#[test]
fn reports_are_written_when_something_changed() {
    let mut world = World::new(23, 3);
    pass(&mut world, 30);
    for osd in 1..=3 {
        let [(_, pools, _)] = &reports(&world, osd)[..] else {
            panic!("{:?}", reports(&world, osd))
        };
        assert_eq!(pools, r#"{"pools":{}}"#);
    }
    let image = World::image(1);
    world.write(image, 0, vec![1; 4 * OBJECT_SIZE]).unwrap();
    pass(&mut world, 60);
    let all: Vec<_> = (1..=3).flat_map(|osd| reports(&world, osd)).collect();
    let (images, pools): (Vec<_>, Vec<_>) = all.iter().partition(|(key, ..)| key.ends_with("/images/0"));
    assert_eq!(pools.len(), 3);
    assert!(!images.is_empty() && all.len() == 3 + images.len(), "{all:?}");
    assert!(images[0].1.contains(&format!(r#""{image}":{{"used":"#)), "{images:?}");

    pass(&mut world, 300);
    let later: Vec<_> = (1..=3).flat_map(|osd| reports(&world, osd)).collect();
    assert_eq!(later, all, "nothing changed, nothing was written");

    world.read(image, 0, 4096).unwrap();
    pass(&mut world, 60);
    let after: Vec<_> = (1..=3).flat_map(|osd| reports(&world, osd)).collect();
    let changed: Vec<_> = after.iter().zip(&all).filter(|(new, old)| new != old).collect();
    assert_eq!(changed.len(), 1, "one OSD was asked");
    assert!(changed[0].0.1.contains(r#""read":[1,4096,"#), "{changed:?}");

    // Reports go with their OSD, and come again with it.
    world.stop(OsdId(1));
    assert_eq!(reports(&world, 1), []);
    world.start(OsdId(1));
    world.heal();
    pass(&mut world, 80);
    assert!(!reports(&world, 1).is_empty());
    let copies = |osd| {
        reports(&world, osd)
            .iter()
            .any(|(_, value, _)| value.contains(r#""copies":"#))
    };
    assert!((1..=3).all(copies));
}

#[test]
fn an_osd_whose_disk_does_not_answer_takes_its_reports_back() {
    let mut world = World::new(24, 3);
    let image = World::image(1);
    world.write(image, 0, vec![1; 6 * OBJECT_SIZE]).unwrap();
    world.heal();
    pass(&mut world, 60);
    let before = reports(&world, 2);
    assert_eq!(before.len(), 2, "{before:?}");
    world.frozen = Some(OsdId(2));
    let write = ImageOp::Write {
        offset: 0,
        data: vec![vec![2; 6 * OBJECT_SIZE].into()],
    };
    let ticket = world.submit(image, write);
    pass(&mut world, 70);
    assert!(!world.is_shown(OsdId(2)), "its disk is taken for dead");
    assert_eq!(reports(&world, 2), []);
    let others: Vec<_> = [1, 3].into_iter().flat_map(|osd| reports(&world, osd)).collect();
    assert!(others.len() == 4 && world.is_shown(OsdId(1)), "{others:?}");

    world.frozen = None;
    world.finish(ticket).unwrap();
    world.heal();
    pass(&mut world, 80);
    assert_eq!(reports(&world, 2).len(), 2);
    assert_eq!(world.counted(image), (6 * OBJECT, 6));
}
