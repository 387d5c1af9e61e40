//! From frames to messages.

use bytes::{Bytes, BytesMut};

use super::encode::{LISTED, RECENT};
use super::frame::{HEADER, Header, Kind, Limits, WireError};
use crate::ids::{
    ClientId, Epoch, ImageId, OBJECT_SIZE, ObjectId, OpId, PgId, PoolId, UNIT_SIZE, UNITS_PER_OBJECT, UnitMask, Version,
};
use crate::message::{Action, LIST_LIMIT, Listed, Message, Op, OpDone, OpError, OpValue, Peer, PeerBody, WriteError};
use crate::mutation::{Mutation, Patch};

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
        Kind::Changed => done(fields, |_| Ok(Ok(OpValue::Changed))),
        Kind::Data => done(fields, |_| Ok(Ok(OpValue::Data(vec![data])))),
        Kind::Objects => done(fields, |f| f.numbers().map(|n| Ok(OpValue::Objects(n)))),
        Kind::Failed => done(fields, |f| f.op_error().map(Err)),
        Kind::Fence => peer(fields, |_, _| Ok(PeerBody::Fence)),
        Kind::Listing => peer(fields, listing),
        Kind::Refused => peer(fields, |f, _| {
            Ok(PeerBody::Refused {
                accepted: Epoch(f.u64()?),
            })
        }),
        Kind::MemberWrite => peer(fields, |f, pg| member_write(f, pg, data)),
        Kind::Written => peer(fields, written),
        Kind::Fetch => peer(fields, |f, pg| Ok(PeerBody::Fetch { object: f.object(pg)? })),
        Kind::Fetched => peer(fields, |f, pg| fetched(f, pg, data)),
        Kind::Forget => peer(fields, |f, pg| {
            Ok(PeerBody::Forget {
                object: f.object(pg)?,
                version: f.version()?,
            })
        }),
    }
}

fn op<F>(fields: &mut Fields, action: F) -> Result<Message, WireError>
where
    F: FnOnce(&mut Fields, PgId) -> Result<Action, WireError>,
{
    let id = fields.op_id()?;
    let pg = fields.pg()?;
    let action = action(fields, pg)?;
    Ok(Message::Op(Op { id, pg, action }))
}

fn done<F>(fields: &mut Fields, result: F) -> Result<Message, WireError>
where
    F: FnOnce(&mut Fields) -> Result<Result<OpValue, OpError>, WireError>,
{
    let id = fields.op_id()?;
    let result = result(fields)?;
    Ok(Message::OpDone(OpDone { id, result }))
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
    let present = fields.flag()?;
    let number = fields.u64()?;
    if !present && number != 0 {
        return Err(WireError::Field("an absent number that is not zero"));
    }
    let after = present.then_some(number);
    Ok(Action::List { image, after })
}

fn listing(fields: &mut Fields, pg: PgId) -> Result<PeerBody, WireError> {
    let last = fields.flag()?;
    let objects = fields.list(LISTED, |f| f.listed(pg))?;
    if !objects.windows(2).all(|pair| pair[0].object < pair[1].object) {
        return Err(WireError::Field("a listing out of order"));
    }
    let recent = fields.list(RECENT, |f| Ok((f.op_id()?, f.version()?)))?;
    Ok(PeerBody::Listing { objects, recent, last })
}

fn member_write(fields: &mut Fields, pg: PgId, data: Bytes) -> Result<PeerBody, WireError> {
    let object = fields.object(pg)?;
    let mutation = mutation(fields, object, data)?;
    Ok(PeerBody::Write { object, mutation })
}

fn written(fields: &mut Fields, pg: PgId) -> Result<PeerBody, WireError> {
    let object = fields.object(pg)?;
    let version = fields.version()?;
    let result = match fields.u8()? {
        0 => Ok(()),
        1 => Err(WriteError::NoSpace),
        2 => Err(WriteError::Stale),
        3 => Err(WriteError::Failed),
        _ => return Err(WireError::Field("the outcome of a write")),
    };
    Ok(PeerBody::Written {
        object,
        version,
        result,
    })
}

