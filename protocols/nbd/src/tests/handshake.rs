//! Every option, as bytes on the wire.

use super::*;

fn export_info(size: u64, flags: u16) -> Vec<u8> {
    [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
}

const BLOCK_SIZE: [u8; 14] = [0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0];
/// HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN.
const WRITABLE: u16 = 0x16d;
/// HAS_FLAGS, READ_ONLY, FLUSH, ROTATIONAL, MULTI_CONN.
const FROZEN: u16 = 0x117;
const DF: u16 = 0x80;

#[test]
fn the_greeting_is_fixed_newstyle_without_zeroes() {
    let mut out = Vec::new();
    let session = Session::accepted();
    session.connection.start(&mut out);
    assert_eq!(out.concat(), b"NBDMAGICIHAVEOPT\x00\x03");
    assert_eq!(session.connection.hint(), 4);
}

#[test]
fn export_name_answers_size_and_flags_with_padding_unless_declined() {
    // client flags, structured, name, size, flags, padding
    let cases: [(u8, bool, &str, u64, u16, usize); 6] = [
        (0, false, "disk", SIZE, WRITABLE, 124),
        (1, false, "", SIZE, WRITABLE, 124),
        (2, false, "disk", SIZE, WRITABLE, 0),
        (3, false, "huge", HUGE, WRITABLE, 0),
        (3, false, "frozen", SIZE, FROZEN, 0),
        (3, true, "disk", SIZE, WRITABLE | DF, 0),
    ];
    for (flags, structured, name, size, expected, padding) in cases {
        let mut session = Session::accepted();
        session.answer_to(&[0, 0, 0, flags]);
        if structured {
            session.answer_to(&option(8, b""));
        }
        let answer = session.answer_to(&option(1, name.as_bytes()));
        let want = [&size.to_be_bytes()[..], &expected.to_be_bytes(), &vec![0; padding]].concat();
        assert_eq!(answer, want, "{name}");
        assert_eq!(session.connection.export().unwrap().size, size);
    }
}

#[test]
fn go_and_info_describe_the_export() {
    for (name, items, size, flags) in [
        ("disk", &[][..], SIZE, WRITABLE),
        ("", &[3], SIZE, WRITABLE),
        ("frozen", &[1], SIZE, FROZEN),
        ("huge", &[2, 3, 1, 0, 99, 1], HUGE, WRITABLE),
    ] {
        let data = query(name, items);
        for number in [6, 7] {
            let mut session = Session::haggling();
            let mut want = rep(number, 3, &export_info(size, flags));
            want.extend(rep(number, 3, &BLOCK_SIZE));
            if items.contains(&1) {
                want.extend(rep(number, 3, &[&[0, 1], name.as_bytes()].concat()));
            }
            want.extend(rep(number, 1, b""));
            assert_eq!(session.answer_to(&option(number, &data)), want, "{name} {number}");
            assert_eq!(session.connection.export().is_some(), number == 7);
        }
    }
}

#[test]
fn structured_replies_may_be_asked_for_twice_and_show_in_the_flags() {
    let mut session = Session::haggling();
    assert_eq!(session.answer_to(&option(8, b"")), rep(8, 1, b""));
    assert_eq!(session.answer_to(&option(8, b"")), rep(8, 1, b""));
    let answer = session.answer_to(&option(7, &query("disk", &[])));
    assert!(answer.starts_with(&rep(7, 3, &export_info(SIZE, WRITABLE | DF))));
}

#[test]
fn list_names_every_export() {
    let mut session = Session::haggling();
    let server = |name: &[u8]| rep(3, 2, &[&[0, 0, 0, u8::try_from(name.len()).unwrap()], name].concat());
    let want = [server(b"disk"), server(b"huge"), server(b"frozen"), rep(3, 1, b"")].concat();
    assert_eq!(session.answer_to(&option(3, b"")), want);
}

#[test]
fn listings_share_one_budget() {
    let limits = Limits::default();
    let mut session = Session::haggling();
    session.exports.more = 100_000;
    let first = session.answer_to(&option(3, b""));
    let text = b"more exports than one connection may list";
    let end = rep(3, 0x8000_0009, text);
    assert!(first.ends_with(&end));
    let listed = first.len() - end.len();
    assert!(
        listed <= limits.list_bytes && listed > limits.list_bytes - 64,
        "{listed}"
    );
    assert_eq!(session.answer_to(&option(3, b"")), end);
}

#[test]
fn abort_is_acknowledged_and_ends_in_good_order() {
    let mut session = Session::haggling();
    assert!(!session.connection.is_finished());
    assert_eq!(session.answer_to(&option(2, b"")), rep(2, 1, b""));
    assert!(session.connection.is_finished());
    assert_eq!(session.answer_to(b"whatever comes then is ignored"), b"");
    assert!(session.input.is_empty());
}

#[test]
fn options_not_offered_are_refused_and_the_haggling_goes_on() {
    let mut session = Session::haggling();
    // PEEK_EXPORT, STARTTLS, LIST and SET_META_CONTEXT, EXTENDED_HEADERS, unassigned
    for number in [0, 4, 5, 9, 10, 11, 12, u32::MAX] {
        let want = rep(number, 0x8000_0001, b"option not supported");
        assert_eq!(session.answer_to(&option(number, b"data")), want);
    }
    session.answer_to(&option(7, &query("disk", &[])));
    assert!(session.connection.export().is_some());
}

#[test]
fn a_session_may_come_byte_by_byte_and_the_hint_never_asks_too_much() {
    let whole = [&[0, 0, 0, 3][..], &option(8, b""), &option(7, &query("disk", &[1]))].concat();
    let mut at_once = Session::accepted();
    let want = at_once.answer_to(&whole);
    let mut session = Session::accepted();
    let mut got = Vec::new();
    for (index, byte) in whole.iter().enumerate() {
        assert!(session.connection.hint() <= whole.len() - index);
        got.extend(session.answer_to(&[*byte]));
    }
    assert_eq!(got, want);
    assert_eq!(session.connection.hint(), 28);
}
