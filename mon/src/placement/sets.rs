//! The sets of a plan, on the way from the old ones to even ones.
//!
//! First whatever is good stays, then what is missing is added where there is most room, then OSDs that hold too many
//! PGs give some away, then those with too few get some. Where no single move does it, because the PG has a member in
//! that failure domain, the shortest chain of moves does; members that moved already are moved first, which costs
//! nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use trivet_core::OsdId;
use trivet_core::keys::Plan;

use super::shares::{FAIR_BITS, Shares};
use super::{Inputs, draw};

/// So many looks at a PG and an OSD may be taken in the search for chains, about a second. Only plans that have no
/// solution, because OSDs are full or down, come near.
const BUDGET: u64 = 1 << 28;

/// Fraction bits of how full OSDs are.
const FILL_BITS: u32 = 32;

/// Sets being made. OSDs are numbers: their places in the inputs.
pub(crate) struct Layout<'a> {
    inputs: &'a Inputs,
    /// Members that a PG has in the old plan; only they may be on OSDs that are closed.
    old: Vec<Vec<usize>>,
    sets: Vec<Vec<usize>>,
    /// By OSD: its PGs.
    pgs: Vec<Vec<usize>>,
    /// OSDs that get no PGs that they do not have.
    closed: Vec<bool>,
    shares: Shares,
    /// By OSD: how full it would be with one PG more.
    fill: Vec<u64>,
    budget: u64,
}

/// One member goes from an OSD, or from nowhere, to another.
#[derive(Clone, Copy)]
struct Step {
    pg: usize,
    from: Option<usize>,
    to: usize,
}

