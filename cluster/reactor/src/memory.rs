//! Large buffers: where they begin, and what becomes of them when they are freed; that is up to mimalloc, the allocator of the
//! program, and where there is another one it is not changed.

use bytes::{Buf, BytesMut};

/// What `O_DIRECT` asks of memory, bytes.
pub(crate) const ALIGNMENT: usize = 4096;
/// `mi_option_purge_delay` of mimalloc.h, versions 2 and 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// It times 10 (`mi_option_arena_purge_mult`) is how long what a thread gave back is kept.
const KEPT_MILLIS: libc::c_long = 10_000;

/// An empty buffer at an aligned address with room for `len` bytes, which are not zeroed.
pub(crate) fn aligned_buffer(len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len + ALIGNMENT);
    let pad = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.resize(pad, 0);
    buffer.advance(pad);
    buffer
}

/// Lets the process keep the memory of what it freed for a while, 100 s in most cases: mimalloc gives it back after 10 s by
/// default, and the kernel then has to find and clear fresh pages, and stops the other threads for a moment.
pub fn keep_freed_buffers() {
    // SAFETY: takes two integers and sets one of the allocator's options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MILLIS) };
}

/// Gives the memory of freed buffers back to the system: for when much of it was used and will not be used again soon. Only
/// what this thread has freed.
pub fn give_back_freed_buffers() {
    // SAFETY: takes a flag and touches only what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: takes an integer and reads one of the allocator's options.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "mimalloc's own delay, milliseconds");
        keep_freed_buffers();
        assert_eq!(delay(), KEPT_MILLIS);
    }

    #[test]
    fn buffers_are_aligned_and_large_enough() {
        for len in [4096, 8192, 1 << 20] {
            let buffer = aligned_buffer(len);
            assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT), 0);
            assert!(buffer.is_empty() && buffer.capacity() >= len);
        }
    }
}
