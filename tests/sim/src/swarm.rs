//! What a seed stands for: a cluster, a mix of troubles, and how fast things are.

use std::time::Duration;

use crate::network::Latency;
use crate::random::Random;
use crate::trouble::{Group, Trouble};

/// How long clients work under faults at least and at most.
const SAFETY: (u64, u64) = (600, 720);
/// How many operations have to be answered in a run at least.
const OPERATIONS: u64 = 2_000;
/// Operations that a client has under way in some runs: more than an object remembers.
const DEEP: usize = 160;
/// One run in so many is hostile.
const HOSTILE: u64 = 12;
/// How many clients there are. Only one sees no contradiction, many fill what objects remember.
const CLIENTS: [u64; 9] = [1, 2, 2, 3, 3, 4, 5, 12, 16];
/// One run in so many has no trouble at all.
const PEACEFUL: u64 = 40;

/// What the command line changes of what the seed says.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Troubles that are not made.
    pub without: Vec<Trouble>,
    /// The faults end after this.
    pub until: Option<Duration>,
}

impl Overrides {
    /// Whether a trouble that a seed drew is made.
    fn make(&self, trouble: Trouble) -> bool {
        !self.without.contains(&trouble)
    }
}

/// The drawn run.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// What it was drawn from.
    pub seed: u64,
    /// Bytes of each OSD's disk.
    pub disks: Vec<u64>,
    /// Bytes of their logs.
    pub log_size: u64,
    /// Of the pool.
    pub pgs: u32,
    /// Of a second pool, if there is one.
    pub other_pgs: Option<u32>,
    /// Of the pools.
    pub replicas: usize,
    /// Of the pools.
    pub min_size: usize,
    /// How many clients.
    pub clients: usize,
    /// How many gateways, and users of theirs.
    pub gateways: usize,
    /// See there.
    pub users: usize,
    /// Users of the file whose size changes, beside these.
    pub resizers: usize,
    /// How many monitors.
    pub monitors: usize,
    /// Of the network.
    pub latency: Latency,
    /// Mean of reads and writes of a disk.
    pub disk_mean: Duration,
    /// Damage knows no bounds; only what is read is checked.
    pub hostile: bool,
    /// The disks are so small that they fill up.
    pub tight: bool,
    /// What goes wrong, and the mean time between two of a kind.
    pub troubles: Vec<(Trouble, Duration)>,
    /// How long faults are made.
    pub safety: Duration,
    /// Longer, if fewer operations than this were answered.
    pub least: u64,
    /// An OSD that is down for longer loses its PGs, seconds.
    pub out_after: u64,
    /// Of the nodes' clocks, parts per million either way.
    pub drift: u64,
    /// Operations that a client has under way at most.
    pub depth: usize,
    /// Mean time between two operations of a client.
    pub think: Duration,
    /// Callers give up after a while, and ask another client for the same.
    pub callers_turn: bool,
    /// Acting sets that a history names one by one, and PGs that a ping is about.
    pub limits: (usize, usize),
}

impl Swarm {
    /// Draws a run.
    #[must_use]
    pub fn draw(seed: u64, overrides: &Overrides) -> Swarm {
        let root = Random::new(seed);
        let mut random = root.fork("swarm");
        let osds = random.range(2..=6);
        let replicas = (1 + random.weighted(&[1, 6, 5])).min(usize::try_from(osds).unwrap_or(1));
        let min_size = 1 + random.index(replicas);
        let tight = random.one_in(8);
        let megabytes = if tight { 6..=12 } else { 16..=64 };
        let size = random.range(megabytes) << 20;
        let even = random.one_in(2);
        // With one copy, what is damaged waits for ever, and its clients with it.
        let hostile = random.one_in(HOSTILE) && replicas > 1;
        let clients = *random.pick(&CLIENTS).unwrap_or(&1);
        let mut swarm = Swarm {
            seed,
            disks: (0..osds).map(|_| disk_size(&mut random, size, even)).collect(),
            log_size: if tight { 1 << 20 } else { random.range(1..=2) << 20 },
            pgs: u32::try_from(random.range(1..=16)).unwrap_or(1),
            other_pgs: draw_other_pool(&mut root.fork("pools")),
            replicas,
            // What is lost for good must not stop everything else.
            min_size: if hostile { min_size.min(replicas - 1) } else { min_size },
            clients: usize::try_from(clients).unwrap_or(1),
            gateways: 0,
            users: 0,
            resizers: 0,
            monitors: 1 + random.index(3),
            latency: draw_latency(&mut random),
            disk_mean: Duration::from_micros(*random.pick(&[50, 50, 200, 1000]).unwrap_or(&50)),
            hostile,
            tight,
            troubles: Vec::new(),
            safety: Duration::from_secs(random.range(SAFETY.0..=SAFETY.1)),
            least: OPERATIONS,
            out_after: *random.pick(&[600, 10, 10]).unwrap_or(&600),
            drift: *random.pick(&[0, 50, 500]).unwrap_or(&0),
            depth: match 1 + random.index(8) {
                8 if root.fork("deep").one_in(2) => DEEP,
                depth => depth,
            },
            think: Duration::from_millis(clients * random.range(50..=120)),
            callers_turn: root.fork("callers").one_in(2),
            limits: draw_limits(&mut root.fork("limits")),
        };
        swarm.troubles = draw_troubles(&mut random, replicas, hostile);
        swarm.troubles.retain(|(trouble, _)| overrides.make(*trouble));
        swarm.draw_users(&mut root.fork("gateways"));
        if let Some(until) = overrides.until {
            swarm.safety = swarm.safety.min(until);
            swarm.least = 0;
        }
        swarm
    }

