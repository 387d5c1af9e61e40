//! The whole process does not run for longer than its leases last, in the middle
//! of writes: it goes on as if nothing had been.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trivet_e2e::ledger::Ledger;
use trivet_e2e::storm::{Steady, compare_all, write_and_read};
use trivet_e2e::{Cluster, Rng, Server};

use crate::osd_outage::wait_clean;

const CONNECTIONS: u64 = 4;
/// Sectors of each connection's region: 8 MiB, so that most are written often.
const SECTORS: u64 = 16 * 1024;
const IMAGE: &str = "demo";
/// Leases run out after 5 s, and OSDs take each other for silent after 2 s.
const PAUSE: Duration = Duration::from_secs(12);
/// Load before and after.
const LOAD: Duration = Duration::from_secs(2);
/// Operations may wait for new leases, claims and interviews.
const PATIENCE: Duration = Duration::from_secs(8);

/// All connections write and read while the server is stopped and woken.
fn pause_under_load(server: &Server, ledgers: &mut [Ledger], rng: &mut Rng) -> Result<Steady> {
    let (port, stop) = (server.ports.nbd, AtomicBool::new(false));
    thread::scope(|scope| {
        let writers: Vec<_> = ledgers
            .iter_mut()
            .map(|ledger| {
                let (mut rng, stop) = (Rng::new(rng.number()), &stop);
                scope.spawn(move || write_and_read(port, IMAGE, ledger, &mut rng, stop))
            })
            .collect();
        thread::sleep(LOAD);
        let paused = server.pause(PAUSE);
        thread::sleep(LOAD);
        stop.store(true, Ordering::Relaxed);
        let results = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer that does not panic"));
        let total = results.reduce(|a, b| Ok(a?.and(b?))).expect("some writers");
        paused.and(total)
    })
}

#[test]
fn a_pause_longer_than_the_leases_loses_nothing() -> Result<()> {
    let cluster = Cluster::alone()?;
    let mut server = cluster.start()?;
    // What hung on leases that ran out is refused: "lease N was lost", "lease N does not exist".
    server.expect_log("lease ");
    let mut ledgers: Vec<Ledger> = (0..CONNECTIONS)
        .map(|number| Ledger::new(number * SECTORS, SECTORS))
        .collect();
    let steady = pause_under_load(&server, &mut ledgers, &mut Rng::new(12))?;
    ensure!(steady.pause >= PAUSE, "the pause was not felt: {steady:?}");
    ensure!(steady.pause < PAUSE + PATIENCE, "hung after the pause: {steady:?}");
    // Whether a lease is ended or kept alive first is a race when the process wakes: both have to be survived.
    let lost = server.log.with("was lost, taking a new one").len();
    let clean = wait_clean(&server)?;
    let mut sectors = 0;
    for ledger in &mut ledgers {
        sectors += compare_all(server.ports.nbd, IMAGE, ledger)?;
    }
    wait_healthy(&server)?;
    // OSDs can still be stopped and started: they have leases.
    server.admin("osd stop 2")?;
    server.admin("osd start 2")?;
    wait_clean(&server)?;
    println!(
        "stopped for {PAUSE:?} under load: {} writes acknowledged, {} sectors read meanwhile, {sectors} afterwards, 0 wrong; \
         {lost} leases lost, longest time without an answer {:?}, clean {clean:?} after the load",
        steady.writes, steady.read, steady.pause
    );
    server.stop()?;
    Ok(())
}

fn wait_healthy(server: &Server) -> Result<()> {
    let started = Instant::now();
    loop {
        let status = server.json("status")?;
        if status["health"] == "ok" {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "not healthy: {status:#}");
        thread::sleep(Duration::from_millis(100));
    }
}
