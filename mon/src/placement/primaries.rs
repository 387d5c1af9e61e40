//! Which member of each PG leads it.
//!
//! A primary that is up stays. A new one is a member that is up, rather one that was a member before than one that has
//! everything to fetch, rather one with the pool's tags, rather one that leads few of the PGs that it holds. Where that
//! became uneven, or a tagged member could lead, PGs are handed over a few at a time, among members that have all data.

use std::collections::BTreeMap;

use trivet_core::OsdId;
use trivet_core::keys::{PgPlan, Plan};

/// PGs that are handed over in one plan: each makes its clients wait for a moment.
const HAND_OVERS: usize = 16;

/// What is known of the members.
pub(crate) struct Leading<'a> {
    pub is_up: &'a dyn Fn(OsdId) -> bool,
    /// Has all tags of primaries.
    pub is_tagged: &'a dyn Fn(OsdId) -> bool,
}

/// By OSD: PGs that it leads, PGs that it holds.
struct Load(BTreeMap<OsdId, (u64, u64)>);

impl Load {
    fn new(plan: &Plan) -> Load {
        let mut load = Load(BTreeMap::new());
        for pg in &plan.pgs {
            pg.osds.iter().for_each(|&osd| load.of(osd).1 += 1);
            pg.primary.iter().for_each(|&osd| load.of(osd).0 += 1);
        }
        load
    }

    fn of(&mut self, osd: OsdId) -> &mut (u64, u64) {
        self.0.entry(osd).or_default()
    }

    /// The share of what it holds that it would lead with one more, scaled.
    fn share(&self, osd: OsdId) -> u64 {
        let (leads, holds) = self.0.get(&osd).copied().unwrap_or_default();
        ((leads + 1) << 32) / holds.max(1)
    }

    /// Whether `from` would still lead a quarter more than `to` if one went there: else it is not worth it.
    fn is_uneven(&self, from: OsdId, to: OsdId) -> bool {
        let of = |osd| self.0.get(&osd).copied().unwrap_or_default();
        let ((from_leads, from_holds), (to_leads, to_holds)) = (of(from), of(to));
        4 * from_leads * to_holds > 5 * (to_leads + 1) * from_holds
    }
}

/// Keeps every primary that is a member and up, and chooses others; `old` says who was a member before.
pub(crate) fn choose(plan: &mut Plan, old: &Plan, leading: &Leading<'_>) {
    for pg in &mut plan.pgs {
        pg.primary = pg.primary.filter(|osd| pg.osds.contains(osd) && (leading.is_up)(*osd));
    }
    let mut load = Load::new(plan);
    for (number, pg) in plan.pgs.iter_mut().enumerate().filter(|(_, pg)| pg.primary.is_none()) {
        let was_member = |osd: OsdId| old.pgs.get(number).is_some_and(|old| old.osds.contains(&osd));
        let up = pg.osds.iter().copied().filter(|&osd| (leading.is_up)(osd));
        pg.primary = up.min_by_key(|&osd| (!was_member(osd), !(leading.is_tagged)(osd), load.share(osd)));
        pg.primary.iter().for_each(|&osd| load.of(osd).0 += 1);
    }
}

/// Hands over a few PGs to better primaries, among members for which `can` says that they could lead them at once; none
/// while any member is down. Whether any were.
pub(crate) fn hand_over(plan: &mut Plan, leading: &Leading<'_>, can: impl Fn(usize, OsdId) -> bool) -> bool {
    if plan
        .pgs
        .iter()
        .flat_map(|pg| &pg.osds)
        .any(|&osd| !(leading.is_up)(osd))
    {
        return false;
    }
    let mut load = Load::new(plan);
    let mut left = HAND_OVERS;
    for (number, pg) in plan.pgs.iter_mut().enumerate() {
        let Some(from) = pg.primary.filter(|_| left > 0) else {
            continue;
        };
        if let Some(to) = better(pg, from, leading, &load, &|osd| can(number, osd)) {
            pg.primary = Some(to);
            load.of(from).0 -= 1;
            load.of(to).0 += 1;
            left -= 1;
        }
    }
    left < HAND_OVERS
}

