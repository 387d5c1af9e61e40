//! The list of all targets.

use crate::{corpus, scsi};

/// Something that takes any bytes and must neither panic nor take long.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name; also the test's.
    pub name: &'static str,
    /// What is fed.
    pub run: fn(&[u8]),
    /// Valid bytes that inputs are made of; some, none of them empty.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Inputs of a smoke run: what a second or two is enough for in the test profile.
    pub inputs: u64,
}

/// All of them.
pub static TARGETS: &[Target] = &[
    Target {
        name: "nbd",
        run: trivet_nbd::fuzz::fuzz,
        corpus: corpus::nbd::samples,
        inputs: 25_000,
    },
    Target {
        name: "iscsi",
        run: trivet_iscsi::fuzz::fuzz,
        corpus: corpus::iscsi::samples,
        inputs: 150_000,
    },
    Target {
        name: "scsi",
        run: scsi::fuzz,
        corpus: corpus::scsi::samples,
        inputs: 150_000,
    },
    Target {
        name: "nfs",
        run: trivet_nfs::fuzz::fuzz,
        corpus: corpus::nfs::samples,
        inputs: 150_000,
    },
    Target {
        name: "namespace",
        run: trivet_namespace::fuzz,
        corpus: corpus::namespace::samples,
        inputs: 50_000,
    },
    Target {
        name: "wire",
        run: trivet_core::wire::fuzz::fuzz,
        corpus: corpus::wire::samples,
        inputs: 70_000,
    },
    Target {
        name: "store",
        run: trivet_store::fuzz::fuzz,
        corpus: corpus::store::samples,
        inputs: 12_000,
    },
];
