//! The tree of names: making, finding, listing, renaming, removing, and calls that come twice.

use std::collections::BTreeSet;

use trivet_nfs::nfs3::{
    CreateArgs, CreateHow, LinkArgs, MakeNode, MakeNodeArgs, ReadDirArgs, ReadDirPlusArgs, RenameArgs, Sattr3,
    SetAttrArgs, SpecData, SymlinkArgs,
};

use super::*;

#[test]
fn what_is_made_is_found() {
    let (mut gateway, root) = Gateway::open();
    let dir = gateway.make_dir(root, "vms");
    let file = gateway.create(dir, "disk.vmdk");
    assert_eq!(gateway.lookup(dir, "disk.vmdk"), Ok(file));
    assert_eq!(gateway.lookup(dir, "."), Ok(dir));
    assert_eq!(gateway.lookup(dir, ".."), Ok(root));
    assert_eq!(gateway.lookup(dir, "other"), Err(Status::NoEnt));
    assert_eq!(gateway.lookup(file, "x"), Err(Status::NotDir));
    assert_eq!(gateway.lookup(dir, &"n".repeat(256)), Err(Status::NameTooLong));
    let attributes = gateway.attributes(file).unwrap();
    assert_eq!(
        (attributes.kind, attributes.size, attributes.fsid),
        (nfs3::FileType::Regular, 0, 0xf5)
    );
    assert_eq!(gateway.attributes(dir).unwrap().nlink, 2);
    assert_eq!(gateway.attributes(root).unwrap().fileid, 1);
}

#[test]
fn every_kind_of_object() {
    let (mut gateway, root) = Gateway::open();
    let attributes = Sattr3::default();
    let path = Bytes::from_static(b"../else/where");
    let symlink = Request::Symlink(SymlinkArgs {
        target: at(root, "s"),
        attributes,
        path: path.clone(),
    });
    let Reply::Symlink(Ok(made)) = gateway.run(&symlink) else {
        panic!()
    };
    let Reply::ReadLink(Ok(link)) = gateway.run(&Request::ReadLink(made.object.unwrap())) else {
        panic!()
    };
    assert_eq!(link.path, path);
    assert_eq!(gateway.status(&Request::ReadLink(root)), Some(Status::Invalid));
    let device = SpecData { major: 8, minor: 1 };
    for (name, what, kind) in [
        ("fifo", MakeNode::Fifo(attributes), nfs3::FileType::Fifo),
        ("sock", MakeNode::Socket(attributes), nfs3::FileType::Socket),
        ("block", MakeNode::Block(attributes, device), nfs3::FileType::Block),
        (
            "char",
            MakeNode::Character(attributes, device),
            nfs3::FileType::Character,
        ),
    ] {
        let reply = gateway.run(&Request::MakeNode(MakeNodeArgs {
            target: at(root, name),
            what,
        }));
        let Reply::MakeNode(Ok(made)) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(made.attributes.unwrap().kind, kind);
        let node = made.object.unwrap();
        let read = Request::Read(nfs3::ReadArgs {
            file: node,
            offset: 0,
            count: 1,
        });
        assert_eq!(gateway.status(&read), Some(Status::Invalid));
    }
    let what = MakeNode::Other(nfs3::FileType::Directory);
    let refused = Request::MakeNode(MakeNodeArgs {
        target: at(root, "d"),
        what,
    });
    assert_eq!(gateway.status(&refused), Some(Status::BadType));
}

#[test]
fn creating_what_exists() {
    let (mut gateway, root) = Gateway::open();
    let create = |how| {
        Request::Create(CreateArgs {
            target: at(root, "lock"),
            how,
        })
    };
    let exclusive = |verifier| create(CreateHow::Exclusive(verifier));
    assert_eq!(gateway.status(&exclusive(*b"verifie1")), None);
    assert_eq!(gateway.status(&exclusive(*b"verifie1")), None, "the same client again");
    assert_eq!(gateway.status(&exclusive(*b"verifie2")), Some(Status::Exist));
    assert_eq!(
        gateway.status(&create(CreateHow::Guarded(Sattr3::default()))),
        Some(Status::Exist)
    );
    assert_eq!(gateway.status(&create(CreateHow::Unchecked(Sattr3::default()))), None);
}

