//! Real etcd clusters for tests: started on free ports of this machine, with their data in memory where there is
//! `/dev/shm`, and gone with the value.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::Client;
use tempfile::TempDir;

use super::super::MetaUrl;

/// How long members may take to accept connections.
const START: Duration = Duration::from_secs(20);

struct Member {
    process: Option<Child>,
    client: u16,
    peer: u16,
}

/// The members, each a process.
pub(super) struct Cluster {
    members: Vec<Member>,
    directory: TempDir,
    /// `http` or `https`, for clients.
    scheme: &'static str,
    options: Vec<String>,
}

impl Cluster {
    pub(super) fn start(size: usize) -> Cluster {
        Cluster::with_options(size, "http", directory(), &[])
    }

    /// `directory` is where the members' data goes, too.
    pub(super) fn with_options(size: usize, scheme: &'static str, directory: TempDir, options: &[String]) -> Cluster {
        let ports: Vec<_> = (0..2 * size)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let port = |index: usize| ports[index].local_addr().unwrap().port();
        let member = |index| Member {
            process: None,
            client: port(2 * index),
            peer: port(2 * index + 1),
        };
        let mut cluster = Cluster {
            members: (0..size).map(member).collect(),
            directory,
            scheme,
            options: options.to_vec(),
        };
        drop(ports);
        (0..size).for_each(|member| cluster.spawn(member));
        (0..size).for_each(|member| cluster.wait(member));
        cluster
    }

    fn spawn(&mut self, index: usize) {
        let member = &self.members[index];
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let client = format!("{}://127.0.0.1:{}", self.scheme, member.client);
        let all = self.members.iter().enumerate();
        let all: Vec<_> = all
            .map(|(index, member)| format!("m{index}=http://127.0.0.1:{}", member.peer))
            .collect();
        let process = Command::new("etcd")
            .args(["--name", &format!("m{index}"), "--data-dir"])
            .arg(self.data(index))
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args([
                "--initial-cluster",
                &all.join(","),
                "--logger",
                "zap",
                "--log-level",
                "fatal",
            ])
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need `etcd` (Debian: etcd-server; `tests/install test` installs it)");
        self.members[index].process = Some(process);
    }

    fn wait(&mut self, index: usize) {
        let started = Instant::now();
        let member = &mut self.members[index];
        while TcpStream::connect(("127.0.0.1", member.client)).is_err() {
            let process = member.process.as_mut().expect("it was started");
            assert_eq!(process.try_wait().unwrap(), None, "etcd ended at once");
            assert!(started.elapsed() < START, "etcd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    fn host(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client)
    }

    /// All members, beginning with this one.
    pub(super) fn hosts(&self, first: usize) -> String {
        let members = (0..self.size()).map(|step| self.host((first + step) % self.size()));
        members.collect::<Vec<_>>().join(",")
    }

    pub(super) fn url(&self, prefix: &str) -> MetaUrl {
        format!("etcd://{}/{prefix}", self.hosts(0)).parse().unwrap()
    }

    /// etcd's own view, past everything that is tested.
    pub(super) async fn client(&self, member: usize) -> Client {
        Client::connect([self.host(member)], None).await.unwrap()
    }

    /// Waits until every member has a leader.
    pub(super) async fn settled(&self) {
        let started = Instant::now();
        for member in 0..self.size() {
            while self.client(member).await.get("any", None).await.is_err() {
                assert!(started.elapsed() < START, "etcd elects no leader");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The member that leads, according to the first that answers.
    pub(super) async fn leader(&self) -> usize {
        let mut ids = Vec::new();
        let mut leader = 0;
        for member in 0..self.size() {
            let status = self.client(member).await.status().await.unwrap();
            ids.push(status.header().unwrap().member_id());
            leader = status.leader();
        }
        ids.iter().position(|&id| id == leader).expect("a leader")
    }

    pub(super) fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What a member that does not run has on its disk, for [`Cluster::restore`].
    pub(super) fn backup(&self, member: usize) -> TempDir {
        let copy = directory();
        self.copy(&self.data(member), &copy.path().join("data"));
        copy
    }

    /// Puts a backup in the place of what a member that does not run has on its disk; without one, nothing.
    pub(super) fn restore(&self, member: usize, backup: Option<&TempDir>) {
        let data = self.data(member);
        std::fs::remove_dir_all(&data).unwrap();
        if let Some(backup) = backup {
            self.copy(&backup.path().join("data"), &data);
        }
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("m{member}"))
    }

    fn copy(&self, from: &Path, to: &Path) {
        assert!(
            self.members.iter().all(|member| member.process.is_none()),
            "they stand still"
        );
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.unwrap().success());
    }

    /// Starts the members, none of which runs, where clients that know them do not find them; says where they were.
    pub(super) fn restart_elsewhere(&mut self) -> Vec<u16> {
        let elsewhere: Vec<_> = self
            .members
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports = elsewhere.iter().map(|port| port.local_addr().unwrap().port());
        let ports: Vec<u16> = ports.collect();
        drop(elsewhere);
        self.restart_at(&ports)
    }

    /// Starts all members anew with these ports for clients; says which they had.
    pub(super) fn restart_at(&mut self, ports: &[u16]) -> Vec<u16> {
        (0..self.size()).for_each(|member| self.kill(member));
        let clients = self.members.iter_mut().zip(ports);
        let before = clients.map(|(member, port)| std::mem::replace(&mut member.client, *port));
        let before = before.collect();
        (0..self.size()).for_each(|member| self.spawn(member));
        (0..self.size()).for_each(|member| self.wait(member));
        before
    }

    pub(super) fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.wait(member);
    }

    /// `STOP` or `CONT`.
    pub(super) fn signal(&self, member: usize, signal: &str) {
        let process = self.members[member].process.as_ref().expect("it runs");
        let sent = Command::new("kill")
            .args([format!("-{signal}"), process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.size()).for_each(|member| self.kill(member));
    }
}

/// In memory if possible: etcd waits for the disk with every commit.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}
