//! From frames to messages.

use bytes::{Bytes, BytesMut};

use super::encode::{CLAIMED, LISTED};
use super::fields::{Fields, check_range};
use super::frame::{HEADER, Header, Kind, Limits, WireError};
use crate::ids::{Epoch, ObjectId, PgId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask};
use crate::message::{Action, Message, Op, OpDone, OpError, OpValue, PING_LIMIT, Peer, PeerBody};
use crate::mutation::{MARK, Mutation, Patch};
use crate::time::{Now, Tick};

/// Takes the next frame off `input`; none, and `input` as it was, while it is not there as a whole (see
/// [`needed`](super::needed)).
///
/// # Errors
/// When the bytes are not a message, or one beyond `limits`. The rest of the stream then has no meaning.
pub fn decode(input: &mut BytesMut, limits: &Limits) -> Result<Option<Message>, WireError> {
    let Some(header) = Header::parse(input, limits)? else {
        return Ok(None);
    };
    if input.len() < header.len() {
        return Ok(None);
    }
    let head = input.split_to(HEADER + header.meta);
    let data = input.split_to(header.data).freeze();
    header.verify(&head, &data)?;
    let mut fields = Fields(&head[HEADER..]);
    let message = body(header.kind, &mut fields, data)?;
    match fields.0.len() {
        0 => Ok(Some(message)),
        more => Err(WireError::Trailing(more)),
    }
}

fn body(kind: Kind, fields: &mut Fields, data: Bytes) -> Result<Message, WireError> {
    match kind {
        Kind::Read => op(fields, |f, pg| {
            let (object, offset, len) = f.range(pg)?;
            Ok(Action::Read { object, offset, len })
        }),
        Kind::Write => op(fields, |f, pg| write(f, pg, data)),
        Kind::Zero => op(fields, |f, pg| {
            let (object, offset, len) = f.range(pg)?;
            Ok(Action::Zero { object, offset, len })
        }),
        Kind::Remove => op(fields, |f, pg| Ok(Action::Remove { object: f.object(pg)? })),
        Kind::List => op(fields, list_action),
        Kind::Barrier => op(fields, |f, _| Ok(Action::Barrier { revision: f.u64()? })),
        Kind::Changed => done(fields, |_| Ok(Ok(OpValue::Changed))),
        Kind::Data => done(fields, |_| Ok(Ok(OpValue::Data(vec![data])))),
        Kind::Objects => done(fields, |f| f.numbers().map(|n| Ok(OpValue::Objects(n)))),
        Kind::Passed => done(fields, |_| Ok(Ok(OpValue::Passed))),
        Kind::Failed => done(fields, |f| f.op_error().map(Err)),
        Kind::TickRequest => Ok(Message::TickRequest {
            sent: Now(fields.u64()?),
        }),
        Kind::Tick => Ok(Message::Tick {
            sent: Now(fields.u64()?),
            tick: Tick(fields.u64()?),
            mark: fields.mark()?,
        }),
        Kind::Ping => Ok(Message::Ping {
            sent: Now(fields.u64()?),
            pgs: claimed(fields)?,
        }),
        Kind::Pong => Ok(Message::Pong {
            sent: Now(fields.u64()?),
            free: fields.u64()?,
            refused: claimed(fields)?,
        }),
        _ => peer(fields, |f, pg| peer_body(kind, f, pg, data)),
    }
}

fn peer_body(kind: Kind, fields: &mut Fields, pg: PgId, data: Bytes) -> Result<PeerBody, WireError> {
    match kind {
        Kind::Fence => return Ok(PeerBody::Fence),
        Kind::Stray => return Ok(PeerBody::Stray),
        Kind::Drop => return Ok(PeerBody::Drop),
        Kind::Listing => return listing(fields, pg),
        Kind::Refused => {
            let accepted = Epoch(fields.u64()?);
            return Ok(PeerBody::Refused { accepted });
        }
        _ => {}
    }
    let object = fields.object(pg)?;
    of_object(kind, fields, object, data)
}

/// The messages about one object, after the object.
fn of_object(kind: Kind, fields: &mut Fields, object: ObjectId, data: Bytes) -> Result<PeerBody, WireError> {
    Ok(match kind {
        Kind::MemberWrite => PeerBody::Write {
            object,
            after: fields.any_version()?,
            mutation: mutation(fields, object, data)?,
        },
        Kind::Push => PeerBody::Push {
            object,
            mutation: whole(fields, object, data)?,
        },
        Kind::Written => PeerBody::Written {
            object,
            version: fields.version()?,
            result: fields.write_result()?,
        },
        Kind::Fetched => fetched(fields, object, data)?,
        Kind::Scrub => PeerBody::Scrub { object },
        Kind::Scrubbed => PeerBody::Scrubbed {
            object,
            version: fields.any_version()?,
            digest: fields.u64()?,
            damaged: fields.units()?,
        },
        Kind::Forget => PeerBody::Forget {
            object,
            version: fields.version()?,
        },
        Kind::Forgotten => PeerBody::Forgotten {
            object,
            version: fields.version()?,
        },
        _ => PeerBody::Fetch { object },
    })
}

fn op<F>(fields: &mut Fields, action: F) -> Result<Message, WireError>
where
    F: FnOnce(&mut Fields, PgId) -> Result<Action, WireError>,
{
    let id = fields.op_id()?;
    let pg = fields.pg()?;
    let epoch = Epoch(fields.u64()?);
    let (settled, answered, previous) = (fields.u64()?, fields.u64()?, fields.u64()?);
    if (id.sequence | settled | answered | previous) & MARK != 0 {
        return Err(WireError::Field("a sequence that is none"));
    }
    let stamp = Tick(fields.u64()?);
    let action = action(fields, pg)?;
    Ok(Message::Op(Op {
        id,
        pg,
        epoch,
        settled,
        answered,
        previous,
        stamp,
        action,
    }))
}

