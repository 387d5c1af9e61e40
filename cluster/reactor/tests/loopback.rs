//! Sockets and wake-ups over loopback: a reactor on the test's thread against blocking std peers on others.

#![allow(clippy::unwrap_used, reason = "tests, and the functions they share")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trivet_reactor::{CloseReason, Config, ConnId, Event, ListenerToken, Reactor};

const LISTENER: ListenerToken = ListenerToken(7);
const PATIENCE: Duration = Duration::from_secs(20);

/// One test at a time: they count the descriptors of the process.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reactor(config: &Config) -> (Reactor, SocketAddr) {
    let mut reactor = Reactor::new(config).unwrap();
    let addr = reactor.listen("127.0.0.1:0".parse().unwrap(), LISTENER).unwrap();
    (reactor, addr)
}

/// Polls until `done` says so for an event; fails after `PATIENCE`.
fn run(reactor: &mut Reactor, mut done: impl FnMut(&mut Reactor, Event) -> bool) {
    let start = Instant::now();
    let mut events = Vec::new();
    loop {
        assert!(start.elapsed() < PATIENCE, "nothing more happens");
        reactor.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
        for event in events.drain(..) {
            if done(reactor, event) {
                return;
            }
        }
    }
}

fn accept(reactor: &mut Reactor) -> ConnId {
    let mut accepted = None;
    run(reactor, |_, event| {
        if let Event::Accepted {
            listener: LISTENER,
            conn,
            ..
        } = event
        {
            accepted = Some(conn);
        }
        accepted.is_some()
    });
    accepted.unwrap()
}

/// Echoes whatever arrives, until `closes` connections are gone.
fn echo(reactor: &mut Reactor, closes: usize) {
    let mut closed = 0;
    run(reactor, |reactor, event| {
        match event {
            Event::Readable { conn, .. } => {
                let data = reactor.input(conn).split().freeze();
                let middle = data.len() / 3;
                reactor.send(conn, [data.slice(..middle), data.slice(middle..)]);
            }
            Event::Closed { reason, .. } => {
                assert!(matches!(reason, CloseReason::Peer), "{reason}");
                closed += 1;
            }
            _ => {}
        }
        closed == closes
    });
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 7 + i / 251 + seed) % 256).unwrap())
        .collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn thirty_two_peers_that_write_in_pieces_get_their_bytes_back() {
    let _alone = alone();
    let before = descriptors();
    let (mut reactor, addr) = reactor(&Config::default());
    let peers: Vec<_> = (0..32)
        .map(|seed| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                for round in 0..20 {
                    let data = pattern(seed + round, 100 + round * 997);
                    for piece in data.chunks(1 + data.len() / 3) {
                        stream.write_all(piece).unwrap();
                    }
                    let mut back = vec![0; data.len()];
                    stream.read_exact(&mut back).unwrap();
                    assert!(back == data);
                }
            })
        })
        .collect();
    echo(&mut reactor, 32);
    for peer in peers {
        peer.join().unwrap();
    }
    assert_eq!(reactor.connections(), 0);
    drop(reactor);
    assert_eq!(descriptors(), before, "descriptors leak");
}

#[test]
fn large_messages_arrive_whole_and_replies_survive_a_full_socket() {
    let _alone = alone();
    const MESSAGE: usize = 1 << 20;
    const COUNT: usize = 8;
    let (mut reactor, addr) = reactor(&Config::default());
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        let data = pattern(1, MESSAGE);
        for _ in 0..COUNT {
            stream.write_all(&data).unwrap();
        }
        // The replies fill both sockets before the first is read.
        thread::sleep(Duration::from_millis(50));
        for _ in 0..COUNT {
            let mut back = vec![0; MESSAGE];
            stream.read_exact(&mut back).unwrap();
            assert!(back == data);
        }
    });
    let mut receives = 0;
    let mut drained = 0;
    run(&mut reactor, |reactor, event| {
        match event {
            Event::Accepted { conn, .. } => reactor.set_hint(conn, MESSAGE),
            Event::Readable { conn, .. } => {
                receives += 1;
                while reactor.input(conn).len() >= MESSAGE {
                    let message = reactor.input(conn).split_to(MESSAGE).freeze();
                    reactor.set_hint(conn, MESSAGE);
                    reactor.send(conn, [message]);
                }
            }
            Event::Drained { conn } => {
                drained += 1;
                assert_eq!(reactor.queued(conn), 0);
            }
            Event::Closed { .. } => return true,
            _ => {}
        }
        false
    });
    peer.join().unwrap();
    assert!(drained > 0, "the replies never filled the socket");
    assert!(receives < 64 * COUNT, "{receives} receives");
}

#[test]
fn a_paused_connection_receives_nothing_until_it_resumes() {
    let _alone = alone();
    let (mut reactor, addr) = reactor(&Config::default());
    let mut peer = TcpStream::connect(addr).unwrap();
    let conn = accept(&mut reactor);
    reactor.pause_reading(conn, true);
    peer.write_all(b"held").unwrap();
    let mut events = Vec::new();
    for _ in 0..5 {
        reactor.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
        assert!(events.is_empty(), "{events:?}");
    }
    reactor.pause_reading(conn, false);
    run(&mut reactor, |_, event| matches!(event, Event::Readable { .. }));
    assert_eq!(&reactor.input(conn)[..], b"held");
    // What is not consumed stays in front of what follows.
    peer.write_all(b" more").unwrap();
    run(&mut reactor, |_, event| matches!(event, Event::Readable { .. }));
    assert_eq!(&reactor.input(conn)[..], b"held more");
}

