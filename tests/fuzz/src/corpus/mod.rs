//! Valid bytes for each target, built by hand from the standards. Each is complete in itself, and nothing in it is random.

pub mod iscsi;
pub mod namespace;
pub mod nbd;
pub mod nfs;
pub mod scsi;
pub mod store;
pub mod wire;
