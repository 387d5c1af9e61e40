//! Disks by io_uring: one ring, submissions with one system call per turn, completions read from memory.
//!
//! `COOP_TASKRUN` keeps the kernel from interrupting the loop for each completion. Not `DEFER_TASKRUN`: the ring's
//! descriptor is in an epoll set for sleeping, and there 6.18 loses wake-ups with it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use super::job::{Call, Done, Job, Progress};

/// Most operations in the ring at once (the kernel's limit for a ring is 32768 entries).
const MAX_DEPTH: u32 = 4096;

pub(crate) struct Ring {
    ring: IoUring,
    /// Operations that the kernel has; the index is the submission's user data.
    flying: Vec<Option<Job>>,
    free: Vec<u32>,
    /// Operations beyond the ring's depth.
    waiting: VecDeque<Job>,
    unsubmitted: bool,
}

impl Ring {
    /// # Errors
    /// Whatever `io_uring_setup` says; `EPERM` and `ENOSYS` where it is not allowed.
    pub(crate) fn new(depth: u32) -> io::Result<Ring> {
        let depth = depth.clamp(1, MAX_DEPTH).next_power_of_two();
        let ring = IoUring::builder()
            .setup_coop_taskrun()
            .setup_single_issuer()
            .setup_clamp()
            .build(depth)?;
        Ok(Ring {
            ring,
            flying: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            waiting: VecDeque::new(),
            unsubmitted: false,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor lives as long as the ring, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    pub(crate) fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Whether the kernel has not taken all it could.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.unsubmitted || (!self.waiting.is_empty() && !self.free.is_empty())
    }

    /// Hands waiting operations to the kernel as far as the depth allows, with one system call, or none.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop() else { break };
            if !self.fill(index) {
                self.free.push(index);
                break;
            }
        }
        if !self.unsubmitted {
            return Ok(());
        }
        match self.ring.submit() {
            Ok(_) => {
                self.unsubmitted = !self.ring.submission().is_empty();
                Ok(())
            }
            // Short of memory or interrupted: the entries stay and the next turn tries again.
            Err(error) if is_temporary(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the submission entry of the next waiting job; false if the queue is full.
    fn fill(&mut self, index: u32) -> bool {
        let Some(mut job) = self.waiting.pop_front() else {
            return false;
        };
        let entry = entry(&mut job).user_data(u64::from(index));
        // SAFETY: the entry's memory and file belong to the job, which stays in `flying` until the
        // completion for `index` arrived (`take`), and `Drop` waits for those still missing.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.waiting.push_front(job);
            return false;
        }
        self.flying[index as usize] = Some(job);
        self.unsubmitted = true;
        true
    }

    /// Takes completions. Reads memory only; jobs that need another call wait for the next flush.
    pub(crate) fn reap(&mut self, done: &mut Vec<Done>) {
        let flying = &mut self.flying;
        for completion in self.ring.completion() {
            let Ok(index) = u32::try_from(completion.user_data()) else {
                continue;
            };
            let Some(mut job) = flying.get_mut(index as usize).and_then(Option::take) else {
                continue;
            };
            self.free.push(index);
            // SAFETY: the completion says how many bytes the kernel wrote at the entry's pointer.
            match unsafe { job.advance(outcome(completion.result())) } {
                Progress::Again => self.waiting.push_front(job),
                Progress::Ended(result) => {
                    done.push(Done {
                        disk: job.disk,
                        user_id: job.user_id,
                        result,
                    });
                }
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.flying.len() - self.free.len()
    }
}

impl Drop for Ring {
    /// Waits for what the kernel still has: it writes into our memory.
    fn drop(&mut self) {
        self.waiting.clear();
        let mut done = Vec::new();
        while self.in_flight() > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_temporary(&error) => {}
                Err(_) => {
                    // Memory that the kernel may still write is given up rather than freed.
                    std::mem::forget(std::mem::take(&mut self.flying));
                    return;
                }
            }
            self.reap(&mut done);
            self.waiting.clear();
            done.clear();
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::NOMEM)
    )
}

fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(result.saturating_neg()))
}

fn entry(job: &mut Job) -> squeue::Entry {
    let fd = Fd(job.file.as_raw_fd());
    match job.call() {
        Call::Read { to, len, offset } => opcode::Read::new(fd, to, length(len)).offset(offset).build(),
        Call::Write { from, len, offset } => opcode::Write::new(fd, from, length(len)).offset(offset).build(),
        Call::Flush => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("operations are limited to 64 MiB")
}
