//! Malformed input over TCP: sessions that are right but for one thing.
//!
//! A session is a list of messages sent one after another without waiting for
//! answers. The driver sends many, each with one mutation, and asks now and
//! then whether the server still serves. It reports a dead or deaf server; what
//! the server answered to garbage is its own affair.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::iscsi::{self, DISCOVERY, Pdu, command, login, opcode};
use crate::nbd::{CLIENT_FLAGS, INIT_MAGIC, OPT_GO, go_data, option, request};
use crate::rng::Rng;
use crate::rpc::{self, MOUNT, NFS, Rpc, opaque};

/// The messages of a client.
pub type Session = Vec<Vec<u8>>;

/// A server must answer a new client's first words within this time (timeout ladder: 1 s; shared processors: more).
const ALIVE: Duration = Duration::from_secs(5);
/// How long a session waits for the server's reaction before it leaves.
const LINGER: Duration = Duration::from_millis(20);
/// Sessions between two questions for life.
const CHECK_EVERY: u64 = 25;

/// Values that have hurt others when they stood in a length, count or offset.
const NASTY: &[u64] = &[
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffc,
    0xffff_ffff,
    u64::MAX >> 1,
    u64::MAX,
];

/// A protocol, its server and what right sessions look like.
#[derive(Debug)]
pub struct Target {
    /// Name for messages.
    pub name: &'static str,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// Sessions to mutate.
    pub sessions: Vec<Session>,
    /// Fails when the server does not serve.
    pub alive: fn(u16) -> Result<()>,
}

/// What the driver did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Sessions sent.
    pub sessions: u64,
    /// Of those, closed by the server before the client left.
    pub closed: u64,
}

/// Sends `count` mutated sessions.
///
/// # Errors
/// When the server no longer serves.
pub fn drive(target: &Target, count: u64, rng: &mut Rng) -> Result<Tally> {
    let mut tally = Tally::default();
    for number in 0..count {
        let mut session = rng.pick(&target.sessions).clone();
        let how = mutate(&mut session, rng);
        let stream = connect(target.port).with_context(|| format!("{} no longer accepts", target.name))?;
        tally.sessions += 1;
        tally.closed += u64::from(play(stream, &session, LINGER));
        if number % CHECK_EVERY == 0 || number + 1 == count {
            (target.alive)(target.port).with_context(|| format!("{} is dead after {how}", target.name))?;
        }
    }
    Ok(tally)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(ALIVE))?;
    stream.set_read_timeout(Some(ALIVE))?;
    Ok(stream)
}

/// Sends a session and waits at most `linger` for the server to close; whether it did.
pub fn play(mut stream: TcpStream, session: &[Vec<u8>], linger: Duration) -> bool {
    for message in session {
        if stream.write_all(message).is_err() {
            return true;
        }
    }
    let deadline = Instant::now() + linger;
    let mut answer = [0; 4096];
    while let left = deadline.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        if stream.set_read_timeout(Some(left)).is_err() {
            return true;
        }
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => return true,
        }
    }
    // Leaving with answers unread is one more thing a server must bear.
    drop(stream.shutdown(Shutdown::Write));
    false
}

/// Opens a connection, plays a session, and says from which port, and whether the server closed within `linger`.
///
/// # Errors
/// When the server does not accept.
pub fn visit(port: u16, session: &[Vec<u8>], linger: Duration) -> Result<(u16, bool)> {
    let stream = connect(port)?;
    let from = stream.local_addr()?.port();
    Ok((from, play(stream, session, linger)))
}

/// Changes one thing and names it.
fn mutate(session: &mut Session, rng: &mut Rng) -> String {
    let at = rng.index(session.len());
    let message = &mut session[at];
    let len = message.len().max(1);
    match rng.below(10) {
        0..=3 => {
            let (offset, width) = (rng.index(len), *rng.pick(&[1, 2, 4, 4, 8]));
            let value = *rng.pick(NASTY);
            put(message, offset / width * width, width, value);
            format!("{value:#x} in {width} bytes at {offset} of message {at}")
        }
        4 | 5 => {
            let bit = rng.index(len * 8);
            if let Some(byte) = message.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            format!("bit {bit} of message {at} flipped")
        }
        6 => {
            message.truncate(rng.index(len));
            session.truncate(at + 1);
            format!("message {at} cut short")
        }
        7 => {
            let len = 1 + rng.index(300);
            let garbage = rng.bytes(len);
            session.insert(at, garbage);
            format!("garbage before message {at}")
        }
        8 => {
            session.remove(at);
            format!("message {at} left out")
        }
        _ => {
            let again = session[at].clone();
            session.splice(at..at, std::iter::repeat_n(again, 200));
            format!("message {at} 200 times more")
        }
    }
}

