//! The supervisor: etcd, OSDs, monitors and gateways of one cluster as processes, each to be started, killed and
//! stopped on its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::etcd::{self, Etcd};
use super::process::{Process, free_port};
use super::proxy::Proxy;
use crate::command::{Ended, Tool};
use crate::server::{Ports, binary};
use crate::turn::Turn;

/// A start on an old disk replays its log; longer than this is a hang.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// Recovery of what the tests write in one outage.
const CLEAN_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// The cluster's prefix in etcd.
const PREFIX: &str = "e2e";
/// The name of its pool.
const POOL: &str = "data";
/// Lines of each log that a failure shows.
const LAST_LINES: usize = 12;

/// What a cluster consists of.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Members of etcd.
    pub etcds: usize,
    /// The host of each OSD: its failure domain.
    pub hosts: &'static [&'static str],
    /// Monitors.
    pub monitors: usize,
    /// Gateways.
    pub gateways: usize,
    /// Whether OSDs are reached, and OSDs and gateways reach etcd, through proxies.
    pub proxies: bool,
}

impl Layout {
    /// What a case needs that is about gateways.
    pub const SMALL: Layout = Layout {
        etcds: 1,
        hosts: &["a", "b"],
        monitors: 1,
        gateways: 1,
        proxies: false,
    };
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            etcds: 3,
            hosts: &["a", "a", "b", "b", "c"],
            monitors: 2,
            gateways: 2,
            proxies: false,
        }
    }
}

/// An OSD and the network around it.
#[derive(Debug)]
pub struct Osd {
    /// `trivet osd run`.
    pub process: Process,
    /// Its number.
    pub number: u64,
    /// Its failure domain.
    pub host: &'static str,
    /// In front of its address: everything that others ask of it.
    pub inward: Option<Proxy>,
    /// Between it and each member of etcd.
    pub meta: Vec<Proxy>,
}

/// A gateway and where it listens.
#[derive(Debug)]
pub struct Gateway {
    /// `trivet gateway`.
    pub process: Process,
    /// Its servers.
    pub ports: Ports,
    /// Between it and each member of etcd.
    pub meta: Vec<Proxy>,
    /// It is down, stopped or cut off, or may be: nobody asks it anything.
    pub in_trouble: bool,
}

/// A cluster of processes; dropped, all are killed.
#[derive(Debug)]
pub struct Fleet {
    /// The members of etcd.
    pub etcd: Etcd,
    /// The OSDs.
    pub osds: Vec<Osd>,
    /// The monitors.
    pub monitors: Vec<Process>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    finished: bool,
    folder: TempDir,
    _turn: Turn,
}

impl Fleet {
    /// etcd and formatted OSDs, started with monitors and gateways; no pool yet.
    ///
    /// # Errors
    /// When anything does not start.
    pub fn start(layout: &Layout) -> Result<Self> {
        let turn = Turn::alone();
        let mut folder = tempfile::Builder::new().prefix("trivet-fleet-").tempdir()?;
        folder.disable_cleanup(std::env::var_os("TRIVET_KEEP").is_some());
        let mut fleet = Self {
            etcd: Etcd::start(layout.etcds, folder.path())?,
            osds: Vec::new(),
            monitors: Vec::new(),
            gateways: Vec::new(),
            finished: false,
            folder,
            _turn: turn,
        };
        for host in layout.hosts {
            fleet.add_osd(host, layout.proxies)?;
        }
        for at in 0..layout.monitors {
            fleet.add_monitor(at)?;
        }
        for at in 0..layout.gateways {
            fleet.add_gateway(at, layout.proxies)?;
        }
        fleet.start_daemons()?;
        Ok(fleet)
    }

    /// The same with a pool of two copies on different hosts.
    ///
    /// # Errors
    /// When anything does not start, or there is no pool to be made.
    pub fn with_pool(layout: &Layout) -> Result<Self> {
        let fleet = Self::start(layout)?;
        let pool = format!("pool create {POOL} --replicas 2 --min-size 1 --pgs 32 --failure-domain host");
        fleet.admin(0, &pool)?;
        fleet.wait_clean()?;
        Ok(fleet)
    }

    /// The first gateway that runs and is not in trouble.
    fn sound_gateway(&self) -> Result<usize> {
        let mut gateways = self.gateways.iter();
        let sound = gateways.position(|gateway| gateway.process.is_wanted() && !gateway.in_trouble);
        sound.context("no gateway")
    }

    /// Has the pool get another number of PGs, which takes a moment.
    ///
    /// # Errors
    /// When no gateway runs, or it refuses.
    pub fn set_pgs(&self, count: u32) -> Result<()> {
        let modify = format!("pool modify {POOL} --pgs {count}");
        self.admin(self.sound_gateway()?, &modify).map(drop)
    }

    /// How many PGs the pool has.
    ///
    /// # Errors
    /// When the first gateway does not say.
    pub fn pgs(&self) -> Result<u64> {
        let list: Value = serde_json::from_slice(&self.admin(0, "pool ls --json")?.stdout)?;
        list["pools"][0]["pg_count"].as_u64().context("no pg_count")
    }

