//! A writer that stamps what it writes and keeps a ledger of what it was told,
//! until the server dies under it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

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
        match waiting.remove(&cookie) {
            None => bail!("answer to cookie {cookie}, which nobody sent"),
            Some(None) => {}
            Some(Some(sequence)) => {
                ledger.acknowledge(sequence);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Sends a write (its sequence number is returned) or, now and then, a flush.
fn issue(nbd: &mut Nbd, ledger: &mut Ledger, rng: &mut Rng) -> Result<(u64, Option<u64>)> {
    if rng.below(32) == 0 {
        return Ok((nbd.send(Command::Flush, 0, 0, 0, &[])?, None));
    }
    let (first, count) = free_run(ledger, rng);
    let sequence = ledger.issue(first, count);
    let data = stamp::run(first, count, sequence);
    let flags = if rng.below(8) == 0 { FUA } else { 0 };
    let len = u32::try_from(data.len())?;
    let cookie = nbd.send(Command::Write, flags, first * SECTOR_BYTES, len, &data)?;
    Ok((cookie, Some(sequence)))
}

/// A run of sectors that no write in flight touches.
fn free_run(ledger: &Ledger, rng: &mut Rng) -> (u64, u64) {
    let (first, sectors) = ledger.region();
    loop {
        let count = *rng.pick(SIZES);
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
