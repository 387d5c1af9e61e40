//! What images and pools take is told exactly: after writes, discards, a removal, and by another primary.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trivet_e2e::cluster::{Fleet, Layout};
use trivet_e2e::nbd::{Command, Nbd};
use trivet_e2e::{Cluster, Server};

use crate::command_line::http;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Bytes that a copy of an object takes on a disk.
const OBJECT: u64 = 128 * KIB;
/// OSDs report every 5 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// Bytes and objects, as an answer about an image or a pool has them.
fn space(told: &Value) -> (Option<u64>, Option<u64>) {
    (told["used"].as_u64(), told["objects"].as_u64())
}

/// Asks until it is told so many bytes and objects.
fn until(mut ask: impl FnMut() -> Result<Value>, used: u64, objects: u64) -> Result<Value> {
    let started = Instant::now();
    loop {
        let told = ask()?;
        if space(&told) == (Some(used), Some(objects)) {
            return Ok(told);
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "{used} bytes in {objects} objects were expected: {told:#}"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

fn pool(server: &Server) -> Result<Value> {
    Ok(server.json("df")?["pools"][0].clone())
}

/// Writes 1 MiB, one unit again, one unit elsewhere, and a byte.
fn fill(nbd: &mut Nbd) -> Result<(u64, u64)> {
    nbd.write(0, &vec![1; 1 << 20])?;
    nbd.write(0, &[2; 4096])?;
    nbd.write(10 * MIB, &[3; 4096])?;
    nbd.write(20 * MIB + 5, &[4])?;
    Ok((MIB + 8 * KIB, 10))
}

#[test]
fn what_is_written_is_told_and_what_is_discarded_is_given_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create counted --size 64M")?;
    let image = || server.json("image info counted");
    until(image, 0, 0)?;
    let mut nbd = Nbd::open(server.ports.nbd, "counted")?;
    let (used, objects) = fill(&mut nbd)?;
    let told = until(image, used, objects)?;
    let writes = &told["ops"]["write"];
    ensure!(writes["count"].as_u64() == Some(8 + 3), "one for each object: {told:#}");
    ensure!(writes["bytes"].as_u64() == Some(MIB + 8 * KIB + 1), "{told:#}");
    ensure!(writes["time_us"].as_u64() > Some(0), "{told:#}");
    let told = until(|| pool(&server), used, objects)?;
    let replicas = told["replicas"].as_u64().context("a pool has replicas")?;
    ensure!(
        told["raw_used"].as_u64() == Some(objects * replicas * OBJECT),
        "{told:#}"
    );
    let list = server.json("image ls")?;
    let mut listed = list["images"].as_array().into_iter().flatten();
    ensure!(listed.any(|image| image["used"].as_u64() == Some(used)), "{list:#}");
    let metrics = http(&server, "/metrics")?;
    let labels = format!(
        "pool=\"{}\",image=\"counted\"",
        told["name"].as_str().context("a name")?
    );
    for line in [
        format!("trivet_image_used_bytes{{{labels}}} {used}"),
        format!("trivet_image_ops_total{{{labels},op=\"write\"}} 11"),
    ] {
        ensure!(metrics.lines().any(|given| given == line), "{line} is not in {metrics}");
    }
    let text = server.admin("image info counted")?.text();
    ensure!(text.contains(&format!("({used} bytes)\nobjects       10\n")), "{text}");

    nbd.clear(Command::Trim, 0, 512 << 10)?;
    nbd.clear(Command::Zero, 10 * MIB, 4096)?;
    let (used, objects) = (512 * KIB + 4 * KIB, 5);
    let told = until(image, used, objects)?;
    ensure!(told["ops"]["zero"]["count"].as_u64() == Some(4 + 1), "{told:#}");
    until(|| pool(&server), used, objects)?;
    drop(nbd);
    server.admin("image rm counted")?;
    let told = until(|| pool(&server), 0, 0)?;
    println!("{used} bytes in {objects} objects told, and nothing after removal: {told}");
    server.stop()?;
    Ok(())
}

#[test]
fn another_primary_tells_the_same_at_every_gateway() -> Result<()> {
    let mut fleet = Fleet::with_pool(&Layout::default())?;
    fleet.admin(0, "image create counted --size 64M")?;
    let (used, objects) = fill(&mut Nbd::open(fleet.nbd_ports()[0], "counted")?)?;
    fleet.wait_clean()?;
    let told_everywhere = |fleet: &Fleet| -> Result<()> {
        for gateway in 0..fleet.gateways.len() {
            let ask = || {
                let said = fleet.admin(gateway, "--json image info counted")?;
                Ok(serde_json::from_slice(&said.stdout)?)
            };
            until(ask, used, objects)?;
        }
        Ok(())
    };
    told_everywhere(&fleet)?;
    let osd = fleet.busiest()?;
    fleet.osds[osd].process.kill()?;
    told_everywhere(&fleet)?;
    fleet.osds[osd].process.start()?;
    fleet.wait_clean()?;
    told_everywhere(&fleet)?;
    println!(
        "{used} bytes in {objects} objects, without {} too",
        fleet.osds[osd].process.name
    );
    fleet.finish()
}
