//! How many PGs each OSD should hold: its fair share, and between which whole numbers it may lie.
//!
//! All OSDs are equally full, relative to their weights, except where a failure domain would hold more than one member
//! of a PG: such a domain has each PG once, and its OSDs share them by weight. Sets with members in distinct domains
//! exist for every choice of whole numbers that sum up and give no domain more than all PGs (fill PG after PG round
//! robin, domain by domain), so counts can be decided before sets.

use super::Inputs;

/// Fraction bits of levels: PGs per weight.
const LEVEL_BITS: u32 = 40;
/// Bits of weights: enough to tell disks apart.
const WEIGHT_BITS: u32 = 32;
/// Fraction bits of [`Shares::fair`].
pub(crate) const FAIR_BITS: u32 = 16;
/// An OSD that should hold many PGs may hold so much less (2^-5, 3 %) before others give it some.
const SLACK_BITS: u32 = 5;

/// What each OSD should hold.
pub(crate) struct Shares {
    /// If it holds fewer PGs than this, others give it some.
    pub low: Vec<u64>,
    /// It must not hold more.
    pub high: Vec<u64>,
    /// What it would hold if PGs could be divided, with [`FAIR_BITS`].
    pub fair: Vec<u64>,
}

impl Shares {
    /// The shares of OSDs that may hold at most `limits`.
    pub(crate) fn new(inputs: &Inputs, limits: &[u64]) -> Shares {
        let problem = Problem::new(inputs, limits);
        let fair: Vec<u64> = problem.counts(false, LEVEL_BITS - FAIR_BITS);
        Shares {
            low: fair
                .iter()
                .map(|fair| fair >> FAIR_BITS)
                .map(|fair| fair - (fair >> SLACK_BITS))
                .collect(),
            high: problem.counts(true, LEVEL_BITS),
            fair,
        }
    }
}

/// An OSD in it.
struct Bin {
    weight: u128,
    /// PGs, with [`LEVEL_BITS`].
    limit: u128,
}

impl Bin {
    /// What it holds at a level, with [`LEVEL_BITS`].
    fn at(&self, level: u128, whole: bool) -> u128 {
        let held = (level * self.weight).min(self.limit);
        if whole { held >> LEVEL_BITS << LEVEL_BITS } else { held }
    }
}

struct Problem<'a> {
    inputs: &'a Inputs,
    /// By domain.
    bins: Vec<Vec<Bin>>,
    /// All PGs, with [`LEVEL_BITS`]: what a domain can hold.
    pgs: u128,
    /// Members that a PG has.
    members: u128,
}

