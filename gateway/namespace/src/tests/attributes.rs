//! Attributes, sizes and truncations.

use super::*;
use crate::{MAX_SIZE, SetTime, Trimming};

fn world() -> (World, ImageId) {
    let mut world = World::new();
    let id = world.as_user(7, |world| {
        world.context.caller.uid = 0;
        let id = world.file(ROOT, "file");
        world.done(&set(
            id,
            Attributes {
                uid: Some(7),
                gid: Some(7),
                ..mode(0o640)
            },
        ));
        id
    });
    (world, id)
}

fn owner(uid: Option<u32>, gid: Option<u32>) -> Attributes {
    Attributes {
        uid,
        gid,
        ..Attributes::default()
    }
}

#[test]
fn who_may_set_what() {
    let at = SetTime::To(Time { sec: 5, nsec: 6 });
    let mtime = |mtime| Attributes {
        mtime,
        ..Attributes::default()
    };
    let table = [
        (7, mode(0o600), None),
        (8, mode(0o600), Some(NsError::Perm)),
        (0, owner(Some(9), Some(9)), None),
        (7, owner(Some(7), Some(7)), None),
        (7, owner(Some(9), None), Some(NsError::Perm)),
        (7, owner(None, Some(9)), Some(NsError::Perm)),
        (8, owner(None, Some(8)), Some(NsError::Perm)),
        (7, mtime(at), None),
        (8, mtime(at), Some(NsError::Perm)),
        (7, mtime(SetTime::Now), None),
        (8, mtime(SetTime::Now), Some(NsError::Access)),
        (
            0,
            mtime(SetTime::To(Time {
                sec: 0,
                nsec: 1_000_000_000,
            })),
            Some(NsError::Inval),
        ),
        (7, size(10), None),
        (8, size(10), Some(NsError::Access)),
        (0, size(MAX_SIZE), None),
        (0, size(MAX_SIZE + 1), Some(NsError::FileTooBig)),
    ];
    for (uid, changes, error) in table {
        let (mut world, id) = world();
        let result = world.as_user(uid, |world| world.run(&set(id, changes)));
        assert_eq!(result, error.map_or(Ok(Outcome::Done), Err), "{uid} {changes:?}");
    }
    let (mut world, _) = world();
    assert_eq!(world.run(&set(ROOT, size(1))), Err(NsError::IsDir));
    assert_eq!(world.run(&set(ImageId(99), mode(1))), Err(NsError::Stale));
}

#[test]
fn everything_at_once() {
    let (mut world, id) = world();
    let (atime, mtime) = (Time { sec: -1, nsec: 7 }, Time { sec: 5, nsec: 6 });
    world.done(&set(
        id,
        Attributes {
            mode: Some(0o4751),
            uid: Some(12345),
            gid: Some(54321),
            size: Some(77),
            atime: SetTime::To(atime),
            mtime: SetTime::To(mtime),
        },
    ));
    let inode = world.inode(id);
    assert_eq!(
        (inode.mode, inode.uid, inode.gid, inode.size),
        (0o4751, 12345, 54321, 77)
    );
    assert_eq!((inode.atime, inode.mtime), (atime, mtime));
    assert!(inode.ctime >= world.context.now);
}

#[test]
fn set_id_bits_fall() {
    let (mut world, id) = world();
    for (before, after) in [(0o6755, 0o755), (0o6745, 0o2745)] {
        for gid in [8, 9] {
            world.done(&set(id, mode(before)));
            world.done(&set(id, owner(None, Some(gid))));
            assert_eq!(world.inode(id).mode, after, "{before:o}");
        }
    }
    world.as_user(7, |world| world.done(&set(id, mode(0o2755))));
    assert_eq!(world.inode(id).mode, 0o755, "not in the file's group");
}

#[test]
fn the_guard_and_the_ctime() {
    let (mut world, id) = world();
    let guard = world.inode(id).ctime;
    let guarded = |guard| Operation::SetAttr {
        id,
        changes: mode(0o600),
        guard_ctime: Some(guard),
    };
    world.done(&guarded(guard));
    assert_eq!(world.run(&guarded(guard)), Err(NsError::NotSync));
    world.context.now = Time::default();
    let before = world.inode(id).ctime;
    world.done(&guarded(before));
    assert!(world.inode(id).ctime > before, "another gateway's clock may be behind");
    let revision = world.store.revision;
    world.done(&set(id, Attributes::default()));
    assert_eq!(world.store.revision, revision);
}

