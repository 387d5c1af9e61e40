//! A disk that does not keep what it was given: bytes change in one OSD's file
//! behind the cluster's back. Readers notice nothing, and scrubbing repairs it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::nbd::Nbd;
use trivet_e2e::stamp::{self, Found, SECTOR};
use trivet_e2e::{Cluster, Server};

use crate::command_line::http;

const IMAGE: &str = "demo";
/// Bytes of an object: what is written in one piece of this size and place gets a slot of its own on each disk,
/// whose place is a multiple of it, too.
const OBJECT: usize = 128 << 10;
/// Objects that are written: 16 MiB.
const OBJECTS: u64 = 128;
/// The sequence number of all stamps.
const SEQUENCE: u64 = 77;
const SECTORS_PER_OBJECT: u64 = (OBJECT / SECTOR) as u64;
/// OSD 2's share of 32 PGs on 3 OSDs is 11; so many have objects for sure.
const ENOUGH_LED: usize = 5;
/// Within this time the monitor has handed over PGs.
const HANDED_OVER: Duration = Duration::from_secs(60);

/// Writes whole objects full of stamps.
fn fill(server: &Server) -> Result<()> {
    let mut nbd = Nbd::open(server.ports.nbd, IMAGE)?;
    for object in 0..OBJECTS {
        let first = object * SECTORS_PER_OBJECT;
        nbd.write(object * OBJECT as u64, &stamp::run(first, SECTORS_PER_OBJECT, SEQUENCE))?;
    }
    nbd.flush()
}

/// Reads all of it; returns the sectors, all right.
fn read_all(server: &Server) -> Result<u64> {
    let mut nbd = Nbd::open(server.ports.nbd, IMAGE)?;
    let mut sectors = 0;
    for object in 0..OBJECTS {
        let data = nbd.read(object * OBJECT as u64, u32::try_from(OBJECT)?)?;
        for (number, sector) in (object * SECTORS_PER_OBJECT..).zip(data.chunks_exact(SECTOR)) {
            let found = stamp::read(sector, number);
            ensure!(found == Found::Stamp(SEQUENCE), "sector {number}: {found:?}");
            sectors += 1;
        }
    }
    ensure!(sectors == OBJECTS * SECTORS_PER_OBJECT, "{sectors} sectors read");
    Ok(sectors)
}

/// The object whose first sector this is, if it is one of ours.
fn object_of(sector: &[u8]) -> Option<u64> {
    let is_first_of = |object: &u64| stamp::read(sector, object * SECTORS_PER_OBJECT) == Found::Stamp(SEQUENCE);
    (0..OBJECTS).find(is_first_of)
}

/// Changes a byte in some sectors of every object in the file; returns the objects.
fn damage(disk: &Path) -> Result<u64> {
    let file = File::options().read(true).write(true).open(disk)?;
    let len = file.metadata()?.len();
    let (mut first, mut byte) = ([0; SECTOR], [0]);
    let mut damaged = 0;
    for at in (0..len / OBJECT as u64).map(|slot| slot * OBJECT as u64) {
        file.read_exact_at(&mut first, at)?;
        let Some(object) = object_of(&first) else { continue };
        // One sector at the start, in the middle or at the end.
        let sector = [0, SECTORS_PER_OBJECT / 2, SECTORS_PER_OBJECT - 1][usize::try_from(object % 3)?];
        let place = at + sector * SECTOR as u64 + 100;
        file.read_exact_at(&mut byte, place)?;
        file.write_all_at(&[byte[0] ^ 0x40], place)?;
        damaged += 1;
    }
    file.sync_all()?;
    Ok(damaged)
}

/// A cluster whose OSD 2 was damaged while it was stopped, running again; and how many objects it has that are.
fn damaged_cluster() -> Result<(Cluster, Server, u64)> {
    let cluster = Cluster::alone()?;
    let server = cluster.start()?;
    fill(&server)?;
    ensure!(
        server.json("status")?["scrub"]["number"] == 0,
        "nobody has asked for a scrub"
    );
    server.stop()?;
    let disk: PathBuf = cluster.data().join("osd.2");
    let damaged = damage(&disk).with_context(|| disk.display().to_string())?;
    ensure!(damaged > 0, "OSD 2 has none of the objects");
    ensure!(damaged < OBJECTS, "OSD 2 has all of the objects");
    let server = cluster.start()?;
    Ok((cluster, server, damaged))
}

/// `trivet scrub --wait`, which must find nothing that cannot be repaired; returns how many objects were repaired.
fn scrub(server: &Server) -> Result<u64> {
    let result = server.json("scrub --wait")?;
    let number = |key: &str| result[key].as_u64().with_context(|| format!("{key} in {result}"));
    ensure!(number("lost")? == 0 && number("inconsistent")? == 0, "{result}");
    ensure!(number("objects")? >= OBJECTS, "{result}");
    number("repaired")
}

fn is_healthy(server: &Server) -> Result<bool> {
    Ok(server.json("status")?["health"] == "ok")
}

#[test]
fn a_scrub_repairs_what_a_disk_has_lost() -> Result<()> {
    let (_cluster, server, damaged) = damaged_cluster()?;
    let repaired = scrub(&server)?;
    assert_eq!(repaired, damaged);
    assert_eq!(scrub(&server)?, 0, "a second scrub has nothing to repair");
    let sectors = read_all(&server)?;
    assert!(is_healthy(&server)?);
    let line = server.admin("status")?.text();
    let line = line.lines().find(|line| line.starts_with("scrub")).context("a line")?;
    assert!(line.contains("32 of 32 PGs") && line.contains(" 0 repaired"), "{line}");
    let metrics = http(&server, "/metrics")?;
    assert!(metrics.contains("trivet_scrub_pgs{kind=\"done\"} 32"), "{metrics}");
    println!("{damaged} objects damaged on one disk: {repaired} repaired, then 0; {sectors} sectors right\n{line}");
    server.stop()?;
    Ok(())
}

/// How many PGs OSD 2 is primary of.
fn led(server: &Server) -> Result<usize> {
    let list = server.json("pg ls --osd 2")?;
    let pgs = list["pgs"].as_array().context("PGs")?;
    Ok(pgs.iter().filter(|pg| pg["primary"] == 2).count())
}

/// Reads go to primaries. An OSD that came last leads nothing at first, until the monitor hands PGs over to it.
fn wait_until_it_leads(server: &Server) -> Result<()> {
    let started = Instant::now();
    while led(server)? < ENOUGH_LED {
        ensure!(started.elapsed() < HANDED_OVER, "OSD 2 leads {} PGs", led(server)?);
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn reading_repairs_what_a_disk_has_lost() -> Result<()> {
    let (_cluster, server, damaged) = damaged_cluster()?;
    wait_until_it_leads(&server)?;
    let sectors = read_all(&server)?;
    assert_eq!(read_all(&server)?, sectors);
    let left = scrub(&server)?;
    assert!(left < damaged, "none of {damaged} damaged copies was read and repaired");
    println!("{damaged} objects damaged on one disk: {sectors} sectors read right, {left} left to scrub");
    server.stop()?;
    Ok(())
}
