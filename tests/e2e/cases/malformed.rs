//! Malformed clients: they are disconnected with a log line, nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::fuzz::{self, Session, drive, visit};
use trivet_e2e::iscsi::{DISCOVERY, Pdu, command, login, opcode};
use trivet_e2e::ledger::Ledger;
use trivet_e2e::nbd::{CLIENT_FLAGS, Command, Nbd, OPT_GO, go_data, option};
use trivet_e2e::rpc;
use trivet_e2e::stamp;
use trivet_e2e::storm::compare_all;
use trivet_e2e::{Cluster, Rng, Server, sized};

/// What another client may notice at most: one operation of its own on shared processors.
const CANARY_LIMIT: Duration = Duration::from_secs(2);
/// Sectors of the image that no malformed client names.
const STAMPED: u64 = 8 * 1024;

/// Writes, reads and compares until told to stop; returns the operations and the slowest.
fn canary(port: u16, stop: &AtomicBool) -> Result<(u64, Duration)> {
    let mut nbd = Nbd::open(port, "canary")?;
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let (at, data) = (count % 64 * 4096, stamp::run(count % 64 * 8, 8, count + 1));
        nbd.write(at, &data)?;
        ensure!(nbd.read(at, 4096)? == data, "the canary read what it did not write");
        slowest = slowest.max(started.elapsed());
        count += 1;
    }
    Ok((count, slowest))
}

fn stamped(server: &Server) -> Result<Ledger> {
    server.admin("image create stamped --size 4M")?;
    let mut ledger = Ledger::new(0, STAMPED);
    let sequence = ledger.issue(0, STAMPED);
    Nbd::open(server.ports.nbd, "stamped")?.write(0, &stamp::run(0, STAMPED, sequence))?;
    ledger.acknowledge(sequence);
    Ok(ledger)
}

fn rss_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

