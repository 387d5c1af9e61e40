//! Opening, locking, sizing and creating the file or device behind a disk. Blocking: done before the loop runs.
//!
//! A disk has one user: files are locked against other processes of this kind; a block device is opened for this
//! process alone, which the kernel also refuses while it is mounted or part of another device.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{
    FallocateFlags, FlockOperation, OFlags, fallocate, fcntl_getfl, fcntl_setfl, flock, fstatfs, fstatvfs,
};
use rustix::io::Errno;

use super::OpenDisk;
use crate::memory::aligned_buffer;

/// `f_type` of a tmpfs (linux/magic.h).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Zeros written with one call while pre-writing, in bytes.
const ZEROS: usize = 1 << 20;
/// Read and write for the owner only.
const MODE: u32 = 0o600;

/// What opening found.
pub(crate) struct Found {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) direct: bool,
    pub(crate) tmpfs: bool,
}

/// Opens a disk for this process alone.
///
/// # Errors
/// Names the path: not there, in use, no space for its size, too small.
pub(crate) fn open(path: &Path, options: &OpenDisk) -> io::Result<Found> {
    let fresh = options.size.is_some() && !path.exists();
    let opened = try_open(path, options);
    if fresh && opened.is_err() {
        // Nobody used what this call made; the error to report is the first one.
        let _ = std::fs::remove_file(path);
    }
    opened
}

fn try_open(path: &Path, options: &OpenDisk) -> io::Result<Found> {
    let mut file = open_alone(path, options)?;
    lock(&file, path)?;
    if options.size.is_some() {
        // Also what an earlier start made and did not live to make durable.
        sync_folder(path).map_err(|error| about(path, "cannot sync the folder of", error))?;
    }
    let tmpfs = fstatfs(&file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC);
    let direct = !options.buffered && !tmpfs && set_direct(&file);
    let mut size = file
        .seek(SeekFrom::End(0))
        .map_err(|error| about(path, "cannot size", error))?;
    if let Some(wanted) = options.size.filter(|wanted| *wanted > size) {
        allocate(&file, path, size, wanted)?;
        prewrite(
            &file,
            options.prewrite.start.max(size)..options.prewrite.end.min(wanted),
        )
        .map_err(|error| about(path, "cannot write zeros to", error))?;
        size = wanted;
    }
    Ok(Found {
        file,
        size,
        direct,
        tmpfs,
    })
}

/// How a path is opened: block devices for this process alone, and never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    creates: bool,
    flags: OFlags,
}

fn way(is_device: bool, may_create: bool) -> Way {
    Way {
        creates: may_create && !is_device,
        // Without O_CREAT, and for block devices only, it means: nobody else, and not mounted.
        flags: if is_device { OFlags::EXCL } else { OFlags::empty() },
    }
}

fn open_alone(path: &Path, options: &OpenDisk) -> io::Result<File> {
    let is_device = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    let Way { creates, flags } = way(is_device, options.size.is_some());
    let flags = i32::try_from(flags.bits()).expect("flags of open(2) fit an int");
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(creates)
        .truncate(false)
        .mode(MODE)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::BUSY) if is_device => in_use(
                path,
                "is in use: mounted, part of another device, or opened by another program",
            ),
            _ => about(path, "cannot open", error),
        })
}

/// Makes the name of a new file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn in_use(path: &Path, why: &str) -> io::Error {
    let text = format!("{} {why}", path.display());
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

fn lock(file: &File, path: &Path) -> io::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(in_use(path, "is in use by another process or disk")),
        Err(error) => Err(about(path, "cannot lock", error.into())),
    }
}

/// Turns the page cache off where the file system knows how.
fn set_direct(file: &File) -> bool {
    fcntl_getfl(file)
        .and_then(|flags| fcntl_setfl(file, flags | OFlags::DIRECT))
        .is_ok()
}

fn allocate(file: &File, path: &Path, size: u64, wanted: u64) -> io::Result<()> {
    let missing = wanted - size;
    // fallocate would fill the file system before it fails.
    let free = fstatvfs(file).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free.is_ok_and(|free| free < missing) {
        return Err(no_space(path, missing));
    }
    match fallocate(file, FallocateFlags::empty(), size, missing) {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC) => Err(no_space(path, missing)),
        Err(Errno::OPNOTSUPP) => file.set_len(wanted),
        Err(error) => Err(about(
            path,
            &format!("cannot allocate {missing} bytes for"),
            error.into(),
        )),
    }
}

fn no_space(path: &Path, bytes: u64) -> io::Error {
    let text = format!("no space for {bytes} bytes in {}", path.display());
    io::Error::new(io::ErrorKind::StorageFull, text)
}

fn prewrite(file: &File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let mut zeros = aligned_buffer(ZEROS);
    zeros.resize(ZEROS, 0);
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(ZEROS).min(ZEROS);
        file.write_all_at(&zeros[..len], at)?;
        at += len as u64;
    }
    file.sync_all()
}

fn about(path: &Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_opened_exclusively_and_never_made() {
        let table = [(false, false), (false, true), (true, false), (true, true)];
        let ways = table.map(|(is_device, may_create)| way(is_device, may_create));
        assert_eq!(ways.map(|way| way.creates), [false, true, false, false]);
        assert_eq!(
            ways.map(|way| way.flags.contains(OFlags::EXCL)),
            [false, false, true, true]
        );
    }

    #[test]
    fn the_folder_of_a_bare_name_is_the_present_one() {
        sync_folder(Path::new("disk")).unwrap();
        assert!(sync_folder(Path::new("/nowhere/disk")).is_err());
    }
}
