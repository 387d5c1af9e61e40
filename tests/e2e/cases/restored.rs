//! The metadata comes from a backup, or is gone: everybody stands still, and says why; adopted, it loses no data.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use trivet_e2e::cluster::{Client, Fleet, Layout, Process, Pulse, compare, crowd, during};
use trivet_e2e::nbd::Nbd;

const IMAGE: &str = "disk";
const LATER: &str = "later";
const CLIENTS: u16 = 3;
const LOAD: Duration = Duration::from_secs(4);
/// The mark is raised every 10 s.
const MARKS: Duration = Duration::from_secs(12);
/// Until the health tells what is wrong.
const NOTICED: Duration = Duration::from_secs(30);
/// While everybody stands still.
const STILL: Duration = Duration::from_secs(8);
/// How an image that was made after the backup begins.
const TEXT: &[u8; 4096] = &[0xa7; 4096];

/// A cluster whose clients and images went on after the backup of its metadata: the OSDs moved data meanwhile.
struct Scene {
    fleet: Fleet,
    clients: Vec<Client>,
    backup: TempDir,
}

fn load(fleet: &Fleet, clients: &mut [Client]) -> Result<()> {
    let pulse = Pulse::default();
    let (_, tally) = during(clients, &pulse, |_| {
        thread::sleep(LOAD);
        Ok(())
    })?;
    ensure!(tally.writes > 0, "{tally:?}");
    fleet.wait_clean().map(drop)
}

fn scene() -> Result<Scene> {
    let layout = Layout {
        etcds: 1,
        ..Layout::default()
    };
    let mut fleet = Fleet::with_pool(&layout)?;
    fleet.admin(0, &format!("image create {IMAGE} --size 256M"))?;
    let mut clients = crowd(&fleet.nbd_ports(), &[IMAGE], CLIENTS, 21);
    load(&fleet, &mut clients)?;
    fleet.etcd.each(Process::kill)?;
    let backup = fleet.etcd.backup()?;
    fleet.etcd.each(Process::start)?;
    fleet.etcd.wait_leader()?;
    fleet.wait_clean()?;
    // Acting sets are others than the backup says, and those that it names drop what they have.
    fleet.admin(0, "osd out 1")?;
    thread::sleep(MARKS);
    fleet.wait_clean()?;
    fleet.admin(0, &format!("image create {LATER} --size 1M"))?;
    Nbd::open(fleet.nbd_ports()[0], LATER)?.write(0, TEXT)?;
    load(&fleet, &mut clients)?;
    Ok(Scene { fleet, clients, backup })
}

/// Waits until the health names the store.
fn until_noticed(fleet: &Fleet) -> Result<()> {
    let started = Instant::now();
    loop {
        let status = fleet.status(0);
        let told = |status: &serde_json::Value| status["reasons"].to_string().contains("metadata store is older than");
        match status {
            Ok(status) if status["health"] == "error" && told(&status) => {
                println!("noticed after {:?}: {}", started.elapsed(), status["reasons"]);
                return Ok(());
            }
            status => ensure!(started.elapsed() < NOTICED, "nobody notices: {status:#?}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Nobody serves anything, and all the objects stay.
fn stands_still(fleet: &Fleet) -> Result<()> {
    let objects = || -> Result<u64> {
        let osds: serde_json::Value = serde_json::from_slice(&fleet.admin(0, "osd ls --json")?.stdout)?;
        let counts = osds["osds"].as_array().into_iter().flatten();
        Ok(counts.filter_map(|osd| osd["objects"].as_u64()).sum())
    };
    let before = objects()?;
    let started = Instant::now();
    while started.elapsed() < STILL {
        let status = fleet.status(0)?;
        ensure!(status["pgs"]["active"] == 0, "a PG serves: {status:#}");
        thread::sleep(Duration::from_millis(200));
    }
    ensure!(objects()? >= before, "objects were dropped");
    Ok(())
}

/// Adopts, and compares all that clients wrote before and after the backup.
fn goes_on(scene: Scene) -> Result<()> {
    let Scene { fleet, mut clients, .. } = scene;
    fleet.admin(0, "meta adopt")?;
    let took = fleet.wait_clean()?;
    let sectors = compare(&fleet.nbd_ports(), &mut clients)?;
    println!("adopted: clean after {took:?}, {sectors} sectors checked, 0 lost");
    let images: serde_json::Value = serde_json::from_slice(&fleet.admin(0, "image ls --json")?.stdout)?;
    let paths = images["images"].as_array().into_iter().flatten();
    let paths: Vec<String> = paths
        .filter_map(|image| image["path"].as_str().map(str::to_owned))
        .collect();
    let found: Vec<&String> = paths.iter().filter(|path| path.starts_with("lost+found/")).collect();
    ensure!(
        found.len() == 1,
        "what was made after the backup has no name: {paths:?}"
    );
    let mut nbd = Nbd::open(fleet.nbd_ports()[0], found[0])?;
    ensure!(nbd.read(0, 4096)? == TEXT, "it has other data");
    // A new image begins empty: its number was never given before.
    fleet.admin(0, &format!("image create {LATER} --size 1M"))?;
    let mut nbd = Nbd::open(fleet.nbd_ports()[1], LATER)?;
    ensure!(nbd.read(0, 4096)? == [0; 4096], "old data in a new image");
    load(&fleet, &mut clients)?;
    compare(&fleet.nbd_ports(), &mut clients)?;
    fleet.finish()
}

#[test]
fn a_backup_under_running_processes_is_noticed_and_adopted() -> Result<()> {
    let mut scene = scene()?;
    let etcd = &mut scene.fleet.etcd;
    etcd.each(Process::kill)?;
    etcd.restore(Some(&scene.backup))?;
    etcd.each(Process::start)?;
    until_noticed(&scene.fleet)?;
    stands_still(&scene.fleet)?;
    goes_on(scene)
}

#[test]
fn a_backup_under_stopped_processes_is_noticed_and_adopted() -> Result<()> {
    let mut scene = scene()?;
    scene.fleet.kill_everything()?;
    scene.fleet.etcd.restore(Some(&scene.backup))?;
    scene.fleet.start_everything()?;
    until_noticed(&scene.fleet)?;
    stands_still(&scene.fleet)?;
    goes_on(scene)
}

#[test]
fn a_wiped_store_is_noticed_and_the_newest_backup_brings_everything_back() -> Result<()> {
    let mut scene = scene()?;
    let etcd = &mut scene.fleet.etcd;
    etcd.each(Process::kill)?;
    let newest = etcd.backup()?;
    etcd.restore(None)?;
    etcd.each(Process::start)?;
    until_noticed(&scene.fleet)?;
    stands_still(&scene.fleet)?;
    let etcd = &mut scene.fleet.etcd;
    etcd.each(Process::kill)?;
    etcd.restore(Some(&newest))?;
    etcd.each(Process::start)?;
    let took = scene.fleet.wait_clean()?;
    let sectors = compare(&scene.fleet.nbd_ports(), &mut scene.clients)?;
    println!("put back: clean after {took:?}, {sectors} sectors checked, 0 lost");
    scene.fleet.finish()
}
