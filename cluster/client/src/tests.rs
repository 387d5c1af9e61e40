//! The client against hand-made maps and answers.

use std::time::Duration;

use bytes::Bytes;
use trivet_core::keys::{self, Claim, History, Interval, OsdConfig, Pool};
use trivet_core::kv::KeyValue;
use trivet_core::map::encode;
use trivet_core::message::{Action, Op};
use trivet_core::{Epoch, OBJECT_SIZE, ObjectId, OpId, PgId, PoolId, Tick};

use super::*;
use dispatch::{REFUSED_AFTER, RESEND_AFTER};
use window::WINDOW;

mod behind;
mod clocks;
mod epochs;
mod sweeps;

const POOL: PoolId = PoolId(1);

fn image() -> ImageId {
    ImageId::new(POOL, 77)
}

fn claims(primary: u32, epoch: u64, active: bool) -> Notice {
    let pool = Pool {
        name: "p".into(),
        replicas: 2,
        min_size: 1,
        pg_count: 4,
        ..Pool::default()
    };
    let mut list = vec![(keys::pool(POOL), encode(&pool))];
    for number in 0..4 {
        let acting = vec![OsdId(primary)];
        let claim = Claim {
            primary: OsdId(primary),
            epoch: Epoch(epoch),
            acting,
            active,
            missing: 0,
        };
        let pg = PgId::first(POOL, number);
        list.push((keys::claim(pg), encode(&claim)));
        list.push(history(pg, &[epoch]));
    }
    snapshot(list)
}

/// A history that names these epochs.
fn history(pg: PgId, epochs: &[u64]) -> (String, Bytes) {
    let intervals = epochs.iter().map(|&epoch| Interval {
        epoch: Epoch(epoch),
        acting: vec![OsdId(1)],
        active: true,
        of: None,
    });
    let history = History {
        epoch: Epoch(*epochs.last().unwrap()),
        intervals: intervals.collect(),
    };
    (keys::history(pg), encode(&history))
}

/// The metadata store holds these keys.
fn snapshot(list: Vec<(String, Bytes)>) -> Notice {
    let keys = list
        .into_iter()
        .map(|(key, value)| KeyValue {
            key,
            value,
            mod_revision: 1,
        })
        .collect();
    Notice::Snapshot { revision: 1, keys }
}

fn sent(out: &mut Vec<Effect>) -> Vec<(OsdId, Op)> {
    let mut ops = Vec::new();
    out.retain(|effect| match effect {
        Effect::Send(to, Message::Op(op)) => {
            ops.push((*to, op.clone()));
            false
        }
        _ => true,
    });
    ops
}

fn answer(client: &mut Client, from: OsdId, id: OpId, result: Result<OpValue, OpError>, out: &mut Vec<Effect>) {
    let tick = Tick::default();
    client.message(Now(0), from, Message::OpDone(OpDone { id, result, tick }), out);
}

#[test]
fn a_read_over_three_objects_is_assembled_in_order() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    let offset = OBJECT_SIZE as u64 - 1;
    client.submit(
        Now(0),
        42,
        image(),
        ImageOp::Read {
            offset,
            len: OBJECT_SIZE as u64 + 2,
        },
        Caller::Own,
        &mut out,
    );
    let mut ops = sent(&mut out);
    assert_eq!(ops.len(), 3);
    ops.reverse();
    for (to, op) in ops {
        let Action::Read { object, len, .. } = op.action else {
            panic!("a read")
        };
        let byte = u8::try_from(object.number).unwrap();
        answer(
            &mut client,
            to,
            op.id,
            Ok(OpValue::Data(vec![Bytes::from(vec![byte; len])])),
            &mut out,
        );
    }
    let [Effect::Done(42, Ok(data))] = out.as_slice() else {
        panic!("{out:?}")
    };
    let whole = data.concat();
    assert_eq!(
        (whole.len(), whole[0], whole[1], whole[OBJECT_SIZE + 1]),
        (OBJECT_SIZE + 2, 0, 1, 2)
    );
}

#[test]
fn operations_wait_for_an_active_primary_and_follow_it() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, false), &mut out);
    let data = vec![Bytes::from_static(b"xyz")];
    client.submit(
        Now(0),
        1,
        image(),
        ImageOp::Write { offset: 9, data },
        Caller::Own,
        &mut out,
    );
    assert!(out.is_empty(), "the PG is not active");

    client.notice(Now(0), &claims(1, 1, true), &mut out);
    let first = sent(&mut out);
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    assert!(sent(&mut out).is_empty(), "it is there already");

    client.notice(Now(0), &claims(2, 2, true), &mut out);
    let second = sent(&mut out);
    assert_eq!(
        (second[0].0, second[0].1.id),
        (OsdId(2), first[0].1.id),
        "same id, new primary"
    );

    answer(&mut client, OsdId(1), first[0].1.id, Err(OpError::NotPrimary), &mut out);
    client.tick(Now(0), &mut out);
    assert!(sent(&mut out).is_empty(), "the old primary's refusal does not matter");

    client.tick(Now(0) + RESEND_AFTER, &mut out);
    assert_eq!(sent(&mut out)[0].0, OsdId(2), "lost messages are sent again");

    answer(&mut client, OsdId(2), second[0].1.id, Ok(OpValue::Changed), &mut out);
    answer(&mut client, OsdId(2), second[0].1.id, Ok(OpValue::Changed), &mut out);
    assert!(
        matches!(out.as_slice(), [Effect::Done(1, Ok(_))]),
        "answered once: {out:?}"
    );
}

