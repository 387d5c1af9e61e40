//! Names: what each operation does, and each way it can fail.

use super::*;
use crate::{Kind, MAX_NAME, Special};

/// a file; d/ with d/f; e/ empty; deep: d/sub/below.
fn tree() -> (World, [ImageId; 6]) {
    let mut world = World::new();
    let file = world.file(ROOT, "file");
    let d = world.dir(ROOT, "d");
    let f = world.file(d, "f");
    let e = world.dir(ROOT, "e");
    let sub = world.dir(d, "sub");
    let below = world.dir(sub, "below");
    (world, [file, d, f, e, sub, below])
}

const GONE: ImageId = ImageId(0x999);

#[test]
fn failures() {
    let (mut world, [file, d, _, e, ..]) = tree();
    let long = "n".repeat(MAX_NAME + 1);
    let special = |special| Operation::MakeNode {
        parent: ROOT,
        name: "x".into(),
        special,
        attributes: Attributes::default(),
    };
    let table = [
        (create(ROOT, "file", CreateHow::Guarded), NsError::Exists),
        (create(ROOT, "file", CreateHow::Exclusive(5)), NsError::Exists),
        (create(ROOT, "d", CreateHow::Unchecked), NsError::Exists),
        (create(ROOT, ".", CreateHow::Unchecked), NsError::Exists),
        (create(ROOT, "", CreateHow::Unchecked), NsError::Inval),
        (create(ROOT, "a/b", CreateHow::Unchecked), NsError::Inval),
        (create(ROOT, "a\0b", CreateHow::Unchecked), NsError::Inval),
        (create(ROOT, &long, CreateHow::Unchecked), NsError::NameTooLong),
        (create(file, "x", CreateHow::Unchecked), NsError::NotDir),
        (create(GONE, "x", CreateHow::Unchecked), NsError::Stale),
        (remove(ROOT, "none"), NsError::NotFound),
        (remove(ROOT, "e"), NsError::IsDir),
        (remove(ROOT, "."), NsError::IsDir),
        (remove(ROOT, &long), NsError::NameTooLong),
        (remove(file, "x"), NsError::NotDir),
        (remove(GONE, "x"), NsError::Stale),
        (remove_dir(ROOT, "none"), NsError::NotFound),
        (remove_dir(ROOT, "file"), NsError::NotDir),
        (remove_dir(ROOT, "d"), NsError::NotEmpty),
        (remove_dir(ROOT, "."), NsError::Inval),
        (remove_dir(d, ".."), NsError::NotEmpty),
        (Operation::Reserve { count: 0 }, NsError::Inval),
        (Operation::Reserve { count: 1 << 21 }, NsError::Inval),
    ];
    for (operation, error) in table {
        assert_eq!(world.run(&operation), Err(error), "{operation:?}");
    }
    world.context.pool = None;
    assert_eq!(
        world.run(&create(ROOT, "x", CreateHow::Unchecked)),
        Err(NsError::NoPool)
    );
    world.node(&special(Special::Fifo));
    assert_eq!(world.run(&rename((ROOT, "x"), (e, ""))), Err(NsError::Inval));
    let device = special(Special::Block(8, 1));
    world.as_user(7, |world| assert_eq!(world.run(&device), Err(NsError::Exists)));
}

#[test]
fn failures_of_making() {
    let (mut world, [file, d, ..]) = tree();
    let symlink = |name: &str, target: &[u8]| Operation::Symlink {
        parent: ROOT,
        name: name.into(),
        target: target.into(),
        attributes: Attributes::default(),
    };
    let table = [
        (make_dir(ROOT, "file"), NsError::Exists),
        (make_dir(ROOT, ".."), NsError::Exists),
        (make_dir(GONE, "x"), NsError::Stale),
        (symlink("file", b"x"), NsError::Exists),
        (symlink("x", b""), NsError::Inval),
        (symlink("x", &[b'x'; 4096]), NsError::NameTooLong),
        (link(d, ROOT, "x"), NsError::IsDir),
        (link(file, ROOT, "d"), NsError::Exists),
        (link(GONE, ROOT, "x"), NsError::Stale),
        (link(file, file, "x"), NsError::NotDir),
    ];
    for (operation, error) in table {
        assert_eq!(world.run(&operation), Err(error), "{operation:?}");
    }
}

