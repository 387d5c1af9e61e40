//! Which OSDs hold which PG: a greedy pass that uses space evenly and moves little.

use std::collections::BTreeMap;

use trivet_core::OsdId;
use trivet_core::keys::{PgPlan, Plan};

/// A plan for `pg_count` PGs of `replicas` members each. Members that are still valid stay, unless moving one from the
/// fullest OSD to the emptiest makes the use of space more even. With fewer OSDs than replicas, sets are smaller.
pub(crate) fn place(old: &Plan, weights: &BTreeMap<OsdId, u64>, pg_count: u32, replicas: usize) -> Plan {
    let count = usize::try_from(pg_count).unwrap_or(usize::MAX);
    let kept = |number: usize| {
        let mut set = Vec::with_capacity(replicas.min(weights.len()));
        for &osd in old.pgs.get(number).map_or(&[][..], |pg| &pg.osds) {
            if set.len() < replicas && weights.contains_key(&osd) && !set.contains(&osd) {
                set.push(osd);
            }
        }
        set
    };
    let mut sets: Vec<Vec<OsdId>> = (0..count).map(kept).collect();
    let mut load = Load {
        weights,
        held: weights.keys().map(|&osd| (osd, 0)).collect(),
    };
    sets.iter().flatten().for_each(|&osd| load.add(osd));
    for set in &mut sets {
        while set.len() < replicas.min(weights.len()) {
            let Some(osd) = load.emptiest(set) else { break };
            load.add(osd);
            set.push(osd);
        }
    }
    while move_one(&mut sets, &mut load) {}
    let primary = |number: usize| old.pgs.get(number).and_then(|pg| pg.primary);
    let pgs = sets
        .into_iter()
        .enumerate()
        .map(|(n, osds)| PgPlan {
            primary: primary(n),
            osds,
        })
        .collect();
    Plan { pgs }
}

/// How many PGs each OSD holds, against its weight.
struct Load<'a> {
    weights: &'a BTreeMap<OsdId, u64>,
    held: BTreeMap<OsdId, u64>,
}

impl Load<'_> {
    fn add(&mut self, osd: OsdId) {
        *self.held.entry(osd).or_default() += 1;
    }

    fn remove(&mut self, osd: OsdId) {
        *self.held.entry(osd).or_default() -= 1;
    }

    /// PGs per weight if it held `more` (or fewer), scaled.
    fn fill(&self, osd: OsdId, more: i128) -> i128 {
        let weight = i128::from(self.weights.get(&osd).copied().unwrap_or(0)).max(1);
        ((i128::from(self.held.get(&osd).copied().unwrap_or(0)) + more) << 60) / weight
    }

    /// The emptiest OSD that is not in `set`.
    fn emptiest(&self, set: &[OsdId]) -> Option<OsdId> {
        let others = self.held.keys().copied().filter(|osd| !set.contains(osd));
        others.min_by_key(|&osd| self.fill(osd, 1))
    }
}

/// Moves one member from the fullest OSD to the emptiest, if that makes the fullest of the two less full.
fn move_one(sets: &mut [Vec<OsdId>], load: &mut Load<'_>) -> bool {
    let Some(to) = load.emptiest(&[]) else { return false };
    let mut fullest: Vec<OsdId> = load
        .held
        .keys()
        .copied()
        .filter(|&osd| load.fill(osd, 0) > load.fill(to, 1))
        .collect();
    fullest.sort_by_key(|&osd| -load.fill(osd, 0));
    for from in fullest {
        if let Some(set) = sets.iter_mut().find(|set| set.contains(&from) && !set.contains(&to)) {
            set.iter_mut().filter(|osd| **osd == from).for_each(|osd| *osd = to);
            load.remove(from);
            load.add(to);
            return true;
        }
    }
    false
}