#[test]
fn renames_links_and_removes() {
    let (mut gateway, root) = Gateway::open();
    let (dir, file) = (gateway.make_dir(root, "d"), gateway.create(root, "a"));
    let link = Request::Link(LinkArgs {
        file,
        link: at(dir, "b"),
    });
    let Reply::Link(Ok(linked)) = gateway.run(&link) else {
        panic!()
    };
    assert_eq!(linked.attributes.unwrap().nlink, 2);
    let rename = Request::Rename(RenameArgs {
        from: at(root, "a"),
        to: at(dir, "c"),
    });
    assert_eq!(gateway.status(&rename), None);
    assert_eq!(gateway.lookup(dir, "c"), Ok(file), "a handle outlives a rename");
    assert_eq!(
        gateway.status(&Request::RemoveDir(at(root, "d"))),
        Some(Status::NotEmpty)
    );
    assert_eq!(gateway.status(&Request::Remove(at(root, "d"))), Some(Status::IsDir));
    for name in ["b", "c"] {
        assert_eq!(gateway.status(&Request::Remove(at(dir, name))), None);
    }
    assert_eq!(gateway.attributes(file), Err(Status::Stale));
    assert_eq!(gateway.status(&Request::RemoveDir(at(root, "d"))), None);
    assert_eq!(gateway.status(&Request::RemoveDir(at(root, "d"))), Some(Status::NoEnt));
}

/// The names of a directory, read in pages of `count` bytes, and the number of pages.
fn list(gateway: &mut Gateway, dir: Handle, count: u32) -> (Vec<Bytes>, usize) {
    let (mut names, mut cookie, mut pages) = (Vec::new(), 0, 0);
    loop {
        let request = Request::ReadDir(ReadDirArgs {
            dir,
            cookie,
            verifier: [0; 8],
            count,
        });
        let Reply::ReadDir(Ok(listing)) = gateway.run(&request) else {
            panic!()
        };
        let (entries, eof) = listing.entries();
        pages += 1;
        cookie = entries.last().map_or(cookie, |entry| entry.cookie);
        names.extend(entries.into_iter().map(|entry| entry.name));
        if eof {
            return (names, pages);
        }
    }
}

#[test]
fn listings_in_pages() {
    let (mut gateway, root) = Gateway::open();
    for n in 0..100 {
        gateway.create(root, &format!("file-{n:03}"));
    }
    let expected: BTreeSet<Bytes> = (0..100)
        .map(|n| format!("file-{n:03}").into())
        .chain([".".into(), "..".into()])
        .collect();
    for (count, least) in [(1 << 20, 1), (1024, 4), (140, 100)] {
        let (names, pages) = list(&mut gateway, root, count);
        assert_eq!((names.len(), names.into_iter().collect()), (102, expected.clone()));
        assert!(pages >= least, "{pages}");
    }
    let tiny = Request::ReadDir(ReadDirArgs {
        dir: root,
        cookie: 0,
        verifier: [0; 8],
        count: 100,
    });
    assert_eq!(gateway.status(&tiny), Some(Status::TooSmall));
}

#[test]
fn a_listing_goes_on_behind_a_removed_name() {
    let (mut gateway, root) = Gateway::open();
    for name in ["a", "b", "c"] {
        gateway.create(root, name);
    }
    let plus = |cookie| {
        let (verifier, dir_count, max_count) = ([0; 8], 4096, 100_000);
        Request::ReadDirPlus(ReadDirPlusArgs {
            dir: root,
            cookie,
            verifier,
            dir_count,
            max_count,
        })
    };
    let Reply::ReadDirPlus(Ok(listing)) = gateway.run(&plus(0)) else {
        panic!()
    };
    let (entries, eof) = listing.entries();
    assert!(eof);
    let names: Vec<_> = entries.iter().map(|entry| &entry.name[..]).collect();
    assert_eq!(names, [&b"."[..], b"..", b"a", b"b", b"c"]);
    let handle = gateway.lookup(root, "b").unwrap();
    assert_eq!(entries[3].handle, Some(handle));
    assert_eq!(entries[3].attributes, Some(gateway.attributes(handle).unwrap()));
    gateway.status(&Request::Remove(at(root, "b")));
    let Reply::ReadDirPlus(Ok(listing)) = gateway.run(&plus(entries[3].cookie)) else {
        panic!()
    };
    let rest: Vec<_> = listing.entries().0.into_iter().map(|entry| entry.name).collect();
    assert_eq!(rest, ["c"]);
}

