//! The suite over the embedded backend, and what only a backend with a file can do wrong.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redb::{Builder, StorageBackend};
use trivet_core::kv::{Change, LeaseId, Notice, Txn, TxnOutcome};

use super::{Embedded, file};
use crate::suite::{Mirror, commit, next, put, value};
use crate::{Meta, MetaError, suite};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn suite() {
    let directory = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    let make = || -> Arc<dyn Meta> {
        count.set(count.get() + 1);
        Arc::new(Embedded::open(directory.path().join(format!("{}.redb", count.get()))).unwrap())
    };
    suite::run(make, 2..=2).await;
}

fn leased(key: &str, lease: LeaseId) -> Change {
    Change::Put {
        key: key.into(),
        value: "x".into(),
        lease: Some(lease),
    }
}

#[tokio::test]
async fn a_restart_keeps_all_but_leased_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let meta = Embedded::open(&path).unwrap();
    let lease = meta.lease_grant(Duration::from_secs(60)).await.unwrap();
    commit(&meta, vec![put("a", "1"), leased("b", lease), leased("c", lease)]).await;
    let last = commit(&meta, vec![put("c", "2")]).await;
    let mut watch = meta.watch("", None);
    next(&mut *watch).await;
    drop(meta);
    assert_eq!(watch.next().await, None);

    let meta = Embedded::open(&path).unwrap();
    let range = meta.range("").await.unwrap();
    assert_eq!(range.revision, last + 1, "the removal of b is one commit");
    assert_eq!(
        range.keys.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
        ["a", "c"]
    );
    assert_eq!(meta.lease_keep_alive(lease).await, Err(MetaError::NoSuchLease(lease)));
    assert!(meta.lease_grant(Duration::from_secs(60)).await.unwrap() > lease);
    // History does not survive: a watch from an old revision begins with a snapshot.
    let mut watch = meta.watch("", Some(last));
    assert!(matches!(next(&mut *watch).await, Notice::Snapshot { .. }));
    drop(meta);
    let meta = Embedded::open(&path).unwrap();
    assert_eq!(meta.range("").await.unwrap(), range, "an idle run changes nothing");
}

