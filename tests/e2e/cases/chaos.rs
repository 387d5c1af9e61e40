//! Everything fails at random, from a seed, under a stamping load through both gateways; at the end every sector
//! holds its last acknowledged write, or one that was never answered, and both gateways say so.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::{Faults, Fleet, Layout, Pulse, compare, crowd, during};
use trivet_e2e::sized;

const IMAGES: &[&str] = &["one", "two", "three"];
const CLIENTS: u16 = 6;
/// Load after the last fault.
const CALM: Duration = Duration::from_secs(3);
/// P4: no operation may wait longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `TRIVET_SEED`, or always the same.
fn seed() -> Result<u64> {
    match std::env::var("TRIVET_SEED") {
        Ok(seed) => seed.parse().context("TRIVET_SEED"),
        Err(_) => Ok(2026),
    }
}

/// Faults until the time is over or a client fails, and a calm end.
fn rage(fleet: &mut Fleet, faults: &mut Faults, time: Duration, failed: &dyn Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < time && !failed() {
        faults.tick(fleet)?;
        thread::sleep(Duration::from_millis(20));
    }
    faults.heal(fleet)?;
    thread::sleep(CALM);
    Ok(())
}

#[test]
fn chaos_loses_no_acknowledged_write() -> Result<()> {
    let seed = seed()?;
    println!("seed {seed}");
    let layout = Layout {
        proxies: true,
        ..Layout::default()
    };
    let mut fleet = Fleet::with_pool(&layout)?;
    for image in IMAGES {
        fleet.admin(0, &format!("image create {image} --size 64M"))?;
    }
    let mut clients = crowd(&fleet.nbd_ports(), IMAGES, CLIENTS, seed);
    let (pulse, mut faults) = (Pulse::default(), Faults::new(seed));
    let time = Duration::from_secs(sized(120, 1200));
    let ((), tally) = during(&mut clients, &pulse, |failed| {
        rage(&mut fleet, &mut faults, time, failed)
    })
    .with_context(|| format!("after {}", faults.summary()))?;
    let stall = pulse.take();
    ensure!(tally.breaks > 0, "no client noticed anything");
    let clean = fleet.wait_clean()?;
    let sectors = compare(&fleet, &mut clients)?;
    println!(
        "{} writes acknowledged, {} sent again, {} sectors read meanwhile, {sectors} at the end, {} connections broke, \
         slowest answer {:?}, clean {clean:?} after the load",
        tally.writes, tally.resent, tally.read, tally.breaks, stall.slowest
    );
    ensure!(stall.slowest < PATIENCE, "an operation waited {:?}", stall.slowest);
    println!(
        "chaos: {}, {} operations, 0 lost acknowledged writes",
        faults.summary(),
        stall.operations
    );
    fleet.finish()
}
