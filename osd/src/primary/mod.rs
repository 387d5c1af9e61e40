//! The primary's part in a PG: claim it, peer, serve clients, heal, scrub.
//!
//! [`pg`] says what a PG is in each phase of its life; the other files are what it does there, one subject each. A PG takes
//! what it needs beyond itself as an argument, [`crate::ctx::Ctx`].

pub(crate) mod admit;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod confirm;
pub(crate) mod damage;
pub(crate) mod decide;
pub(crate) mod heal;
pub(crate) mod late;
pub(crate) mod peering;
pub(crate) mod pg;
pub(crate) mod queue;
pub(crate) mod read;
pub(crate) mod recovery;
pub(crate) mod remember;
pub(crate) mod repeat;
pub(crate) mod report;
pub(crate) mod scrub;
pub(crate) mod tombstone;
pub(crate) mod write;
