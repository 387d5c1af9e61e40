//! Every command with its boundary values, simple and structured.

use super::*;
use crate::{Command, InFlight, MAX_PAYLOAD};

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const EPERM: u8 = 1;
const EIO: u8 = 5;
const EINVAL: u8 = 22;
const ENOSPC: u8 = 28;
const EOVERFLOW: u8 = 75;

fn open(name: &str) -> Session {
    Session::open(Limits::default(), name, false)
}

fn error_chunk(error: u8) -> Vec<u8> {
    chunk(0x8001, &[0, 0, 0, error, 0, 0])
}

fn read(offset: u64, len: u32) -> Command {
    Command::Read { offset, len }
}

fn trim(offset: u64, len: u32, fua: bool) -> Command {
    Command::Trim { offset, len, fua }
}

fn zero(offset: u64, len: u32, no_hole: bool, fua: bool) -> Command {
    Command::Zero {
        offset,
        len,
        no_hole,
        fua,
    }
}

#[test]
fn good_commands_reach_the_storage() {
    let (top, max) = (HUGE - 4096, u32::MAX);
    let cases = [
        (command(READ, 0, 0, 1), read(0, 1)),
        (command(READ, FUA, 511, MAX_PAYLOAD), read(511, MAX_PAYLOAD)),
        (command(READ, 0, top, 4096), read(top, 4096)),
        (command(FLUSH, 0, 0, 0), Command::Flush),
        (command(FLUSH, FUA, 0, 0), Command::Flush),
        (command(TRIM, 0, 0, max), trim(0, max, false)),
        (command(TRIM, FUA, top, 4096), trim(top, 4096, true)),
        (command(ZERO, 0, 1, max), zero(1, max, false, false)),
        (command(ZERO, NO_HOLE, 0, 1), zero(0, 1, true, false)),
        (command(ZERO, NO_HOLE | FUA, 0, 1), zero(0, 1, true, true)),
    ];
    let mut session = open("huge");
    for (bytes, want) in cases {
        let request = session.request(&bytes);
        assert_eq!((request.export, &request.command), (8, &want));
        let data = match want {
            Command::Read { len, .. } => vec![Bytes::from(vec![0; len as usize])],
            _ => Vec::new(),
        };
        let answer = session.reply(request.handle, Ok(data));
        assert!(answer.starts_with(&simple(0)));
    }
}

#[test]
fn writes_share_the_receive_buffer() {
    for (flags, fua) in [(0, false), (FUA, true)] {
        let mut session = open("disk");
        let write = [&command(WRITE, flags, SIZE - 5, 5)[..], b"hello"].concat();
        session.input.extend_from_slice(&write);
        let payload_at = session.input[28..].as_ptr();
        let request = session.request(&[]);
        let Command::Write { offset, data, fua: got } = request.command else {
            panic!("not a write")
        };
        assert_eq!((offset, &data[..], got), (SIZE - 5, &b"hello"[..], fua));
        assert_eq!(data.as_ptr(), payload_at, "the payload was copied");
        assert_eq!(session.reply(request.handle, Ok(Vec::new())), simple(0));
    }
}

#[test]
fn a_write_of_the_largest_payload_is_hinted_and_taken() {
    let mut session = open("huge");
    session.answer_to(&command(WRITE, 0, 0, MAX_PAYLOAD));
    assert_eq!(session.connection.hint(), MAX_PAYLOAD as usize);
    session.answer_to(&[1]);
    assert_eq!(session.connection.hint(), MAX_PAYLOAD as usize - 1);
    let request = session.request(&vec![1; MAX_PAYLOAD as usize - 1]);
    let Command::Write { data, .. } = request.command else {
        panic!("not a write")
    };
    assert_eq!(data.len(), MAX_PAYLOAD as usize);
}

