//! What makes much empty: shrinks and discards cost what is there and not what the numbers say, others are served
//! meanwhile, and what a kill interrupted is brought to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::nbd::{Command, Nbd};
use trivet_e2e::{Cluster, Rng, Server, sized};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The largest image.
const LARGEST: u64 = (1 << 63) - 512;
/// Nothing here may take longer, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(10);
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

/// Somebody who writes and reads another image all the time.
struct Other {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Other {
    fn start(server: &Server) -> Result<Other> {
        let mut nbd = Nbd::open(server.ports.nbd, "demo")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut rng, mut took) = (Rng::new(1), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let offset = rng.below(16 * MIB / 4096) * 4096;
                let started = Instant::now();
                nbd.write(offset, &[7; 4096])?;
                took.push(started.elapsed());
                ensure!(nbd.read(offset, 4096)? == [7; 4096]);
            }
            Ok(took)
        });
        Ok(Other { stop, thread })
    }

    /// Its latencies, ascending.
    fn end(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().expect("it does not panic")?;
        took.sort_unstable();
        ensure!(!took.is_empty(), "it was never served");
        Ok(took)
    }
}

fn figures(took: &[Duration]) -> String {
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    format!(
        "{} writes, p50 {:.1?}, p99 {:.1?}, slowest {:.1?}",
        took.len(),
        at(50),
        at(99),
        at(100)
    )
}

/// What another user of the server sees for so long while nothing else happens.
fn calm(server: &Server) -> Result<String> {
    let other = Other::start(server)?;
    thread::sleep(Duration::from_secs(2));
    Ok(figures(&other.end()?))
}

/// Does something beside another user, and says how long it took and what that one saw. Nobody waits for long.
fn beside(server: &Server, what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let other = Other::start(server)?;
    let started = Instant::now();
    act()?;
    let took = started.elapsed();
    // So that something is seen of what was left to be done.
    thread::sleep(Duration::from_millis(500));
    let seen = other.end()?;
    println!("{what}: {took:.2?}; another user meanwhile: {}", figures(&seen));
    ensure!(
        took < LIMIT && seen[seen.len() - 1] < LIMIT,
        "{what}: somebody waited too long"
    );
    Ok(())
}

/// Writes all of an image.
fn fill(server: &Server, image: &str) -> Result<()> {
    let mut nbd = Nbd::open(server.ports.nbd, image)?;
    let chunk = vec![0x5a; 4 << 20];
    for offset in (0..nbd.size).step_by(chunk.len()) {
        nbd.write(offset, &chunk)?;
    }
    Ok(())
}

/// Discards so many GiB from the start, in requests as large as they can be.
fn discard(nbd: &mut Nbd, gib: u64) -> Result<()> {
    let requests = gib / 2;
    for number in 0..requests {
        nbd.send(Command::Trim, 0, number * 2 * GIB, 2 << 30, &[])?;
    }
    for _ in 0..requests {
        ensure!(nbd.receive()?.1 == 0, "a discard failed");
    }
    Ok(())
}

#[test]
fn making_nothing_empty_takes_no_time() -> Result<()> {
    let cluster = Cluster::alone()?;
    let server = cluster.start()?;
    server.admin(&format!("image create huge --size {LARGEST}"))?;
    println!("another user alone: {}", calm(&server)?);
    let mut nbd = Nbd::open(server.ports.nbd, "huge")?;
    nbd.write(5, &[1; 10])?;
    nbd.write(1 << 50, &[2; 10])?;
    beside(&server, "discard of 1 TiB of nothing", || discard(&mut nbd, 1024))?;
    ensure!(nbd.read(0, 20)? == [0; 20] && nbd.read(1 << 50, 10)? == [2; 10]);
    beside(&server, "an image of 8 EiB becomes 1 GiB", || {
        server.admin("image resize huge --size 1G").map(drop)
    })?;
    server.admin(&format!("image resize huge --size {LARGEST}"))?;
    ensure!(nbd.read(1 << 50, 10)? == [0; 10], "what was cut off came back");
    println!("stopped after {:.1?}", server.stop()?);
    Ok(())
}

