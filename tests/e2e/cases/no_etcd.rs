//! etcd is away: what runs goes on running, for as long as nothing else fails.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trivet_e2e::cluster::{Fleet, Layout, Process, Pulse, Stall, compare, crowd, during};
use trivet_e2e::sized;

const IMAGE: &str = "disk";
const CLIENTS: u16 = 4;
/// Load before, and after etcd is back: leases that ran out meanwhile are lost then.
const LOAD: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(6);
/// The longest that an operation may take.
const STALL: Duration = Duration::from_secs(5);

/// What is done to each member, and how it is undone.
type Act = fn(&mut Process) -> Result<()>;

fn take_away(fleet: &mut Fleet, away: Act, back: Act, pulse: &Pulse) -> Result<(Stall, Stall)> {
    thread::sleep(LOAD);
    let before = pulse.take();
    println!(
        "before: slowest answer {:?}, {} operations",
        before.slowest, before.operations
    );
    fleet.etcd.each(away)?;
    thread::sleep(Duration::from_secs(sized(15, 60)));
    let during = pulse.take();
    fleet.etcd.each(back)?;
    let asked = Instant::now();
    fleet.etcd.wait_leader()?;
    println!("etcd leads again after {:?}", asked.elapsed());
    thread::sleep(AFTER);
    fleet.wait_clean()?;
    Ok((during, pulse.take()))
}

fn io_goes_on(away: Act, back: Act) -> Result<()> {
    let mut fleet = Fleet::with_pool(&Layout::default())?;
    fleet.admin(0, &format!("image create {IMAGE} --size 256M"))?;
    let mut clients = crowd(&fleet.nbd_ports(), &[IMAGE], CLIENTS, 9);
    let pulse = Pulse::default();
    let ((without, after), tally) = during(&mut clients, &pulse, |_| take_away(&mut fleet, away, back, &pulse))?;
    let sectors = compare(&fleet.nbd_ports(), &mut clients)?;
    println!(
        "without etcd {} operations, slowest answer {:?}, longest silence {:?}; after its return {} operations, slowest \
         {:?}; {} writes acknowledged, {} sectors read meanwhile, {sectors} afterwards, 0 wrong",
        without.operations, without.slowest, without.gap, after.operations, after.slowest, tally.writes, tally.read
    );
    ensure!(without.operations > 0 && tally.breaks == 0, "{without:?} {tally:?}");
    ensure!(
        without.slowest.max(without.gap) <= STALL,
        "stalled without etcd: {without:?}"
    );
    ensure!(after.slowest <= STALL, "stalled after etcd's return: {after:?}");
    fleet.finish()
}

#[test]
fn io_goes_on_while_etcd_is_stopped() -> Result<()> {
    io_goes_on(|member| member.stop(), |member| member.resume())
}

#[test]
fn io_goes_on_while_etcd_is_dead_and_restarts() -> Result<()> {
    io_goes_on(Process::kill, Process::start)
}
