//! The checkpoint's format: headers, chunks and their items. Little endian.
//!
//! An area holds two header blocks, written in turn, and chunks one after the other. The first chunks are a
//! full image of the index, later ones hold what changed since; items are applied in order, the last wins.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trivet_core::buffer::aligned;
use trivet_core::mark::Mark;
use trivet_core::mutation::MAX_OPS;
use trivet_core::{Epoch, ObjectId, PgId, UnitMask};

use crate::index::Entry;
use crate::layout::{AREA_HEADERS, BLOCK, BLOCK_LEN, Layout};
use crate::ops::Remembered;
use crate::record::{self, NO_SLOT, WriteHead};

const HEADER_MAGIC: [u8; 8] = *b"TRVCHECK";
const CHUNK_MAGIC: [u8; 8] = *b"TRVCHUNK";
/// Bytes of a header before its checksum.
const HEADER_CHECKED: usize = 8 + 16 + 8 * 7 + 4 + 4;
/// Bytes before a chunk's items; they end with its checksum.
const CHUNK_HEADER: usize = 8 + 16 + 8 + 8 + 4 + 4;
/// A chunk is written when it holds this many bytes. Few in crash tests, so that the checkpoints of small
/// stores have many chunks.
pub const CHUNK_FILL: usize = if cfg!(feature = "mutants") {
    2 * BLOCK_LEN
} else {
    64 << 10
};
/// No chunk is larger, bytes.
pub const CHUNK_MAX: usize = (64 << 10) + BLOCK_LEN;
/// No item is larger, bytes.
pub const ITEM_MAX: usize = ENTRY_LEN + MAX_OPS * 16 + 2 * 128;
/// Bytes of an object without operations, sums and references to the log.
const ENTRY_LEN: usize = 48;
const ENTRY: u8 = 1;
const REMOVED: u8 = 2;
const EPOCH: u8 = 3;
const MARK: u8 = 4;
const TOMBSTONE: u8 = 1;

/// What makes a checkpoint valid and says where the log goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Counts the checkpoints of this store; the highest valid one counts.
    pub sequence: u64,
    /// The sequence of the full image that the chunks begin with.
    pub base: u64,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// Where in the log recovery starts.
    pub position: u64,
    /// The last batch before that position.
    pub batch: u64,
    /// The last batch that may be reflected in the chunks: the log must reach it.
    pub seen: u64,
    /// The incarnation that wrote it; batches from `position` on are not older.
    pub incarnation: u64,
    /// How many chunks.
    pub chunks: u32,
    /// The checksums of all chunks, chained: others that look right are not those that were written.
    pub sum: u32,
}

impl Header {
    /// The header's block.
    pub fn encode(&self, store: &[u8; 16]) -> Bytes {
        let mut block = aligned(BLOCK_LEN);
        block.put_slice(&HEADER_MAGIC);
        block.put_slice(store);
        for value in [
            self.sequence,
            self.base,
            self.bytes,
            self.position,
            self.batch,
            self.seen,
            self.incarnation,
        ] {
            block.put_u64_le(value);
        }
        block.put_u32_le(self.chunks);
        block.put_u32_le(self.sum);
        let sum = crc32c::crc32c(&block);
        block.put_u32_le(sum);
        block.resize(BLOCK_LEN, 0);
        block.freeze()
    }

    /// Reads a header of this store; `None` if there is none.
    pub fn decode(block: &[u8], store: &[u8; 16]) -> Option<Header> {
        if block.len() < HEADER_CHECKED + 4 || block[..8] != HEADER_MAGIC || block[8..24] != store[..] {
            return None;
        }
        if crc32c::crc32c(&block[..HEADER_CHECKED]) != (&block[HEADER_CHECKED..]).get_u32_le() {
            return None;
        }
        let mut data = &block[24..];
        Some(Header {
            sequence: data.get_u64_le(),
            base: data.get_u64_le(),
            bytes: data.get_u64_le(),
            position: data.get_u64_le(),
            batch: data.get_u64_le(),
            seen: data.get_u64_le(),
            incarnation: data.get_u64_le(),
            chunks: data.get_u32_le(),
            sum: data.get_u32_le(),
        })
    }
}

/// Where the chunks of an area start.
pub fn chunks_start(layout: &Layout, area: usize) -> u64 {
    layout.area(area) + AREA_HEADERS * BLOCK
}

/// Bytes of chunks that an area can hold.
pub fn chunks_room(layout: &Layout) -> u64 {
    layout.area_size - AREA_HEADERS * BLOCK
}

/// A chunk being filled.
#[derive(Debug)]
pub struct Chunk {
    data: BytesMut,
}

impl Chunk {
    /// Chunk `number` of the image `base`.
    pub fn new(store: &[u8; 16], base: u64, number: u32) -> Chunk {
        let mut data = aligned(CHUNK_MAX);
        data.put_slice(&CHUNK_MAGIC);
        data.put_slice(store);
        data.put_u64_le(base);
        data.put_u64_le(u64::from(number));
        data.put_u64_le(0);
        Chunk { data }
    }

