//! Discovery, text, pings, numbering, rejects, logout.

use super::*;

fn discovery() -> Rig {
    let mut rig = Rig::new();
    let text = b"InitiatorName=iqn.test\0SessionType=Discovery\0MaxRecvDataSegmentLength=512\0";
    let reply = rig.send(&Raw::new(0x43, 0x87).word(24, 1).with(text)).unwrap();
    assert_eq!((reply[0].bhs[1], reply[0].get(36)), (0x87, 0), "no one to wait for");
    assert_eq!(rig.actions, []);
    rig
}

fn text(data: &[u8]) -> Raw {
    Raw::new(0x04, 0x80).word(16, 3).word(20, u32::MAX).with(data)
}

const RECORD: &str = "TargetName=iqn.2026-11.io.trivet:fuzz;TargetAddress=127.0.0.1:3260,1;";

#[test]
fn targets_are_discovered() {
    for value in ["All", "", TARGET] {
        let reply = discovery()
            .next(text(format!("SendTargets={value}\0").as_bytes()))
            .remove(0);
        assert_eq!((reply.bhs[0], reply.bhs[1], reply.get(20)), (0x24, 0x80, u32::MAX));
        assert_eq!(reply.text(), RECORD, "{value}");
    }
    let reply = discovery().next(text(b"SendTargets=iqn.nobody\0X-what=1\0InitialR2T=No\0"));
    assert_eq!(reply[0].text(), "X-what=NotUnderstood;InitialR2T=Reject;");
}

#[test]
fn a_normal_session_discovers_itself_only() {
    let mut rig = Rig::logged_in("");
    assert_eq!(rig.next(text(b"SendTargets=\0"))[0].text(), RECORD);
    assert_eq!(rig.next(text(b"SendTargets=All\0"))[0].text(), "SendTargets=Reject;");
    assert_eq!(rig.next(text(b"SendTargets=iqn.other\0"))[0].text(), "");
}

#[test]
fn a_long_reply_is_fetched_piece_by_piece() {
    let mut rig = discovery();
    let keys: String = (0..40).map(|i| format!("X-{i:02}=1\0")).collect();
    let reply = rig.next(text(keys.as_bytes())).remove(0);
    assert_eq!((reply.bhs[1], reply.data.len()), (0x40, 512));
    let more = Raw::new(0x04, 0x80).word(16, 3).word(20, reply.get(20));
    let rest = rig.next(more.clone()).remove(0);
    assert_eq!((rest.bhs[1], rest.get(20)), (0x80, u32::MAX));
    assert_eq!(reply.data.len() + rest.data.len(), 40 * "X-00=NotUnderstood\0".len());
}

#[test]
fn a_text_request_may_continue_even_with_nothing_in_it() {
    let mut rig = discovery();
    let reply = rig.next(Raw::new(0x04, 0x40).word(16, 3).word(20, u32::MAX)).remove(0);
    assert_eq!((reply.bhs[1], reply.data.len()), (0, 0));
    let rest = Raw::new(0x04, 0x80)
        .word(16, 3)
        .word(20, reply.get(20))
        .with(b"SendTargets=All\0");
    assert_eq!(rig.next(rest)[0].text(), RECORD);
}

#[test]
fn wrong_text_requests() {
    let reply = discovery().next(text(b"").word(20, 77)).remove(0);
    assert_eq!((reply.bhs[0], reply.bhs[2]), (0x3F, 9));
    let reply = discovery().next(text(b"").byte(1, 0xC0)).remove(0);
    assert_eq!((reply.bhs[0], reply.bhs[2]), (0x3F, 4));
    for wrong in [&b"SendTargets"[..], b"SendTargets=All\0SendTargets=All\0"] {
        assert!(matches!(
            discovery().send(&text(wrong).word(24, 1)),
            Err(CloseReason::Text(_))
        ));
    }
}

#[test]
fn discovery_sessions_take_no_commands() {
    let mut rig = discovery();
    for opcode in [0x01, 0x02] {
        let reply = rig.next(Raw::new(opcode, 0x81)).remove(0);
        assert_eq!((reply.bhs[0], reply.bhs[2], reply.data[0]), (0x3F, 5, opcode));
    }
}

#[test]
fn pings_are_echoed() {
    let mut rig = Rig::logged_in("MaxRecvDataSegmentLength=512\0");
    let ping = Raw::new(0x40, 0x80).word(16, 5).word(20, u32::MAX).with(&[7; 600]);
    let pong = rig.next(ping).remove(0);
    assert_eq!(
        (pong.bhs[0], pong.bhs[1], pong.get(16), pong.get(20)),
        (0x20, 0x80, 5, u32::MAX)
    );
    assert_eq!(pong.data, [7; 512]);
}

