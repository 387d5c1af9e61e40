//! What is on an OSD's disk, as seen from outside; which disk the metadata store means.

use std::fs::File;
use std::hash::Hasher;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, anyhow};
use siphasher::sip::SipHasher24;
use trivet_store::{Format, IDENTITY, identify};

/// The store on a disk.
pub fn look(path: &Path) -> anyhow::Result<Format> {
    let about = || format!("{}: cannot read", path.display());
    let mut file = File::open(path).with_context(about)?;
    let size = file.seek(SeekFrom::End(0)).with_context(about)?;
    file.rewind().with_context(about)?;
    let mut start = Vec::with_capacity(IDENTITY);
    file.take(IDENTITY as u64).read_to_end(&mut start).with_context(about)?;
    identify(&start, size)
        .map_err(|reason| anyhow!("{}: {reason}; 'trivet osd format' makes a disk an OSD", path.display()))
}

/// Tells a store from another one with the same number, without its secret.
pub fn fingerprint(store: &[u8; 16]) -> String {
    let mut hasher = SipHasher24::new();
    hasher.write(store);
    format!("{:016x}", hasher.finish())
}
