//! An NBD client that keeps writing stamps and reading them back whatever happens: when its gateway dies it goes to
//! the next one and sends again what was not answered, the same data to the same place.
//!
//! It fails when an answer is an error or takes longer than 30 s, when no gateway can be reached for a minute, and
//! when a sector that it reads holds anything but the last acknowledged write or one that is still in flight.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::pulse::Pulse;
use crate::ledger::Ledger;
use crate::nbd::{Command, FUA, Nbd};
use crate::rng::Rng;
use crate::stamp;
use crate::storm::free_run;

/// Requests in flight.
const DEPTH: usize = 8;
/// Sizes of writes, sectors: up to 32 KiB.
const SIZES: &[u64] = &[1, 1, 2, 3, 7, 8, 8, 8, 16, 31, 64];
/// Writes between two reads.
const BATCH: usize = 32;
/// Sectors of a read.
const READ: u64 = 256;
const SECTOR_BYTES: u64 = 512;
/// Between two batches, so that two cores can also run the cluster.
const PACE: Duration = Duration::from_millis(20);
/// A whole cluster that was killed is back earlier.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_POLL: Duration = Duration::from_millis(50);

/// What a client has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Sectors that were read back and right.
    pub read: u64,
    /// Connections that broke.
    pub breaks: u64,
    /// Writes that were sent again.
    pub resent: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            writes: self.writes + other.writes,
            read: self.read + other.read,
            breaks: self.breaks + other.breaks,
            resent: self.resent + other.resent,
        }
    }
}

/// A writer with its own region of an image.
#[derive(Debug)]
pub struct Client {
    ports: Vec<u16>,
    at: usize,
    /// The image.
    pub export: String,
    /// What its region must hold.
    pub ledger: Ledger,
    rng: Rng,
    tally: Tally,
}

/// Requests without an answer: when they were sent, and the sequence number of a write; none of a flush.
type Flight = BTreeMap<u64, (Instant, Option<u64>)>;

impl Client {
    /// Writes to the ledger's region of `export` through the gateways at `ports`, the first one first.
    #[must_use]
    pub fn new(ports: &[u16], export: &str, ledger: Ledger, seed: u64) -> Self {
        Self {
            ports: ports.to_vec(),
            at: 0,
            export: export.to_owned(),
            ledger,
            rng: Rng::new(seed),
            tally: Tally::default(),
        }
    }

    /// Writes and reads until told to stop.
    ///
    /// # Errors
    /// Writes and reads until it is told to stop, at the next gateway whenever a connection breaks.
    pub fn run(&mut self, pulse: &Pulse, stop: &AtomicBool) -> Result<Tally> {
        while !stop.load(Ordering::Relaxed) {
            match self.session(pulse, stop) {
                Err(error) if !is_broken(&error) => return Err(error.context(format!("client of {}", self.export))),
                Err(_) => {
                    self.tally.breaks += 1;
                    self.at += 1;
                }
                Ok(()) => {}
            }
        }
        Ok(self.tally)
    }