    /// The value of `--meta`.
    #[must_use]
    pub fn meta(&self) -> String {
        self.etcd.url(PREFIX)
    }

    /// A place for a test's own files.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn process(&self, name: &str, args: &str) -> Result<Process> {
        Ok(Process::new(name, self.folder.path(), &binary()?, args))
    }

    /// Formats a disk for one more OSD, which is not started.
    fn add_osd(&mut self, host: &'static str, proxies: bool) -> Result<()> {
        let disk = self.scratch(&format!("disk.{}", self.osds.len()));
        let format = format!("osd format {} --meta {} --size 1G", disk.display(), self.meta());
        let number: u64 = trivet(&format)?.text().trim().parse().context("the OSD's number")?;
        let listen = free_port()?;
        let mut args = format!("osd run {} --host {host} --listen 127.0.0.1:{listen}", disk.display());
        let (mut inward, mut meta) = (None, Vec::new());
        if proxies {
            let proxy = Proxy::to(listen)?;
            args += &format!(" --advertise 127.0.0.1:{}", proxy.port);
            inward = Some(proxy);
            meta = self.meta_proxies()?;
            args += &format!(" --meta {}", meta_through(&meta));
        } else {
            args += &format!(" --meta {}", self.meta());
        }
        let process = self.process(&format!("osd.{number}"), &args)?;
        self.osds.push(Osd {
            process,
            number,
            host,
            inward,
            meta,
        });
        Ok(())
    }

    fn add_monitor(&mut self, at: usize) -> Result<()> {
        let args = format!("mon --meta {}", self.meta());
        self.monitors.push(self.process(&format!("mon.{at}"), &args)?);
        Ok(())
    }

    /// A proxy in front of each member of etcd.
    fn meta_proxies(&self) -> Result<Vec<Proxy>> {
        self.etcd.ports.iter().map(|port| Proxy::to(*port)).collect()
    }

    fn add_gateway(&mut self, at: usize, proxies: bool) -> Result<()> {
        let meta = if proxies { self.meta_proxies()? } else { Vec::new() };
        let reached = if proxies { meta_through(&meta) } else { self.meta() };
        let ports = Ports::free()?;
        let Ports { nbd, iscsi, nfs, http } = ports;
        let name = format!("gateway.{at}");
        let args = format!(
            "gateway --meta {reached} --name {name} --nbd 127.0.0.1:{nbd} --iscsi 127.0.0.1:{iscsi} \
             --nfs 127.0.0.1:{nfs} --http 127.0.0.1:{http}"
        );
        let process = self.process(&name, &args)?;
        self.gateways.push(Gateway {
            process,
            ports,
            meta,
            in_trouble: false,
        });
        Ok(())
    }

    /// What a process sends to OSDs, and they to it, is held from now on, even beyond its death. Only with proxies.
    pub fn cut_from_osds(&self, process: u32) {
        self.osds
            .iter()
            .filter_map(|osd| osd.inward.as_ref())
            .for_each(|link| link.cut_from(process));
    }

    /// It goes on.
    pub fn heal_from_osds(&self, process: u32) {
        self.osds
            .iter()
            .filter_map(|osd| osd.inward.as_ref())
            .for_each(|link| link.heal_from(process));
    }

    /// OSDs, monitors and gateways.
    fn daemons(&mut self) -> impl Iterator<Item = &mut Process> {
        let osds = self.osds.iter_mut().map(|osd| &mut osd.process);
        let gateways = self.gateways.iter_mut().map(|gateway| &mut gateway.process);
        osds.chain(&mut self.monitors).chain(gateways)
    }

    /// Starts all OSDs, monitors and gateways at once, and waits for them.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start_daemons(&mut self) -> Result<()> {
        self.daemons().try_for_each(Process::start)?;
        self.wait_ready()
    }

    /// Waits until all OSDs, monitors and gateways that were not killed are ready.
    ///
    /// # Errors
    /// When one of them is not in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.daemons()
            .filter(|process| process.is_wanted())
            .try_for_each(|process| process.wait_ready(START_LIMIT).map(drop))
    }

    /// `kill -9` to everything at once, etcd included.
    ///
    /// # Errors
    /// When something was down.
    pub fn kill_everything(&mut self) -> Result<()> {
        self.daemons().try_for_each(Process::kill)?;
        self.etcd.each(Process::kill)
    }

    /// Starts everything, and waits for it.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start_everything(&mut self) -> Result<()> {
        self.etcd.each(Process::start)?;
        self.start_daemons()
    }

    /// The gateways' NBD ports.
    #[must_use]
    pub fn nbd_ports(&self) -> Vec<u16> {
        self.gateways.iter().map(|gateway| gateway.ports.nbd).collect()
    }

    /// `trivet ARGS` at a gateway, whatever its outcome.
    ///
    /// # Errors
    /// When it does not end.
    pub fn cli(&self, gateway: usize, args: &str) -> Result<Ended> {
        let http = self.gateways.get(gateway).context("a gateway")?.ports.http;
        trivet_at(http, args, 30)
    }

    /// `trivet ARGS` at a gateway, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn admin(&self, gateway: usize, args: &str) -> Result<Ended> {
        let ended = self.cli(gateway, args)?;
        let said = || format!("trivet {args}: {}: {}{}", ended.status, ended.text(), ended.stderr);
        ensure!(ended.status.success(), "{}", said());
        Ok(ended)
    }

    /// `trivet status --json` at a gateway.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn status(&self, gateway: usize) -> Result<Value> {
        Ok(serde_json::from_slice(&self.admin(gateway, "status --json")?.stdout)?)
    }

    /// Whether all OSDs are up and all PGs have all their copies, as the first gateway that runs says.
    ///
    /// # Errors
    /// When no gateway is wanted.
    pub fn is_clean(&self) -> Result<bool> {
        let status = self.status(self.sound_gateway()?);
        Ok(status.is_ok_and(|status| is_clean(&status, self.osds.len())))
    }

    /// Waits until all OSDs are up and all PGs have all their copies; returns how long it took.
    ///
    /// # Errors
    /// When that takes too long; with the last status.
    pub fn wait_clean(&self) -> Result<Duration> {
        let started = Instant::now();
        while !self.is_clean()? {
            ensure!(
                started.elapsed() < CLEAN_LIMIT,
                "not clean after {CLEAN_LIMIT:?}: {:#}",
                self.status(0)?
            );
            thread::sleep(POLL);
        }
        Ok(started.elapsed())
    }

    /// How many PGs each OSD acts for as primary, by its index, as the claims in etcd say.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn primaries(&self) -> Result<BTreeMap<usize, usize>> {
        let mut counts = BTreeMap::new();
        for (key, claim) in self.etcd.entries()? {
            let osd = self.osds.iter().position(|osd| claim["primary"] == osd.number);
            if let (true, Some(osd)) = (key.ends_with("/claim"), osd) {
                *counts.entry(osd).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The OSD that is primary of most PGs, by its index.
    ///
    /// # Errors
    /// When there is none.
    pub fn busiest(&self) -> Result<usize> {
        let primaries = self.primaries()?;
        let most = primaries.into_iter().max_by_key(|(_, pgs)| *pgs);
        Ok(most.context("no claim in etcd")?.0)
    }

    /// Ends the test: everything must run, and nothing may have panicked.
    ///
    /// # Errors
    /// With what panicked or ended.
    pub fn finish(mut self) -> Result<()> {
        for process in self.daemons() {
            ensure!(process.runs()?, "{} ended: {}", process.name, process.last_words(20));
            let panics: Vec<String> = lines_with(&process.log(), "panicked at");
            ensure!(panics.is_empty(), "{}: {panics:#?}", process.name);
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for process in self.daemons() {
            println!(
                "--- last words of {}:\n{}",
                process.name,
                process.last_words(LAST_LINES)
            );
        }
        println!("--- logs: {}", self.folder.path().display());
    }
}

/// The value of `--meta` for proxies in front of etcd.
fn meta_through(proxies: &[Proxy]) -> String {
    let ports: Vec<u16> = proxies.iter().map(|proxy| proxy.port).collect();
    etcd::url(&ports, PREFIX)
}

fn lines_with(log: &str, text: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains(text))
        .map(str::to_owned)
        .collect()
}

fn is_clean(status: &Value, osds: usize) -> bool {
    let (up, pgs) = (&status["osds"], &status["pgs"]);
    up["up"] == osds
        && up["total"] == osds
        && pgs["total"].as_u64().is_some_and(|total| total > 0)
        && pgs["clean"] == pgs["total"]
        && status["recovery"]["objects_missing"] == 0
}

/// `trivet ARGS` at the gateway whose administration listens on that port, whatever its outcome, for so many seconds.
///
/// # Errors
/// When it does not end.
pub fn trivet_at(http: u16, args: &str, seconds: u64) -> Result<Ended> {
    let tool = Tool::new(binary()?).args(&format!("--api http://127.0.0.1:{http} {args}"));
    tool.within(seconds).end()
}

/// `trivet ARGS` without a gateway, which must succeed.
///
/// # Errors
/// When it does not.
pub fn trivet(args: &str) -> Result<Ended> {
    Tool::new(binary()?).args(args).within(30).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_clean;

    #[test]
    fn knows_a_clean_cluster() {
        let clean =
            json!({"osds": {"up": 2, "total": 2}, "pgs": {"total": 4, "clean": 4}, "recovery": {"objects_missing": 0}});
        assert!(is_clean(&clean, 2) && !is_clean(&clean, 3) && !is_clean(&json!({}), 0));
        for (part, field, value) in [
            ("osds", "up", 1),
            ("pgs", "clean", 3),
            ("recovery", "objects_missing", 1),
        ] {
            let mut status = clean.clone();
            status[part][field] = json!(value);
            assert!(!is_clean(&status, 2), "{part} {field}");
        }
    }
}