#[test]
fn failures_of_renames() {
    let (mut world, [file, d, _, _, sub, below]) = tree();
    let long = "n".repeat(MAX_NAME + 1);
    let table = [
        (rename((ROOT, "none"), (ROOT, "x")), NsError::NotFound),
        (rename((ROOT, "file"), (ROOT, "e")), NsError::IsDir),
        (rename((ROOT, "e"), (ROOT, "file")), NsError::NotDir),
        (rename((ROOT, "e"), (ROOT, "d")), NsError::NotEmpty),
        (rename((ROOT, "e"), (ROOT, "..")), NsError::Inval),
        (rename((ROOT, "file"), (ROOT, &long)), NsError::NameTooLong),
        (rename((ROOT, "d"), (d, "x")), NsError::Inval),
        (rename((ROOT, "d"), (sub, "x")), NsError::Inval),
        (rename((ROOT, "d"), (below, "x")), NsError::Inval),
        (rename((ROOT, "e"), (GONE, "x")), NsError::Stale),
        (rename((ROOT, "e"), (file, "x")), NsError::NotDir),
    ];
    for (operation, error) in table {
        assert_eq!(world.run(&operation), Err(error), "{operation:?}");
    }
}

#[test]
fn making() {
    let (mut world, [_, d, ..]) = tree();
    let made = |special| Operation::MakeNode {
        parent: d,
        name: format!("{special:?}").into(),
        special,
        attributes: mode(0o600),
    };
    let kinds = [
        (Special::Fifo, Kind::Fifo, None),
        (Special::Socket, Kind::Socket, None),
        (Special::Char(5, 1), Kind::Char, Some((5, 1))),
        (Special::Block(8, 2), Kind::Block, Some((8, 2))),
    ];
    for (special, kind, rdev) in kinds {
        let id = world.node(&made(special));
        let inode = world.inode(id);
        assert_eq!(
            (inode.kind, inode.rdev, inode.mode, id.pool().0),
            (kind, rdev, 0o600, 0)
        );
    }
    let target = b"../x\n\xff".to_vec();
    let name = b"link".to_vec();
    let attributes = Attributes::default();
    let id = world.node(&Operation::Symlink {
        parent: d,
        name,
        target: target.clone(),
        attributes,
    });
    let inode = world.inode(id);
    assert_eq!(
        (inode.target.as_ref(), inode.size, inode.mode),
        (Some(&target), 6, 0o777)
    );
    let file = world.node(&Operation::CreateFile {
        parent: d,
        name: b"new".into(),
        how: CreateHow::Guarded,
        attributes: size(1 << 40),
    });
    assert_eq!((world.inode(file).size, file.pool().0), (1 << 40, 1));
    let inode = world.inode(d);
    assert_eq!((inode.mtime, inode.ctime), (world.context.now, world.context.now));
}

#[test]
fn unchecked_create_takes_what_is_there() {
    let (mut world, [file, ..]) = tree();
    world.done(&set(file, size(100)));
    assert_eq!(
        world.run(&create(ROOT, "file", CreateHow::Unchecked)),
        Ok(Outcome::Node(file))
    );
    assert_eq!(world.inode(file).size, 100);
    let emptied = Operation::CreateFile {
        parent: ROOT,
        name: b"file".into(),
        how: CreateHow::Unchecked,
        attributes: size(0),
    };
    world.as_user(9, |world| assert_eq!(world.run(&emptied), Err(NsError::Access)));
    assert_eq!(world.run(&emptied), Ok(Outcome::Node(file)));
    assert_eq!(world.inode(file).size, 0);
}

#[test]
fn exclusive_create_can_be_repeated_until_attributes_are_set() {
    let mut world = World::new();
    let exclusive = |verifier| create(ROOT, "lock", CreateHow::Exclusive(verifier));
    let id = world.node(&exclusive(77));
    let revision = world.store.revision;
    assert_eq!(world.run(&exclusive(77)), Ok(Outcome::Node(id)));
    assert_eq!(world.store.revision, revision, "nothing to do");
    assert_eq!(world.run(&exclusive(78)), Err(NsError::Exists));
    world.done(&set(id, mode(0o644)));
    assert_eq!(world.run(&exclusive(77)), Err(NsError::Exists));
}

#[test]
fn links_and_the_last_name() {
    let (mut world, [file, d, ..]) = tree();
    world.done(&set(file, size(5000)));
    world.done(&link(file, d, "other"));
    assert_eq!(world.inode(file).nlink, 2);
    world.done(&remove(ROOT, "file"));
    assert_eq!(world.inode(file).nlink, 1);
    assert_eq!(world.namespace.path_of(file).unwrap(), b"d/other");
    assert_eq!(world.namespace.purges().count(), 0);
    world.done(&remove(d, "other"));
    assert_eq!(world.namespace.inode(file), None);
    assert_eq!(world.namespace.purges().collect::<Vec<_>>(), [(file, 5000)]);
    assert_eq!(world.run(&link(file, d, "back")), Err(NsError::Stale));
    world.done(&Operation::PurgeDone { id: file });
    world.done(&Operation::PurgeDone { id: file });
    assert_eq!(world.namespace.purges().count(), 0);
}

