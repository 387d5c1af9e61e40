//! Random faults from a seed: processes killed and stopped, links cut and reset, alone and together.
//!
//! Of the OSDs only one host at a time misses writes, so that redundancy covers it: the next one has to wait until all
//! copies are there. Of etcd one member is down at a time, and one gateway is stopped, cut off or down. Everything at
//! once may be killed at any time, and an OSD that starts again at once may be killed at any time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::fleet::Fleet;
use super::process::Process;
use super::proxy::Proxy;
use crate::rng::Rng;

/// Of each piece of data on a slow link.
const DELAY: Duration = Duration::from_millis(20);
/// Recovery of what a host missed, while other things fail.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);
const CLEAN_POLL: Duration = Duration::from_millis(250);
/// Numbers of PGs that can follow each other.
const PGS: [u32; 5] = [16, 32, 48, 64, 96];

/// What can happen; OSDs, gateways and monitors by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    OsdKill(usize),
    OsdRestart(usize),
    HostKill(&'static str),
    OsdStop(usize),
    OsdCut(usize),
    OsdFromEtcd(usize),
    OsdReset(usize),
    OsdDelay(usize),
    Everything,
    EtcdLeader(usize),
    Gateway(usize),
    GatewayStop(usize),
    GatewayFromEtcd(usize),
    /// With the process that is cut off.
    GatewayFromOsds(usize, u32),
    Monitor(usize),
    /// The pool gets another number of PGs.
    Pgs(u32),
}

/// Two kinds of faults go on at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// What holds data.
    Data,
    /// What decides and serves.
    Control,
}

/// A fault that goes on, or the pause until the next one.
#[derive(Clone, Copy, Debug)]
struct Slot {
    fault: Option<Fault>,
    until: Instant,
}