fn millis(millis: u64) -> Now {
    Now(0) + Duration::from_millis(millis)
}

fn put(byte: u8, offset: u64, len: usize) -> ImageOp {
    let data = vec![Bytes::from(vec![byte; len])];
    ImageOp::Write { offset, data }
}

/// A client with active primaries, and what it sends for one operation.
fn started(client: Client, op: ImageOp) -> (Client, Vec<(OsdId, Op)>) {
    let (mut client, mut out) = (client, Vec::new());
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(Now(0), 1, image(), op, Caller::Own, &mut out);
    (client, sent(&mut out))
}

#[test]
fn a_refused_operation_is_tried_again_soon_but_not_at_once() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let (to, op) = ops[0].clone();
    let mut out = Vec::new();
    let pause = u64::try_from(REFUSED_AFTER.as_millis()).unwrap();
    for round in 0..3 {
        answer(&mut client, to, op.id, Err(OpError::NotPrimary), &mut out);
        client.tick(millis((round + 1) * pause - 1), &mut out);
        assert!(sent(&mut out).is_empty(), "round {round}: it was just refused");
        client.tick(millis((round + 1) * pause), &mut out);
        assert_eq!(sent(&mut out)[0].1.id, op.id, "round {round}");
    }
}

#[test]
fn lost_messages_are_sent_again_ever_more_rarely() {
    let (mut client, _) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let (mut times, mut out) = (Vec::new(), Vec::new());
    for tenths in 0..250 {
        client.tick(millis(tenths * 100), &mut out);
        times.extend(sent(&mut out).iter().map(|_| tenths));
    }
    assert_eq!(times, [10, 30, 70, 120, 170, 220]);
    client.notice(millis(25_000), &claims(2, 2, true), &mut out);
    client.tick(millis(26_000), &mut out);
    assert_eq!(sent(&mut out).len(), 2, "a new primary is asked again after a second");
}

#[test]
fn without_a_claim_operations_wait() {
    let (mut client, _) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let mut out = Vec::new();
    let event = |number| Event::Delete {
        key: keys::claim(PgId::first(POOL, number)),
        revision: 2,
    };
    let gone = Notice::Changes {
        revision: 2,
        events: (0..4).map(event).collect(),
    };
    client.notice(Now(0), &gone, &mut out);
    client.tick(millis(60_000), &mut out);
    assert!(out.is_empty());
    assert_eq!(client.in_flight(), 1);
}

#[test]
fn each_mutation_says_what_was_answered_before_it() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let mut out = Vec::new();
    let other = OBJECT_SIZE as u64;
    for (ticket, offset) in [(2, 0), (3, other), (4, 0)] {
        client.submit(Now(0), ticket, image(), put(1, offset, 10), Caller::Own, &mut out);
    }
    let answered =
        |ops: &[(OsdId, Op)]| -> Vec<_> { ops.iter().map(|(_, op)| (op.id.sequence, op.answered)).collect() };
    assert_eq!(answered(&ops), [(1, 1)]);
    assert_eq!(answered(&sent(&mut out)), [(2, 1), (3, 3), (4, 1)]);
    // Answered, and what a repetition of the others then says.
    let mut now = 0;
    for (sequence, expected) in [(2, vec![(1, 1), (3, 3), (4, 1)]), (1, vec![(3, 3), (4, 4)])] {
        let id = OpId {
            sequence,
            ..ops[0].1.id
        };
        answer(&mut client, OsdId(1), id, Ok(OpValue::Changed), &mut out);
        now += 10_000;
        client.tick(millis(now), &mut out);
        assert_eq!(answered(&sent(&mut out)), expected, "{sequence} was answered");
    }
}

#[test]
fn more_mutations_of_an_object_than_it_can_remember_wait_in_order() {
    let (mut client, mut ops) = started(Client::new(ClientId(5)), put(0, 0, 10));
    let mut out = Vec::new();
    let all = WINDOW as u64 + 10;
    for ticket in 2..=all {
        client.submit(Now(0), ticket, image(), put(1, 0, 10), Caller::Own, &mut out);
    }
    client.submit(
        Now(0),
        1000,
        image(),
        ImageOp::Read { offset: 0, len: 1 },
        Caller::Own,
        &mut out,
    );
    ops.extend(sent(&mut out));
    assert_eq!(ops.len(), WINDOW + 1);
    assert_eq!(ops[WINDOW].1.id.sequence, all + 1, "reads do not wait");
    client.tick(Now(0), &mut out);
    assert!(sent(&mut out).is_empty());
    // The oldest is answered last: until then nothing moves.
    for at in (0..4).rev() {
        assert!(sent(&mut out).is_empty());
        answer(&mut client, OsdId(1), ops[at].1.id, Ok(OpValue::Changed), &mut out);
    }
    let next: Vec<u64> = sent(&mut out).iter().map(|(_, op)| op.id.sequence).collect();
    assert_eq!(next, [all - 9, all - 8, all - 7, all - 6]);
}