impl Problem<'_> {
    fn new<'a>(inputs: &'a Inputs, limits: &[u64]) -> Problem<'a> {
        let heaviest = inputs.osds.iter().map(|osd| osd.weight).max().unwrap_or(0);
        let shift = (u64::BITS - heaviest.leading_zeros()).saturating_sub(WEIGHT_BITS);
        let domains = inputs.osds.iter().map(|osd| osd.domain + 1).max().unwrap_or(0);
        let mut bins: Vec<Vec<Bin>> = (0..domains).map(|_| Vec::new()).collect();
        for (osd, &limit) in inputs.osds.iter().zip(limits) {
            bins[osd.domain].push(Bin {
                weight: u128::from((osd.weight >> shift).max(1)),
                limit: u128::from(limit) << LEVEL_BITS,
            });
        }
        let members = inputs.replicas.min(domains);
        Problem {
            inputs,
            bins,
            pgs: (inputs.pgs() as u128) << LEVEL_BITS,
            members: members as u128,
        }
    }

    /// What the OSDs hold, `shift` bits less fine: in whole PGs or not.
    fn counts(&self, whole: bool, shift: u32) -> Vec<u64> {
        let level = self.lowest(|level| self.total(level, whole) >= self.pgs * self.members);
        let levels: Vec<u128> = self
            .bins
            .iter()
            .map(|bins| level.min(self.enough(bins, whole)))
            .collect();
        let mut bins: Vec<_> = self.bins.iter().map(|bins| bins.iter()).collect();
        let held = self.inputs.osds.iter().map(|osd| {
            let bin = bins[osd.domain].next();
            bin.map_or(0, |bin| bin.at(levels[osd.domain], whole))
        });
        held.map(|held| u64::try_from(held >> shift).unwrap_or(u64::MAX))
            .collect()
    }

    fn total(&self, level: u128, whole: bool) -> u128 {
        let domains = self.bins.iter().map(|bins| sum(bins, level, whole).min(self.pgs));
        domains.sum()
    }

    /// The level at which a domain has a member of every PG.
    fn enough(&self, bins: &[Bin], whole: bool) -> u128 {
        self.lowest(|level| sum(bins, level, whole) >= self.pgs)
    }

    /// The lowest level that is high enough, or the highest that makes sense.
    fn lowest(&self, is_enough: impl Fn(u128) -> bool) -> u128 {
        let (mut low, mut high) = (0, self.pgs);
        while low < high {
            let middle = low.midpoint(high);
            if is_enough(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        high
    }
}

fn sum(bins: &[Bin], level: u128, whole: bool) -> u128 {
    bins.iter().map(|bin| bin.at(level, whole)).sum()
}

#[cfg(test)]
mod tests {
    use trivet_core::{OsdId, PoolId};

    use super::super::Candidate;
    use super::*;

    /// OSDs as (weight, domain).
    fn inputs(pg_count: u32, replicas: usize, osds: &[(u64, usize)]) -> Inputs {
        let osd = |(id, &(weight, domain)): (u32, &(u64, usize))| Candidate {
            id: OsdId(id),
            weight,
            domain,
            up: true,
            full: false,
        };
        Inputs {
            pool: PoolId(1),
            pg_count,
            replicas,
            osds: (1..).zip(osds).map(osd).collect(),
        }
    }

    type Case = (&'static str, Inputs, &'static [u64], &'static [u64], &'static [u64]);

    fn cases() -> Vec<Case> {
        let three = [(1, 0), (1, 1), (1, 2)];
        let tb = 1 << 40;
        vec![
            ("equal", inputs(30, 2, &three), &[30; 3], &[20; 3], &[20; 3]),
            ("as many as domains", inputs(8, 3, &three), &[8; 3], &[8; 3], &[8; 3]),
            ("fewer domains", inputs(8, 5, &three), &[8; 3], &[8; 3], &[8; 3]),
            (
                "not divisible",
                inputs(32, 2, &[(7, 0), (7, 1), (7, 2)]),
                &[32; 3],
                &[21; 3],
                &[22; 3],
            ),
            (
                "by weight",
                inputs(32, 2, &[(4 * tb, 0), (2 * tb, 1), (2 * tb, 2)]),
                &[32; 3],
                &[32, 16, 16],
                &[32, 16, 16],
            ),
            (
                "too big to be full",
                inputs(40, 2, &[(9, 0), (1, 1), (3, 1)]),
                &[40; 3],
                &[40, 10, 30],
                &[40, 10, 30],
            ),
            (
                "a big domain",
                inputs(30, 2, &[(5, 0), (10, 0), (2, 1), (2, 2)]),
                &[30; 4],
                &[10, 20, 15, 15],
                &[10, 20, 15, 15],
            ),
            (
                "one holds no more than it has",
                inputs(30, 1, &three),
                &[30, 4, 30],
                &[13, 4, 13],
                &[13, 4, 13],
            ),
            (
                "not enough",
                inputs(30, 2, &three),
                &[30, 3, 2],
                &[30, 3, 2],
                &[30, 3, 2],
            ),
        ]
    }

    #[test]
    fn shares() {
        for (name, inputs, limits, fair, high) in cases() {
            let shares = Shares::new(&inputs, limits);
            assert_eq!(shares.high, high, "{name}");
            for (at, &fair) in fair.iter().enumerate() {
                let found = (shares.fair[at] + (1 << (FAIR_BITS - 4))) >> FAIR_BITS;
                assert_eq!(found, fair, "{name} {at}");
                assert!(
                    shares.low[at] <= fair && shares.low[at] + 1 + fair / 32 >= fair,
                    "{name} {at}"
                );
            }
        }
    }
}
