//! Disks: files and block devices, each driven by one of three backends with the same behaviour.
//!
//! | backend | where | how |
//! |---|---|---|
//! | ring | real file systems and devices | io_uring, one ring for all disks |
//! | inline | tmpfs | `pread` and `pwrite` in the loop: memory does not wait, and io_uring would hand each one to a kernel thread |
//! | pool | where io_uring is refused (many containers) | a few threads |
//!
//! Offsets and lengths are multiples of [`BLOCK_SIZE`] for every backend, so that what works on one works on all.
//! Operations in flight together have no order among themselves.

mod inline;
mod job;
mod open;
mod pool;
mod uring;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Config, DiskToken, Event};
use crate::slots::Slots;
use crate::waker::Waker;
use inline::Inline;
use job::{Done, Job};
use pool::Pool;
use uring::Ring;

/// Offsets and lengths of disk operations are multiples of this many bytes; aligned memory is aligned to it.
pub const BLOCK_SIZE: usize = 4096;

/// Which backend drives disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBackend {
    /// Inline on tmpfs, else the ring, else the pool.
    Auto,
    /// Always the ring; opening a disk fails where io_uring is refused.
    Ring,
    /// Always inline: the loop waits for each operation.
    Inline,
    /// Always the pool.
    Pool,
}

/// One disk operation.
#[derive(Clone, Debug)]
pub enum DiskOp {
    /// Reads exactly `len` bytes at `offset`; past the end is an error.
    Read {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Writes all of `data` at `offset`. Durable only once a later flush ends.
    Write {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Memory aligned to [`BLOCK_SIZE`] saves a copy.
        data: Bytes,
    },
    /// Makes durable every write that ended before this was submitted (fdatasync).
    Flush,
}

/// How to open a disk.
#[derive(Clone, Debug, Default)]
pub struct OpenDisk {
    /// Creates the file if it is missing, and allocates it up to this many bytes. `None` takes what is there.
    pub size: Option<u64>,
    /// Bytes to write with zeros as far as they are newly allocated, so that later writes into them change
    /// no metadata of the file system.
    pub prewrite: Range<u64>,
    /// Goes through the page cache. Otherwise `O_DIRECT`, where the file system has it.
    pub buffered: bool,
}

/// An open disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Names it in operations and events.
    pub token: DiskToken,
    /// Bytes.
    pub size: u64,
    /// Whether it bypasses the page cache.
    pub direct: bool,
    /// What drives it; never [`DiskBackend::Auto`].
    pub backend: DiskBackend,
}

/// A disk that is open, and by what it is driven.
struct Opened {
    file: Arc<File>,
    direct: bool,
    backend: DiskBackend,
}

/// All disks of a reactor and the backends in use.
pub(crate) struct Disks {
    opened: Slots<Opened>,
    ring: Option<Ring>,
    pool: Option<Pool>,
    inline: Inline,
    done: Vec<Done>,
    wanted: DiskBackend,
    depth: u32,
    threads: usize,
    waker: Waker,
}

impl Disks {
    pub(crate) fn new(config: &Config, waker: Waker) -> Disks {
        Disks {
            opened: Slots::new(),
            ring: None,
            pool: None,
            inline: Inline::new(config.inline_budget),
            done: Vec::new(),
            wanted: config.disk_backend,
            depth: config.disk_depth,
            threads: config.pool_threads.max(1),
            waker,
        }
    }

    pub(crate) fn open(&mut self, path: &Path, options: &OpenDisk) -> io::Result<Disk> {
        let found = open::open(path, options)?;
        let backend = self.choose(found.tmpfs)?;
        let (size, direct) = (found.size, found.direct);
        let opened = Opened {
            file: Arc::new(found.file),
            direct,
            backend,
        };
        let token = DiskToken(self.opened.insert(opened));
        Ok(Disk {
            token,
            size,
            direct,
            backend,
        })
    }

    /// The backend for a new disk, made if it is the first to need it.
    fn choose(&mut self, tmpfs: bool) -> io::Result<DiskBackend> {
        let wanted = match self.wanted {
            DiskBackend::Auto if tmpfs => DiskBackend::Inline,
            other => other,
        };
        match wanted {
            DiskBackend::Inline => return Ok(DiskBackend::Inline),
            DiskBackend::Pool => {}
            DiskBackend::Auto | DiskBackend::Ring => match self.start_ring() {
                Ok(()) => return Ok(DiskBackend::Ring),
                Err(error) if wanted == DiskBackend::Ring => return Err(error),
                Err(_) => {}
            },
        }
        if self.pool.is_none() {
            self.pool = Some(Pool::new(self.threads, self.waker.clone())?);
        }
        Ok(DiskBackend::Pool)
    }

    fn start_ring(&mut self) -> io::Result<()> {
        if self.ring.is_none() {
            self.ring = Some(Ring::new(self.depth)?);
        }
        Ok(())
    }

    /// The descriptor that is readable while the ring has completions.
    pub(crate) fn ring_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::fd)
    }

    /// Takes an operation; whatever becomes of it comes as an event, unless the disk is closed first.
    pub(crate) fn submit(&mut self, disk: DiskToken, user_id: u64, op: DiskOp) {
        let Some(opened) = self.opened.get(disk.0) else {
            return;
        };
        let job = match Job::new(disk.0, user_id, &opened.file, opened.direct, op) {
            Ok(job) => job,
            Err(error) => {
                return self.done.push(Done {
                    disk: disk.0,
                    user_id,
                    result: Err(error),
                });
            }
        };
        match (opened.backend, &mut self.ring, &mut self.pool) {
            (DiskBackend::Ring, Some(ring), _) => ring.push(job),
            (DiskBackend::Pool, _, Some(pool)) => pool.push(job),
            _ => self.inline.push(job, &mut self.done),
        }
    }

    /// Forgets a disk. Its lock goes when its last operation has ended.
    pub(crate) fn close(&mut self, disk: DiskToken) {
        self.opened.remove(disk.0);
    }

    /// Starts a turn: everything submitted goes to the kernel with one call.
    pub(crate) fn start_turn(&mut self) -> io::Result<()> {
        self.inline.start_turn(&mut self.done);
        match &mut self.ring {
            Some(ring) => ring.flush(),
            None => Ok(()),
        }
    }

    /// Whether an operation could end without anybody being woken for it.
    pub(crate) fn must_not_sleep(&self) -> bool {
        !self.done.is_empty() || self.inline.has_work() || self.ring.as_ref().is_some_and(Ring::has_unsubmitted)
    }

    /// Collects the pool's completions after its wake-up.
    pub(crate) fn collect_pool(&mut self) {
        if let Some(pool) = &self.pool {
            pool.collect(&mut self.done);
        }
    }

    /// Turns what ended into events; costs two memory reads if nothing did.
    pub(crate) fn reap(&mut self, out: &mut Vec<Event>) -> io::Result<()> {
        if let Some(ring) = &mut self.ring {
            ring.reap(&mut self.done);
            ring.flush()?;
        }
        for done in self.done.drain(..) {
            if self.opened.get(done.disk).is_some() {
                let disk = DiskToken(done.disk);
                out.push(Event::Disk {
                    disk,
                    user_id: done.user_id,
                    result: done.result,
                });
            }
        }
        Ok(())
    }
}
