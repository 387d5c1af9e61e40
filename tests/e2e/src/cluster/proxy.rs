//! A TCP proxy between two processes of a test, as the network that can fail: it cuts (everything is held, nothing
//! is told to either side, as when a cable is pulled), resets, delays and heals. Linux retransmits what a cable
//! swallowed, so what is held goes on when it heals. One of those who connect can be cut off alone: which process a
//! connection is of is asked of the kernel.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::owner::owner;
use super::process::free_port;

/// What is read and passed on at a time.
const CHUNK: usize = 64 * 1024;
/// How often a write that cannot go on looks whether it shall be given up.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// What the network does now.
#[derive(Clone, Debug, Default)]
struct Weather {
    cut: bool,
    /// What the server says is held.
    mute: bool,
    /// Processes that are cut off alone.
    cut_from: BTreeSet<u32>,
    delay: Duration,
    gone: bool,
}

#[derive(Debug)]
struct Link {
    target: SocketAddr,
    weather: Mutex<Weather>,
    changed: Condvar,
    pairs: Mutex<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    list: Vec<Weak<Pair>>,
    /// How often all connections were reset: one that was accepted before and gets its server only now is reset, too.
    resets: u64,
}

/// A client's connection and the one to the server that belongs to it.
#[derive(Debug)]
struct Pair {
    ends: [TcpStream; 2],
    /// The process that connected, as far as the kernel told.
    of: Option<u32>,
    reset: AtomicBool,
}

/// Listens on its own port; dropped, all its connections are reset.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect to.
    pub port: u16,
    link: Arc<Link>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy in front of a port of 127.0.0.1, where nobody has to listen yet.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn to(target: u16) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let link = Arc::new(Link {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            weather: Mutex::default(),
            changed: Condvar::new(),
            pairs: Mutex::default(),
        });
        let serving = Arc::clone(&link);
        thread::spawn(move || serve(&listener, &serving));
        Ok(Self { port, link })
    }

    fn set(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut locked(&self.link.weather));
        self.link.changed.notify_all();
    }

    /// From now on nothing passes, not even the end of a connection.
    pub fn cut(&self) {
        self.set(|weather| weather.cut = true);
    }

    /// From now on the server hears everything, and nothing of what it says comes through.
    pub fn mute(&self) {
        self.set(|weather| weather.mute = true);
    }

    /// As [`Proxy::cut`], for one of the processes that connect; what it has sent stays on its way even if it dies.
    pub fn cut_from(&self, process: u32) {
        self.set(|weather| {
            weather.cut_from.insert(process);
        });
    }

    /// What is of that process passes again.
    pub fn heal_from(&self, process: u32) {
        self.set(|weather| {
            weather.cut_from.remove(&process);
        });
    }

    /// Every piece of data is late by so much.
    pub fn delay(&self, delay: Duration) {
        self.set(|weather| weather.delay = delay);
    }

    /// Everything passes again, beginning with what was held; processes that were cut off alone stay so.
    pub fn heal(&self) {
        self.set(|weather| {
            *weather = Weather {
                cut_from: std::mem::take(&mut weather.cut_from),
                gone: weather.gone,
                ..Weather::default()
            };
        });
    }

    /// Both ends of all connections are reset (RST).
    pub fn reset(&self) {
        let pairs = {
            let mut pairs = locked(&self.link.pairs);
            pairs.resets += 1;
            std::mem::take(&mut pairs.list)
        };
        for pair in pairs.iter().filter_map(Weak::upgrade) {
            pair.reset();
        }
        self.link.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(|weather| weather.gone = true);
        self.reset();
        // Wakes the thread that accepts; when nobody listens any more, there is nothing to wake.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Link {
    /// Waits while the link is cut, to the server or back; returns the delay, or nothing when it is over.
    fn pass(&self, of: Option<u32>, back: bool, given_up: impl Fn() -> bool) -> Option<Duration> {
        let weather = locked(&self.weather);
        let is_cut = |weather: &Weather| {
            weather.cut || back && weather.mute || of.is_some_and(|of| weather.cut_from.contains(&of))
        };
        let held = |weather: &mut Weather| is_cut(weather) && !weather.gone && !given_up();
        let weather = self
            .changed
            .wait_while(weather, held)
            .unwrap_or_else(PoisonError::into_inner);
        (!weather.gone && !given_up()).then_some(weather.delay)
    }
}

