//! The mirror: listings, paths, damage.

use super::*;
use crate::{Entry, FIRST_COOKIE, fuzz};

fn row(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.to_owned().into(),
        mod_revision: 9,
    }
}

fn names(namespace: &Namespace, dir: ImageId, after: u64) -> Vec<String> {
    let name = |entry: Entry<'_>| String::from_utf8(entry.name.to_vec()).unwrap();
    namespace.entries(dir, after).map(name).collect()
}

#[test]
fn cookies_stay() {
    let mut world = World::new();
    let d = world.dir(ROOT, "d");
    for name in ["zebra", "ant", "cow", "bee"] {
        world.file(d, name);
    }
    assert_eq!(names(&world.namespace, d, 0), ["zebra", "ant", "cow", "bee"]);
    let cookies: Vec<u64> = world.namespace.entries(d, 0).map(|entry| entry.cookie).collect();
    assert_eq!(cookies, (FIRST_COOKIE..FIRST_COOKIE + 4).collect::<Vec<_>>());
    world.done(&remove(d, "ant"));
    assert_eq!(names(&world.namespace, d, cookies[0]), ["cow", "bee"]);
    assert_eq!(names(&world.namespace, d, cookies[1]), ["cow", "bee"]);
    world.file(d, "ant");
    assert_eq!(names(&world.namespace, d, cookies[2]), ["bee", "ant"]);
    world.done(&rename((d, "bee"), (d, "cow")));
    assert_eq!(
        names(&world.namespace, d, 0),
        ["zebra", "cow", "ant"],
        "in the place of the old cow"
    );
    assert_eq!(names(&world.namespace, d, u64::MAX), [""; 0]);
    assert_eq!(names(&world.namespace, ImageId(99), 0), [""; 0]);
}

#[test]
fn lookups_and_paths() {
    let mut world = World::new();
    let (d, e) = (world.dir(ROOT, "d"), world.dir(ROOT, "e"));
    let sub = world.dir(d, "sub");
    let file = world.file(sub, "a b\nc");
    let namespace = &world.namespace;
    assert_eq!(namespace.lookup(sub, b".."), Ok(d));
    assert_eq!(namespace.lookup(sub, b"."), Ok(sub));
    assert_eq!(namespace.lookup(ROOT, b".."), Ok(ROOT));
    assert_eq!(namespace.lookup(file, b"."), Err(NsError::NotDir));
    assert_eq!(namespace.lookup(ImageId(99), b"x"), Err(NsError::Stale));
    assert_eq!(namespace.lookup(ROOT, &[b'n'; 256]), Err(NsError::NameTooLong));
    assert_eq!(namespace.path_of(file).unwrap(), b"d/sub/a b\nc");
    assert_eq!(namespace.path_of(ROOT).unwrap(), b"");
    assert_eq!(namespace.path_of(ImageId(99)), None);
    for (id, top, within) in [
        (file, d, true),
        (file, ROOT, true),
        (file, file, true),
        (file, e, false),
        (d, sub, false),
    ] {
        assert_eq!(namespace.is_within(id, top), within, "{id} in {top}");
    }
    world.done(&link(file, e, "two"));
    assert!(world.namespace.is_within(file, e) && world.namespace.is_within(file, d));
}