    /// It should be written now.
    pub fn is_full(&self) -> bool {
        self.data.len() + ITEM_MAX > CHUNK_FILL
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.data.len() == CHUNK_HEADER
    }

    /// Adds an object as it is now. Without its operations is a deliberate bug.
    pub fn put_entry(&mut self, entry: &Entry, with_ops: bool) {
        let ops = if with_ops { &entry.ops } else { &Remembered::EMPTY };
        let out = &mut self.data;
        out.put_u8(ENTRY);
        out.put_u8(if entry.tombstone { TOMBSTONE } else { 0 });
        out.put_u16_le(u16::try_from(ops.len()).expect("at most 128"));
        out.put_u32_le(entry.slot().unwrap_or(NO_SLOT));
        record::put_object(out, entry.object);
        record::put_version(out, entry.version);
        out.put_u32_le(entry.present.0);
        out.put_u32_le(entry.in_log.0);
        ops.iter().for_each(|op| record::put_op(out, op));
        entry.present.iter().for_each(|unit| out.put_u32_le(entry.sums[unit]));
        entry
            .in_log
            .iter()
            .filter_map(|unit| entry.block(unit))
            .for_each(|block| out.put_u32_le(block));
    }

    /// Adds that an object is forgotten.
    pub fn put_removed(&mut self, object: ObjectId) {
        self.data.put_u32_le(u32::from(REMOVED));
        record::put_object(&mut self.data, object);
    }

    /// Adds an accepted epoch.
    pub fn put_epoch(&mut self, pg: PgId, epoch: Epoch) {
        record::put_epoch(&mut self.data, EPOCH, pg, epoch);
    }

    /// Adds the latest mark of the metadata store.
    pub fn put_mark(&mut self, mark: Mark) {
        record::put_mark(&mut self.data, MARK, mark);
    }

    /// Adds bytes that may be no items, for fuzzing.
    pub fn put_raw(&mut self, items: &[u8]) {
        self.data.put_slice(items);
    }

    /// Its bytes, with length and checksum.
    pub fn finish(mut self) -> Bytes {
        let len = u32::try_from(self.data.len()).expect("chunks are small");
        self.data[CHUNK_HEADER - 8..CHUNK_HEADER - 4].copy_from_slice(&len.to_le_bytes());
        let sum = chunk_sum(&self.data);
        self.data[CHUNK_HEADER - 4..CHUNK_HEADER].copy_from_slice(&sum.to_le_bytes());
        let padded = self.data.len().next_multiple_of(BLOCK_LEN);
        self.data.resize(padded, 0);
        self.data.freeze()
    }
}

fn chunk_sum(chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&chunk[..CHUNK_HEADER - 4]), &chunk[CHUNK_HEADER..])
}

/// The chained checksum of chunks, given that of those before `chunk`.
pub fn chain(before: u32, chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(before, &chunk[CHUNK_HEADER - 4..CHUNK_HEADER])
}

/// The bytes on disk of chunk `number` of the image `base` that starts with `block`; `None` if it does not.
pub fn chunk_len(block: &[u8], store: &[u8; 16], base: u64, number: u32) -> Option<usize> {
    if block.len() < CHUNK_HEADER || block[..8] != CHUNK_MAGIC || block[8..24] != store[..] {
        return None;
    }
    let mut data = &block[24..];
    let (is_base, is_number) = (data.get_u64_le() == base, data.get_u64_le() == u64::from(number));
    let len = data.get_u32_le() as usize;
    let sane = is_base && is_number && (CHUNK_HEADER..=CHUNK_MAX).contains(&len);
    sane.then(|| len.next_multiple_of(BLOCK_LEN))
}

/// The items of a chunk of [`chunk_len`] bytes; `None` if it is damaged.
pub fn items(chunk: &[u8]) -> Option<&[u8]> {
    let len = (&chunk[CHUNK_HEADER - 8..]).get_u32_le() as usize;
    let chunk = chunk.get(..len)?;
    let whole = chunk_sum(chunk) == (&chunk[CHUNK_HEADER - 4..]).get_u32_le();
    whole.then(|| &chunk[CHUNK_HEADER..])
}

/// One item of a chunk.
#[derive(Debug)]
pub enum Item {
    /// An object.
    Entry(Box<Entry>),
    /// A forgotten object.
    Removed(ObjectId),
    /// An accepted epoch.
    Epoch(PgId, Epoch),
    /// A mark of the metadata store.
    Mark(Mark),
}

/// Reads one item; `None` if the bytes are not one that fits the layout.
pub fn get(data: &mut &[u8], layout: &Layout) -> Option<Item> {
    let (&tag, rest) = data.split_first()?;
    *data = rest;
    match tag {
        ENTRY if data.len() >= ENTRY_LEN - 1 => get_entry(data, layout),
        REMOVED if data.len() >= 19 => {
            data.advance(3);
            Some(Item::Removed(record::get_object(data)))
        }
        EPOCH if data.len() >= 15 => {
            let (pg, epoch) = record::get_epoch(data);
            Some(Item::Epoch(pg, epoch))
        }
        MARK if data.len() >= 15 => Some(Item::Mark(record::get_mark(data))),
        _ => None,
    }
}