#[test]
fn a_call_that_comes_twice_is_done_once() {
    let (mut gateway, root) = Gateway::open();
    gateway.create(root, "a");
    let request = Request::Remove(at(root, "a"));
    let bytes = gateway.request(&request);
    gateway.send(0, &bytes).unwrap();
    // Over a new connection from another port, while the first is in progress.
    let session = NfsSession::new(Rc::clone(&gateway.server), "10.0.0.9:901".parse().unwrap());
    gateway.sessions.push(session);
    gateway.send(1, &bytes).unwrap();
    assert_eq!(gateway.asked.len(), 1);
    gateway.settle(0);
    assert_eq!(gateway.reply(&request).unwrap().status(), None);
    gateway
        .with(1, |session, context, out| session.tick(context, out))
        .unwrap();
    assert_eq!(gateway.reply(&request).unwrap().status(), None);
    // And after it was answered.
    gateway.send(1, &bytes).unwrap();
    assert_eq!(gateway.reply(&request).unwrap().status(), None);
    assert!(gateway.asked.is_empty());
    // Another call is another call.
    assert_eq!(gateway.status(&request), Some(Status::NoEnt));
}

#[test]
fn a_call_whose_session_died_is_done_again() {
    let (mut gateway, root) = Gateway::open();
    gateway.create(root, "a");
    let request = Request::Remove(at(root, "a"));
    let bytes = gateway.request(&request);
    gateway.send(0, &bytes).unwrap();
    gateway.sessions[0] = NfsSession::new(Rc::clone(&gateway.server), peer());
    gateway.asked.clear();
    gateway.send(0, &bytes).unwrap();
    gateway.settle(0);
    assert_eq!(gateway.reply(&request).unwrap().status(), None);
}

#[test]
fn setting_attributes() {
    let (mut gateway, root) = Gateway::open();
    let object = gateway.create(root, "a");
    let time = nfs3::Time {
        seconds: 981_158_706,
        nanoseconds: 700_000_000,
    };
    let attributes = Sattr3 {
        mode: Some(0o4751),
        uid: Some(5),
        size: Some(1 << 46),
        mtime: nfs3::SetTime::Client(time),
        ..Sattr3::default()
    };
    let set = |attributes, guard| {
        Request::SetAttr(SetAttrArgs {
            object,
            attributes,
            guard,
        })
    };
    assert_eq!(gateway.status(&set(attributes, None)), None);
    let now = gateway.attributes(object).unwrap();
    assert_eq!((now.mode, now.uid, now.size, now.mtime), (0o4751, 5, 1 << 46, time));
    let mode = Sattr3 {
        mode: Some(0o600),
        ..Sattr3::default()
    };
    assert_eq!(gateway.status(&set(mode, Some(time))), Some(Status::NotSync));
    assert_eq!(gateway.status(&set(mode, Some(now.ctime))), None);
    let bad = nfs3::Time {
        nanoseconds: 1_000_000_000,
        ..time
    };
    for (attributes, status) in [
        (
            Sattr3 {
                size: Some(1 << 63),
                ..Sattr3::default()
            },
            Status::FileTooBig,
        ),
        (
            Sattr3 {
                atime: nfs3::SetTime::Client(bad),
                ..Sattr3::default()
            },
            Status::Invalid,
        ),
    ] {
        assert_eq!(gateway.status(&set(attributes, None)), Some(status));
    }
}
