//! Data-out: immediate, unsolicited and solicited, right and wrong.

use super::*;

fn write10(blocks: u8) -> [u8; 10] {
    [0x2A, 0, 0, 0, 0, 0, 0, 0, blocks, 0]
}

fn command(flags: u8, itt: u32, length: u32, blocks: u8, data: &[u8]) -> Raw {
    Raw::new(0x01, flags)
        .word(16, itt)
        .word(20, length)
        .cdb(&write10(blocks))
        .with(data)
}

fn data_out(flags: u8, itt: u32, transfer: u32, sn: u32, offset: u32, data: &[u8]) -> Raw {
    Raw::new(0x05, flags)
        .word(16, itt)
        .word(20, transfer)
        .word(36, sn)
        .word(40, offset)
        .with(data)
}

fn written(rig: &mut Rig) -> (Tag, Vec<u8>) {
    match rig.op() {
        (tag, BackendOp::Write { offset: 0, data, .. }) => (tag, data.concat()),
        other => panic!("{other:?}"),
    }
}

const FINAL_WRITE: u8 = 0xA0;
const WRITE: u8 = 0x20;
const FINAL: u8 = 0x80;
const UNSOLICITED: u32 = u32::MAX;

#[test]
fn immediate_data_alone() {
    let mut rig = Rig::logged_in("");
    let data = pattern(0, 1024);
    assert_eq!(rig.next(command(FINAL_WRITE, 1, 1024, 2, &data)), []);
    let (tag, bytes) = written(&mut rig);
    assert_eq!(bytes, data);
    assert_eq!(rig.finish(tag, Ok(vec![]))[0].bhs[..4], [0x21, 0x80, 0, 0]);
}

#[test]
fn immediate_then_unsolicited_then_solicited_in_two_bursts() {
    let mut rig = Rig::logged_in("InitialR2T=No\0FirstBurstLength=1024\0MaxBurstLength=1536\0");
    let data = pattern(0, 4096);
    assert_eq!(rig.next(command(WRITE, 1, 4096, 8, &data[..256])), []);
    assert_eq!(
        rig.send(&data_out(0, 1, UNSOLICITED, 0, 256, &data[256..512])).unwrap(),
        []
    );
    let r2t = rig
        .send(&data_out(FINAL, 1, UNSOLICITED, 1, 512, &data[512..1024]))
        .unwrap()
        .remove(0);
    assert_eq!((r2t.bhs[0], r2t.bhs[1], r2t.get(16)), (0x31, 0x80, 1));
    assert_eq!((r2t.get(36), r2t.get(40), r2t.get(44)), (0, 1024, 1536));
    assert_eq!(
        rig.send(&data_out(0, 1, r2t.get(20), 0, 1024, &data[1024..2000]))
            .unwrap(),
        []
    );
    let r2t = rig
        .send(&data_out(FINAL, 1, r2t.get(20), 1, 2000, &data[2000..2560]))
        .unwrap()
        .remove(0);
    assert_eq!((r2t.get(36), r2t.get(40), r2t.get(44)), (1, 2560, 1536));
    assert_eq!(
        rig.send(&data_out(FINAL, 1, r2t.get(20), 0, 2560, &data[2560..]))
            .unwrap(),
        []
    );
    let (tag, bytes) = written(&mut rig);
    assert_eq!(bytes, data);
    let reply = rig.finish(tag, Ok(vec![])).remove(0);
    assert_eq!((reply.bhs[3], reply.get(36)), (0, 2), "ExpDataSN counts R2Ts");
}

#[test]
fn solicited_only() {
    let mut rig = Rig::logged_in("ImmediateData=No\0");
    let r2t = rig.next(command(FINAL_WRITE, 1, 512, 1, &[])).remove(0);
    assert_eq!((r2t.get(40), r2t.get(44)), (0, 512));
    rig.send(&data_out(FINAL, 1, r2t.get(20), 0, 0, &[7; 512])).unwrap();
    assert_eq!(written(&mut rig).1, [7; 512]);
}