#[test]
fn growing() {
    let (mut world, id) = world();
    let grow = |size, sec| Operation::Grow {
        id,
        size,
        mtime: Time { sec, nsec: 0 },
        cut: None,
    };
    for (size, sec, want) in [(100, 5000, 100), (50, 5001, 100), (101, 5002, 101), (0, 5003, 101)] {
        world.done(&grow(size, sec));
        let inode = world.inode(id);
        assert_eq!((inode.size, inode.mtime), (want, Time { sec, nsec: 0 }));
        assert_eq!(inode.ctime, inode.mtime);
    }
    assert_eq!(world.run(&grow(MAX_SIZE + 1, 1)), Err(NsError::FileTooBig));
    let dir = Operation::Grow {
        id: ROOT,
        size: 1,
        mtime: Time::default(),
        cut: None,
    };
    assert_eq!(world.run(&dir), Err(NsError::Inval));
    world.done(&remove(ROOT, "file"));
    assert_eq!(world.run(&grow(1, 1)), Err(NsError::Stale));
}

#[test]
fn times_of_several_files() {
    let (mut world, id) = world();
    let (other, gone) = (world.file(ROOT, "other"), world.file(ROOT, "gone"));
    world.done(&remove(ROOT, "gone"));
    let times = |sec| {
        vec![
            (id, Time { sec, nsec: 0 }),
            (gone, Time { sec, nsec: 0 }),
            (other, Time { sec, nsec: 1 }),
        ]
    };
    for sec in [5000, 5001] {
        world.done(&Operation::Touch { times: times(sec) });
        let mtimes = [id, other].map(|id| world.inode(id).mtime);
        assert_eq!(mtimes, [Time { sec, nsec: 0 }, Time { sec, nsec: 1 }]);
        assert_eq!(world.inode(id).ctime, mtimes[0]);
    }
    world.done(&Operation::Touch { times: times(1) });
    assert_eq!(world.inode(id).mtime, Time { sec: 5001, nsec: 1 }, "never back");
    let nothing = vec![(ROOT, Time { sec: 9000, nsec: 0 }), (gone, Time::default())];
    world.done(&Operation::Touch { times: nothing });
}

#[test]
fn a_truncation_is_finished_before_the_size_changes_again() {
    let (mut world, id) = world();
    world.done(&set(id, size(1000)));
    assert_eq!(world.inode(id).trimming, None);
    world.done(&set(id, size(300)));
    let trimming = Trimming {
        from: 300,
        to: 1000,
        by: ClientId(1),
    };
    assert_eq!(world.namespace.trims().collect::<Vec<_>>(), [(id, trimming)]);
    let cut = world.inode(id).cut;
    assert_eq!(cut, Some(world.inode(id).ctime));
    let grow = |size| Operation::Grow {
        id,
        size,
        mtime: Time { sec: 1, nsec: 0 },
        cut,
    };
    world.done(&grow(300));
    for later in [
        // It is that small, but other gateways may still write what was cut off.
        set(id, size(300)),
        set(id, size(301)),
        set(id, size(1)),
        grow(301),
        Operation::Resize { id, size: 9 },
    ] {
        assert_eq!(world.run(&later), Err(NsError::Trimming(trimming)), "{later:?}");
    }
    // Another gateway takes over; what the first one then reports does not count.
    world.context.gateway = ClientId(2);
    world.done(&Operation::TakeTrim { id, trimming });
    let taken = Trimming {
        by: ClientId(2),
        ..trimming
    };
    world.done(&Operation::TrimDone { id, trimming });
    assert_eq!(world.inode(id).trimming, Some(taken));
    world.done(&Operation::TrimDone { id, trimming: taken });
    assert_eq!(world.namespace.trims().count(), 0);
    world.done(&grow(301));
    world.done(&set(id, size(0)));
    assert_eq!(
        world.run(&grow(400)),
        Err(NsError::Cut),
        "what was written before is gone"
    );
    world.done(&remove(ROOT, "file"));
    assert_eq!(
        world.namespace.purges().collect::<Vec<_>>(),
        [(id, 301)],
        "all that was written"
    );
    assert_eq!(world.namespace.trims().count(), 0);
    world.done(&Operation::TrimDone { id, trimming: taken });
}