#[test]
fn bad_commands_are_answered_here() {
    let far = u64::MAX;
    let cases = [
        ("disk", command(READ, 0, SIZE, 1), EINVAL),
        ("disk", command(READ, 0, SIZE - 1, 2), EINVAL),
        ("disk", command(READ, 0, SIZE + 1, 0), EINVAL),
        ("disk", command(READ, 0, far, 1), EINVAL),
        ("disk", command(READ, 0, far, u32::MAX), EINVAL),
        ("huge", command(READ, 0, 0, MAX_PAYLOAD + 1), EINVAL),
        ("huge", command(READ, 0, 0, u32::MAX), EINVAL),
        ("huge", command(READ, DF, 0, 1), EINVAL),
        ("huge", command(READ, NO_HOLE, 0, 1), EINVAL),
        ("disk", command(TRIM, 0, SIZE - 1, 2), EINVAL),
        ("disk", command(TRIM, 0, far, u32::MAX), EINVAL),
        ("disk", command(TRIM, NO_HOLE, 0, 1), EINVAL),
        ("disk", command(ZERO, 0, SIZE - 1, 2), ENOSPC),
        ("disk", command(ZERO, 0, far, 1), ENOSPC),
        ("disk", command(ZERO, 1 << 4, 0, 1), EINVAL), // FAST_ZERO
        ("disk", command(FLUSH, 0, 1, 0), EINVAL),
        ("disk", command(FLUSH, 0, 0, 1), EINVAL),
        ("disk", command(FLUSH, 1 << 3, 0, 0), EINVAL), // REQ_ONE
        ("disk", command(5, 0, 0, 1), EINVAL),          // CACHE
        ("disk", command(7, 0, 0, 1), EINVAL),          // BLOCK_STATUS
        ("disk", command(8, 0, 0, 1), EINVAL),          // RESIZE
        ("disk", command(u16::MAX, u16::MAX, far, u32::MAX), EINVAL),
        ("frozen", command(TRIM, 0, 0, 1), EPERM),
        ("frozen", command(ZERO, 0, far, 1), EPERM),
    ];
    for (name, bytes, error) in cases {
        let mut session = open(name);
        assert_eq!(session.answer_to(&bytes), simple(error), "{bytes:?}");
        session.request(&command(READ, 0, 0, 1)); // still in step
    }
}

#[test]
fn a_bad_write_is_answered_after_its_payload() {
    let cases = [
        ("disk", 0, SIZE, 1, ENOSPC),
        ("disk", 0, SIZE - 1, 2, ENOSPC),
        ("disk", 0, u64::MAX, 100, ENOSPC),
        ("disk", DF, 0, 100, EINVAL),
        ("disk", 1 << 5, 0, 100, EINVAL), // PAYLOAD_LEN
        ("frozen", 0, 0, 100, EPERM),
        ("frozen", FUA, u64::MAX, 100, EPERM),
        ("huge", 0, 0, MAX_PAYLOAD + 1, EINVAL),
    ];
    for (name, flags, offset, length, error) in cases {
        let mut session = open(name);
        assert_eq!(session.answer_to(&command(WRITE, flags, offset, length)), b"");
        let payload = vec![0x25; length as usize];
        assert_eq!(session.answer_to(&payload[1..]), b"");
        assert!(session.input.is_empty(), "a skipped payload is not held");
        assert_eq!(session.connection.hint(), 1);
        assert_eq!(session.answer_to(&payload[..1]), simple(error));
        session.request(&command(READ, 0, 0, 1));
    }
}

#[test]
fn the_longest_write_is_skipped_without_asking_for_its_memory() {
    let mut session = open("disk");
    session.answer_to(&command(WRITE, 0, 0, u32::MAX));
    assert_eq!(session.connection.hint(), 64 << 10);
}

#[test]
fn requests_for_nothing_are_answered_at_once() {
    for (kind, flags) in [(READ, 0), (WRITE, FUA), (TRIM, 0), (ZERO, NO_HOLE)] {
        for offset in [0, SIZE] {
            assert_eq!(open("disk").answer_to(&command(kind, flags, offset, 0)), simple(0));
        }
    }
    let mut session = Session::open(Limits::default(), "disk", true);
    assert_eq!(session.answer_to(&command(READ, DF, SIZE, 0)), chunk(0, b""));
    assert_eq!(session.answer_to(&command(WRITE, 0, 0, 0)), simple(0));
}

#[test]
fn structured_reads_are_one_chunk() {
    let mut session = Session::open(Limits::default(), "huge", true);
    for flags in [0, DF] {
        let request = session.request(&command(READ, flags, 0x0102, 6));
        let data = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")];
        let want = chunk(1, b"\0\0\0\0\0\0\x01\x02abcdef");
        assert_eq!(session.reply(request.handle, Ok(data)), want);
    }
    let request = session.request(&command(READ, 0, 0, 6));
    assert_eq!(session.reply(request.handle, Err(NbdError::Io)), error_chunk(EIO));
    let cases = [(0, EINVAL), (DF, EOVERFLOW), (NO_HOLE, EINVAL)];
    for (flags, error) in cases {
        let bytes = command(READ, flags, 0, MAX_PAYLOAD + 1);
        assert_eq!(session.answer_to(&bytes), error_chunk(error));
    }
}

#[test]
fn structured_sessions_answer_other_commands_simply() {
    let mut session = Session::open(Limits::default(), "disk", true);
    for (result, error) in [(Ok(Vec::new()), 0), (Err(NbdError::NoSpace), ENOSPC)] {
        let request = session.request(&command(ZERO, 0, 0, 8));
        assert_eq!(session.reply(request.handle, result), simple(error));
    }
    assert_eq!(session.answer_to(&command(5, 0, 0, 1)), simple(EINVAL));
}

