//! Tests of the gateway machine as a whole, with real sessions, in a world in memory.

mod background;
mod changes;
mod clients;
mod freshness;
mod health;
mod images;
mod look;
mod memory;
mod opens;
mod osds;
mod outcomes;
mod pools;
mod replies;
mod scrubs;
mod sessions;
mod stops;
mod usage;
mod uses;
mod world;
