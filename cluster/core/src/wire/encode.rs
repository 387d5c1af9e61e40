//! From messages to frames.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{HEADER, Kind, seal};
use crate::ids::{Epoch, ObjectId, OpId, PgId, Version};
use crate::message::{Action, Listed, Message, Op, OpDone, OpError, OpValue, Peer, PeerBody, Promise, WriteError};
use crate::mutation::{MAX_OPS, Mutation, Ops};

/// Room for any body without its lists: 32 patches of one unit with their sums, and the fields before them, bytes.
const BODY: usize = 320;
/// Bytes of one object in a listing.
pub(super) const LISTED: usize = 33;
/// Bytes of one PG with its epoch.
pub(super) const CLAIMED: usize = 14;
/// Bytes of the id of an operation.
pub(super) const OP_ID: usize = 16;

/// Appends the frame of `message` to `out`: header and body in one piece, then the segments of the payload, by
/// reference.
///
/// # Panics
/// If the message is not one that [`decode`](super::decode) could take for its size; senders bound theirs.
pub fn encode(message: &Message, out: &mut Vec<Bytes>) {
    let mut head = BytesMut::with_capacity(HEADER + room(message));
    head.put_bytes(0, HEADER);
    let place = out.len();
    out.push(Bytes::new());
    let kind = match message {
        Message::Op(op) => put_op(op, &mut head, out),
        Message::OpDone(done) => put_done(done, &mut head, out),
        Message::TickRequest { sent } => {
            head.put_u64_le(sent.0);
            Kind::TickRequest
        }
        Message::Tick { sent, tick, mark } => {
            head.put_u64_le(sent.0);
            head.put_u64_le(tick.0);
            head.put_u8(mark.is_some().into());
            if let Some(mark) = mark {
                head.put_u64_le(mark.count);
                head.put_u32_le(mark.draw);
            }
            Kind::Tick
        }
        Message::Peer(peer) => put_peer(peer, &mut head, out),
        Message::Ping { sent, pgs } => {
            head.put_u64_le(sent.0);
            put_claimed(pgs, &mut head);
            Kind::Ping
        }
        Message::Pong { sent, free, refused } => {
            head.put_u64_le(sent.0);
            head.put_u64_le(*free);
            put_claimed(refused, &mut head);
            Kind::Pong
        }
    };
    seal(kind, &mut head, &out[place + 1..]);
    out[place] = head.freeze();
}

/// Bytes that the body has at most.
fn room(message: &Message) -> usize {
    let list = match message {
        Message::OpDone(OpDone {
            result: Ok(OpValue::Objects(numbers)),
            ..
        }) => 8 * numbers.len(),
        Message::Peer(peer) => match &peer.body {
            PeerBody::Listing { objects, .. } => LISTED * objects.len(),
            PeerBody::Write { mutation, .. } | PeerBody::Push { mutation, .. } => ops_room(mutation),
            PeerBody::Fetched { whole, .. } => whole.as_ref().map_or(0, ops_room),
            _ => 0,
        },
        Message::Ping { pgs, .. } | Message::Pong { refused: pgs, .. } => CLAIMED * pgs.len(),
        Message::Op(_) | Message::OpDone(_) | Message::TickRequest { .. } | Message::Tick { .. } => 0,
    };
    BODY + list
}

fn ops_room(mutation: &Mutation) -> usize {
    match &mutation.ops {
        Ops::Add { .. } => 0,
        Ops::Exactly(ops) => OP_ID * ops.len(),
    }
}

fn put_op(op: &Op, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    put_op_id(op.id, head);
    put_pg(op.pg, head);
    head.put_u64_le(op.epoch.0);
    head.put_u64_le(op.settled);
    head.put_u64_le(op.answered);
    head.put_u64_le(op.previous);
    head.put_u64_le(op.stamp.0);
    match &op.action {
        Action::Read { object, offset, len } => {
            put_range(*object, *offset, *len, head);
            Kind::Read
        }
        Action::Write { object, offset, data } => {
            put_object(*object, head);
            put_size(*offset, head);
            put_segments(data, out);
            Kind::Write
        }
        Action::Zero { object, offset, len } => {
            put_range(*object, *offset, *len, head);
            Kind::Zero
        }
        Action::Remove { object } => {
            put_object(*object, head);
            Kind::Remove
        }
        Action::List { image, from, end } => {
            head.put_u64_le(image.0);
            head.put_u64_le(*from);
            head.put_u64_le(*end);
            Kind::List
        }
        Action::Barrier { revision } => {
            head.put_u64_le(*revision);
            Kind::Barrier
        }
    }
}

