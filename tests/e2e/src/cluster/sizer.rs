//! A client that makes a file larger and smaller, over NFS and as an administrator, writes to it, and knows what must
//! be read: what a smaller size cut off is zeroes when the file grows again.
//!
//! It does one thing at a time. When it is not answered, it does the same through another gateway until it is: whatever
//! an earlier attempt does later is noticed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::fleet::trivet_at;
use super::fronts::Fronts;
use super::pulse::Pulse;
use super::work::Worker;
use crate::rng::Rng;
use crate::rpc::{self, GETATTR, NFS, READ, Rpc, SETATTR, WRITE};
use crate::stamp::{self, Found, SECTOR};

/// The largest size, sectors: 2 MiB.
const MOST: u64 = 4096;
/// Sectors of a write.
const SIZES: &[u64] = &[1, 3, 8, 16, 64];
/// Sectors of a read.
const READ_SECTORS: u64 = 128;
const SECTOR_BYTES: u64 = 512;
/// Writes between two changes of the size.
const WRITES: usize = 12;
/// A gateway that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(5);
/// A whole cluster that was killed is back earlier.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// A gateway that is cut off from the metadata tells attributes of before until it is not: files that are open go on. No trouble
/// lasts longer.
const STALE: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(100);

/// What a client has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizings {
    /// Sizes that were set over NFS.
    pub truncations: u64,
    /// Sizes that were set by an administrator.
    pub resizes: u64,
    /// Writes.
    pub writes: u64,
    /// Sectors that were read and right.
    pub read: u64,
    /// Attempts that had no answer.
    pub repeats: u64,
    /// Sizes of before that a gateway told.
    pub stale: u64,
}

/// The client, and what its file must hold.
#[derive(Debug)]
pub struct Sizer {
    name: String,
    /// In sectors.
    size: u64,
    /// Sequence number of the write that each sector holds; no entry is zeroes.
    sectors: BTreeMap<u64, u64>,
    sequence: u64,
    gateway: usize,
    connection: Option<(Rpc, Vec<u8>)>,
    rng: Rng,
    done: Sizings,
}

