//! A gateway dies: clients of the other one notice nothing, its own go on at the other one. And two gateways serve one sector.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::{Fleet, Layout, Pulse, Stall, Tally, compare, crowd, during};
use trivet_e2e::sized;
use trivet_e2e::way::{Protocol, Way};

const IMAGE: &str = "disk";
/// Load before and while the gateway is away.
const LOAD: Duration = Duration::from_secs(3);
/// From the start to the line `ready`.
const RESTART: Duration = Duration::from_secs(5);
/// What clients of the gateway that lives may wait: its load changes, nothing else does.
const HICCUP: Duration = Duration::from_secs(2);

/// Kills the first gateway and starts it again; returns what the others' clients felt, and how long the start took.
fn kill(fleet: &mut Fleet, pulse: &Pulse) -> Result<(Stall, Duration)> {
    thread::sleep(LOAD);
    pulse.take();
    fleet.gateways[0].process.kill()?;
    thread::sleep(LOAD);
    let stall = pulse.take();
    fleet.gateways[0].process.start()?;
    let took = fleet.gateways[0].process.wait_ready(RESTART)?;
    thread::sleep(LOAD);
    Ok((stall, took))
}

#[test]
fn a_gateway_that_dies_harms_no_other() -> Result<()> {
    let mut fleet = Fleet::with_pool(&Layout::default())?;
    fleet.admin(0, &format!("image create {IMAGE} --size 256M"))?;
    fleet.admin(0, "image create other --size 256M")?;
    let ports = fleet.nbd_ports();
    let mut faithful = crowd(&ports[1..], &[IMAGE], 3, 7);
    let mut movers = crowd(&ports, &["other"], 2, 8);
    let (pulse, unmeasured) = (Pulse::default(), Pulse::default());
    let mut moved = Tally::default();
    let ((stall, took), tally) = during(&mut faithful, &pulse, |_| {
        let (felt, tally) = during(&mut movers, &unmeasured, |_| kill(&mut fleet, &pulse))?;
        moved = tally;
        Ok(felt)
    })?;
    let sectors = compare(&fleet.nbd_ports(), &mut faithful)? + compare(&fleet.nbd_ports(), &mut movers)?;
    println!(
        "gateway killed: at the other one {} operations meanwhile, slowest answer {:?}; ready {took:?} after the restart; \
         its own clients: {} connections broke, {} writes sent again; {sectors} sectors checked, 0 lost",
        stall.operations, stall.slowest, moved.breaks, moved.resent
    );
    ensure!(tally.breaks == 0 && moved.breaks > 0, "{tally:?} {moved:?}");
    ensure!(stall.operations > 0 && stall.slowest <= HICCUP, "{stall:?}");
    fleet.finish()
}

const PATIENCE: Duration = Duration::from_secs(10);
const SECTOR: usize = 512;

/// Writes a sector again and again, and takes the time of each.
fn hammer(way: &mut Way, at: u64, fill: u8, time: Duration) -> Result<Vec<Duration>> {
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let asked = Instant::now();
        way.write(1, at, &[fill; SECTOR])?;
        way.written(PATIENCE)?;
        took.push(asked.elapsed());
    }
    Ok(took)
}

/// The latencies of two clients at two gateways that write these places at the same time, ascending.
fn together(ways: &mut [Way], places: [u64; 2], time: Duration) -> Result<Vec<Duration>> {
    let mut took = thread::scope(|scope| {
        let clients = ways.iter_mut().zip(places).zip(1..);
        let threads: Vec<_> = clients
            .map(|((way, at), fill)| scope.spawn(move || hammer(way, at, fill, time)))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("it does not panic")?);
        }
        anyhow::Ok(all)
    })?;
    took.sort_unstable();
    Ok(took)
}

fn at(took: &[Duration], thousandths: usize) -> Result<Duration> {
    let last = took.len().checked_sub(1).context("nothing was written")?;
    Ok(took[last * thousandths / 1000])
}

/// Each change meets one of the other gateway: *overtaken*, and a look at whether its client is still there.
#[test]
fn a_sector_that_two_gateways_write_costs_a_round_trip() -> Result<()> {
    const FAR: u64 = 32 << 20;
    let rounds = sized(3, 10);
    let fleet = Fleet::with_pool(&Layout::default())?;
    fleet.admin(0, &format!("image create {IMAGE} --size 64M"))?;
    for protocol in [Protocol::Iscsi, Protocol::Nbd] {
        let mut ways = Vec::new();
        for (number, gateway) in fleet.gateways.iter().take(2).enumerate() {
            let name = format!("client{number}");
            ways.push(Way::open(protocol, gateway.ports, IMAGE, &name, PATIENCE)?);
        }
        for _ in 0..rounds {
            let apart = together(&mut ways, [0, FAR], Duration::from_secs(1))?;
            let same = together(&mut ways, [0, 0], Duration::from_secs(1))?;
            println!(
                "{}: {} writes of two sectors, p50 {:?}, p99 {:?}; {} writes of one, p50 {:?}, p99 {:?}",
                protocol.name(),
                apart.len(),
                at(&apart, 500)?,
                at(&apart, 990)?,
                same.len(),
                at(&same, 500)?,
                at(&same, 990)?,
            );
        }
        let read = ways[0].read(0, 512, PATIENCE)?;
        ensure!(read == [1; SECTOR] || read == [2; SECTOR], "torn or lost");
    }
    fleet.finish()
}
