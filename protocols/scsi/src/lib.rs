//! The SCSI device server of a Trivet image: SPC-4 and SBC-3 for a thin disk with 512-byte logical blocks.
//!
//! A command descriptor block is read by [`accept`] into a typed [`Command`] that is already checked against the unit's
//! capacity; [`perform`] turns the command and its data-out into an [`Outcome`]: either the finished [`Response`], or a [`Plan`]
//! of [`BackendOp`]s whose results [`finish`] maps to a response. All of it is pure functions: the transport (iSCSI) owns the
//! task, the nexus and the transfer, the gateway owns the backend.
//!
//! Bytes from outside never panic here, and what a command may make the backend do is bounded by the limits that the Block
//! Limits VPD page announces.
//!
//! Not here yet: COMPARE AND WRITE, reservations, third-party copy, asymmetric access, GET LBA STATUS, task attributes (every
//! task is treated as SIMPLE, which the control mode page says: unrestricted reordering).

mod attention;
mod cdb;
mod device;
mod inquiry;
mod lun;
mod mode;
mod opcodes;
mod sense;
mod unmap;

pub use attention::Attentions;
pub use cdb::{Command, Extent, OpcodeQuery, accept, ignores_attention};
pub use device::{BackendError, BackendOp, Context, Outcome, Plan, Response, compare, finish, perform};
pub use lun::{decode_lun, encode_lun};
pub use mode::ModeSense;
pub use sense::{Field, Key, SENSE_LEN, Sense, Status};

/// Bytes of a logical block.
pub const BLOCK: u32 = 512;
/// Most blocks of one READ, WRITE or VERIFY (VPD B0, MAXIMUM TRANSFER LENGTH): 32 MiB.
pub const MAX_TRANSFER_BLOCKS: u32 = 65_536;
/// Most blocks of one WRITE SAME (VPD B0): 32 MiB.
pub const MAX_WRITE_SAME_BLOCKS: u32 = 65_536;
/// Most blocks of one UNMAP, all descriptors together (VPD B0): 256 MiB.
pub const MAX_UNMAP_BLOCKS: u32 = 524_288;
/// Most descriptors of one UNMAP (VPD B0).
pub const MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// Blocks of a physical block and of the allocation unit: 4 KiB.
pub const GRANULARITY_BLOCKS: u32 = 8;

/// A logical unit: an image as SCSI sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The image; what the backend is asked for, and the low half of the unit's name.
    pub image: u64,
    /// The cluster's number; its low 36 bits take part in the unit's name so that two clusters differ.
    pub cluster: u64,
    /// Bytes; a tail shorter than a block is not visible.
    pub size: u64,
    /// Whether writes are refused (07/27/00).
    pub read_only: bool,
}

impl Unit {
    /// Logical blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.size / u64::from(BLOCK)
    }
}
