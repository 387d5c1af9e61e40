//! One disk operation under way: its memory, how far it is, and what a result from the kernel means for it.
//! The backends differ only in how they make the system call.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::{Errno, pread, pwrite};

use super::{BLOCK_SIZE, DiskOp};
use crate::memory::{ALIGNMENT, aligned_buffer};

/// How often an operation is tried again after `EINTR` or `EAGAIN` before it fails with it.
const RETRIES: u8 = 100;
/// The largest single operation in bytes: the largest message of the cluster.
const MAX_TRANSFER: usize = 64 << 20;

/// The end of an operation.
pub(crate) struct Done {
    pub(crate) disk: u64,
    pub(crate) user_id: u64,
    pub(crate) result: io::Result<Bytes>,
}

pub(crate) struct Job {
    pub(crate) disk: u64,
    pub(crate) user_id: u64,
    pub(crate) file: Arc<File>,
    offset: u64,
    retries: u8,
    body: Body,
}

enum Body {
    /// The buffer's length is what was read so far; its capacity holds `len`.
    Read {
        buffer: BytesMut,
        len: usize,
    },
    /// What is left to write.
    Write(Bytes),
    Flush,
}

/// The next system call of a job. Pointers are valid until the job is advanced or dropped, wherever it is moved.
pub(crate) enum Call {
    Read { to: *mut u8, len: usize, offset: u64 },
    Write { from: *const u8, len: usize, offset: u64 },
    Flush,
}

/// What a result means.
pub(crate) enum Progress {
    /// There is another call to make.
    Again,
    /// The operation ended.
    Ended(io::Result<Bytes>),
}

impl Job {
    /// Checks an operation and prepares its memory.
    ///
    /// # Errors
    /// `InvalidInput` for what is not a whole number of blocks, or larger than 64 MiB.
    pub(crate) fn new(disk: u64, user_id: u64, file: &Arc<File>, direct: bool, op: DiskOp) -> io::Result<Job> {
        let (offset, body) = match op {
            DiskOp::Read { offset, len } => {
                check(offset, len)?;
                (
                    offset,
                    Body::Read {
                        buffer: aligned_buffer(len),
                        len,
                    },
                )
            }
            DiskOp::Write { offset, data } => {
                check(offset, data.len())?;
                (offset, Body::Write(if direct { aligned(data) } else { data }))
            }
            DiskOp::Flush => (0, Body::Flush),
        };
        Ok(Job {
            disk,
            user_id,
            file: Arc::clone(file),
            offset,
            retries: 0,
            body,
        })
    }

    /// The system call to make next.
    pub(crate) fn call(&mut self) -> Call {
        let offset = self.offset;
        match &mut self.body {
            Body::Read { buffer, len } => {
                let len = *len - buffer.len();
                let spare = buffer.spare_capacity_mut();
                Call::Read {
                    to: spare[..len].as_mut_ptr().cast(),
                    len,
                    offset,
                }
            }
            Body::Write(data) => Call::Write {
                from: data.as_ptr(),
                len: data.len(),
                offset,
            },
            Body::Flush => Call::Flush,
        }
    }

    /// Takes the result of the last [`Job::call`]: bytes transferred, or why not.
    ///
    /// # Safety
    /// For a read, the first `result` bytes at the call's pointer must have been written.
    pub(crate) unsafe fn advance(&mut self, result: Result<usize, Errno>) -> Progress {
        let count = match result {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) if self.retries < RETRIES => {
                self.retries += 1;
                return Progress::Again;
            }
            Err(error) => return Progress::Ended(Err(error.into())),
        };
        self.offset += count as u64;
        match &mut self.body {
            Body::Flush => return Progress::Ended(Ok(Bytes::new())),
            Body::Read { buffer, len } => {
                let filled = (buffer.len() + count).min(*len);
                // SAFETY: the caller vouches for `count` bytes after the old length; `len` is within capacity.
                unsafe { buffer.set_len(filled) };
                if filled == *len {
                    return Progress::Ended(Ok(std::mem::take(buffer).freeze()));
                }
            }
            Body::Write(data) => {
                data.advance(count.min(data.len()));
                if data.is_empty() {
                    return Progress::Ended(Ok(Bytes::new()));
                }
            }
        }
        if count == 0 {
            Progress::Ended(Err(self.stopped_short()))
        } else {
            Progress::Again
        }
    }

    fn stopped_short(&self) -> io::Error {
        match &self.body {
            Body::Read { .. } => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("read past the end of the disk at {}", self.offset),
            ),
            Body::Write(_) | Body::Flush => io::ErrorKind::WriteZero.into(),
        }
    }

    /// Makes all calls here and now.
    pub(crate) fn run(mut self, durable: bool) -> Done {
        let result = loop {
            let result = self.call_now(durable);
            // SAFETY: `call_now` passed the slice that `call` points at, and the kernel filled its start.
            match unsafe { self.advance(result) } {
                Progress::Again => {}
                Progress::Ended(result) => break result,
            }
        };
        Done {
            disk: self.disk,
            user_id: self.user_id,
            result,
        }
    }

    fn call_now(&mut self, durable: bool) -> Result<usize, Errno> {
        match &mut self.body {
            Body::Read { buffer, len } => {
                let wanted = *len - buffer.len();
                let spare = &mut buffer.spare_capacity_mut()[..wanted];
                pread(&self.file, spare, self.offset).map(|(filled, _)| filled.len())
            }
            Body::Write(data) => pwrite(&self.file, data, self.offset),
            Body::Flush if durable => rustix::fs::fdatasync(&self.file).map(|()| 0),
            Body::Flush => Ok(0),
        }
    }

    /// Bytes that the operation moves.
    pub(crate) fn weight(&self) -> usize {
        match &self.body {
            Body::Read { len, .. } => *len,
            Body::Write(data) => data.len(),
            Body::Flush => 0,
        }
    }
}

