//! Opening a store from arbitrary bytes, for the fuzz targets.
//!
//! The bytes become the disk: as they are, or as a log or checkpoint whose checksums are made to match, so
//! that the decoders behind the checksums are reached. Whatever they are, opening ends, and so does reading
//! everything that the store then says it has.

use bytes::{Bytes, BytesMut};
use trivet_core::disk::{DiskDone, DiskOpKind};
use trivet_core::{OsdId, UNIT_SIZE, UNITS_PER_OBJECT};

use crate::api::{Output, Request, Ticket};
use crate::batch::{self, PREFIX_LEN, Prefix};
use crate::checkpoint::{self, Chunk, Header};
use crate::layout::Layout;
use crate::store::{Options, State, Store};
use crate::superblock::{Format, format};

/// Bytes of the disk; what the input does not cover is zero.
const SIZE: usize = 4 << 20;
const SECRET: [u8; 16] = [7; 16];

/// Opens a store from `data` and reads all of it; the first byte chooses how the rest is used.
pub fn fuzz(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let mut disk = vec![0; SIZE];
    match mode % 4 {
        0 => put(&mut disk, 0, data),
        1 => with_log(&mut disk, data),
        2 => with_checkpoint(&mut disk, data),
        _ => {
            let layout = formatted(&mut disk);
            put(&mut disk, layout.areas, data);
        }
    }
    open_and_read(&mut disk);
}

fn put(disk: &mut [u8], offset: u64, data: &[u8]) {
    let rest = &mut disk[usize::try_from(offset).expect("within the disk")..];
    let len = rest.len().min(data.len());
    rest[..len].copy_from_slice(&data[..len]);
}

fn formatted(disk: &mut [u8]) -> Layout {
    let log_size = Some(288 << 10);
    let f = Format {
        size: SIZE as u64,
        osd: OsdId(1),
        cluster: [1; 16],
        store: SECRET,
        log_size,
    };
    for op in format(&f).expect("the size is right") {
        if let DiskOpKind::Write { offset, data } = op.kind {
            put(disk, offset, &data);
        }
    }
    Layout::new(SIZE as u64, log_size).expect("the size is right")
}

/// The bytes are the records of batches, each after a byte that says how many blocks of payload follow.
fn with_log(disk: &mut [u8], mut data: &[u8]) {
    let layout = formatted(disk);
    let mut position = 0;
    for sequence in 1..=8 {
        let Some((&[payload, len, count], rest)) = data.split_first_chunk::<3>() else {
            return;
        };
        let (records, rest) = rest.split_at(rest.len().min(usize::from(len)));
        data = rest;
        let header_blocks = 1;
        let records_len = u32::from(len).min(u32::try_from(records.len()).expect("short"));
        let blocks = header_blocks + u32::from(payload % 40);
        let prefix = Prefix {
            sequence,
            incarnation: 1,
            position,
            blocks,
            header_blocks,
            records: u32::from(count),
            records_len,
        };
        let mut header = BytesMut::with_capacity(UNIT_SIZE);
        prefix.put(&SECRET, &mut header);
        header.extend_from_slice(records);
        header.resize(UNIT_SIZE.max(PREFIX_LEN), 0);
        batch::seal(&mut header);
        if prefix.end() > layout.log_size {
            return;
        }
        put(disk, layout.log + position, &header);
        position = prefix.end();
    }
}

/// The bytes are the items of one chunk, after eight that are the log's position.
fn with_checkpoint(disk: &mut [u8], data: &[u8]) {
    let layout = formatted(disk);
    let Some((position, items)) = data.split_first_chunk::<8>() else {
        return;
    };
    let items = &items[..items.len().min(checkpoint::CHUNK_FILL)];
    let mut chunk = Chunk::new(&SECRET, 1, 0);
    chunk.put_raw(items);
    let chunk = chunk.finish();
    let position = u64::from_le_bytes(*position) / UNIT_SIZE as u64 * UNIT_SIZE as u64;
    let header = Header {
        sequence: 1,
        base: 1,
        bytes: chunk.len() as u64,
        position,
        incarnation: 1,
        chunks: 1,
        sum: checkpoint::chain(0, &chunk),
        ..Header::default()
    };
    put(disk, checkpoint::chunks_start(&layout, 0), &chunk);
    put(disk, layout.area(0), &header.encode(&SECRET));
}

fn open_and_read(disk: &mut [u8]) {
    let mut out = Output::default();
    let mut store = Store::open(SIZE as u64, Options::default(), &mut out);
    run(&mut store, &mut out, disk);
    assert_ne!(store.state(), State::Opening, "opening ends");
    let objects: Vec<_> = store.objects().map(|(object, _)| object).collect();
    for (ticket, object) in (0..).map(Ticket).zip(objects) {
        let request = Request::Read {
            object,
            first: 0,
            count: UNITS_PER_OBJECT,
        };
        store.submit(ticket, request, &mut out);
        run(&mut store, &mut out, disk);
        assert!(
            out.done.drain(..).any(|(answered, _)| answered == ticket),
            "reads are answered"
        );
    }
}

/// Executes what the store asks for until it asks for nothing.
fn run(store: &mut Store, out: &mut Output, disk: &mut [u8]) {
    while !out.disk.is_empty() {
        for op in std::mem::take(&mut out.disk) {
            let data = match op.kind {
                DiskOpKind::Read { offset, len } => {
                    let start = usize::try_from(offset).expect("within the disk");
                    Bytes::copy_from_slice(&disk[start..start + len])
                }
                DiskOpKind::Write { offset, data } => {
                    put(disk, offset, &data);
                    Bytes::new()
                }
                DiskOpKind::Flush => Bytes::new(),
            };
            store.completed(
                DiskDone {
                    id: op.id,
                    result: Ok(data),
                },
                out,
            );
        }
        store.pump(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let mut seed = 1u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..400u16 {
            let len = usize::try_from(random() % 600).unwrap();
            let mut data: Vec<u8> = (0..len).map(|_| random().to_le_bytes()[0] & 7).collect();
            if let Some(mode) = data.first_mut() {
                *mode = round.to_le_bytes()[0] % 4;
            }
            fuzz(&data);
        }
    }
}
