//! One program that can be started again and again with the same arguments. Its outputs go to files, so that it
//! never waits for a reader, and its last words are there when it fails.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, read_to_string};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::Tool;
use crate::rng::mix;

/// Where ports are looked for: below those that Linux gives to outgoing connections (32768 and up), which could
/// take a daemon's port while it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How often a file is asked for the line `ready`.
const POLL: Duration = Duration::from_millis(5);

/// A port that nobody listens on and that was not given out before.
///
/// # Errors
/// When none is found.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let span = u64::from(PORTS.end - PORTS.start);
    for attempt in 0..1000 {
        let number = mix((u64::from(std::process::id()) << 32) + given.len() as u64 + attempt) % span;
        let port = PORTS.start + u16::try_from(number)?;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port in {PORTS:?}")
}

/// A program, running or not; dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    /// For people, and for its files.
    pub name: String,
    program: PathBuf,
    args: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
    started: Instant,
}

impl Process {
    /// Not started yet; its outputs will be in `folder`.
    #[must_use]
    pub fn new(name: &str, folder: &Path, program: &Path, args: &str) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.split_whitespace().map(str::to_owned).collect(),
            folder: folder.to_owned(),
            child: None,
            started: Instant::now(),
        }
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    /// Starts it; does not wait.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.file("log"))?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(File::create(self.file("out"))?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.started = Instant::now();
        self.child = Some(child);
        Ok(())
    }

    /// Waits for the line `ready`; returns how long it took since the start.
    ///
    /// # Errors
    /// When it has ended, or does not say it within `limit` of its start; with its last words.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<Duration> {
        loop {
            let said = read_to_string(self.file("out")).unwrap_or_default();
            if said.lines().any(|line| line == "ready") {
                return Ok(self.started.elapsed());
            }
            ensure!(
                self.runs()?,
                "{} ended before it was ready: {}",
                self.name,
                self.last_words(20)
            );
            ensure!(
                self.started.elapsed() < limit,
                "{} not ready after {limit:?}: {}",
                self.name,
                self.last_words(20)
            );
            thread::sleep(POLL);
        }
    }

    /// Whether it runs; stopped counts as running.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn runs(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// `kill -9`; it may be stopped, but must not have ended by itself.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.runs()?, "{} ended by itself: {}", self.name, self.last_words(20));
        let mut child = self.child.take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        std::fs::remove_file(self.file("out"))?;
        Ok(())
    }

    /// Whether it was started and not killed since.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.child.is_some()
    }

    /// SIGSTOP: it does not run, its sockets stay.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// The process id; none while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} is down", self.name))?;
        Tool::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {}", child.id()))
            .ok()?;
        Ok(())
    }

    /// Everything that it wrote to standard error, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already, which is what is wanted.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Process, free_port};

    fn shell(folder: &Path, script: &str) -> Process {
        let file = folder.join("script");
        std::fs::write(&file, script).unwrap();
        Process::new("shell", folder, Path::new("sh"), &file.display().to_string())
    }

    #[test]
    fn is_ready_when_it_says_so_and_runs_again_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo begins >&2; echo number 1; echo ready; sleep 60");
        for life in 1..=2 {
            process.start().unwrap();
            process.wait_ready(Duration::from_secs(10)).unwrap();
            assert!(process.start().is_err(), "runs already");
            process.stop().unwrap();
            assert!(process.runs().unwrap());
            process.resume().unwrap();
            process.kill().unwrap();
            assert!(!process.runs().unwrap());
            assert_eq!(process.log().lines().count(), life);
        }
        assert!(process.stop().is_err(), "it is down");
    }

    #[test]
    fn an_early_end_and_a_late_start_are_failures() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo no such disk >&2; exit 1");
        process.start().unwrap();
        let error = process.wait_ready(Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("no such disk"), "{error}");
        assert!(process.kill().is_err(), "ended by itself");
        let mut process = shell(folder.path(), "sleep 60");
        process.start().unwrap();
        assert!(process.wait_ready(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn ports_differ() {
        assert_ne!(free_port().unwrap(), free_port().unwrap());
    }
}