fn get_entry(data: &mut &[u8], layout: &Layout) -> Option<Item> {
    let tombstone = data.get_u8() == TOMBSTONE;
    let ops = usize::from(data.get_u16_le());
    let slot = Some(data.get_u32_le()).filter(|&slot| slot != NO_SLOT);
    let object = record::get_object(data);
    let version = record::get_version(data);
    let (present, in_log) = (UnitMask(data.get_u32_le()), UnitMask(data.get_u32_le()));
    let ops = Remembered::of(record::get_op_list(data, ops)?);
    let sane = in_log.minus(present).is_empty() && slot.is_some() != present.is_empty();
    if !sane || data.len() < 4 * (present.len() + in_log.len()) || slot.is_some_and(|slot| slot >= layout.slots) {
        return None;
    }
    let head = WriteHead {
        object,
        version,
        zero: UnitMask::EMPTY,
        tombstone,
        replaces: false,
        slot,
    };
    let mut entry = Entry::restored(&head, ops, present);
    present.iter().for_each(|unit| entry.sums[unit] = data.get_u32_le());
    for unit in in_log.iter() {
        let block = data.get_u32_le();
        if u64::from(block) >= layout.log_blocks() {
            return None;
        }
        entry.enter_log(unit, block);
    }
    Some(Item::Entry(Box::new(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::{ClientId, ImageId, OpId, Version};

    const STORE: [u8; 16] = [3; 16];

    fn layout() -> Layout {
        Layout::new(64 << 20, Some(1 << 20)).unwrap()
    }

    fn op(sequence: u64) -> OpId {
        OpId {
            client: ClientId(2),
            sequence,
        }
    }

    fn entry() -> Entry {
        let object = ObjectId {
            image: ImageId(4),
            number: 2,
        };
        let version = Version {
            epoch: Epoch(3),
            counter: 1,
        };
        let head = WriteHead {
            object,
            version,
            zero: UnitMask::EMPTY,
            tombstone: false,
            replaces: false,
            slot: Some(5),
        };
        let ops = Remembered::of((1..4).map(op).collect());
        let mut entry = Entry::restored(&head, ops, UnitMask::EMPTY);
        entry.put_in_slot(0, &[1, 2, 3]);
        entry.put_in_log(30, &[4, 5], 17);
        entry
    }

    #[test]
    fn chunks_round_trip() {
        let mut chunk = Chunk::new(&STORE, 7, 2);
        assert!(chunk.is_empty());
        chunk.put_removed(entry().object);
        chunk.put_entry(&entry(), true);
        chunk.put_epoch(PgId::default(), Epoch(8));
        let mark = Mark { count: 1034, draw: 7 };
        chunk.put_mark(mark);
        let bytes = chunk.finish();
        assert_eq!(chunk_len(&bytes, &STORE, 7, 2), Some(bytes.len()));
        assert_eq!(chunk_len(&bytes, &STORE, 7, 3), None);
        assert_eq!(chunk_len(&bytes, &STORE, 6, 2), None);
        let mut data = items(&bytes).unwrap();
        assert!(matches!(get(&mut data, &layout()), Some(Item::Removed(object)) if object == entry().object));
        let Some(Item::Entry(read)) = get(&mut data, &layout()) else {
            panic!("an entry")
        };
        assert_eq!(
            (read.info(), read.slot(), read.digest()),
            (entry().info(), Some(5), entry().digest())
        );
        assert_eq!(
            (read.block(0), read.block(30), read.block(31)),
            (None, Some(17), Some(18))
        );
        assert!(matches!(get(&mut data, &layout()), Some(Item::Epoch(_, Epoch(8)))));
        assert!(matches!(get(&mut data, &layout()), Some(Item::Mark(read)) if read == mark));
        assert!(data.is_empty());
    }

    #[test]
    fn damage_is_noticed() {
        let mut chunk = Chunk::new(&STORE, 7, 2);
        chunk.put_entry(&entry(), true);
        let len = chunk.data.len();
        let bytes = chunk.finish();
        for bit in 0..len * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                chunk_len(&bad, &STORE, 7, 2).is_none() || items(&bad).is_none(),
                "bit {bit}"
            );
        }
        let header = Header {
            sequence: 9,
            chunks: 1,
            sum: 77,
            bytes: 4096,
            ..Header::default()
        };
        let block = header.encode(&STORE);
        assert_eq!(Header::decode(&block, &STORE), Some(header));
        for bit in 0..(HEADER_CHECKED + 4) * 8 {
            let mut bad = block.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad, &STORE), None, "bit {bit}");
        }
    }
}
