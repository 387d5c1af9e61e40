//! The loop itself: one turn of [`Reactor::poll`].

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::event::epoll::EventFlags;

use crate::clock::{nanos, now};
use crate::disk::{Disk, DiskOp, Disks, OpenDisk};
use crate::event::{Config, ConnId, DiskToken, Event, ListenerToken};
use crate::poller::{Poller, Source};
use crate::preempt::involuntary_switches;
use crate::sockets::Sockets;
use crate::spin::Spin;
use crate::waker::{POOL, WOKEN, WakeTarget, Waker};

/// One thread's sockets, disks and sleep. See the crate's documentation.
pub struct Reactor {
    poller: Poller,
    sockets: Sockets,
    disks: Disks,
    wake: WakeTarget,
    spin: Spin,
    /// Events that calls between two polls caused.
    late: Vec<Event>,
    ring_watched: bool,
    /// io_uring accepts submissions only from the thread that made the ring.
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl Reactor {
    /// A reactor for the calling thread.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new(config: &Config) -> io::Result<Reactor> {
        let poller = Poller::new()?;
        let wake = WakeTarget::new()?;
        poller.add(wake.fd(), Source::Waker, EventFlags::IN)?;
        Ok(Reactor {
            poller,
            sockets: Sockets::new(config.read_chunk, config.max_connections, nanos(config.linger)),
            disks: Disks::new(config, wake.waker(POOL)),
            wake,
            spin: Spin::new(nanos(config.spin)),
            late: Vec::new(),
            ring_watched: false,
            _stays_on_its_thread: PhantomData,
        })
    }

    /// Nanoseconds since boot (`CLOCK_BOOTTIME`): the clock of all deadlines.
    #[must_use]
    pub fn now() -> u64 {
        now()
    }

