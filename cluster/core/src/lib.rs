//! The vocabulary of the cluster: identifiers, versions, checksums, object mutations, the OSD wire
//! messages with their codec, the keys and values in the metadata store, and the cluster map.
//!
//! Everything here is plain data and pure functions. No sockets, clocks, threads or randomness; this
//! crate depends on nothing else in the workspace and every role depends on it.

pub mod adopt;
pub mod buffer;
pub mod checksum;
pub mod disk;
pub mod epochs;
mod history;
pub mod ids;
pub mod keys;
pub mod kv;
pub mod map;
pub mod mark;
pub mod message;
pub mod mutation;
pub mod pace;
pub mod time;
pub mod usage;
pub mod wire;
pub mod witness;

pub use epochs::Epochs;
pub use ids::{
    ClientId, Epoch, ImageId, NodeId, Numbering, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, PoolId, UNIT_SIZE,
    UNITS_PER_OBJECT, UnitMask, Version,
};
pub use time::{Now, Tick};
