//! A gateway that has not heard of the metadata store for long opens nothing, and every gateway says what is wrong with it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trivet_e2e::cluster::fleet::{Gateway, START_LIMIT};
use trivet_e2e::cluster::post::post;
use trivet_e2e::cluster::{Fleet, Layout, Process, Proxy, etcd};
use trivet_e2e::nbd::Nbd;
use trivet_e2e::server::{Ports, binary};
use trivet_e2e::sized;

/// The gateway of these that is cut off, and the other one.
const CUT: usize = 1;
const OTHER: usize = 0;
/// By then a mirror is too old.
const STALE: Duration = Duration::from_secs(4);
/// etcd's answers to the gateway that is to be cut off take so long: whatever it still asks when an image is open is lost.
const SLOW: Duration = Duration::from_millis(100);
/// By then the verdict tells of what happened.
const TOLD: Duration = Duration::from_secs(15);

/// One more gateway, which reaches etcd through a proxy.
fn add_gateway(fleet: &mut Fleet) -> Result<()> {
    let proxy = Proxy::to(*fleet.etcd.ports.first().context("a member")?)?;
    let ports = Ports::free()?;
    let Ports { nbd, iscsi, nfs, http } = ports;
    let args = format!(
        "gateway --meta {} --name cut --nbd 127.0.0.1:{nbd} --iscsi 127.0.0.1:{iscsi} --nfs 127.0.0.1:{nfs} \
         --http 127.0.0.1:{http}",
        etcd::url(&[proxy.port], "e2e")
    );
    let mut process = Process::new("cut", &fleet.scratch(""), &binary()?, &args);
    process.start()?;
    process.wait_ready(START_LIMIT)?;
    let meta = vec![proxy];
    fleet.gateways.push(Gateway {
        process,
        ports,
        meta,
        in_trouble: false,
    });
    Ok(())
}

/// Waits until the verdict of a gateway has a reason with these words, or none; returns how long that took.
fn wait_told(fleet: &Fleet, gateway: usize, words: &str, told: bool) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let status = fleet.status(gateway)?;
        if status["reasons"].to_string().contains(words) == told {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < TOLD, "{words}, told {told}: {status:#}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn probe(fleet: &Fleet, gateway: usize, path: &str) -> Result<bool> {
    use std::io::{Read, Write};
    let http = fleet.gateways.get(gateway).context("a gateway")?.ports.http;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", http))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.starts_with("HTTP/1.1 200"))
}

#[test]
fn a_gateway_without_etcd_opens_no_wrong_image() -> Result<()> {
    const OLD: u64 = 64 << 20;
    const NEW: u64 = 32 << 20;
    let mut fleet = Fleet::with_pool(&Layout::SMALL)?;
    add_gateway(&mut fleet)?;
    fleet.admin(OTHER, "image create disk --size 64M")?;
    fleet.admin(OTHER, "image create kept --size 64M")?;
    let port = fleet.gateways[CUT].ports.nbd;
    fleet.gateways[CUT].meta[0].delay(SLOW);
    let mut kept = Nbd::open(port, "kept")?;
    ensure!(Nbd::open(port, "disk")?.size == OLD);
    fleet.gateways[CUT].meta[0].cut();
    let cut = Instant::now();
    thread::sleep(STALE);
    fleet.admin(OTHER, "image rm disk")?;
    fleet.admin(OTHER, "image create disk --size 32M")?;
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    while cut.elapsed() < Duration::from_secs(sized(15, 40)) {
        ensure!(Nbd::open(port, "disk").is_err(), "the old image was opened");
        refused += 1;
        let asked = Instant::now();
        kept.write(refused * 4096, &[7; 4096])?;
        slowest = slowest.max(asked.elapsed());
    }
    let status = fleet.status(CUT)?;
    ensure!(
        status["health"] == "error" && status["gateway"]["opens"] == false,
        "{status:#}"
    );
    ensure!(status["reasons"].to_string().contains("the metadata is"), "{status:#}");
    ensure!(probe(&fleet, CUT, "/healthz")? && !probe(&fleet, CUT, "/readyz")?);
    ensure!(probe(&fleet, OTHER, "/readyz")?);
    fleet.gateways[CUT].meta[0].heal();
    let healed = Instant::now();
    let size = loop {
        match Nbd::open(port, "disk") {
            Ok(nbd) => break nbd.size,
            Err(error) => ensure!(healed.elapsed() < TOLD, "{error:#}"),
        }
    };
    ensure!(size == NEW, "{size} bytes");
    println!(
        "cut from etcd: {refused} opens refused, slowest write to what was open {slowest:?}; opened {:?} after the return",
        healed.elapsed()
    );
    fleet.finish()
}

/// What is done to etcd, how it is undone, and the words that tell of it.
type Trouble = (
    &'static str,
    fn(&mut Fleet) -> Result<()>,
    fn(&mut Fleet) -> Result<()>,
    &'static str,
);

fn alarm(fleet: &mut Fleet, action: &str) -> Result<()> {
    let port = *fleet.etcd.ports.first().context("a member")?;
    let member: Value = post(port, "/v3/maintenance/status", &json!({}))?["header"]["member_id"].clone();
    let alarm = json!({"action": action, "memberID": member, "alarm": "NOSPACE"});
    post(port, "/v3/maintenance/alarm", &alarm).map(drop)
}

#[test]
fn what_is_wrong_with_etcd_is_told() -> Result<()> {
    let mut fleet = Fleet::with_pool(&Layout::SMALL)?;
    fleet.admin(OTHER, "image create disk --size 64M")?;
    let mut disk = Nbd::open(fleet.gateways[OTHER].ports.nbd, "disk")?;
    let troubles: [Trouble; 3] = [
        (
            "full",
            |fleet| alarm(fleet, "ACTIVATE"),
            |fleet| alarm(fleet, "DEACTIVATE"),
            "store is full",
        ),
        (
            "hung",
            |fleet| fleet.etcd.each(|m| m.stop()),
            |fleet| fleet.etcd.each(|m| m.resume()),
            "the metadata is",
        ),
        (
            "gone",
            |fleet| fleet.etcd.each(Process::kill),
            |fleet| fleet.etcd.each(Process::start),
            "the metadata is",
        ),
    ];
    for (what, begin, end, words) in troubles {
        begin(&mut fleet)?;
        let told = wait_told(&fleet, OTHER, words, true)?;
        ensure!(fleet.status(OTHER)?["health"] == "error", "{what}");
        disk.write(0, &[1; 4096])?;
        ensure!(probe(&fleet, OTHER, "/healthz")?, "{what}");
        end(&mut fleet)?;
        let over = wait_told(&fleet, OTHER, words, false)?;
        println!("etcd is {what}: told after {told:?}; over {over:?} after its return");
    }
    fleet.wait_clean()?;
    fleet.finish()
}