#[test]
fn a_full_image_becomes_small_while_others_go_on() -> Result<()> {
    let size = sized(512 * MIB, 4 * GIB);
    let cluster = Cluster::alone()?.plain().with("--osd-size 4G");
    let server = cluster.start()?;
    server.admin(&format!("image create full --size {size}"))?;
    fill(&server, "full")?;
    println!("another user alone: {}", calm(&server)?);
    let other = Other::start(&server)?;
    let started = Instant::now();
    server.admin("image resize full --size 1M")?;
    let took = started.elapsed();
    println!(
        "{} MiB become 1 MiB: {took:.2?}; another user meanwhile: {}",
        size / MIB,
        figures(&other.end()?)
    );
    server.admin(&format!("image resize full --size {size}"))?;
    let mut nbd = Nbd::open(server.ports.nbd, "full")?;
    ensure!(nbd.read(0, 4096)? == [0x5a; 4096], "what stays was cut off");
    for offset in (MIB..size).step_by(32 << 20) {
        ensure!(nbd.read(offset, 4096)? == [0; 4096], "old data at {offset}");
    }
    server.stop()?;
    Ok(())
}

#[test]
fn a_shrink_that_a_kill_interrupts_is_ended_by_the_next_start() -> Result<()> {
    let cluster = Cluster::alone()?.plain().with("--osd-size 2G");
    let server = cluster.start()?;
    server.admin("image create half --size 1G")?;
    fill(&server, "half")?;
    let shrink = server.cli("image resize half --size 1M")?;
    let asked = thread::spawn(move || shrink.end());
    thread::sleep(Duration::from_millis(100));
    server.kill()?;
    let asked = asked.join().expect("it does not panic")?;
    ensure!(!asked.status.success(), "it was over before the kill");

    let server = cluster.start()?;
    let started = Instant::now();
    // It waits for the truncation, which the new gateway takes over when the old one's lease is over.
    server.admin("image resize half --size 1G")?;
    println!("resized {:.1?} after the start", started.elapsed());
    ensure!(started.elapsed() < 2 * LIMIT);
    let mut nbd = Nbd::open(server.ports.nbd, "half")?;
    for offset in (MIB..GIB).step_by(1 << 20) {
        ensure!(nbd.read(offset, 4096)? == [0; 4096], "old data at {offset}");
    }
    nbd.write(GIB - 4096, &[1; 4096])?;
    let reasons = server.json("status")?["reasons"].clone();
    let told = reasons.as_array().context("reasons are listed")?;
    let stuck = told.iter().filter_map(|reason| reason.as_str());
    ensure!(stuck.clone().all(|reason| !reason.contains("truncation")), "{told:?}");
    server.stop()?;
    Ok(())
}

#[test]
fn nbd_clients_see_that_their_image_became_smaller() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create vm --size 64M")?;
    let mut nbd = Nbd::open(server.ports.nbd, "vm")?;
    nbd.write(40 * MIB, &[1; 4096])?;
    server.admin("image resize vm --size 32M")?;
    ensure!(nbd.call(Command::Write, 0, 40 * MIB, 4096, &[2; 4096])? == ENOSPC);
    ensure!(nbd.call(Command::Zero, 0, 31 * MIB, 2 << 20, &[])? == ENOSPC);
    ensure!(nbd.call(Command::Trim, 0, 40 * MIB, 4096, &[])? == EINVAL);
    nbd.write(31 * MIB, &[3; 4096])?;
    server.admin("image resize vm --size 128M")?;
    ensure!(nbd.read(40 * MIB, 4096)? == [0; 4096], "a refused write was executed");
    let mut again = Nbd::open(server.ports.nbd, "vm")?;
    ensure!(again.size == 128 * MIB, "growing shows when the export is opened anew");
    again.write(100 * MIB, &[4; 4096])?;
    server.stop()?;
    Ok(())
}
