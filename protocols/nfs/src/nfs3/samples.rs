//! One or more values of every request and every reply, for tests.

use bytes::Bytes;

use super::*;

pub(crate) const ATTRIBUTES: Fattr3 = Fattr3 {
    kind: FileType::Regular,
    mode: 0o4755,
    nlink: 2,
    uid: 1000,
    gid: 100,
    size: 1 << 46,
    used: 0x1_0002_0003,
    rdev: SpecData { major: 8, minor: 17 },
    fsid: 0x1122_3344_5566_7788,
    fileid: 0x99aa_bbcc_ddee_ff00,
    atime: Time {
        seconds: 1,
        nanoseconds: 2,
    },
    mtime: Time {
        seconds: 3,
        nanoseconds: 4,
    },
    ctime: Time {
        seconds: 5,
        nanoseconds: 999_999_999,
    },
};

pub(crate) fn handle(len: usize) -> Handle {
    Handle::new(&vec![0xfa; len]).unwrap()
}

fn target(len: usize) -> DirOpArgs {
    DirOpArgs {
        dir: handle(32),
        name: Bytes::from(vec![b'n'; len]),
    }
}

fn settings() -> Sattr3 {
    let time = Time {
        seconds: 981_158_706,
        nanoseconds: 700_000_000,
    };
    Sattr3 {
        mode: Some(0o600),
        uid: Some(0),
        gid: None,
        size: Some(u64::MAX),
        atime: SetTime::Server,
        mtime: SetTime::Client(time),
    }
}

pub(crate) fn requests() -> Vec<Request> {
    [
        object_requests(),
        creating_requests(),
        name_requests(),
        directory_requests(),
    ]
    .concat()
}

fn object_requests() -> Vec<Request> {
    let (object, file, attributes) = (handle(64), handle(8), settings());
    let write = |length: usize| {
        let count = u32::try_from(length).unwrap();
        let data = Bytes::from(vec![7; length]);
        Request::Write(WriteArgs {
            file,
            offset: 9,
            count,
            stable: StableHow::DataSync,
            data,
        })
    };
    vec![
        Request::GetAttr(handle(0)),
        Request::SetAttr(SetAttrArgs {
            object,
            attributes,
            guard: Some(ATTRIBUTES.ctime),
        }),
        Request::SetAttr(SetAttrArgs {
            object,
            attributes: Sattr3::default(),
            guard: None,
        }),
        Request::Access(AccessArgs {
            object,
            access: access::READ | access::EXECUTE,
        }),
        Request::ReadLink(object),
        Request::Read(ReadArgs {
            file,
            offset: u64::MAX,
            count: u32::MAX,
        }),
        write(0),
        write(517),
        Request::FsStat(object),
        Request::FsInfo(object),
        Request::PathConf(object),
        Request::Commit(CommitArgs {
            file,
            offset: 0,
            count: 0,
        }),
    ]
}

fn creating_requests() -> Vec<Request> {
    let (attributes, device, path) = (settings(), SpecData { major: 1, minor: 3 }, Bytes::from_static(b"../x"));
    let create = |how| {
        Request::Create(CreateArgs {
            target: target(255),
            how,
        })
    };
    let node = |what| {
        Request::MakeNode(MakeNodeArgs {
            target: target(3),
            what,
        })
    };
    vec![
        create(CreateHow::Unchecked(attributes)),
        create(CreateHow::Guarded(Sattr3::default())),
        create(CreateHow::Exclusive(*b"verifier")),
        Request::MakeDir(MakeDirArgs {
            target: target(5),
            attributes,
        }),
        Request::Symlink(SymlinkArgs {
            target: target(6),
            attributes,
            path,
        }),
        node(MakeNode::Character(attributes, device)),
        node(MakeNode::Block(attributes, device)),
        node(MakeNode::Socket(attributes)),
        node(MakeNode::Fifo(attributes)),
        node(MakeNode::Other(FileType::Directory)),
    ]
}

fn name_requests() -> Vec<Request> {
    vec![
        Request::Lookup(target(0)),
        Request::Remove(target(7)),
        Request::RemoveDir(target(8)),
        Request::Rename(RenameArgs {
            from: target(255),
            to: target(254),
        }),
        Request::Link(LinkArgs {
            file: handle(8),
            link: target(9),
        }),
    ]
}

