//! A client that turns to another gateway, as multipath and people do: when it has heard nothing for as long as its
//! patience lasts, at once when its connection breaks or it is told to come later, and now and then for no reason. There
//! it sends again what was not answered, then newer data to the same places, and looks there again when the gateway that
//! it left has let go of what it may still hold.
//!
//! It fails when an answer is an error, and when no gateway serves it for long. A sector that is not what it must be is
//! noted, and the load goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::fronts::Fronts;
use super::pulse::Pulse;
use super::work::Worker;
use crate::ledger::{Ledger, Wrong};
use crate::rng::Rng;
use crate::stamp;
use crate::storm::free_run;
use crate::way::{Loss, PROTOCOLS, Protocol, Way};

/// Writes in flight.
const DEPTH: usize = 4;
/// Sizes of writes, sectors: up to 8 KiB, which all protocols send at once.
const SIZES: &[u64] = &[1, 3, 8, 8, 8, 8, 16];
/// Writes between two reads.
const BATCH: usize = 16;
/// Sectors of a read: more than what one write touches.
const READ: u64 = 128;
const SECTOR_BYTES: u64 = 512;
/// Between two batches, so that two cores can also run the cluster.
const PACE: Duration = Duration::from_millis(20);
/// Batches after which a client leaves for no reason, on average.
const WHIM: u64 = 100;
/// What a gateway may take to let somebody in; one that is stopped lets nobody in.
const WELCOME: Duration = Duration::from_secs(1);
/// A whole cluster that was killed is back earlier.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
const CONNECT_POLL: Duration = Duration::from_millis(50);

/// What a client has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moves {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Sectors that were read.
    pub read: u64,
    /// How often it left a gateway of which it had heard nothing for so long.
    pub silent: u64,
    /// How often it left because its connection broke.
    pub broken: u64,
    /// How often it left because it was told to come later.
    pub later: u64,
    /// How often it left for no reason, with writes under way.
    pub whims: u64,
    /// Writes that were sent again.
    pub repeats: u64,
    /// Places that were written anew after a repetition and looked at again when it could have been undone.
    pub watched: u64,
}

impl Moves {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            writes: self.writes + other.writes,
            read: self.read + other.read,
            silent: self.silent + other.silent,
            broken: self.broken + other.broken,
            later: self.later + other.later,
            whims: self.whims + other.whims,
            repeats: self.repeats + other.repeats,
            watched: self.watched + other.watched,
        }
    }

    /// Writes and reads.
    #[must_use]
    pub fn operations(self) -> u64 {
        self.writes + self.read / READ
    }
}

impl std::fmt::Display for Moves {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} operations, {} writes repeated at another gateway; left {} times because of silence, {} because the \
             connection broke, {} to come later, {} for no reason",
            self.operations(),
            self.repeats,
            self.silent,
            self.broken,
            self.later,
            self.whims
        )
    }
}

/// What a gateway may still hold that was sent again elsewhere.
#[derive(Clone, Copy, Debug)]
struct Left {
    gateway: usize,
    at: Instant,
    first: u64,
    count: u64,
}

/// A client with its own region of an image.
#[derive(Debug)]
pub struct Mover {
    /// How it reaches the image.
    pub protocol: Protocol,
    image: String,
    name: String,
    ledger: Ledger,
    gateway: usize,
    patience: Duration,
    rng: Rng,
    moves: Moves,
    left: Vec<Left>,
    wrong: BTreeSet<Wrong>,
}

/// Writes without an answer: when they were sent, and their sequence numbers.
type Flight = BTreeMap<u32, (Instant, u64)>;

impl Worker for Mover {
    type Told = (Protocol, Moves);

    /// Writes, reads and moves.
    ///
    /// # Errors
    /// Writes and reads until it is told to stop, through one gateway after the other.
    fn work(&mut self, fronts: &Fronts, pulse: &Pulse, stop: &AtomicBool) -> Result<Self::Told> {
        Ok((self.protocol, self.run(fronts, pulse, stop)?))
    }
}

/// Reads everything of all of them through every gateway, over each protocol in turns; returns the sectors. What is
/// wrong is noted.
///
/// # Errors
/// When something cannot be read.
pub fn look_at_all(movers: &mut [Mover], fronts: &Fronts) -> Result<u64> {
    let mut sectors = 0;
    for gateway in 0..fronts.count() {
        for (number, mover) in movers.iter_mut().enumerate() {
            let protocol = PROTOCOLS[(gateway + number) % PROTOCOLS.len()];
            sectors += mover.look_at_all(protocol, fronts, gateway)?;
        }
    }
    Ok(sectors)
}