#[test]
fn nobody_notices_garbage() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = cluster.start()?;
    server.expect_log("127.0.0.1:");
    for image in ["canary", "fuzz"] {
        server.admin(&format!("image create {image} --size 4M"))?;
    }
    let mut ledger = stamped(&server)?;
    let ports = server.ports;
    let targets = [
        fuzz::nbd(ports.nbd, "fuzz"),
        fuzz::iscsi(ports.iscsi, "fuzz"),
        fuzz::nfs(ports.nfs, "fuzz")?,
    ];
    let before = rss_kib(server.pid())?;
    let stop = AtomicBool::new(false);
    let (operations, slowest) = thread::scope(|scope| -> Result<_> {
        let canary = scope.spawn(|| canary(ports.nbd, &stop));
        let driven: Result<()> = targets.iter().try_for_each(|target| {
            let tally = drive(target, sized(500, 5_000), &mut Rng::new(11))?;
            println!(
                "{}: {} mutated sessions, {} closed by the server",
                target.name, tally.sessions, tally.closed
            );
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let seen = canary.join().expect("a canary that does not panic");
        driven.and(seen)
    })?;
    let growth = rss_kib(server.pid())?.saturating_sub(before);
    println!("canary: {operations} verified operations, slowest {slowest:?}; server grew by {growth} KiB");
    ensure!(operations > 100, "the canary did not really run");
    ensure!(slowest < CANARY_LIMIT, "the canary waited {slowest:?}");
    ensure!(growth < 256 << 10, "the server grew by {growth} KiB");
    compare_all(ports.nbd, "stamped", &mut ledger)?;
    ensure!(
        server.log.with("panicked").is_empty(),
        "{:#?}",
        server.log.with("panicked")
    );
    server.stop()?;
    Ok(())
}

type Violation = (&'static str, u16, Session);

/// NBD sessions that no server may put up with.
fn nbd_violations(port: u16) -> Vec<Violation> {
    let hello = |more: Vec<u8>| vec![CLIENT_FLAGS.to_be_bytes().to_vec(), more];
    let going = |more: Vec<u8>| {
        vec![
            CLIENT_FLAGS.to_be_bytes().to_vec(),
            option(OPT_GO, &go_data("demo")),
            more,
        ]
    };
    let huge_option = [&option(OPT_GO, &[])[..12], &[0xff; 4]].concat();
    vec![
        ("NBD: unknown client flags", port, vec![vec![0xff; 4]]),
        ("NBD: bad option magic", port, hello(vec![0x11; 16])),
        ("NBD: option of 4 GiB", port, hello(huge_option)),
        ("NBD: bad request magic", port, going(vec![0x22; 28])),
        ("NBD: EXPORT_NAME of nothing", port, hello(option(1, b"no-such-export"))),
    ]
}

/// iSCSI sessions that no target may put up with.
fn iscsi_violations(port: u16) -> Vec<Violation> {
    let oversized = Pdu::new(opcode::LOGIN, 0x87, 1).set(5, &[0xff; 3]).bytes();
    let early = command(0xc1, 1, 512, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1]).bytes();
    vec![
        ("iSCSI: login of 16 MiB", port, vec![oversized]),
        (
            "iSCSI: garbage after login",
            port,
            vec![login(DISCOVERY).bytes(), vec![0xff; 48]],
        ),
        ("iSCSI: command before login", port, vec![early]),
    ]
}

/// RPC sessions that no server may put up with.
fn nfs_violations(port: u16) -> Vec<Violation> {
    let reply = rpc::record(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
    vec![
        ("NFS: record of 2 GiB", port, vec![vec![0xff; 4]]),
        ("NFS: record too short for a call", port, vec![rpc::record(&[0; 4])]),
        ("NFS: a reply instead of a call", port, vec![reply]),
        (
            "NFS: fragments without an end",
            port,
            vec![[0, 0, 0, 1, 0x55].repeat(2_000_000)],
        ),
    ]
}

#[test]
fn a_violation_is_disconnected_with_one_log_line() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = cluster.start()?;
    server.expect_log("127.0.0.1:");
    let mut ledger = stamped(&server)?;
    let mut failures = Vec::new();
    let ports = server.ports;
    let all = [
        nbd_violations(ports.nbd),
        iscsi_violations(ports.iscsi),
        nfs_violations(ports.nfs),
    ]
    .concat();
    for (name, port, session) in all {
        // An incomplete record may be waited for, up to the handshake's deadline.
        let (from, closed) = visit(port, &session, Duration::from_secs(12))?;
        thread::sleep(Duration::from_millis(50));
        let peer = format!("127.0.0.1:{from}");
        let lines: Vec<String> = server
            .log
            .with(&peer)
            .into_iter()
            .filter(|line| !line.contains("DEBUG"))
            .collect();
        if !closed {
            failures.push(format!("{name}: still connected"));
        }
        if lines.len() != 1 {
            failures.push(format!("{name}: {} log lines: {lines:?}", lines.len()));
        }
    }
    ensure!(failures.is_empty(), "{failures:#?}");
    compare_all(server.ports.nbd, "stamped", &mut ledger)?;
    server.stop()?;
    Ok(())
}

#[test]
fn refused_requests_change_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = cluster.start()?;
    server.expect_log("127.0.0.1:");
    let mut ledger = stamped(&server)?;
    let end = STAMPED * 512;
    let table = [
        (Command::Write, end, 512, 512),
        (Command::Write, end - 512, 1024, 1024),
        (Command::Write, u64::MAX - 511, 512, 512),
        (Command::Write, u64::MAX, 1, 1),
        (Command::Trim, end, 4096, 0),
        (Command::Trim, 0, u32::MAX, 0),
        (Command::Zero, end - 512, 4096, 0),
        (Command::Zero, u64::MAX - 1, 4096, 0),
        (Command::Read, end, 512, 0),
        (Command::Read, end - 512, 4096, 0),
    ];
    for (what, at, len, payload) in table {
        let mut nbd = Nbd::open(server.ports.nbd, "stamped")?;
        // An error is an answer, and so is the door.
        let refused = nbd
            .call(what, 0, at, len, &vec![0xaa; payload])
            .map_or(true, |error| error != 0);
        ensure!(refused, "{what:?} of {len} bytes at {at} succeeded");
    }
    compare_all(server.ports.nbd, "stamped", &mut ledger)?;
    server.stop()?;
    Ok(())
}

/// Clients that say nothing are sent away, and others are served meanwhile.
#[test]
fn silent_clients_do_not_keep_others_out() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = cluster.start()?;
    server.expect_log("127.0.0.1:");
    let ports = [server.ports.nbd, server.ports.iscsi, server.ports.nfs];
    let mut silent = Vec::new();
    for number in 0..300 {
        silent.push(std::net::TcpStream::connect(("127.0.0.1", ports[number % 3]))?);
    }
    let asked = Instant::now();
    Nbd::open(server.ports.nbd, "demo")?.write(0, &[1; 4096])?;
    rpc::Rpc::open(server.ports.nfs)?.mount()?;
    ensure!(
        asked.elapsed() < Duration::from_secs(2),
        "served after {:?}",
        asked.elapsed()
    );
    drop(silent);
    server.stop()?;
    Ok(())
}