fn fetched(fields: &mut Fields, pg: PgId, data: Bytes) -> Result<PeerBody, WireError> {
    let object = fields.object(pg)?;
    let whole = if fields.flag()? {
        Some(mutation(fields, object, data)?)
    } else if data.is_empty() {
        None
    } else {
        return Err(WireError::Field("payload without an object"));
    };
    Ok(PeerBody::Fetched { object, whole })
}

fn mutation(fields: &mut Fields, object: ObjectId, mut data: Bytes) -> Result<Mutation, WireError> {
    let version = fields.version()?;
    let op = fields.op_id()?;
    let zero = UnitMask(fields.u32()?);
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
        op,
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

fn check_range(offset: usize, len: usize) -> Result<(), WireError> {
    let fits = len > 0 && offset.checked_add(len).is_some_and(|end| end <= OBJECT_SIZE);
    fits.then_some(()).ok_or(WireError::Field("a range beyond the object"))
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, WireError> {
        self.u32().map(|size| size as usize)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Field("a flag that is neither 0 nor 1")),
        }
    }

    /// A counted list of items of `size` bytes, which must be there before room for them is made.
    fn list<T>(
        &mut self,
        size: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.size()?;
        if count > self.0.len() / size {
            return Err(WireError::Short);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn op_id(&mut self) -> Result<OpId, WireError> {
        Ok(OpId {
            client: ClientId(self.u64()?),
            sequence: self.u64()?,
        })
    }

    fn pg(&mut self) -> Result<PgId, WireError> {
        Ok(PgId {
            pool: PoolId(self.u16()?),
            number: self.u32()?,
        })
    }

    /// An image of the PG's pool.
    fn image(&mut self, pg: PgId) -> Result<ImageId, WireError> {
        let image = ImageId(self.u64()?);
        if image.pool() != pg.pool {
            return Err(WireError::Field("an image of another pool"));
        }
        Ok(image)
    }

    fn object(&mut self, pg: PgId) -> Result<ObjectId, WireError> {
        Ok(ObjectId {
            image: self.image(pg)?,
            number: self.u64()?,
        })
    }

    /// A version that something was written with: counters start at 1.
    fn version(&mut self) -> Result<Version, WireError> {
        let version = Version {
            epoch: Epoch(self.u64()?),
            counter: self.u64()?,
        };
        if version.counter == 0 {
            return Err(WireError::Field("a version without a write"));
        }
        Ok(version)
    }

    fn range(&mut self, pg: PgId) -> Result<(ObjectId, usize, usize), WireError> {
        let object = self.object(pg)?;
        let (offset, len) = (self.size()?, self.size()?);
        check_range(offset, len)?;
        Ok((object, offset, len))
    }

    fn numbers(&mut self) -> Result<Vec<u64>, WireError> {
        let numbers = self.list(8, Self::u64)?;
        if numbers.len() > LIST_LIMIT || !numbers.is_sorted_by(|a, b| a < b) {
            return Err(WireError::Field("object numbers"));
        }
        Ok(numbers)
    }

    fn op_error(&mut self) -> Result<OpError, WireError> {
        match self.u8()? {
            1 => Ok(OpError::NotPrimary),
            2 => Ok(OpError::NoSpace),
            3 => Ok(OpError::Damaged),
            4 => Ok(OpError::Malformed),
            _ => Err(WireError::Field("the error of an operation")),
        }
    }

    fn listed(&mut self, pg: PgId) -> Result<Listed, WireError> {
        let listed = Listed {
            object: self.object(pg)?,
            version: self.version()?,
            op: self.op_id()?,
            present: UnitMask(self.u32()?),
            tombstone: self.flag()?,
        };
        if listed.tombstone && !listed.present.is_empty() {
            return Err(WireError::Field("a tombstone that keeps units"));
        }
        Ok(listed)
    }
}
