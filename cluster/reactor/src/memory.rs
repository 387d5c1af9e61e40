//! What becomes of large buffers that were given back.

/// Larger allocations are mappings of their own, bytes.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 32 << 20;
/// Free memory at an arena's end beyond this goes back to the kernel, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 256 << 20;

/// Lets the process keep the memory of freed buffers for the next ones, up to 256 MiB. By default glibc gives that
/// of every large buffer back at once, and the kernel has to find and clear fresh pages for each transfer.
/// Elsewhere than with glibc this does nothing.
pub fn keep_freed_buffers() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, OWN_MAPPING), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: takes two integers and touches nothing of ours. If it refuses, buffers are merely slower to get.
        unsafe { libc::mallopt(parameter, value) };
    }
}
