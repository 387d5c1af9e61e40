//! Gateways are stopped, cut off from the OSDs and killed under clients that give them up, repeat through another one
//! what had no answer, and write anew there: what a gateway still holds never comes out over what is newer.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::fleet::START_LIMIT;
use trivet_e2e::cluster::mover::look_at_all;
use trivet_e2e::cluster::{Fleet, Fronts, Layout, Mover, Moves, Pulse, beside};
use trivet_e2e::way::{PROTOCOLS, Protocol};
use trivet_e2e::{Rng, sized};

use crate::chaos::seed;

const IMAGE: &str = "disk";
/// Clients of each protocol.
const EACH: u16 = 2;
/// Sectors of a client's region: 1 MiB.
const SECTORS: u64 = 2048;
/// Clients that are patient leave after this, the others earlier than a stamp becomes too old (3 s).
const PATIENT: Duration = Duration::from_secs(5);
const IMPATIENT: Duration = Duration::from_millis(800);
/// Between the beginnings of two troubles.
const PAUSE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);
/// Between a cut and the kill of the gateway that is cut off: some of what it sent then is on its way.
const UNTIL_KILLED: Duration = Duration::from_millis(200);

/// What happens to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It does not run for a while.
    Stop,
    /// The same, and it never goes on.
    StopKill,
    Kill,
    /// What it sends to the OSDs is held for a while.
    Cut,
    /// The same, and it dies meanwhile: what it sent comes out after its death.
    CutKill,
}

/// Each of these once in any order, then again.
const DECK: [Trouble; 10] = [
    Trouble::Stop,
    Trouble::Stop,
    Trouble::Stop,
    Trouble::Stop,
    Trouble::Stop,
    Trouble::StopKill,
    Trouble::Kill,
    Trouble::Cut,
    Trouble::Cut,
    Trouble::CutKill,
];

#[derive(Clone, Copy, Debug)]
struct Plan {
    gateways: usize,
    /// How many of them are in trouble at once.
    together: usize,
    stops: u64,
    /// A stop lasts 1 s to this.
    longest: u64,
    /// Half of the stops are no longer than this.
    half: u64,
}

fn plan() -> Plan {
    let short = Plan {
        gateways: 3,
        together: 2,
        stops: 12,
        longest: 8,
        half: 4,
    };
    let full = Plan {
        gateways: 12,
        together: 10,
        stops: 500,
        longest: 60,
        half: 10,
    };
    sized(short, full)
}

/// A trouble that goes on: which, until when, and the process that is cut off.
#[derive(Clone, Copy, Debug)]
struct Ongoing {
    trouble: Trouble,
    until: Instant,
    cut: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    stops: u64,
    kills: u64,
    cuts: u64,
    /// How long gateways were stopped in all.
    stopped: Duration,
}

struct Troubles<'a> {
    fleet: &'a mut Fleet,
    fronts: &'a Fronts,
    plan: Plan,
    rng: Rng,
    deck: Vec<Trouble>,
    ongoing: Vec<Option<Ongoing>>,
    counts: Counts,
}

