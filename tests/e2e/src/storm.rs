//! A writer that stamps what it writes and keeps a ledger of what it was told,
//! until the server dies under it, or until it is told to stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::ledger::Ledger;
use crate::nbd::{Command, FUA, Nbd};
use crate::rng::Rng;
use crate::stamp::{self, SECTOR};

/// Requests in flight on a connection.
const DEPTH: usize = 16;
/// Sizes of writes (sectors): from one to 256 KiB, odd ones included.
const SIZES: &[u64] = &[1, 1, 2, 3, 7, 8, 8, 8, 16, 31, 64, 128, 255, 256, 512];
/// Bytes per read when a region is compared.
const COMPARE: u32 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
/// Writes between two reads of a writer that reads back.
const READ_EVERY: u64 = 64;
/// Sectors of such a read.
const READ: u64 = 256;

/// Writes to the ledger's region of `export` until the connection breaks.
/// `acknowledged` counts.
///
/// # Errors
/// When the server could not be reached at all, or refuses a write.
pub fn write_until_death(
    port: u16,
    export: &str,
    ledger: &mut Ledger,
    rng: &mut Rng,
    acknowledged: &AtomicU64,
) -> Result<()> {
    let mut nbd = Nbd::open(port, export)?;
    let mut waiting = BTreeMap::new();
    loop {
        while waiting.len() < DEPTH {
            let Ok((cookie, sequence)) = issue(&mut nbd, ledger, rng) else {
                return Ok(());
            };
            waiting.insert(cookie, sequence);
        }
        let Ok((cookie, error)) = nbd.receive() else {
            return Ok(());
        };
        ensure!(error == 0, "write refused with error {error}");
        settle(&mut waiting, cookie, ledger, acknowledged)?;
    }
}

/// Requests without an answer: the sequence number of a write, nothing of a flush.
type Waiting = BTreeMap<u64, Option<u64>>;

/// Notes an answer.
fn settle(waiting: &mut Waiting, cookie: u64, ledger: &mut Ledger, acknowledged: &AtomicU64) -> Result<()> {
    match waiting.remove(&cookie) {
        None => bail!("answer to cookie {cookie}, which nobody sent"),
        Some(None) => {}
        Some(Some(sequence)) => {
            ledger.acknowledge(sequence);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// What a writer has to tell that was not disturbed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Sectors that were read back and right.
    pub read: u64,
    /// The longest time without an answer.
    pub pause: Duration,
}

impl Steady {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            writes: self.writes + other.writes,
            read: self.read + other.read,
            pause: self.pause.max(other.pause),
        }
    }
}

/// Writes to the ledger's region of `export` and reads back parts of it, until told to stop.
///
/// # Errors
/// When the connection breaks, a request fails, or a sector that is read is not what it must be.
pub fn write_and_read(
    port: u16,
    export: &str,
    ledger: &mut Ledger,
    rng: &mut Rng,
    stop: &AtomicBool,
) -> Result<Steady> {
    let mut nbd = Nbd::open(port, export)?;
    let (acknowledged, mut steady) = (AtomicU64::new(0), Steady::default());
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = Waiting::new();
        let mut left = READ_EVERY;
        while left > 0 || !waiting.is_empty() {
            while left > 0 && waiting.len() < DEPTH {
                let (cookie, sequence) = issue(&mut nbd, ledger, rng)?;
                waiting.insert(cookie, sequence);
                left -= 1;
            }
            let (cookie, error) = nbd.receive()?;
            ensure!(error == 0, "request refused with error {error}");
            settle(&mut waiting, cookie, ledger, &acknowledged)?;
            steady.pause = steady.pause.max(heard.elapsed());
            heard = Instant::now();
        }
        steady.read += read_back(&mut nbd, ledger, rng)?;
    }
    steady.writes = acknowledged.into_inner();
    Ok(steady)
}

/// Reads sectors somewhere in the region, of which no write is in flight.
fn read_back(nbd: &mut Nbd, ledger: &mut Ledger, rng: &mut Rng) -> Result<u64> {
    let (first, sectors) = ledger.region();
    let at = first + rng.below(sectors - READ + 1);
    let data = nbd.read(at * SECTOR_BYTES, u32::try_from(READ * SECTOR_BYTES)?)?;
    let wrong = ledger.compare(at, &data);
    ensure!(wrong.is_empty(), "stale or wrong: {:#?}", &wrong[..wrong.len().min(10)]);
    Ok(READ)
}

/// Sends a write (its sequence number is returned) or, now and then, a flush.
fn issue(nbd: &mut Nbd, ledger: &mut Ledger, rng: &mut Rng) -> Result<(u64, Option<u64>)> {
    if rng.below(32) == 0 {
        return Ok((nbd.send(Command::Flush, 0, 0, 0, &[])?, None));
    }
    let (first, count) = free_run(ledger, rng, SIZES);
    let sequence = ledger.issue(first, count);
    let data = stamp::run(first, count, sequence);
    let flags = if rng.below(8) == 0 { FUA } else { 0 };
    let len = u32::try_from(data.len())?;
    let cookie = nbd.send(Command::Write, flags, first * SECTOR_BYTES, len, &data)?;
    Ok((cookie, Some(sequence)))
}

/// A run of sectors that no write in flight touches.
pub(crate) fn free_run(ledger: &Ledger, rng: &mut Rng, sizes: &[u64]) -> (u64, u64) {
    let (first, sectors) = ledger.region();
    loop {
        let count = *rng.pick(sizes);
        let at = first + rng.below(sectors - count + 1);
        if ledger.is_free(at, count) {
            return (at, count);
        }
    }
}

/// Reads the ledger's whole region and compares; returns the sectors checked.
///
/// # Errors
/// When a sector holds what it must not, or cannot be read.
pub fn compare_all(port: u16, export: &str, ledger: &mut Ledger) -> Result<u64> {
    let mut nbd = Nbd::open(port, export)?;
    let (first, sectors) = ledger.region();
    let end = (first + sectors) * SECTOR_BYTES;
    let mut at = first * SECTOR_BYTES;
    let mut wrong = Vec::new();
    while at < end {
        let len = u32::try_from((end - at).min(u64::from(COMPARE)))?;
        let data = nbd.read(at, len)?;
        ensure!(data.len() % SECTOR == 0, "whole sectors");
        wrong.extend(ledger.compare(at / SECTOR_BYTES, &data));
        at += u64::from(len);
    }
    ensure!(
        wrong.is_empty(),
        "{} wrong sectors: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    ledger.crashed();
    Ok(sectors)
}
