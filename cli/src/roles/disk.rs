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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use trivet_core::OsdId;
    use trivet_core::disk::DiskOpKind;

    use super::*;

    /// A file with a new store on it.
    fn formatted(path: &Path, format: &Format) {
        let file = File::create(path).unwrap();
        file.set_len(format.size).unwrap();
        for op in trivet_store::format(format).unwrap() {
            if let DiskOpKind::Write { offset, data } = op.kind {
                file.write_all_at(&data, offset).unwrap();
            }
        }
    }

    #[test]
    fn a_store_is_found_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let format = Format {
            size: 32 << 20,
            osd: OsdId(7),
            cluster: [3; 16],
            store: [4; 16],
            log_size: Some(1 << 20),
        };
        formatted(&path, &format);
        let found = look(&path).unwrap();
        assert_eq!(
            (found.size, found.osd, found.cluster, found.store),
            (format.size, format.osd, format.cluster, format.store)
        );
        for len in [0, 10, 4096, 1 << 20] {
            std::fs::write(&path, vec![0_u8; len]).unwrap();
            let error = format!("{:#}", look(&path).unwrap_err());
            assert!(error.contains("'trivet osd format'"), "{len}: {error}");
        }
        let error = format!("{:#}", look(&folder.path().join("none")).unwrap_err());
        assert!(error.contains("cannot read"), "{error}");
    }

    #[test]
    fn a_fingerprint_tells_stores_apart_and_stays_the_same() {
        let one = fingerprint(&[1; 16]);
        assert_eq!(one.len(), 16);
        assert!(one.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_eq!(one, fingerprint(&[1; 16]));
        assert_ne!(one, fingerprint(&[2; 16]));
    }
}
