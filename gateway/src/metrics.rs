//! Counters of the data path: per export and operation, how many, how many bytes, how long.
//!
//! The gateway asks [`Metrics::export`] once per image for its [`ExportMetrics`] and then counts with plain atomic
//! additions: no lock, no allocation, read by any thread that was given the [`ExportList`]. Bounded: beyond
//! [`MAX_EXPORTS`] of them, those that nobody counts for any more are forgotten, and the rest is counted together. Names are not
//! known here: whoever shows the counters looks up how the image is called by then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use trivet_core::ImageId;

/// Exports with counters of their own.
pub const MAX_EXPORTS: usize = 4096;
/// The upper bound of the first latency bucket; each further one doubles it.
const FIRST_BUCKET: Duration = Duration::from_micros(16);
/// Bounded buckets: 16 us to 16.8 s. One without a bound follows.
pub const BUCKETS: usize = 21;

/// A front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Network block device.
    Nbd,
    /// iSCSI.
    Iscsi,
    /// NFS version 3.
    Nfs,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Nbd, Protocol::Iscsi, Protocol::Nfs];

    /// Its name as a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Nbd => "nbd",
            Protocol::Iscsi => "iscsi",
            Protocol::Nfs => "nfs",
        }
    }
}

/// A class of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes, commits, cache synchronisation.
    Flush,
    /// Trims, unmaps.
    Trim,
    /// Writes of zeroes.
    Zero,
    /// Everything else.
    Other,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 6] = [Op::Read, Op::Write, Op::Flush, Op::Trim, Op::Zero, Op::Other];

    /// Its name as a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
            Op::Trim => "trim",
            Op::Zero => "zero",
            Op::Other => "other",
        }
    }
}

/// The counters of one export.
#[derive(Debug, Default)]
pub struct ExportMetrics {
    ops: [OpCounters; Op::ALL.len()],
}

#[derive(Debug, Default)]
struct OpCounters {
    errors: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS + 1],
}

/// A reading of one operation's counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Operations.
    pub count: u64,
    /// Those that failed.
    pub errors: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// Seconds that they took, all together.
    pub seconds: f64,
    /// Operations per bucket, not accumulated.
    pub buckets: [u64; BUCKETS + 1],
}

impl ExportMetrics {
    /// Counts an operation that was answered after `latency`, having moved `bytes` of payload.
    pub fn record(&self, op: Op, bytes: u64, latency: Duration, failed: bool) {
        let counters = &self.ops[op as usize];
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        counters.bytes.fetch_add(bytes, Relaxed);
        counters.nanoseconds.fetch_add(nanoseconds, Relaxed);
        counters.buckets[bucket(latency)].fetch_add(1, Relaxed);
        if failed {
            counters.errors.fetch_add(1, Relaxed);
        }
    }

    /// How one operation's counters stand.
    #[must_use]
    pub fn read(&self, op: Op) -> Reading {
        let counters = &self.ops[op as usize];
        let buckets = std::array::from_fn(|i| counters.buckets[i].load(Relaxed));
        Reading {
            count: buckets.iter().sum(),
            errors: counters.errors.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            seconds: Duration::from_nanos(counters.nanoseconds.load(Relaxed)).as_secs_f64(),
            buckets,
        }
    }
}

/// The first bucket whose bound is not below `latency`.
fn bucket(latency: Duration) -> usize {
    let steps = latency.as_nanos().div_ceil(FIRST_BUCKET.as_nanos());
    let doublings = steps.checked_next_power_of_two().unwrap_or(u128::MAX).trailing_zeros();
    usize::try_from(doublings).map_or(BUCKETS, |index| index.min(BUCKETS))
}

/// The upper bound of a bucket, seconds.
#[must_use]
pub fn bucket_bound(index: usize) -> f64 {
    if index >= BUCKETS {
        return f64::INFINITY;
    }
    (FIRST_BUCKET * (1 << index)).as_secs_f64()
}

/// The counters of each export, ascending; gone when the gateway has forgotten them. Those beyond [`MAX_EXPORTS`] are of no
/// image in particular.
pub type ExportList = Vec<(Protocol, Option<ImageId>, Weak<ExportMetrics>)>;

/// All counters of a gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    exports: BTreeMap<(Protocol, Option<ImageId>), Arc<ExportMetrics>>,
    changed: bool,
}