fn check(offset: u64, len: usize) -> io::Result<()> {
    let block = BLOCK_SIZE as u64;
    let whole = offset.is_multiple_of(block) && len.is_multiple_of(BLOCK_SIZE);
    if whole && len > 0 && len <= MAX_TRANSFER && i64::try_from(offset).is_ok() {
        return Ok(());
    }
    let text = format!("disk operation of {len} bytes at {offset}: not whole blocks, or too large");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn aligned(data: Bytes) -> Bytes {
    if data.as_ptr().align_offset(ALIGNMENT) == 0 {
        return data;
    }
    let mut copy = aligned_buffer(data.len());
    copy.extend_from_slice(&data);
    copy.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(op: DiskOp) -> io::Result<Job> {
        Job::new(1, 2, &Arc::new(tempfile::tempfile().unwrap()), true, op)
    }

    /// For jobs that are no reads.
    fn step(job: &mut Job, result: Result<usize, Errno>) -> Progress {
        assert!(!matches!(job.body, Body::Read { .. }));
        // SAFETY: not a read.
        unsafe { job.advance(result) }
    }

    #[test]
    fn what_is_not_aligned_is_copied_once() {
        let odd = Bytes::from(vec![7u8; 8192]).slice(1..4097);
        let copy = aligned(odd.clone());
        assert_eq!(copy.as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(copy, odd);
        assert_eq!(
            aligned(copy.clone()).as_ptr(),
            copy.as_ptr(),
            "aligned data is not copied"
        );
    }

    #[test]
    fn what_is_not_whole_blocks_is_refused() {
        let data = Bytes::from_static(&[0; 4096]);
        let table = [
            DiskOp::Read { offset: 1, len: 4096 },
            DiskOp::Read { offset: 0, len: 0 },
            DiskOp::Read { offset: 0, len: 100 },
            DiskOp::Read {
                offset: 0,
                len: MAX_TRANSFER + BLOCK_SIZE,
            },
            DiskOp::Read {
                offset: u64::MAX - 4095,
                len: 4096,
            },
            DiskOp::Write {
                offset: 512,
                data: data.clone(),
            },
            DiskOp::Write {
                offset: 0,
                data: data.slice(1..),
            },
        ];
        for op in table {
            let error = job(op.clone()).err().unwrap_or_else(|| panic!("{op:?} was taken"));
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn short_transfers_continue_where_they_stopped() {
        let data = Bytes::from(vec![1; 8192]);
        let mut job = job(DiskOp::Write { offset: 4096, data }).unwrap();
        assert!(matches!(step(&mut job, Err(Errno::INTR)), Progress::Again));
        assert!(matches!(step(&mut job, Ok(512)), Progress::Again));
        let Call::Write { len, offset, .. } = job.call() else {
            panic!("another call")
        };
        assert_eq!((len, offset), (8192 - 512, 4096 + 512));
        let Progress::Ended(Err(error)) = step(&mut job, Ok(0)) else {
            panic!("stuck")
        };
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn retries_are_bounded() {
        let mut job = job(DiskOp::Flush).unwrap();
        let mut tries = 0;
        while let Progress::Again = step(&mut job, Err(Errno::AGAIN)) {
            tries += 1;
            assert!(tries < 1000);
        }
        assert_eq!(tries, RETRIES.into());
    }
}