#[test]
fn only_files_leave_a_purge() {
    let mut world = World::new();
    let attributes = Attributes::default();
    let special = Special::Fifo;
    world.node(&Operation::MakeNode {
        parent: ROOT,
        name: b"p".into(),
        special,
        attributes,
    });
    world.done(&remove(ROOT, "p"));
    assert_eq!(world.namespace.purges().count(), 0);
}

#[test]
fn renaming() {
    let (mut world, [file, d, f, e, sub, below]) = tree();
    world.done(&rename((ROOT, "file"), (ROOT, "file2")));
    assert_eq!(world.namespace.lookup(ROOT, b"file2"), Ok(file));
    assert_eq!(world.namespace.lookup(ROOT, b"file"), Err(NsError::NotFound));
    world.done(&rename((ROOT, "file2"), (d, "f")));
    assert_eq!(world.namespace.lookup(d, b"f"), Ok(file));
    assert_eq!(world.namespace.purges().collect::<Vec<_>>(), [(f, 0)], "renamed over");
    world.done(&rename((d, "sub"), (e, "moved")));
    assert_eq!(world.inode(sub).parent, Some(e));
    assert_eq!((world.inode(d).nlink, world.inode(e).nlink), (2, 3));
    assert_eq!(world.namespace.resolve(b"e/moved/below"), Ok(below));
    let empty = world.dir(ROOT, "empty");
    world.done(&rename((e, "moved"), (ROOT, "empty")));
    assert_eq!(world.namespace.inode(empty), None, "an empty directory is replaced");
    assert_eq!(world.namespace.resolve(b"/empty//below/"), Ok(below));
    assert_eq!(world.inode(ROOT).nlink, 5);
    world.done(&remove_dir(ROOT, "e"));
}

#[test]
fn renaming_to_itself_does_nothing() {
    let (mut world, [file, ..]) = tree();
    world.done(&link(file, ROOT, "again"));
    let revision = world.store.revision;
    world.done(&rename((ROOT, "file"), (ROOT, "file")));
    world.done(&rename((ROOT, "file"), (ROOT, "again")));
    world.done(&rename((ROOT, "d"), (ROOT, "d")));
    assert_eq!(world.store.revision, revision);
    assert_eq!(world.inode(file).nlink, 2);
}

#[test]
fn a_directory_that_fills_meanwhile_is_not_removed() {
    let (mut world, [_, _, _, e, ..]) = tree();
    let removal = world.plan(&remove_dir(ROOT, "e")).unwrap();
    let replacing = world.plan(&rename((ROOT, "d"), (ROOT, "e"))).unwrap();
    world.file(e, "late");
    assert!(matches!(world.store.run(&removal.txn), TxnOutcome::Refused(_)));
    assert!(matches!(world.store.run(&replacing.txn), TxnOutcome::Refused(_)));
}

#[test]
fn two_moves_cannot_make_a_cycle() {
    let (mut world, [_, _, _, e, sub, below]) = tree();
    let (x, y) = (world.dir(e, "x"), world.dir(below, "y"));
    // sub into e/x, and e into sub/below/y: each alone is fine.
    let first = world
        .plan(&rename((world.inode(sub).parent.unwrap(), "sub"), (x, "s")))
        .unwrap();
    let second = world.plan(&rename((ROOT, "e"), (y, "e"))).unwrap();
    assert!(matches!(world.store.run(&first.txn), TxnOutcome::Committed(_)));
    assert!(matches!(world.store.run(&second.txn), TxnOutcome::Refused(_)));
    world.store.check();
}

#[test]
fn moving_a_directory_does_not_mind_new_files_above() {
    let (mut world, [_, d, _, _, _, below]) = tree();
    let plan = world.plan(&rename((ROOT, "e"), (below, "e"))).unwrap();
    world.file(d, "noise");
    assert!(matches!(world.store.run(&plan.txn), TxnOutcome::Committed(_)));
    world.store.check();
}