#[test]
fn opening_what_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let meta = Embedded::open(&path).unwrap();
    let again = Embedded::open(&path).err().unwrap();
    assert!(matches!(&again, MetaError::InUse(_)), "{again}");
    assert!(
        again.to_string().contains("meta.redb: the metadata store is in use"),
        "{again}"
    );
    drop(meta);

    let nowhere = Embedded::open(directory.path().join("none/meta.redb")).err().unwrap();
    assert!(matches!(&nowhere, MetaError::Unavailable(_)), "{nowhere}");
    assert!(nowhere.to_string().contains("none/meta.redb"), "{nowhere}");

    for (name, bytes) in [("text", b"hello, world".repeat(1000)), ("zeros", vec![0; 10_000])] {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Embedded::open(&path).err().unwrap();
        assert!(matches!(&error, MetaError::Corrupt { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn damage_is_an_error_or_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let meta = Embedded::open(&path).unwrap();
    for n in 0..200 {
        commit(&meta, vec![put(&format!("key/{n}"), &"v".repeat(n))]).await;
    }
    let want = meta.range("").await.unwrap();
    drop(meta);
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at..(at + 64).min(whole.len())]
            .iter_mut()
            .for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&path, &bytes).unwrap();
        match Embedded::open(&path) {
            Ok(meta) => assert_eq!(meta.range("").await.unwrap(), want, "damage at {at}"),
            Err(MetaError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("damage at {at}: {other}"),
        }
    }
    assert!(refused > 0);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = Embedded::open(&path).err().unwrap();
    assert!(matches!(&error, MetaError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    drop(Embedded::open(&path).unwrap());
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let state: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("state");
    write.open_table(state).unwrap().insert("format", 99).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = Embedded::open(&path).err().unwrap();
    assert!(error.to_string().contains("format 99"), "{error}");
}

/// A disk in memory that can fill up, fail to sync, and lose what was not synced.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    written: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    syncs: AtomicUsize,
    full: AtomicBool,
    deaf: AtomicBool,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }

    fn cut_power(&self) {
        *self.0.written.lock().unwrap() = self.0.synced.lock().unwrap().clone();
    }

    fn open(&self) -> Result<Embedded, MetaError> {
        let disk = self.clone();
        let make = move || Builder::new().create_with_backend(disk.clone());
        Embedded::start(file::opening("disk".into(), make))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.written.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let bytes = self.0.written.lock().unwrap();
        out.copy_from_slice(bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.0.written.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.deaf.load(Ordering::SeqCst) {
            return Err(io::Error::other("the cable is out"));
        }
        self.check()?;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        let written = self.0.written.lock().unwrap().clone();
        *self.0.synced.lock().unwrap() = written;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let at = usize::try_from(offset).unwrap();
        self.0.written.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn one(change: Change) -> Txn {
    Txn {
        compare: vec![],
        changes: vec![change],
    }
}

#[tokio::test]
async fn a_full_disk_fails_one_commit_and_no_more() {
    let disk = Disk::default();
    let meta = disk.open().unwrap();
    let before = commit(&meta, vec![put("a", "1")]).await;
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("", None));
    mirror.apply(next(&mut *watch).await);

    disk.0.full.store(true, Ordering::SeqCst);
    let outcome = meta.txn(one(put("b", &"x".repeat(1 << 19)))).await;
    assert!(
        matches!(outcome, Ok(TxnOutcome::Unknown) | Err(MetaError::NoSpace(_))),
        "{outcome:?}"
    );
    let refused = meta.txn(one(put("c", "1"))).await;
    assert!(!matches!(refused, Ok(TxnOutcome::Committed(_))), "{refused:?}");

    disk.0.full.store(false, Ordering::SeqCst);
    let after = commit(&meta, vec![put("d", "1")]).await;
    assert!(after > before);
    assert_eq!(value(&meta, "a").await.as_deref(), Some("1"));
    mirror.catch_up(&mut *watch, after).await;
    let range = meta.range("").await.unwrap();
    assert_eq!(mirror.keys.into_values().collect::<Vec<_>>(), range.keys);
    assert!(range.keys.iter().all(|row| row.key != "c"), "c was refused for certain");
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut() {
    let disk = Disk::default();
    let mut wanted: Vec<String> = Vec::new();
    let mut revision = 0;
    for round in 0..20 {
        let meta = disk.open().unwrap();
        assert!(meta.range("").await.unwrap().revision >= revision);
        for row in &wanted {
            assert_eq!(value(&meta, row).await.as_deref(), Some("1"), "{row}");
        }
        for n in 0..round {
            let key = format!("{round}.{n}");
            revision = commit(&meta, vec![put(&key, "1")]).await;
            wanted.push(key);
        }
        disk.0.deaf.store(true, Ordering::SeqCst);
        let lost = meta.txn(one(put("lost", "1"))).await;
        assert!(!matches!(lost, Ok(TxnOutcome::Committed(_))), "{lost:?}");
        drop(meta);
        disk.cut_power();
        disk.0.deaf.store(false, Ordering::SeqCst);
    }
    assert!(wanted.len() > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_with_requests_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let meta = Arc::new(Embedded::open(&path).unwrap());
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let meta = Arc::clone(&meta);
            tokio::spawn(async move {
                for n in 0..20 {
                    commit(&*meta, vec![put(&format!("{w}.{n}"), "1"), put("pair", "1")]).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    writers.iter().take(4).for_each(|writer| writer.abort());
    for writer in writers.into_iter().skip(4) {
        writer.await.unwrap();
    }
    let range = meta.range("").await.unwrap();
    drop(Arc::into_inner(meta).expect("the last handle"));
    let meta = Embedded::open(&path).unwrap();
    let again = meta.range("").await.unwrap();
    assert!(again.revision >= range.revision && again.keys.len() >= range.keys.len());
    for (w, n) in (4..8).flat_map(|w| (0..20).map(move |n| (w, n))) {
        assert!(again.keys.iter().any(|row| row.key == format!("{w}.{n}")));
    }
}

#[tokio::test]
async fn many_transactions_share_a_sync() {
    const TRANSACTIONS: usize = 200;
    let disk = Disk::default();
    let meta = Arc::new(disk.open().unwrap());
    let before = disk.0.syncs.load(Ordering::SeqCst);
    let tasks: Vec<_> = (0..TRANSACTIONS)
        .map(|n| {
            let meta = Arc::clone(&meta);
            tokio::spawn(async move { commit(&*meta, vec![put(&n.to_string(), "1")]).await })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), TRANSACTIONS, "each has a revision of its own");
    let syncs = disk.0.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs < TRANSACTIONS, "{syncs} syncs");
}