#[test]
fn damage_is_kept_aside() {
    let world = World::new();
    let mut namespace = world.namespace.clone();
    let bad = [
        ("vfs/entry/1/x", "{}"),
        ("vfs/entry/1/y", r#"{"id":77,"cookie":20}"#),
        ("vfs/inode/50", "nonsense"),
        ("vfs/entry/1/%zz", r#"{"id":1,"cookie":20}"#),
        ("vfs/purge/1", "-1"),
        ("vfs/unknown", "1"),
    ];
    let events = bad.iter().map(|(key, value)| Event::Put(row(key, value))).collect();
    namespace.apply(&Notice::Changes { revision: 9, events });
    let damaged: Vec<_> = namespace.damaged().map(|(key, _)| key).collect();
    assert_eq!(
        damaged,
        [
            "vfs/entry/1/%zz",
            "vfs/entry/1/x",
            "vfs/inode/50",
            "vfs/purge/1",
            "vfs/unknown"
        ]
    );
    let mut numbers = Numbers::default();
    numbers.add(2000, 3000);
    let mut plan = |op: &Operation| namespace.plan(op, &world.context, &mut numbers);
    let is_damage = |result| matches!(result, Err(NsError::Damaged(_)));
    assert!(is_damage(plan(&create(ROOT, "x", CreateHow::Unchecked))));
    assert!(is_damage(plan(&remove(ROOT, "y"))), "no inode");
    assert!(is_damage(plan(&rename((ROOT, "y"), (ROOT, "z")))));
    assert!(is_damage(plan(&set(ImageId(0x50), mode(0)))));
    assert!(namespace.lookup(ROOT, b"y").is_err());
    assert_eq!(namespace.path_of(ImageId(77)).unwrap(), b"y");
    let events = bad.iter().map(|(key, _)| Event::Delete {
        key: (*key).into(),
        revision: 10,
    });
    namespace.apply(&Notice::Changes {
        revision: 10,
        events: events.collect(),
    });
    let mut before = world.namespace.clone();
    before.apply(&Notice::Changes {
        revision: 10,
        events: vec![],
    });
    assert_eq!(namespace, before, "nothing of it is left");
}

#[test]
fn what_is_older_is_passed_over() {
    let mut world = World::new();
    let before = world.store.snapshot();
    let file = world.file(ROOT, "file");
    let there = world.namespace.clone();
    world.namespace.apply(&before);
    assert_eq!(world.namespace, there, "an older snapshot");
    world.done(&remove(ROOT, "file"));
    let gone = world.namespace.clone();
    let repeated = world.store.log.iter().find(|notice| {
        let Notice::Changes { events, .. } = notice else {
            return false;
        };
        events
            .iter()
            .any(|event| matches!(event, Event::Put(row) if row.key == keys::inode(file)))
    });
    world.namespace.apply(repeated.unwrap());
    assert_eq!(world.namespace, gone, "a repeated change");
    let Notice::Snapshot { revision, keys } = before else {
        unreachable!()
    };
    world.namespace.apply(&Notice::Replaced { revision, keys });
    assert_eq!(world.namespace.revision(), revision, "another store");
}

#[test]
fn cycles_from_outside_end() {
    let dir = |parent: u64| {
        format!(
            r#"{{"kind":"dir","mode":493,"uid":0,"gid":0,"size":0,"nlink":2,"atime":[0,0],
            "mtime":[0,0],"ctime":[0,0],"generation":0,"parent":{parent},"next_cookie":90}}"#
        )
    };
    let keys = vec![
        row("vfs/entry/50/b", r#"{"id":81,"cookie":20}"#),
        row("vfs/entry/51/a", r#"{"id":80,"cookie":20}"#),
        row("vfs/inode/50", &dir(81)),
        row("vfs/inode/51", &dir(80)),
    ];
    let mut namespace = Namespace::default();
    namespace.apply(&Notice::Snapshot { revision: 9, keys });
    let (a, b) = (ImageId(80), ImageId(81));
    assert_eq!(namespace.path_of(a), None);
    assert!(!namespace.is_within(a, ImageId(5)) && namespace.is_within(a, b));
}

#[test]
fn any_bytes_will_do() {
    let mut world = World::new();
    let d = world.dir(ROOT, "d");
    world.file(d, "f");
    world.done(&set(world.namespace.resolve(b"d/f").unwrap(), size(5)));
    let mut text = Vec::new();
    for row in world.store.keys.values() {
        text.extend_from_slice(row.key.as_bytes());
        text.push(b' ');
        text.extend_from_slice(&row.value);
        text.push(b'\n');
    }
    fuzz(&text);
    for at in 0..text.len() {
        for byte in [b'0', b'9', b'%', b'"', b'\n', b'-', b'}'] {
            let mut bytes = text.clone();
            bytes[at] = byte;
            fuzz(&bytes);
        }
    }
}
