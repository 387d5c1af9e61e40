//! `kill -9` in the middle of writes, again and again: what was acknowledged is
//! there, whole, and what was in flight is old or new in each sector.

use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::ledger::Ledger;
use trivet_e2e::storm::{compare_all, write_until_death};
use trivet_e2e::{Cluster, Rng, sized};

const CONNECTIONS: u64 = 4;
/// Sectors of each connection's region: 8 MiB, so that most are written often.
const SECTORS: u64 = 16 * 1024;
const IMAGE: &str = "demo";

/// All connections write until the server is killed; returns the writes acknowledged.
fn storm_and_kill(cluster: &Cluster, ledgers: &mut [Ledger], rng: &mut Rng) -> Result<u64> {
    let server = cluster.start()?;
    let port = server.ports.nbd;
    let acknowledged = AtomicU64::new(0);
    let after = Duration::from_millis(300 + rng.below(1200));
    thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = ledgers
            .iter_mut()
            .map(|ledger| {
                let (mut rng, count) = (Rng::new(rng.number()), &acknowledged);
                scope.spawn(move || write_until_death(port, IMAGE, ledger, &mut rng, count))
            })
            .collect();
        thread::sleep(after);
        server.kill()?;
        for writer in writers {
            writer.join().expect("a writer that does not panic")?;
        }
        Ok(())
    })?;
    Ok(acknowledged.into_inner())
}

fn compare(cluster: &Cluster, ledgers: &mut [Ledger]) -> Result<(u64, Duration)> {
    let asked = Instant::now();
    let server = cluster.start()?;
    let restart = asked.elapsed();
    let mut sectors = 0;
    for ledger in ledgers {
        sectors += compare_all(server.ports.nbd, IMAGE, ledger)?;
    }
    server.stop()?;
    Ok((sectors, restart))
}

#[test]
fn no_acknowledged_write_is_lost_by_kills() -> Result<()> {
    let cluster = Cluster::alone()?;
    let mut rng = Rng::new(2026);
    let mut ledgers: Vec<Ledger> = (0..CONNECTIONS)
        .map(|number| Ledger::new(number * SECTORS, SECTORS))
        .collect();
    let kills = sized(3, 20);
    let (mut writes, mut sectors, mut in_flight, mut slowest) = (0, 0, 0, Duration::ZERO);
    for kill in 1..=kills {
        let acknowledged = storm_and_kill(&cluster, &mut ledgers, &mut rng)?;
        ensure!(acknowledged > 0, "kill {kill} came before any write was acknowledged");
        writes += acknowledged;
        in_flight += ledgers.iter().map(Ledger::in_flight).sum::<usize>();
        let (compared, restart) = compare(&cluster, &mut ledgers).with_context(|| format!("after kill {kill}"))?;
        sectors += compared;
        slowest = slowest.max(restart);
    }
    ensure!(in_flight > 0, "no kill met a write in flight");
    println!(
        "{kills} kills: {writes} writes acknowledged, {in_flight} in flight when killed, {sectors} sectors checked, \
         0 lost; slowest restart {slowest:?}"
    );
    Ok(())
}

/// The comparison above would notice: a sector is changed behind the ledger's back, another is zeroed.
#[test]
fn the_comparison_notices_lost_and_foreign_sectors() -> Result<()> {
    let cluster = Cluster::alone()?;
    let mut ledgers = [Ledger::new(0, SECTORS)];
    storm_and_kill(&cluster, &mut ledgers, &mut Rng::new(1))?;
    compare(&cluster, &mut ledgers)?;
    let server = cluster.start()?;
    let mut nbd = trivet_e2e::nbd::Nbd::open(server.ports.nbd, IMAGE)?;
    let sequence = ledgers[0].issue(100, 2);
    nbd.write(100 * 512, &trivet_e2e::stamp::run(100, 2, sequence))?;
    ledgers[0].acknowledge(sequence);
    nbd.write(100 * 512, &trivet_e2e::stamp::run(200, 1, sequence))?;
    nbd.write(101 * 512, &[0; 512])?;
    let error = compare_all(server.ports.nbd, IMAGE, &mut ledgers[0]).expect_err("two wrong sectors");
    assert!(error.to_string().starts_with("2 wrong sectors"), "{error}");
    server.stop()?;
    Ok(())
}
