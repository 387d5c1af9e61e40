//! Peers that break the rules: each class ends in an error reply or a typed reason, never in more.

use super::*;

fn refusal(bytes: &[u8]) -> CloseReason {
    Session::haggling().send(bytes).1.unwrap_err()
}

#[test]
fn client_flags_that_were_not_offered_close() {
    for (bytes, flags) in [([0, 0, 0, 4], 4), ([0, 0, 0, 7], 7), ([0x80, 0, 0, 3], 0x8000_0003)] {
        let result = Session::accepted().send(&bytes).1;
        assert_eq!(result, Err(CloseReason::ClientFlags { flags }));
    }
}

#[test]
fn a_wrong_option_magic_closes_and_stays_closed() {
    let mut session = Session::haggling();
    session.answer_to(&option(8, b""));
    let reason = CloseReason::OptionMagic {
        magic: 0x4741_5254_2048_5454,
        index: 2,
    };
    assert_eq!(session.send(b"GART HTTP/1.1 / \r\n").1, Err(reason.clone()));
    assert_eq!(session.send(&option(8, b"")), (Vec::new(), Err(reason)));
}

#[test]
fn only_export_name_without_fixed_newstyle() {
    for number in [2, 3, 6, 7, 8, 99] {
        let mut session = Session::accepted();
        session.answer_to(&[0, 0, 0, 2]);
        let reason = CloseReason::NotFixedNewstyle { option: number };
        assert_eq!(session.send(&option(number, b"")).1, Err(reason));
    }
}

