//! A real disk image to copy around: ext4 with some thousand small files.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::command::Tool;
use crate::rng::Rng;

/// Files in the image.
const FILES: u64 = 2_000;
/// Most bytes of a file; half of that on average: some 150 MB in all.
const LARGEST: u64 = 150_000;
/// Bytes compared at a time.
const BLOCK: usize = 1 << 20;

/// Makes an ext4 file system of `mib` MiB at `image`, from a tree below `scratch`.
///
/// # Errors
/// When the disk is full or mke2fs is missing.
pub fn make_ext4(image: &Path, scratch: &Path, mib: u64) -> Result<()> {
    let mut rng = Rng::new(mib);
    for number in 0..FILES {
        let folder = scratch.join(format!("folder{}", number % 50));
        fs::create_dir_all(&folder)?;
        let len = usize::try_from(rng.below(LARGEST))?;
        fs::write(folder.join(format!("file{number}")), rng.bytes(len))?;
    }
    Tool::new("mke2fs")
        .args("-q -t ext4 -d")
        .arg(scratch)
        .arg(image)
        .arg(format!("{mib}M"))
        .ok()?;
    fs::remove_dir_all(scratch)?;
    Ok(())
}

/// Fails unless `copy` starts with the bytes of `original` and has only zeroes
/// behind them. Returns the bytes compared.
///
/// # Errors
/// At the first difference.
pub fn compare(original: &Path, copy: &Path) -> Result<u64> {
    let (mut left, mut right) = (BufReader::new(File::open(original)?), BufReader::new(File::open(copy)?));
    let (mut a, mut b) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    loop {
        let (got, copied) = (fill(&mut left, &mut a)?, fill(&mut right, &mut b)?);
        a[got..].fill(0);
        if copied == 0 {
            ensure!(got == 0, "{} ends at {at}", copy.display());
            return Ok(at);
        }
        if a[..copied] != b[..copied]
            && let Some(differs) = (0..copied).find(|i| a[*i] != b[*i])
        {
            bail!("{} differs at byte {}", copy.display(), at + u64::try_from(differs)?);
        }
        ensure!(got <= copied, "{} is shorter", copy.display());
        at += u64::try_from(copied)?;
    }
}

fn fill(from: &mut impl Read, block: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while got < block.len() {
        match from.read(&mut block[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn sees_each_difference() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, data: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, data).unwrap();
            path
        };
        let original = file("original", b"abc");
        let table: [(&[u8], bool); 5] = [
            (b"abc", true),
            (b"abc\0\0", true),
            (b"ab", false),
            (b"abd", false),
            (b"abc\0x", false),
        ];
        for (data, same) in table {
            assert_eq!(compare(&original, &file("copy", data)).is_ok(), same, "{data:?}");
        }
    }
}
