//! An OSD dies, or stops for longer than its lease lasts: how long clients wait, and that nothing is lost or stale.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trivet_e2e::cluster::pulse::median;
use trivet_e2e::cluster::{Fleet, Layout, Pulse, Stall, compare, crowd, during};
use trivet_e2e::sized;

const IMAGE: &str = "disk";
const CLIENTS: u16 = 4;
/// Load before something happens.
const LOAD: Duration = Duration::from_secs(1);
/// How long an OSD stays away: as long as clients may wait for the others.
const AWAY: Duration = Duration::from_secs(5);
/// What the slowest request may take when an OSD dies, and half of the times.
const LONGEST: Duration = Duration::from_secs(5);
const USUAL: Duration = Duration::from_secs(1);
/// Far longer than leases (5 s) and the time in which OSDs take each other for silent (2 s).
const STOPPED: Duration = Duration::from_secs(20);
/// A stopped OSD's sockets are still open: it has to be found silent.
const SILENCE: Duration = Duration::from_secs(8);

fn start() -> Result<Fleet> {
    let fleet = Fleet::with_pool(&Layout::default())?;
    fleet.admin(0, &format!("image create {IMAGE} --size 256M"))?;
    Ok(fleet)
}

/// Kills an OSD under load and starts it again; returns how long clients had to wait while it was away, and before
/// that: an operation counts when it is answered, which may be after an OSD's return.
fn kill(fleet: &mut Fleet, osd: usize, pulse: &Pulse) -> Result<(Duration, Duration)> {
    fleet.wait_clean()?;
    thread::sleep(LOAD);
    let before = pulse.take();
    fleet.osds[osd].process.kill()?;
    thread::sleep(AWAY);
    let away = pulse.take();
    fleet.osds[osd].process.start()?;
    fleet.wait_ready()?;
    println!(
        "{} killed: slowest answer {:?}, longest silence {:?}, {} operations (before: {:?}, {:?}, {})",
        fleet.osds[osd].process.name,
        away.slowest,
        away.gap,
        away.operations,
        before.slowest,
        before.gap,
        before.operations
    );
    Ok((away.slowest, before.slowest))
}

/// How long clients had to wait at each kill, and at most at other times.
fn kills(
    fleet: &mut Fleet,
    count: usize,
    pulse: &Pulse,
    failed: &dyn Fn() -> bool,
) -> Result<(Vec<Duration>, Duration)> {
    let (mut waits, mut between) = (Vec::new(), Duration::ZERO);
    for number in 0..count {
        if failed() {
            break;
        }
        let osd = if number == 0 {
            fleet.busiest()?
        } else {
            number % fleet.osds.len()
        };
        let (away, before) = kill(fleet, osd, pulse)?;
        waits.push(away);
        between = between.max(before);
    }
    fleet.wait_clean()?;
    thread::sleep(LOAD);
    Ok((waits, between.max(pulse.take().slowest)))
}

#[test]
fn an_osd_that_dies_is_not_missed_for_long() -> Result<()> {
    let mut fleet = start()?;
    let mut clients = crowd(&fleet.nbd_ports(), &[IMAGE], CLIENTS, 5);
    let (pulse, count) = (Pulse::default(), sized(5, 50));
    let ((waits, between), tally) = during(&mut clients, &pulse, |failed| kills(&mut fleet, count, &pulse, failed))?;
    let sectors = compare(&fleet.nbd_ports(), &mut clients)?;
    let (middle, longest) = (median(&waits), waits.iter().max().copied().unwrap_or_default());
    println!(
        "{count} OSDs killed: slowest answer p50 {middle:?}, max {longest:?}, at other times {between:?}; {} writes \
         acknowledged, {} sectors read meanwhile, {sectors} afterwards, 0 lost",
        tally.writes, tally.read
    );
    ensure!(tally.breaks == 0, "{} connections broke", tally.breaks);
    ensure!(
        middle <= USUAL && longest.max(between) <= LONGEST,
        "too long: {waits:?}, {between:?}"
    );
    fleet.finish()
}

/// Stops the OSD that is primary of most PGs, and wakes it.
fn stop(fleet: &mut Fleet, pulse: &Pulse) -> Result<(Stall, Stall)> {
    thread::sleep(LOAD);
    let osd = fleet.busiest()?;
    pulse.take();
    fleet.osds[osd].process.stop()?;
    let stopped = Instant::now();
    thread::sleep(STOPPED);
    let during = pulse.take();
    let acting = fleet.primaries()?.remove(&osd).unwrap_or_default();
    fleet.osds[osd].process.resume()?;
    println!(
        "{} stopped for {:?}, then primary of {acting} PGs",
        fleet.osds[osd].process.name,
        stopped.elapsed()
    );
    fleet.wait_clean()?;
    thread::sleep(LOAD);
    Ok((during, pulse.take()))
}

#[test]
fn an_osd_that_wakes_up_late_harms_nobody() -> Result<()> {
    let mut fleet = start()?;
    let mut clients = crowd(&fleet.nbd_ports(), &[IMAGE], CLIENTS, 6);
    let pulse = Pulse::default();
    let ((stopped, woken), tally) = during(&mut clients, &pulse, |_| stop(&mut fleet, &pulse))?;
    let sectors = compare(&fleet.nbd_ports(), &mut clients)?;
    println!(
        "slowest answer while it was stopped {:?}, after it woke {:?}; {} + {} operations, {} writes acknowledged, {} \
         sectors read meanwhile, {sectors} afterwards, 0 stale, 0 lost",
        stopped.slowest, woken.slowest, stopped.operations, woken.operations, tally.writes, tally.read
    );
    ensure!(
        stopped.slowest.max(woken.slowest) <= SILENCE,
        "hung: {stopped:?} {woken:?}"
    );
    ensure!(stopped.operations > 0 && tally.breaks == 0, "{stopped:?} {tally:?}");
    fleet.finish()
}