    /// Until the connection breaks or it is told to stop; then everything is answered.
    fn session(&mut self, pulse: &Pulse, stop: &AtomicBool) -> Result<()> {
        let Some(mut nbd) = self.connect(self.at, stop)? else {
            return Ok(());
        };
        let mut flight = Flight::new();
        for (sequence, first, count) in self.ledger.resend() {
            self.send(&mut nbd, &mut flight, sequence, first, count)?;
            self.tally.resent += 1;
        }
        self.settle(&mut nbd, &mut flight, 0, pulse)?;
        // What one gateway wrote, the other one reads.
        let Some(mut eyes) = self.connect(self.at + 1, stop)? else {
            return Ok(());
        };
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                self.settle(&mut nbd, &mut flight, DEPTH - 1, pulse)?;
                self.issue(&mut nbd, &mut flight)?;
            }
            self.settle(&mut nbd, &mut flight, 0, pulse)?;
            self.look(&mut eyes, pulse)?;
            thread::sleep(PACE);
        }
        Ok(())
    }

    /// Connects to a gateway, preferably this one, unless told to stop.
    fn connect(&self, prefer: usize, stop: &AtomicBool) -> Result<Option<Nbd>> {
        let started = Instant::now();
        let mut attempt = prefer;
        while !stop.load(Ordering::Relaxed) {
            match Nbd::open(self.ports[attempt % self.ports.len()], &self.export) {
                Ok(nbd) => return Ok(Some(nbd)),
                // In words, so that this is not taken for one more broken connection.
                Err(error) => ensure!(
                    started.elapsed() < CONNECT_LIMIT,
                    "no gateway for {CONNECT_LIMIT:?}: {error:#}"
                ),
            }
            attempt += 1;
            thread::sleep(CONNECT_POLL);
        }
        Ok(None)
    }

    /// Sends a new write or, now and then, a flush.
    fn issue(&mut self, nbd: &mut Nbd, flight: &mut Flight) -> Result<()> {
        if self.rng.below(32) == 0 {
            let cookie = nbd.send(Command::Flush, 0, 0, 0, &[])?;
            flight.insert(cookie, (Instant::now(), None));
            return Ok(());
        }
        let (first, count) = free_run(&self.ledger, &mut self.rng, SIZES);
        let sequence = self.ledger.issue(first, count);
        self.send(nbd, flight, sequence, first, count)
    }

    fn send(&mut self, nbd: &mut Nbd, flight: &mut Flight, sequence: u64, first: u64, count: u64) -> Result<()> {
        let data = stamp::run(first, count, sequence);
        let flags = if self.rng.below(8) == 0 { FUA } else { 0 };
        let (sent, len) = (Instant::now(), u32::try_from(data.len())?);
        let cookie = nbd.send(Command::Write, flags, first * SECTOR_BYTES, len, &data)?;
        flight.insert(cookie, (sent, Some(sequence)));
        Ok(())
    }

    /// Waits until no more than `left` requests have no answer.
    fn settle(&mut self, nbd: &mut Nbd, flight: &mut Flight, left: usize, pulse: &Pulse) -> Result<()> {
        while flight.len() > left {
            let (cookie, error) = nbd.receive()?;
            ensure!(error == 0, "a request failed with error {error}");
            let (sent, sequence) = flight.remove(&cookie).context("an answer to nothing")?;
            pulse.beat(sent);
            if let Some(sequence) = sequence {
                self.ledger.acknowledge(sequence);
                self.tally.writes += 1;
            }
        }
        Ok(())
    }

    /// Reads sectors somewhere in the region, of which no write is in flight.
    fn look(&mut self, nbd: &mut Nbd, pulse: &Pulse) -> Result<()> {
        let (first, sectors) = self.ledger.region();
        let at = first + self.rng.below(sectors - READ + 1);
        let sent = Instant::now();
        let data = nbd.read(at * SECTOR_BYTES, u32::try_from(READ * SECTOR_BYTES)?)?;
        pulse.beat(sent);
        let wrong = self.ledger.compare(at, &data);
        ensure!(wrong.is_empty(), "stale or wrong: {:#?}", &wrong[..wrong.len().min(10)]);
        self.tally.read += READ;
        Ok(())
    }
}

/// Whether the connection ended, which a client survives; an answer that does not come is no such end.
fn is_broken(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use anyhow::anyhow;

    use super::is_broken;

    #[test]
    fn tells_an_end_from_a_hang_and_a_refusal() {
        let end = |kind: ErrorKind| anyhow::Error::from(Error::from(kind)).context("while reading");
        assert!(is_broken(&end(ErrorKind::UnexpectedEof)) && is_broken(&end(ErrorKind::ConnectionReset)));
        assert!(!is_broken(&end(ErrorKind::WouldBlock)) && !is_broken(&anyhow!("error 5")));
    }
}
