//! Images that come and go: each is made, written to, read and removed, over and over. At the end nothing of the
//! removed ones may be left ([`super::owners`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::fleet::trivet_at;
use super::fronts::Fronts;
use super::pulse::Pulse;
use super::work::Worker;
use crate::nbd::Nbd;
use crate::rng::Rng;

/// Places written in an image of 64 MiB.
const WRITES: u64 = 24;
const SPAN: u64 = 64 << 20;
const BLOCK: u64 = 4096;
/// A gateway that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(5);
const SERVED_WITHIN: Duration = Duration::from_secs(120);
const PACE: Duration = Duration::from_millis(300);

/// Makes and removes images of names that begin with its own.
#[derive(Debug)]
pub struct Turnover {
    name: String,
    rng: Rng,
}

impl Turnover {
    /// Nothing is made yet.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            rng: Rng::new(seed),
        }
    }

    /// `trivet ARGS` at any gateway until it succeeds, or until it says what shows that an earlier attempt did.
    fn admin(&mut self, fronts: &Fronts, args: &str, done: &str) -> Result<()> {
        let (started, mut attempts) = (Instant::now(), 0);
        loop {
            let gateway = self.rng.index(fronts.count());
            let said = match trivet_at(fronts.ports(gateway).http, args, PATIENCE.as_secs()) {
                Ok(ended) if ended.status.success() => return Ok(()),
                Ok(ended) => ended.stderr,
                Err(error) => error.to_string(),
            };
            if attempts > 0 && said.contains(done) {
                return Ok(());
            }
            attempts += 1;
            ensure!(started.elapsed() < SERVED_WITHIN, "trivet {args}: {said}");
            thread::sleep(PACE);
        }
    }

    /// Writes here and there.
    fn write(&mut self, fronts: &Fronts, pulse: &Pulse, image: &str) -> Result<()> {
        let gateway = self.rng.index(fronts.count());
        let mut nbd = Nbd::open_within(fronts.ports(gateway).nbd, image, PATIENCE)?;
        for number in 0..WRITES {
            let at = self.rng.below(SPAN / BLOCK) * BLOCK;
            let sent = Instant::now();
            nbd.write(at, &[u8::try_from(number % 255 + 1)?; 4096])?;
            pulse.beat(sent);
        }
        Ok(())
    }
}

impl Worker for Turnover {
    /// How many images came and went.
    type Told = u64;

    /// Makes and removes images.
    ///
    /// # Errors
    /// When one cannot be made or removed for long.
    fn work(&mut self, fronts: &Fronts, pulse: &Pulse, stop: &AtomicBool) -> Result<u64> {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let image = format!("{}-{count}", self.name);
            self.admin(fronts, &format!("image create {image} --size 64M"), "exists")?;
            // Gateways fail meanwhile: what was written is there to be removed, whatever it is.
            drop(self.write(fronts, pulse, &image));
            self.admin(fronts, &format!("image rm {image}"), "no image")?;
            count += 1;
            thread::sleep(PACE);
        }
        Ok(count)
    }
}
