//! A cluster of etcd processes. Who leads and what is stored is asked over etcd's JSON gateway (`/v3/`), since not
//! every machine has `etcdctl`.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::post::post;
use super::process::{Process, free_port};
use crate::command::Tool;

/// How long members may take to start and elect.
const ELECTION_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Memory that serves as disk, so that the tests do not measure etcd's fsync.
const MEMORY: &str = "/dev/shm";
/// KiB that must be free there: each member allocates 64 MiB ahead.
const MEMORY_KIB: u64 = 1 << 20;

/// The members; dropped, they are killed and their data is gone.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Process>,
    /// Where each serves clients.
    pub ports: Vec<u16>,
    data: TempDir,
}

impl Etcd {
    /// Starts that many members and waits for a leader; logs go to `logs`.
    ///
    /// # Errors
    /// When they do not start or elect.
    pub fn start(count: usize, logs: &Path) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("trivet-etcd-").tempdir_in(disk()?)?;
        let ports = (0..count).map(|_| free_port()).collect::<Result<Vec<u16>>>()?;
        let peers = (0..count).map(|_| free_port()).collect::<Result<Vec<u16>>>()?;
        let all: Vec<String> = (0..count)
            .map(|at| format!("m{at}=http://127.0.0.1:{}", peers[at]))
            .collect();
        let mut members: Vec<Process> = (0..count)
            .map(|at| member(at, data.path(), logs, ports[at], peers[at], &all.join(",")))
            .collect();
        for member in &mut members {
            member.start()?;
        }
        let etcd = Self { members, ports, data };
        etcd.wait_leader()?;
        Ok(etcd)
    }

    /// The value of `--meta` for a cluster under `prefix`.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        url(&self.ports, prefix)
    }

    /// The members.
    pub fn members(&mut self) -> &mut [Process] {
        &mut self.members
    }

    /// Which member leads, as far as one that answers knows of itself.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        (0..self.ports.len()).find(|at| {
            let status = post(self.ports[*at], "/v3/maintenance/status", &json!({}));
            status.is_ok_and(|status| status["leader"].is_string() && status["leader"] == status["header"]["member_id"])
        })
    }

    /// Waits until a member leads.
    ///
    /// # Errors
    /// When none does for long.
    pub fn wait_leader(&self) -> Result<usize> {
        let started = Instant::now();
        loop {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            let last = || {
                self.members
                    .iter()
                    .map(|member| member.last_words(5))
                    .collect::<Vec<_>>()
            };
            ensure!(
                started.elapsed() < ELECTION_LIMIT,
                "no leader after {ELECTION_LIMIT:?}: {:#?}",
                last()
            );
            thread::sleep(POLL);
        }
    }

    /// Does the same to all members.
    ///
    /// # Errors
    /// The first of theirs.
    pub fn each(&mut self, act: impl FnMut(&mut Process) -> Result<()>) -> Result<()> {
        self.members.iter_mut().try_for_each(act)
    }

    /// A copy of what all members have on their disks; none of them may run.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn backup(&self) -> Result<TempDir> {
        let copy = tempfile::Builder::new().prefix("trivet-etcd-").tempdir_in(disk()?)?;
        copy_folder(self.data.path(), copy.path())?;
        Ok(copy)
    }

    /// Puts a copy in the place of what all members have; without one, nothing. None of them may run.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn restore(&self, backup: Option<&TempDir>) -> Result<()> {
        for at in 0..self.members.len() {
            std::fs::remove_dir_all(self.data.path().join(format!("m{at}")))?;
        }
        match backup {
            Some(backup) => copy_folder(backup.path(), self.data.path()),
            None => Ok(()),
        }
    }

    /// All keys and values that are text and JSON.
    ///
    /// # Errors
    /// When no member answers.
    pub fn entries(&self) -> Result<Vec<(String, Value)>> {
        let everything = json!({"key": "AA==", "range_end": "AA=="});
        for port in &self.ports {
            if let Ok(found) = post(*port, "/v3/kv/range", &everything) {
                let entries = found["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
                return Ok(entries.iter().filter_map(entry).collect());
            }
        }
        bail!("no member of etcd answers")
    }
}