impl Troubles<'_> {
    /// Begins and ends troubles until there were enough, or a client has failed; then none goes on.
    fn run(&mut self, failed: &dyn Fn() -> bool) -> Result<Counts> {
        let mut next = Instant::now();
        while !self.is_over() {
            for at in 0..self.ongoing.len() {
                if self.ongoing[at].is_some_and(|ongoing| Instant::now() >= ongoing.until || failed()) {
                    self.end(at)?;
                }
            }
            let busy = self.ongoing.iter().flatten().count();
            let enough = self.counts.stops >= self.plan.stops || failed();
            if !enough && busy < self.plan.together && Instant::now() >= next {
                self.begin()?;
                next = Instant::now() + PAUSE;
            }
            if failed() && busy == 0 {
                break;
            }
            thread::sleep(POLL);
        }
        Ok(self.counts)
    }

    fn is_over(&self) -> bool {
        self.counts.stops >= self.plan.stops && self.ongoing.iter().all(Option::is_none)
    }

    fn draw(&mut self) -> Trouble {
        if self.deck.is_empty() {
            self.deck.extend(DECK);
        }
        self.deck.swap_remove(self.rng.index(self.deck.len()))
    }

    /// Half of these are short.
    fn time(&mut self) -> Duration {
        let Plan { longest, half, .. } = self.plan;
        let (from, to) = if self.rng.below(2) == 0 {
            (1, half)
        } else {
            (half, longest)
        };
        Duration::from_millis(from * 1000 + self.rng.below((to - from) * 1000))
    }

    fn begin(&mut self) -> Result<()> {
        let idle: Vec<usize> = (0..self.ongoing.len())
            .filter(|at| self.ongoing[*at].is_none())
            .collect();
        let (at, trouble, time) = (*self.rng.pick(&idle), self.draw(), self.time());
        let gateway = &mut self.fleet.gateways[at].process;
        let pid = gateway.pid().context("it runs")?;
        self.fronts.note(at, true);
        let mut cut = None;
        match trouble {
            Trouble::Stop | Trouble::StopKill => {
                gateway.stop()?;
                self.counts.stops += 1;
                self.counts.stopped += time;
            }
            Trouble::Kill => gateway.kill()?,
            Trouble::Cut | Trouble::CutKill => {
                self.fleet.cut_from_osds(pid);
                self.counts.cuts += 1;
                cut = Some(pid);
            }
        }
        if trouble == Trouble::CutKill {
            thread::sleep(UNTIL_KILLED);
            self.fleet.gateways[at].process.kill()?;
        }
        let until = Instant::now() + time;
        self.ongoing[at] = Some(Ongoing { trouble, until, cut });
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<()> {
        let Some(Ongoing { trouble, cut, .. }) = self.ongoing[at].take() else {
            return Ok(());
        };
        if let Some(pid) = cut {
            self.fleet.heal_from_osds(pid);
        }
        let gateway = &mut self.fleet.gateways[at].process;
        match trouble {
            Trouble::Stop => gateway.resume()?,
            Trouble::Cut => {}
            Trouble::StopKill => {
                gateway.kill()?;
                gateway.start()?;
                gateway.wait_ready(START_LIMIT)?;
            }
            Trouble::Kill | Trouble::CutKill => {
                gateway.start()?;
                gateway.wait_ready(START_LIMIT)?;
            }
        }
        if !matches!(trouble, Trouble::Stop | Trouble::Cut) {
            self.counts.kills += 1;
        }
        self.fronts.note(at, false);
        Ok(())
    }
}

fn movers(seed: u64) -> Vec<Mover> {
    let kinds = PROTOCOLS
        .into_iter()
        .flat_map(|protocol| (0..EACH).map(move |at| (protocol, at)));
    (0..)
        .zip(kinds)
        .map(|(number, (protocol, at))| {
            let patience = if at == 0 { PATIENT } else { IMPATIENT };
            Mover::new(protocol, number, IMAGE, SECTORS, patience, seed)
        })
        .collect()
}

fn report(moves: &[(Protocol, Moves)]) -> Result<Moves> {
    let total = moves.iter().fold(Moves::default(), |sum, (_, moves)| sum.and(*moves));
    for protocol in PROTOCOLS {
        let of_it = moves.iter().filter(|(of, _)| *of == protocol);
        let sum = of_it.fold(Moves::default(), |sum, (_, moves)| sum.and(*moves));
        println!("{}: {sum}", protocol.name());
        ensure!(
            sum.repeats > 0 && sum.watched > 0,
            "{} proves nothing: {sum:?}",
            protocol.name()
        );
    }
    ensure!(total.silent > 0 && total.broken > 0 && total.whims > 0, "{total:?}");
    Ok(total)
}

#[test]
fn what_a_stopped_gateway_holds_never_comes_out_over_newer_data() -> Result<()> {
    let (seed, plan) = (seed()?, plan());
    println!("seed {seed}");
    let mut fleet = Fleet::with_pool(&Layout {
        gateways: plan.gateways,
        proxies: true,
        ..Layout::SMALL
    })?;
    fleet.admin(0, &format!("image create {IMAGE} --size 64M"))?;
    let (fronts, mut movers) = (Fronts::of(&fleet), movers(seed));
    let mut troubles = Troubles {
        fleet: &mut fleet,
        fronts: &fronts,
        plan,
        rng: Rng::new(seed),
        deck: Vec::new(),
        ongoing: vec![None; plan.gateways],
        counts: Counts::default(),
    };
    let (counts, moves) = beside(&mut movers, &fronts, &Pulse::default(), |failed| troubles.run(failed))?;
    fleet.wait_ready()?;
    let sectors = look_at_all(&mut movers, &fronts)?;
    let total = report(&moves)?;
    let wrong: Vec<String> = movers
        .iter()
        .flat_map(Mover::wrong)
        .map(|wrong| wrong.to_string())
        .collect();
    let overwrites = movers.iter().flat_map(Mover::wrong).filter(|wrong| wrong.again).count();
    println!(
        "{} stops ({:.0?} in all), {} kills, {} cuts from the OSDs; {} writes acknowledged, {} repeated, {} places watched \
         afterwards, {sectors} sectors read at the end; {overwrites} overwrites, {} lost",
        counts.stops,
        counts.stopped,
        counts.kills,
        counts.cuts,
        total.writes,
        total.repeats,
        total.watched,
        wrong.len() - overwrites
    );
    ensure!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(20)]);
    fleet.finish()
}
