//! A log that cannot be written costs lines, never service.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::nbd::Nbd;
use trivet_e2e::server::binary;
use trivet_e2e::{Cluster, Tool};

/// The server serves by then.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The contract: SIGTERM stops within 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Clients that misbehave one after the other: their lines fill a pipe (64 KiB) and the queue of lines.
const MANY: usize = 6_000;

/// A process that is killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended, if all is well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(cluster: &Cluster, stdout: Stdio, stderr: Stdio) -> Result<Server> {
    let mut command = Command::new(binary()?);
    command.args(cluster.up_args()).stdin(Stdio::null());
    Ok(Server(command.stdout(stdout).stderr(stderr).spawn()?))
}

fn wait_served(cluster: &Cluster) -> Result<Duration> {
    let started = Instant::now();
    while Nbd::open(cluster.ports.nbd, "demo").is_err() {
        ensure!(started.elapsed() < READY_LIMIT, "nobody serves");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(started.elapsed())
}

/// Clients whose end is worth a line each.
fn misbehave(cluster: &Cluster, count: usize) -> Result<()> {
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.ports.nbd))?;
        // The server may have closed it by then.
        drop(stream.write_all(&[0xff; 100]));
    }
    Ok(())
}

/// Something is written and read, then the server is stopped as an administrator would.
fn serves_and_stops(cluster: &Cluster, server: &mut Server) -> Result<()> {
    let mut nbd = Nbd::open(cluster.ports.nbd, "demo")?;
    nbd.write(4096, &[7; 4096])?;
    ensure!(nbd.read(4096, 4096)? == [7; 4096], "other data than what was written");
    ensure!(server.0.try_wait()?.is_none(), "it ended by itself");
    Tool::new("kill").args(&format!("-TERM {}", server.0.id())).ok()?;
    let asked = Instant::now();
    loop {
        if let Some(status) = server.0.try_wait()? {
            ensure!(status.success(), "ended with {status}");
            return Ok(());
        }
        ensure!(asked.elapsed() < STOP_LIMIT, "still runs after {STOP_LIMIT:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_disk_under_the_log_ends_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let mut server = start(&cluster, full()?.into(), full()?.into())?;
    wait_served(&cluster)?;
    misbehave(&cluster, 3)?;
    serves_and_stops(&cluster, &mut server)
}

#[test]
fn readers_that_are_gone_end_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = start(&cluster, Stdio::piped(), Stdio::piped())?;
    drop((server.0.stdout.take(), server.0.stderr.take()));
    wait_served(&cluster)?;
    misbehave(&cluster, 3)?;
    serves_and_stops(&cluster, &mut server)
}

#[test]
fn a_reader_that_hangs_holds_nobody_up() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = start(&cluster, Stdio::null(), Stdio::piped())?;
    let reader = server.0.stderr.take().context("a piped stderr")?;
    wait_served(&cluster)?;
    misbehave(&cluster, MANY)?;
    serves_and_stops(&cluster, &mut server)?;
    drop(reader);
    Ok(())
}
