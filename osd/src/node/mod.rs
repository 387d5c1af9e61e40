//! The OSD as one node of the cluster: how it shows itself, whom it hears, what it counts, and whether the metadata store
//! is the right one. Nothing here knows what is in a PG, beyond its name.

pub(crate) mod clients;
pub(crate) mod counters;
pub(crate) mod full;
pub(crate) mod inventory;
mod loss;
pub(crate) mod presence;
pub(crate) mod reach;
pub(crate) mod recognition;
pub(crate) mod testimony;
pub(crate) mod usage;