fn done<F>(fields: &mut Fields, result: F) -> Result<Message, WireError>
where
    F: FnOnce(&mut Fields) -> Result<Result<OpValue, OpError>, WireError>,
{
    let id = fields.op_id()?;
    let tick = Tick(fields.u64()?);
    let result = result(fields)?;
    Ok(Message::OpDone(OpDone { id, result, tick }))
}

fn peer<F>(fields: &mut Fields, body: F) -> Result<Message, WireError>
where
    F: FnOnce(&mut Fields, PgId) -> Result<PeerBody, WireError>,
{
    let pg = fields.pg()?;
    let epoch = Epoch(fields.u64()?);
    let body = body(fields, pg)?;
    Ok(Message::Peer(Peer { pg, epoch, body }))
}

fn write(fields: &mut Fields, pg: PgId, data: Bytes) -> Result<Action, WireError> {
    let object = fields.object(pg)?;
    let offset = fields.size()?;
    check_range(offset, data.len())?;
    Ok(Action::Write {
        object,
        offset,
        data: vec![data],
    })
}

fn list_action(fields: &mut Fields, pg: PgId) -> Result<Action, WireError> {
    let image = fields.image(pg)?;
    let (from, end) = (fields.u64()?, fields.u64()?);
    if from >= end {
        return Err(WireError::Field("an empty range of objects"));
    }
    Ok(Action::List { image, from, end })
}

fn claimed(fields: &mut Fields) -> Result<Vec<(PgId, Epoch)>, WireError> {
    fields.list(CLAIMED, PING_LIMIT, Fields::claimed)
}

fn listing(fields: &mut Fields, pg: PgId) -> Result<PeerBody, WireError> {
    let (part, parts) = (fields.u32()?, fields.u32()?);
    if part >= parts {
        return Err(WireError::Field("a part beyond the last"));
    }
    let promise = fields.promise()?;
    // The length of the frame is the limit.
    let objects = fields.list(LISTED, usize::MAX, |f| f.listed(pg))?;
    if !objects.windows(2).all(|pair| pair[0].object < pair[1].object) {
        return Err(WireError::Field("a listing out of order"));
    }
    Ok(PeerBody::Listing {
        part,
        parts,
        promise,
        objects,
    })
}

fn fetched(fields: &mut Fields, object: ObjectId, data: Bytes) -> Result<PeerBody, WireError> {
    let damaged = fields.units()?;
    let whole = if fields.flag()? {
        Some(whole(fields, object, data)?)
    } else if data.is_empty() {
        None
    } else {
        return Err(WireError::Field("payload without an object"));
    };
    if whole.as_ref().is_some_and(|whole| has_any(whole, damaged)) {
        return Err(WireError::Field("damaged units that are there, or cannot be"));
    }
    Ok(PeerBody::Fetched { object, whole, damaged })
}

/// Whether `damaged` are units that `whole` brings, or any at all of a tombstone, which has none.
fn has_any(whole: &Mutation, damaged: UnitMask) -> bool {
    whole.tombstone && !damaged.is_empty() || whole.patches.iter().any(|patch| patch.mask().intersects(damaged))
}

/// A mutation that replaces everything.
fn whole(fields: &mut Fields, object: ObjectId, data: Bytes) -> Result<Mutation, WireError> {
    let mutation = mutation(fields, object, data)?;
    if mutation.zero != UnitMask::ALL {
        return Err(WireError::Field("a whole object that keeps units"));
    }
    Ok(mutation)
}

fn mutation(fields: &mut Fields, object: ObjectId, mut data: Bytes) -> Result<Mutation, WireError> {
    let version = fields.version()?;
    let ops = fields.ops()?;
    let zero = fields.units()?;
    let tombstone = fields.flag()?;
    let patches = patches(fields, object, &mut data)?;
    if !data.is_empty() {
        return Err(WireError::Field("payload that belongs to no patch"));
    }
    if tombstone && (zero != UnitMask::ALL || !patches.is_empty()) {
        return Err(WireError::Field("a tombstone that keeps units"));
    }
    Ok(Mutation {
        version,
        ops,
        zero,
        patches,
        tombstone,
    })
}

/// The patches, disjoint; their payloads are split off `data`.
fn patches(fields: &mut Fields, object: ObjectId, data: &mut Bytes) -> Result<Vec<Patch>, WireError> {
    let count = usize::from(fields.u8()?);
    if count > UNITS_PER_OBJECT {
        return Err(WireError::Field("more patches than units"));
    }
    let mut patches = Vec::with_capacity(count);
    let mut covered = UnitMask::EMPTY;
    for _ in 0..count {
        let patch = patch(fields, object, data)?;
        if patch.mask().intersects(covered) {
            return Err(WireError::Field("patches that overlap"));
        }
        covered = covered.union(patch.mask());
        patches.push(patch);
    }
    Ok(patches)
}

fn patch(fields: &mut Fields, object: ObjectId, data: &mut Bytes) -> Result<Patch, WireError> {
    let first = usize::from(fields.u8()?);
    let units = usize::from(fields.u8()?);
    if units == 0 || first + units > UNITS_PER_OBJECT {
        return Err(WireError::Field("units beyond the object"));
    }
    let len = units * UNIT_SIZE;
    if data.len() < len {
        return Err(WireError::Field("less payload than the patches cover"));
    }
    let sums = (0..units).map(|_| fields.u32()).collect::<Result<_, _>>()?;
    let data = data.split_to(len);
    let patch = Patch { first, data, sums };
    if !patch.verify(object) {
        return Err(WireError::UnitSum);
    }
    Ok(patch)
}
