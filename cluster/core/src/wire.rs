//! The OSD wire: [`Message`]s between processes, as frames on a byte stream. `docs/wire-protocol.md` has the tables.
//!
//! A frame is a fixed header, a body of fields, and the payload. [`encode`] refers to the payload where it lies and
//! [`decode`] splits it off the input; neither copies it. What `decode` accepts is well-formed in every field, has the
//! checksums of the frame and of every unit, and is encoded again to the same bytes. Sizes are checked before
//! anything is allocated. After an error the stream has no meaning any more: close the connection.
//!
//! It knows nothing of connections, of who may send what, and of epochs: the OSD and the client do.

mod decode;
mod encode;
mod fields;
mod frame;
pub mod fuzz;

pub use decode::decode;
pub use encode::encode;
pub use frame::{FORMAT, HEADER, Limits, MAGIC, MAX_FRAME, WireError, kinds, needed};

#[cfg(doc)]
use crate::message::Message;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
