//! The records of the log: what a batch says about objects, epochs and tombstones. Little endian.

use bytes::{Buf, BufMut, BytesMut};
use trivet_core::mark::Mark;
use trivet_core::mutation::{MAX_OPS, Mutation, Ops};
use trivet_core::{ClientId, Epoch, ImageId, ObjectId, OpId, PgId, PoolId, UNITS_PER_OBJECT, UnitMask, Version};

/// How "no slot" is written.
pub const NO_SLOT: u32 = u32::MAX;
const WRITE: u8 = 1;
const EPOCH: u8 = 2;
const FORGET: u8 = 3;
const MARK: u8 = 4;
/// Flags of a write: the object is deleted; the write replaces an equal version, too.
const TOMBSTONE: u8 = 1;
const REPLACES: u8 = 2;
/// Instead of the number of operations: one is added, and those that its client had answers to are forgotten.
const ADD: u8 = 0xff;
/// A patch's place: in the object's slot rather than in the batch.
const IN_SLOT: u8 = 1;
/// Bytes of a write without operations and patches, of an operation, of one that is added, of a patch without its
/// sums, of an epoch, of a forget, of a mark.
const WRITE_LEN: usize = 44;
const OP_LEN: usize = 16;
const ADD_LEN: usize = OP_LEN + 8;
const PATCH_LEN: usize = 4;
const EPOCH_LEN: usize = 16;
const FORGET_LEN: usize = 36;
const MARK_LEN: usize = 16;

/// A write without its operations and patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteHead {
    /// Which object.
    pub object: ObjectId,
    /// Its version from here on.
    pub version: Version,
    /// Units that become unwritten, before the patches.
    pub zero: UnitMask,
    /// The object is deleted.
    pub tombstone: bool,
    /// It counts even if the object has this version already: the same again, in another place.
    pub replaces: bool,
    /// The object's slot from here on.
    pub slot: Option<u32>,
}

impl WriteHead {
    /// The head of the record of `mutation`, after which `object` has `slot`.
    pub fn of(object: ObjectId, mutation: &Mutation, replaces: bool, slot: Option<u32>) -> WriteHead {
        let Mutation {
            version,
            zero,
            tombstone,
            ..
        } = *mutation;
        WriteHead {
            object,
            version,
            zero,
            tombstone,
            replaces,
            slot,
        }
    }

    /// Whether the write changes an object that has the version `have`.
    pub fn changes(&self, have: Version) -> bool {
        have < self.version || self.replaces && have == self.version
    }
}

/// New contents of consecutive units, without the contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchRecord {
    /// The first unit.
    pub first: usize,
    /// One sum per unit.
    pub sums: Vec<u32>,
    /// Whether the contents are in the object's slot; else in the batch.
    pub in_slot: bool,
}

impl PatchRecord {
    /// The units that it covers.
    pub fn mask(&self) -> UnitMask {
        UnitMask::range(self.first, self.sums.len())
    }
}

/// One record, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A write.
    Write(WriteHead, Ops, Vec<PatchRecord>),
    /// An accepted epoch.
    Epoch(PgId, Epoch),
    /// The tombstone of this version is forgotten.
    Forget(ObjectId, Version),
    /// A mark of the metadata store.
    Mark(Mark),
}

/// Bytes of the record of a write.
pub fn write_len(mutation: &Mutation) -> usize {
    WRITE_LEN
        + ops_len(&mutation.ops)
        + mutation
            .patches
            .iter()
            .map(|p| PATCH_LEN + 4 * p.sums.len())
            .sum::<usize>()
}

fn ops_len(ops: &Ops) -> usize {
    match ops {
        Ops::Add { .. } => ADD_LEN,
        Ops::Exactly(ops) => ops.len() * OP_LEN,
    }
}

/// Bytes of the record of an epoch.
pub const fn epoch_len() -> usize {
    EPOCH_LEN
}

/// Bytes of the record of a forgotten tombstone.
pub const fn forget_len() -> usize {
    FORGET_LEN
}

/// Bytes of the record of a mark.
pub const fn mark_len() -> usize {
    MARK_LEN
}

/// Writes an object's name.
pub fn put_object(out: &mut BytesMut, object: ObjectId) {
    out.put_u64_le(object.image.0);
    out.put_u64_le(object.number);
}

/// Reads an object's name; 16 bytes must be there.
pub fn get_object(data: &mut &[u8]) -> ObjectId {
    ObjectId {
        image: ImageId(data.get_u64_le()),
        number: data.get_u64_le(),
    }
}

/// Writes a version.
pub fn put_version(out: &mut BytesMut, version: Version) {
    out.put_u64_le(version.epoch.0);
    out.put_u64_le(version.counter);
}

/// Reads a version; 16 bytes must be there.
pub fn get_version(data: &mut &[u8]) -> Version {
    Version {
        epoch: Epoch(data.get_u64_le()),
        counter: data.get_u64_le(),
    }
}

