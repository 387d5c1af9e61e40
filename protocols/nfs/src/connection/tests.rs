//! Whole calls as bytes, refusals, limits and backpressure.

use super::*;
use crate::nfs3::{Failure, Handle, ReadArgs, ReadOk, StableHow, Status, WccData, WriteArgs, WriteOk};
use crate::rpc::{AuthStat, Groups, LAST_FRAGMENT, SysCredentials, finish_record, write_call_header};

const XID: u32 = 0x1357_9bdf;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A record in one fragment.
fn record(body: &[u8]) -> Vec<u8> {
    let mark = LAST_FRAGMENT | u32::try_from(body.len()).unwrap();
    [&mark.to_be_bytes(), body].concat()
}

/// A call with AUTH_NONE and raw arguments.
fn call(program: u32, version: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
    let header = words(&[XID, 0, 2, program, version, procedure, 0, 0, 0, 0]);
    record(&[&header[..], arguments].concat())
}

fn nfs_call(request: &nfs3::Request) -> Vec<u8> {
    let (mut w, mut out) = (Writer::new(), Vec::new());
    let (program, version, procedure) = (nfs3::PROGRAM, nfs3::VERSION, request.procedure());
    let credentials = Credentials::None;
    write_call_header(
        &mut w,
        &CallHeader {
            xid: XID,
            program,
            version,
            procedure,
            credentials,
        },
    );
    request.encode(&mut w);
    finish_record(&mut w, &mut out);
    out.concat()
}

/// Feeds `bytes` to `connection`; the answers and the calls.
fn feed(connection: &mut Connection, bytes: &[u8]) -> Result<(Vec<u8>, Vec<Call>), CloseReason> {
    let (mut out, mut calls) = (Vec::new(), Vec::new());
    connection.receive(&mut BytesMut::from(bytes), &mut out, &mut calls)?;
    Ok((out.concat(), calls))
}

fn connection() -> Connection {
    Connection::new(Limits::default())
}

fn handle() -> Handle {
    Handle::new(b"abcdefgh").unwrap()
}

fn write(length: usize) -> nfs3::Request {
    nfs3::Request::Write(WriteArgs {
        file: handle(),
        offset: 1 << 40,
        count: u32::try_from(length).unwrap(),
        stable: StableHow::FileSync,
        data: Bytes::from(vec![0x5a; length]),
    })
}

/// GETATTR in the form in which kernel clients send it: AUTH_SYS, "trivet-1", root, group 0.
#[test]
fn a_getattr_byte_by_byte() {
    let bytes = b"\x80\0\0\x54\x13\x57\x9b\xdf\0\0\0\0\0\0\0\x02\0\x01\x86\xa3\0\0\0\x03\0\0\0\x01\
        \0\0\0\x01\0\0\0\x20\0\0\x04\xd2\0\0\0\x08trivet-1\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\
        \0\0\0\0\0\0\0\0\0\0\0\x08abcdefgh";
    let (out, calls) = feed(&mut connection(), bytes).unwrap();
    assert!(out.is_empty());
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].ticket.xid(), XID);
    assert_eq!(calls[0].body, Request::Nfs(nfs3::Request::GetAttr(handle())));
    let Credentials::Sys(SysCredentials {
        stamp,
        uid,
        gid,
        groups,
        ..
    }) = &calls[0].credentials
    else {
        panic!("AUTH_SYS")
    };
    assert_eq!((*stamp, *uid, *gid, *groups), (1234, 0, 0, Groups::new(&[0])));
}

/// The whole reply to each call, without mark and xid.
fn assert_answers(cases: &[(&str, Vec<u8>, &[u32])]) {
    for (name, bytes, expected) in cases {
        let mut connection = connection();
        let (out, calls) = feed(&mut connection, bytes).unwrap();
        let expected = record(&[&XID.to_be_bytes(), &words(expected)[..]].concat());
        assert_eq!(out, expected, "{name}");
        assert_eq!((calls.len(), connection.calls_in_flight()), (0, 0), "{name}");
    }
}

#[test]
fn null_is_answered_at_once() {
    assert_answers(&[
        ("NFS NULL", call(nfs3::PROGRAM, 3, 0, &[]), &[1, 0, 0, 0, 0]),
        ("MOUNT NULL", call(mount::PROGRAM, 3, 0, &[]), &[1, 0, 0, 0, 0]),
        (
            "NULL with arguments",
            call(nfs3::PROGRAM, 3, 0, &[0; 4]),
            &[1, 0, 0, 0, 4],
        ),
    ]);
}

