//! The client against hand-made maps and answers.

use std::time::Duration;

use bytes::Bytes;
use trivet_core::keys::{self, Claim, Pool};
use trivet_core::kv::KeyValue;
use trivet_core::map::encode;
use trivet_core::{OBJECT_SIZE, ObjectId, PoolId};

use super::*;

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
        list.push((keys::claim(PgId { pool: POOL, number }), encode(&claim)));
    }
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
    client.message(Now(0), from, Message::OpDone(OpDone { id, result }), out);
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
    client.submit(Now(0), 1, image(), ImageOp::Write { offset: 9, data }, &mut out);
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

    client.tick(Now(0) + RESEND_AFTER + Duration::from_secs(1), &mut out);
    assert_eq!(sent(&mut out)[0].0, OsdId(2), "lost messages are sent again");

    answer(&mut client, OsdId(2), second[0].1.id, Ok(OpValue::Changed), &mut out);
    answer(&mut client, OsdId(2), second[0].1.id, Ok(OpValue::Changed), &mut out);
    assert!(
        matches!(out.as_slice(), [Effect::Done(1, Ok(_))]),
        "answered once: {out:?}"
    );
}

#[test]
fn a_refused_operation_is_tried_again_with_the_tick() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(Now(0), 1, image(), ImageOp::Zero { offset: 0, len: 10 }, &mut out);
    let (to, op) = sent(&mut out).remove(0);
    answer(&mut client, to, op.id, Err(OpError::NotPrimary), &mut out);
    client.tick(Now(0), &mut out);
    assert_eq!(sent(&mut out)[0].1.id, op.id);
}

#[test]
fn a_trim_of_a_huge_range_is_windowed() {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(
        Now(0),
        1,
        image(),
        ImageOp::Zero {
            offset: 0,
            len: 1000 * OBJECT_SIZE as u64,
        },
        &mut out,
    );
    let mut executed = 0;
    while !matches!(out.as_slice(), [Effect::Done(..)]) {
        let ops = sent(&mut out);
        assert!(ops.len() <= 256);
        for (to, op) in ops {
            executed += 1;
            answer(&mut client, to, op.id, Ok(OpValue::Changed), &mut out);
        }
    }
    assert_eq!(executed, 1000);
    assert_eq!(client.in_flight(), 0);
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
    client.submit(Now(0), 1, image(), ImageOp::Purge, &mut out);
    let mut removed = Vec::new();
    while !matches!(out.as_slice(), [Effect::Done(..)]) {
        for (to, op) in sent(&mut out) {
            let value = match op.action {
                Action::List { after: None, .. } if op.pg.number == 0 => {
                    OpValue::Objects((0..LIST_LIMIT as u64).collect())
                }
                Action::List { after: Some(1023), .. } => OpValue::Objects(vec![5000]),
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
    client.submit(Now(0), 1, image(), ImageOp::Read { offset: 0, len: 1 }, &mut out);
    assert!(matches!(out.as_slice(), [Effect::Done(1, Err(IoError::NoPool))]));
    out.clear();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    client.submit(Now(0), 2, image(), ImageOp::Read { offset: 7, len: 0 }, &mut out);
    assert!(matches!(out.as_slice(), [Effect::Done(2, Ok(_))]));
}
