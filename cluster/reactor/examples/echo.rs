//! Measures the reactor: 4 KiB echo over loopback, and receive, write to a disk, reply.
//!
//! Usage: `echo [SECONDS_PER_CASE [DISK_FILE]]`. The server is a child process of the same binary, so that
//! its CPU time is its own. Prints us per operation and server CPU us per operation.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use trivet_reactor::{Config, ConnId, DiskOp, Event, ListenerToken, OpenDisk, Reactor};

const MESSAGE: usize = 4096;
const DISK_BYTES: u64 = 64 << 20;
const SLOTS: u64 = DISK_BYTES / MESSAGE as u64;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "serve") {
        return serve(&args[1..]);
    }
    let seconds = args.first().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let disk = args.get(1).map(String::as_str);
    println!(
        "{:<12} {:>5} {:>28} {:>16} {:>16}",
        "case", "spin", "load", "us per op", "CPU us per op"
    );
    for spin in [0, 50] {
        for (what, disk) in [("echo", None), ("disk write", disk)] {
            if what == "disk write" && disk.is_none() {
                continue;
            }
            for load in LOADS {
                measure(what, spin, load, disk, Duration::from_secs_f64(seconds))?;
            }
        }
    }
    Ok(())
}

/// Connections, messages under way on each, and whether the client polls instead of sleeping.
struct Load(&'static str, usize, usize, bool);

const LOADS: [Load; 4] = [
    Load("depth 1, client sleeps", 1, 1, false),
    Load("depth 1, client polls", 1, 1, true),
    Load("32 connections", 32, 1, false),
    Load("1 connection, depth 32", 1, 32, false),
];

fn measure(what: &str, spin: u64, load: Load, disk: Option<&str>, time: Duration) -> io::Result<()> {
    let Load(name, connections, depth, polls) = load;
    let mut server = Server::start(spin, disk)?;
    let addr = server.addr;
    let clients: Vec<_> = (0..connections)
        .map(|_| thread::spawn(move || client(addr, depth, polls, time)))
        .collect();
    let start = Instant::now();
    let mut ops = 0;
    for client in clients {
        ops += client.join().expect("client thread")?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = server.stop()?;
    let (each, cpu) = (elapsed * 1e6 / f64::from(ops), cpu * 1e6 / f64::from(ops));
    println!("{what:<12} {spin:>5} {name:>28} {each:>16.1} {cpu:>16.1}");
    Ok(())
}

/// Sends `depth` messages at a time, and each again when its echo is back. Returns the echoes received.
fn client(addr: SocketAddr, depth: usize, polls: bool, time: Duration) -> io::Result<u32> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(polls)?;
    let message = vec![7; MESSAGE * depth];
    let mut buffer = vec![0; MESSAGE * depth];
    let start = Instant::now();
    let mut owed = 0;
    let mut ops = 0;
    stream.write_all(&message)?;
    while start.elapsed() < time {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => owed += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let whole = owed / MESSAGE;
        if whole > 0 {
            owed -= whole * MESSAGE;
            ops += u32::try_from(whole).expect("at most the depth");
            stream.write_all(&message[..whole * MESSAGE])?;
        }
    }
    Ok(ops)
}

struct Server {
    child: Child,
    addr: SocketAddr,
    said: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(spin: u64, disk: Option<&str>) -> io::Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &spin.to_string()])
            .args(disk)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line)?;
        let addr = line.trim().parse().map_err(io::Error::other)?;
        Ok(Server { child, addr, said })
    }

    /// Ends the server and returns the CPU seconds it used.
    fn stop(&mut self) -> io::Result<f64> {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        self.child.wait()?;
        line.trim().parse().map_err(io::Error::other)
    }
}

fn serve(args: &[String]) -> io::Result<()> {
    let spin = args.first().and_then(|text| text.parse().ok()).unwrap_or(50);
    let mut reactor = Reactor::new(&Config {
        spin: Duration::from_micros(spin),
        ..Config::default()
    })?;
    let addr = reactor.listen(SocketAddr::from(([127, 0, 0, 1], 0)), ListenerToken(0))?;
    let options = OpenDisk {
        size: Some(DISK_BYTES),
        prewrite: 0..DISK_BYTES,
        ..OpenDisk::default()
    };
    let disk = args
        .get(1)
        .map(|path| reactor.open_disk(Path::new(path), &options))
        .transpose()?;
    let waker = reactor.waker();
    thread::spawn(move || {
        // Ends when the parent closes its end.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        waker.wake();
    });
    println!("{addr}");
    let mut events = Vec::new();
    let mut asked: Vec<ConnId> = Vec::new();
    loop {
        reactor.poll(&mut events, None)?;
        for event in events.drain(..) {
            match event {
                Event::Readable { conn, .. } => {
                    while reactor.input(conn).len() >= MESSAGE {
                        let message = reactor.input(conn).split_to(MESSAGE).freeze();
                        match &disk {
                            None => reactor.send(conn, [message]),
                            Some(disk) => {
                                let id = asked.len() as u64;
                                asked.push(conn);
                                let offset = id % SLOTS * MESSAGE as u64;
                                reactor.submit_disk(disk.token, id, DiskOp::Write { offset, data: message });
                            }
                        }
                    }
                }
                Event::Disk { user_id, result, .. } => {
                    result?;
                    let conn = asked[usize::try_from(user_id).expect("an index")];
                    reactor.send(conn, [Bytes::from_static(&[7; MESSAGE])]);
                }
                Event::Woken => {
                    let used = clock_gettime(ClockId::ProcessCPUTime);
                    println!("{}.{:09}", used.tv_sec, used.tv_nsec);
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}
