//! Disks: every backend through the same cases, and what opening refuses.

#![allow(clippy::unwrap_used, reason = "tests, and the functions they share")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use trivet_reactor::{BLOCK_SIZE, Config, Disk, DiskBackend, DiskOp, DiskToken, Event, OpenDisk, Reactor};

const MIB: u64 = 1 << 20;
const BACKENDS: [DiskBackend; 3] = [DiskBackend::Ring, DiskBackend::Inline, DiskBackend::Pool];
const PATIENCE: Duration = Duration::from_secs(20);

fn reactor(backend: DiskBackend) -> Reactor {
    let config = Config {
        disk_backend: backend,
        disk_depth: 8,
        pool_threads: 2,
        inline_budget: 64 * 1024,
        ..Config::default()
    };
    Reactor::new(&config).unwrap()
}

fn disk_of(reactor: &mut Reactor, path: &Path, size: u64) -> Disk {
    let options = OpenDisk {
        size: Some(size),
        ..OpenDisk::default()
    };
    reactor.open_disk(path, &options).unwrap()
}

/// Polls until `count` operations ended and returns their results by id.
fn results(reactor: &mut Reactor, count: usize) -> BTreeMap<u64, io::Result<Bytes>> {
    let start = Instant::now();
    let mut found = BTreeMap::new();
    let mut events = Vec::new();
    while found.len() < count {
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {count} operations ended",
            found.len()
        );
        reactor.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
        for event in events.drain(..) {
            let Event::Disk { user_id, result, .. } = event else {
                panic!("{event:?}")
            };
            assert!(found.insert(user_id, result).is_none(), "{user_id} ended twice");
        }
    }
    found
}

fn one(reactor: &mut Reactor, disk: DiskToken, op: DiskOp) -> io::Result<Bytes> {
    reactor.submit_disk(disk, 42, op);
    results(reactor, 1).remove(&42).unwrap()
}

fn block(seed: u64) -> Bytes {
    Bytes::from(vec![u8::try_from(seed % 251).unwrap(); BLOCK_SIZE])
}

#[test]
fn what_is_written_is_read_on_every_backend() {
    for backend in BACKENDS {
        let dir = TempDir::new().unwrap();
        let mut reactor = reactor(backend);
        let disk = disk_of(&mut reactor, &dir.path().join("disk"), 4 * MIB);
        assert_eq!((disk.size, disk.backend), (4 * MIB, backend));
        // Far more than the depth of 8, and than the inline budget of one turn.
        for i in 0..200 {
            let write = DiskOp::Write {
                offset: i * 4096,
                data: block(i),
            };
            reactor.submit_disk(disk.token, i, write);
        }
        for (id, result) in results(&mut reactor, 200) {
            assert!(result.unwrap().is_empty(), "{backend:?} write {id}");
        }
        assert!(one(&mut reactor, disk.token, DiskOp::Flush).unwrap().is_empty());
        for i in 0..200 {
            reactor.submit_disk(
                disk.token,
                i,
                DiskOp::Read {
                    offset: i * 4096,
                    len: 4096,
                },
            );
        }
        for (id, result) in results(&mut reactor, 200) {
            let data = result.unwrap();
            assert!(data == block(id), "{backend:?} read {id}");
            assert_eq!(data.as_ptr().align_offset(BLOCK_SIZE), 0);
        }
    }
}

#[test]
fn large_and_unaligned_memory_is_written_whole() {
    for backend in BACKENDS {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk");
        let mut reactor = reactor(backend);
        let disk = disk_of(&mut reactor, &path, 4 * MIB);
        let data: Vec<u8> = (0..(MIB + 1)).map(|i| u8::try_from(i % 253).unwrap()).collect();
        let data = Bytes::from(data).slice(1..);
        let write = DiskOp::Write {
            offset: MIB,
            data: data.clone(),
        };
        one(&mut reactor, disk.token, write).unwrap();
        let len = usize::try_from(MIB).unwrap();
        let read = DiskOp::Read { offset: MIB, len };
        assert!(one(&mut reactor, disk.token, read).unwrap() == data, "{backend:?}");
        let file = fs::read(&path).unwrap();
        assert!(file[len..2 * len] == data[..], "{backend:?}");
    }
}