impl Metrics {
    /// The counters of an export, to be held as long as it is counted.
    pub fn export(&mut self, protocol: Protocol, image: ImageId) -> Arc<ExportMetrics> {
        if let Some(found) = self.exports.get(&(protocol, Some(image))) {
            return Arc::clone(found);
        }
        self.changed = true;
        if self.exports.len() >= MAX_EXPORTS {
            self.exports.retain(|_, counters| Arc::strong_count(counters) > 1);
        }
        let image = Some(image).filter(|_| self.exports.len() < MAX_EXPORTS);
        Arc::clone(self.exports.entry((protocol, image)).or_default())
    }

    /// Forgets an image that was removed; who still holds its counters counts unseen.
    pub fn forget(&mut self, image: ImageId) {
        for protocol in Protocol::ALL {
            self.changed |= self.exports.remove(&(protocol, Some(image))).is_some();
        }
    }

    /// Forgets all images but these.
    pub fn keep(&mut self, is_there: impl Fn(ImageId) -> bool) {
        let before = self.exports.len();
        self.exports.retain(|(_, image), _| image.is_none_or(&is_there));
        self.changed |= self.exports.len() < before;
    }

    /// All exports, if they are others than with the last call.
    pub fn take_changed(&mut self) -> Option<ExportList> {
        std::mem::take(&mut self.changed).then(|| self.list())
    }

    fn list(&self) -> ExportList {
        let exports = self.exports.iter();
        exports
            .map(|((protocol, image), counters)| (*protocol, *image, Arc::downgrade(counters)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: ImageId = ImageId(5);
    const OTHER: ImageId = ImageId(1 << 40);

    #[test]
    fn buckets_hold_what_their_bound_says() {
        for (nanoseconds, index) in [
            (0, 0),
            (1, 0),
            (16_000, 0),
            (16_001, 1),
            (32_000, 1),
            (32_001, 2),
            (16_777_216_000, BUCKETS - 1),
            (16_777_216_001, BUCKETS),
            (u64::MAX, BUCKETS),
        ] {
            let latency = Duration::from_nanos(nanoseconds);
            assert_eq!(bucket(latency), index, "{latency:?}");
            assert!(latency.as_secs_f64() <= bucket_bound(index), "{latency:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS);
    }

    #[test]
    fn sessions_of_one_export_share_counters() {
        let mut metrics = Metrics::default();
        let a = metrics.export(Protocol::Nbd, IMAGE);
        let b = metrics.export(Protocol::Nbd, IMAGE);
        let other = metrics.export(Protocol::Nfs, IMAGE);
        a.record(Op::Write, 4096, Duration::from_millis(1), false);
        b.record(Op::Write, 512, Duration::from_millis(2), true);
        let reading = a.read(Op::Write);
        assert_eq!((reading.count, reading.errors, reading.bytes), (2, 1, 4608));
        assert!((reading.seconds - 0.003).abs() < 1e-9);
        assert_eq!(other.read(Op::Write).count, 0);
        assert_eq!(a.read(Op::Read).count, 0);
        let list = metrics.take_changed().unwrap();
        assert_eq!(list.len(), 2);
        assert!(metrics.take_changed().is_none(), "nothing changed since");
        metrics.forget(OTHER);
        assert!(metrics.take_changed().is_none(), "nothing is counted for it");
        metrics.forget(IMAGE);
        assert!(metrics.take_changed().unwrap().is_empty());
        drop((a, b, other));
        assert!(list.iter().all(|(.., counters)| counters.upgrade().is_none()));
    }

    #[test]
    fn exports_are_bounded() {
        let mut metrics = Metrics::default();
        let held: Vec<_> = (0..MAX_EXPORTS as u64)
            .map(|n| metrics.export(Protocol::Nbd, ImageId(n)))
            .collect();
        let beyond = metrics.export(Protocol::Nbd, ImageId(1 << 41));
        assert!(Arc::ptr_eq(&beyond, &metrics.export(Protocol::Nbd, ImageId(1 << 42))));
        drop((held, beyond));
        metrics.export(Protocol::Nbd, OTHER);
        let images: Vec<_> = metrics.list().into_iter().map(|(_, image, _)| image).collect();
        assert_eq!(images, [Some(OTHER)]);
    }

    #[test]
    fn images_that_are_gone_are_forgotten() {
        let mut metrics = Metrics::default();
        for protocol in Protocol::ALL {
            metrics.export(protocol, IMAGE);
        }
        metrics.export(Protocol::Nfs, OTHER);
        metrics.take_changed();
        metrics.keep(|image| image == OTHER);
        let left = metrics.take_changed().unwrap();
        assert_eq!(left.len(), 1);
        metrics.keep(|image| image == OTHER);
        assert!(metrics.take_changed().is_none(), "nothing changed since");
    }
}