/// Keeps every primary that is up; else, the member that is up and leads the fewest PGs.
pub(crate) fn choose_primaries(plan: &mut Plan, is_up: impl Fn(OsdId) -> bool) {
    let mut leads: BTreeMap<OsdId, usize> = BTreeMap::new();
    for pg in &mut plan.pgs {
        pg.primary = pg.primary.filter(|osd| pg.osds.contains(osd) && is_up(*osd));
        if let Some(osd) = pg.primary {
            *leads.entry(osd).or_default() += 1;
        }
    }
    for pg in plan.pgs.iter_mut().filter(|pg| pg.primary.is_none()) {
        let up = pg.osds.iter().copied().filter(|&osd| is_up(osd));
        pg.primary = up.min_by_key(|osd| leads.get(osd).copied().unwrap_or(0));
        if let Some(osd) = pg.primary {
            *leads.entry(osd).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(sizes: &[u64]) -> BTreeMap<OsdId, u64> {
        (1..).map(OsdId).zip(sizes.iter().copied()).collect()
    }

    fn held(plan: &Plan) -> BTreeMap<OsdId, u64> {
        let mut held = BTreeMap::new();
        for osd in plan.pgs.iter().flat_map(|pg| &pg.osds) {
            *held.entry(*osd).or_default() += 1;
        }
        held
    }

    #[test]
    fn even_and_distinct() {
        let table: &[(&[u64], u32, usize)] = &[(&[1, 1, 1], 32, 2), (&[1; 7], 64, 3), (&[4, 2, 2], 32, 2)];
        for (sizes, pgs, replicas) in table {
            let weights = weights(sizes);
            let plan = place(&Plan::default(), &weights, *pgs, *replicas);
            for pg in &plan.pgs {
                let mut osds = pg.osds.clone();
                osds.sort_unstable();
                osds.dedup();
                assert_eq!(osds.len(), *replicas, "distinct members");
            }
            for (osd, count) in held(&plan) {
                let total: u64 = weights.values().sum();
                let fair = u64::from(*pgs) * (*replicas as u64) * weights[&osd] / total;
                assert!(
                    fair.abs_diff(count) <= 1,
                    "{sizes:?}: {osd} holds {count}, fair is {fair}"
                );
            }
        }
    }

    #[test]
    fn nothing_moves_without_need_and_little_with_it() {
        let three = weights(&[1, 1, 1]);
        let plan = place(&Plan::default(), &three, 30, 2);
        assert_eq!(place(&plan, &three, 30, 2), plan);

        let four = place(&plan, &weights(&[1, 1, 1, 1]), 30, 2);
        let moved = plan
            .pgs
            .iter()
            .zip(&four.pgs)
            .flat_map(|(a, b)| b.osds.iter().filter(|o| !a.osds.contains(o)));
        let moved = moved.count();
        assert_eq!(moved, 15, "a fourth of 60 members moves");
    }

    #[test]
    fn whoever_leaves_is_replaced_everywhere_and_nobody_else_moves() {
        let five = weights(&[1; 5]);
        let plan = place(&Plan::default(), &five, 40, 3);
        let mut four = five.clone();
        four.remove(&OsdId(3));
        let without = place(&plan, &four, 40, 3);
        let newcomers = |a: &PgPlan, b: &PgPlan| b.osds.iter().filter(|osd| !a.osds.contains(osd)).count();
        let moved: usize = plan.pgs.iter().zip(&without.pgs).map(|(a, b)| newcomers(a, b)).sum();
        assert_eq!(moved, 24, "what it held");
        assert_eq!(held(&without).into_values().collect::<Vec<u64>>(), [30; 4]);
        // An old plan of any shape is no reason for a set that is not one.
        let mut strange = plan.clone();
        strange.pgs[0].osds = vec![OsdId(1), OsdId(1), OsdId(9), OsdId(2), OsdId(4), OsdId(5)];
        let mut osds = place(&strange, &five, 40, 3).pgs[0].osds.clone();
        osds.sort_unstable();
        osds.dedup();
        assert_eq!(osds.len(), 3);
    }

    #[test]
    fn primaries_are_spread_and_stay() {
        let mut plan = place(&Plan::default(), &weights(&[1, 1, 1]), 30, 2);
        choose_primaries(&mut plan, |_| true);
        let leads = |plan: &Plan, n| plan.pgs.iter().filter(|pg| pg.primary == Some(OsdId(n))).count();
        assert!((1..=3).all(|n| (8..=12).contains(&leads(&plan, n))));

        let before = plan.clone();
        choose_primaries(&mut plan, |_| true);
        assert_eq!(plan, before);
        choose_primaries(&mut plan, |osd| osd != OsdId(2));
        assert_eq!(leads(&plan, 2), 0);
        choose_primaries(&mut plan, |_| false);
        assert!(plan.pgs.iter().all(|pg| pg.primary.is_none()));
    }
}
