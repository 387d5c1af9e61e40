//! The supervisor: `trivet up` as a child process on free ports, its output
//! collected, its unexpected warnings turned into failures.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::process::free_port;
use crate::command::{Ended, Tool, repository};
use crate::turn::Turn;

/// A start on an old data folder replays its logs; longer than this is a hang.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The contract: SIGTERM stops within 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What every server says where io_uring is refused, as in most containers: that is the machine's, and nobody's alarm.
const NO_RING: &str = "io_uring is not to be had";

/// OSDs of a test that says nothing are small: their logs are written and read at every start.
const SMALL: &str = "--osd-size 1G";

/// Where the four servers listen, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// NBD.
    pub nbd: u16,
    /// iSCSI.
    pub iscsi: u16,
    /// NFS and MOUNT.
    pub nfs: u16,
    /// The admin API.
    pub http: u16,
}

impl Ports {
    /// Four ports that nobody listens on.
    ///
    /// # Errors
    /// When none are found.
    pub fn free() -> Result<Self> {
        Ok(Self {
            nbd: free_port()?,
            iscsi: free_port()?,
            nfs: free_port()?,
            http: free_port()?,
        })
    }
}

/// The binary under test: `TRIVET_BIN`, else the newest build.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRIVET_BIN") {
        return Ok(path.into());
    }
    let built = ["release", "debug"].map(|kind| repository().join("target").join(kind).join("trivet"));
    let newest = built
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
    newest.context("no trivet to test: `cargo build --release -p trivet`, or set TRIVET_BIN")
}

/// A data folder and ports that outlive the process that serves them.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    /// Where it listens.
    pub ports: Ports,
    args: Vec<String>,
    _turn: Turn,
}

impl Cluster {
    /// A new folder; nothing runs yet. For light tests, which may run beside others.
    ///
    /// # Errors
    /// When there is no folder or no port to be had.
    pub fn new() -> Result<Self> {
        Self::in_turn(Turn::shared())
    }

    /// The same for tests that measure time or load the disk: waits for other tests' clusters to go.
    ///
    /// # Errors
    /// When there is no folder or no port to be had.
    pub fn alone() -> Result<Self> {
        Self::in_turn(Turn::alone())
    }

    fn in_turn(turn: Turn) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("trivet-e2e-").tempdir()?;
        let cluster = Self {
            folder,
            ports: Ports::free()?,
            args: Vec::new(),
            _turn: turn,
        };
        Ok(cluster.with(SMALL))
    }

    /// Without arguments but the folder and the ports: OSDs of the usual size.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.args.clear();
        self
    }

    /// More arguments for `trivet up`, separated by spaces.
    #[must_use]
    pub fn with(mut self, args: &str) -> Self {
        self.args.extend(args.split(' ').map(str::to_owned));
        self
    }

    /// The folder given to `--data`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A place for a test's own files.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments of `trivet up` for this cluster.
    #[must_use]
    pub fn up_args(&self) -> Vec<String> {
        up_args(&self.data(), self.ports, &self.args)
    }

    /// Starts the server and waits for its line `ready`.
    ///
    /// # Errors
    /// When it ends or says nothing for too long; with its standard error.
    pub fn start(&self) -> Result<Server> {
        let mut command = Command::new(binary()?);
        command
            .args(self.up_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start trivet")?;
        let log = Log::default();
        log.collect(child.stderr.take().context("a piped stderr")?);
        let lines = lines_of(child.stdout.take().context("a piped stdout")?);
        let mut server = Server {
            child,
            ports: self.ports,
            log,
            said: Vec::new(),
            expected: Vec::new(),
            _lines: None,
            judged: false,
        };
        server.wait_ready(lines)?;
        Ok(server)
    }
}

/// The arguments of `trivet up`.
#[must_use]
pub fn up_args(data: &Path, ports: Ports, more: &[String]) -> Vec<String> {
    let Ports { nbd, iscsi, nfs, http } = ports;
    let mut args = vec!["up".to_owned(), "--data".to_owned(), data.display().to_string()];
    for (name, port) in [("nbd", nbd), ("iscsi", iscsi), ("nfs", nfs), ("http", http)] {
        args.extend([format!("--{name}"), format!("127.0.0.1:{port}")]);
    }
    args.extend(more.iter().cloned());
    args
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

/// What a server has written to standard error so far.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn collect(&self, from: impl Read + Send + 'static) {
        let lines = Arc::clone(&self.0);
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = plain(&String::from_utf8_lossy(&line));
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                line.clear();
            }
        });
    }

    /// All lines, without colours.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that contain `text`.
    #[must_use]
    pub fn with(&self, text: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(text)).collect()
    }
}

/// `line` without terminal colours and line end.
fn plain(line: &str) -> String {
    let mut parts = line.trim_end().split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}

/// Whether a log line says that something is wrong.
fn is_alarm(line: &str) -> bool {
    let mut head = line.split_whitespace().take(3);
    let warns = head.any(|word| matches!(word, "WARN" | "ERROR")) && !line.contains(NO_RING);
    warns || line.contains("panicked at")
}

/// A running `trivet up`; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub ports: Ports,
    /// Its standard error.
    pub log: Log,
    /// What it printed before `ready`.
    pub said: Vec<String>,
    expected: Vec<String>,
    _lines: Option<Receiver<String>>,
    /// Whether its end has been asked for: otherwise it is a failure that ends it.
    judged: bool,
}