#[test]
fn write_residuals_and_what_is_written() {
    for (what, length, blocks, bits, residual, want) in [
        ("exact", 1024, 2, 0, 0, 1024),
        ("less than announced", 1024, 1, 2, 512, 512),
        ("more than announced", 512, 2, 4, 512, 512),
        ("a part of a block", 700, 2, 4, 324, 512),
        ("nothing to write", 512, 0, 2, 512, 0),
        ("nothing announced", 0, 1, 4, 512, 0),
    ] {
        let mut rig = Rig::logged_in("");
        let mut reply = rig.next(command(FINAL_WRITE, 1, length, blocks, &pattern(0, length as usize)));
        if want > 0 {
            let (tag, bytes) = written(&mut rig);
            assert_eq!(bytes, pattern(0, want), "{what}");
            reply = rig.finish(tag, Ok(vec![]));
        }
        assert_eq!(
            (reply[0].bhs[0], reply[0].bhs[1] & 6, reply[0].get(44)),
            (0x21, bits, residual),
            "{what}"
        );
    }
}

#[test]
fn only_what_the_command_needs_is_asked_for() {
    let mut rig = Rig::logged_in("");
    let r2t = rig.next(command(FINAL_WRITE, 1, 4096, 1, &[])).remove(0);
    assert_eq!(r2t.get(44), 512);
}

#[test]
fn a_command_that_fails_takes_its_unsolicited_data_first() {
    let mut rig = Rig::logged_in("InitialR2T=No\0");
    let out_of_range = Raw::new(0x01, WRITE)
        .word(16, 1)
        .word(20, 1024)
        .cdb(&[0x2A, 0, 0xFF, 0, 0, 0, 0, 0, 2]);
    assert_eq!(rig.next(out_of_range.with(&[1; 512])), []);
    let reply = rig
        .send(&data_out(FINAL, 1, UNSOLICITED, 0, 512, &[1; 512]))
        .unwrap()
        .remove(0);
    assert_eq!((reply.sense(), reply.get(44)), ((5, 0x21, 0), 1024));
}

#[test]
fn unsolicited_data_that_was_not_agreed_on() {
    let unexpected = (0xB, 0x0C, 0x0C);
    let mut rig = Rig::logged_in("ImmediateData=No\0");
    assert_eq!(
        rig.next(command(FINAL_WRITE, 1, 512, 1, &[1; 512]))[0].sense(),
        unexpected
    );
    let mut rig = Rig::logged_in("FirstBurstLength=512\0");
    assert_eq!(
        rig.next(command(FINAL_WRITE, 1, 1024, 2, &[1; 516]))[0].sense(),
        unexpected
    );
    assert_eq!(
        rig.next(command(FINAL_WRITE, 1, 256, 2, &[1; 260]))[0].sense(),
        unexpected,
        "more than announced"
    );
    assert_eq!(
        rig.next(command(0x80, 1, 0, 0, &[1; 4]))[0].sense(),
        unexpected,
        "no write at all"
    );
    assert_eq!(
        rig.next(command(WRITE, 1, 1024, 2, &[])),
        [],
        "InitialR2T=Yes: fails when the data is over"
    );
    let reply = rig.send(&data_out(FINAL, 1, UNSOLICITED, 0, 0, &[1; 512])).unwrap();
    assert_eq!(reply[0].sense(), unexpected);
    let mut rig = Rig::logged_in("InitialR2T=No\0FirstBurstLength=512\0");
    rig.next(command(WRITE, 1, 1024, 2, &[1; 512]));
    let reply = rig.send(&data_out(FINAL, 1, UNSOLICITED, 0, 512, &[1; 512])).unwrap();
    assert_eq!(reply[0].sense(), unexpected, "past the first burst");
}

#[test]
fn solicited_data_that_is_not_what_was_asked_for() {
    for (what, flags, sn, offset, length) in [
        ("number", FINAL, 1, 0, 1024),
        ("offset", FINAL, 0, 512, 512),
        ("too short", FINAL, 0, 0, 512),
        ("too long", FINAL, 0, 0, 1536),
    ] {
        let mut rig = Rig::logged_in("");
        let r2t = rig.next(command(FINAL_WRITE, 1, 4096, 2, &[])).remove(0);
        let reply = rig
            .send(&data_out(flags, 1, r2t.get(20), sn, offset, &vec![1; length]))
            .unwrap();
        assert_eq!(reply[0].sense(), (0xB, 0x0C, 0x0D), "{what}");
        assert_eq!(rig.actions, [], "{what}: nothing is written");
    }
}

