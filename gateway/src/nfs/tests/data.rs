//! Reading and writing: sizes, ends, times, failures, and truncations under way.

use trivet_nfs::nfs3::{CommitArgs, ReadArgs, ReadOk, StableHow, WriteArgs, WriteOk};

use super::*;

fn write(file: Handle, offset: u64, data: &'static [u8]) -> Request {
    let count = u32::try_from(data.len()).unwrap();
    let data = Bytes::from_static(data);
    Request::Write(WriteArgs {
        file,
        offset,
        count,
        stable: StableHow::Unstable,
        data,
    })
}

fn read(file: Handle, offset: u64, count: u32) -> Request {
    Request::Read(ReadArgs { file, offset, count })
}

/// A file of `size` bytes.
fn file(gateway: &mut Gateway, root: Handle, size: u64) -> Handle {
    let file = gateway.create(root, "f");
    let attributes = nfs3::Sattr3 {
        size: Some(size),
        ..Default::default()
    };
    let request = Request::SetAttr(nfs3::SetAttrArgs {
        object: file,
        attributes,
        guard: None,
    });
    assert_eq!(gateway.status(&request), None);
    file
}

fn written(reply: Option<Reply>) -> WriteOk {
    match reply {
        Some(Reply::Write(Ok(ok))) => ok,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_beyond_the_end_moves_the_size_before_it_is_answered() {
    let (mut gateway, root) = Gateway::open();
    let file = gateway.create(root, "f");
    let request = write(file, 10, b"data");
    let (ticket, op) = gateway.asks(&request);
    assert_eq!(
        op,
        ImageOp::Write {
            offset: 10,
            data: vec![Bytes::from_static(b"data")]
        }
    );
    gateway.io_done(ticket, Ok(Vec::new()));
    assert!(gateway.out.is_empty(), "the size comes first");
    let wall = gateway.wall();
    gateway.settle(0);
    let ok = written(gateway.reply(&request));
    assert_eq!(
        (ok.count, ok.committed, ok.verifier),
        (4, StableHow::FileSync, *b"verifier")
    );
    let after = ok.wcc.after.unwrap();
    assert_eq!((after.size, after.mtime), (14, call_context::time(wall)));
    assert_eq!(gateway.attributes(file), Ok(after));
}

#[test]
fn a_write_within_the_file_moves_its_time_at_once() {
    let (mut gateway, root) = Gateway::open();
    let file = file(&mut gateway, root, 100);
    let request = write(file, 96, b"last");
    let (ticket, _) = gateway.asks(&request);
    gateway.io_done(ticket, Ok(Vec::new()));
    let after = written(gateway.reply(&request)).wcc.after.unwrap();
    assert!(matches!(gateway.asked[..], [(_, Asked::Touch { .. })]));
    gateway.settle(0);
    assert_eq!(gateway.attributes(file), Ok(after));
    assert_eq!(after.mtime, call_context::time(gateway.wall()));
}

#[test]
fn reads_end_where_the_file_does() {
    let (mut gateway, root) = Gateway::open();
    let file = file(&mut gateway, root, 100);
    for (offset, count, len, eof) in [
        (0, 10, 10, false),
        (0, 100, 100, true),
        (90, 100, 10, true),
        (99, 1, 1, true),
        (0, u32::MAX, 100, true),
    ] {
        let request = read(file, offset, count);
        let (ticket, op) = gateway.asks(&request);
        assert_eq!(op, ImageOp::Read { offset, len });
        let data = vec![Bytes::from(vec![7; usize::try_from(len).unwrap()])];
        gateway.io_done(ticket, Ok(data.clone()));
        let Some(Reply::Read(Ok(ReadOk {
            eof: at_end, data: got, ..
        }))) = gateway.reply(&request)
        else {
            panic!()
        };
        assert_eq!((at_end, got), (eof, data));
    }
    for (offset, count, eof) in [
        (100, 1, true),
        (u64::MAX, u32::MAX, true),
        (50, 0, false),
        (100, 0, true),
    ] {
        let Reply::Read(Ok(ok)) = gateway.run(&read(file, offset, count)) else {
            panic!()
        };
        assert_eq!((ok.eof, ok.data.concat().len()), (eof, 0), "{offset}");
    }
}

#[test]
fn reads_are_clamped_to_what_fsinfo_says() {
    let (mut gateway, root) = Gateway::open();
    let file = file(&mut gateway, root, 1 << 40);
    let Reply::FsInfo(Ok(info)) = gateway.run(&Request::FsInfo(file)) else {
        panic!()
    };
    let (_, op) = gateway.asks(&read(file, 0, u32::MAX));
    assert_eq!(
        op,
        ImageOp::Read {
            offset: 0,
            len: u64::from(info.read_max)
        }
    );
}

#[test]
fn bad_writes() {
    let (mut gateway, root) = Gateway::open();
    let file = gateway.create(root, "f");
    let data = Bytes::from_static(b"1234");
    let with = |offset, count| {
        let (stable, data) = (StableHow::FileSync, data.clone());
        Request::Write(WriteArgs {
            file,
            offset,
            count,
            stable,
            data,
        })
    };
    for (request, status) in [
        (with(0, 5), Status::Invalid),
        (with(0, 3), Status::Invalid),
        (with((1 << 63) - 4, 4), Status::FileTooBig),
        (with(u64::MAX - 1, 4), Status::FileTooBig),
        (write(root, 0, b"x"), Status::IsDir),
    ] {
        assert_eq!(gateway.status(&request), Some(status), "{request:?}");
    }
    assert_eq!(gateway.status(&write(file, 1 << 50, b"")), None);
    assert_eq!(
        gateway.attributes(file).unwrap().size,
        0,
        "nothing written, nothing moved"
    );
}

#[test]
fn failures_of_the_storage() {
    let (mut gateway, root) = Gateway::open();
    let file = file(&mut gateway, root, 100);
    for (error, status) in [
        (IoError::NoSpace, Status::NoSpace),
        (IoError::Damaged, Status::Io),
        (IoError::NoPool, Status::Io),
    ] {
        for request in [write(file, 0, b"x"), read(file, 0, 1)] {
            let (ticket, _) = gateway.asks(&request);
            gateway.io_done(ticket, Err(error));
            assert_eq!(gateway.reply(&request).unwrap().status(), Some(status));
            assert!(gateway.asked.is_empty(), "no time moves");
        }
    }
}

#[test]
fn a_file_that_is_removed_meanwhile_is_stale() {
    for grows in [false, true] {
        for reads in [false, true] {
            let (mut gateway, root) = Gateway::open();
            let file = file(&mut gateway, root, 10);
            let request = if reads {
                read(file, 0, 5)
            } else {
                write(file, if grows { 50 } else { 0 }, b"x")
            };
            let (ticket, _) = gateway.asks(&request);
            let id = gateway.namespace.resolve(b"f").unwrap();
            let removal = Operation::Remove {
                parent: trivet_namespace::ROOT,
                name: b"f".to_vec(),
            };
            gateway.change(&removal, Caller::root()).unwrap();
            assert!(gateway.namespace.inode(id).is_none());
            gateway.io_done(ticket, Ok(vec![Bytes::from_static(b"zeros")]));
            assert_eq!(gateway.reply(&request).unwrap().status(), Some(Status::Stale));
            assert!(gateway.asked.is_empty());
        }
    }
}

#[test]
fn commit_has_nothing_left_to_do() {
    let (mut gateway, root) = Gateway::open();
    let file = gateway.create(root, "f");
    let request = Request::Commit(CommitArgs {
        file,
        offset: u64::MAX,
        count: u32::MAX,
    });
    let Reply::Commit(Ok(ok)) = gateway.run(&request) else {
        panic!()
    };
    assert_eq!(ok.verifier, *b"verifier");
}

#[test]
fn records_that_stall_and_garbage_end_the_session() {
    let (mut gateway, root) = Gateway::open();
    let bytes = gateway.request(&Request::GetAttr(root));
    let mut input = BytesMut::from(&bytes[..50]);
    gateway
        .with(0, |session, context, out| session.receive(&mut input, context, out))
        .unwrap();
    assert_eq!(gateway.sessions[0].hint(), bytes.len() - 50);
    for (seconds, fine) in [(119, true), (120, false)] {
        gateway.now = Now(seconds * 1_000_000_000);
        let result = gateway.with(0, |session, context, out| session.tick(context, out));
        assert_eq!(result.is_ok(), fine);
    }
    input.extend_from_slice(&bytes[50..]);
    gateway
        .with(0, |session, context, out| session.receive(&mut input, context, out))
        .unwrap();
    assert!(
        gateway
            .with(0, |session, context, out| session.tick(context, out))
            .is_ok()
    );
    let fault = gateway.send(0, &[0xff; 8]).unwrap_err();
    assert!(fault.to_string().starts_with("a record of 2147483647 bytes"), "{fault}");
}
