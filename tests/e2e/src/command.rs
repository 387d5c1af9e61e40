//! Other people's programs as clients, each run bounded in time.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a program may run unless a test says otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(120);
/// How often a running program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A program about to run.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    name: String,
    input: Vec<u8>,
    limit: Duration,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, as text.
    pub stderr: String,
}

impl Ended {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Tool {
    /// The program `name`, from PATH or by its path.
    pub fn new(name: impl AsRef<Path>) -> Self {
        let name = name.as_ref();
        let mut command = Command::new(name);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        Self {
            command,
            name: name.display().to_string(),
            input: Vec::new(),
            limit: DEFAULT_LIMIT,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Arguments separated by single spaces.
    #[must_use]
    pub fn args(mut self, args: &str) -> Self {
        self.command.args(args.split(' ').filter(|arg| !arg.is_empty()));
        self
    }

    /// What it reads from standard input (nothing by default).
    #[must_use]
    pub fn input(mut self, input: &[u8]) -> Self {
        self.input = input.to_vec();
        self
    }

    /// The seconds after which it is killed and the test fails.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts it; [`Running::end`] waits.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut self) -> Result<Running> {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let mut stdin = child.stdin.take().context("a piped stdin")?;
        let input = self.input;
        // A program that does not read all of it is judged by its exit status.
        thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = drain(child.stdout.take().context("a piped stdout")?);
        let stderr = drain(child.stderr.take().context("a piped stderr")?);
        let output = Some((stdout, stderr));
        Ok(Running {
            child,
            name: self.name,
            output,
            deadline: Instant::now() + self.limit,
        })
    }

    /// Runs it to its end, whatever its exit status.
    ///
    /// # Errors
    /// When it cannot be started or runs too long.
    pub fn end(self) -> Result<Ended> {
        self.start()?.end()
    }

    /// Runs it to success.
    ///
    /// # Errors
    /// When it cannot be started, runs too long, or fails.
    pub fn ok(self) -> Result<Ended> {
        self.start()?.ok()
    }
}

fn drain(mut from: impl Read + Send + 'static) -> Drain {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What could be read before an error is all there is to show.
        drop(from.read_to_end(&mut all));
        all
    })
}

/// Collects one of a program's outputs.
type Drain = JoinHandle<Vec<u8>>;

/// A program that runs; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    output: Option<(Drain, Drain)>,
    deadline: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Running {
    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it runs too long.
    pub fn end(mut self) -> Result<Ended> {
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > self.deadline => break None,
                None => thread::sleep(POLL),
            }
        };
        self.child.kill()?;
        let (stdout, stderr) = self.output.take().context("ended twice")?;
        let stdout = stdout.join().unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
        match status {
            Some(status) => Ok(Ended { status, stdout, stderr }),
            None => bail!(
                "{} took too long: {}{stderr}",
                self.name,
                String::from_utf8_lossy(&stdout)
            ),
        }
    }

    /// Waits for success.
    ///
    /// # Errors
    /// When it runs too long, or fails.
    pub fn ok(self) -> Result<Ended> {
        let name = self.name.clone();
        let ended = self.end()?;
        ensure!(
            ended.status.success(),
            "{name}: {}: {}{}",
            ended.status,
            ended.text(),
            ended.stderr
        );
        Ok(ended)
    }
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A C client of `clients/`, compiled when it is first asked for.
///
/// # Panics
/// When it cannot be compiled: `tests/install test` brings what it needs.
#[must_use]
pub fn client(name: &str) -> Tool {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = repository().join("target/clients");
        let script = repository().join("tests/e2e/clients/build");
        Tool::new(script).arg(&folder).ok().expect("the C clients compile");
        folder
    });
    Tool::new(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::Tool;

    #[test]
    fn sees_success_failure_and_delay() {
        assert_eq!(Tool::new("cat").input(b"in").ok().unwrap().text(), "in");
        assert!(Tool::new("false").ok().is_err());
        assert!(Tool::new("sleep").args("30").within(0).end().is_err());
        assert!(Tool::new("no-such-program").end().is_err());
    }
}
