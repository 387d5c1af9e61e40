//! The data path's event loop: one thread, sockets by epoll, disks by io_uring, an in-process
//! wake-up for other threads, and an adaptive spin before it sleeps.
//!
//! The user owns the loop: it calls [`Reactor::poll`], turns the [`Event`]s into steps of its machines, and
//! calls [`Reactor::send`] and [`Reactor::submit_disk`] with what the machines want. There are no
//! callbacks, tasks or locks. What was sent and submitted during one turn leaves at the start of the next
//! `poll`: one send per connection, one `io_uring_enter` for all disks.
//!
//! Promises: a broken connection or disk never stops the loop; every connection ends with exactly one
//! [`Event::Closed`]; a disk buffer lives until the kernel is done with it. Does not: parse
//! anything, keep timers for the user (give `poll` a timeout), limit what the user queues (ask
//! [`Reactor::queued`]).
//!
//! A reactor stays on the thread that made it (io_uring knows a single issuer). This is the only crate of the
//! project with `unsafe` code.

mod clock;
mod conn;
mod disk;
mod event;
mod inbox;
mod memory;
mod outbox;
mod poller;
mod preempt;
mod presence;
mod reactor;
mod slots;
mod sockets;
mod spin;
mod waker;

pub use disk::{BLOCK_SIZE, Disk, DiskBackend, DiskOp, OpenDisk};
pub use event::{CloseReason, Config, ConnId, DiskToken, Event, ListenerToken};
pub use memory::{give_back_freed_buffers, keep_freed_buffers};
pub use reactor::Reactor;
pub use waker::Waker;
