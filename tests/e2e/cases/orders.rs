//! What two ask of one thing has an order: an answer that is lost, a gateway that is stopped and OSDs that are away change
//! nothing about it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trivet_e2e::cluster::post::post;
use trivet_e2e::cluster::{Fleet, Layout};
use trivet_e2e::nbd::{Command, Nbd};
use trivet_e2e::rpc::{self, NFS, Rpc};
use trivet_e2e::{Cluster, Server, sized};

const LAYOUT: Layout = Layout {
    gateways: 2,
    proxies: true,
    ..Layout::SMALL
};
const MIB: u64 = 1 << 20;
const BLOCK: u32 = 4096;

fn nbd(fleet: &Fleet, gateway: usize, image: &str) -> Result<Nbd> {
    let gateway = fleet.gateways.get(gateway).context("a gateway")?;
    Nbd::open(gateway.ports.nbd, image)
}

/// An image is removed and etcd's answer is lost; another one gets its name and is written. The gateway finds out that the
/// removal was executed, and removes nothing else.
#[test]
fn a_removal_whose_answer_is_lost_removes_no_newer_image() -> Result<()> {
    let fleet = Fleet::with_pool(&LAYOUT)?;
    fleet.admin(0, "image create vm --size 4M")?;
    let links = &fleet.gateways[0].meta;
    links.iter().for_each(|link| link.mute());
    thread::scope(|scope| {
        let removal = scope.spawn(|| fleet.cli(0, "image rm vm"));
        let started = Instant::now();
        while fleet.cli(1, "image info vm")?.status.success() {
            ensure!(started.elapsed() < Duration::from_secs(10), "nobody removes it");
            thread::sleep(Duration::from_millis(50));
        }
        fleet.admin(1, "image create vm --size 8M")?;
        let mut newer = nbd(&fleet, 1, "vm")?;
        newer.write(0, &[7; BLOCK as usize])?;
        thread::sleep(Duration::from_secs(4));
        links.iter().for_each(|link| link.heal());
        let answer = removal.join().expect("it does not panic")?;
        ensure!(answer.status.success(), "the removal was executed: {}", answer.stderr);
        thread::sleep(Duration::from_secs(2));
        ensure!(
            newer.read(0, BLOCK)? == [7; BLOCK as usize],
            "the newer image's data is gone"
        );
        Ok(())
    })?;
    let shown = fleet.admin(0, "image info vm --json")?.text();
    ensure!(shown.contains("8388608"), "{shown}");
    fleet.finish()
}

/// A gateway is stopped while it cuts off the end of a file; the other one does the rest, makes the file larger and writes it.
#[test]
fn a_truncation_that_another_gateway_ended_cuts_nothing_off_afterwards() -> Result<()> {
    const SIZE: u64 = 128 * MIB;
    let fleet = Fleet::with_pool(&LAYOUT)?;
    fleet.admin(0, &format!("image create vm --size {SIZE}"))?;
    let rounds: u64 = sized(2, 10);
    let (mut round, mut early) = (0, 0);
    while round < rounds {
        ensure!(early < 20, "no shrink begins within {early} attempts");
        fleet.admin(1, &format!("image resize vm --size {SIZE}"))?;
        let mut old = nbd(&fleet, 1, "vm")?;
        for at in (0..SIZE).step_by(4 << 20) {
            old.write(at, &vec![1; 4 << 20])?;
        }
        drop(old);
        let stopped = &fleet.gateways[0].process;
        let begun = thread::scope(|scope| -> Result<bool> {
            let shrink = scope.spawn(|| fleet.cli(0, "image resize vm --size 1M"));
            thread::sleep(Duration::from_millis(10 + 15 * round + 5 * early));
            stopped.stop()?;
            let size = fleet.admin(1, "image info vm --json")?.text();
            if size.contains(&SIZE.to_string()) {
                // It had not begun, or not been asked: it does so now, and may.
                stopped.resume()?;
                drop(shrink.join().expect("it does not panic"));
                return Ok(false);
            }
            fleet.admin(1, &format!("image resize vm --size {SIZE}"))?;
            let mut newer = nbd(&fleet, 1, "vm")?;
            let places: Vec<u64> = (MIB..SIZE).step_by(640 << 10).collect();
            for &at in &places {
                newer.write(at, &[2; BLOCK as usize])?;
            }
            stopped.resume()?;
            // It was taken for dead.
            drop(shrink.join().expect("it does not panic"));
            thread::sleep(Duration::from_secs(2));
            let size = fleet.admin(1, "image info vm --json")?.text();
            ensure!(size.contains(&SIZE.to_string()), "{size}");
            for &at in &places {
                ensure!(
                    newer.read(at, BLOCK)? == [2; BLOCK as usize],
                    "round {round}: {at} is cut off"
                );
            }
            Ok(true)
        })?;
        (round, early) = if begun { (round + 1, early) } else { (round, early + 1) };
    }
    fleet.finish()
}