fn put_done(done: &OpDone, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    put_op_id(done.id, head);
    head.put_u64_le(done.tick.0);
    match &done.result {
        Ok(OpValue::Changed) => Kind::Changed,
        Ok(OpValue::Passed) => Kind::Passed,
        Ok(OpValue::Data(data)) => {
            put_segments(data, out);
            Kind::Data
        }
        Ok(OpValue::Objects(numbers)) => {
            put_size(numbers.len(), head);
            numbers.iter().for_each(|&number| head.put_u64_le(number));
            Kind::Objects
        }
        Err(error) => {
            put_op_error(*error, head);
            Kind::Failed
        }
    }
}

fn put_op_error(error: OpError, head: &mut BytesMut) {
    head.put_u8(match error {
        OpError::NotPrimary => 1,
        OpError::NoSpace => 2,
        OpError::Damaged => 3,
        OpError::Malformed => 4,
        OpError::OtherEpoch(_) => 5,
        OpError::Unregistered => 6,
        OpError::Outdated => 7,
        OpError::Overtaken => 8,
    });
    if let OpError::OtherEpoch(epoch) = error {
        head.put_u64_le(epoch.0);
    }
}

fn put_peer(peer: &Peer, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    put_pg(peer.pg, head);
    head.put_u64_le(peer.epoch.0);
    match &peer.body {
        PeerBody::Fence => Kind::Fence,
        PeerBody::Refused { accepted } => {
            head.put_u64_le(accepted.0);
            Kind::Refused
        }
        PeerBody::Stray => Kind::Stray,
        PeerBody::Drop => Kind::Drop,
        PeerBody::Listing {
            part,
            parts,
            promise,
            objects,
        } => {
            head.put_u32_le(*part);
            head.put_u32_le(*parts);
            put_promise(*promise, head);
            put_listing(objects, head);
            Kind::Listing
        }
        PeerBody::Write { object, .. }
        | PeerBody::Push { object, .. }
        | PeerBody::Written { object, .. }
        | PeerBody::Fetch { object }
        | PeerBody::Fetched { object, .. }
        | PeerBody::Scrub { object }
        | PeerBody::Scrubbed { object, .. }
        | PeerBody::Forget { object, .. }
        | PeerBody::Forgotten { object, .. } => {
            put_object(*object, head);
            put_of_object(&peer.body, head, out)
        }
    }
}

/// What follows the object in the messages about one.
fn put_of_object(body: &PeerBody, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    match body {
        PeerBody::Write { after, mutation, .. } => {
            put_version(*after, head);
            put_mutation(mutation, head, out);
            Kind::MemberWrite
        }
        PeerBody::Push { mutation, .. } => {
            put_mutation(mutation, head, out);
            Kind::Push
        }
        PeerBody::Written { version, result, .. } => {
            put_version(*version, head);
            put_write_result(*result, head);
            Kind::Written
        }
        PeerBody::Fetched { whole, damaged, .. } => {
            head.put_u32_le(damaged.0);
            head.put_u8(u8::from(whole.is_some()));
            whole.iter().for_each(|mutation| put_mutation(mutation, head, out));
            Kind::Fetched
        }
        PeerBody::Scrubbed {
            version,
            digest,
            damaged,
            ..
        } => {
            put_version(*version, head);
            head.put_u64_le(*digest);
            head.put_u32_le(damaged.0);
            Kind::Scrubbed
        }
        PeerBody::Forget { version, .. } => {
            put_version(*version, head);
            Kind::Forget
        }
        PeerBody::Forgotten { version, .. } => {
            put_version(*version, head);
            Kind::Forgotten
        }
        PeerBody::Scrub { .. } => Kind::Scrub,
        _ => Kind::Fetch,
    }
}

