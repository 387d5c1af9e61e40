//! The metadata store is put back to what it was, or wiped.

use trivet_core::keys::MARK;
use trivet_core::mark::{Mark, Marks};

use super::*;

/// What a store has whose mark was raised so often: with the pool, or without.
fn store(count: Option<u64>, with_pool: bool) -> Notice {
    let Notice::Snapshot { mut keys, .. } = claims(1, 1, true) else {
        unreachable!()
    };
    keys.retain(|_| with_pool);
    keys.extend(count.map(|count| KeyValue {
        key: MARK.to_owned(),
        value: encode(&Marks::first(Mark { count, draw: 7 })),
        mod_revision: 1,
    }));
    Notice::Replaced { revision: 1, keys }
}

/// The effects of a read once the store was one with mark 5, and is `then`.
fn read(then: &Notice) -> (Client, Vec<Effect>) {
    let mut client = Client::new(ClientId(5));
    let mut out = Vec::new();
    client.notice(Now(0), &store(Some(5), true), &mut out);
    client.notice(Now(0), then, &mut out);
    let op = ImageOp::Read { offset: 0, len: 1 };
    client.submit(Now(0), 1, image(), op, Caller::Own, &mut out);
    (client, out)
}

#[test]
fn operations_on_a_pool_that_an_older_store_lacks_wait() {
    for count in [None, Some(4)] {
        let (mut client, mut out) = read(&store(count, false));
        assert!(out.is_empty(), "{out:?}");
        client.notice(Now(0), &store(Some(4), true), &mut out);
        assert_eq!(sent(&mut out).len(), 1, "{count:?}");
    }
}

#[test]
fn they_fail_where_the_store_went_on_from_there() {
    let (mut client, mut out) = read(&store(Some(4), false));
    client.notice(Now(0), &store(Some(5), false), &mut out);
    assert!(matches!(out.as_slice(), [Effect::Done(1, Err(IoError::NoPool))]));
    let (_, out) = read(&store(Some(6), false));
    assert!(matches!(out.as_slice(), [Effect::Done(1, Err(IoError::NoPool))]));
}

#[test]
fn what_nobody_wants_any_more_is_not_held() {
    let (mut client, mut out) = read(&store(None, false));
    client.forsake(Now(0), &[1], &mut out);
    client.notice(Now(0), &store(Some(4), true), &mut out);
    assert!(sent(&mut out).is_empty());
}
