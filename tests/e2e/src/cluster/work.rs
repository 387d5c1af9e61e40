//! Workers that go on through whatever a test does to the cluster, each in a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Result, ensure};

use super::fronts::Fronts;
use super::pulse::Pulse;

/// Somebody who uses the cluster until told to stop.
pub trait Worker: Send {
    /// What it has to tell.
    type Told: Send;

    /// Works until `stop`, and until everything that it asked for has an answer.
    ///
    /// # Errors
    /// When it is not served as it must be.
    fn work(&mut self, fronts: &Fronts, pulse: &Pulse, stop: &AtomicBool) -> Result<Self::Told>;
}

/// Lets all of them work while `act` runs; `act` is to return early when its argument says that one has failed. What
/// they told is in their order.
///
/// # Errors
/// Those of the workers before that of `act`.
pub fn beside<W: Worker, T>(
    workers: &mut [W],
    fronts: &Fronts,
    pulse: &Pulse,
    act: impl FnOnce(&dyn Fn() -> bool) -> Result<T>,
) -> Result<(T, Vec<W::Told>)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let running: Vec<ScopedJoinHandle<'_, Result<W::Told>>> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| worker.work(fronts, pulse, &stop)))
            .collect();
        let acted = act(&|| running.iter().any(ScopedJoinHandle::is_finished));
        stop.store(true, Ordering::Relaxed);
        let (mut told, mut failed) = (Vec::new(), Vec::new());
        for worker in running {
            match worker.join().expect("a worker that does not panic") {
                Ok(words) => told.push(words),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        ensure!(failed.is_empty(), "{} workers failed: {failed:#?}", failed.len());
        Ok((acted?, told))
    })
}