#[test]
fn bad_operations_fail_and_the_disk_lives_on() {
    for backend in BACKENDS {
        let dir = TempDir::new().unwrap();
        let mut reactor = reactor(backend);
        let disk = disk_of(&mut reactor, &dir.path().join("disk"), MIB);
        let past_end = DiskOp::Read {
            offset: MIB - 4096,
            len: 8192,
        };
        let table = [
            (past_end, io::ErrorKind::UnexpectedEof),
            (
                DiskOp::Read {
                    offset: 16 * MIB,
                    len: 4096,
                },
                io::ErrorKind::UnexpectedEof,
            ),
            (DiskOp::Read { offset: 1, len: 4096 }, io::ErrorKind::InvalidInput),
        ];
        for (op, kind) in table {
            let error = one(&mut reactor, disk.token, op.clone()).unwrap_err();
            assert_eq!(error.kind(), kind, "{backend:?} {op:?}");
        }
        let read = DiskOp::Read {
            offset: MIB - 4096,
            len: 4096,
        };
        assert!(one(&mut reactor, disk.token, read).unwrap() == block(0));
    }
}

#[test]
fn closing_drops_what_is_on_the_way_and_frees_everything() {
    for backend in BACKENDS {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk");
        let mut reactor = reactor(backend);
        let disk = disk_of(&mut reactor, &path, 4 * MIB);
        for i in 0..100 {
            reactor.submit_disk(
                disk.token,
                i,
                DiskOp::Read {
                    offset: i * 4096,
                    len: 4096,
                },
            );
        }
        let mut events = Vec::new();
        reactor.poll(&mut events, Some(Duration::ZERO)).unwrap();
        reactor.close_disk(disk.token);
        reactor.submit_disk(disk.token, 1, DiskOp::Flush);
        let start = Instant::now();
        // The lock goes with the last operation.
        let again = loop {
            reactor.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
            assert!(events.is_empty(), "{backend:?} {events:?}");
            match reactor.open_disk(&path, &OpenDisk::default()) {
                Ok(disk) => break disk,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
        };
        assert_ne!(again.token, disk.token);
        let read = DiskOp::Read { offset: 0, len: 4096 };
        assert!(one(&mut reactor, again.token, read).is_ok());
    }
}

#[test]
fn dropping_the_reactor_with_operations_in_flight_waits_for_them() {
    for backend in BACKENDS {
        let dir = TempDir::new().unwrap();
        let mut reactor = reactor(backend);
        let disk = disk_of(&mut reactor, &dir.path().join("disk"), 4 * MIB);
        for i in 0..64 {
            let write = DiskOp::Write {
                offset: i * 4096,
                data: block(i),
            };
            reactor.submit_disk(disk.token, i, write);
        }
        reactor.poll(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
        drop(reactor);
        // Nothing holds the lock any more.
        let mut next = self::reactor(backend);
        next.open_disk(&dir.path().join("disk"), &OpenDisk::default()).unwrap();
    }
}

#[test]
fn a_disk_has_one_user() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    let mut first = reactor(DiskBackend::Auto);
    disk_of(&mut first, &path, MIB);
    let mut second = reactor(DiskBackend::Auto);
    let error = second.open_disk(&path, &OpenDisk::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("in use by another process"), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    drop(first);
    // A process that another test starts just now has the file as well, until it runs its program.
    let opens = |_| {
        std::thread::sleep(Duration::from_millis(10));
        second.open_disk(&path, &OpenDisk::default()).is_ok()
    };
    assert!((0..100).any(opens));
}

/// A block device on a file, as long as it lives.
struct Loop(String);

impl Loop {
    /// None where the kernel has none, which is printed.
    fn on(file: &Path) -> Option<Loop> {
        if !Path::new("/dev/loop-control").exists() {
            println!("skipped: /dev/loop-control is missing");
            return None;
        }
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "losetup: {errors}");
        Some(Loop(String::from_utf8(made.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What is left of it goes with the machine.
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_that_somebody_uses_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("backing");
    fs::write(&file, vec![0; 4 << 20]).unwrap();
    let Some(device) = Loop::on(&file) else { return };
    // What mounting does, too: it claims the device.
    let mut first = reactor(DiskBackend::Auto);
    let disk = first.open_disk(Path::new(&device.0), &OpenDisk::default()).unwrap();
    assert_eq!(disk.size, 4 << 20);
    let claims = |path: &str| {
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), libc::O_EXCL);
        options.open(path)
    };
    assert_eq!(claims(&device.0).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(first);
    let claim = claims(&device.0).unwrap();
    let sized = OpenDisk {
        size: Some(1 << 20),
        ..OpenDisk::default()
    };
    for options in [OpenDisk::default(), sized] {
        let error = reactor(DiskBackend::Auto)
            .open_disk(Path::new(&device.0), &options)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(
            error.to_string().contains("is in use: mounted") && error.to_string().contains(&device.0),
            "{error}"
        );
    }
    drop(claim);
    reactor(DiskBackend::Auto)
        .open_disk(Path::new(&device.0), &OpenDisk::default())
        .unwrap();
}

#[test]
fn too_large_a_disk_is_refused_with_path_and_bytes_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("huge");
    let size = 1u64 << 52;
    let options = OpenDisk {
        size: Some(size),
        ..OpenDisk::default()
    };
    let error = reactor(DiskBackend::Auto).open_disk(&path, &options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let text = error.to_string();
    assert!(text.contains(&size.to_string()) && text.contains("huge"), "{text}");
    assert!(!path.exists());
}

#[test]
fn a_missing_disk_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("nowhere");
    let error = reactor(DiskBackend::Auto)
        .open_disk(&path, &OpenDisk::default())
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn growing_keeps_the_data_and_prewrites_only_what_is_new() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    let mut reactor = reactor(DiskBackend::Auto);
    let disk = disk_of(&mut reactor, &path, MIB);
    one(
        &mut reactor,
        disk.token,
        DiskOp::Write {
            offset: 0,
            data: block(9),
        },
    )
    .unwrap();
    reactor.close_disk(disk.token);
    reactor.poll(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
    let options = OpenDisk {
        size: Some(3 * MIB),
        prewrite: 0..5 * MIB,
        buffered: true,
    };
    let disk = reactor.open_disk(&path, &options).unwrap();
    assert_eq!((disk.size, disk.direct), (3 * MIB, false));
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * MIB);
    let first = one(&mut reactor, disk.token, DiskOp::Read { offset: 0, len: 4096 }).unwrap();
    assert!(first == block(9));
}

#[test]
fn tmpfs_is_served_inline() {
    let Ok(dir) = TempDir::new_in("/dev/shm") else {
        return;
    };
    let mut reactor = reactor(DiskBackend::Auto);
    let disk = disk_of(&mut reactor, &dir.path().join("disk"), MIB);
    assert_eq!((disk.backend, disk.direct), (DiskBackend::Inline, false));
    reactor.submit_disk(
        disk.token,
        1,
        DiskOp::Write {
            offset: 4096,
            data: block(5),
        },
    );
    reactor.submit_disk(disk.token, 2, DiskOp::Flush);
    reactor.submit_disk(
        disk.token,
        3,
        DiskOp::Read {
            offset: 4096,
            len: 4096,
        },
    );
    let mut events = Vec::new();
    reactor.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert_eq!(events.len(), 3, "all in one turn");
    let Some(Event::Disk {
        user_id: 3,
        result: Ok(data),
        ..
    }) = events.pop()
    else {
        panic!("{events:?}")
    };
    assert!(data == block(5));
}
