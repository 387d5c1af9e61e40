//! Disks by a few threads with blocking calls, where io_uring is refused.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::job::{Done, Job};
use crate::waker::Waker;

pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    done: Mutex<Vec<Done>>,
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stop: bool,
}

impl Pool {
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn new(threads: usize, waker: Waker) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            more: Condvar::new(),
            done: Mutex::default(),
            waker,
        });
        let mut pool = Pool {
            shared,
            threads: Vec::with_capacity(threads),
        };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("disk-{number}"));
            pool.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    pub(crate) fn push(&self, job: Job) {
        lock(&self.shared.queue).jobs.push_back(job);
        self.shared.more.notify_one();
    }

    pub(crate) fn collect(&self, done: &mut Vec<Done>) {
        done.append(&mut lock(&self.shared.done));
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            // One that panics would take its thread along; nothing in a job does.
            let ended = job.run(true);
            lock(&self.done).push(ended);
            self.waker.wake();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

/// The data is a plain queue: a panic elsewhere cannot leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
