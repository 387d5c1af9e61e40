//! Everything fails at random, from a seed, under a stamping load through both gateways and all protocols, while files
//! change their sizes and images come and go; at the end every sector holds its last acknowledged write, or one that was
//! never answered, all gateways say so, and every object has an owner.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::mover::look_at_all;
use trivet_e2e::cluster::owners::{remove_everything, wait_all_owned};
use trivet_e2e::cluster::sizer::{Sizer, Sizings};
use trivet_e2e::cluster::turnover::Turnover;
use trivet_e2e::cluster::{Faults, Fleet, Fronts, Layout, Mover, Moves, Pulse, beside, compare, crowd, during};
use trivet_e2e::ledger::Wrong;
use trivet_e2e::nbd::Nbd;
use trivet_e2e::way::{PROTOCOLS, Protocol};
use trivet_e2e::{Cluster, sized, stamp};

const IMAGES: &[&str] = &["one", "two", "three"];
const CLIENTS: u16 = 6;
/// Copies of each object in the pool.
const REPLICAS: u64 = 2;
/// The image of those who move, one for each protocol: 1 MiB for each.
const MOVED: &str = "moved";
const MOVER_SECTORS: u64 = 2048;
const MOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Those that are made larger and smaller.
const SIZED: [&str; 2] = ["sized", "cut"];
/// Load after the last fault.
const CALM: Duration = Duration::from_secs(3);
/// Load on one process.
const BRIEF: Duration = Duration::from_secs(1);
/// P4: no operation may wait longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `TRIVET_SEED`, or always the same.
pub(crate) fn seed() -> Result<u64> {
    match std::env::var("TRIVET_SEED") {
        Ok(seed) => seed.parse().context("TRIVET_SEED"),
        Err(_) => Ok(2026),
    }
}

/// Faults until the time is over or a client fails, and a calm end.
fn rage(fleet: &mut Fleet, faults: &mut Faults, time: Duration, failed: &dyn Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < time && !failed() {
        faults.tick(fleet)?;
        thread::sleep(Duration::from_millis(20));
    }
    faults.heal(fleet)?;
    thread::sleep(CALM);
    Ok(())
}

/// Everybody who works through the chaos beside the clients that write all the time.
struct Crew {
    movers: Vec<Mover>,
    sizers: Vec<Sizer>,
    turnovers: Vec<Turnover>,
}

/// What they tell.
struct Told {
    moves: Vec<(Protocol, Moves)>,
    sizings: Vec<Sizings>,
    turnovers: u64,
}

impl Crew {
    /// Makes what they need.
    fn start(fleet: &Fleet, seed: u64) -> Result<Self> {
        fleet.admin(0, &format!("image create {MOVED} --size 64M"))?;
        for image in SIZED {
            fleet.admin(0, &format!("image create {image} --size 512"))?;
        }
        let movers = (0..)
            .zip(PROTOCOLS)
            .map(|(number, protocol)| Mover::new(protocol, number, MOVED, MOVER_SECTORS, MOVER_PATIENCE, seed));
        Ok(Self {
            movers: movers.collect(),
            sizers: (seed..)
                .zip(SIZED)
                .map(|(seed, image)| Sizer::new(image, seed))
                .collect(),
            turnovers: vec![Turnover::new("brief", seed)],
        })
    }

    /// All of them work while `act` runs.
    fn beside<T>(
        &mut self,
        fronts: &Fronts,
        pulse: &Pulse,
        act: impl FnOnce(&dyn Fn() -> bool) -> Result<T>,
    ) -> Result<(T, Told)> {
        let Self {
            movers,
            sizers,
            turnovers,
        } = self;
        let (((acted, counts), sizings), moves) = beside(movers, fronts, pulse, |moved| {
            beside(sizers, fronts, pulse, |sized| {
                beside(turnovers, fronts, pulse, |turned| {
                    act(&|| moved() || sized() || turned())
                })
            })
        })?;
        let turnovers = counts.iter().sum();
        Ok((
            acted,
            Told {
                moves,
                sizings,
                turnovers,
            },
        ))
    }

    /// Everything that they wrote is right through every gateway; returns the sectors.
    fn look_at_all(&mut self, fronts: &Fronts) -> Result<u64> {
        let mut sectors = look_at_all(&mut self.movers, fronts)?;
        for sizer in &mut self.sizers {
            sectors += sizer.look_at_all(fronts)?;
        }
        let wrong: Vec<String> = self
            .movers
            .iter()
            .flat_map(Mover::wrong)
            .map(Wrong::to_string)
            .collect();
        ensure!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(20)]);
        Ok(sectors)
    }
}

