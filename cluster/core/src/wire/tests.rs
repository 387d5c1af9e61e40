use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use super::frame::WireError::{self, Field, Short, Trailing, UnitSum};
use super::frame::{HEADER, Kind, Limits, needed, seal};
use super::samples::{Random, samples};
use super::{decode, encode};
use crate::ids::{OBJECT_SIZE, UNIT_SIZE};
use crate::message::{Action, Message, PeerBody};

/// Header and body of each sample in hexadecimal, "name: header | body".
const GOLDEN: &str = include_str!("golden.txt");

fn frame(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out.concat()
}

fn take(bytes: &[u8]) -> Result<Option<Message>, WireError> {
    decode(&mut BytesMut::from(bytes), &Limits::default())
}

fn sample(name: &str) -> Message {
    let found = samples().into_iter().find(|(n, _)| *n == name);
    found.expect("a sample of this name").1
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_sample_comes_back() {
    for (name, message) in samples() {
        assert_eq!(take(&frame(&message)), Ok(Some(message)), "{name}");
    }
}

#[test]
fn generated_messages_come_back_one_after_another() {
    let mut random = Random(1);
    let messages: Vec<Message> = (0..500).map(|_| random.message()).collect();
    let mut input = BytesMut::new();
    let mut sent = messages.iter();
    let mut received = Vec::new();
    while received.len() < messages.len() {
        sent.by_ref()
            .take(random.below(4))
            .for_each(|message| input.extend_from_slice(&frame(message)));
        while let Some(message) = decode(&mut input, &Limits::default()).unwrap() {
            received.push(message);
        }
        assert!(input.is_empty());
    }
    assert!(received == messages);
}

#[test]
fn golden_bytes_of_every_kind() {
    let mut kinds = BTreeSet::new();
    let mut lines = String::new();
    for (name, message) in samples() {
        let mut out = Vec::new();
        encode(&message, &mut out);
        kinds.insert(out[0][5]);
        let (header, body) = out[0].split_at(HEADER);
        lines += &format!("{name}: {} | {}\n", hex(header), hex(body));
    }
    assert_eq!(lines, GOLDEN, "the format changed: raise FORMAT");
    let all: BTreeSet<u8> = Kind::ALL.iter().map(|&kind| kind as u8).collect();
    assert_eq!(kinds, all, "a kind without a sample");
    assert!(all.into_iter().eq(1..=29), "kinds are numbered from 1");
}

#[test]
fn every_truncation_waits() {
    for (name, message) in samples() {
        let bytes = frame(&message);
        for len in 0..bytes.len() {
            let mut input = BytesMut::from(&bytes[..len]);
            let taken = decode(&mut input, &Limits::default());
            assert_eq!(taken, Ok(None), "{name}, {len} bytes");
            assert_eq!(input, bytes[..len], "{name}: nothing is taken");
            let expected = if len < HEADER { HEADER } else { bytes.len() };
            assert_eq!(needed(&input), expected, "{name}, {len} bytes");
        }
        assert_eq!(needed(&bytes), bytes.len());
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let limits = Limits { max_frame: 1 << 18 };
    for (name, message) in samples() {
        let bytes = frame(&message);
        for bit in 0..bytes.len() * 8 {
            let mut input = BytesMut::from(&bytes[..]);
            input[bit / 8] ^= 1 << (bit % 8);
            let mut taken = decode(&mut input, &limits);
            if taken == Ok(None) {
                // A longer frame is announced: when it is there, its sums are wrong.
                let len = needed(&input);
                assert!(len > bytes.len(), "{name}, bit {bit}");
                input.resize(len, 0);
                taken = decode(&mut input, &limits);
            }
            assert!(taken.is_err(), "{name}, bit {bit}: {taken:?}");
        }
    }
}

#[test]
fn payload_is_neither_copied_out_nor_in() {
    let data = vec![Bytes::from(vec![1; 8192]), Bytes::from(vec![2; 4096])];
    let Message::Op(mut op) = sample("write") else {
        unreachable!()
    };
    if let Action::Write {
        offset, data: payload, ..
    } = &mut op.action
    {
        (*offset, *payload) = (0, data.clone());
    }
    let mut out = Vec::new();
    encode(&Message::Op(op), &mut out);
    let places: Vec<_> = out[1..].iter().map(|segment| segment.as_ptr()).collect();
    assert_eq!(places, [data[0].as_ptr(), data[1].as_ptr()]);

    let mut input = BytesMut::from(&out.concat()[..]);
    let start = input.as_ptr() as usize + out[0].len();
    let taken = decode(&mut input, &Limits::default());
    let Ok(Some(Message::Op(op))) = taken else {
        panic!("{taken:?}")
    };
    let Action::Write { data, .. } = op.action else {
        unreachable!()
    };
    assert_eq!(data[0].as_ptr() as usize, start);
}

/// The frame of a sample with some body bytes replaced and the sums made right again.
fn forged(name: &str, at: usize, bytes: &[u8]) -> Result<Option<Message>, WireError> {
    let mut out = Vec::new();
    encode(&sample(name), &mut out);
    let mut head = out[0].to_vec();
    let kind = Kind::ALL[usize::from(head[5]) - 1];
    let end = HEADER + at + bytes.len();
    head.resize(head.len().max(end), 0);
    head[HEADER + at..end].copy_from_slice(bytes);
    seal(kind, &mut head, &out[1..]);
    out[0] = Bytes::from(head);
    take(&out.concat())
}

/// Lengths of the fields that come first.
/// After id, PG and epoch.
const SETTLED: usize = 30;
const ANSWERED: usize = SETTLED + 8;
const PREVIOUS: usize = ANSWERED + 8;
const STAMP: usize = PREVIOUS + 8;
const OBJECT_OF_OP: usize = STAMP + 8;
/// After id and clock.
const RESULT: usize = 24;
const OBJECT_OF_PEER: usize = 14;
const RANGE: usize = OBJECT_OF_OP + 16;
const LISTING: usize = OBJECT_OF_PEER;
const PROMISE: usize = LISTING + 8;
const LISTED: usize = PROMISE + 1;
const OF_OBJECT: usize = OBJECT_OF_PEER + 16;
/// After the version that must be there.
const MUTATION: usize = OF_OBJECT + 16;
const OPS: usize = MUTATION + 16;
const PATCHES: usize = OPS + 30;
const PUSH_OPS: usize = OF_OBJECT + 16;
/// Behind two operations.
const PUSH_PATCHES: usize = PUSH_OPS + 5 + 32 + 6;

/// A sample, where in its body other bytes are put, those bytes, and what the decoder then says.
const IMPOSSIBLE: &[(&str, usize, &[u8], WireError)] = &[
    // Ranges: the offset, then the length.
    ("read", RANGE, &[1, 0xfc, 1, 0], Field("a range beyond the object")),
    ("read", RANGE, &[0xff; 4], Field("a range beyond the object")),
    ("read", RANGE + 4, &[0; 4], Field("a range beyond the object")),
    ("zero", RANGE, &[1], Field("a range beyond the object")),
    ("write", RANGE, &[0xfc, 0xff, 1, 0], Field("a range beyond the object")),
    ("write", RANGE, &[0xff; 4], Field("a range beyond the object")),
    // Places.
    ("remove", 16, &[4], Field("an image of another pool")),
    ("list", 16, &[4], Field("an image of another pool")),
    ("fetch", 0, &[4], Field("an image of another pool")),
    ("list", OBJECT_OF_OP + 16, &[0; 8], Field("an empty range of objects")),
    (
        "list from",
        OBJECT_OF_OP + 16,
        &[9, 0],
        Field("an empty range of objects"),
    ),
    // Sequences: of the operation, settled, answered, previous.
    ("remove", 15, &[0x80], Field("a sequence that is none")),
    ("remove", SETTLED + 7, &[0x80], Field("a sequence that is none")),
    ("remove", ANSWERED + 7, &[0x80], Field("a sequence that is none")),
    ("remove", PREVIOUS + 7, &[0x80], Field("a sequence that is none")),
    // Answers.
    ("objects", RESULT, &[3, 0, 0, 0], Short),
    (
        "objects",
        RESULT,
        &[0xff; 4],
        Field("more items than the list may have"),
    ),
    ("objects", RESULT, &[1, 0, 0, 0], Trailing(8)),
    ("objects", RESULT + 4, &[5], Field("object numbers")),
    ("damaged", RESULT, &[0], Field("the error of an operation")),
    ("damaged", RESULT, &[5], Short),
    ("damaged", RESULT, &[9], Field("the error of an operation")),
    ("other epoch", RESULT, &[1], Trailing(8)),
    ("written", OF_OBJECT + 16, &[5], Field("the outcome of a write")),
    ("written", OF_OBJECT + 8, &[0; 8], Field("a version without a write")),
    // Listings: part, parts, promise, the count, objects of 33 bytes.
    ("listing", LISTING, &[1], Field("a part beyond the last")),
    ("listing", LISTING + 4, &[0], Field("a part beyond the last")),
    ("listing, promise", LISTING + 4, &[2], Field("a part beyond the last")),
    ("listing", PROMISE, &[3], Field("the kind of a promise")),
    ("listing", LISTED, &[0xff; 4], Short),
    ("listing", LISTED, &[3], Short),
    ("listing", LISTED + 4 + 8, &[2], Field("a listing out of order")),
    ("listing", LISTED + 4 + 8, &[3], Field("a listing out of order")),
    ("listing", LISTED + 4 + 24, &[0; 8], Field("a version without a write")),
    (
        "listing",
        LISTED + 4 + 32,
        &[2],
        Field("a flag that is neither 0 nor 1"),
    ),
    // Mutations: version, remembered operations, zero, tombstone, patches.
    ("member write", OF_OBJECT, &[1], Field("a version without a write")),
    (
        "member write",
        MUTATION + 8,
        &[0; 8],
        Field("a version without a write"),
    ),
    (
        "member write",
        OPS,
        &[2],
        Field("what becomes of remembered operations"),
    ),
    ("push", PUSH_OPS + 1, &[129], Field("more items than the list may have")),
    (
        "push",
        PUSH_OPS + 1,
        &[0xff; 4],
        Field("more items than the list may have"),
    ),
    ("push", PUSH_OPS + 1, &[128], Short),
    ("push", PUSH_PATCHES - 6, &[0], Field("a whole object that keeps units")),
    ("push", PUSH_PATCHES - 1, &[33], Field("more patches than units")),
    ("member write", PATCHES - 1, &[1], Field("a tombstone that keeps units")),
    (
        "member write, tombstone",
        PATCHES - 5,
        &[0],
        Field("a tombstone that keeps units"),
    ),
    ("member write", PATCHES, &[33], Field("more patches than units")),
    ("member write", PATCHES, &[0], Field("payload that belongs to no patch")),
    ("member write", PATCHES, &[2], Short),
    ("member write", PATCHES + 1, &[32], Field("units beyond the object")),
    (
        "member write",
        PATCHES + 1,
        &[255, 255],
        Field("units beyond the object"),
    ),
    ("member write", PATCHES + 2, &[0], Field("units beyond the object")),
    (
        "member write",
        PATCHES + 2,
        &[2],
        Field("less payload than the patches cover"),
    ),
    ("member write", PATCHES + 1, &[2], UnitSum),
    ("member write", PATCHES + 3, &[0], UnitSum),
    ("member write", OBJECT_OF_PEER + 8, &[0], UnitSum),
    ("member write, two patches", PATCHES + 1 + 10, &[6], UnitSum),
    ("fetched", OF_OBJECT + 4, &[0], Field("payload without an object")),
    (
        "fetched",
        OF_OBJECT + 3,
        &[0x80],
        Field("damaged units that are there, or cannot be"),
    ),
    (
        "fetched, tombstone",
        OF_OBJECT,
        &[1],
        Field("damaged units that are there, or cannot be"),
    ),
    ("fetched, none", OF_OBJECT + 4, &[1], Short),
    ("scrubbed", OF_OBJECT + 8, &[0; 8], Field("a version without a write")),
    // Pings: the clock, the count, PGs of 14 bytes.
    ("ping", 8, &[1, 0, 1, 0], Field("more items than the list may have")),
    ("ping", 8, &[3], Short),
    ("ping", 8, &[0, 0, 1, 0], Short),
    ("pong", 16, &[0], Trailing(14)),
    // Bodies that go on.
    ("tick request", 8, &[0], Trailing(1)),
    ("tick", 29, &[0], Trailing(1)),
    ("tick, no mark", 16, &[1], Short),
    ("tick, no mark", 17, &[0], Trailing(1)),
    ("barrier", OBJECT_OF_OP + 8, &[0], Trailing(1)),
    ("passed", RESULT, &[0], Trailing(1)),
    ("changed", RESULT, &[0], Trailing(1)),
    ("data", RESULT, &[0, 0], Trailing(2)),
    ("fence", OBJECT_OF_PEER, &[0], Trailing(1)),
    ("refused", OBJECT_OF_PEER + 8, &[0], Trailing(1)),
    ("forget", OF_OBJECT + 16, &[0; 3], Trailing(3)),
    ("stray", OBJECT_OF_PEER, &[0], Trailing(1)),
    ("drop", OBJECT_OF_PEER, &[0], Trailing(1)),
    ("scrub", OF_OBJECT, &[0], Trailing(1)),
];

#[test]
fn impossible_fields_are_refused_even_with_right_sums() {
    for (name, at, bytes, error) in IMPOSSIBLE {
        assert_eq!(forged(name, *at, bytes), Err(*error), "{name} at {at}: {bytes:02x?}");
    }
}

#[test]
fn overlapping_patches_are_refused() {
    let Message::Peer(mut peer) = sample("member write, two patches") else {
        unreachable!()
    };
    if let PeerBody::Write { mutation, .. } = &mut peer.body {
        let again = mutation.patches[0].clone();
        mutation.patches[1] = again;
    }
    let error = Field("patches that overlap");
    assert_eq!(take(&frame(&Message::Peer(peer))), Err(error));
}

#[test]
fn headers_are_checked_before_anything_is_awaited() {
    let table: &[(&str, usize, &[u8], WireError)] = &[
        ("read", 0, b"GET ", WireError::Magic(*b"GET ")),
        ("read", 4, &[1], WireError::Format(1)),
        ("read", 5, &[0], WireError::Kind(0)),
        ("read", 5, &[30], WireError::Kind(30)),
        ("read", 6, &[1, 2], WireError::Reserved(0x0201)),
        (
            "read",
            8,
            &[0xff; 8],
            WireError::TooLarge {
                len: 24 + 2 * 0xffff_ffff,
                limit: 64 << 20,
            },
        ),
        (
            "read",
            8,
            &[0, 0, 0, 4],
            WireError::TooLarge {
                len: 24 + (64 << 20),
                limit: 64 << 20,
            },
        ),
        ("read", 12, &[1], WireError::Payload { kind: 1, len: 1 }),
        ("write", 12, &[0], WireError::Payload { kind: 2, len: 0 }),
        (
            "data",
            12,
            &[1, 0, 2],
            WireError::Payload {
                kind: 7,
                len: OBJECT_SIZE + 1,
            },
        ),
        (
            "fetched",
            12,
            &[1, 0, 2],
            WireError::Payload {
                kind: 16,
                len: OBJECT_SIZE + 1,
            },
        ),
    ];
    for (name, at, bytes, error) in table {
        let mut header = frame(&sample(name))[..HEADER].to_vec();
        header[*at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(take(&header), Err(*error), "{name} at {at}");
        assert_eq!(needed(&header), HEADER, "{name} at {at}");
    }
}

#[test]
fn the_limit_counts_the_whole_frame() {
    let bytes = frame(&sample("member write"));
    let with = |max_frame| decode(&mut BytesMut::from(&bytes[..HEADER]), &Limits { max_frame });
    let len = bytes.len();
    assert!(len > UNIT_SIZE);
    assert_eq!(with(len), Ok(None));
    assert_eq!(with(len - 1), Err(WireError::TooLarge { len, limit: len - 1 }));
}

#[test]
fn a_fuzzer_finds_nothing_near_the_samples() {
    let mut random = Random(2);
    for (_, message) in samples() {
        let bytes = frame(&message);
        super::fuzz::fuzz(&bytes);
        let (head, body) = bytes.split_at(HEADER);
        for _ in 0..200 {
            // As the fuzzer's second form has it: kind, length of the body, body and payload.
            let mut input = vec![head[5] - 1, head[8], head[9]];
            input.extend_from_slice(body);
            let at = random.below(input.len().min(160));
            input[at] = u8::try_from(random.below(256)).unwrap();
            super::fuzz::fuzz(&input);
        }
    }
}

#[test]
fn noise_is_no_message() {
    let mut random = Random(3);
    for len in 0..300 {
        let noise: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        super::fuzz::fuzz(&noise);
        assert_eq!(take(&noise).ok().flatten(), None);
    }
}
