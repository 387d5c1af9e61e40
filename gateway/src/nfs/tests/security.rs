//! Exports, client lists, credentials, handles and permissions.

use trivet_nfs::nfs3::{AccessArgs, RenameArgs, WriteArgs, access};

use super::*;

/// `/all` is the tree, `/vms` its directory `vms`, `/ro` the same read-only, `/far` for another network.
fn several() -> (Gateway, Handle) {
    let far = Export {
        clients: vec!["192.168.0.0/16".parse().unwrap()],
        ..export(4, "/far", "")
    };
    let read_only = Export {
        read_only: true,
        ..export(3, "/ro", "vms")
    };
    let mut gateway = Gateway::new(vec![export(1, "/all", ""), export(2, "/vms", "vms"), read_only, far]);
    let root = gateway.mount("/all").unwrap();
    let dir = gateway.make_dir(root, "vms");
    gateway.make_dir(dir, "sub");
    (gateway, root)
}

#[test]
fn mounting() {
    let (mut gateway, root) = several();
    gateway.create(root, "file");
    let vms = gateway.mount("/vms").unwrap();
    assert_eq!(
        gateway.mount("/vms/sub"),
        gateway.lookup(vms, "sub").map_err(|_| unreachable!())
    );
    for (path, status) in [
        ("/far", mount::MountStatus::Access),
        ("/nothing", mount::MountStatus::Access),
        ("/vms/other", mount::MountStatus::NoEnt),
        ("/vms/../..", mount::MountStatus::Invalid),
        ("/all/file", mount::MountStatus::NotDir),
    ] {
        assert_eq!(gateway.mount(path), Err(status), "{path}");
    }
}