/// Big-endian, as all three protocols are.
fn put(message: &mut [u8], offset: usize, width: usize, value: u64) {
    let bytes = value.to_be_bytes();
    let field = message.iter_mut().skip(offset).take(width);
    for (byte, new) in field.zip(&bytes[8 - width..]) {
        *byte = *new;
    }
}

/// NBD: every option and command, on `image` only.
#[must_use]
pub fn nbd(port: u16, image: &str) -> Target {
    let flags = CLIENT_FLAGS.to_be_bytes().to_vec();
    let go = option(OPT_GO, &go_data(image));
    let write = [request(0, 1, 2, 4096, 512), vec![0x5a; 512]].concat();
    let rest = [
        request(1, 4, 3, 0, 4096),
        request(2, 6, 4, 8192, 4096),
        request(0, 3, 5, 0, 0),
        request(0, 2, 6, 0, 0),
    ];
    let negotiation = vec![
        flags.clone(),
        option(8, &[]),
        option(3, &[]),
        option(6, &go_data(image)),
        option(2, &[]),
    ];
    let mut transmission = vec![flags.clone(), go, request(0, 0, 1, 0, 65536), write];
    transmission.extend(rest.clone());
    let mut structured = vec![flags.clone(), option(8, &[])];
    structured.extend(transmission[1..].iter().cloned());
    let old = vec![flags, option(1, image.as_bytes()), request(0, 0, 1, 0, 512)];
    Target {
        name: "NBD",
        port,
        sessions: vec![negotiation, transmission, structured, old],
        alive: nbd_alive,
    }
}

fn nbd_alive(port: u16) -> Result<()> {
    let mut magic = [0; 8];
    connect(port)?.read_exact(&mut magic)?;
    ensure!(magic == INIT_MAGIC.to_be_bytes(), "greeted with {magic:?}");
    Ok(())
}

/// iSCSI: login, discovery, commands, on the target of `image` only.
#[must_use]
pub fn iscsi(port: u16, image: &str) -> Target {
    let target = format!("iqn.2026-11.io.trivet:{}", image.replace('/', ":"));
    let normal = login(&[
        ("InitiatorName", "iqn.2026-11.io.trivet.test:fuzz"),
        ("TargetName", &target),
        ("SessionType", "Normal"),
        ("AuthMethod", "None"),
        ("ImmediateData", "Yes"),
        ("InitialR2T", "No"),
        ("FirstBurstLength", "65536"),
    ]);
    let text = Pdu::new(opcode::TEXT, 0x80, 1)
        .set(20, &[0xff; 4])
        .data(b"SendTargets=All\0");
    let discovery = vec![login(DISCOVERY), text, Pdu::new(opcode::LOGOUT, 0x80, 2)];
    let write = command(0xa1, 3, 512, &[0x2a, 0, 0, 0, 0, 8, 0, 0, 1]).data(&[0x5a; 512]);
    let unmap = command(0xa1, 4, 24, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24])
        .data(&[0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0]);
    let full = vec![
        normal.clone(),
        command(0xc1, 1, 255, &[0x12, 1, 0x83, 0, 255]),
        command(0xc1, 2, 65536, &[0x28, 0, 0, 0, 0, 0, 0, 0, 128]),
        write,
        unmap,
        Pdu::new(opcode::NOP_OUT, 0x80, 5).set(20, &[0xff; 4]).data(b"ping"),
        Pdu::new(opcode::TASK_MANAGEMENT, 0x81, 6).set(20, &3u32.to_be_bytes()),
        Pdu::new(opcode::LOGOUT, 0x80, 6),
    ];
    let solicited = vec![
        normal,
        command(0x21, 1, 8192, &[0x2a, 0, 0, 0, 0, 16, 0, 0, 16]),
        Pdu::new(opcode::DATA_OUT, 0x80, 1)
            .set(20, &[0xff; 4])
            .data(&[0x5a; 4096]),
    ];
    let bytes = |session: Vec<Pdu>| session.iter().map(Pdu::bytes).collect();
    Target {
        name: "iSCSI",
        port,
        sessions: [discovery, full, solicited].map(bytes).to_vec(),
        alive: iscsi_alive,
    }
}

