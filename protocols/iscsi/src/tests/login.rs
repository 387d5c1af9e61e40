//! Logins as initiators send them, and logins that are refused.

use super::*;

fn leading(flags: u8, text: &str) -> Raw {
    Raw::new(0x43, flags)
        .word(8, 0x0002_3D01)
        .word(16, 7)
        .word(24, 1)
        .with(text.as_bytes())
}

fn names(rest: &str) -> String {
    format!("InitiatorName=iqn.1993-08.org.debian:01:abc\0TargetName={TARGET}\0SessionType=Normal\0{rest}")
}

#[test]
fn open_iscsi_logs_in() {
    let mut rig = Rig::new();
    let security = leading(0x81, &names("InitiatorAlias=host\0AuthMethod=None\0"));
    let reply = rig.send(&security).unwrap().remove(0);
    assert_eq!(reply.bhs[..4], [0x23, 0x81, 0, 0]);
    assert_eq!(reply.bhs[8..16], [0, 2, 0x3D, 1, 0, 0, 0, 0], "ISID, and no TSIH yet");
    assert_eq!(
        (reply.get(16), reply.get(28), reply.get(32)),
        (7, 1, 128),
        "ITT, ExpCmdSN, MaxCmdSN"
    );
    assert_eq!(reply.text(), "AuthMethod=None;TargetPortalGroupTag=1;");
    let operational = leading(
        0x87,
        "HeaderDigest=None\0DataDigest=None\0DefaultTime2Wait=2\0DefaultTime2Retain=0\0IFMarker=No\0OFMarker=No\0\
         ErrorRecoveryLevel=0\0InitialR2T=No\0ImmediateData=Yes\0MaxBurstLength=16776192\0FirstBurstLength=262144\0\
         MaxOutstandingR2T=1\0MaxConnections=1\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0\
         MaxRecvDataSegmentLength=262144\0",
    );
    assert_eq!(rig.send(&operational).unwrap(), [], "waits to be admitted");
    let established = Action::Established {
        initiator: "iqn.1993-08.org.debian:01:abc".to_owned(),
        isid: [0, 2, 0x3D, 1, 0, 0],
        target: 1,
    };
    assert_eq!(rig.actions, [established]);
    let reply = rig.admit();
    assert_eq!(reply.bhs[..2], [0x23, 0x87]);
    assert_eq!(reply.bhs[14..16], [0, 0x55]);
    assert_eq!(
        reply.text(),
        "HeaderDigest=None;DataDigest=None;DefaultTime2Wait=2;DefaultTime2Retain=0;IFMarker=No;OFMarker=No;\
         ErrorRecoveryLevel=0;InitialR2T=No;ImmediateData=Yes;MaxBurstLength=16776192;FirstBurstLength=262144;\
         MaxOutstandingR2T=1;MaxConnections=1;DataPDUInOrder=Yes;DataSequenceInOrder=Yes;\
         MaxRecvDataSegmentLength=262144;"
    );
}

#[test]
fn libiscsi_repeats_its_name_and_sends_in_pieces() {
    let mut rig = Rig::new();
    rig.send(&leading(0x81, &names("AuthMethod=CHAP,None\0"))).unwrap();
    let more = leading(0x44, "InitiatorName=iqn.1993-08.org.debian:01:abc\0HeaderDigest=No");
    let reply = rig.send(&more).unwrap().remove(0);
    assert_eq!((reply.bhs[1], reply.data.len()), (0x04, 0));
    assert_eq!(rig.send(&leading(0x87, "ne,CRC32C\0X-mine=1\0")).unwrap(), []);
    assert_eq!(
        rig.admit().text(),
        "HeaderDigest=None;X-mine=NotUnderstood;MaxRecvDataSegmentLength=262144;"
    );
}

#[test]
fn a_stage_may_take_several_requests() {
    let mut rig = Rig::new();
    assert_eq!(rig.send(&leading(0x04, &names(""))).unwrap()[0].bhs[1], 0x04);
    assert_eq!(
        rig.send(&leading(0x04, "InitialR2T=No\0")).unwrap()[0].text(),
        "InitialR2T=No;"
    );
    assert_eq!(rig.send(&leading(0x87, "")).unwrap(), []);
}