/// An NFS WRITE and a truncation of the same file are under way together, at two gateways.
#[test]
fn a_write_and_a_truncation_end_as_if_one_came_first() -> Result<()> {
    const FILES: u32 = 40;
    let fleet = Fleet::with_pool(&LAYOUT)?;
    let mut clients = Vec::new();
    for gateway in &fleet.gateways {
        clients.push(Rpc::open(gateway.ports.nfs)?);
    }
    let [writer, cutter] = &mut clients[..] else {
        unreachable!("two gateways")
    };
    let (root, _) = (writer.mount()?, cutter.mount()?);
    let mut files = Vec::new();
    for number in 0..FILES {
        let name = format!("f{number}");
        fleet.admin(0, &format!("image create {name} --size 8192"))?;
        let file = writer.lookup(&root, &name)?;
        let written = writer.call(NFS, rpc::WRITE, &rpc::write_args(&file, 0, &[b'o'; 8192]))?;
        ensure!(rpc::status(&written)? == 0);
        files.push(file);
    }
    fleet.osds.iter().try_for_each(|osd| osd.process.stop())?;
    for (xid, file) in (0..).zip(&files) {
        writer.send(xid, NFS, rpc::WRITE, &rpc::write_args(file, 0, &[b'W'; BLOCK as usize]))?;
    }
    thread::sleep(Duration::from_millis(200));
    for (xid, file) in (0..).zip(&files) {
        cutter.send(xid, NFS, rpc::SETATTR, &rpc::size_args(file, 0))?;
    }
    thread::sleep(Duration::from_millis(400));
    fleet.osds.iter().try_for_each(|osd| osd.process.resume())?;
    for client in [&mut *writer, &mut *cutter] {
        for _ in 0..FILES {
            let (_, results) = client.receive()?;
            ensure!(rpc::status(&results)? == 0, "a call failed");
        }
    }
    let mut ends: BTreeMap<(u64, u8), u32> = BTreeMap::new();
    for file in &files {
        let size = rpc::size(&cutter.call(NFS, rpc::GETATTR, &rpc::opaque(file))?)?;
        let read = cutter.call(NFS, rpc::READ, &rpc::read_args(file, 0, BLOCK))?;
        let data = rpc::read_data(&read)?;
        ensure!(data.iter().all(|byte| *byte == data[0]), "a torn write");
        *ends.entry((size, data.first().copied().unwrap_or(0))).or_default() += 1;
    }
    println!("of {FILES} files so many have this size and these bytes: {ends:?}");
    let orders = [(0, 0), (u64::from(BLOCK), b'W')];
    ensure!(
        ends.keys().all(|end| orders.contains(end)),
        "neither came first: {ends:?}"
    );
    fleet.finish()
}

/// Two gateways make files in the same directory while somebody else writes to the same etcd, and then nobody.
#[test]
fn nobody_waits_for_the_commits_of_others() -> Result<()> {
    const FILES: usize = 40;
    let fleet = Fleet::with_pool(&LAYOUT)?;
    let etcd = *fleet.etcd.ports.first().context("a member")?;
    let stop = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let foreign = scope.spawn(|| -> Result<u64> {
            let mut commits = 0;
            while !stop.load(Ordering::Relaxed) {
                post(etcd, "/v3/kv/put", &json!({"key": "L290aGVyL3g=", "value": "eA=="}))?;
                commits += 1;
            }
            Ok(commits)
        });
        thread::sleep(Duration::from_secs(2));
        let makers: Vec<_> = (0..FILES)
            .map(|number| {
                let fleet = &fleet;
                scope.spawn(move || -> Result<Duration> {
                    let started = Instant::now();
                    fleet.admin(number % 2, &format!("image create a{number} --size 1M"))?;
                    Ok(started.elapsed())
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        println!("{} commits of others", foreign.join().expect("it does not panic")?);
        let mut slowest = Duration::ZERO;
        for maker in makers {
            slowest = slowest.max(maker.join().expect("it does not panic")?);
        }
        anyhow::Ok(slowest)
    })?;
    println!("{FILES} files made by two gateways at once, the slowest in {slowest:.1?}");
    ensure!(slowest < Duration::from_secs(10));
    fleet.finish()
}

fn osds(server: &Server, what: &str, order: [u32; 3]) -> Result<()> {
    order
        .iter()
        .try_for_each(|osd| server.admin(&format!("osd {what} {osd}")).map(drop))
}

/// Writes stall while all OSDs are away; some of their clients leave. What another one writes afterwards, and is told is
/// written, stays.
#[test]
fn a_write_that_stalled_never_comes_out_over_a_newer_one() -> Result<()> {
    const LEN: u32 = 65536;
    const OLD: u8 = b'A';
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    for (round, leaves_first) in [(1, false), (2, true), (3, false), (4, false)] {
        osds(&server, "stop", [1, 2, 3])?;
        let mut stalled = Vec::new();
        for _ in 0..8 {
            let mut old = Nbd::open(server.ports.nbd, "demo")?;
            old.send(Command::Write, 0, 0, LEN, &[OLD; LEN as usize])?;
            stalled.push(old);
        }
        thread::sleep(Duration::from_millis(500));
        let leave = |stalled: &mut Vec<Nbd>| stalled.truncate(1);
        if leaves_first {
            leave(&mut stalled);
        }
        let mut newer = Nbd::open(server.ports.nbd, "demo")?;
        newer.send(Command::Write, 0, 0, LEN, &[round; LEN as usize])?;
        thread::sleep(Duration::from_millis(50));
        leave(&mut stalled);
        osds(&server, "start", if round % 2 == 0 { [1, 2, 3] } else { [3, 2, 1] })?;
        ensure!(newer.receive()?.1 == 0);
        let mut reader = Nbd::open(server.ports.nbd, "demo")?;
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let found = reader.read(0, LEN)?;
            ensure!(found == [round; LEN as usize], "round {round}: it holds {}", found[0]);
            thread::sleep(Duration::from_millis(20));
        }
    }
    server.stop()?;
    Ok(())
}
