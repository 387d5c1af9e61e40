//! Clusters of disks of mixed sizes, changes to them, and how good plans for them are. The measures know nothing of how
//! plans are made.

use std::collections::BTreeMap;

use trivet_core::keys::{PgPlan, Plan};
use trivet_core::{OsdId, PoolId};
use trivet_mon::placement::{Candidate, Inputs, place};

/// Sizes of disks, TB.
const SIZES: [u64; 4] = [4, 8, 10, 16];

/// A cluster and what happens to it.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub osds: u32,
    pub hosts: usize,
    /// Copies are in different places of so many hosts each.
    pub hosts_per_domain: usize,
    pub pgs: u32,
    pub replicas: usize,
}

impl Scenario {
    pub fn name(&self) -> String {
        let domain = match self.hosts_per_domain {
            0 => "OSD".to_owned(),
            1 => format!("{} hosts", self.hosts),
            n => format!("{} racks", self.hosts.div_ceil(n)),
        };
        format!("{} OSDs, {domain}, {} x {}", self.osds, self.pgs, self.replicas)
    }

    /// The OSD with this number, from 1.
    pub fn osd(&self, number: u32) -> Candidate {
        let at = usize::try_from(number - 1).unwrap();
        let host = at % self.hosts;
        Candidate {
            id: OsdId(number),
            weight: SIZES[at / self.hosts * 7 % 4] << 40,
            domain: host.checked_div(self.hosts_per_domain).unwrap_or(at),
            up: true,
            full: false,
        }
    }

    pub fn inputs(&self) -> Inputs {
        Inputs {
            pool: PoolId(1),
            pg_count: self.pgs,
            replicas: self.replicas,
            osds: (1..=self.osds).map(|number| self.osd(number)).collect(),
        }
    }

    /// What is done to it, one at a time.
    pub fn changes(&self) -> Vec<(&'static str, Inputs)> {
        let change = |change: &dyn Fn(&mut Vec<Candidate>)| {
            let mut inputs = self.inputs();
            change(&mut inputs.osds);
            inputs
        };
        let middle = OsdId(self.osds / 2);
        vec![
            ("add", change(&|osds| osds.push(self.osd(self.osds + 1)))),
            ("remove", change(&|osds| osds.retain(|osd| osd.id != middle))),
            (
                "reweight",
                change(&|osds| {
                    osds.iter_mut()
                        .filter(|osd| osd.id == middle)
                        .for_each(|osd| osd.weight /= 2)
                }),
            ),
        ]
    }
}

/// A first plan, or the next.
pub fn planned(old: &Plan, inputs: &Inputs) -> Plan {
    let pgs = place(old, inputs)
        .into_iter()
        .map(|osds| PgPlan { osds, primary: None });
    Plan {
        pgs: pgs.collect(),
        ..Plan::default()
    }
}

/// How many members of PGs each OSD should have: as many per weight everywhere, but no domain more than all PGs.
pub fn fair(inputs: &Inputs) -> BTreeMap<OsdId, f64> {
    let mut domains: BTreeMap<usize, f64> = BTreeMap::new();
    for osd in &inputs.osds {
        *domains.entry(osd.domain).or_default() += osd.weight as f64;
    }
    let pgs = f64::from(inputs.pg_count);
    let mut members = pgs * inputs.replicas.min(domains.len()) as f64;
    let mut full: BTreeMap<usize, f64> = BTreeMap::new();
    // Domains that would hold more than all PGs hold just these; that leaves more for the others.
    loop {
        let rest: f64 = domains.values().sum();
        let over = |weight: f64| weight * members > pgs * rest * 1.000_000_1;
        let Some((&domain, &weight)) = domains.iter().find(|(_, weight)| over(**weight)) else {
            let per_weight = if rest > 0.0 { members / rest } else { 0.0 };
            let level = |osd: &Candidate| full.get(&osd.domain).map_or(per_weight, |weight| pgs / weight);
            return inputs
                .osds
                .iter()
                .map(|osd| (osd.id, osd.weight as f64 * level(osd)))
                .collect();
        };
        domains.remove(&domain);
        full.insert(domain, weight);
        members -= pgs;
    }
}

/// Space that can be used with a plan before an OSD is full, of what could be if PGs were as small as one likes.
pub fn uniformity(inputs: &Inputs, plan: &Plan) -> f64 {
    let mut held: BTreeMap<OsdId, f64> = BTreeMap::new();
    plan.pgs
        .iter()
        .flat_map(|pg| &pg.osds)
        .for_each(|osd| *held.entry(*osd).or_default() += 1.0);
    let fullest = |counts: &BTreeMap<OsdId, f64>| {
        let level = |osd: &Candidate| counts.get(&osd.id).unwrap_or(&0.0) / osd.weight as f64;
        inputs.osds.iter().map(level).fold(0.0, f64::max)
    };
    fullest(&fair(inputs)) / fullest(&held)
}

/// Members that a plan has where the older one has not.
pub fn moved(old: &Plan, new: &Plan) -> usize {
    let newcomers = |(old, new): (&PgPlan, &PgPlan)| new.osds.iter().filter(|osd| !old.osds.contains(osd)).count();
    old.pgs.iter().zip(&new.pgs).map(newcomers).sum()
}

/// How many members must move: what fair shares grow by.
pub fn must_move(old: &Inputs, new: &Inputs) -> f64 {
    let before = fair(old);
    let grown = fair(new)
        .into_iter()
        .map(|(osd, share)| (share - before.get(&osd).unwrap_or(&0.0)).max(0.0));
    grown.sum()
}

/// Whether no PG has two members in one failure domain, and every PG as many as there are domains for.
pub fn is_valid(inputs: &Inputs, plan: &Plan) -> bool {
    let domains: BTreeMap<OsdId, usize> = inputs.osds.iter().map(|osd| (osd.id, osd.domain)).collect();
    let mut all: Vec<usize> = domains.values().copied().collect();
    all.sort_unstable();
    all.dedup();
    let members = inputs.replicas.min(all.len());
    plan.pgs.iter().all(|pg| {
        let mut found: Vec<usize> = pg.osds.iter().filter_map(|osd| domains.get(osd).copied()).collect();
        found.sort_unstable();
        found.dedup();
        found.len() == members && pg.osds.len() == members
    })
}