impl Sizer {
    /// Of a new image of one sector, of this name in the root.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            size: 1,
            sectors: BTreeMap::new(),
            sequence: 0,
            gateway: 0,
            connection: None,
            rng: Rng::new(seed),
            done: Sizings::default(),
        }
    }

    fn round(&mut self, fronts: &Fronts, pulse: &Pulse) -> Result<()> {
        for _ in 0..WRITES {
            let count = *self.rng.pick(SIZES);
            let first = self.rng.below(MOST - count);
            self.write(fronts, pulse, first, count)?;
        }
        self.check(fronts, pulse)?;
        let size = self.rng.below(MOST + 1);
        // Administrators make no empty images.
        if size == 0 || self.rng.below(2) == 0 {
            self.truncate(fronts, pulse, size)?;
        } else {
            self.resize(fronts, size)?;
        }
        self.cut(size);
        self.check(fronts, pulse)
    }

    /// What a size does to what must be read.
    fn cut(&mut self, size: u64) {
        self.size = size;
        self.sectors.split_off(&size);
    }

    fn write(&mut self, fronts: &Fronts, pulse: &Pulse, first: u64, count: u64) -> Result<()> {
        self.sequence += 1;
        let data = stamp::run(first, count, self.sequence);
        let args = |file: &[u8]| rpc::write_args(file, first * SECTOR_BYTES, &data);
        self.call(fronts, pulse, WRITE, &args)?;
        self.sectors
            .extend((first..first + count).map(|number| (number, self.sequence)));
        self.size = self.size.max(first + count);
        self.done.writes += 1;
        Ok(())
    }

    fn truncate(&mut self, fronts: &Fronts, pulse: &Pulse, size: u64) -> Result<()> {
        self.call(fronts, pulse, SETATTR, &|file| {
            rpc::size_args(file, size * SECTOR_BYTES)
        })?;
        self.done.truncations += 1;
        Ok(())
    }

    /// Sets the size as an administrator does, at another gateway each time until it is done.
    fn resize(&mut self, fronts: &Fronts, size: u64) -> Result<()> {
        let started = Instant::now();
        let args = format!("image resize {} --size {}", self.name, size * SECTOR_BYTES);
        loop {
            let gateway = self.rng.index(fronts.count());
            let said = match trivet_at(fronts.ports(gateway).http, &args, PATIENCE.as_secs()) {
                Ok(ended) if ended.status.success() => break,
                Ok(ended) => ended.stderr,
                Err(error) => error.to_string(),
            };
            ensure!(started.elapsed() < SERVED_WITHIN, "trivet {args}: {said}");
            self.done.repeats += 1;
            thread::sleep(AGAIN);
        }
        self.done.resizes += 1;
        Ok(())
    }

    /// The results of a call, which is sent to one gateway after the other, the same each time, until it is answered.
    fn call(
        &mut self,
        fronts: &Fronts,
        pulse: &Pulse,
        procedure: u32,
        args: &dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>> {
        let (started, xid) = (Instant::now(), u32::try_from(self.rng.below(1 << 31))?);
        loop {
            let sent = Instant::now();
            let said = match self.attempt(fronts, xid, procedure, args) {
                Ok(results) => match rpc::status(&results)? {
                    0 => {
                        pulse.beat(sent);
                        return Ok(results);
                    }
                    rpc::JUKEBOX => "not now".to_owned(),
                    status => bail!("procedure {procedure} of {}: status {status}", self.name),
                },
                Err(error) => {
                    self.connection = None;
                    self.gateway += 1;
                    format!("{error:#}")
                }
            };
            ensure!(
                started.elapsed() < SERVED_WITHIN,
                "procedure {procedure} of {}: {said}",
                self.name
            );
            self.done.repeats += 1;
            thread::sleep(AGAIN);
        }
    }

    fn attempt(
        &mut self,
        fronts: &Fronts,
        xid: u32,
        procedure: u32,
        args: &dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>> {
        if self.connection.is_none() {
            let port = fronts.ports(self.gateway % fronts.count()).nfs;
            let mut rpc = Rpc::open_within(port, PATIENCE)?;
            let root = rpc.mount()?;
            let file = rpc.lookup(&root, &self.name)?;
            self.connection = Some((rpc, file));
        }
        let (rpc, file) = self.connection.as_mut().context("it is there")?;
        rpc.send(xid, NFS, procedure, &args(file))?;
        let (answered, results) = rpc.receive()?;
        ensure!(answered == xid, "an answer to {answered:#x} instead of {xid:#x}");
        Ok(results)
    }

    /// Compares the size and all bytes with what must be.
    fn check(&mut self, fronts: &Fronts, pulse: &Pulse) -> Result<()> {
        self.wait_size(fronts, pulse)?;
        for first in (0..self.size).step_by(usize::try_from(READ_SECTORS)?) {
            let count = READ_SECTORS.min(self.size - first);
            let len = u32::try_from(count * SECTOR_BYTES)?;
            let results = self.call(fronts, pulse, READ, &|file| {
                rpc::read_args(file, first * SECTOR_BYTES, len)
            })?;
            let data = rpc::read_data(&results)?;
            ensure!(
                data.len() == usize::try_from(len)?,
                "{} bytes of {}",
                data.len(),
                self.name
            );
            for (number, sector) in (first..).zip(data.chunks_exact(SECTOR)) {
                self.judge(number, sector)?;
            }
            self.done.read += count;
        }
        Ok(())
    }

    /// Asks for the size until it is right, one gateway after the other: another than the one that set it may tell an older one
    /// for a while.
    fn wait_size(&mut self, fronts: &Fronts, pulse: &Pulse) -> Result<()> {
        let size = self.size * SECTOR_BYTES;
        let mut first = None;
        loop {
            let told = rpc::size(&self.call(fronts, pulse, GETATTR, &|file| rpc::opaque(file))?)?;
            if told == size {
                return Ok(());
            }
            let first: Instant = *first.get_or_insert_with(Instant::now);
            ensure!(
                first.elapsed() < STALE,
                "{} has {told} bytes instead of {size}",
                self.name
            );
            self.done.stale += 1;
            (self.gateway, self.connection) = (self.gateway + 1, None);
            thread::sleep(AGAIN);
        }
    }

    fn judge(&self, number: u64, sector: &[u8]) -> Result<()> {
        let must = self
            .sectors
            .get(&number)
            .map_or(Found::Empty, |sequence| Found::Stamp(*sequence));
        let found = stamp::read(sector, number);
        ensure!(
            found == must,
            "sector {number} of {}: found {found:?}, must be {must:?}; the latest write is {}, the size {} sectors",
            self.name,
            self.sequence,
            self.size
        );
        Ok(())
    }

    /// Compares everything through each gateway. All have to serve.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn look_at_all(&mut self, fronts: &Fronts) -> Result<u64> {
        let before = self.done.read;
        for gateway in 0..fronts.count() {
            (self.gateway, self.connection) = (gateway, None);
            self.check(fronts, &Pulse::default())?;
            ensure!(
                self.gateway == gateway,
                "gateway {gateway} tells an old size, or does not serve"
            );
        }
        Ok(self.done.read - before)
    }
}

impl Worker for Sizer {
    type Told = Sizings;

    /// Writes and sets sizes.
    ///
    /// # Errors
    /// When something is not as it must be, fails, or is not done for long.
    fn work(&mut self, fronts: &Fronts, pulse: &Pulse, stop: &AtomicBool) -> Result<Sizings> {
        while !stop.load(Ordering::Relaxed) {
            self.round(fronts, pulse)?;
            thread::sleep(PACE);
        }
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::Sizer;
    use crate::stamp;

    #[test]
    fn what_was_cut_off_must_be_zeroes() {
        let mut sizer = Sizer::new("file", 1);
        sizer.sectors.extend([(3, 7), (4, 7), (5, 7)]);
        sizer.cut(5);
        let (old, zero) = (stamp::run(5, 1, 7), [0; stamp::SECTOR]);
        assert!(sizer.judge(4, &stamp::run(4, 1, 7)).is_ok() && sizer.judge(5, &zero).is_ok());
        assert!(sizer.judge(5, &old).is_err(), "old data came back");
        assert!(sizer.judge(4, &zero).is_err() && sizer.judge(4, &stamp::run(4, 1, 6)).is_err());
    }
}