impl Told {
    fn print(&self) {
        for (protocol, moves) in &self.moves {
            println!("{}: {moves}", protocol.name());
        }
        let sum = |of: fn(&Sizings) -> u64| -> u64 { self.sizings.iter().map(of).sum() };
        println!(
            "{} truncations over NFS, {} resizes, {} writes between them, {} sectors read and right, {} requests repeated; \
             {} old sizes told by gateways that were cut off; {} images came and went",
            sum(|sizings| sizings.truncations),
            sum(|sizings| sizings.resizes),
            sum(|sizings| sizings.writes),
            sum(|sizings| sizings.read),
            sum(|sizings| sizings.repeats),
            sum(|sizings| sizings.stale),
            self.turnovers
        );
    }
}

#[test]
fn chaos_loses_no_acknowledged_write() -> Result<()> {
    let seed = seed()?;
    println!("seed {seed}");
    let layout = Layout {
        proxies: true,
        ..Layout::default()
    };
    let mut fleet = Fleet::with_pool(&layout)?;
    for image in IMAGES {
        fleet.admin(0, &format!("image create {image} --size 64M"))?;
    }
    let (fronts, mut crew) = (Fronts::of(&fleet), Crew::start(&fleet, seed)?);
    let mut clients = crowd(&fleet.nbd_ports(), IMAGES, CLIENTS, seed);
    let (pulse, mut faults) = (Pulse::default(), Faults::new(seed));
    let time = Duration::from_secs(sized(120, 1200));
    let (((), tally), told) = crew
        .beside(&fronts, &Pulse::default(), |failed| {
            during(&mut clients, &pulse, |also| {
                rage(&mut fleet, &mut faults, time, &|| failed() || also())
            })
        })
        .with_context(|| format!("after {}", faults.summary()))?;
    let stall = pulse.take();
    ensure!(tally.breaks > 0, "no client noticed anything");
    let clean = fleet.wait_clean()?;
    let sectors = compare(&fleet.nbd_ports(), &mut clients)? + crew.look_at_all(&fronts)?;
    told.print();
    println!(
        "{} writes acknowledged, {} sent again, {} sectors read meanwhile, {sectors} at the end, {} connections broke, \
         slowest answer {:?}, clean {clean:?} after the load",
        tally.writes, tally.resent, tally.read, tally.breaks, stall.slowest
    );
    ensure!(stall.slowest < PATIENCE, "an operation waited {:?}", stall.slowest);
    // What was deleted is remembered for a minute.
    let replicas = sized(None, Some(REPLICAS));
    let owned = wait_all_owned(&fleet, replicas)?;
    let gone = remove_everything(&fleet, replicas)?;
    println!(
        "chaos: {}, {} operations, 0 lost acknowledged writes; {} objects, all with an owner; all gone {gone:?} \
         after their images",
        faults.summary(),
        stall.operations + told.moves.iter().map(|(_, moves)| moves.operations()).sum::<u64>(),
        owned.images
    );
    fleet.finish()
}

/// The clients would notice: one gateway dies under them, and what they wrote is there; then a sector goes back to an
/// older write, and they say so.
#[test]
fn the_clients_notice_a_sector_that_went_back() -> Result<()> {
    let cluster = Cluster::alone()?;
    let mut server = cluster.start()?;
    let (ports, pulse) = ([server.ports.nbd], Pulse::default());
    let mut clients = crowd(&ports, &["demo"], 2, 1);
    let (restarted, tally) = during(&mut clients, &pulse, |_| {
        thread::sleep(BRIEF);
        server.kill()?;
        let server = cluster.start()?;
        thread::sleep(BRIEF);
        Ok(server)
    })?;
    server = restarted;
    ensure!(tally.breaks == 2 && tally.writes > 0 && tally.read > 0, "{tally:?}");
    compare(&ports, &mut clients)?;
    let ledger = &mut clients[1].ledger;
    let (first, _) = ledger.region();
    let mut nbd = Nbd::open(ports[0], "demo")?;
    let old = ledger.issue(first, 1);
    ledger.acknowledge(old);
    let sequence = ledger.issue(first, 8);
    nbd.write(first * 512, &stamp::run(first, 8, sequence))?;
    ledger.acknowledge(sequence);
    nbd.write(first * 512, &stamp::run(first, 1, old))?;
    let error = compare(&ports, &mut clients).expect_err("an older sector");
    ensure!(error.to_string().contains("1 wrong sectors"), "{error:#}");
    server.stop()?;
    Ok(())
}
