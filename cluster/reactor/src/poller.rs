//! A level-triggered epoll set whose tokens name what became ready.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::clock::timespec;

/// Events taken from the kernel in one call.
const BATCH: usize = 256;

/// What an epoll token names; the kind is in the two top bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Conn(u64),
    Listener(u64),
    Waker,
    Ring,
}

const KIND_SHIFT: u32 = 62;
const KEY_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl Source {
    fn encode(self) -> u64 {
        match self {
            Source::Conn(key) => key,
            Source::Listener(key) => (1 << KIND_SHIFT) | key,
            Source::Waker => 2 << KIND_SHIFT,
            Source::Ring => 3 << KIND_SHIFT,
        }
    }

    fn decode(token: u64) -> Source {
        match token >> KIND_SHIFT {
            0 => Source::Conn(token),
            1 => Source::Listener(token & KEY_MASK),
            2 => Source::Waker,
            _ => Source::Ring,
        }
    }
}

pub(crate) struct Poller {
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Poller {
            epoll,
            ready: Vec::with_capacity(BATCH),
        })
    }

    pub(crate) fn add(&self, fd: impl AsFd, source: Source, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(source.encode()), flags)?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, source: Source, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(source.encode()),
            flags,
        )?)
    }

    /// Waits up to `nanos` (`None`: for ever) and returns how many sources are ready. A signal ends the wait
    /// with none.
    pub(crate) fn wait(&mut self, nanos: Option<u64>) -> io::Result<usize> {
        let timeout = nanos.map(timespec);
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), timeout.as_ref()) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether so many ready sources are all that there were.
    pub(crate) fn is_all(&self, ready: usize) -> bool {
        ready < self.ready.capacity()
    }

    /// The `i`th ready source of the last wait.
    pub(crate) fn ready(&self, i: usize) -> (Source, EventFlags) {
        let event = self.ready[i];
        let (data, flags) = (event.data, event.flags);
        (Source::decode(data.u64()), flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_source() {
        let key = (((1 << 30) - 1) << 32) | 77;
        for source in [Source::Conn(key), Source::Listener(key), Source::Waker, Source::Ring] {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }
}