    fn draw_users(&mut self, random: &mut Random) {
        self.gateways = 1 + random.index(3);
        self.users = 1 + random.index(4);
        // Where there is no room, or what is lost is lost for good, files that nobody else needs would only be in the way.
        // And a size that is put back to what it was is no change that the model of such a file knows.
        let in_the_way = self.tight || self.hostile || self.has(Trouble::Restored);
        if self.has(Trouble::Resize) && !in_the_way {
            self.resizers = 2 + random.index(2);
        }
        // All together do as much as clients would alone.
        let (clients, all) = (self.clients, self.clients + self.users);
        let shares = |number: usize| u32::try_from(number).unwrap_or(1);
        self.think = self.think * shares(all) / shares(clients);
    }

    /// Whether this kind of trouble is made at all.
    #[must_use]
    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles.iter().any(|(kind, _)| *kind == trouble)
    }

    /// One line about it.
    #[must_use]
    pub fn describe(&self) -> String {
        let troubles: Vec<&str> = self.troubles.iter().map(|(trouble, _)| trouble.name()).collect();
        format!(
            "{} OSDs {:?} MiB, {} + {} PGs, {} replicas, min size {}, {} clients of depth {}, {} gateways with {} users, {} resizers, {} monitors{}{}, \
             {} s of: {}",
            self.disks.len(),
            self.disks.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>(),
            self.pgs,
            self.other_pgs.unwrap_or(0),
            self.replicas,
            self.min_size,
            self.clients,
            self.depth,
            self.gateways,
            self.users,
            self.resizers,
            self.monitors,
            if self.tight { ", tight" } else { "" },
            if self.hostile { ", hostile" } else { "" },
            self.safety.as_secs(),
            troubles.join(" "),
        )
    }
}

/// The PGs of a second pool, in every third run.
fn draw_other_pool(random: &mut Random) -> Option<u32> {
    let pgs = u32::try_from(random.range(1..=8)).expect("a few");
    random.one_in(3).then_some(pgs)
}

fn disk_size(random: &mut Random, size: u64, even: bool) -> u64 {
    if even {
        size
    } else {
        size + (random.range(0..=size >> 21) << 20)
    }
}

/// Limits of OSDs that nothing reaches in a small cluster are small at times.
fn draw_limits(random: &mut Random) -> (usize, usize) {
    let intervals = *random.pick(&[2, 3, 4, 32]).unwrap_or(&32);
    let pgs_per_ping = *random.pick(&[1, 3, 65_536, 65_536]).unwrap_or(&65_536);
    (intervals, pgs_per_ping)
}

fn draw_latency(random: &mut Random) -> Latency {
    let mean = *random.pick(&[50, 200, 1000, 5000]).unwrap_or(&50);
    let spike = *random.pick(&[0, 0, 50, 1000]).unwrap_or(&0);
    Latency {
        mean: Duration::from_micros(mean),
        least: Duration::from_micros(20),
        spike: Duration::from_millis(spike),
    }
}

/// Each kind is there or not, at a rate of its own: bugs show where few kinds are frequent as well as where all mix.
fn draw_troubles(random: &mut Random, replicas: usize, hostile: bool) -> Vec<(Trouble, Duration)> {
    if random.one_in(PEACEFUL) {
        return Vec::new();
    }
    let share = random.range(1..=4);
    let mut troubles = Vec::new();
    for &trouble in Trouble::ALL {
        let there = random.chance(share, 5);
        let pace = random.range(2..=12);
        let alone = replicas == 1 && !hostile && trouble.group() == Group::Damage;
        if there && !alone {
            troubles.push((trouble, trouble.mean() * u32::try_from(pace).unwrap_or(4) / 4));
        }
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_draw_all_sorts_of_clusters() {
        let swarms: Vec<Swarm> = (1..=500).map(|seed| Swarm::draw(seed, &Overrides::default())).collect();
        for osds in 2..=6 {
            assert!(swarms.iter().any(|swarm| swarm.disks.len() == osds));
        }
        for replicas in 1..=3 {
            assert!(swarms.iter().any(|swarm| swarm.replicas == replicas));
        }
        for &trouble in Trouble::ALL {
            assert!(swarms.iter().any(|swarm| swarm.has(trouble)), "{trouble:?}");
            assert!(swarms.iter().any(|swarm| !swarm.has(trouble)), "{trouble:?}");
        }
        assert!(
            swarms
                .iter()
                .all(|s| s.replicas <= s.disks.len() && s.min_size <= s.replicas)
        );
    }

    #[test]
    fn what_is_left_out_does_not_change_the_rest() {
        let whole = Swarm::draw(7, &Overrides::default());
        let kinds: Vec<Trouble> = whole.troubles.iter().map(|(trouble, _)| *trouble).collect();
        let overrides = Overrides {
            without: kinds[..1].to_vec(),
            ..Overrides::default()
        };
        let part = Swarm::draw(7, &overrides);
        assert_eq!(part.troubles, whole.troubles[1..]);
        assert_eq!(part.disks, whole.disks);
    }
}