#[test]
fn data_for_no_transfer_is_dropped() {
    let mut rig = Rig::logged_in("");
    for (itt, transfer) in [(5, UNSOLICITED), (5, 0x10000), (UNSOLICITED, UNSOLICITED)] {
        assert_eq!(rig.send(&data_out(FINAL, itt, transfer, 0, 0, &[1; 512])), Ok(vec![]));
    }
    let r2t = rig.next(command(FINAL_WRITE, 1, 512, 1, &[])).remove(0);
    let tag = r2t.get(20);
    assert_eq!(
        rig.send(&data_out(FINAL, 2, tag, 0, 0, &[1; 512])),
        Ok(vec![]),
        "another task's"
    );
    assert_eq!(
        rig.send(&data_out(FINAL, 1, UNSOLICITED, 0, 0, &[1; 512])),
        Ok(vec![]),
        "not the transfer"
    );
    assert_eq!(rig.actions, []);
    rig.send(&data_out(FINAL, 1, tag, 0, 0, &[2; 512])).unwrap();
    assert_eq!(
        rig.send(&data_out(FINAL, 1, tag, 0, 0, &[3; 512])),
        Ok(vec![]),
        "a second time"
    );
    assert_eq!(written(&mut rig).1, [2; 512]);
}

#[test]
fn verify_compares() {
    for (data, status) in [(pattern(0, 512), 0), (pattern(512, 512), 2)] {
        let mut rig = Rig::logged_in("");
        let verify = Raw::new(0x01, FINAL_WRITE)
            .word(16, 1)
            .word(20, 512)
            .cdb(&[0x2F, 2, 0, 0, 0, 0, 0, 0, 1, 0]);
        rig.next(verify.with(&data));
        let reply = rig.run().remove(0);
        assert_eq!((reply.bhs[0], reply.bhs[3]), (0x21, status));
        assert!(status == 0 || reply.sense() == (0xE, 0x1D, 0));
    }
}

#[test]
fn write_same_takes_one_block() {
    let mut rig = Rig::logged_in("");
    let same = |length: u32| {
        let cdb = [0x41, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        Raw::new(0x01, FINAL_WRITE)
            .word(16, 1)
            .word(20, length)
            .cdb(&cdb)
            .with(&vec![0; length as usize])
    };
    for length in [256, 1024] {
        assert_eq!(rig.next(same(length))[0].sense(), (5, 0x1A, 0));
    }
    assert_eq!(rig.next(same(512)), []);
    assert_eq!(
        rig.op().1,
        BackendOp::Zero {
            offset: 0,
            len: 4096,
            unmap: false
        }
    );
}

#[test]
fn large_transfers_wait_for_memory() {
    let mut rig = Rig::logged_in("MaxBurstLength=1048576\0");
    // 1 MiB reads, of which the budget holds 64.
    let read = [0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    for itt in 0..70 {
        rig.command(0xC0, itt, 1 << 20, &read);
    }
    assert_eq!(rig.actions.len(), 64);
    assert_eq!(rig.connection.in_flight_bytes(), 64 << 20);
    let (tag, _) = rig.op();
    rig.finish(tag, Err(BackendError::Io));
    assert_eq!(rig.actions.len(), 64, "the next has begun");
    let small = rig.next(command(FINAL_WRITE, 99, 512, 1, &[1; 512]));
    assert_eq!(
        (small, rig.actions.len()),
        (vec![], 65),
        "what is here already does not wait"
    );
}

#[test]
fn a_little_immediate_data_does_not_jump_the_queue() {
    let mut rig = Rig::logged_in("");
    for itt in 0..66 {
        rig.command(0xC0, itt, 1 << 20, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    }
    let large = Raw::new(0x01, FINAL_WRITE)
        .word(16, 99)
        .word(20, 1 << 20)
        .cdb(&[0x2A, 0, 0, 0, 0, 0, 0, 8, 0]);
    assert_eq!(rig.next(large.with(&[1; 512])), [], "no R2T yet");
    let mut replies = Vec::new();
    for _ in 0..3 {
        let (tag, _) = rig.op();
        replies.append(&mut rig.finish(tag, Err(BackendError::Io)));
    }
    assert_eq!((replies.len(), replies[3].bhs[0], replies[3].get(16)), (4, 0x31, 99));
}