/// It goes for no reason.
#[derive(Debug)]
struct Whim;

impl std::fmt::Display for Whim {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("leaves for no reason")
    }
}

impl std::error::Error for Whim {}

/// What tells a write from others of this client.
fn tag_of(sequence: u64) -> Result<u32> {
    Ok(u32::try_from(sequence & 0x3fff_ffff)?)
}

impl Mover {
    /// Client number `number`, which writes to its own `sectors` of an image in the root, first through the gateway of
    /// that number, and leaves one that says nothing for as long as `patience`.
    #[must_use]
    pub fn new(protocol: Protocol, number: u16, image: &str, sectors: u64, patience: Duration, seed: u64) -> Self {
        let first = u64::from(number) * sectors;
        Self {
            protocol,
            image: image.to_owned(),
            name: format!("mover-{number}"),
            ledger: Ledger::of_writer(number, first, sectors),
            gateway: usize::from(number),
            patience,
            rng: Rng::new(seed + u64::from(number)),
            moves: Moves::default(),
            left: Vec::new(),
            wrong: BTreeSet::new(),
        }
    }

    fn run(&mut self, fronts: &Fronts, pulse: &Pulse, stop: &AtomicBool) -> Result<Moves> {
        self.gateway %= fronts.count();
        while !stop.load(Ordering::Relaxed) || self.ledger.in_flight() > 0 {
            let Err(error) = self.session(fronts, pulse, stop) else {
                continue;
            };
            match (Loss::of(&error), error.is::<Whim>()) {
                (Some(Loss::Silent), _) => self.moves.silent += 1,
                (Some(Loss::Broken), _) => self.moves.broken += 1,
                (Some(Loss::Later), _) => self.moves.later += 1,
                (None, true) => self.moves.whims += 1,
                (None, false) => return Err(error.context(format!("{} {}", self.protocol.name(), self.name))),
            }
            self.leave(fronts);
        }
        Ok(self.moves)
    }

    /// Remembers what the gateway may still hold, and chooses another one.
    fn leave(&mut self, fronts: &Fronts) {
        let (gateway, at) = (self.gateway, Instant::now());
        let open = self.ledger.resend().into_iter();
        self.left.extend(open.map(|(_, first, count)| Left {
            gateway,
            at,
            first,
            count,
        }));
        self.gateway = self.another(fronts);
    }

    fn another(&mut self, fronts: &Fronts) -> usize {
        let others = fronts.count() - 1;
        (self.gateway + 1 + self.rng.index(others)) % fronts.count()
    }

    /// Until the connection is of no use any more, or it is told to stop.
    fn session(&mut self, fronts: &Fronts, pulse: &Pulse, stop: &AtomicBool) -> Result<()> {
        let mut way = self.connect(fronts)?;
        let mut flight = Flight::new();
        match self.use_it(&mut way, &mut flight, fronts, pulse, stop) {
            Err(error) if self.rng.below(2) == 0 => {
                way.reset();
                Err(error)
            }
            outcome => outcome,
        }
    }