impl Pair {
    /// Ends both directions; with no time to linger, the last close sends RST.
    fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
        for end in &self.ends {
            // A connection that is gone already needs nothing.
            let _ = rustix::net::sockopt::set_socket_linger(end, Some(Duration::ZERO));
            drop(end.shutdown(Shutdown::Read));
        }
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

impl Pairs {
    /// Takes part in the next reset, or is reset at once if there was one since `resets` was read.
    fn add(&mut self, pair: &Arc<Pair>, resets: u64) {
        if self.resets != resets {
            return pair.reset();
        }
        self.list.retain(|pair| pair.strong_count() > 0);
        self.list.push(Arc::downgrade(pair));
    }
}

fn serve(listener: &TcpListener, link: &Arc<Link>) {
    for client in listener.incoming().map_while(Result::ok) {
        if locked(&link.weather).gone {
            return;
        }
        let link = Arc::clone(link);
        let resets = locked(&link.pairs).resets;
        thread::spawn(move || connect(client, &link, resets));
    }
}

/// Connects to the server, once the link is not cut, and passes on both directions.
fn connect(client: TcpStream, link: &Arc<Link>, resets: u64) {
    let of = owner(&client);
    if link.pass(of, false, || false).is_none() {
        return;
    }
    let Ok(server) = TcpStream::connect(link.target) else {
        // Nobody listens: the client learns it as far as an accepted connection can tell.
        let _ = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
        return;
    };
    let ends = [client, server];
    for end in &ends {
        // Only speed and the reaction to a reset depend on these.
        drop(end.set_nodelay(true));
        drop(end.set_write_timeout(Some(WRITE_TIMEOUT)));
    }
    let reset = AtomicBool::new(false);
    let pair = Arc::new(Pair { ends, of, reset });
    locked(&link.pairs).add(&pair, resets);
    let (back, other) = (Arc::clone(link), Arc::clone(&pair));
    thread::spawn(move || pump(&back, &other, 1));
    pump(link, &pair, 0);
}

/// Passes on what comes from one end to the other until there is no more, as errors do: they reset both.
fn pump(link: &Link, pair: &Pair, from: usize) {
    match forward(link, pair, from) {
        Ok(()) if !pair.is_reset() => drop(pair.ends[1 - from].shutdown(Shutdown::Write)),
        _ => pair.reset(),
    }
}

fn forward(link: &Link, pair: &Pair, end: usize) -> io::Result<()> {
    let (mut from, to) = (&pair.ends[end], &pair.ends[1 - end]);
    let mut chunk = vec![0; CHUNK];
    loop {
        let len = from.read(&mut chunk)?;
        let Some(delay) = link.pass(pair.of, end == 1, || pair.is_reset()) else {
            return Err(ErrorKind::ConnectionReset.into());
        };
        thread::sleep(delay);
        if len == 0 {
            return Ok(());
        }
        write(pair, to, &chunk[..len])?;
    }
}

fn write(pair: &Pair, mut to: &TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match to.write(data) {
            Ok(len) => data = &data[len..],
            Err(error) if error.kind() == ErrorKind::WouldBlock && !pair.is_reset() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::Proxy;

    /// Both ends of a connection through a proxy.
    fn through() -> (Proxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap().port()).unwrap();
        let client = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let server = listener.accept().unwrap().0;
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
        (proxy, client, server)
    }

    fn hear(mut from: &TcpStream, len: usize) -> Result<Vec<u8>, ErrorKind> {
        let mut data = vec![0; len];
        from.read_exact(&mut data).map_err(|error| error.kind())?;
        Ok(data)
    }

    #[test]
    fn passes_holds_and_delivers_after_healing() {
        let (proxy, mut client, mut server) = through();
        client.write_all(b"to").unwrap();
        server.write_all(b"fro").unwrap();
        assert_eq!(
            (hear(&server, 2).unwrap(), hear(&client, 3).unwrap()),
            (b"to".to_vec(), b"fro".to_vec())
        );
        proxy.mute();
        client.write_all(b"to").unwrap();
        server.write_all(b"fro").unwrap();
        assert_eq!(hear(&server, 2).unwrap(), b"to");
        assert_eq!(hear(&client, 3), Err(ErrorKind::WouldBlock));
        proxy.heal();
        assert_eq!(hear(&client, 3).unwrap(), b"fro");
        proxy.cut();
        client.write_all(b"held").unwrap();
        drop(client);
        assert_eq!(hear(&server, 1), Err(ErrorKind::WouldBlock), "neither data nor an end");
        proxy.heal();
        assert_eq!(hear(&server, 4).unwrap(), b"held");
        assert_eq!(hear(&server, 1), Err(ErrorKind::UnexpectedEof));
    }

    #[test]
    fn one_process_is_cut_off_alone() {
        let (proxy, mut client, server) = through();
        proxy.cut_from(std::process::id() + 1);
        client.write_all(b"of us").unwrap();
        assert_eq!(hear(&server, 5).unwrap(), b"of us");
        proxy.cut_from(std::process::id());
        client.write_all(b"held").unwrap();
        proxy.heal();
        assert_eq!(
            hear(&server, 4),
            Err(ErrorKind::WouldBlock),
            "cut off until it is healed itself"
        );
        proxy.heal_from(std::process::id());
        assert_eq!(hear(&server, 4).unwrap(), b"held");
    }

    #[test]
    fn resets_both_ends_cut_or_not() {
        for cut in [false, true] {
            let (proxy, mut client, mut server) = through();
            if cut {
                proxy.cut();
                client.write_all(b"lost").unwrap();
                server.write_all(b"lost").unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
            proxy.reset();
            assert_eq!(hear(&client, 1), Err(ErrorKind::ConnectionReset));
            assert_eq!(hear(&server, 1), Err(ErrorKind::ConnectionReset));
        }
    }

    #[test]
    fn delays_and_tells_when_nobody_listens() {
        let (proxy, mut client, server) = through();
        proxy.delay(Duration::from_millis(100));
        let sent = Instant::now();
        client.write_all(b"late").unwrap();
        assert_eq!(hear(&server, 4).unwrap(), b"late");
        assert!(sent.elapsed() >= Duration::from_millis(100));
        proxy.heal();
        let nobody = Proxy::to(super::free_port().unwrap()).unwrap();
        let client = TcpStream::connect(("127.0.0.1", nobody.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(hear(&client, 1), Err(ErrorKind::ConnectionReset));
    }
}