fn better(pg: &PgPlan, from: OsdId, leading: &Leading<'_>, load: &Load, can: &dyn Fn(OsdId) -> bool) -> Option<OsdId> {
    let tagged = (leading.is_tagged)(from);
    let others = pg
        .osds
        .iter()
        .copied()
        .filter(|&osd| osd != from && (leading.is_up)(osd) && can(osd));
    let better = others.filter(|&osd| match (tagged, (leading.is_tagged)(osd)) {
        (false, true) => true,
        (true, false) => false,
        _ => load.is_uneven(from, osd),
    });
    better.min_by_key(|&osd| (!(leading.is_tagged)(osd), load.share(osd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PG n has the members n and n + 1 of `osds`, and n + 2, and so on.
    fn plan(pgs: u32, osds: u32, replicas: u32) -> Plan {
        let member = |pg: u32, at: u32| OsdId((pg + at) % osds + 1);
        let pg = |pg: u32| PgPlan {
            osds: (0..replicas).map(|at| member(pg, at)).collect(),
            primary: None,
        };
        Plan {
            pgs: (0..pgs).map(pg).collect(),
            ..Plan::default()
        }
    }

    fn leading<'a>(is_up: &'a dyn Fn(OsdId) -> bool, is_tagged: &'a dyn Fn(OsdId) -> bool) -> Leading<'a> {
        Leading { is_up, is_tagged }
    }

    fn leads(plan: &Plan, osds: u32) -> Vec<usize> {
        let of = |osd: u32| plan.pgs.iter().filter(|pg| pg.primary == Some(OsdId(osd))).count();
        (1..=osds).map(of).collect()
    }

    fn hand_all_over(plan: &mut Plan, leading: &Leading<'_>) -> usize {
        (0..100)
            .find(|_| !hand_over(plan, leading, |_, _| true))
            .expect("it ends")
    }

    #[test]
    fn spread_and_staying() {
        let mut plan = plan(30, 3, 2);
        let empty = Plan::default();
        choose(&mut plan, &empty, &leading(&|_| true, &|_| false));
        assert_eq!(leads(&plan, 3), [10, 10, 10]);

        let before = plan.clone();
        choose(&mut plan, &before, &leading(&|_| true, &|_| false));
        assert_eq!(plan, before);
        choose(&mut plan, &before, &leading(&|osd| osd != OsdId(2), &|_| false));
        assert_eq!(leads(&plan, 3), [10, 0, 20], "the others stay");

        // Back again, it gets its share, a few at a time.
        assert!(!hand_over(
            &mut plan,
            &leading(&|osd| osd != OsdId(2), &|_| false),
            |_, _| true
        ));
        assert!(!hand_over(&mut plan, &leading(&|_| true, &|_| false), |_, _| false));
        assert_eq!(hand_all_over(&mut plan, &leading(&|_| true, &|_| false)), 1, "at once");
        let found = leads(&plan, 3);
        assert!(found.iter().all(|n| (8..=12).contains(n)), "{found:?}");

        choose(&mut plan, &before, &leading(&|_| false, &|_| false));
        assert!(plan.pgs.iter().all(|pg| pg.primary.is_none()));
        assert!(!hand_over(&mut plan, &leading(&|_| true, &|_| true), |_, _| true));
    }

    #[test]
    fn newcomers_lead_last() {
        let old = plan(4, 2, 2);
        let mut new = old.clone();
        new.pgs.iter_mut().for_each(|pg| pg.osds = vec![OsdId(7), OsdId(2)]);
        choose(&mut new, &old, &leading(&|_| true, &|osd| osd == OsdId(7)));
        assert_eq!(leads(&new, 2), [0, 4]);
        choose(&mut new, &old, &leading(&|osd| osd == OsdId(7), &|_| false));
        assert!(new.pgs.iter().all(|pg| pg.primary == Some(OsdId(7))));
    }

    #[test]
    fn the_tagged_lead_where_they_are() {
        let mut plan = plan(40, 4, 2);
        let tagged = |osd: OsdId| osd.0 < 3;
        choose(&mut plan, &Plan::default(), &leading(&|_| true, &|_| false));
        assert_eq!(
            hand_all_over(&mut plan, &leading(&|_| true, &tagged)),
            2,
            "a few at a time"
        );
        // Every fourth PG has no tagged member; two of three others have one, and one both.
        let found = leads(&plan, 4);
        assert_eq!((found[0] + found[1], found[2] + found[3]), (30, 10), "{found:?}");
        assert!(found[0].abs_diff(found[1]) <= 4, "{found:?}");

        let mut fresh = plan.clone();
        fresh.pgs.iter_mut().for_each(|pg| pg.primary = None);
        choose(&mut fresh, &Plan::default(), &leading(&|_| true, &tagged));
        let found = leads(&fresh, 4);
        assert_eq!((found[0] + found[1], found[2] + found[3]), (30, 10), "{found:?}");
    }
}