/// Whether each of the deliberate bugs shows: ids that are repeated, sends of one operation, the bytes of a read over
/// two objects, whether a write over two objects waits for both, and the claim of a second write.
fn behaviour(client: impl Fn() -> Client) -> (bool, usize, Vec<u8>, bool, u64) {
    let mut out = Vec::new();
    let (mut writer, mut ops) = started(client(), put(1, OBJECT_SIZE as u64 - 1, 2));
    answer(&mut writer, OsdId(1), ops[0].1.id, Ok(OpValue::Changed), &mut out);
    let waits = out.is_empty();
    writer.tick(millis(1000), &mut out);
    ops.extend(sent(&mut out));
    let same_id = ops.last().unwrap().1.id == ops[1].1.id;
    writer.submit(Now(0), 2, image(), put(1, OBJECT_SIZE as u64, 2), Caller::Own, &mut out);
    let claimed = sent(&mut out)[0].1.answered;

    out.clear();
    let read = ImageOp::Read {
        offset: OBJECT_SIZE as u64 - 1,
        len: 2,
    };
    let (mut reader, parts) = started(client(), read);
    for ((to, op), byte) in parts.into_iter().zip([b"a", b"b"]) {
        let data = vec![Bytes::from_static(byte)];
        answer(&mut reader, to, op.id, Ok(OpValue::Data(data)), &mut out);
    }
    let Some(Effect::Done(1, Ok(data))) = out.pop() else {
        panic!("the read ends")
    };
    (same_id, ops.len(), data.concat(), waits, claimed)
}

#[test]
fn deliberate_bugs_show() {
    let id = ClientId(5);
    assert_eq!(behaviour(|| Client::new(id)), (true, 3, b"ab".to_vec(), true, 2));
    let table = [
        (Mutant::NewIdOnResend, (false, 3, b"ab".to_vec(), true, 2)),
        (Mutant::ForgetResend, (true, 2, b"ab".to_vec(), true, 2)),
        (Mutant::ReadSpliceWrong, (true, 3, b"ba".to_vec(), true, 2)),
        (Mutant::AnswerEarly, (true, 3, b"ab".to_vec(), false, 2)),
        (Mutant::AnsweredTooHigh, (true, 3, b"ab".to_vec(), true, 4)),
    ];
    for (mutant, expected) in table {
        assert_eq!(behaviour(|| Client::with_mutant(id, mutant)), expected, "{mutant:?}");
    }
}

#[test]
fn a_failed_part_fails_the_whole_after_the_rest_is_answered() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(
        Now(0),
        1,
        image(),
        ImageOp::Read {
            offset: 0,
            len: 2 * OBJECT_SIZE as u64,
        },
        Caller::Own,
        &mut out,
    );
    let ops = sent(&mut out);
    answer(&mut client, OsdId(1), ops[0].1.id, Err(OpError::Damaged), &mut out);
    assert!(out.is_empty());
    answer(&mut client, OsdId(1), ops[1].1.id, Ok(OpValue::Data(vec![])), &mut out);
    assert!(matches!(out.as_slice(), [Effect::Done(1, Err(IoError::Damaged))]));
}

#[test]
fn a_purge_removes_what_every_pg_lists() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(Now(0), 1, image(), ImageOp::Purge, Caller::Own, &mut out);
    let mut removed = Vec::new();
    while !matches!(out.as_slice(), [Effect::Done(..)]) {
        for (to, op) in sent(&mut out) {
            let value = match op.action {
                Action::List { from: 0, .. } if op.pg.number == 0 => OpValue::Objects((0..LIST_LIMIT as u64).collect()),
                Action::List { from: 1024, .. } => OpValue::Objects(vec![5000]),
                Action::List { .. } => OpValue::Objects(vec![]),
                Action::Remove {
                    object: ObjectId { number, .. },
                } => {
                    removed.push(number);
                    OpValue::Changed
                }
                other => panic!("{other:?}"),
            };
            answer(&mut client, to, op.id, Ok(value), &mut out);
        }
    }
    assert_eq!(removed.len(), 1025);
}

#[test]
fn empty_ranges_and_unknown_pools_are_answered_at_once() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.submit(
        Now(0),
        1,
        image(),
        ImageOp::Read { offset: 0, len: 1 },
        Caller::Own,
        &mut out,
    );
    assert!(matches!(out.as_slice(), [Effect::Done(1, Err(IoError::NoPool))]));
    out.clear();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(
        Now(0),
        2,
        image(),
        ImageOp::Read { offset: 7, len: 0 },
        Caller::Own,
        &mut out,
    );
    assert!(matches!(out.as_slice(), [Effect::Done(2, Ok(_))]));
}