/// Writes an operation's name.
pub fn put_op(out: &mut BytesMut, op: OpId) {
    out.put_u64_le(op.client.0);
    out.put_u64_le(op.sequence);
}

/// Reads an operation's name; 16 bytes must be there.
pub fn get_op(data: &mut &[u8]) -> OpId {
    OpId {
        client: ClientId(data.get_u64_le()),
        sequence: data.get_u64_le(),
    }
}

/// Writes an accepted epoch, 16 bytes of which the first is `tag`.
pub fn put_epoch(out: &mut BytesMut, tag: u8, pg: PgId, epoch: Epoch) {
    out.put_u8(tag);
    out.put_u8(0);
    out.put_u16_le(pg.pool.0);
    out.put_u32_le(pg.packed());
    out.put_u64_le(epoch.0);
}

/// Reads what follows the tag of an accepted epoch; 15 bytes must be there.
pub fn get_epoch(data: &mut &[u8]) -> (PgId, Epoch) {
    data.advance(1);
    let pool = PoolId(data.get_u16_le());
    let pg = PgId::unpacked(pool, data.get_u32_le());
    (pg, Epoch(data.get_u64_le()))
}

/// Writes a mark, 16 bytes of which the first is `tag`.
pub fn put_mark(out: &mut BytesMut, tag: u8, mark: Mark) {
    out.put_u32_le(u32::from(tag));
    out.put_u32_le(mark.draw);
    out.put_u64_le(mark.count);
}

/// Reads what follows the tag of a mark; 15 bytes must be there.
pub fn get_mark(data: &mut &[u8]) -> Mark {
    data.advance(3);
    let draw = data.get_u32_le();
    Mark {
        count: data.get_u64_le(),
        draw,
    }
}

/// Writes the record of a write whose `slot_units` are in the slot and the others in the batch.
pub fn put_write(out: &mut BytesMut, head: &WriteHead, mutation: &Mutation, slot_units: UnitMask) {
    out.put_u8(WRITE);
    let flags = [(head.tombstone, TOMBSTONE), (head.replaces, REPLACES)];
    out.put_u8(flags.iter().filter(|flag| flag.0).map(|flag| flag.1).sum());
    out.put_u8(u8::try_from(mutation.patches.len()).expect("at most one patch per unit"));
    out.put_u8(match &mutation.ops {
        Ops::Add { .. } => ADD,
        Ops::Exactly(ops) => u8::try_from(ops.len()).expect("at most 128"),
    });
    put_object(out, head.object);
    put_version(out, head.version);
    out.put_u32_le(head.zero.0);
    out.put_u32_le(head.slot.unwrap_or(NO_SLOT));
    match &mutation.ops {
        Ops::Add { op, answered } => {
            put_op(out, *op);
            out.put_u64_le(*answered);
        }
        Ops::Exactly(ops) => ops.iter().for_each(|&op| put_op(out, op)),
    }
    for patch in &mutation.patches {
        out.put_u8(u8::try_from(patch.first).expect("fewer than 256 units"));
        out.put_u8(u8::try_from(patch.sums.len()).expect("fewer than 256 units"));
        out.put_u8(if slot_units.has(patch.first) { IN_SLOT } else { 0 });
        out.put_u8(0);
        patch.sums.iter().for_each(|&sum| out.put_u32_le(sum));
    }
}

/// Writes the record of an accepted epoch.
pub fn put_accept(out: &mut BytesMut, pg: PgId, epoch: Epoch) {
    put_epoch(out, EPOCH, pg, epoch);
}

/// Writes the record of a mark of the metadata store.
pub fn put_seen(out: &mut BytesMut, mark: Mark) {
    put_mark(out, MARK, mark);
}

/// Writes the record of a forgotten tombstone.
pub fn put_forget(out: &mut BytesMut, object: ObjectId, version: Version) {
    out.put_u32_le(u32::from(FORGET));
    put_object(out, object);
    put_version(out, version);
}

/// Reads one record; `None` if the bytes are not one.
pub fn get(data: &mut &[u8]) -> Option<Record> {
    let (&tag, rest) = data.split_first()?;
    *data = rest;
    match tag {
        WRITE if data.len() >= WRITE_LEN - 1 => get_write(data),
        EPOCH if data.len() >= EPOCH_LEN - 1 => {
            let (pg, epoch) = get_epoch(data);
            Some(Record::Epoch(pg, epoch))
        }
        FORGET if data.len() >= FORGET_LEN - 1 => {
            data.advance(3);
            Some(Record::Forget(get_object(data), get_version(data)))
        }
        MARK if data.len() >= MARK_LEN - 1 => Some(Record::Mark(get_mark(data))),
        _ => None,
    }
}