#[test]
fn rpc_errors_are_answered_at_once() {
    let (nfs, mount) = (nfs3::PROGRAM, mount::PROGRAM);
    assert_answers(&[
        ("NFS_ACL", call(100_227, 3, 0, &[]), &[1, 0, 0, 0, 1]),
        ("NFS version 4", call(nfs, 4, 0, &[]), &[1, 0, 0, 0, 2, 3, 3]),
        ("MOUNT version 1", call(mount, 1, 3, &[]), &[1, 0, 0, 0, 2, 3, 3]),
        ("NFS procedure 22", call(nfs, 3, 22, &[]), &[1, 0, 0, 0, 3]),
        ("MOUNT procedure 6", call(mount, 3, 6, &[]), &[1, 0, 0, 0, 3]),
        ("RPC version 3", record(&words(&[XID, 0, 3])), &[1, 1, 0, 2, 2]),
        (
            "AUTH_TLS",
            record(&words(&[XID, 0, 2, nfs, 3, 0, 7, 0, 0, 0])),
            &[1, 1, 1, 1],
        ),
        (
            "bad verifier",
            record(&words(&[XID, 0, 2, nfs, 3, 0, 0, 0, 1, 0])),
            &[1, 1, 1, 3],
        ),
    ]);
}

#[test]
fn arguments_too_short_and_too_long() {
    let (nfs, mount) = (nfs3::PROGRAM, mount::PROGRAM);
    let too_long = [&words(&[65])[..], &[0; 68]].concat();
    assert_answers(&[
        ("GETATTR without handle", call(nfs, 3, 1, &[]), &[1, 0, 0, 0, 4]),
        (
            "GETATTR with more",
            call(nfs, 3, 1, &words(&[4, 1, 0])),
            &[1, 0, 0, 0, 4],
        ),
        ("handle of 65 bytes", call(nfs, 3, 1, &too_long), &[1, 0, 0, 0, 4]),
        ("DUMP with arguments", call(mount, 3, 2, &[0; 4]), &[1, 0, 0, 0, 4]),
    ]);
}

/// Bad discriminants and booleans anywhere in the arguments.
#[test]
fn garbage_arguments() {
    let dir = [&words(&[4, 1, 1])[..], b"n\0\0\0"].concat();
    let cases: &[(u32, Vec<u8>)] = &[
        (2, words(&[4, 1, 2])),                    // SETATTR: set_mode3 of 2
        (2, words(&[4, 1, 0, 0, 0, 0, 3, 0, 0])),  // set_atime of 3
        (2, words(&[4, 1, 0, 0, 0, 0, 0, 0, 2])),  // sattrguard3 of 2
        (7, words(&[4, 1, 0, 0, 0, 3, 0])),        // WRITE: stable_how of 3
        (7, words(&[4, 1, 0, 0, 0, 0, u32::MAX])), // length that wraps when padded
        (8, [&dir[..], &words(&[3])].concat()),    // CREATE: createmode3 of 3
        (11, [&dir[..], &words(&[8])].concat()),   // MKNOD: ftype3 of 8
        (11, [&dir[..], &words(&[0])].concat()),   // ftype3 of 0
        (12, words(&[4, 1, u32::MAX - 3])),        // REMOVE: a name of nearly 4 GiB
        (16, words(&[4, 1, 0, 0, 0, 0])),          // READDIR without count
    ];
    for (procedure, arguments) in cases {
        let bytes = call(nfs3::PROGRAM, 3, *procedure, arguments);
        let (out, calls) = feed(&mut connection(), &bytes).unwrap();
        assert_eq!(out[24..], words(&[4]), "{procedure} {arguments:?}");
        assert!(calls.is_empty());
    }
}

#[test]
fn records_that_are_not_calls_close() {
    let cases = [
        (record(&words(&[XID, 1, 0, 0, 0, 0])), CloseReason::NotACall),
        (record(&[]), CloseReason::ShortHeader),
        (
            words(&[0x7fff_ffff]),
            CloseReason::RecordTooLarge {
                size: 0x7fff_ffff,
                limit: 1_056_768,
            },
        ),
        (vec![0; 400_000], CloseReason::TooManyFragments { limit: 1024 }),
    ];
    for (bytes, reason) in cases {
        assert_eq!(feed(&mut connection(), &bytes), Err(reason));
    }
}

#[test]
fn the_largest_write_passes_without_a_copy() {
    let request = write(1 << 20);
    let mut input = BytesMut::from(&nfs_call(&request)[..]);
    let range = input.as_ptr_range();
    let (mut connection, mut out, mut calls) = (connection(), Vec::new(), Vec::new());
    connection.receive(&mut input, &mut out, &mut calls).unwrap();
    let Request::Nfs(nfs3::Request::Write(args)) = &calls[0].body else {
        panic!("WRITE")
    };
    assert!(range.contains(&args.data.as_ptr()));
    assert_eq!(calls[0].body, Request::Nfs(request));
    assert!(connection.bytes_in_flight() > 1 << 20);
}

