//! What is known of whether the peer of a connection is still there: since when nothing of it is unread, and when its
//! kernel answered last.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use std::time::Duration;

/// Peers that say nothing are probed this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A peer that does not answer so many probes in a row is gone.
const PROBES: u32 = 30;
/// The kernel's clock for received segments is this coarse at most, in ns.
const KERNEL_TICK: u64 = 10_000_000;
/// `TCP_ESTABLISHED`: no end of either side was seen (linux/tcp_states.h).
const ESTABLISHED: u8 = 1;

/// When the loop looked for what is ready: times from before the look, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looks {
    /// The look whose findings are being handled.
    pub(crate) this: u64,
    /// The last one before it that found everything that there was.
    pub(crate) before: u64,
    /// This one did, too.
    pub(crate) saw_all: bool,
}

impl Looks {
    /// Another look begins at this time.
    pub(crate) fn begin(&mut self, now: u64) {
        self.before = self.last();
        (self.this, self.saw_all) = (now, false);
    }

    /// The last one that found everything.
    pub(crate) fn last(self) -> u64 {
        if self.saw_all { self.this } else { self.before }
    }
}

/// Since when a connection had nothing unread, and no end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet {
    at: u64,
    /// The look that found it ready last, or after which it was looked at again.
    found: u64,
}

impl Quiet {
    /// Of a connection that this look brought, or that is looked at from now on: it was not there at the one before.
    pub(crate) fn new(looks: Looks) -> Quiet {
        Quiet {
            at: looks.before,
            found: looks.this,
        }
    }

    /// It is looked at again after a pause.
    pub(crate) fn resumed(&mut self, looks: Looks) {
        self.found = looks.this;
    }

    /// A look found it ready: what is there came after the last one that did not.
    pub(crate) fn found(&mut self, looks: Looks) {
        self.at = self.as_of(looks.before);
        self.found = looks.this;
    }

    /// All of it was received.
    pub(crate) fn drained(&mut self, looks: Looks) {
        self.at = looks.this;
    }

    /// The latest time at which it was quiet, where `look` found everything and it was looked at.
    fn as_of(&self, look: u64) -> u64 {
        if self.found < look { look } else { self.at }
    }

    /// The same, where it was not looked at.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }
}

/// Has the kernel ask the peer every second whether it is there.
pub(crate) fn probe(fd: impl AsFd) -> Result<(), Errno> {
    set_tcp_keepidle(fd.as_fd(), PROBE_EVERY)?;
    set_tcp_keepintvl(fd.as_fd(), PROBE_EVERY)?;
    set_tcp_keepcnt(fd.as_fd(), PROBES)
}

/// A time, in ns, after which the peer's kernel has acknowledged something; none if an end was seen or there is more to
/// read: then what it acknowledges may be what somebody left behind who is gone.
pub(crate) fn heard(fd: impl AsFd, now: u64) -> Option<u64> {
    if rustix::io::ioctl_fionread(fd.as_fd()) != Ok(0) {
        return None;
    }
    let info = tcp_info(fd)?;
    let ago = u64::from(info.tcpi_last_ack_recv).saturating_mul(1_000_000) + KERNEL_TICK;
    (info.tcpi_state == ESTABLISHED).then(|| now.saturating_sub(ago))
}

fn tcp_info(fd: impl AsFd) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes, and every value of them is a `tcp_info`, as are zeroes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    // SAFETY: zeroed, and then filled by the kernel.
    (result == 0).then(|| unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(before: u64, this: u64) -> Looks {
        Looks {
            this,
            before,
            saw_all: true,
        }
    }

    #[test]
    fn quiet_is_what_a_look_did_not_find() {
        let mut quiet = Quiet::new(looks(10, 20));
        assert_eq!((quiet.at(), quiet.as_of(20)), (10, 10));
        // The next look does not find it, the one after does.
        assert_eq!(quiet.as_of(30), 30);
        quiet.found(looks(30, 40));
        assert_eq!(quiet.as_of(40), 30);
        // There was more than was received, then all is.
        quiet.found(looks(40, 50));
        assert_eq!(quiet.as_of(50), 30);
        quiet.drained(looks(40, 50));
        assert_eq!(quiet.as_of(50), 50);
        // Not looked at for a while.
        quiet.resumed(looks(60, 70));
        assert_eq!(quiet.as_of(70), 50);
        assert_eq!(quiet.as_of(80), 80);
    }
}