#[test]
fn lists_of_exports_and_mounts() {
    let (mut gateway, _) = several();
    gateway.mount("/vms").unwrap();
    let mount::Reply::Export(exports) = gateway.mount_call(&mount::Request::Export) else {
        panic!()
    };
    let paths: Vec<_> = exports.0.iter().map(|export| &export.path.0[..]).collect();
    assert_eq!(paths, [&b"/all"[..], b"/vms", b"/ro"], "only what the caller may mount");
    assert_eq!(exports.0[0].groups.0, ["10.0.0.0/8"]);
    let dump = |gateway: &mut Gateway| match gateway.mount_call(&mount::Request::Dump) {
        mount::Reply::Dump(mounts) => mounts.0.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(dump(&mut gateway), 2);
    gateway.mount_call(&mount::Request::Unmount(mount::Path(Bytes::from_static(b"/vms"))));
    assert_eq!(dump(&mut gateway), 1);
    gateway.mount_call(&mount::Request::UnmountAll);
    assert_eq!(dump(&mut gateway), 0);
}

#[test]
fn nothing_is_above_an_export() {
    let (mut gateway, _) = several();
    let vms = gateway.mount("/vms").unwrap();
    assert_eq!(gateway.lookup(vms, ".."), Ok(vms));
    let sub = gateway.lookup(vms, "sub").unwrap();
    assert_eq!(gateway.lookup(sub, ".."), Ok(vms));
    let request = Request::ReadDir(nfs3::ReadDirArgs {
        dir: vms,
        cookie: 0,
        verifier: [0; 8],
        count: 4096,
    });
    let Reply::ReadDir(Ok(listing)) = gateway.run(&request) else {
        panic!()
    };
    let (entries, _) = listing.entries();
    assert_eq!(entries[0].fileid, entries[1].fileid, ". and .. are the same");
}

#[test]
fn renames_stay_within_an_export() {
    let (mut gateway, root) = several();
    let vms = gateway.mount("/vms").unwrap();
    let request = Request::Rename(RenameArgs {
        from: at(vms, "sub"),
        to: at(root, "sub"),
    });
    assert_eq!(gateway.status(&request), Some(Status::CrossDevice));
}

#[test]
fn read_only_exports() {
    let (mut gateway, _) = several();
    let read_only = gateway.mount("/ro").unwrap();
    let remove = Request::RemoveDir(at(read_only, "sub"));
    assert_eq!(gateway.status(&remove), Some(Status::ReadOnly));
    let ask = Request::Access(AccessArgs {
        object: read_only,
        access: 0x3f,
    });
    let Reply::Access(Ok(ok)) = gateway.run(&ask) else {
        panic!()
    };
    assert_eq!(ok.access, access::READ | access::LOOKUP);
}

#[test]
fn the_client_list_holds_on_every_call() {
    let (mut gateway, root) = Gateway::open();
    for (address, status) in [
        ("10.255.0.1:1023", None),
        ("10.255.0.1:1024", Some(Status::Access)),
        ("192.0.2.1:900", Some(Status::Access)),
    ] {
        gateway.sessions[0] = NfsSession::new(Rc::clone(&gateway.server), address.parse().unwrap());
        assert_eq!(gateway.status(&Request::GetAttr(root)), status, "{address}");
    }
}

#[test]
fn forged_and_foreign_handles() {
    let (mut gateway, root) = Gateway::open();
    let forged: Vec<u8> = root.as_bytes().iter().rev().copied().collect();
    for bytes in [&forged[..], b"", &[0; 64], &root.as_bytes()[1..]] {
        assert_eq!(gateway.attributes(Handle::new(bytes).unwrap()), Err(Status::BadHandle));
    }
    let other = Gateway::new(vec![export(2, "/export", "")]);
    let foreign = other.server.sealer().seal(handles::Target {
        export: 2,
        id: ImageId(1),
        generation: 0,
    });
    assert_eq!(
        gateway.attributes(foreign),
        Err(Status::Stale),
        "an export that is no more"
    );
    let generation = handles::Target {
        export: 1,
        id: ImageId(1),
        generation: 99,
    };
    let old = gateway.server.sealer().seal(generation);
    assert_eq!(gateway.attributes(old), Err(Status::Stale));
}

#[test]
fn calls_without_credentials() {
    let (mut gateway, root) = Gateway::open();
    gateway.credentials = Credentials::None;
    let bytes = gateway.request(&Request::GetAttr(root));
    gateway.send(0, &bytes).unwrap();
    let reply = std::mem::take(&mut gateway.out).concat();
    assert_eq!(
        reply[8..],
        [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5],
        "AUTH_TOOWEAK"
    );
    let mut open = Gateway::new(vec![Export {
        auth_none: true,
        ..export(1, "/export", "")
    }]);
    let root = open.mount("/export").unwrap();
    open.credentials = Credentials::None;
    assert_eq!(open.attributes(root).map(|attributes| attributes.fileid), Ok(1));
    let make = nfs3::MakeDirArgs {
        target: at(root, "x"),
        attributes: nfs3::Sattr3::default(),
    };
    assert_eq!(open.status(&Request::MakeDir(make)), Some(Status::Access));
}

#[test]
fn modes_are_judged_by_uid() {
    let (mut gateway, root) = Gateway::open();
    let file = gateway.create(root, "f");
    let attributes = nfs3::Sattr3 {
        uid: Some(1001),
        mode: Some(0o640),
        ..Default::default()
    };
    gateway.run(&Request::SetAttr(nfs3::SetAttrArgs {
        object: file,
        attributes,
        guard: None,
    }));
    let write = Request::Write(WriteArgs {
        file,
        offset: 0,
        count: 0,
        stable: nfs3::StableHow::FileSync,
        data: Bytes::new(),
    });
    let read = Request::Read(nfs3::ReadArgs {
        file,
        offset: 0,
        count: 1,
    });
    for (uid, may_read, may_write, bits) in [
        (0, true, true, access::READ | access::MODIFY | access::EXTEND),
        (1001, true, true, access::READ | access::MODIFY | access::EXTEND),
        (1002, false, false, 0),
    ] {
        gateway.credentials = user(uid);
        assert_eq!(gateway.status(&read).is_none(), may_read, "{uid}");
        assert_eq!(gateway.status(&write).is_none(), may_write, "{uid}");
        let ask = Request::Access(AccessArgs {
            object: file,
            access: 0x3f,
        });
        let Reply::Access(Ok(ok)) = gateway.run(&ask) else {
            panic!()
        };
        assert_eq!(ok.access, bits, "{uid}");
    }
}

#[test]
fn closed_directories() {
    let (mut gateway, root) = Gateway::open();
    let dir = gateway.make_dir(root, "closed");
    gateway.create(dir, "secret");
    let attributes = nfs3::Sattr3 {
        mode: Some(0o744),
        ..Default::default()
    };
    gateway.run(&Request::SetAttr(nfs3::SetAttrArgs {
        object: dir,
        attributes,
        guard: None,
    }));
    gateway.credentials = user(1002);
    assert_eq!(gateway.lookup(dir, "secret"), Err(Status::Access));
    let (verifier, dir_count, max_count) = ([0; 8], 4096, 4096);
    let request = Request::ReadDirPlus(nfs3::ReadDirPlusArgs {
        dir,
        cookie: 0,
        verifier,
        dir_count,
        max_count,
    });
    let Reply::ReadDirPlus(Ok(listing)) = gateway.run(&request) else {
        panic!()
    };
    let (entries, _) = listing.entries();
    assert_eq!(entries.len(), 3);
    assert!(
        entries
            .iter()
            .all(|entry| entry.handle.is_none() && entry.attributes.is_none())
    );
}

#[test]
fn what_the_file_system_tells_of_itself() {
    let (mut gateway, root) = Gateway::open();
    let file = gateway.create(root, "f");
    for object in [root, file] {
        let Reply::FsStat(Ok(space)) = gateway.run(&Request::FsStat(object)) else {
            panic!()
        };
        assert_eq!(
            (space.total_bytes, space.free_bytes, space.available_bytes),
            (1000, 400, 400)
        );
        let Reply::FsInfo(Ok(info)) = gateway.run(&Request::FsInfo(object)) else {
            panic!()
        };
        assert_eq!(
            (info.read_max, info.write_max, info.max_file_size),
            (1 << 20, 1 << 20, (1 << 63) - 1)
        );
        let Reply::PathConf(Ok(paths)) = gateway.run(&Request::PathConf(object)) else {
            panic!()
        };
        assert_eq!(
            (paths.name_max, paths.no_trunc, paths.case_preserving),
            (255, true, true)
        );
    }
}