    fn use_it(
        &mut self,
        way: &mut Way,
        flight: &mut Flight,
        fronts: &Fronts,
        pulse: &Pulse,
        stop: &AtomicBool,
    ) -> Result<()> {
        self.repeat(way, flight, pulse)?;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                self.settle(way, flight, DEPTH - 1, pulse)?;
                let (first, count) = self.place();
                self.issue(way, flight, first, count)?;
            }
            ensure!(self.rng.below(WHIM) > 0, Whim);
            self.settle(way, flight, 0, pulse)?;
            self.look(way, fronts, pulse)?;
            thread::sleep(PACE);
        }
        Ok(())
    }

    /// Gets in at a gateway, this one first.
    fn connect(&mut self, fronts: &Fronts) -> Result<Way> {
        let started = Instant::now();
        loop {
            let ports = fronts.ports(self.gateway);
            match Way::open(self.protocol, ports, &self.image, &self.name, WELCOME) {
                Ok(way) => return Ok(way),
                // In words, so that this is not taken for one more broken connection.
                Err(error) => ensure!(
                    started.elapsed() < SERVED_WITHIN,
                    "no gateway for {SERVED_WITHIN:?}: {error:#}"
                ),
            }
            self.gateway = self.another(fronts);
            thread::sleep(CONNECT_POLL);
        }
    }

    /// Sends again what has no answer, and when it has, newer data to the same places.
    fn repeat(&mut self, way: &mut Way, flight: &mut Flight, pulse: &Pulse) -> Result<()> {
        let open = self.ledger.resend();
        for (sequence, first, count) in &open {
            self.send(way, flight, *sequence, *first, *count)?;
            self.moves.repeats += 1;
        }
        self.settle(way, flight, 0, pulse)?;
        for (_, first, count) in open {
            let part = 1 + self.rng.below(count);
            self.issue(way, flight, first, part)?;
        }
        self.settle(way, flight, 0, pulse)
    }

    /// Sectors to write next: none that are watched.
    fn place(&mut self) -> (u64, u64) {
        loop {
            let (first, count) = free_run(&self.ledger, &mut self.rng, SIZES);
            let is_left = |left: &Left| first < left.first + left.count && left.first < first + count;
            if !self.left.iter().any(is_left) {
                return (first, count);
            }
        }
    }

    fn issue(&mut self, way: &mut Way, flight: &mut Flight, first: u64, count: u64) -> Result<()> {
        let sequence = self.ledger.issue(first, count);
        self.send(way, flight, sequence, first, count)
    }

    fn send(&mut self, way: &mut Way, flight: &mut Flight, sequence: u64, first: u64, count: u64) -> Result<()> {
        let (sent, tag) = (Instant::now(), tag_of(sequence)?);
        way.write(tag, first * SECTOR_BYTES, &stamp::run(first, count, sequence))?;
        flight.insert(tag, (sent, sequence));
        Ok(())
    }

    /// Waits until no more than `left` writes have no answer.
    fn settle(&mut self, way: &mut Way, flight: &mut Flight, left: usize, pulse: &Pulse) -> Result<()> {
        while flight.len() > left {
            let oldest = flight.values().map(|(sent, _)| *sent).min().context("a write")?;
            let patience = self.patience.saturating_sub(oldest.elapsed());
            let tag = way.written(patience.max(Duration::from_millis(1)))?;
            let (sent, sequence) = flight.remove(&tag).context("an answer to nothing")?;
            pulse.beat(sent);
            self.ledger.acknowledge(sequence);
            self.moves.writes += 1;
        }
        Ok(())
    }

    /// Reads somewhere in the region, and what the gateways that it left have let go of. No write is in flight.
    fn look(&mut self, way: &mut Way, fronts: &Fronts, pulse: &Pulse) -> Result<()> {
        let (first, sectors) = self.ledger.region();
        let at = first + self.rng.below(sectors - READ + 1);
        self.read(way, at, READ, pulse)?;
        let (over, left) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|left| fronts.has_let_go(left.gateway, left.at));
        self.left = left;
        let over: Vec<Left> = over;
        for left in over {
            self.read(way, left.first, left.count, pulse)?;
            self.moves.watched += 1;
        }
        Ok(())
    }

    fn read(&mut self, way: &mut Way, at: u64, count: u64, pulse: &Pulse) -> Result<()> {
        let sent = Instant::now();
        let data = way.read(at * SECTOR_BYTES, u32::try_from(count * SECTOR_BYTES)?, self.patience)?;
        pulse.beat(sent);
        self.wrong.extend(self.ledger.judge(at, &data));
        self.moves.read += count;
        Ok(())
    }

    /// Reads the whole region through a gateway over a protocol; returns the sectors read. All gateways have to serve.
    fn look_at_all(&mut self, protocol: Protocol, fronts: &Fronts, gateway: usize) -> Result<u64> {
        let name = format!("{}-looks", self.name);
        let mut way = Way::open(protocol, fronts.ports(gateway), &self.image, &name, SERVED_WITHIN)?;
        let (first, sectors) = self.ledger.region();
        for at in (first..first + sectors).step_by(usize::try_from(READ)?) {
            let count = READ.min(first + sectors - at);
            self.read(&mut way, at, count, &Pulse::default())?;
        }
        Ok(sectors)
    }

    /// What was found and must not be.
    #[must_use]
    pub fn wrong(&self) -> &BTreeSet<Wrong> {
        &self.wrong
    }
}