#[test]
fn too_deep_for_a_move() {
    let mut world = World::new();
    let mut at = ROOT;
    for _ in 0..120 {
        at = world.dir(at, "d");
    }
    world.dir(ROOT, "other");
    assert_eq!(world.run(&rename((ROOT, "other"), (at, "x"))), Err(NsError::TooDeep));
    let file = world.file(ROOT, "file");
    world.done(&rename((ROOT, "file"), (at, "x")));
    assert_eq!(world.namespace.path_of(file).unwrap().len(), 2 * 120 + 1);
}

#[test]
fn permissions() {
    let (mut world, [_, d, f, e, sub, _]) = tree();
    world.done(&set(d, mode(0o711)));
    world.done(&set(e, mode(0o1777)));
    let mine = world.as_user(7, |world| world.file(e, "mine"));
    let dir = world.as_user(7, |world| world.dir(e, "dir"));
    assert_eq!((world.inode(mine).uid, world.inode(mine).gid), (7, 7));
    world.dir(e, "roots");
    let table = [
        (create(d, "x", CreateHow::Unchecked), NsError::Access),
        (create(d, "f", CreateHow::Guarded), NsError::Exists),
        (make_dir(d, "x"), NsError::Access),
        (link(mine, d, "x"), NsError::Access),
        (remove(d, "f"), NsError::Access),
        (remove(e, "mine"), NsError::Perm),
        (remove_dir(e, "dir"), NsError::Perm),
        (rename((e, "mine"), (e, "x")), NsError::Perm),
        (rename((d, "f"), (e, "x")), NsError::Access),
        (rename((e, "mine"), (d, "x")), NsError::Access),
    ];
    world.as_user(8, |world| {
        for (operation, error) in table {
            assert_eq!(world.run(&operation), Err(error), "{operation:?}");
        }
        assert_eq!(world.run(&remove(sub, "below")), Err(NsError::Access));
    });
    world.done(&set(dir, mode(0o555)));
    world.done(&set(d, mode(0o777)));
    world.as_user(7, |world| {
        let moved = rename((e, "dir"), (d, "dir"));
        assert_eq!(world.run(&moved), Err(NsError::Access), "its .. would change");
        world.done(&rename((e, "dir"), (e, "same parent")));
        world.done(&rename((e, "mine"), (d, "f")));
    });
    assert_eq!(world.namespace.inode(f), None);
    world.done(&set(d, mode(0o666)));
    world.as_user(8, |world| {
        assert_eq!(
            world.run(&remove(d, "none")),
            Err(NsError::Access),
            "no search permission"
        );
    });
}

#[test]
fn set_group_id_is_inherited() {
    let mut world = World::new();
    let d = world.dir(ROOT, "d");
    let group = Attributes {
        gid: Some(50),
        ..mode(0o2777)
    };
    world.done(&set(d, group));
    let (file, dir) = world.as_user(7, |world| (world.file(d, "f"), world.dir(d, "sub")));
    assert_eq!((world.inode(file).gid, world.inode(file).mode), (50, 0o644));
    assert_eq!((world.inode(dir).gid, world.inode(dir).mode), (50, 0o2755));
}

#[test]
fn numbers_are_given_once() {
    let world = World::new();
    let reserve = Operation::Reserve { count: 10 };
    let mut numbers = Numbers::default();
    let create = create(ROOT, "x", CreateHow::Guarded);
    let need = world.namespace.plan(&create, &world.context, &mut numbers);
    assert_eq!(need, Err(NsError::NeedNumbers));
    let mut store = world.store;
    let plan = world.namespace.plan(&reserve, &world.context, &mut numbers).unwrap();
    assert!(matches!(store.run(&plan.txn), TxnOutcome::Committed(_)));
    assert!(
        matches!(store.run(&plan.txn), TxnOutcome::Refused(_)),
        "the same ones again"
    );
    assert_eq!(plan.outcome, Outcome::Numbers(1024, 1034));
    let next = store.mirror().plan(&reserve, &world.context, &mut numbers).unwrap();
    assert_eq!(next.outcome, Outcome::Numbers(1034, 1044));
    numbers.add(5, 7);
    let id = |plan: Plan| plan.outcome;
    let first = world.namespace.plan(&create, &world.context, &mut numbers).map(id);
    let second = world.namespace.plan(&create, &world.context, &mut numbers).map(id);
    assert_eq!(first, Ok(Outcome::Node(ImageId::new(PoolId(1), 5))));
    assert_eq!(second, Ok(Outcome::Node(ImageId::new(PoolId(1), 6))));
    let third = world.namespace.plan(&create, &world.context, &mut numbers);
    assert_eq!(third, Err(NsError::NeedNumbers));
}