#[test]
fn refused_logins_say_why() {
    let long = format!("InitiatorName={}\0", "n".repeat(224));
    let one = |text: &str| leading(0x87, text);
    for (what, pdu, status) in [
        (
            "unknown target",
            one("InitiatorName=i\0TargetName=iqn.nobody\0"),
            0x0203,
        ),
        ("no initiator name", one("TargetName=x\0"), 0x0207),
        ("no target name", one("InitiatorName=i\0"), 0x0207),
        ("empty name", one("InitiatorName=\0"), 0x0200),
        ("long name", one(&long), 0x0200),
        ("session type", one("InitiatorName=i\0SessionType=Odd\0"), 0x0209),
        ("authentication", leading(0x81, &names("AuthMethod=CHAP\0")), 0x0201),
        ("version", one(&names("")).byte(3, 1), 0x0205),
        ("session", one(&names("")).byte(15, 1), 0x020A),
        ("stage 2", leading(0x8B, &names("")), 0x020B),
        ("next stage 2", leading(0x86, &names("")), 0x020B),
        ("next stage 0", leading(0x84, &names("")), 0x020B),
        ("T with C", leading(0xC7, &names("")), 0x020B),
        ("not text", one("InitiatorName"), 0x0200),
        ("no zero byte", one("InitiatorName=i"), 0x0200),
        ("key twice", one(&names("InitialR2T=No\0InitialR2T=No\0")), 0x0200),
        ("too many keys", one(&"X-a=1\0".repeat(65)), 0x0200),
    ] {
        let mut rig = Rig::new();
        let mut out = Vec::new();
        let closed = rig.send_bytes(&pdu.bytes(), &mut out);
        assert_eq!(closed, Err(CloseReason::LoginRefused { status }), "{what}");
        let reply = parse(&out).remove(0);
        assert_eq!((reply.bhs[0], reply.get(36) >> 16), (0x23, u32::from(status)), "{what}");
    }
}

#[test]
fn a_login_must_stay_the_same() {
    for change in [
        leading(0x87, "").word(16, 8),
        leading(0x87, "").byte(13, 1),
        leading(0x81, ""),
    ] {
        let mut rig = Rig::new();
        rig.send(&leading(0x81, &names(""))).unwrap();
        assert_eq!(rig.send(&change), Err(CloseReason::LoginRefused { status: 0x020B }));
    }
    let mut rig = Rig::new();
    rig.send(&leading(0x81, &names(""))).unwrap();
    let other = leading(0x87, "InitiatorName=iqn.other\0");
    assert_eq!(rig.send(&other), Err(CloseReason::LoginRefused { status: 0x0200 }));
}

#[test]
fn endless_text_is_cut_off() {
    let mut rig = Rig::new();
    let piece = leading(0x44, &"x".repeat(8192));
    for _ in 0..4 {
        rig.send(&piece).unwrap();
    }
    assert_eq!(rig.send(&piece), Err(CloseReason::LoginRefused { status: 0x0200 }));
}

#[test]
fn before_login_nothing_else_and_nothing_long() {
    let nop = Raw::new(0x40, 0x80);
    assert_eq!(Rig::new().send(&nop), Err(CloseReason::NotLoggedIn { opcode: 0 }));
    let long = Raw::new(0x43, 0x87).byte(6, 0x20).byte(7, 1);
    assert!(matches!(
        Rig::new().send(&long),
        Err(CloseReason::TooLong { data: 8193, .. })
    ));
    let headers = Raw::new(0x43, 0x87).byte(4, 1);
    assert!(matches!(
        Rig::new().send(&headers),
        Err(CloseReason::TooLong { ahs: 4, .. })
    ));
}

#[test]
fn a_login_has_a_deadline() {
    let mut rig = Rig::new();
    assert_eq!(rig.connection.tick(9_999, &mut Vec::new()), Ok(()));
    assert_eq!(
        rig.connection.tick(10_000, &mut Vec::new()),
        Err(CloseReason::LoginTimeout)
    );
}
