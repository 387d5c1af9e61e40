//! Names disk operations and remembers whose they are.

use bytes::Bytes;
use hashbrown::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use trivet_core::disk::{DiskOp, DiskOpKind, IoId};

use crate::api::Output;

/// Whose operation it is, with what its owner needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Opening the store.
    Recovery,
    /// A write of the batch in flight.
    BatchWrite,
    /// The flush of the batch in flight.
    BatchFlush,
    /// Part of a read: (job, extent).
    Read(u32, u32),
    /// Part of a settling read: (job, extent).
    SettleRead(u32, u32),
    /// A settling write: (job).
    SettleWrite(u32),
    /// A write or flush of the checkpoint.
    Checkpoint,
    /// The checkpoint read back.
    CheckpointRead,
}

/// A hasher for keys that are counters or already mixed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mixer(u64);

/// Builds [`Mixer`]s; the same in every process.
pub type BuildMixer = BuildHasherDefault<Mixer>;

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let x = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ (x >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Issues disk operations.
#[derive(Debug, Default)]
pub struct Disk {
    last: u64,
    owners: HashMap<u64, Owner, BuildMixer>,
    /// Bytes written so far.
    pub written: u64,
}

impl Disk {
    fn issue(&mut self, owner: Owner, kind: DiskOpKind, out: &mut Output) {
        self.last += 1;
        self.owners.insert(self.last, owner);
        out.disk.push(DiskOp {
            id: IoId(self.last),
            kind,
        });
    }

    /// Reads `len` bytes at `offset`.
    pub fn read(&mut self, owner: Owner, offset: u64, len: usize, out: &mut Output) {
        self.issue(owner, DiskOpKind::Read { offset, len }, out);
    }

    /// Writes `data` at `offset`.
    pub fn write(&mut self, owner: Owner, offset: u64, data: Bytes, out: &mut Output) {
        self.written += data.len() as u64;
        self.issue(owner, DiskOpKind::Write { offset, data }, out);
    }

    /// Makes durable what completed before.
    pub fn flush(&mut self, owner: Owner, out: &mut Output) {
        self.issue(owner, DiskOpKind::Flush, out);
    }

    /// Whose operation has completed; `None` if it is not one of ours in flight.
    pub fn finished(&mut self, id: IoId) -> Option<Owner> {
        self.owners.remove(&id.0)
    }
}
