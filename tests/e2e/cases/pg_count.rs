//! The number of PGs changes under load, up and down, while OSDs die: nobody waits for long, nothing is lost.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trivet_e2e::cluster::{Fleet, Layout, Pulse, compare, crowd, during};

const IMAGE: &str = "disk";
const CLIENTS: u16 = 4;
/// From 32 on: twice as many, a number that is no multiple, fewer.
const COUNTS: [u32; 4] = [64, 48, 24, 96];
/// Within this time the monitor has carried it out.
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// What the slowest request may take, also if an OSD dies meanwhile.
const LONGEST: Duration = Duration::from_secs(5);

/// Changes the number and waits until there are so many; with an OSD that is killed at that moment, or not.
fn change(fleet: &mut Fleet, count: u32, killed: Option<usize>, pulse: &Pulse) -> Result<Duration> {
    fleet.wait_clean()?;
    pulse.take();
    fleet.set_pgs(count)?;
    let started = Instant::now();
    if let Some(osd) = killed {
        fleet.osds[osd].process.kill()?;
    }
    while fleet.pgs()? != u64::from(count) {
        ensure!(started.elapsed() < LIMIT, "not {count} PGs after {LIMIT:?}");
        thread::sleep(POLL);
    }
    let took = started.elapsed();
    if let Some(osd) = killed {
        thread::sleep(LONGEST);
        fleet.osds[osd].process.start()?;
        fleet.wait_ready()?;
    }
    let clean = fleet.wait_clean()?;
    let stall = pulse.take();
    println!(
        "{count} PGs after {took:?}{}, clean {clean:?} later; slowest answer {:?}, {} operations",
        if killed.is_some() { ", an OSD killed" } else { "" },
        stall.slowest,
        stall.operations
    );
    Ok(stall.slowest)
}

#[test]
fn the_number_of_pgs_changes_under_load() -> Result<()> {
    let mut fleet = Fleet::with_pool(&Layout::default())?;
    fleet.admin(0, &format!("image create {IMAGE} --size 256M"))?;
    let refused = fleet.cli(0, "pool modify data --pgs 31")?;
    ensure!(!refused.status.success(), "31 cannot follow 32 in one step");
    let mut clients = crowd(&fleet.nbd_ports(), &[IMAGE], CLIENTS, 11);
    let pulse = Pulse::default();
    let (slowest, tally) = during(&mut clients, &pulse, |_| {
        let mut slowest = Duration::ZERO;
        for (at, count) in COUNTS.into_iter().enumerate() {
            let killed = (at % 2 == 1).then_some(at);
            slowest = slowest.max(change(&mut fleet, count, killed, &pulse)?);
        }
        Ok(slowest)
    })?;
    let sectors = compare(&fleet.nbd_ports(), &mut clients)?;
    println!(
        "{} changes of the number of PGs, 2 OSDs killed: slowest answer {slowest:?}; {} writes acknowledged, {} sectors \
         read meanwhile, {sectors} afterwards, 0 lost",
        COUNTS.len(),
        tally.writes,
        tally.read
    );
    ensure!(tally.breaks == 0, "{} connections broke", tally.breaks);
    ensure!(slowest <= LONGEST, "too long: {slowest:?}");
    fleet.finish()
}
