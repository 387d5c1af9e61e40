//! Memory is bounded per process, whoever reconnects while storage stalls, and goes back when the load is over.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::{Fleet, Layout};
use trivet_e2e::nbd::{CLIENT_FLAGS, Nbd, OPT_GO, go_data, option, request};

const MIB: u64 = 1 << 20;
/// What the gateway may hold for clients, and what the process may take beside it.
const BUDGET: u64 = 256 * MIB;
const SLACK: u64 = 160 * MIB;
/// What each connection tries to write, in requests of this size.
const EACH: u64 = 64 * MIB;
const REQUEST: u32 = 1 << 20;
const RECONNECTS: usize = 12;
/// A connection that takes nothing for this long has had enough.
const ENOUGH: Duration = Duration::from_millis(700);
/// By then what was freed has gone back.
const BACK: Duration = Duration::from_secs(40);

fn rss(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib << 10)
}

/// Writes without waiting for answers until the server takes no more; returns how many bytes it took.
fn pour(port: u16) -> Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(&CLIENT_FLAGS.to_be_bytes())?;
    stream.write_all(&option(OPT_GO, &go_data("disk")))?;
    // The answer to the handshake comes meanwhile; nobody looks at it.
    thread::sleep(Duration::from_millis(300));
    stream.set_write_timeout(Some(ENOUGH))?;
    let payload = vec![0x5a; usize::try_from(REQUEST)?];
    let mut taken = 0;
    for number in 0..EACH / u64::from(REQUEST) {
        let head = request(0, 1, number, number * u64::from(REQUEST), REQUEST);
        match stream.write_all(&[&head[..], &payload].concat()) {
            Ok(()) => taken += u64::from(REQUEST),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Gone without a word.
    drop(stream.shutdown(Shutdown::Both));
    Ok(taken)
}

#[test]
fn clients_that_reconnect_while_storage_stalls_take_no_more_than_the_budget() -> Result<()> {
    let fleet = Fleet::with_pool(&Layout::SMALL)?;
    fleet.admin(0, "image create disk --size 256M")?;
    let gateway = &fleet.gateways[0];
    let (port, pid) = (gateway.ports.nbd, gateway.process.pid().context("it runs")?);
    let before = rss(pid)?;
    fleet.osds.iter().try_for_each(|osd| osd.process.stop())?;
    let (mut taken, mut most) = (0, 0);
    for _ in 0..RECONNECTS {
        taken += pour(port)?;
        most = most.max(rss(pid)?);
    }
    fleet.osds.iter().try_for_each(|osd| osd.process.resume())?;
    fleet.wait_clean()?;
    let mut nbd = Nbd::open(port, "disk")?;
    nbd.write(0, &[1; 4096])?;
    ensure!(nbd.read(0, 4096)? == [1; 4096]);
    let back = Instant::now();
    let after = loop {
        let now = rss(pid)?;
        if now < before + 64 * MIB || back.elapsed() > BACK {
            break now;
        }
        thread::sleep(Duration::from_millis(200));
    };
    println!(
        "{RECONNECTS} reconnects of {} MiB with storage stalled: the gateway took {} MiB of them; resident {} MiB before, {} \
         at most, {} within {:?} after storage was back",
        EACH / MIB,
        taken / MIB,
        before / MIB,
        most / MIB,
        after / MIB,
        back.elapsed()
    );
    ensure!(most <= before + BUDGET + SLACK, "{} MiB", most / MIB);
    ensure!(after < before + 64 * MIB, "{} MiB are kept", after / MIB);
    fleet.finish()
}
