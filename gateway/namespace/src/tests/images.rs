//! The administrator's operations, by path.

use super::*;

fn image(path: &str, size: u64) -> Operation {
    Operation::CreateImage {
        path: path.into(),
        size,
    }
}

#[test]
fn images_by_path() {
    let mut world = World::new();
    world.as_user(7, |world| {
        let id = world.node(&image("vms/web 01/disk", 1 << 30));
        assert_eq!(world.namespace.resolve(b"vms/web 01/disk"), Ok(id));
        let inode = world.inode(id);
        assert_eq!((inode.size, inode.uid), (1 << 30, 0), "as the administrator");
        let other = world.node(&image("/vms//web 02/disk", 1));
        let mut files: Vec<_> = world.namespace.files().collect();
        files.sort();
        let want = [(b"vms/web 01/disk".to_vec(), id), (b"vms/web 02/disk".to_vec(), other)];
        assert_eq!(files, want);
        world.done(&Operation::Resize { id, size: 2 << 30 });
        assert_eq!(world.inode(id).size, 2 << 30);
        let renamed = Operation::RenameImage {
            from: "vms/web 01/disk".into(),
            to: "vms/d".into(),
        };
        world.done(&renamed);
        assert_eq!(world.namespace.resolve(b"vms/d"), Ok(id));
        world.done(&Operation::RemoveImage { path: "vms/d".into() });
        assert_eq!(world.namespace.purges().collect::<Vec<_>>(), [(id, 2 << 30)]);
    });
}

#[test]
fn failures() {
    let mut world = World::new();
    let id = world.node(&image("a/b/disk", 1));
    world.node(&image("a/other", 1));
    let remove = |path: &str| Operation::RemoveImage { path: path.into() };
    let rename = |from: &str, to: &str| Operation::RenameImage {
        from: from.into(),
        to: to.into(),
    };
    let deep = "d/".repeat(41) + "x";
    let table = [
        (image("a/b/disk", 1), NsError::Exists),
        (image("a/b", 1), NsError::Exists),
        (image("a/other/x", 1), NsError::NotDir),
        (image("", 1), NsError::Inval),
        (image("a/../x", 1), NsError::Inval),
        (image("x", u64::MAX), NsError::FileTooBig),
        (image(&deep, 1), NsError::TooDeep),
        (remove("a"), NsError::IsDir),
        (remove("a/none"), NsError::NotFound),
        (remove("none/x"), NsError::NotFound),
        (rename("a/none", "x"), NsError::NotFound),
        (rename("a/other", "a/b/disk"), NsError::Exists),
        (rename("a/other", "none/x"), NsError::NotFound),
        (rename("a", "a/b/c"), NsError::Inval),
        (Operation::Resize { id: ROOT, size: 1 }, NsError::IsDir),
        (
            Operation::Resize {
                id: ImageId(99),
                size: 1,
            },
            NsError::Stale,
        ),
    ];
    for (operation, error) in table {
        assert_eq!(world.run(&operation), Err(error), "{operation:?}");
    }
    let deepest = "d/".repeat(40) + "x";
    world.node(&image(&deepest, 1));
    world.done(&Operation::Resize { id, size: 1 });
}

#[test]
fn files_without_names_are_found_again() {
    let mut world = World::new();
    let known = world.node(&image("a", 1));
    let removed = world.node(&image("b", 1));
    world.done(&Operation::RemoveImage { path: "b".into() });
    let lost: Vec<(ImageId, u64)> = (0..30).map(|n| (ImageId::new(PoolId(1), 5000 + n), 100 + n)).collect();
    let mut steps = 0;
    loop {
        let files = [(known, 9), (removed, 9)].into_iter().chain(lost.iter().copied());
        let Some(plan) = world.namespace.plan_lost(files, 6000, &world.context).unwrap() else {
            break;
        };
        assert!(matches!(world.store.run(&plan.txn), TxnOutcome::Committed(_)));
        world.namespace.apply(world.store.log.last().unwrap());
        steps += 1;
    }
    assert_eq!(steps, 2, "not all fit into one transaction");
    world.store.check();
    for (id, size) in lost {
        let path = format!("lost+found/{id}");
        assert_eq!(world.namespace.resolve(path.as_bytes()), Ok(id));
        assert_eq!(world.inode(id).size, size);
    }
    let dir = world.namespace.resolve(b"lost+found").unwrap();
    assert_eq!(dir, ImageId(6000), "above all that was ever given");
    world.numbers = Numbers::default();
    let next = world.node(&image("c", 1));
    assert!(next.number() > 6000, "what is reserved from now on comes behind");
}
