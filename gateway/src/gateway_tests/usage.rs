//! What images and pools take, as OSDs report it and administrators see it.

use serde_json::{Value, json};
use trivet_api::{AdminAnswer, AdminCall, ClusterQuestion, ImageInfo, PoolInfo};
use trivet_core::OBJECT_SIZE;
use trivet_core::kv::Change;

use super::world::{World, create, info};

fn put(world: &mut World, key: &str, value: &Value) {
    world.commit(&[Change::put(key, value.to_string())]);
    world.run();
}

fn image(world: &mut World, path: &str) -> ImageInfo {
    match world.ask(info(path)) {
        Ok(AdminAnswer::Image(image)) => image,
        other => panic!("{other:?}"),
    }
}

fn pool(world: &mut World) -> PoolInfo {
    match world.ask(AdminCall::Ask(ClusterQuestion::Df)) {
        Ok(AdminAnswer::Df(df)) => df.pools[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reports_of_all_osds_add_up() {
    let mut world = World::default();
    world.ask(create("disk", 1 << 20)).unwrap();
    let id = image(&mut world, "disk").id;
    for osd in [1, 2] {
        put(
            &mut world,
            &format!("osd/{osd}/state"),
            &json!({"boot": osd, "size": 1}),
        );
    }
    let report = json!({"pools": {"1": {"used": 8192, "objects": 2, "copies": 3}, "9": {"used": 1}}});
    put(&mut world, "usage/1/pools", &report);
    let images = json!({"boot": 1, "images": {&id: {"used": 8192, "objects": 2, "write": [3, 12_288, 40]}}});
    put(&mut world, "usage/1/images/0", &images);
    assert_eq!(image(&mut world, "disk").used, None, "OSD 2 has said nothing");
    assert_eq!(pool(&mut world).used, None);

    put(
        &mut world,
        "usage/2/pools",
        &json!({"pools": {"1": {"used": 4096, "objects": 1, "copies": 3}}}),
    );
    let images = json!({"boot": 2, "images": {&id: {"used": 4096, "objects": 1, "read": [1, 512, 9]}}});
    put(&mut world, "usage/2/images/7", &images);
    let disk = image(&mut world, "disk");
    assert_eq!((disk.used, disk.objects), (Some(12_288), Some(3)));
    let ops = disk.ops.unwrap();
    assert_eq!((ops.write.count, ops.write.bytes, ops.write.time_us), (3, 12_288, 40));
    assert_eq!((ops.read.count, ops.zero.count), (1, 0));
    let all = pool(&mut world);
    assert_eq!((all.used, all.objects), (Some(12_288), Some(3)));
    assert_eq!(all.raw_used, Some(6 * OBJECT_SIZE as u64));
    assert_eq!(all.ops, Some(ops));

    world.ask(create("fresh", 512)).unwrap();
    assert_eq!(image(&mut world, "fresh").used, Some(0));

    // OSD 2 is gone with its lease; its PGs are not served.
    let gone = ["osd/2/state", "usage/2/pools", "usage/2/images/7"].map(|key| Change::Delete(key.to_owned()));
    world.commit(&gone);
    world.run();
    assert_eq!(image(&mut world, "disk").used, Some(8192));
    assert_eq!(pool(&mut world).raw_used, Some(3 * OBJECT_SIZE as u64));
}