fn get_write(data: &mut &[u8]) -> Option<Record> {
    let flags = data.get_u8();
    let (tombstone, replaces) = (flags & TOMBSTONE != 0, flags & REPLACES != 0);
    let (count, ops) = (data.get_u8(), data.get_u8());
    let (object, version) = (get_object(data), get_version(data));
    let zero = UnitMask(data.get_u32_le());
    let slot = Some(data.get_u32_le()).filter(|&slot| slot != NO_SLOT);
    let ops = get_ops(data, ops)?;
    let patches = (0..count).map(|_| get_patch(data)).collect::<Option<Vec<_>>>()?;
    if slot.is_none() && !patches.is_empty() {
        return None;
    }
    Some(Record::Write(
        WriteHead {
            object,
            version,
            zero,
            tombstone,
            replaces,
            slot,
        },
        ops,
        patches,
    ))
}

fn get_ops(data: &mut &[u8], kind: u8) -> Option<Ops> {
    if kind == ADD {
        return (data.len() >= ADD_LEN).then(|| Ops::Add {
            op: get_op(data),
            answered: data.get_u64_le(),
        });
    }
    get_op_list(data, usize::from(kind)).map(Ops::Exactly)
}

/// Reads a list of operations; `None` if it is too long or not there.
pub fn get_op_list(data: &mut &[u8], count: usize) -> Option<Vec<OpId>> {
    let fits = count <= MAX_OPS && data.len() >= count * OP_LEN;
    fits.then(|| (0..count).map(|_| get_op(data)).collect())
}

fn get_patch(data: &mut &[u8]) -> Option<PatchRecord> {
    if data.len() < PATCH_LEN {
        return None;
    }
    let (first, count) = (usize::from(data.get_u8()), usize::from(data.get_u8()));
    let in_slot = data.get_u8() == IN_SLOT;
    data.advance(1);
    if count == 0 || first + count > UNITS_PER_OBJECT || data.len() < 4 * count {
        return None;
    }
    let sums = (0..count).map(|_| data.get_u32_le()).collect();
    Some(PatchRecord { first, sums, in_slot })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use trivet_core::UNIT_SIZE;
    use trivet_core::mutation::Patch;

    fn object() -> ObjectId {
        ObjectId {
            image: ImageId::new(PoolId(3), 9),
            number: 77,
        }
    }

    fn sample() -> (Mutation, WriteHead) {
        let patch = |first, units: usize| Patch::seal(object(), first, Bytes::from(vec![5; units * UNIT_SIZE]));
        let mutation = Mutation {
            version: Version {
                epoch: Epoch(4),
                counter: 2,
            },
            ops: Ops::Add { op: op(6), answered: 4 },
            zero: UnitMask(0xf0),
            patches: vec![patch(0, 1), patch(16, 16)],
            tombstone: false,
        };
        let head = WriteHead::of(object(), &mutation, false, Some(12));
        (mutation, head)
    }

    fn op(sequence: u64) -> OpId {
        OpId {
            client: ClientId(8),
            sequence,
        }
    }

    /// Deletes the object and says exactly which operations it remembers.
    fn deletion() -> (Mutation, WriteHead) {
        let mutation = Mutation {
            ops: Ops::Exactly(vec![op(1), op(2)]),
            zero: UnitMask::ALL,
            patches: vec![],
            tombstone: true,
            ..sample().0
        };
        let head = WriteHead::of(object(), &mutation, true, None);
        (mutation, head)
    }

    fn all() -> (BytesMut, Vec<Record>) {
        let (mutation, head) = sample();
        let mut out = BytesMut::new();
        put_write(&mut out, &head, &mutation, UnitMask::range(16, 16));
        assert_eq!(out.len(), write_len(&mutation));
        let (deletion, deleted) = deletion();
        put_write(&mut out, &deleted, &deletion, UnitMask::EMPTY);
        put_accept(&mut out, PgId::first(PoolId(2), 5), Epoch(9));
        put_forget(&mut out, object(), head.version);
        let mark = Mark { count: 1034, draw: 7 };
        put_seen(&mut out, mark);
        assert_eq!(
            out.len(),
            write_len(&mutation) + write_len(&deletion) + epoch_len() + forget_len() + mark_len()
        );
        let patches = mutation.patches.iter();
        let patches = patches.map(|p| PatchRecord {
            first: p.first,
            sums: p.sums.clone(),
            in_slot: p.first == 16,
        });
        let records = vec![
            Record::Write(head, mutation.ops.clone(), patches.collect()),
            Record::Write(deleted, deletion.ops, vec![]),
            Record::Epoch(PgId::first(PoolId(2), 5), Epoch(9)),
            Record::Forget(object(), head.version),
            Record::Mark(mark),
        ];
        (out, records)
    }

    #[test]
    fn records_round_trip() {
        let (bytes, records) = all();
        let mut data = &bytes[..];
        let read: Vec<Record> = std::iter::from_fn(|| get(&mut data)).collect();
        assert_eq!(read, records);
        assert!(data.is_empty());
    }

    #[test]
    fn cut_records_are_no_records() {
        let (bytes, records) = all();
        for len in 0..bytes.len() {
            let mut data = &bytes[..len];
            let read = std::iter::from_fn(|| get(&mut data)).count();
            assert!(read < records.len(), "{len}");
        }
    }
}