fn put_claimed(pgs: &[(PgId, Epoch)], head: &mut BytesMut) {
    put_size(pgs.len(), head);
    for &(pg, epoch) in pgs {
        put_pg(pg, head);
        head.put_u64_le(epoch.0);
    }
}

/// A promise is kept rather longer than shorter: parts of a millisecond count as one.
fn put_promise(promise: Option<Promise>, head: &mut BytesMut) {
    let Some(Promise { to, left }) = promise else {
        return head.put_u8(0);
    };
    head.put_u8(if to.is_some() { 2 } else { 1 });
    to.iter().for_each(|osd| head.put_u32_le(osd.0));
    let millis = left.as_nanos().div_ceil(1_000_000);
    head.put_u32_le(u32::try_from(millis).unwrap_or(u32::MAX));
}

fn put_listing(objects: &[Listed], head: &mut BytesMut) {
    put_size(objects.len(), head);
    for listed in objects {
        put_object(listed.object, head);
        put_version(listed.version, head);
        head.put_u8(u8::from(listed.tombstone));
    }
}

fn put_mutation(mutation: &Mutation, head: &mut BytesMut, out: &mut Vec<Bytes>) {
    put_version(mutation.version, head);
    put_ops(&mutation.ops, head);
    head.put_u32_le(mutation.zero.0);
    head.put_u8(u8::from(mutation.tombstone));
    put_unit(mutation.patches.len(), head);
    for patch in &mutation.patches {
        put_unit(patch.first, head);
        put_unit(patch.units(), head);
        patch.sums.iter().for_each(|&sum| head.put_u32_le(sum));
        out.push(patch.data.clone());
    }
}

fn put_ops(ops: &Ops, head: &mut BytesMut) {
    match ops {
        Ops::Add { op, answered } => {
            head.put_u8(0);
            put_op_id(*op, head);
            head.put_u64_le(*answered);
        }
        Ops::Exactly(ops) => {
            assert!(ops.len() <= MAX_OPS, "an object remembers that many at most");
            head.put_u8(1);
            put_size(ops.len(), head);
            ops.iter().for_each(|&op| put_op_id(op, head));
        }
    }
}

fn put_write_result(result: Result<(), WriteError>, head: &mut BytesMut) {
    head.put_u8(match result {
        Ok(()) => 0,
        Err(WriteError::NoSpace) => 1,
        Err(WriteError::Stale) => 2,
        Err(WriteError::Failed) => 3,
        Err(WriteError::Behind) => 4,
    });
}

fn put_segments(data: &[Bytes], out: &mut Vec<Bytes>) {
    out.extend(data.iter().filter(|segment| !segment.is_empty()).cloned());
}

fn put_range(object: ObjectId, offset: usize, len: usize, head: &mut BytesMut) {
    put_object(object, head);
    put_size(offset, head);
    put_size(len, head);
}

fn put_object(object: ObjectId, head: &mut BytesMut) {
    head.put_u64_le(object.image.0);
    head.put_u64_le(object.number);
}

fn put_version(version: Version, head: &mut BytesMut) {
    head.put_u64_le(version.epoch.0);
    head.put_u64_le(version.counter);
}

fn put_op_id(id: OpId, head: &mut BytesMut) {
    head.put_u64_le(id.client.0);
    head.put_u64_le(id.sequence);
}

fn put_pg(pg: PgId, head: &mut BytesMut) {
    head.put_u16_le(pg.pool.0);
    head.put_u32_le(pg.packed());
}

/// A length or count; all of ours are far below 2^32.
fn put_size(size: usize, head: &mut BytesMut) {
    head.put_u32_le(u32::try_from(size).expect("lengths in messages are bounded"));
}

/// A place in an object, or a count of its units.
fn put_unit(unit: usize, head: &mut BytesMut) {
    head.put_u8(u8::try_from(unit).expect("an object has 32 units"));
}
