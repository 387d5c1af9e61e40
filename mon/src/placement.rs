//! Which OSDs hold which PG, and which of them leads it.
//!
//! Promises: never two members of a PG in one failure domain; space is used as evenly as whole PGs allow; members that
//! are still good stay, and what moves is what has to; the same inputs give the same plan, in bounded time. With fewer
//! domains than replicas, sets are smaller. `docs/decisions/0009-placement.md` says why it is done this way.
//! It knows no time and no metadata store: [`inputs`] reads the cluster map, everything else reads the inputs.

mod primaries;
mod sets;
mod shares;
mod tree;

use trivet_core::keys::Plan;
use trivet_core::{OsdId, PoolId};

pub(crate) use primaries::{Leading, choose, hand_over};
pub use tree::inputs;
pub(crate) use tree::is_full;

/// PGs of a pool that a plan may have: its key has to fit a request to the metadata store (1.5 MB with etcd).
pub const MAX_PGS: u32 = 16_384;

/// What the placement of one pool is made from, besides the plan that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Which pool: pools differ in where they round up.
    pub pool: PoolId,
    /// How many PGs; no more than [`MAX_PGS`] are placed.
    pub pg_count: u32,
    /// Members of each.
    pub replicas: usize,
    /// The OSDs that the pool may use, ascending by number.
    pub osds: Vec<Candidate>,
}

/// An OSD that a pool may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub id: OsdId,
    /// Its share of the space, in any unit; not zero.
    pub weight: u64,
    /// Its failure domain; those of a pool are numbered from 0.
    pub domain: usize,
    /// It serves. One that does not keeps its PGs and gets no others, except from a pool's first plan.
    pub up: bool,
    /// It has too little space left to be given more PGs.
    pub full: bool,
}

impl Inputs {
    /// How many failure domains have OSDs for which `counts`.
    pub(crate) fn domains(&self, counts: impl Fn(&Candidate) -> bool) -> usize {
        let mut domains: Vec<usize> = self
            .osds
            .iter()
            .filter(|osd| counts(osd))
            .map(|osd| osd.domain)
            .collect();
        domains.sort_unstable();
        domains.dedup();
        domains.len()
    }

    fn pgs(&self) -> usize {
        usize::try_from(self.pg_count.min(MAX_PGS)).unwrap_or(usize::MAX)
    }
}

/// The up sets of all PGs, made from those of the plan that there is. Without any OSD they stay as they are.
#[must_use]
pub fn place(old: &Plan, inputs: &Inputs) -> Vec<Vec<OsdId>> {
    if inputs.osds.is_empty() {
        return old.pgs.iter().map(|pg| pg.osds.clone()).collect();
    }
    sets::Layout::new(old, inputs).settle()
}

/// A number that depends on all of these and on nothing else: where any choice is as good, it chooses, so that pools
/// and OSDs do not all round in one direction, and an OSD that returns gets the PGs that it had, mostly.
fn draw(pool: PoolId, pg: usize, osd: OsdId) -> u64 {
    let pg = u64::try_from(pg).unwrap_or(u64::MAX);
    mixed(u64::from(osd.0) ^ mixed(pg ^ mixed(u64::from(pool.0))))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