#[test]
fn export_name_has_no_error_reply() {
    for (name, shown) in [
        (&b"none"[..], "none"),
        (b"dis", "dis"),
        (b"disk\0", "disk\0"),
        (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        (&[b'x'; 4096], &"x".repeat(64)),
    ] {
        let reason = CloseReason::UnknownExport { name: shown.into() };
        assert_eq!(refusal(&option(1, name)), reason);
    }
    let too_long = refusal(&option(1, &[b'x'; 4097]));
    assert_eq!(
        too_long,
        CloseReason::NameTooLong {
            length: 4097,
            limit: 4096
        }
    );
}

#[test]
fn lengths_within_info_and_go_must_add_up() {
    let good = query("disk", &[1]);
    let mut cases: Vec<Vec<u8>> = (0..good.len()).map(|n| good[..n].to_vec()).collect();
    cases.push([&good[..], &[0]].concat());
    cases.push([&good[..], &[0, 1]].concat());
    for name_length in [3, 5, 0x7fff_ffff, 0x8000_0000, u32::MAX - 3, u32::MAX] {
        cases.push([&name_length.to_be_bytes()[..], &good[4..]].concat());
    }
    for count in [0, 2, 0x7fff, 0x8000, 0x8001, 0xffff_u16] {
        cases.push([&good[..8], &count.to_be_bytes(), &good[10..]].concat());
    }
    for data in cases {
        let number = 6 + u32::try_from(data.len() % 2).unwrap();
        let want = rep(number, 0x8000_0003, b"lengths in the request do not add up");
        assert_eq!(Session::haggling().answer_to(&option(number, &data)), want, "{data:?}");
    }
}

#[test]
fn names_that_cannot_be_looked_up_are_refused() {
    let bad_name = |name: &[u8]| [&[0, 0, 0, 2], name, &[0, 0]].concat();
    let mut session = Session::haggling();
    for number in [6, 7] {
        let invalid = rep(number, 0x8000_0003, b"export name is not valid UTF-8");
        assert_eq!(session.answer_to(&option(number, &bad_name(b"\xc3("))), invalid);
        assert_eq!(session.answer_to(&option(number, &bad_name(b"a\0"))), invalid);
        let unknown = rep(number, 0x8000_0006, b"no such export");
        assert_eq!(session.answer_to(&option(number, &query("Disk", &[]))), unknown);
    }
    assert!(session.connection.export().is_none());
}

#[test]
fn options_without_data_refuse_data() {
    let mut session = Session::haggling();
    let text = [(3, &b"LIST takes no data"[..]), (8, b"STRUCTURED_REPLY takes no data")];
    for (number, text) in text {
        assert_eq!(session.answer_to(&option(number, b"x")), rep(number, 0x8000_0003, text));
    }
    let answer = session.answer_to(&option(7, &query("disk", &[])));
    assert_eq!(answer[30] & 0x80, 0, "structured replies were not negotiated");
}

#[test]
fn an_option_over_the_limit_is_skipped_piece_by_piece_and_refused() {
    let mut session = Session::haggling();
    let long = option(7, &vec![b'x'; 8000]);
    assert_eq!(session.answer_to(&long[..100]), b"");
    assert!(session.input.is_empty(), "nothing is held");
    assert_eq!(session.connection.hint(), long.len() - 100);
    let want = rep(7, 0x8000_0009, b"option data over the limit");
    assert_eq!(session.answer_to(&long[100..]), want);
    session.answer_to(&option(7, &query("disk", &[])));
    assert!(session.connection.export().is_some());
}

#[test]
fn option_data_is_bounded_in_total_and_by_announcement() {
    for length in [65_537, 0x8000_0000, u32::MAX] {
        let header = [&option(7, b"")[..12], &length.to_be_bytes()].concat();
        assert_eq!(
            refusal(&header),
            CloseReason::TooMuchOptionData {
                option: 7,
                length,
                limit: 65_536
            }
        );
    }
    let mut session = Session::haggling();
    for _ in 0..16 {
        session.answer_to(&option(99, &[0; 4096]));
    }
    session.answer_to(&option(8, b""));
    let reason = CloseReason::TooMuchOptionData {
        option: 99,
        length: 1,
        limit: 65_536,
    };
    assert_eq!(session.send(&option(99, b"x")).1, Err(reason));
}

#[test]
fn the_65th_option_closes() {
    let mut session = Session::haggling();
    for _ in 0..64 {
        session.answer_to(&option(6, &query("disk", &[])));
    }
    let result = session.send(&option(6, &query("disk", &[]))).1;
    assert_eq!(result, Err(CloseReason::TooManyOptions { limit: 64 }));
}

#[test]
fn a_wrong_request_magic_closes_after_answering_what_came_before() {
    // an option after GO, a simple reply, an extended header (magic 0x21e41c71)
    for (bytes, magic) in [
        (&option(7, &query("disk", &[]))[..], 0x4948_4156),
        (&[simple(0), simple(0)].concat(), 0x6744_6698),
        (&[&[0x21, 0xe4, 0x1c, 0x71][..], &[0; 28]].concat(), 0x21e4_1c71),
    ] {
        let mut session = Session::open(Limits::default(), "disk", false);
        let bad = [&command(READ, 0, 0, 0)[..], bytes, &[0; 28]].concat();
        let (answer, result) = session.send(&bad);
        assert_eq!(answer, simple(0));
        assert_eq!(result, Err(CloseReason::RequestMagic { magic, index: 2 }));
        assert_eq!(session.connection.hint(), 0);
        assert!(!session.connection.is_finished());
    }
}

#[test]
fn replies_after_a_fault_are_swallowed() {
    let mut session = Session::open(Limits::default(), "disk", false);
    let request = session.request(&command(FLUSH, 0, 0, 0));
    session.send(&[0; 28]).1.unwrap_err();
    assert_eq!(session.reply(request.handle, Ok(Vec::new())), b"");
    assert_eq!(session.connection.in_flight().requests, 0);
}

#[test]
fn reasons_say_what_and_where() {
    let reason = CloseReason::RequestMagic {
        magic: 0x1234,
        index: 3,
    };
    let text = "transmission: request 3 starts with 0x00001234 instead of 0x25609513";
    assert_eq!(reason.to_string(), text);
    let reason = CloseReason::UnknownExport { name: "a\n".into() };
    assert_eq!(reason.to_string(), r#"handshake: EXPORT_NAME of unknown export "a\n""#);
}
