//! Waking the loop from other threads: a flag while it is awake, an eventfd only while it sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Set by users of [`Waker`].
pub(crate) const WOKEN: u8 = 1;
/// Set by the I/O pool when it has completions.
pub(crate) const POOL: u8 = 2;

/// Wakes a reactor from any thread. Cheap to clone; outliving the reactor is harmless.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
    bit: u8,
}

struct Shared {
    pending: AtomicU8,
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Waker {
    /// Makes the reactor's current or next `poll` return with an
    /// [`Event::Woken`](crate::Event::Woken). What this thread wrote before is visible to the loop then. Any
    /// number of calls between two polls make one event.
    pub fn wake(&self) {
        let before = self.shared.pending.fetch_or(self.bit, Ordering::SeqCst);
        if before & self.bit == 0 && self.shared.asleep.load(Ordering::SeqCst) {
            // The counter of an eventfd overflows only after 2^64 - 2 wake-ups: nothing to handle.
            let _ = rustix::io::write(&self.shared.fd, &1u64.to_ne_bytes());
        }
    }
}

/// The loop's end of its wakers.
pub(crate) struct WakeTarget {
    shared: Arc<Shared>,
}

impl WakeTarget {
    pub(crate) fn new() -> io::Result<WakeTarget> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Shared {
            pending: AtomicU8::new(0),
            asleep: AtomicBool::new(false),
            fd,
        };
        Ok(WakeTarget {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn waker(&self, bit: u8) -> Waker {
        Waker {
            shared: Arc::clone(&self.shared),
            bit,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }

    /// Takes the bits set since the last call. A plain load while nothing is pending.
    pub(crate) fn take(&self) -> u8 {
        if self.shared.pending.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.shared.pending.swap(0, Ordering::SeqCst)
    }

    /// Announces sleep; false means that a wake-up came first and the loop must not block. Both sides write
    /// their flag and then read the other's, in one total order: one of them sees the other.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        self.shared.pending.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn awake(&self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    /// Empties the eventfd after it became readable.
    pub(crate) fn drain(&self) {
        // Nothing to read means another turn already did.
        let _ = rustix::io::read(&self.shared.fd, &mut [0u8; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(target: &WakeTarget) -> bool {
        rustix::io::read(target.fd(), &mut [0u8; 8]).is_ok()
    }

    #[test]
    fn the_eventfd_is_written_only_during_sleep_and_once() {
        let target = WakeTarget::new().unwrap();
        let waker = target.waker(WOKEN);
        waker.wake();
        assert!(!readable(&target), "awake: a flag is enough");
        assert!(!target.fall_asleep(), "a pending wake-up forbids sleep");
        target.awake();
        assert_eq!(target.take(), WOKEN);
        assert_eq!(target.take(), 0);
        assert!(target.fall_asleep());
        waker.wake();
        waker.wake();
        target.waker(POOL).wake();
        assert!(readable(&target));
        assert_eq!(target.take(), WOKEN | POOL);
    }
}
