//! Commands without data-out: reads, residuals, errors.

use super::*;

const READ: u8 = 0xC0;

fn read10(lba: u8, blocks: u8) -> [u8; 10] {
    [0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
}

#[test]
fn a_read_ends_with_its_status() {
    let mut rig = Rig::logged_in("");
    assert_eq!(rig.command(READ, 1, 4096, &read10(8, 8)), []);
    assert_eq!(rig.connection.in_flight_bytes(), 4096);
    let (tag, op) = rig.op();
    assert_eq!(
        op,
        BackendOp::Read {
            offset: 4096,
            len: 4096
        }
    );
    let reply = rig.finish(tag, Ok(vec![pattern(4096, 1000), pattern(5096, 3096)]));
    assert_eq!(reply.len(), 1);
    assert_eq!((reply[0].bhs[0], reply[0].bhs[1], reply[0].bhs[3]), (0x25, 0x81, 0));
    assert_eq!(
        (reply[0].get(16), reply[0].get(20), reply[0].get(36), reply[0].get(40)),
        (1, u32::MAX, 0, 0)
    );
    assert_eq!(reply[0].data, pattern(4096, 4096));
    assert_eq!((rig.connection.in_flight(), rig.connection.in_flight_bytes()), (0, 0));
}

#[test]
fn read_data_is_sent_by_reference() {
    let mut rig = Rig::logged_in("MaxRecvDataSegmentLength=1024\0");
    rig.command(READ, 1, 4096, &read10(0, 8));
    let (tag, _) = rig.op();
    let (data, mut out) = (pattern(0, 4096), Vec::new());
    rig.connection
        .finished(tag, Ok(vec![data.clone()]), &SmallTarget, &mut out, &mut rig.actions);
    let places: Vec<_> = out
        .iter()
        .skip(1)
        .step_by(2)
        .map(|piece| piece.as_ptr() as usize)
        .collect();
    let start = data.as_ptr() as usize;
    assert_eq!(places, [start, start + 1024, start + 2048, start + 3072]);
}

#[test]
fn long_reads_are_split_at_segments_and_bursts() {
    let mut rig = Rig::logged_in("MaxRecvDataSegmentLength=1000\0MaxBurstLength=2048\0");
    rig.command(READ, 1, 5120, &read10(0, 10));
    let (tag, _) = rig.op();
    let pieces = vec![pattern(0, 700), pattern(700, 1), pattern(701, 4419)];
    let reply = rig.finish(tag, Ok(pieces));
    let shape: Vec<_> = reply
        .iter()
        .map(|pdu| (pdu.bhs[1], pdu.get(36), pdu.get(40), pdu.data.len()))
        .collect();
    let want = [
        (0, 0, 0, 1000),
        (0, 1, 1000, 1000),
        (0x80, 2, 2000, 48),
        (0, 3, 2048, 1000),
        (0, 4, 3048, 1000),
        (0x80, 5, 4048, 48),
        (0, 6, 4096, 1000),
        (0x81, 7, 5096, 24),
    ];
    assert_eq!(shape, want);
    assert_eq!(
        reply.iter().flat_map(|pdu| pdu.data.clone()).collect::<Vec<_>>(),
        pattern(0, 5120)
    );
}

#[test]
fn residuals_are_exact() {
    let inquiry = |allocation| [0x12, 0, 0, 0, allocation, 0, 0, 0, 0, 0];
    for (what, flags, length, cdb, bits, residual, sent) in [
        ("read exact", READ, 512, read10(0, 1), 0, 0, 512),
        ("read underflow", READ, 1024, read10(0, 1), 2, 512, 512),
        ("read overflow", READ, 700, read10(0, 2), 4, 324, 700),
        ("read of nothing", READ, 512, read10(0, 0), 2, 512, 0),
        ("read into nothing", READ, 0, read10(0, 1), 4, 512, 0),
        ("read without direction", 0x80, 0, read10(0, 1), 4, 512, 0),
        ("inquiry underflow", READ, 255, inquiry(255), 2, 159, 96),
        ("inquiry overflow", READ, 10, inquiry(96), 4, 86, 10),
        ("no data but some expected", READ, 8, [0; 10], 2, 8, 0),
        ("read as a write", 0xA0, 512, read10(0, 1), 2, 512, 0),
    ] {
        let mut rig = Rig::logged_in("");
        let mut reply = rig.command(flags, 1, length, &cdb);
        if reply.is_empty() {
            reply = rig.run();
        }
        assert_eq!(reply.len(), 1, "{what}");
        assert_eq!(
            (reply[0].bhs[1] & 6, reply[0].get(44), reply[0].data.len()),
            (bits, residual, sent),
            "{what}"
        );
        assert_eq!(reply[0].bhs[0], if sent > 0 { 0x25 } else { 0x21 }, "{what}");
        assert_eq!(reply[0].bhs[3], 0, "{what}");
    }
}

#[test]
fn failures_have_sense_and_move_nothing() {
    let mut rig = Rig::logged_in("");
    let reply = rig
        .command(READ, 1, 512, &[0x28, 0, 0xFF, 0, 0, 0, 0, 0, 1, 0])
        .remove(0);
    assert_eq!((reply.sense(), reply.bhs[1], reply.get(44)), ((5, 0x21, 0), 0x82, 512));
    assert_eq!(rig.command(0x80, 1, 0, &[0xC1]).remove(0).sense(), (5, 0x20, 0));
    rig.command(READ, 2, 512, &read10(0, 1));
    let (tag, _) = rig.op();
    assert_eq!(rig.finish(tag, Err(BackendError::Io))[0].sense(), (3, 0x11, 0));
    rig.command(READ, 2, 512, &read10(0, 1));
    let (tag, _) = rig.op();
    assert_eq!(rig.finish(tag, Err(BackendError::Busy))[0].bhs[3], 8);
}

#[test]
fn a_unit_attention_is_reported_once_and_not_by_inquiry() {
    let mut rig = Rig::new();
    let text = format!("InitiatorName=i\0TargetName={TARGET}\0");
    rig.send(&Raw::new(0x43, 0x87).word(24, 1).with(text.as_bytes()))
        .unwrap();
    rig.admit();
    rig.actions.clear();
    assert_eq!(rig.command(READ, 1, 36, &[0x12, 0, 0, 0, 36, 0])[0].bhs[0], 0x25);
    assert_eq!(
        rig.command(READ, 1, 512, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 2, 0])[0].bhs[0],
        0x25
    );
    let sense = rig.command(READ, 1, 18, &[0x03, 0, 0, 0, 18, 0]).remove(0);
    assert_eq!((sense.data[2], sense.data[12]), (6, 0x29), "REQUEST SENSE takes it");
    assert_eq!(rig.command(0x80, 1, 0, &[0; 6])[0].bhs[3], 0);
}