#[test]
fn a_silent_initiator_is_pinged_then_left() {
    let mut rig = Rig::logged_in("");
    let mut out = Vec::new();
    rig.connection.tick(14_999, &mut out).unwrap();
    assert!(out.is_empty());
    rig.connection.tick(15_000, &mut out).unwrap();
    rig.connection.tick(16_000, &mut out).unwrap();
    let ping = parse(&out);
    assert_eq!((ping.len(), ping[0].bhs[0], ping[0].get(16)), (1, 0x20, u32::MAX));
    rig.now = 16_000;
    assert_eq!(
        rig.next(Raw::new(0x40, 0x80).word(16, u32::MAX).word(20, ping[0].get(20))),
        []
    );
    rig.connection.tick(26_000, &mut out).unwrap();
    rig.connection.tick(31_000, &mut out).unwrap();
    assert_eq!(rig.connection.tick(41_000, &mut out), Err(CloseReason::Silent));
}

#[test]
fn status_numbers_count_and_the_window_moves() {
    let mut rig = Rig::logged_in("");
    let first = rig.command(0x80, 1, 0, &[0; 6]).remove(0);
    let second = rig.command(0x80, 1, 0, &[0; 6]).remove(0);
    assert_eq!(second.get(24), first.get(24) + 1);
    assert_eq!((second.get(28), second.get(32)), (first.get(28) + 1, first.get(32) + 1));
    rig.command(0xC0, 2, 512, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let nop = rig.next(Raw::new(0x40, 0x80).word(16, 5).word(20, u32::MAX)).remove(0);
    assert_eq!(
        (nop.get(28), nop.get(32)),
        (second.get(28) + 1, second.get(32)),
        "one is outstanding"
    );
}

#[test]
fn commands_outside_of_the_window_are_ignored_and_gaps_end_it() {
    let mut rig = Rig::logged_in("");
    let at = |cmd_sn| Raw::new(0x01, 0x80).word(16, 1).word(24, cmd_sn);
    for outside in [1, 0, 2 + 128, u32::MAX] {
        assert_eq!(rig.send(&at(outside)), Ok(vec![]), "{outside}");
    }
    assert_eq!(rig.send(&at(2)).unwrap().len(), 1);
    assert_eq!(rig.send(&at(4)), Err(CloseReason::CommandGap { cmd_sn: 4 }));
}

#[test]
fn the_window_holds_128_commands_and_16_immediate_ones() {
    let mut rig = Rig::logged_in("");
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    for itt in 0..130 {
        assert_eq!(rig.command(0xC0, itt, 512, &read), []);
    }
    assert_eq!(rig.actions.len(), 128);
    let immediate = |itt| Raw::new(0x41, 0xC0).word(16, itt).word(20, 512).cdb(&read);
    for itt in 1000..1016 {
        assert_eq!(rig.next(immediate(itt)), []);
    }
    let reply = rig.next(immediate(1016)).remove(0);
    assert_eq!((reply.bhs[0], reply.bhs[2]), (0x3F, 6));
}

#[test]
fn what_is_not_known_is_rejected_with_its_header() {
    let mut rig = Rig::logged_in("");
    for (opcode, reason) in [(0x10, 3), (0x1C, 5), (0x3F, 5)] {
        let pdu = Raw::new(opcode, 0x80).word(16, 99);
        let reply = rig.send(&pdu).unwrap().remove(0);
        assert_eq!((reply.bhs[0], reply.bhs[2], reply.get(16)), (0x3F, reason, u32::MAX));
        assert_eq!(reply.data, pdu.bhs);
    }
    assert_eq!(rig.send(&Raw::new(0x43, 0x87)), Err(CloseReason::SecondLogin));
}

#[test]
fn logout_ends_the_session_after_its_operations() {
    let mut rig = Rig::logged_in("");
    rig.command(0xC0, 1, 512, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let (tag, _) = rig.op();
    assert_eq!(rig.next(Raw::new(0x46, 0x80).word(16, 2)), []);
    assert_eq!(
        rig.next(Raw::new(0x40, 0x80).word(16, 3)),
        [],
        "nothing is taken any more"
    );
    assert!(!rig.connection.is_finished());
    let reply = rig.finish(tag, Ok(vec![pattern(0, 512)]));
    assert_eq!(
        (reply.len(), reply[0].bhs[0], reply[0].bhs[2], reply[0].get(16)),
        (1, 0x26, 0, 2)
    );
    assert!(rig.connection.is_finished());
}

#[test]
fn logout_for_recovery_is_refused_and_unknown_reasons_rejected() {
    let mut rig = Rig::logged_in("");
    let reply = rig.next(Raw::new(0x46, 0x82).word(16, 2)).remove(0);
    assert_eq!((reply.bhs[0], reply.bhs[2]), (0x26, 2));
    assert_eq!(rig.next(Raw::new(0x46, 0x83).word(16, 2))[0].bhs[0], 0x3F);
    assert!(!rig.connection.is_finished());
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut rig = Rig::logged_in("");
    let bytes = Raw::new(0x40, 0x80)
        .word(16, 5)
        .word(20, u32::MAX)
        .with(b"hello")
        .bytes();
    let mut out = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        assert!(out.is_empty());
        assert!(rig.connection.hint() <= bytes.len() - index);
        rig.send_bytes(&[*byte], &mut out).unwrap();
    }
    assert_eq!(parse(&out)[0].data, b"hello");
}