#[test]
fn vanished_peers_are_reported_once_and_harm_nobody() {
    let _alone = alone();
    for paused in [false, true] {
        let (mut reactor, addr) = reactor(&Config::default());
        let mut healthy = TcpStream::connect(addr).unwrap();
        let healthy_conn = accept(&mut reactor);
        let rude = TcpStream::connect(addr).unwrap();
        let rude_conn = accept(&mut reactor);
        // Unread data makes the close a reset.
        reactor.send(rude_conn, [Bytes::from(vec![1; 100_000])]);
        reactor.pause_reading(rude_conn, paused);
        reactor.poll(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
        thread::sleep(Duration::from_millis(10));
        drop(rude);
        let mut closes = 0;
        run(&mut reactor, |reactor, event| {
            if let Event::Closed { conn, reason } = &event {
                assert_eq!(*conn, rude_conn);
                assert!(!matches!(reason, CloseReason::Local), "{reason}");
                closes += 1;
                healthy.write_all(b"alive").unwrap();
                // Late calls for the dead connection do nothing.
                reactor.send(rude_conn, [Bytes::from_static(b"x")]);
                reactor.close(rude_conn);
                reactor.abort(rude_conn);
                assert!(reactor.input(rude_conn).is_empty());
            }
            matches!(event, Event::Readable { conn, .. } if conn == healthy_conn)
        });
        assert_eq!(closes, 1);
        assert_eq!(reactor.connections(), 1);
    }
}

#[test]
fn close_delivers_what_is_queued_even_if_the_peer_had_more_to_say() {
    let _alone = alone();
    let (mut reactor, addr) = reactor(&Config::default());
    let mut peer = TcpStream::connect(addr).unwrap();
    let conn = accept(&mut reactor);
    let last_words = pattern(3, 3 << 20);
    reactor.send(conn, [Bytes::from(last_words.clone())]);
    reactor.close(conn);
    let reader = thread::spawn(move || {
        peer.write_all(&[9; 5000]).unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        heard
    });
    run(&mut reactor, |_, event| match event {
        Event::Closed { reason, .. } => matches!(reason, CloseReason::Local),
        other => panic!("{other:?}"),
    });
    assert!(reader.join().unwrap() == last_words);
}

#[test]
fn a_closing_peer_that_never_reads_is_given_up_after_the_linger_time() {
    let _alone = alone();
    let config = Config {
        linger: Duration::from_millis(80),
        ..Config::default()
    };
    let (mut reactor, addr) = reactor(&config);
    let _peer = TcpStream::connect(addr).unwrap();
    let conn = accept(&mut reactor);
    reactor.send(conn, [Bytes::from(vec![0; 32 << 20])]);
    reactor.close(conn);
    let start = Instant::now();
    run(&mut reactor, |_, event| matches!(event, Event::Closed { .. }));
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(80) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn outgoing_connections_stand_or_fail_with_an_event() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut reactor = Reactor::new(&Config::default()).unwrap();
    let conn = reactor.connect(addr).unwrap();
    reactor.send(conn, [Bytes::from_static(b"early")]);
    run(&mut reactor, |_, event| matches!(event, Event::Connected { .. }));
    let (mut peer, _) = listener.accept().unwrap();
    reactor.poll(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"early");
    drop(listener);
    let refused = reactor.connect(addr).unwrap();
    run(&mut reactor, |_, event| match event {
        Event::Closed {
            conn,
            reason: CloseReason::Failed(error),
        } => {
            assert_eq!(conn, refused);
            error.kind() == std::io::ErrorKind::ConnectionRefused
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn peers_beyond_the_limit_are_turned_away() {
    let _alone = alone();
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let (mut reactor, addr) = reactor(&config);
    let first = TcpStream::connect(addr).unwrap();
    accept(&mut reactor);
    let mut second = TcpStream::connect(addr).unwrap();
    run(&mut reactor, |_, event| matches!(event, Event::Refused { .. }));
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
    drop(first);
    run(&mut reactor, |_, event| matches!(event, Event::Closed { .. }));
    let _third = TcpStream::connect(addr).unwrap();
    accept(&mut reactor);
}

#[test]
fn errors_of_listen_name_the_address() {
    let _alone = alone();
    let (mut reactor, addr) = reactor(&Config::default());
    let error = reactor.listen(addr, LISTENER).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    reactor.unlisten(LISTENER);
    reactor.listen(addr, LISTENER).unwrap();
}

#[test]
fn wakers_work_asleep_and_awake_and_lose_nothing() {
    let _alone = alone();
    for spin in [Duration::ZERO, Duration::from_micros(50)] {
        let mut reactor = Reactor::new(&Config {
            spin,
            ..Config::default()
        })
        .unwrap();
        let said = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (waker, said) = (reactor.waker(), Arc::clone(&said));
                thread::spawn(move || {
                    for i in 0..500 {
                        said.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                        if i % 20 == 0 {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                })
            })
            .collect();
        let start = Instant::now();
        let mut events = Vec::new();
        let mut heard = 0;
        while heard < 2000 {
            // No timeout: a lost wake-up would hang here.
            reactor.poll(&mut events, None).unwrap();
            if events.iter().any(|event| matches!(event, Event::Woken)) {
                heard = said.load(Ordering::Relaxed);
            }
            assert!(start.elapsed() < PATIENCE);
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_timeout_without_events_takes_its_time_and_no_more() {
    let _alone = alone();
    let mut reactor = Reactor::new(&Config::default()).unwrap();
    let start = Reactor::now();
    let mut events = Vec::new();
    reactor.poll(&mut events, Some(Duration::from_micros(3500))).unwrap();
    let took = Reactor::now() - start;
    assert!(events.is_empty());
    assert!((3_500_000..2_000_000_000).contains(&took), "{took} ns");
}