#[test]
fn absent_units() {
    let mut rig = Rig::logged_in("");
    let to = |lun, flags, length, cdb: &[u8]| Raw::new(1, flags).byte(9, lun).word(16, 1).word(20, length).cdb(cdb);
    assert_eq!(rig.next(to(1, 0x80, 0, &[0; 6]))[0].sense(), (5, 0x25, 0));
    assert_eq!(rig.next(to(1, READ, 36, &[0x12, 0, 0, 0, 36, 0]))[0].data[0], 0x7F);
    assert_eq!(rig.next(to(1, READ, 18, &[3, 0, 0, 0, 18, 0]))[0].data[12], 0x25);
    let luns = rig.next(to(1, READ, 64, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64])).remove(0);
    assert_eq!(luns.data, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn task_tags_are_unique_and_not_reserved() {
    let mut rig = Rig::logged_in("");
    rig.command(READ, 1, 512, &read10(0, 1));
    let reply = rig.command(READ, 1, 512, &read10(0, 1)).remove(0);
    assert_eq!((reply.bhs[0], reply.bhs[2]), (0x3F, 7));
    assert_eq!(rig.command(READ, u32::MAX, 512, &read10(0, 1))[0].bhs[2], 9);
    assert_eq!(rig.command(0xE0, 2, 512, &read10(0, 1))[0].bhs[2], 5, "bidirectional");
    assert_eq!(rig.run()[0].bhs[0], 0x25, "the first goes on");
}

#[test]
fn a_flush_and_several_operations() {
    let mut rig = Rig::logged_in("");
    rig.command(0x80, 1, 0, &[0x35]);
    let (tag, op) = rig.op();
    assert_eq!(op, BackendOp::Flush);
    assert_eq!(rig.finish(tag, Ok(vec![]))[0].bhs[..4], [0x21, 0x80, 0, 0]);
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for lba in [8, 32] {
        list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 8, 0, 0, 0, 0]);
    }
    let unmap = Raw::new(1, 0xA0)
        .word(16, 2)
        .word(20, 40)
        .cdb(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40])
        .with(&list);
    assert_eq!(rig.next(unmap), []);
    let (first, op) = rig.op();
    assert_eq!(
        op,
        BackendOp::Zero {
            offset: 4096,
            len: 4096,
            unmap: true
        }
    );
    let (second, _) = rig.op();
    assert_eq!(first, second);
    assert_eq!(rig.finish(first, Err(BackendError::NoSpace)), []);
    assert_eq!(
        rig.finish(second, Ok(vec![]))[0].sense(),
        (7, 0x27, 7),
        "the error stays"
    );
}
