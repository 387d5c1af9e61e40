//! How often the kernel took the CPU away from this thread.

/// Involuntary context switches of the calling thread since it started.
pub(crate) fn involuntary_switches() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for writes of one `rusage`, which the call fills and does not keep.
    let status = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if status != 0 {
        return 0;
    }
    // SAFETY: all-zero bytes are a valid `rusage`, and the call succeeded in writing one.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_nivcsw).unwrap_or(0)
}