/// Copies what is in a folder into another one.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    Tool::new("cp").arg("-a").arg(from.join(".")).arg(to).ok()?;
    Ok(())
}

/// A member about to start.
fn member(at: usize, data: &Path, logs: &Path, client: u16, peer: u16, all: &str) -> Process {
    let folder = data.join(format!("m{at}"));
    let args = format!(
        "--name m{at} --data-dir {} --initial-cluster {all} --initial-cluster-state new \
         --listen-client-urls http://127.0.0.1:{client} --advertise-client-urls http://127.0.0.1:{client} \
         --listen-peer-urls http://127.0.0.1:{peer} --initial-advertise-peer-urls http://127.0.0.1:{peer} \
         --logger zap --log-level warn",
        folder.display()
    );
    Process::new(&format!("etcd.{at}"), logs, Path::new("etcd"), &args)
}

/// The value of `--meta` for members on these ports.
#[must_use]
pub fn url(ports: &[u16], prefix: &str) -> String {
    let members: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("etcd://{}/{prefix}", members.join(","))
}

/// Where etcd's data goes: memory where there is enough.
fn disk() -> Result<PathBuf> {
    let free = Tool::new("df").args("-kP").arg(MEMORY).end()?.text();
    let kib = free.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    let enough = kib
        .and_then(|kib| kib.parse().ok())
        .is_some_and(|kib: u64| kib >= MEMORY_KIB);
    Ok(if enough { MEMORY.into() } else { std::env::temp_dir() })
}

fn entry(kv: &Value) -> Option<(String, Value)> {
    let text = |field: &str| String::from_utf8(decode64(kv[field].as_str()?)?).ok();
    Some((text("key")?, serde_json::from_str(&text("value")?).ok()?))
}

/// Base 64 (RFC 4648 section 4).
fn decode64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.trim_end_matches('=').bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

impl Etcd {
    /// Kills the leader; returns which it was.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_leader(&mut self) -> Result<usize> {
        let leader = self.wait_leader()?;
        self.members.get_mut(leader).context("a member")?.kill()?;
        Ok(leader)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::super::post::post;
    use super::{Etcd, decode64, url};

    #[test]
    fn decodes() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode64(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert_eq!(decode64("Z*=="), None);
        assert_eq!(url(&[1, 2], "p"), "etcd://127.0.0.1:1,127.0.0.1:2/p");
    }

    #[test]
    fn another_member_leads_when_the_leader_is_killed_or_stopped() {
        let logs = tempfile::tempdir().unwrap();
        let mut etcd = Etcd::start(3, logs.path()).unwrap();
        let put = json!({"key": "cC9rZXk=", "value": "eyJhIjoxfQ=="});
        post(etcd.ports[etcd.leader().unwrap()], "/v3/kv/put", &put).unwrap();
        let killed = etcd.kill_leader().unwrap();
        let asked = Instant::now();
        let next = etcd.wait_leader().unwrap();
        assert_ne!(next, killed);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        etcd.members()[killed].start().unwrap();
        etcd.members()[next].stop().unwrap();
        assert_ne!(etcd.wait_leader().unwrap(), next);
        etcd.members()[next].resume().unwrap();
        assert_eq!(etcd.entries().unwrap(), vec![("p/key".to_owned(), json!({"a": 1}))]);
        etcd.each(super::Process::kill).unwrap();
        assert!(etcd.leader().is_none() && etcd.entries().is_err());
        etcd.each(super::Process::start).unwrap();
        etcd.wait_leader().unwrap();
        assert_eq!(etcd.entries().unwrap().len(), 1);
    }
}