impl<'a> Layout<'a> {
    /// The good part of an old plan.
    pub(crate) fn new(old: &Plan, inputs: &'a Inputs) -> Layout<'a> {
        let first = old.pgs.is_empty();
        let numbers: BTreeMap<OsdId, usize> = inputs.osds.iter().enumerate().map(|(n, osd)| (osd.id, n)).collect();
        let known = |pg: usize| {
            let mut known: Vec<usize> = Vec::new();
            for osd in old.pgs.get(pg).map_or(&[][..], |pg| &pg.osds) {
                known.extend(numbers.get(osd).filter(|osd| !known.contains(osd)));
            }
            known
        };
        let sets: Vec<Vec<usize>> = (0..inputs.pgs()).map(known).collect();
        let mut layout = Layout {
            inputs,
            old: sets.clone(),
            pgs: holdings(&sets, inputs.osds.len()),
            sets,
            closed: inputs.osds.iter().map(|osd| osd.full || !(osd.up || first)).collect(),
            shares: Shares::new(inputs, &vec![u64::MAX >> FAIR_BITS; inputs.osds.len()]),
            fill: vec![0; inputs.osds.len()],
            budget: BUDGET,
        };
        (0..inputs.osds.len()).for_each(|osd| layout.weigh(osd));
        (0..layout.sets.len()).for_each(|pg| layout.trim(pg));
        layout.set_shares();
        layout
    }

    /// Makes them complete and even.
    pub(crate) fn settle(mut self) -> Vec<Vec<OsdId>> {
        (0..self.sets.len()).for_each(|pg| self.complete(pg));
        self.shed();
        self.attract();
        let ids = |set: Vec<usize>| set.into_iter().map(|osd| self.inputs.osds[osd].id).collect();
        self.sets.into_iter().map(ids).collect()
    }

    /// What is closed is done with what it has; the others share the rest.
    fn set_shares(&mut self) {
        let all = count(self.sets.len());
        let limit = |osd: usize| {
            if self.closed[osd] {
                count(self.pgs[osd].len())
            } else {
                all
            }
        };
        let limits: Vec<u64> = (0..self.closed.len()).map(limit).collect();
        self.shares = Shares::new(self.inputs, &limits);
        (0..self.closed.len()).for_each(|osd| self.weigh(osd));
    }

    /// Takes out of a set what must not be in it: the fuller of two in one domain, the fullest if there are too many.
    fn trim(&mut self, pg: usize) {
        while let Some(osd) = self.superfluous(pg) {
            self.remove(pg, osd);
        }
    }

    fn superfluous(&self, pg: usize) -> Option<usize> {
        let set = &self.sets[pg];
        let domain = |osd: usize| self.inputs.osds[osd].domain;
        let shares_domain = |osd: usize| set.iter().filter(|&&other| domain(other) == domain(osd)).count() > 1;
        let fullest = |osds: &mut dyn Iterator<Item = usize>| osds.max_by_key(|&osd| (self.fill[osd], osd));
        let twice = fullest(&mut set.iter().copied().filter(|&osd| shares_domain(osd)));
        twice.or_else(|| fullest(&mut set.iter().copied()).filter(|_| set.len() > self.inputs.replicas))
    }

    /// Adds the members that a set lacks, if there is anywhere to put them.
    fn complete(&mut self, pg: usize) {
        while self.sets[pg].len() < self.inputs.replicas {
            if !self.extend(pg) {
                return;
            }
        }
    }

    fn extend(&mut self, pg: usize) -> bool {
        let roomy = (0..self.closed.len()).filter(|&osd| self.has_room(osd) && self.fits(pg, osd, None));
        if let Some(to) = roomy.min_by_key(|&osd| (self.fill[osd], self.draw(pg, osd))) {
            self.add(pg, to);
            return true;
        }
        let mut search = Search::new(self.closed.len());
        search.arrive(self.reachable(pg, None));
        self.follow(search, |layout, osd| layout.has_room(osd))
    }

    /// OSDs that hold too many PGs give them to others.
    fn shed(&mut self) {
        for osd in 0..self.closed.len() {
            while count(self.pgs[osd].len()) > self.shares.high[osd] {
                let mut search = Search::new(self.closed.len());
                search.arrive(self.moves_from(osd));
                if !self.follow(search, |layout, osd| layout.has_room(osd)) {
                    break;
                }
            }
        }
    }

    /// OSDs that hold too few PGs get some, of the fullest first.
    fn attract(&mut self) {
        for osd in 0..self.closed.len() {
            while !self.closed[osd] && count(self.pgs[osd].len()) < self.shares.low[osd] {
                if !self.attract_one(osd) {
                    break;
                }
            }
        }
    }

    fn attract_one(&mut self, to: usize) -> bool {
        let gives = |osd: usize| count(self.pgs[osd].len()) > self.shares.low[osd] && self.fill[osd] > self.fill[to];
        let mut donors: Vec<usize> = (0..self.closed.len()).filter(|&osd| gives(osd)).collect();
        donors.sort_by_key(|&osd| Reverse(self.fill[osd]));
        for &from in &donors {
            if let Some(pg) = self.best_pg(from, to) {
                self.take(Step {
                    pg,
                    from: Some(from),
                    to,
                });
                return true;
            }
        }
        let mut search = Search::new(self.closed.len());
        for from in donors {
            if !self.pay(from) {
                return false;
            }
            search.arrive(self.moves_from(from));
        }
        self.follow(search, |_, osd| osd == to)
    }

    /// Goes on with a search until it comes where `is_end`, and takes the chain that leads there.
    fn follow(&mut self, mut search: Search, is_end: impl Fn(&Self, usize) -> bool) -> bool {
        while !search.latest.is_empty() {
            let ends = search.latest.iter().copied().filter(|&osd| is_end(self, osd));
            if let Some(end) = ends.min_by_key(|&osd| (self.fill[osd], self.draw(0, osd))) {
                return self.take_chain(&search.came, end);
            }
            for osd in std::mem::take(&mut search.latest) {
                if !self.pay(osd) {
                    return false;
                }
                search.arrive(self.moves_from(osd));
            }
        }
        false
    }

    /// Whether there is budget left to look where the members on an OSD can go.
    fn pay(&mut self, osd: usize) -> bool {
        let looks = count(self.pgs[osd].len()) * count(self.closed.len());
        let left = self.budget.checked_sub(looks);
        self.budget = left.unwrap_or(0);
        left.is_some()
    }

    fn moves_from(&self, osd: usize) -> impl Iterator<Item = Step> + use<'_, 'a> {
        self.pgs_by_age(osd).flat_map(move |pg| self.reachable(pg, Some(osd)))
    }

    /// Takes the steps to `end`, last one first, each with the best PG for it. An earlier one may have become
    /// impossible by a later one; then what is taken made room nearer to the start, and the next chain is shorter.
    fn take_chain(&mut self, came: &[Option<Step>], end: usize) -> bool {
        let mut next = came[end];
        let mut steps = 0;
        while let Some(step) = next {
            let pg = step.from.map_or(Some(step.pg), |from| self.best_pg(from, step.to));
            let Some(pg) = pg.filter(|&pg| self.fits(pg, step.to, step.from)) else {
                break;
            };
            self.take(Step { pg, ..step });
            steps += 1;
            next = step.from.filter(|_| steps < came.len()).and_then(|from| came[from]);
        }
        steps > 0
    }

    fn take(&mut self, step: Step) {
        if let Some(from) = step.from {
            self.remove(step.pg, from);
        }
        self.add(step.pg, step.to);
    }

    /// Where a member can go: all OSDs that may be in the PG instead of `from`.
    fn reachable(&self, pg: usize, from: Option<usize>) -> impl Iterator<Item = Step> + use<'_, 'a> {
        let osds = (0..self.closed.len()).filter(move |&to| self.fits(pg, to, from));
        osds.map(move |to| Step { pg, from, to })
    }

    /// The PG whose member should go from one OSD to another.
    fn best_pg(&self, from: usize, to: usize) -> Option<usize> {
        let fit = self.pgs[from]
            .iter()
            .copied()
            .filter(|&pg| self.fits(pg, to, Some(from)));
        fit.max_by_key(|&pg| (self.is_old(pg, to), !self.is_old(pg, from), self.draw(pg, to)))
    }

    /// The PGs of an OSD, those first that it did not have in the old plan.
    fn pgs_by_age(&self, osd: usize) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let part = move |old: bool| {
            self.pgs[osd]
                .iter()
                .copied()
                .filter(move |&pg| self.is_old(pg, osd) == old)
        };
        part(false).chain(part(true))
    }

