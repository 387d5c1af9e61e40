//! File handles: which export, which inode, and a keyed hash, so that nobody can make one up.
//!
//! The same on every gateway of a cluster, and for the life of the inode.

use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use trivet_core::ImageId;
use trivet_namespace::Inode;
use trivet_nfs::nfs3::Handle;

/// Bytes before the hash: export (4), inode (8), generation (8).
const BODY: usize = 20;
/// Bytes of the hash (SipHash-2-4-128).
const MAC: usize = 16;

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The export through which it was found.
    pub(super) export: u32,
    /// The inode.
    pub(super) id: ImageId,
    /// The inode's generation.
    pub(super) generation: u64,
}

impl Target {
    /// The inode as found through an export.
    pub(super) fn new(export: u32, id: ImageId, inode: &Inode) -> Target {
        Target {
            export,
            id,
            generation: inode.generation,
        }
    }
}

/// Makes and checks handles; the key is the cluster's secret.
#[derive(Clone)]
pub(super) struct Sealer([u8; 16]);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    pub(super) fn new(key: [u8; 16]) -> Sealer {
        Sealer(key)
    }

    /// The handle of a target.
    pub(super) fn seal(&self, target: Target) -> Handle {
        let mut bytes = [0; BODY + MAC];
        bytes[..4].copy_from_slice(&target.export.to_be_bytes());
        bytes[4..12].copy_from_slice(&target.id.0.to_be_bytes());
        bytes[12..BODY].copy_from_slice(&target.generation.to_be_bytes());
        let mac = self.mac(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&mac);
        Handle::new(&bytes).expect("36 bytes are less than 64")
    }

    /// The target of a handle; `None` if it was not made here.
    pub(super) fn open(&self, handle: &Handle) -> Option<Target> {
        let bytes: &[u8; BODY + MAC] = handle.as_bytes().try_into().ok()?;
        let (body, mac) = bytes.split_at(BODY);
        // All bytes are compared, so that the time tells nothing about where they differ.
        let differ = self
            .mac(body)
            .iter()
            .zip(mac)
            .fold(0, |differ, (a, b)| differ | (a ^ b));
        let (export, rest) = body.split_first_chunk()?;
        let (id, generation) = rest.split_first_chunk()?;
        let generation = u64::from_be_bytes(generation.try_into().ok()?);
        let target = Target {
            export: u32::from_be_bytes(*export),
            id: ImageId(u64::from_be_bytes(*id)),
            generation,
        };
        (differ == 0).then_some(target)
    }

    fn mac(&self, body: &[u8]) -> [u8; MAC] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(body);
        hasher.finish128().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        export: 7,
        id: ImageId(0x0001_0000_0000_0400),
        generation: 99,
    };

    #[test]
    fn handles_open_with_the_same_key_only() {
        let handle = Sealer::new([1; 16]).seal(TARGET);
        assert_eq!(Sealer::new([1; 16]).open(&handle), Some(TARGET));
        assert_eq!(Sealer::new([2; 16]).open(&handle), None);
    }

    #[test]
    fn no_bit_can_be_changed_and_no_byte_be_left_out() {
        let sealer = Sealer::new([1; 16]);
        let handle = sealer.seal(TARGET);
        let bytes = handle.as_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&Handle::new(&forged).unwrap()), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(sealer.open(&Handle::new(&bytes[..len]).unwrap()), None);
        }
        assert_eq!(sealer.open(&Handle::new(&[bytes, &[0]].concat()).unwrap()), None);
    }

    /// Clients keep handles over updates of the gateway.
    #[test]
    fn the_form_stays() {
        let handle = Sealer::new(*b"0123456789abcdef").seal(TARGET);
        assert_eq!(
            &handle.as_bytes()[..BODY],
            b"\0\0\0\x07\0\x01\0\0\0\0\x04\0\0\0\0\0\0\0\0\x63"
        );
    }
}
