//! An OSD goes and comes back under load: no error, nothing lost, the missed
//! objects recovered, so that another OSD can go.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trivet_e2e::{Cluster, Server, sized};

use crate::verified_load::{finish, fio, total};

/// An outage must last longer than the time in which OSDs notice it.
const OUTAGE: Duration = Duration::from_secs(3);
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);

/// Whether every OSD is up and every PG has all its copies.
fn is_clean(status: &Value) -> bool {
    let (osds, pgs) = (&status["osds"], &status["pgs"]);
    osds["total"].as_u64() == Some(3)
        && osds["up"] == osds["total"]
        && pgs["total"].as_u64().is_some_and(|total| total > 0)
        && pgs["clean"] == pgs["total"]
        && status["recovery"]["objects_missing"] == 0
}

pub fn wait_clean(server: &Server) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let status = server.json("status")?;
        if is_clean(&status) {
            return Ok(started.elapsed());
        }
        ensure!(
            started.elapsed() < RECOVERY_LIMIT,
            "not clean after {RECOVERY_LIMIT:?}: {status:#}"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn io_goes_on_without_an_osd_and_its_return_is_complete() -> Result<()> {
    let cluster = Cluster::alone()?.plain();
    let mut server = cluster.start()?;
    server.expect_log("OSD ");
    server.admin("image create verified --size 2G")?;
    let slow = format!("--rate={}", sized("4m", "8m"));
    let mut load = fio(&server, "verified", &slow).start()?;
    let mut outages = 0;
    while load.runs()? && outages < sized(2, 6) {
        thread::sleep(Duration::from_secs(1));
        server.admin("osd stop 1")?;
        thread::sleep(OUTAGE);
        server.admin("osd start 1")?;
        outages += 1;
    }
    ensure!(outages >= 2, "the load ended after {outages} outages");
    let (written, checked) = finish(load)?;
    assert!(written >= total() && checked >= total());
    let took = wait_clean(&server)?;
    println!("{outages} outages under load: {written} bytes written, {checked} checked, clean {took:?} later");

    // What the OSD missed must be there now: read without each of the others.
    for other in other_osds(&server)? {
        server.admin(&format!("osd stop {other}"))?;
        let (_, checked) = finish(fio(&server, "verified", "--verify_only=1").start()?)?;
        server.admin(&format!("osd start {other}"))?;
        let took = wait_clean(&server)?;
        println!("without OSD {other}: {checked} bytes checked; clean {took:?} after its return");
    }
    server.stop()?;
    Ok(())
}

/// The ids of the OSDs but 1.
fn other_osds(server: &Server) -> Result<Vec<u64>> {
    let list = server.json("osd ls")?;
    let osds = list["osds"].as_array().context("osd ls has osds")?;
    let ids: Vec<u64> = osds
        .iter()
        .filter_map(|osd| osd["id"].as_u64())
        .filter(|id| *id != 1)
        .collect();
    ensure!(ids.len() == 2, "osd ls: {list}");
    Ok(ids)
}