    fn is_old(&self, pg: usize, osd: usize) -> bool {
        self.old[pg].contains(&osd)
    }

    fn has_room(&self, osd: usize) -> bool {
        count(self.pgs[osd].len()) < self.shares.high[osd]
    }

    /// Whether an OSD can become a member of a PG, if `without` is none any more.
    fn fits(&self, pg: usize, osd: usize, without: Option<usize>) -> bool {
        let domain = self.inputs.osds[osd].domain;
        let clashes = |&other: &usize| self.inputs.osds[other].domain == domain && Some(other) != without;
        Some(osd) != without && !self.sets[pg].iter().any(clashes) && (!self.closed[osd] || self.is_old(pg, osd))
    }

    fn draw(&self, pg: usize, osd: usize) -> u64 {
        draw(self.inputs.pool, pg, self.inputs.osds[osd].id)
    }

    fn add(&mut self, pg: usize, osd: usize) {
        self.sets[pg].push(osd);
        self.pgs[osd].push(pg);
        self.weigh(osd);
    }

    fn remove(&mut self, pg: usize, osd: usize) {
        self.sets[pg].retain(|&other| other != osd);
        self.pgs[osd].retain(|&other| other != pg);
        self.weigh(osd);
    }

    fn weigh(&mut self, osd: usize) {
        let more = u128::from(count(self.pgs[osd].len()) + 1) << (FILL_BITS + FAIR_BITS);
        let fill = more / u128::from(self.shares.fair[osd].max(1));
        self.fill[osd] = u64::try_from(fill).unwrap_or(u64::MAX);
    }
}

/// A search for a chain, breadth first.
struct Search {
    /// By OSD: the step by which it was first arrived at.
    came: Vec<Option<Step>>,
    /// Those that were arrived at last.
    latest: Vec<usize>,
}

impl Search {
    fn new(osds: usize) -> Search {
        Search {
            came: vec![None; osds],
            latest: Vec::new(),
        }
    }

    fn arrive(&mut self, steps: impl Iterator<Item = Step>) {
        for step in steps {
            if self.came[step.to].is_none() {
                self.came[step.to] = Some(step);
                self.latest.push(step.to);
            }
        }
    }
}

fn holdings(sets: &[Vec<usize>], osds: usize) -> Vec<Vec<usize>> {
    let mut holdings = vec![Vec::new(); osds];
    for (pg, set) in sets.iter().enumerate() {
        set.iter().for_each(|&osd| holdings[osd].push(pg));
    }
    holdings
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
