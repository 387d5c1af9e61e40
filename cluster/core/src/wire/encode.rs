//! From messages to frames.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{HEADER, Kind, seal};
use crate::ids::{ObjectId, OpId, PgId, Version};
use crate::message::{Action, Listed, Message, Op, OpDone, OpError, OpValue, Peer, PeerBody, WriteError};
use crate::mutation::Mutation;

/// Room for any body but lists: 32 patches of one unit with their sums, and the fields before them, bytes.
const BODY: usize = 320;
/// Bytes of one object in a listing.
pub(super) const LISTED: usize = 53;
/// Bytes of one recent operation in a listing.
pub(super) const RECENT: usize = 32;

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
        Message::Peer(peer) => put_peer(peer, &mut head, out),
    };
    seal(kind, &mut head, &out[place + 1..]);
    out[place] = head.freeze();
}

/// Bytes that the body has at most.
fn room(message: &Message) -> usize {
    match message {
        Message::OpDone(OpDone {
            result: Ok(OpValue::Objects(numbers)),
            ..
        }) => BODY + 8 * numbers.len(),
        Message::Peer(Peer {
            body: PeerBody::Listing { objects, recent, .. },
            ..
        }) => BODY + LISTED * objects.len() + RECENT * recent.len(),
        _ => BODY,
    }
}

fn put_op(op: &Op, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    put_op_id(op.id, head);
    put_pg(op.pg, head);
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
        Action::List { image, after } => {
            head.put_u64_le(image.0);
            head.put_u8(u8::from(after.is_some()));
            head.put_u64_le(after.unwrap_or(0));
            Kind::List
        }
    }
}

fn put_done(done: &OpDone, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    put_op_id(done.id, head);
    match &done.result {
        Ok(OpValue::Changed) => Kind::Changed,
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
            head.put_u8(match error {
                OpError::NotPrimary => 1,
                OpError::NoSpace => 2,
                OpError::Damaged => 3,
                OpError::Malformed => 4,
            });
            Kind::Failed
        }
    }
}

fn put_peer(peer: &Peer, head: &mut BytesMut, out: &mut Vec<Bytes>) -> Kind {
    put_pg(peer.pg, head);
    head.put_u64_le(peer.epoch.0);
    match &peer.body {
        PeerBody::Fence => Kind::Fence,
        PeerBody::Listing { objects, recent, last } => {
            put_listing(objects, recent, *last, head);
            Kind::Listing
        }
        PeerBody::Refused { accepted } => {
            head.put_u64_le(accepted.0);
            Kind::Refused
        }
        PeerBody::Write { object, mutation } => {
            put_object(*object, head);
            put_mutation(mutation, head, out);
            Kind::MemberWrite
        }
        PeerBody::Written {
            object,
            version,
            result,
        } => {
            put_object(*object, head);
            put_version(*version, head);
            put_write_result(*result, head);
            Kind::Written
        }
        PeerBody::Fetch { object } => {
            put_object(*object, head);
            Kind::Fetch
        }
        PeerBody::Fetched { object, whole } => {
            put_object(*object, head);
            head.put_u8(u8::from(whole.is_some()));
            whole.iter().for_each(|mutation| put_mutation(mutation, head, out));
            Kind::Fetched
        }
        PeerBody::Forget { object, version } => {
            put_object(*object, head);
            put_version(*version, head);
            Kind::Forget
        }
    }
}

fn put_listing(objects: &[Listed], recent: &[(OpId, Version)], last: bool, head: &mut BytesMut) {
    head.put_u8(u8::from(last));
    put_size(objects.len(), head);
    for listed in objects {
        put_object(listed.object, head);
        put_version(listed.version, head);
        put_op_id(listed.op, head);
        head.put_u32_le(listed.present.0);
        head.put_u8(u8::from(listed.tombstone));
    }
    put_size(recent.len(), head);
    for &(op, version) in recent {
        put_op_id(op, head);
        put_version(version, head);
    }
}

fn put_mutation(mutation: &Mutation, head: &mut BytesMut, out: &mut Vec<Bytes>) {
    put_version(mutation.version, head);
    put_op_id(mutation.op, head);
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

fn put_write_result(result: Result<(), WriteError>, head: &mut BytesMut) {
    head.put_u8(match result {
        Ok(()) => 0,
        Err(WriteError::NoSpace) => 1,
        Err(WriteError::Stale) => 2,
        Err(WriteError::Failed) => 3,
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
    head.put_u32_le(pg.number);
}

/// A length or count; all of ours are far below 2^32.
fn put_size(size: usize, head: &mut BytesMut) {
    head.put_u32_le(u32::try_from(size).expect("lengths in messages are bounded"));
}

/// A place in an object, or a count of its units.
fn put_unit(unit: usize, head: &mut BytesMut) {
    head.put_u8(u8::try_from(unit).expect("an object has 32 units"));
}