    /// Something for other threads to wake this loop with.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.wake.waker(WOKEN)
    }

    /// Listens on a TCP address and returns it with its port filled in.
    ///
    /// # Errors
    /// Names the address.
    pub fn listen(&mut self, addr: SocketAddr, token: ListenerToken) -> io::Result<SocketAddr> {
        self.sockets.listen(&self.poller, addr, token)
    }

    /// Stops listening; accepted connections stay.
    pub fn unlisten(&mut self, token: ListenerToken) {
        self.sockets.unlisten(token);
    }

    /// Starts an outgoing TCP connection. It ends in `Connected` or `Closed`; what is sent before waits. How
    /// long to wait is the caller's decision (`abort`).
    ///
    /// # Errors
    /// If it cannot even be started; names the address.
    pub fn connect(&mut self, addr: SocketAddr) -> io::Result<ConnId> {
        self.sockets.connect(&self.poller, addr)
    }

    /// Connections that are open, being opened or being closed.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sockets.len()
    }

    /// Queues segments; they leave with the next `poll`. Nothing happens on a closed connection.
    pub fn send(&mut self, conn: ConnId, segments: impl IntoIterator<Item = Bytes>) {
        self.sockets.send(conn, segments);
    }

    /// Bytes queued and not yet taken by the kernel. Stop producing when it grows; [`Event::Drained`] tells when
    /// it is empty again.
    #[must_use]
    pub fn queued(&self, conn: ConnId) -> usize {
        self.sockets.queued(conn)
    }

    /// Bytes queued on all connections together. Looks at each of them.
    #[must_use]
    pub fn all_queued(&self) -> usize {
        self.sockets.all_queued()
    }

    /// The received bytes not yet consumed; what is left here stays. Empty for a closed connection.
    pub fn input(&mut self, conn: ConnId) -> &mut BytesMut {
        self.sockets.input(conn)
    }

    /// Announces that the message at the start of the input is `bytes` long (header included), so that it
    /// arrives in one piece of memory without being moved again. At most 64 MiB are believed.
    pub fn set_hint(&mut self, conn: ConnId, bytes: usize) {
        self.sockets.set_hint(conn, bytes);
    }

    /// Stops or resumes receiving: backpressure to the peer.
    pub fn pause_reading(&mut self, conn: ConnId, pause: bool) {
        self.sockets.pause_reading(&self.poller, conn, pause, &mut self.late);
    }

    /// From now on the end of a connection is told as soon as it is seen, and what was not received before is dropped;
    /// and its peer is asked every second whether it is there.
    pub fn attend(&mut self, conn: ConnId) {
        self.sockets.attend(&self.poller, conn, &mut self.late);
    }

    /// The latest time, in ns, at which a connection that is attended to is known to have had no end.
    #[must_use]
    pub fn stands(&self, conn: ConnId) -> Option<u64> {
        self.sockets.stands(conn)
    }

    /// A time, in ns, after which the kernel of the peer has acknowledged something or answered a probe; none if it cannot
    /// be told, or an end was seen.
    #[must_use]
    pub fn heard(&self, conn: ConnId) -> Option<u64> {
        self.sockets.heard(conn, now())
    }

    /// Closes after what is queued was sent, or when `linger` is over. Nothing is received any more.
    pub fn close(&mut self, conn: ConnId) {
        self.sockets.close(conn, now(), &mut self.late);
    }

    /// Closes at once; what is queued is lost.
    pub fn abort(&mut self, conn: ConnId) {
        self.sockets.abort(conn, &mut self.late);
    }

    /// Opens a file or block device for this process alone. Blocks while it allocates and pre-writes.
    ///
    /// # Errors
    /// Names the path: missing, in use by another process, no space for so many bytes.
    pub fn open_disk(&mut self, path: &Path, options: &OpenDisk) -> io::Result<Disk> {
        let disk = self.disks.open(path, options)?;
        if !self.ring_watched
            && let Some(ring) = self.disks.ring_fd()
        {
            self.poller.add(ring, Source::Ring, EventFlags::IN)?;
            self.ring_watched = true;
        }
        Ok(disk)
    }

    /// Queues a disk operation; it starts with the next `poll` and ends with [`Event::Disk`]. Operations on a
    /// closed disk vanish.
    pub fn submit_disk(&mut self, disk: DiskToken, user_id: u64, op: DiskOp) {
        self.disks.submit(disk, user_id, op);
    }

    /// Closes a disk and drops the completions still on the way. Its lock goes when the last operation ended.
    pub fn close_disk(&mut self, disk: DiskToken) {
        self.disks.close(disk);
    }

    /// One turn: sends and submits what was queued, then waits up to `timeout` (`None`: for ever) for
    /// something to happen, and replaces the contents of `events` by it. May return early with none.
    ///
    /// # Errors
    /// Only if the loop itself cannot go on (epoll or the ring broken).
    pub fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        events.append(&mut self.late);
        self.sockets.flush(&self.poller, events);
        if self.sockets.deadline().is_some() {
            self.sockets.expire(&self.poller, now(), events);
        }
        self.disks.start_turn()?;
        self.look(events, Some(0))?;
        if events.is_empty() && timeout != Some(Duration::ZERO) {
            self.idle(events, timeout.map(nanos))?;
        }
        Ok(())
    }

    /// Spins if that is likely to pay, then sleeps.
    fn idle(&mut self, events: &mut Vec<Event>, timeout: Option<u64>) -> io::Result<()> {
        let start = now();
        let deadline = timeout.map(|timeout| start.saturating_add(timeout));
        let deadline = deadline.into_iter().chain(self.sockets.deadline()).min();
        let mut time = start;
        if self.spin.wants_sample(time) {
            self.spin.sample(time, involuntary_switches());
        }
        let spin_end = start + self.spin.window(start);
        let spin_end = deadline.map_or(spin_end, |deadline| deadline.min(spin_end));
        while time < spin_end && events.is_empty() {
            self.look(events, Some(0))?;
            time = now();
        }
        if events.is_empty() && deadline.is_none_or(|deadline| time < deadline) {
            self.sleep(events, deadline.map(|deadline| deadline - time))?;
            time = now();
        }
        self.spin.idle_ended(time, time - start, !events.is_empty());
        Ok(())
    }

    fn sleep(&mut self, events: &mut Vec<Event>, nanos: Option<u64>) -> io::Result<()> {
        let may_block = self.wake.fall_asleep() && !self.disks.must_not_sleep();
        let result = self.look(events, if may_block { nanos } else { Some(0) });
        self.wake.awake();
        result
    }

    /// Takes whatever is ready, waiting up to `nanos` for a socket, the ring or a wake-up.
    fn look(&mut self, events: &mut Vec<Event>, nanos: Option<u64>) -> io::Result<()> {
        self.sockets.looks.begin(now());
        let ready = self.poller.wait(nanos)?;
        self.sockets.looks.saw_all = self.poller.is_all(ready);
        for i in 0..ready {
            let (source, flags) = self.poller.ready(i);
            match source {
                Source::Conn(key) => self.sockets.ready(&self.poller, key, flags, events),
                Source::Listener(key) => self.sockets.accept(&self.poller, key, now(), events),
                Source::Waker => self.wake.drain(),
                Source::Ring => {}
            }
        }
        let woken = self.wake.take();
        if woken & WOKEN != 0 {
            events.push(Event::Woken);
        }
        if woken & POOL != 0 {
            self.disks.collect_pool();
        }
        self.disks.reap(events)
    }
}
