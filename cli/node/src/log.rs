//! The log: lines on stderr, written by a thread of its own.
//!
//! Whoever says something neither waits nor fails: a disk that is full, a reader that is gone or one that hangs costs lines,
//! never service. Lines that were lost are counted, and when lines can be written again, one says how many.

mod filter;

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use trivet_api::counted;

/// Lines that wait for a reader that is slow; what comes beyond them is lost.
const QUEUE: usize = 4096;
/// How long the end of the process waits for lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines that could not be written since the process started.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log could not be written since the process started.
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// What the thread is asked for.
enum Job {
    /// To write a line, with its end.
    Line(Vec<u8>),
    /// To say that all before was written.
    Flush(SyncSender<()>),
}

/// The log of a process; dropped, it waits a moment for lines that are still to be written.
pub struct Log {
    lines: Lines,
}

impl Log {
    /// The log goes to stderr from now on; `TRIVET_LOG` says how much of it.
    ///
    /// # Errors
    /// When it says nothing that can be understood, or no thread can be started.
    pub fn to_stderr() -> anyhow::Result<Log> {
        let filter = filter::from_env()?;
        let (jobs, asked) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&asked, &mut io::stderr(), &LOST, tell_lost))?;
        let lines = Lines { jobs, lost: &LOST };
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(is_coloured(io::stderr().is_terminal(), env::var_os("NO_COLOR")))
            .with_writer(Arc::new(lines.clone()))
            // It would go to stderr, and end the process if that is gone.
            .log_internal_errors(false)
            .with_target(false)
            .init();
        Ok(Log { lines })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        let end = Instant::now() + LAST_WORDS;
        while let Err(TrySendError::Full(_)) = self.lines.jobs.try_send(Job::Flush(done.clone())) {
            if Instant::now() >= end {
                return;
            }
            std::thread::sleep(LAST_WORDS / 100);
        }
        // A reader that hangs does not keep the process from ending.
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Colours are for people who look at a terminal and want them (no-color.org).
fn is_coloured(terminal: bool, no_color: Option<OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

fn tell_lost(lines: u64) {
    let lines = counted(lines, "line", "lines");
    tracing::warn!("{lines} of the log could not be written");
}

/// Takes lines to the thread.
#[derive(Clone)]
struct Lines {
    jobs: SyncSender<Job>,
    lost: &'static AtomicU64,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

impl Write for &Lines {
    /// Takes a line: an event comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread: writes lines until nobody can ask for more. `tell` is called when a line was written and others had been
/// lost since the last time, with how many those were.
fn write_all(asked: &Receiver<Job>, out: &mut impl Write, lost: &AtomicU64, tell: impl Fn(u64)) {
    let (mut told, mut torn) = (0, false);
    for job in asked {
        match job {
            Job::Line(line) => {
                let start: &[u8] = if torn { b"\n" } else { b"" };
                if out.write_all(start).and_then(|()| out.write_all(&line)).is_err() {
                    lost.fetch_add(1, Relaxed);
                    torn = true;
                    continue;
                }
                torn = false;
                let now = lost.load(Relaxed);
                if now > told {
                    tell(now - told);
                    told = now;
                }
            }
            // Whoever waited may have given up.
            Job::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Fails while there is no room.
    #[derive(Default)]
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.written.extend_from_slice(&bytes[..taken]);
            if taken == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run(lines: &[&str], disk: &mut Disk, lost: &AtomicU64, tell: impl Fn(u64)) {
        let (jobs, asked) = sync_channel(lines.len());
        for line in lines {
            jobs.send(Job::Line(line.as_bytes().to_vec())).unwrap();
        }
        drop(jobs);
        write_all(&asked, disk, lost, tell);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_there_is_room() {
        let mut disk = Disk::default();
        let lost = AtomicU64::new(0);
        let told = RefCell::new(Vec::new());
        disk.room = 6;
        run(&["one\n", "two\n", "three\n"], &mut disk, &lost, |lines| {
            told.borrow_mut().push(lines);
        });
        assert_eq!((lost.load(Relaxed), &told.borrow()[..]), (2, &[][..]));
        disk.room = 1000;
        run(&["four\n", "five\n"], &mut disk, &lost, |lines| {
            told.borrow_mut().push(lines);
        });
        assert_eq!(told.into_inner(), [2]);
        assert_eq!(disk.written, b"one\ntwfour\nfive\n");
    }

    #[test]
    fn colours_are_for_terminals() {
        for (terminal, no_color, coloured) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (false, None, false),
            (false, Some(""), false),
        ] {
            assert_eq!(
                is_coloured(terminal, no_color.map(OsString::from)),
                coloured,
                "{no_color:?}"
            );
        }
    }

    #[test]
    fn who_says_something_never_waits() {
        static HERE: AtomicU64 = AtomicU64::new(0);
        let (jobs, asked) = sync_channel(1);
        let lines = Lines { jobs, lost: &HERE };
        for line in ["kept\n", "lost\n", "lost too\n"] {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(HERE.load(Relaxed), 2);
        drop(asked);
        (&lines).write_all(b"the thread has ended\n").unwrap();
        assert_eq!(HERE.load(Relaxed), 3);
    }
}
