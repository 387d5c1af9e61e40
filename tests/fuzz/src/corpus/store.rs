//! Disks of an OSD's store (`docs/on-disk-format.md`). Samples begin with the target's mode: 0 is a disk from its first byte,
//! 1 the records of log batches, 2 the items of a checkpoint, 3 what lies behind a good superblock.

use trivet_core::disk::DiskOpKind;
use trivet_core::{OsdId, UNIT_SIZE};
use trivet_store::{Format, format};

/// Bytes of a disk, as the target's.
const SIZE: u64 = 4 << 20;
/// Kinds of records in the log.
const WRITE: u8 = 1;
const EPOCH: u8 = 2;
const FORGET: u8 = 3;
/// Kinds of items in a checkpoint.
const ENTRY: u8 = 1;
const REMOVED: u8 = 2;
const ACCEPTED: u8 = 3;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Image 17 of pool 3.
const IMAGE: u64 = 3 << 48 | 17;

/// A write of units 1 and 2 (in the batch) and 5 (in the slot); an epoch; a tombstone that is forgotten.
fn records() -> Vec<Vec<u8>> {
    let write = [
        &[WRITE, 0, 2, 0][..],
        &numbers(&[IMAGE, 4, 7, 9, 0x1112, 33]),
        &words(&[0xf000_0000, 0]),
        &[1, 2, 0, 0],
        &words(&[0x1111, 0x2222]),
        &[5, 1, 1, 0],
        &words(&[0x3333]),
    ];
    let tombstone = [
        &[WRITE, 1, 0, 0][..],
        &numbers(&[IMAGE, 5, 7, 10, 0x1112, 34]),
        &words(&[u32::MAX, u32::MAX]),
    ];
    let forget = [&[FORGET, 0, 0, 0][..], &numbers(&[IMAGE, 5, 7, 10])];
    vec![write.concat(), epoch(EPOCH), tombstone.concat(), forget.concat()]
}

/// PG 5 of pool 3 accepted epoch 7.
fn epoch(tag: u8) -> Vec<u8> {
    [&[tag, 0, 3, 0][..], &words(&[5]), &numbers(&[7])].concat()
}

/// A batch: blocks of payload, bytes of the records, how many; the records.
fn batch(payload: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let bytes = records.concat();
    let byte = |len: usize| u8::try_from(len).expect("samples are short");
    [&[payload, byte(bytes.len()), byte(records.len())], &bytes[..]].concat()
}

/// An object with two units, one of them in the log; one that is gone; an epoch.
fn items() -> Vec<u8> {
    let entry = [
        &[ENTRY, 0, 0, 0][..],
        &words(&[2]),
        &numbers(&[IMAGE, 4, 7, 9, 0x1112, 33]),
        &words(&[0b110, 0b100, 0x1111, 0x2222, 8]),
    ];
    let removed = [&[REMOVED, 0, 0, 0][..], &numbers(&[IMAGE, 5])];
    [entry.concat(), removed.concat(), epoch(ACCEPTED)].concat()
}

/// The two superblocks of a new store.
fn superblocks() -> Vec<u8> {
    let new = Format {
        size: SIZE,
        osd: OsdId(1),
        cluster: [1; 16],
        store: [7; 16],
        log_size: Some(288 << 10),
    };
    let mut disk = vec![0; 2 * UNIT_SIZE];
    for op in format(&new).expect("the size is right") {
        if let DiskOpKind::Write { offset, data } = op.kind
            && let Some(place) = usize::try_from(offset)
                .ok()
                .and_then(|at| disk.get_mut(at..at + data.len()))
        {
            place.copy_from_slice(&data);
        }
    }
    disk
}

/// Superblocks, batches each alone and in a row, checkpoints, and a block of zeros behind a superblock.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let records = records();
    let single = records
        .iter()
        .map(|record| [&[1][..], &batch(3, std::slice::from_ref(record))].concat());
    let row = records.iter().flat_map(|record| batch(3, std::slice::from_ref(record)));
    let mut all: Vec<_> = single.collect();
    all.push([1].into_iter().chain(row).collect());
    all.push([&[1][..], &batch(8, &records)].concat());
    all.push([&[0][..], &superblocks()].concat());
    all.push([&[2][..], &numbers(&[0]), &items()].concat());
    all.push([&[3][..], &[0; UNIT_SIZE]].concat());
    all
}
