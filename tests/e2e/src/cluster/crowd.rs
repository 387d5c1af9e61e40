//! Several clients at once, each with its own region, while a test does something to the cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Result, ensure};

use super::load::{Client, Tally};
use super::pulse::Pulse;
use crate::ledger::Ledger;
use crate::storm::compare_all;

/// Sectors of each client's region: 4 MiB, so that most are written often.
const SECTORS: u64 = 8 * 1024;

/// Clients that each have a region of one of `images`, in turns; the first prefers the first of `ports`, the next
/// the next one.
#[must_use]
pub fn crowd(ports: &[u16], images: &[&str], clients: u16, seed: u64) -> Vec<Client> {
    (0..clients)
        .map(|number| {
            let at = usize::from(number);
            let mut ports = ports.to_vec();
            let turns = at % ports.len();
            ports.rotate_left(turns);
            // Clients of one image must not share sectors.
            let first = u64::from(number) * SECTORS;
            let ledger = Ledger::of_writer(number, first, SECTORS);
            Client::new(&ports, images[at % images.len()], ledger, seed + u64::from(number))
        })
        .collect()
}

/// Lets all clients write and read while `act` runs; `act` is to return early when its first argument says that a
/// client has failed.
///
/// # Errors
/// That of a client before that of `act`.
pub fn during<T>(
    clients: &mut [Client],
    pulse: &Pulse,
    act: impl FnOnce(&dyn Fn() -> bool) -> Result<T>,
) -> Result<(T, Tally)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let running: Vec<ScopedJoinHandle<'_, Result<Tally>>> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| client.run(pulse, &stop)))
            .collect();
        let acted = act(&|| running.iter().any(ScopedJoinHandle::is_finished));
        stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        let mut failed = Vec::new();
        for client in running {
            match client.join().expect("a client that does not panic") {
                Ok(tally) => total = total.and(tally),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        ensure!(failed.is_empty(), "{} clients failed: {failed:#?}", failed.len());
        Ok((acted?, total))
    })
}

/// Reads the regions of all clients through each of `gateways`, and compares; returns the sectors checked.
///
/// # Errors
/// With sectors that hold neither the last acknowledged write nor one that was in flight at the end.
pub fn compare(gateways: &[u16], clients: &mut [Client]) -> Result<u64> {
    let mut sectors = 0;
    for port in gateways {
        for client in &mut *clients {
            sectors += compare_all(*port, &client.export, &mut client.ledger)?;
        }
    }
    Ok(sectors)
}
