//! The end-to-end cases: the real binary, clients that others wrote, real kills.
//!
//! Each case starts its own cluster. Light ones run in twos; what measures time or loads the disk runs alone
//! (`Cluster::alone`, `Fleet`). Figures are printed (`--show-output`).

mod chaos;
mod command_line;
mod conformance;
mod contract;
mod copies;
mod emptying;
mod failover;
mod gateway_stops;
mod gateways;
mod kills;
mod log;
mod malformed;
mod memory;
mod metadata_store;
mod nfs_files;
mod no_etcd;
mod orders;
mod osd_outage;
mod pauses;
mod pg_count;
mod restored;
mod rot;
mod scrapes;
mod usage;
mod verified_load;
