//! A gateway dies: clients of the other one notice nothing, its own go on at the other one.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use trivet_e2e::cluster::{Fleet, Layout, Pulse, Stall, Tally, compare, crowd, during};

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
