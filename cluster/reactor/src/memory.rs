//! Large buffers: where they begin, and what becomes of them when they are given back.

use bytes::{Buf, BytesMut};

/// What `O_DIRECT` asks of memory, bytes.
pub(crate) const ALIGNMENT: usize = 4096;
/// Larger allocations are mappings of their own, bytes.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 32 << 20;
/// Free memory at an arena's end beyond this goes back to the kernel, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 256 << 20;

/// An empty buffer at an aligned address with room for `len` bytes, which are not zeroed.
pub(crate) fn aligned_buffer(len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len + ALIGNMENT);
    let pad = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.resize(pad, 0);
    buffer.advance(pad);
    buffer
}

/// Lets the process keep the memory of freed buffers for the next ones, up to 256 MiB per arena. By default glibc gives that
/// of every large buffer back at once, and the kernel has to find and clear fresh pages for each transfer.
/// Elsewhere than with glibc this does nothing.
pub fn keep_freed_buffers() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, OWN_MAPPING), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: takes two integers and touches nothing of ours. If it refuses, buffers are merely slower to get.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives the memory of freed buffers back to the system, wherever in the heap it is: for when much of it was used and will
/// not be used again soon. Takes some milliseconds for each 100 MiB. Elsewhere than with glibc this does nothing.
pub fn give_back_freed_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer and touches only what is free; the allocator locks its own state.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_large_enough() {
        for len in [4096, 8192, 1 << 20] {
            let buffer = aligned_buffer(len);
            assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT), 0);
            assert!(buffer.is_empty() && buffer.capacity() >= len);
        }
    }
}
