//! Which epoch operations are sent for, and what they say is settled.

use super::*;

fn other_epoch(epoch: u64) -> Result<OpValue, OpError> {
    Err(OpError::OtherEpoch(Epoch(epoch)))
}

/// What is sent: where to, which operation, for which epoch.
fn epochs(out: &mut Vec<Effect>) -> Vec<(OsdId, u64, u64)> {
    let ops = sent(out);
    ops.iter().map(|(to, op)| (*to, op.id.sequence, op.epoch.0)).collect()
}

#[test]
fn a_later_epoch_is_asked_at_once_and_for_other_operations_as_well() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let mut out = Vec::new();
    assert_eq!(ops[0].1.epoch, Epoch(1));
    let id = ops[0].1.id;
    answer(&mut client, OsdId(1), id, other_epoch(3), &mut out);
    assert_eq!(
        epochs(&mut out),
        [(OsdId(1), id.sequence, 3)],
        "at once, under the same id"
    );
    // Another operation of the PG knows it, also while the map says that nobody is active.
    client.notice(Now(0), &claims(1, 2, false), &mut out);
    client.submit(Now(0), 2, image(), put(2, 0, 10), Caller::Own, &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(1), 2, 3)]);
    // Once the map knows as much, it has the word.
    client.notice(Now(0), &claims(1, 3, false), &mut out);
    client.submit(Now(0), 3, image(), put(3, 0, 10), Caller::Own, &mut out);
    assert!(epochs(&mut out).is_empty(), "the map knows the epoch, as not active");
    client.notice(Now(0), &claims(1, 3, true), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(1), 3, 3)], "the others are there already");
    client.notice(Now(0), &claims(1, 4, true), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(1), 1, 4), (OsdId(1), 2, 4), (OsdId(1), 3, 4)]);
}

#[test]
fn a_hint_is_for_the_primary_that_gave_it() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let mut out = Vec::new();
    answer(&mut client, OsdId(1), ops[0].1.id, other_epoch(5), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(1), 1, 5)]);
    client.notice(Now(0), &claims(2, 2, true), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(2), 1, 2)]);
    // And gone when the map has passed it.
    client.notice(Now(0), &claims(2, 6, true), &mut out);
    client.notice(Now(0), &claims(1, 4, false), &mut out);
    out.clear();
    client.tick(millis(60_000), &mut out);
    assert!(epochs(&mut out).is_empty(), "nothing is left of the hint");
}

#[test]
fn one_epoch_after_the_other_is_asked_with_pauses() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let (mut out, id) = (Vec::new(), ops[0].1.id);
    let pause = u64::try_from(REFUSED_AFTER.as_millis()).unwrap();
    answer(&mut client, OsdId(1), id, other_epoch(2), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(1), 1, 2)]);
    for round in 1..4 {
        answer(&mut client, OsdId(1), id, other_epoch(round + 2), &mut out);
        client.tick(millis(round * pause - 1), &mut out);
        assert!(epochs(&mut out).is_empty(), "round {round}");
        client.tick(millis(round * pause), &mut out);
        assert_eq!(epochs(&mut out), [(OsdId(1), 1, round + 2)]);
    }
    assert!(out.is_empty(), "nobody was told: {out:?}");
}

#[test]
fn an_earlier_epoch_is_no_reason_to_ask_for_it() {
    for epoch in [4, 5] {
        let mut client = Client::new(ClientId(5));
        let mut out = Vec::new();
        client.notice(Now(0), &claims(1, 5, true), &mut out);
        client.submit(Now(0), 1, image(), put(1, 0, 10), Caller::Own, &mut out);
        let id = sent(&mut out)[0].1.id;
        answer(&mut client, OsdId(1), id, other_epoch(epoch), &mut out);
        client.tick(Now(0) + (REFUSED_AFTER - Duration::from_millis(1)), &mut out);
        assert!(out.is_empty(), "{epoch}: {out:?}");
        client.tick(Now(0) + REFUSED_AFTER, &mut out);
        assert_eq!(epochs(&mut out), [(OsdId(1), 1, 5)], "as after any refusal");
    }
}

#[test]
fn what_a_former_primary_says_of_its_epoch_changes_nothing() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(2, 2, true), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(2), 1, 2)]);
    answer(&mut client, OsdId(1), ops[0].1.id, other_epoch(9), &mut out);
    client.tick(Now(0) + (RESEND_AFTER - Duration::from_millis(1)), &mut out);
    assert!(out.is_empty(), "neither sent nor ended: {out:?}");
    // The map comes back to it, with an epoch below: there is no hint.
    client.notice(Now(0) + RESEND_AFTER, &claims(1, 3, true), &mut out);
    assert_eq!(epochs(&mut out), [(OsdId(1), 1, 3)]);
    // Nor does it matter for what was answered.
    answer(&mut client, OsdId(1), ops[0].1.id, Ok(OpValue::Changed), &mut out);
    out.clear();
    answer(&mut client, OsdId(1), ops[0].1.id, other_epoch(9), &mut out);
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn what_a_former_primary_did_is_for_the_next_one_to_find() {
    let (mut client, ops) = started(Client::new(ClientId(5)), put(1, 0, 10));
    let id = ops[0].1.id;
    let mut out = Vec::new();
    client.notice(Now(0), &claims(2, 2, true), &mut out);
    out.clear();
    // What is on its way to OSD 2 would be done after the client was told that it is over.
    answer(&mut client, OsdId(1), id, Ok(OpValue::Changed), &mut out);
    answer(&mut client, OsdId(1), id, Err(OpError::NoSpace), &mut out);
    assert!(out.is_empty(), "{out:?}");
    answer(&mut client, OsdId(2), id, Ok(OpValue::Changed), &mut out);
    assert!(matches!(out.as_slice(), [Effect::Done(1, Ok(_))]), "{out:?}");
}

#[test]
fn what_is_settled_rises_with_the_oldest_operation_without_an_answer() {
    let settled = |out: &mut Vec<Effect>| -> Vec<_> {
        let ops = sent(out);
        ops.iter().map(|(_, op)| (op.id.sequence, op.settled)).collect()
    };
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &claims(1, 1, true), &mut out);
    // Two parts, and a read: what changes nothing is settled like the rest.
    client.submit(
        Now(0),
        1,
        image(),
        put(1, OBJECT_SIZE as u64 - 1, 2),
        Caller::Own,
        &mut out,
    );
    client.submit(
        Now(0),
        2,
        image(),
        ImageOp::Read { offset: 0, len: 1 },
        Caller::Own,
        &mut out,
    );
    assert_eq!(settled(&mut out), [(1, 1), (2, 1), (3, 1)]);
    let client_id = ClientId(5);
    let mut now = Now(0);
    for (sequence, expected) in [(2, vec![(1, 1), (3, 1)]), (1, vec![(3, 3)])] {
        let id = OpId {
            client: client_id,
            sequence,
        };
        answer(&mut client, OsdId(1), id, Ok(OpValue::Changed), &mut out);
        now = now + Duration::from_secs(10);
        client.tick(now, &mut out);
        assert_eq!(settled(&mut out), expected, "{sequence} was answered");
    }
    let id = OpId {
        client: client_id,
        sequence: 3,
    };
    answer(&mut client, OsdId(1), id, Ok(OpValue::Data(vec![])), &mut out);
    client.submit(now, 3, image(), put(1, 0, 1), Caller::Own, &mut out);
    assert_eq!(settled(&mut out), [(4, 4)], "its own at most");
}