fn iscsi_alive(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(&login(DISCOVERY).bytes())?;
    let mut header = [0; iscsi::HEADER];
    stream.read_exact(&mut header)?;
    ensure!(
        header[0] == opcode::LOGIN_RESPONSE && header[36] == 0,
        "login answered with {header:?}"
    );
    Ok(())
}

/// NFS and MOUNT: the procedures, on the file `image` in the root only.
///
/// # Errors
/// When there is no such file.
pub fn nfs(port: u16, image: &str) -> Result<Target> {
    let mut rpc = Rpc::open(port)?;
    let root = rpc.mount()?;
    let file = rpc.lookup(&root, image)?;
    let (root, file, name) = (opaque(&root), opaque(&file), opaque(b"fuzz-name"));
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let write = [file.clone(), words(&[0, 4096, 512, 2]), opaque(&[0x5a; 512])].concat();
    let calls = [
        (NFS, 0, vec![]),
        (NFS, 1, root.clone()),
        (NFS, 3, [&root[..], &name].concat()),
        (NFS, 4, [&file[..], &words(&[0x3f])].concat()),
        (NFS, 6, [&file[..], &words(&[0, 0, 65536])].concat()),
        (NFS, 7, write),
        (NFS, 8, [&root[..], &name, &words(&[0, 0, 0, 0, 0, 0, 0])].concat()),
        (NFS, 12, [&root[..], &name].concat()),
        (NFS, 14, [&root[..], &name, &root, &opaque(b"fuzz-other")].concat()),
        (NFS, 16, [&root[..], &words(&[0, 0, 0, 0, 4096])].concat()),
        (NFS, 17, [&root[..], &words(&[0, 0, 0, 0, 4096, 32768])].concat()),
        (NFS, 18, root.clone()),
        (NFS, 21, [&file[..], &words(&[0, 0, 0])].concat()),
        (MOUNT, 1, opaque(b"/")),
        (MOUNT, 5, vec![]),
    ];
    let all: Session = (1u32..)
        .zip(&calls)
        .map(|(xid, (program, procedure, args))| rpc::call(xid, *program, *procedure, args))
        .collect();
    let sessions = all.chunks(4).map(<[_]>::to_vec).chain([all.clone()]).collect();
    Ok(Target {
        name: "NFS",
        port,
        sessions,
        alive: nfs_alive,
    })
}

fn nfs_alive(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(&rpc::call(1, NFS, 0, &[]))?;
    // Record mark, then xid and REPLY.
    let mut reply = [0; 12];
    stream.read_exact(&mut reply)?;
    ensure!(reply[4..] == [0, 0, 0, 1, 0, 0, 0, 1], "NULL answered with {reply:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A server that greets `serves` clients as NBD does, then `then`.
    fn server(serves: usize, then: fn(TcpListener)) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().take(serves) {
                drop(stream.unwrap().write_all(&INIT_MAGIC.to_be_bytes()));
            }
            then(listener);
        });
        port
    }

    fn target(port: u16) -> Target {
        Target {
            alive: quick,
            ..nbd(port, "x")
        }
    }

    /// [`nbd_alive`] with less patience.
    fn quick(port: u16) -> Result<()> {
        let mut stream = connect(port)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.read_exact(&mut [0; 8])?;
        Ok(())
    }

    #[test]
    fn passes_a_server_that_lives() {
        let tally = drive(&target(server(1000, drop)), 60, &mut Rng::new(1)).unwrap();
        assert_eq!(tally.sessions, 60);
    }

    #[test]
    fn notices_a_server_that_died() {
        assert!(drive(&target(server(30, drop)), 60, &mut Rng::new(1)).is_err());
    }

    #[test]
    fn notices_a_server_that_hangs() {
        let hang = |listener| {
            thread::sleep(Duration::from_secs(20));
            drop(listener);
        };
        assert!(drive(&target(server(30, hang)), 60, &mut Rng::new(1)).is_err());
    }

    #[test]
    fn every_mutation_changes_something() {
        let right = nbd(0, "x").sessions[1].clone();
        let mut rng = Rng::new(3);
        let changed = (0..200).filter(|_| {
            let mut session = right.clone();
            mutate(&mut session, &mut rng);
            session != right
        });
        assert!(changed.count() > 180);
    }
}