#[test]
fn every_error_has_its_number() {
    let cases = [
        (NbdError::Permission, 1),
        (NbdError::Io, 5),
        (NbdError::NoMemory, 12),
        (NbdError::Invalid, 22),
        (NbdError::NoSpace, 28),
        (NbdError::Overflow, 75),
        (NbdError::NotSupported, 95),
        (NbdError::Shutdown, 108),
    ];
    let mut session = open("disk");
    for (error, number) in cases {
        let request = session.request(&command(READ, 0, 0, 8));
        assert_eq!(session.reply(request.handle, Err(error)), simple(number));
    }
}

#[test]
fn replies_may_come_in_any_order_even_with_one_cookie() {
    let mut session = open("disk");
    let first = session.request(&command(READ, 0, 0, 1));
    let second = session.request(&command(READ, 0, 1, 2));
    assert_ne!(first.handle, second.handle);
    let two = session.reply(second.handle, Ok(vec![Bytes::from_static(b"22")]));
    assert_eq!(two, [&simple(0)[..], b"22"].concat());
    let third = session.request(&command(READ, 0, 0, 3));
    assert_ne!(third.handle, second.handle, "a slot is reused, a handle is not");
    let one = session.reply(first.handle, Ok(vec![Bytes::from_static(b"1")]));
    assert_eq!(one, [&simple(0)[..], b"1"].concat());
}

#[test]
#[should_panic(expected = "replied to once")]
fn replying_twice_is_a_mistake_of_ours() {
    let mut session = open("disk");
    let request = session.request(&command(TRIM, 0, 0, 1));
    session.reply(request.handle, Ok(Vec::new()));
    session.request(&command(TRIM, 0, 0, 1));
    session.reply(request.handle, Ok(Vec::new()));
}

#[test]
#[should_panic(expected = "a reply carries what was asked for")]
fn a_short_read_is_a_mistake_of_ours() {
    let mut session = open("disk");
    let request = session.request(&command(READ, 0, 0, 2));
    session.reply(request.handle, Ok(vec![Bytes::from_static(b"1")]));
}

#[test]
fn many_headers_from_one_block_stay_intact() {
    let mut session = open("disk");
    let mut kept = Vec::new();
    for _ in 0..1000 {
        let request = session.request(&command(TRIM, 0, 0, 1));
        session.connection.reply(request.handle, Ok(Vec::new()), &mut kept);
    }
    assert!(kept.iter().all(|header| header[..] == simple(0)));
}

#[test]
fn the_count_of_requests_in_flight_is_bounded() {
    let limits = Limits {
        requests: 2,
        ..Limits::default()
    };
    let mut session = Session::open(limits, "disk", false);
    let read = command(READ, 0, 0, 10);
    session.send(&read.repeat(5)).1.unwrap();
    assert_eq!(session.requests.len(), 2);
    assert_eq!(session.connection.in_flight(), InFlight { requests: 2, bytes: 20 });
    assert_eq!((session.connection.is_full(), session.connection.hint()), (true, 0));
    assert_eq!(session.input.len(), 3 * read.len());
    let handle = session.requests.remove(0).handle;
    session.reply(handle, Err(NbdError::Io));
    assert!(!session.connection.is_full());
    session.send(&[]).1.unwrap();
    assert_eq!((session.requests.len(), session.input.len()), (2, 2 * read.len()));
}

#[test]
fn the_bytes_in_flight_are_bounded_but_one_request_always_goes() {
    let limits = Limits {
        bytes: 100,
        ..Limits::default()
    };
    let mut session = Session::open(limits, "disk", false);
    let write = [&command(WRITE, 0, 0, 4096)[..], &[0; 4096]].concat();
    let zero = command(ZERO, 0, 0, 1 << 20);
    session.send(&[&zero[..], &write, &zero].concat()).1.unwrap();
    assert_eq!(
        session.connection.in_flight(),
        InFlight {
            requests: 2,
            bytes: 4096
        }
    );
    assert!(session.connection.is_full());
    let handle = session.requests[1].handle;
    session.reply(handle, Ok(Vec::new()));
    session.send(&[]).1.unwrap();
    assert_eq!(session.connection.in_flight(), InFlight { requests: 2, bytes: 0 });
}

#[test]
fn disc_waits_for_what_is_in_flight() {
    let limits = Limits {
        requests: 1000,
        ..Limits::default()
    };
    let mut session = Session::open(limits, "disk", false);
    let many = command(FLUSH, 0, 0, 0).repeat(1000);
    session.send(&many).1.unwrap();
    session.reply(session.requests[0].handle, Ok(Vec::new()));
    let farewell = [command(DISC, 0, 0, 0), command(FLUSH, 0, 0, 0)].concat();
    assert_eq!(session.send(&farewell), (Vec::new(), Ok(())));
    assert_eq!((session.requests.len(), session.input.len()), (1000, 0));
    for index in 1..1000 {
        assert!(!session.connection.is_finished());
        session.reply(session.requests[index].handle, Ok(Vec::new()));
    }
    assert!(session.connection.is_finished());
    assert_eq!(session.send(b"more"), (Vec::new(), Ok(())));
}