impl Server {
    fn wait_ready(&mut self, lines: Receiver<String>) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => break,
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("not ready after {START_LIMIT:?}: {:#?}", self.log.lines())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(Duration::from_millis(50));
                    bail!("ended before it was ready: {:#?}", self.log.lines())
                }
            }
        }
        self._lines = Some(lines);
        Ok(())
    }

    /// WARN and ERROR lines that contain `text` are this test's own doing.
    pub fn expect_log(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// `trivet ARGS` as an administrator would call it.
    ///
    /// # Errors
    /// When there is no binary.
    pub fn cli(&self, args: &str) -> Result<Tool> {
        Ok(Tool::new(binary()?)
            .arg("--api")
            .arg(self.api(""))
            .args(args)
            .within(30))
    }

    /// `trivet ARGS`, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn admin(&self, args: &str) -> Result<Ended> {
        self.cli(args)?.ok().with_context(|| format!("trivet {args}"))
    }

    /// `trivet --json ARGS`, which must succeed and print JSON.
    ///
    /// # Errors
    /// When it does not.
    pub fn json(&self, args: &str) -> Result<Value> {
        let ended = self.admin(&format!("--json {args}"))?;
        serde_json::from_slice(&ended.stdout).with_context(|| format!("trivet --json {args} printed {}", ended.text()))
    }

    /// The address of a path of the admin API.
    #[must_use]
    pub fn api(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.http)
    }

    /// The address of an export.
    #[must_use]
    pub fn nbd_url(&self, image: &str) -> String {
        format!("nbd://127.0.0.1:{}/{image}", self.ports.nbd)
    }

    /// The address of LUN 0 of an image's target.
    #[must_use]
    pub fn iscsi_url(&self, image: &str) -> String {
        let target = image.replace('/', ":");
        format!(
            "iscsi://127.0.0.1:{}/iqn.2026-11.io.trivet:{target}/0",
            self.ports.iscsi
        )
    }

    /// The address of a file, for libnfs, which mounts all but the last part of the path: for a file in
    /// the root two slashes, since it refuses to mount the empty path.
    #[must_use]
    pub fn nfs_url(&self, path: &str) -> String {
        let port = self.ports.nfs;
        format!("nfs://127.0.0.1//{path}?version=3&nfsport={port}&mountport={port}")
    }

    /// `kill -9`; nothing is judged.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.judged = true;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, without waiting for the end.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        self.signal("TERM")
    }

    /// SIGHUP, as when its terminal closes.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn hang_up(&self) -> Result<()> {
        self.signal("HUP")
    }

    /// Keeps the whole process from running for so long.
    ///
    /// # Errors
    /// When it cannot be stopped, or not be woken.
    pub fn pause(&self, time: Duration) -> Result<()> {
        self.signal("STOP")?;
        thread::sleep(time);
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        Tool::new("kill").args(&format!("-{name} {}", self.pid())).ok()?;
        Ok(())
    }

    /// Stops it as an administrator would, within the time of the contract,
    /// and judges its log.
    ///
    /// # Errors
    /// When it had ended, does not end in time or with success, or has logged
    /// an alarm that nobody expected.
    pub fn stop(mut self) -> Result<Duration> {
        ensure!(self.runs()?, "ended by itself: {:#?}", self.log.lines());
        let asked = Instant::now();
        self.terminate()?;
        let status = self.wait(STOP_LIMIT)?;
        let took = asked.elapsed();
        ensure!(status.success(), "ended with {status}: {:#?}", self.log.lines());
        self.judge()?;
        self.judged = true;
        Ok(took)
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "still runs after {limit:?}: {:#?}",
                self.log.lines()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails when the log has alarms that nobody expected.
    ///
    /// # Errors
    /// With those lines.
    pub fn judge(&self) -> Result<()> {
        let alarms: Vec<String> = self
            .log
            .lines()
            .into_iter()
            .filter(|line| is_alarm(line) && !self.expected.iter().any(|text| line.contains(text)))
            .collect();
        ensure!(
            alarms.is_empty(),
            "{} unexpected alarms, first: {:#?}",
            alarms.len(),
            &alarms[..alarms.len().min(20)]
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
        if !self.judged || thread::panicking() {
            let lines = self.log.lines();
            let tail = &lines[lines.len().saturating_sub(30)..];
            println!("the server's last words:\n{}", tail.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_alarm, plain};

    #[test]
    fn knows_an_alarm() {
        let coloured = "\u{1b}[2m2026-11-22T16:00:00Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m trivet: peer\n";
        assert_eq!(plain(coloured), "2026-11-22T16:00:00Z  WARN trivet: peer");
        let table = [
            ("2026-11-22T16:00:00Z  WARN trivet: peer", true),
            ("2026-11-22T16:00:00Z ERROR trivet: disk", true),
            ("thread 'osd' panicked at osd/src/lib.rs:1:1:", true),
            ("2026-11-22T16:00:00Z  INFO trivet: an ERROR was cured", false),
            (
                "2026-11-22T16:00:00Z  WARN io_uring is not to be had, so threads",
                false,
            ),
        ];
        for (line, alarm) in table {
            assert_eq!(is_alarm(line), alarm, "{line}");
        }
    }
}