fn directory_requests() -> Vec<Request> {
    let (dir, verifier) = (handle(1), *b"verifier");
    vec![
        Request::ReadDir(ReadDirArgs {
            dir,
            cookie: 1 << 63,
            verifier,
            count: 0,
        }),
        Request::ReadDirPlus(ReadDirPlusArgs {
            dir,
            cookie: 0,
            verifier,
            dir_count: 512,
            max_count: 8192,
        }),
    ]
}

pub(crate) fn replies() -> Vec<Reply> {
    let mut replies: Vec<Reply> = requests().iter().map(|request| request.fail(Status::Jukebox)).collect();
    replies.extend(name_replies());
    replies.extend(data_replies());
    replies.extend(system_replies());
    replies
}

fn wcc() -> WccData {
    WccData {
        before: Some(ATTRIBUTES.wcc()),
        after: Some(ATTRIBUTES),
    }
}

fn name_replies() -> Vec<Reply> {
    let (attributes, dir_wcc) = (Some(ATTRIBUTES), wcc());
    let created = || CreateOk {
        object: Some(handle(32)),
        attributes,
        dir_wcc,
    };
    let found = LookupOk {
        object: handle(32),
        attributes,
        dir_attributes: None,
    };
    let (mut dir, mut plus) = (
        ReadDirBuilder::new(4096, attributes, [1; 8]),
        ReadDirPlusBuilder::new(4096, 4096, attributes, [1; 8]),
    );
    assert!(dir.push(7, b"name", 1) && dir.push(8, b"other", 2));
    assert!(plus.push(7, b"name", 1, &attributes, Some(&handle(32))) && plus.push(8, b"x", 2, &None, None));
    vec![
        Reply::Lookup(Ok(found)),
        Reply::Lookup(Err(Failure {
            status: Status::NoEnt,
            attributes,
        })),
        Reply::Create(Ok(created())),
        Reply::MakeDir(Ok(created())),
        Reply::Symlink(Ok(created())),
        Reply::MakeNode(Ok(created())),
        Reply::Remove(Ok(dir_wcc)),
        Reply::RemoveDir(Err(Failure {
            status: Status::NotEmpty,
            attributes: dir_wcc,
        })),
        Reply::Rename(Ok(RenameWcc {
            from_dir: dir_wcc,
            to_dir: WccData::default(),
        })),
        Reply::Link(Ok(LinkWcc { attributes, dir_wcc })),
        Reply::ReadDir(dir.finish(false).map_err(Failure::from)),
        Reply::ReadDirPlus(plus.finish(true).map_err(Failure::from)),
    ]
}

fn data_replies() -> Vec<Reply> {
    let (attributes, verifier) = (Some(ATTRIBUTES), *b"bootbeef");
    let data = vec![Bytes::from(vec![9; 517])];
    vec![
        Reply::GetAttr(Ok(ATTRIBUTES)),
        Reply::SetAttr(Ok(wcc())),
        Reply::Access(Ok(AccessOk {
            attributes,
            access: 0x3f,
        })),
        Reply::ReadLink(Ok(ReadLinkOk {
            attributes,
            path: Bytes::from(vec![b'/'; 901]),
        })),
        Reply::Read(Ok(ReadOk {
            attributes,
            eof: true,
            data,
        })),
        Reply::Write(Ok(WriteOk {
            wcc: wcc(),
            count: 517,
            committed: StableHow::Unstable,
            verifier,
        })),
        Reply::Commit(Ok(CommitOk { wcc: wcc(), verifier })),
    ]
}

fn system_replies() -> Vec<Reply> {
    let attributes = Some(ATTRIBUTES);
    let space = FsStatOk {
        attributes,
        total_bytes: 6,
        free_bytes: 5,
        available_bytes: 4,
        total_files: 3,
        free_files: 2,
        available_files: 1,
        invariant_seconds: 0,
    };
    let limits = FsInfoOk {
        attributes,
        read_max: 1 << 20,
        read_preferred: 1 << 20,
        read_multiple: 4096,
        write_max: 1 << 20,
        write_preferred: 1 << 20,
        write_multiple: 4096,
        dir_preferred: 1 << 16,
        max_file_size: (1 << 63) - 1,
        time_delta: Time {
            seconds: 0,
            nanoseconds: 1,
        },
        properties: properties::LINK | properties::SYMLINK,
    };
    let paths = PathConfOk {
        attributes: None,
        link_max: 32_000,
        name_max: 255,
        no_trunc: true,
        chown_restricted: true,
        case_insensitive: false,
        case_preserving: true,
    };
    vec![
        Reply::FsStat(Ok(space)),
        Reply::FsInfo(Ok(limits)),
        Reply::PathConf(Ok(paths)),
    ]
}