/// Injects faults when it is asked to.
#[derive(Debug)]
pub struct Faults {
    rng: Rng,
    slots: [Slot; 2],
    /// The kinds that are still to come before any comes again.
    decks: [Vec<usize>; 2],
    /// The host of which OSDs may have missed writes since all copies were there last.
    hurt: Option<&'static str>,
    /// What has to wait until all copies are there, and since when.
    waiting: Option<(Fault, Instant)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Nothing happens yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let slot = Slot {
            fault: None,
            until: Instant::now(),
        };
        Self {
            rng: Rng::new(seed),
            slots: [slot; 2],
            decks: [Vec::new(), Vec::new()],
            hurt: None,
            waiting: None,
            counts: BTreeMap::new(),
        }
    }

    /// Begins and ends what is due.
    ///
    /// # Errors
    /// When something does not start again, or had ended by itself.
    pub fn tick(&mut self, fleet: &mut Fleet) -> Result<()> {
        for side in [Side::Data, Side::Control] {
            if Instant::now() < self.slots[side as usize].until {
                continue;
            }
            if self.slots[side as usize].fault.is_some() {
                self.end(side, fleet)?;
            } else {
                self.begin(side, fleet)?;
            }
        }
        Ok(())
    }

    /// Ends all faults and waits until everything is ready.
    ///
    /// # Errors
    /// When something does not start again.
    pub fn heal(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.end(Side::Data, fleet)?;
        self.end(Side::Control, fleet)?;
        fleet.wait_ready()?;
        fleet.etcd.wait_leader().map(drop)
    }

    /// How many faults there were, and of which kinds.
    #[must_use]
    pub fn summary(&self) -> String {
        let kinds: Vec<String> = self
            .counts
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let total: u64 = self.counts.values().sum();
        format!("{total} faults ({})", kinds.join(", "))
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.rng.below(to - from + 1))
    }

    fn begin(&mut self, side: Side, fleet: &mut Fleet) -> Result<()> {
        let fault = match side {
            Side::Data => match self.next_data(fleet)? {
                Some(fault) => fault,
                None => return Ok(()),
            },
            Side::Control => self.draw_control(fleet)?,
        };
        if fault == Fault::Everything {
            self.end(Side::Control, fleet)?;
        }
        fleet.wait_ready()?;
        fault.begin(fleet)?;
        *self.counts.entry(fault.name()).or_default() += 1;
        let (from, to) = fault.lasts();
        let until = Instant::now() + self.milliseconds(from, to);
        let fault = Some(fault);
        self.slots[side as usize] = Slot { fault, until };
        if matches!(fault, Some(Fault::Everything | Fault::OsdRestart(_))) {
            // It has to be over before anything else fails.
            self.end(side, fleet)?;
        }
        Ok(())
    }

    fn end(&mut self, side: Side, fleet: &mut Fleet) -> Result<()> {
        if let Some(fault) = self.slots[side as usize].fault.take() {
            fault.end(fleet)?;
        }
        self.slots[side as usize].until = Instant::now() + self.milliseconds(300, 2500);
        Ok(())
    }

    /// The next fault of what holds data, if redundancy allows it now.
    fn next_data(&mut self, fleet: &mut Fleet) -> Result<Option<Fault>> {
        let (fault, since) = match self.waiting.take() {
            Some(waiting) => waiting,
            None => (self.draw_data(fleet), Instant::now()),
        };
        let host = fault.hurts(fleet);
        if host.is_none() || self.hurt.is_none() || host == self.hurt || fleet.is_clean()? {
            self.hurt = host.or(self.hurt);
            return Ok(Some(fault));
        }
        ensure!(since.elapsed() < CLEAN_LIMIT, "not clean for {CLEAN_LIMIT:?}");
        self.waiting = Some((fault, since));
        self.slots[Side::Data as usize].until = Instant::now() + CLEAN_POLL;
        Ok(None)
    }

    /// The next of a side's kinds, in random order, so that all have their turn.
    fn card(&mut self, side: Side, kinds: usize) -> usize {
        let Self { rng, decks, .. } = self;
        let deck = &mut decks[side as usize];
        if deck.is_empty() {
            deck.extend(0..kinds);
        }
        deck.swap_remove(rng.index(deck.len()))
    }

    fn draw_data(&mut self, fleet: &Fleet) -> Fault {
        let osd = self.rng.index(fleet.osds.len());
        match self.card(Side::Data, 12) {
            0..3 => Fault::OsdKill(osd),
            3 => Fault::OsdRestart(osd),
            4 => Fault::HostKill(fleet.osds[osd].host),
            5 => Fault::OsdStop(osd),
            6 => Fault::OsdCut(osd),
            7 => Fault::OsdFromEtcd(osd),
            8 => Fault::OsdReset(osd),
            9 => Fault::OsdDelay(osd),
            _ => Fault::Everything,
        }
    }

    fn draw_control(&mut self, fleet: &Fleet) -> Result<Fault> {
        let at = self.rng.index(fleet.gateways.len());
        Ok(match self.card(Side::Control, 8) {
            0 => Fault::EtcdLeader(fleet.etcd.wait_leader()?),
            1 => Fault::Gateway(at),
            2..4 => Fault::GatewayStop(at),
            4 => Fault::GatewayFromEtcd(at),
            5 => Fault::GatewayFromOsds(at, fleet.gateways[at].process.pid().context("it runs")?),
            6 => Fault::Pgs(PGS[self.rng.index(PGS.len())]),
            _ => Fault::Monitor(self.rng.index(fleet.monitors.len())),
        })
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::OsdKill(_) => "osd kill",
            Self::OsdRestart(_) => "osd restart",
            Self::HostKill(_) => "host kill",
            Self::OsdStop(_) => "osd stop",
            Self::OsdCut(_) => "osd cut off",
            Self::OsdFromEtcd(_) => "osd cut from etcd",
            Self::OsdReset(_) => "osd connections reset",
            Self::OsdDelay(_) => "osd delayed",
            Self::Everything => "everything killed",
            Self::EtcdLeader(_) => "etcd leader kill",
            Self::Gateway(_) => "gateway kill",
            Self::GatewayStop(_) => "gateway stop",
            Self::GatewayFromEtcd(_) => "gateway cut from etcd",
            Self::GatewayFromOsds(..) => "gateway cut from OSDs",
            Self::Monitor(_) => "monitor kill",
            Self::Pgs(_) => "number of PGs",
        }
    }

    /// The host of the OSDs that miss writes meanwhile.
    fn hurts(self, fleet: &Fleet) -> Option<&'static str> {
        match self {
            Self::OsdKill(at) | Self::OsdStop(at) | Self::OsdCut(at) | Self::OsdFromEtcd(at) => {
                Some(fleet.osds[at].host)
            }
            Self::HostKill(host) => Some(host),
            _ => None,
        }
    }

    /// How long it goes on, milliseconds from and to. Leases last 5 s: some are shorter, some longer.
    fn lasts(self) -> (u64, u64) {
        match self {
            Self::OsdStop(_) => (8000, 12_000),
            Self::OsdCut(_) | Self::OsdFromEtcd(_) | Self::GatewayFromEtcd(_) | Self::GatewayFromOsds(..) => {
                (2000, 9000)
            }
            Self::GatewayStop(_) => (1000, 12_000),
            Self::OsdReset(_) | Self::OsdRestart(_) => (0, 0),
            _ => (0, 5000),
        }
    }

    /// The gateway that is stopped or cut off meanwhile.
    fn troubles(self) -> Option<usize> {
        match self {
            Self::Gateway(at) | Self::GatewayStop(at) | Self::GatewayFromEtcd(at) | Self::GatewayFromOsds(at, _) => {
                Some(at)
            }
            _ => None,
        }
    }

    fn begin(self, fleet: &mut Fleet) -> Result<()> {
        if let Some(at) = self.troubles() {
            fleet.gateways[at].in_trouble = true;
        }
        match self {
            Self::OsdKill(at) | Self::OsdRestart(at) => fleet.osds[at].process.kill()?,
            Self::HostKill(host) => of_host(fleet, host).try_for_each(Process::kill)?,
            Self::OsdStop(at) => fleet.osds[at].process.stop()?,
            Self::OsdCut(at) => fleet.osds[at].inward.iter().for_each(|link| link.cut()),
            Self::OsdFromEtcd(at) => fleet.osds[at].meta.iter().for_each(|link| link.cut()),
            Self::OsdReset(at) => fleet.osds[at].inward.iter().for_each(|link| link.reset()),
            Self::OsdDelay(at) => fleet.osds[at].inward.iter().for_each(|link| link.delay(DELAY)),
            Self::Everything => fleet.kill_everything()?,
            Self::EtcdLeader(at) => fleet.etcd.members()[at].kill()?,
            Self::Gateway(at) => fleet.gateways[at].process.kill()?,
            Self::GatewayStop(at) => fleet.gateways[at].process.stop()?,
            Self::GatewayFromEtcd(at) => fleet.gateways[at].meta.iter().for_each(Proxy::cut),
            Self::GatewayFromOsds(_, process) => fleet.cut_from_osds(process),
            Self::Monitor(at) => fleet.monitors[at].kill()?,
            Self::Pgs(count) => fleet.set_pgs(count)?,
        }
        Ok(())
    }

    fn end(self, fleet: &mut Fleet) -> Result<()> {
        match self {
            Self::OsdKill(at) | Self::OsdRestart(at) => fleet.osds[at].process.start()?,
            Self::HostKill(host) => of_host(fleet, host).try_for_each(Process::start)?,
            Self::OsdStop(at) => fleet.osds[at].process.resume()?,
            Self::OsdCut(at) | Self::OsdDelay(at) => fleet.osds[at].inward.iter().for_each(|link| link.heal()),
            Self::OsdFromEtcd(at) => fleet.osds[at].meta.iter().for_each(|link| link.heal()),
            Self::OsdReset(_) | Self::Pgs(_) => {}
            Self::Everything => fleet.start_everything()?,
            Self::EtcdLeader(at) => fleet.etcd.members()[at].start()?,
            Self::Gateway(at) => fleet.gateways[at].process.start()?,
            Self::GatewayStop(at) => fleet.gateways[at].process.resume()?,
            Self::GatewayFromEtcd(at) => fleet.gateways[at].meta.iter().for_each(Proxy::heal),
            Self::GatewayFromOsds(_, process) => fleet.heal_from_osds(process),
            Self::Monitor(at) => fleet.monitors[at].start()?,
        }
        if let Some(at) = self.troubles() {
            fleet.gateways[at].in_trouble = false;
        }
        Ok(())
    }
}

fn of_host<'a>(fleet: &'a mut Fleet, host: &'a str) -> impl Iterator<Item = &'a mut Process> {
    let there = fleet.osds.iter_mut().filter(move |osd| osd.host == host);
    there.map(|osd| &mut osd.process)
}
