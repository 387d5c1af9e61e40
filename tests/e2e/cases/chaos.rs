//! Everything fails at random, from a seed, under a stamping load through both gateways; at the end every sector
//! holds its last acknowledged write, or one that was never answered, and both gateways say so.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::{Faults, Fleet, Layout, Pulse, compare, crowd, during};
use trivet_e2e::nbd::Nbd;
use trivet_e2e::{Cluster, sized, stamp};

const IMAGES: &[&str] = &["one", "two", "three"];
const CLIENTS: u16 = 6;
/// Load after the last fault.
const CALM: Duration = Duration::from_secs(3);
/// Load on one process.
const BRIEF: Duration = Duration::from_secs(1);
/// P4: no operation may wait longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `TRIVET_SEED`, or always the same.
pub(crate) fn seed() -> Result<u64> {
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
    let sectors = compare(&fleet.nbd_ports(), &mut clients)?;
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

/// The clients would notice: one gateway dies under them, and what they wrote is there; then a sector goes back to an
/// older write, and they say so.
#[test]
fn the_clients_notice_a_sector_that_went_back() -> Result<()> {
    let cluster = Cluster::alone()?;
    let mut server = cluster.start()?;
    let (ports, pulse) = ([server.ports.nbd], Pulse::default());
    let mut clients = crowd(&ports, &["demo"], 2, 1);
    let (restarted, tally) = during(&mut clients, &pulse, |_| {
        thread::sleep(BRIEF);
        server.kill()?;
        let server = cluster.start()?;
        thread::sleep(BRIEF);
        Ok(server)
    })?;
    server = restarted;
    ensure!(tally.breaks == 2 && tally.writes > 0 && tally.read > 0, "{tally:?}");
    compare(&ports, &mut clients)?;
    let ledger = &mut clients[1].ledger;
    let (first, _) = ledger.region();
    let mut nbd = Nbd::open(ports[0], "demo")?;
    let old = ledger.issue(first, 1);
    ledger.acknowledge(old);
    let sequence = ledger.issue(first, 8);
    nbd.write(first * 512, &stamp::run(first, 8, sequence))?;
    ledger.acknowledge(sequence);
    nbd.write(first * 512, &stamp::run(first, 1, old))?;
    let error = compare(&ports, &mut clients).expect_err("an older sector");
    ensure!(error.to_string().contains("1 wrong sectors"), "{error:#}");
    server.stop()?;
    Ok(())
}
