//! The byte form of RFC 1813's types, round trips of everything, and the limits of listings.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::samples::{ATTRIBUTES, handle, replies, requests};
use super::*;

fn encoded(encode: impl FnOnce(&mut Writer)) -> Bytes {
    let (mut w, mut out) = (Writer::new(), Vec::new());
    encode(&mut w);
    w.finish(&mut out);
    Bytes::from(out.concat())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Field by field in the order of RFC 1813 section 2.6.
#[test]
fn fattr3_has_the_standard_form() {
    let wire = encoded(|w| ATTRIBUTES.encode(w));
    let expected = words(&[
        1,
        0o4755,
        2,
        1000,
        100, // type, mode, nlink, uid, gid
        1 << 14,
        0,
        1,
        0x0002_0003, // size, used
        8,
        17, // rdev
        0x1122_3344,
        0x5566_7788,
        0x99aa_bbcc,
        0xddee_ff00, // fsid, fileid
        1,
        2,
        3,
        4,
        5,
        999_999_999, // atime, mtime, ctime
    ]);
    assert_eq!(wire, expected);
    assert_eq!(wire.len(), FATTR3_SIZE);
    assert_eq!(Fattr3::decode(&mut Reader::new(&wire)), Ok(ATTRIBUTES));
}

#[test]
fn requests_have_the_standard_form() {
    let name = Bytes::from_static(b"abcde");
    let dir = Handle::new(b"dir").unwrap();
    let target = || DirOpArgs {
        dir,
        name: name.clone(),
    };
    let target_wire = b"\0\0\0\x03dir\0\0\0\0\x05abcde\0\0\0";
    let cases: Vec<(Request, Vec<u8>)> = vec![
        (Request::Lookup(target()), target_wire.to_vec()),
        (
            Request::Create(CreateArgs {
                target: target(),
                how: CreateHow::Exclusive(*b"verifier"),
            }),
            [&target_wire[..], b"\0\0\0\x02verifier"].concat(),
        ),
        (
            Request::MakeNode(MakeNodeArgs {
                target: target(),
                what: MakeNode::Block(Sattr3::default(), SpecData { major: 8, minor: 1 }),
            }),
            [&target_wire[..], &words(&[3, 0, 0, 0, 0, 0, 0, 8, 1])].concat(),
        ),
        (
            Request::SetAttr(SetAttrArgs {
                object: dir,
                attributes: Sattr3 {
                    size: Some(1 << 33),
                    mtime: SetTime::Server,
                    ..Sattr3::default()
                },
                guard: Some(Time {
                    seconds: 5,
                    nanoseconds: 6,
                }),
            }),
            [&b"\0\0\0\x03dir\0"[..], &words(&[0, 0, 0, 1, 2, 0, 0, 1, 1, 5, 6])].concat(),
        ),
        (
            Request::ReadDirPlus(ReadDirPlusArgs {
                dir,
                cookie: 1 << 32,
                verifier: *b"verifier",
                dir_count: 512,
                max_count: 8192,
            }),
            [&b"\0\0\0\x03dir\0\0\0\0\x01\0\0\0\0verifier"[..], &words(&[512, 8192])].concat(),
        ),
        (
            Request::Write(WriteArgs {
                file: dir,
                offset: 3,
                count: 2,
                stable: StableHow::FileSync,
                data: Bytes::from_static(b"xy"),
            }),
            [&b"\0\0\0\x03dir\0"[..], &words(&[0, 3, 2, 2, 2]), b"xy\0\0"].concat(),
        ),
    ];
    for (request, wire) in cases {
        assert_eq!(encoded(|w| request.encode(w)), wire, "{request:?}");
    }
}

#[test]
fn every_request_survives_a_round_trip_and_no_truncation() {
    let mut seen = BTreeSet::new();
    for request in requests() {
        seen.insert(request.procedure());
        let wire = encoded(|w| request.encode(w));
        let mut r = Reader::new(&wire);
        assert_eq!(Request::decode(request.procedure(), &mut r), Some(Ok(request.clone())));
        assert_eq!(r.finish(), Ok(()));
        for length in 0..wire.len() {
            let short = wire.slice(..length);
            let result = Request::decode(request.procedure(), &mut Reader::new(&short)).unwrap();
            assert!(result.is_err(), "{request:?} cut to {length}");
        }
    }
    assert_eq!(seen, (1..=21).collect());
    for unknown in [NULL, 22, u32::MAX] {
        assert_eq!(Request::decode(unknown, &mut Reader::new(&Bytes::new())), None);
        assert_eq!(Reply::decode(unknown, &mut Reader::new(&Bytes::new())), None);
    }
}

#[test]
fn every_reply_survives_a_round_trip() {
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for reply in replies() {
        let wire = encoded(|w| reply.encode(w));
        let fits = |procedure: &u32| {
            let mut r = Reader::new(&wire);
            Reply::decode(*procedure, &mut r) == Some(Ok(reply.clone())) && r.finish().is_ok()
        };
        let procedure = (1..=21).find(fits).unwrap_or_else(|| panic!("{reply:?}"));
        if reply.status().is_none() {
            good.insert(procedure)
        } else {
            bad.insert(procedure)
        };
    }
    assert_eq!(bad, (1..=21).collect());
    // RMDIR gives only failures among the samples.
    assert_eq!(good, (1..=21).filter(|&procedure| procedure != 13).collect());
}

/// The void, post_op_attr, wcc_data, two wcc_data and post_op_attr + wcc_data of section 3.3.
#[test]
fn failures_carry_what_the_rfc_says() {
    for request in requests() {
        let attributes = match request.procedure() {
            1 => 0,
            3..=6 | 16..=20 => 1,
            14 => 4,
            15 => 3,
            _ => 2,
        };
        let wire = encoded(|w| request.fail(Status::NameTooLong).encode(w));
        assert_eq!(wire, words(&[63, 0, 0, 0, 0][..=attributes]), "{request:?}");
    }
}

#[test]
fn numbers_of_the_rfc() {
    let status: Vec<u32> = Status::ALL.iter().map(|status| status.number()).collect();
    let expected = [
        1, 2, 5, 6, 13, 17, 18, 19, 20, 21, 22, 27, 28, 30, 31, 63, 66, 69, 70, 71, 10_001, 10_002, 10_003, 10_004,
        10_005, 10_006, 10_007, 10_008,
    ];
    assert_eq!(status, expected);
    assert_eq!(Status::from_number(0), None);
    assert_eq!(
        FileType::ALL.iter().map(|kind| kind.number()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7]
    );
}

#[test]
fn handles_have_at_most_64_bytes() {
    for (len, good) in [(0, true), (64, true), (65, false), (300, false)] {
        assert_eq!(Handle::new(&vec![1; len]).is_some(), good);
        let wire = encoded(|w| w.opaque(&vec![1; len]));
        assert_eq!(Handle::decode(&mut Reader::new(&wire)).is_ok(), good);
    }
}

const NAMES: [&[u8]; 4] = [b"a", b"four", b"fives", &[b'n'; 255]];

/// The listing with as many of `NAMES` as fit, and their number.
fn read_dir(count: u32, attributes: PostOpAttr) -> (usize, Result<Bytes, Status>) {
    let mut builder = ReadDirBuilder::new(count, attributes, [0; 8]);
    let fitting = NAMES
        .iter()
        .zip(1..)
        .take_while(|(name, cookie)| builder.push(*cookie, name, *cookie));
    let fitting = fitting.count();
    let listing = builder.finish(fitting == NAMES.len());
    (fitting, listing.map(|listing| encoded(|w| listing.encode(w))))
}

#[test]
fn read_dir_fills_count_exactly() {
    for attributes in [None, Some(ATTRIBUTES)] {
        let full = read_dir(u32::MAX, attributes).1.unwrap().len();
        let mut most = 0;
        for count in 0..u32::try_from(full).unwrap() + 8 {
            let (fitting, listing) = read_dir(count, attributes);
            let Ok(wire) = listing else {
                assert_eq!((fitting, listing), (0, Err(Status::TooSmall)));
                continue;
            };
            let limit = usize::try_from(count).unwrap();
            assert!(fitting > 0 && wire.len() <= limit);
            let next = NAMES.get(fitting).map(|name| 24 + name.len().next_multiple_of(4));
            assert!(
                next.is_none_or(|next| wire.len() + next > limit),
                "{count}: another would fit"
            );
            most = most.max(fitting);
        }
        assert_eq!(most, NAMES.len());
    }
}

#[test]
fn read_dir_has_the_standard_form() {
    let mut builder = ReadDirBuilder::new(4096, None, *b"verifier");
    assert!(builder.push(7, b"name1", 9));
    let listing = builder.finish(true).unwrap();
    let wire = encoded(|w| listing.encode(w));
    let expected = b"\0\0\0\0verifier\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\x05name1\0\0\0\0\0\0\0\0\0\0\x09\
        \0\0\0\0\0\0\0\x01";
    assert_eq!(&wire[..], expected);
    let entry = Entry {
        fileid: 7,
        name: Bytes::from_static(b"name1"),
        cookie: 9,
    };
    assert_eq!(listing.entries(), (vec![entry], true));
}

#[test]
fn an_empty_directory_needs_its_frame_only() {
    assert_eq!(
        ReadDirBuilder::new(19, None, [0; 8]).finish(true),
        Err(Status::TooSmall)
    );
    let empty = ReadDirBuilder::new(20, None, [0; 8]).finish(true).unwrap();
    assert_eq!(encoded(|w| empty.encode(w)).len(), 20);
    assert_eq!(empty.entries(), (vec![], true));
    assert_eq!(
        ReadDirBuilder::new(4096, None, [0; 8]).finish(false),
        Err(Status::TooSmall)
    );
}

fn read_dir_plus(dir_count: u32, max_count: u32) -> (usize, usize) {
    let mut builder = ReadDirPlusBuilder::new(dir_count, max_count, Some(ATTRIBUTES), [0; 8]);
    let handle = handle(33);
    let fitting = (0..10).take_while(|&n| builder.push(n, b"name", n, &Some(ATTRIBUTES), Some(&handle)));
    let fitting = fitting.count();
    let length = builder
        .finish(fitting == 10)
        .map_or(0, |listing| encoded(|w| listing.encode(w)).len());
    (fitting, length)
}

#[test]
fn read_dir_plus_respects_both_limits() {
    // One entry: 4 + (8 + 8 + 8) of directory + 88 of attributes + 4 + 4 + 36 of handle.
    let (entry, directory, frame) = (160, 24, 104);
    for entries in 1..10_u32 {
        let full = frame + entry * entries;
        let expected = usize::try_from(entries).unwrap();
        assert_eq!(
            read_dir_plus(u32::MAX, full),
            (expected, usize::try_from(full).unwrap())
        );
        assert_eq!(read_dir_plus(u32::MAX, full + entry - 1).0, expected);
        assert_eq!(read_dir_plus(directory * entries, u32::MAX).0, expected);
        assert_eq!(read_dir_plus(directory * (entries + 1) - 1, u32::MAX).0, expected);
    }
    assert_eq!(read_dir_plus(u32::MAX, frame + entry - 1), (0, 0));
    assert_eq!(
        read_dir_plus(0, u32::MAX).0,
        1,
        "the first entry is exempt from dircount"
    );
}

#[test]
fn a_read_reply_whose_counts_differ_is_refused() {
    let wire = Bytes::from(words(&[0, 0, 5, 0, 4, 0]));
    assert_eq!(
        Reply::decode(6, &mut Reader::new(&wire)),
        Some(Err(XdrError::BadValue(5)))
    );
}
