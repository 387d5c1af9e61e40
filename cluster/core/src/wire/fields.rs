//! The fields of a body, one after another. What a field cannot be is an error.

use std::time::Duration;

use super::encode::OP_ID;
use super::frame::WireError;
use crate::ids::{ClientId, Epoch, ImageId, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, PoolId, UnitMask, Version};
use crate::mark::Mark;
use crate::message::{LIST_LIMIT, Listed, OpError, Promise, WriteError};
use crate::mutation::{MAX_OPS, Ops};

pub(super) fn check_range(offset: usize, len: usize) -> Result<(), WireError> {
    let fits = len > 0 && offset.checked_add(len).is_some_and(|end| end <= OBJECT_SIZE);
    fits.then_some(()).ok_or(WireError::Field("a range beyond the object"))
}

/// What is left of a body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.take().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn size(&mut self) -> Result<usize, WireError> {
        self.u32().map(|size| size as usize)
    }

    pub(super) fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Field("a flag that is neither 0 nor 1")),
        }
    }

    /// A flag, and the mark behind it.
    pub(super) fn mark(&mut self) -> Result<Option<Mark>, WireError> {
        let mark = |fields: &mut Self| {
            let (count, draw) = (fields.u64()?, fields.u32()?);
            Ok(Mark { count, draw })
        };
        self.flag()?.then(|| mark(self)).transpose()
    }

    /// A counted list of at most `most` items of `size` bytes, which must be there before room for them is made.
    pub(super) fn list<T>(
        &mut self,
        size: usize,
        most: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.size()?;
        if count > most {
            return Err(WireError::Field("more items than the list may have"));
        }
        if count > self.0.len() / size {
            return Err(WireError::Short);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn op_id(&mut self) -> Result<OpId, WireError> {
        Ok(OpId {
            client: ClientId(self.u64()?),
            sequence: self.u64()?,
        })
    }

    pub(super) fn pg(&mut self) -> Result<PgId, WireError> {
        let pool = PoolId(self.u16()?);
        Ok(PgId::unpacked(pool, self.u32()?))
    }

    /// An image of the PG's pool.
    pub(super) fn image(&mut self, pg: PgId) -> Result<ImageId, WireError> {
        let image = ImageId(self.u64()?);
        if image.pool() != pg.pool {
            return Err(WireError::Field("an image of another pool"));
        }
        Ok(image)
    }

    pub(super) fn object(&mut self, pg: PgId) -> Result<ObjectId, WireError> {
        Ok(ObjectId {
            image: self.image(pg)?,
            number: self.u64()?,
        })
    }

    /// A version that something was written with: counters start at 1.
    pub(super) fn version(&mut self) -> Result<Version, WireError> {
        let version = self.any_version()?;
        if version == Version::NONE {
            return Err(WireError::Field("a version without a write"));
        }
        Ok(version)
    }

    /// A version, or [`Version::NONE`].
    pub(super) fn any_version(&mut self) -> Result<Version, WireError> {
        let version = Version {
            epoch: Epoch(self.u64()?),
            counter: self.u64()?,
        };
        if version.counter == 0 && version != Version::NONE {
            return Err(WireError::Field("a version without a write"));
        }
        Ok(version)
    }

    pub(super) fn units(&mut self) -> Result<UnitMask, WireError> {
        self.u32().map(UnitMask)
    }

    /// A PG and its epoch.
    pub(super) fn claimed(&mut self) -> Result<(PgId, Epoch), WireError> {
        Ok((self.pg()?, Epoch(self.u64()?)))
    }

    pub(super) fn promise(&mut self) -> Result<Option<Promise>, WireError> {
        let to = match self.u8()? {
            0 => return Ok(None),
            1 => None,
            2 => Some(OsdId(self.u32()?)),
            _ => return Err(WireError::Field("the kind of a promise")),
        };
        let left = Duration::from_millis(u64::from(self.u32()?));
        Ok(Some(Promise { to, left }))
    }

    pub(super) fn ops(&mut self) -> Result<Ops, WireError> {
        match self.u8()? {
            0 => Ok(Ops::Add {
                op: self.op_id()?,
                answered: self.u64()?,
            }),
            1 => self.list(OP_ID, MAX_OPS, Self::op_id).map(Ops::Exactly),
            _ => Err(WireError::Field("what becomes of remembered operations")),
        }
    }

    pub(super) fn write_result(&mut self) -> Result<Result<(), WriteError>, WireError> {
        match self.u8()? {
            0 => Ok(Ok(())),
            1 => Ok(Err(WriteError::NoSpace)),
            2 => Ok(Err(WriteError::Stale)),
            3 => Ok(Err(WriteError::Failed)),
            4 => Ok(Err(WriteError::Behind)),
            _ => Err(WireError::Field("the outcome of a write")),
        }
    }

    pub(super) fn range(&mut self, pg: PgId) -> Result<(ObjectId, usize, usize), WireError> {
        let object = self.object(pg)?;
        let (offset, len) = (self.size()?, self.size()?);
        check_range(offset, len)?;
        Ok((object, offset, len))
    }

    pub(super) fn numbers(&mut self) -> Result<Vec<u64>, WireError> {
        let numbers = self.list(8, LIST_LIMIT, Self::u64)?;
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(WireError::Field("object numbers"));
        }
        Ok(numbers)
    }

    pub(super) fn op_error(&mut self) -> Result<OpError, WireError> {
        match self.u8()? {
            1 => Ok(OpError::NotPrimary),
            2 => Ok(OpError::NoSpace),
            3 => Ok(OpError::Damaged),
            4 => Ok(OpError::Malformed),
            5 => Ok(OpError::OtherEpoch(Epoch(self.u64()?))),
            6 => Ok(OpError::Unregistered),
            7 => Ok(OpError::Outdated),
            8 => Ok(OpError::Overtaken),
            _ => Err(WireError::Field("the error of an operation")),
        }
    }

    pub(super) fn listed(&mut self, pg: PgId) -> Result<Listed, WireError> {
        Ok(Listed {
            object: self.object(pg)?,
            version: self.version()?,
            tombstone: self.flag()?,
        })
    }
}