#[test]
fn replies_are_records_and_reads_are_not_copied() {
    let mut connection = connection();
    let request = nfs3::Request::Read(ReadArgs {
        file: handle(),
        offset: 0,
        count: 5,
    });
    let (_, mut calls) = feed(&mut connection, &nfs_call(&request)).unwrap();
    let data = vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"de")];
    let reply = Reply::Nfs(nfs3::Reply::Read(Ok(ReadOk {
        attributes: None,
        eof: true,
        data: data.clone(),
    })));
    let mut out = Vec::new();
    connection.reply(calls.remove(0).ticket, &reply, &mut out);
    assert_eq!([out[1].as_ptr(), out[2].as_ptr()], [data[0].as_ptr(), data[2].as_ptr()]);
    let mut expected = words(&[XID, 1, 0, 0, 0, 0, 0, 0, 5, 1, 5]);
    expected.extend_from_slice(b"abcde\0\0\0");
    assert_eq!(out.concat(), record(&expected));
    assert_eq!((connection.calls_in_flight(), connection.bytes_in_flight()), (0, 0));
}

#[test]
fn calls_can_be_refused_and_forgotten() {
    let mut connection = connection();
    let bytes = [nfs_call(&write(10)), nfs_call(&write(10))].concat();
    let (_, mut calls) = feed(&mut connection, &bytes).unwrap();
    let mut out = Vec::new();
    connection.refuse(calls.remove(0).ticket, Refusal::Auth(AuthStat::TooWeak), &mut out);
    assert_eq!(out.concat(), record(&words(&[XID, 1, 1, 1, 5])));
    assert_eq!(connection.calls_in_flight(), 1);
    connection.forget(calls.remove(0).ticket);
    assert_eq!((connection.calls_in_flight(), connection.bytes_in_flight()), (0, 0));
}

#[test]
fn input_waits_while_too_much_is_in_flight() {
    for (calls, bytes, admitted) in [(2, usize::MAX, 2), (usize::MAX, 100, 1), (usize::MAX, 200, 2)] {
        let mut connection = Connection::new(Limits {
            calls,
            bytes,
            ..Limits::default()
        });
        let one = nfs_call(&write(32));
        assert_eq!(one.len(), 4 + 40 + 12 + 20 + 32);
        let mut input = BytesMut::from(&one.repeat(5)[..]);
        let (mut out, mut taken) = (Vec::new(), Vec::new());
        for rest in (0..5_usize).rev() {
            connection.receive(&mut input, &mut out, &mut taken).unwrap();
            assert_eq!(taken.len(), admitted.min(rest + 1));
            let reply = Reply::Nfs(nfs3::Reply::Write(Err(Status::NoSpace.into())));
            connection.reply(taken.remove(0).ticket, &reply, &mut out);
        }
        assert!(input.is_empty() && connection.has_room());
    }
}

#[test]
fn fingerprints_tell_calls_apart() {
    let fingerprint = |request: &nfs3::Request| {
        let (_, mut calls) = feed(&mut connection(), &nfs_call(request)).unwrap();
        calls.remove(0).fingerprint
    };
    let name = |name| nfs3::DirOpArgs {
        dir: handle(),
        name: Bytes::from_static(name),
    };
    let remove = nfs3::Request::Remove(name(b"a"));
    assert_eq!(fingerprint(&remove), fingerprint(&remove));
    for other in [
        nfs3::Request::Remove(name(b"b")),
        nfs3::Request::RemoveDir(name(b"a")),
        write(8),
    ] {
        assert_ne!(fingerprint(&remove), fingerprint(&other));
    }
}

#[test]
fn failures_carry_their_attributes() {
    let mut connection = connection();
    let (_, mut calls) = feed(&mut connection, &nfs_call(&write(4))).unwrap();
    let failure = Failure {
        status: Status::Stale,
        attributes: WccData::default(),
    };
    let mut out = Vec::new();
    connection.reply(
        calls.remove(0).ticket,
        &Reply::Nfs(nfs3::Reply::Write(Err(failure))),
        &mut out,
    );
    assert_eq!(out.concat(), record(&words(&[XID, 1, 0, 0, 0, 0, 70, 0, 0])));
    let (_, mut calls) = feed(&mut connection, &nfs_call(&write(4))).unwrap();
    let written = WriteOk {
        wcc: WccData::default(),
        count: 4,
        committed: StableHow::FileSync,
        verifier: *b"verifier",
    };
    let mut out = Vec::new();
    connection.reply(
        calls.remove(0).ticket,
        &Reply::Nfs(nfs3::Reply::Write(Ok(written))),
        &mut out,
    );
    let expected = [&words(&[XID, 1, 0, 0, 0, 0, 0, 0, 0, 4, 2])[..], b"verifier"].concat();
    assert_eq!(out.concat(), record(&expected));
}
