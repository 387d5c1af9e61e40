//! PGs as administrators see them: how each one is, and why.

use std::borrow::Cow;

use trivet_api::{AdminError, PgExplained, PgFilter, PgInfo, PgInterval, PgList, counted};
use trivet_core::keys::{Claim, History, PgPlan, Pool};
use trivet_core::map::ClusterMap;
use trivet_core::{OsdId, PgId};

use super::Overview;
use crate::cluster::{domains, find_pool, listed, not_found};

/// What [`pg_state`] says.
const STATES: [&str; 5] = ["clean", "recovering", "degraded", "peering", "inactive"];

/// Pool, point, number.
pub(crate) fn pg_name(pg: PgId) -> String {
    format!("{}.{}", pg.pool, pg.number)
}

/// One word for a PG: `clean`, `recovering` (objects have too few copies), `degraded` (a member is down), `peering`, or
/// `inactive` (nobody acts for it).
pub(super) fn pg_state(map: &ClusterMap, pg: PgId) -> &'static str {
    let Some(claim) = acting_claim(map, pg) else {
        return "inactive";
    };
    let replicas = map.pools.get(&pg.pool).map_or(0, |pool| pool.value.replicas);
    match claim {
        claim if !claim.active => "peering",
        claim if claim.missing > 0 => "recovering",
        claim if claim.acting.len() < replicas => "degraded",
        _ => "clean",
    }
}

/// The claim, if whoever has it is up. In a store that is older than the data it is one of an earlier time, even if the
/// lease is alive.
fn acting_claim(map: &ClusterMap, pg: PgId) -> Option<&Claim> {
    let claim = &map.claims.get(&pg)?.value;
    (map.halted.is_none() && map.is_up(claim.primary)).then_some(claim)
}

fn numbers(osds: &[OsdId]) -> Vec<u32> {
    osds.iter().map(|osd| osd.0).collect()
}

impl Overview {
    /// The PGs that a filter lets through.
    pub(super) fn pg_list(&self, filter: &PgFilter) -> Result<PgList, AdminError> {
        let map = &self.map;
        let pool = filter.pool.as_deref().map(|pool| find_pool(map, pool)).transpose()?;
        if let Some(state) = filter.state.as_deref()
            && !STATES.contains(&state)
        {
            return Err(AdminError::invalid(format!(
                "no state {state}; there are: {}",
                STATES.join(", ")
            )));
        }
        let of_pool = |pg: &PgId| pool.as_ref().is_none_or(|(id, _)| *id == pg.pool);
        let pgs = map.pgs().filter(of_pool).map(|pg| self.pg_info(pg));
        let with_osd = |pg: &PgInfo| {
            filter
                .osd
                .is_none_or(|osd| pg.up.contains(&osd) || pg.acting.contains(&osd))
        };
        let in_state = |pg: &PgInfo| filter.state.as_ref().is_none_or(|state| *state == pg.state);
        Ok(PgList {
            pgs: pgs.filter(|pg| with_osd(pg) && in_state(pg)).collect(),
        })
    }

    fn pg_info(&self, pg: PgId) -> PgInfo {
        let map = &self.map;
        let claim = acting_claim(map, pg);
        let history = map.histories.get(&pg).map(|history| history.value.epoch);
        let epoch = claim.map(|claim| claim.epoch).max(history);
        PgInfo {
            id: pg_name(pg),
            pool: self.pool_name(pg.pool),
            state: pg_state(map, pg).to_owned(),
            up: map.plan_of(pg).map_or_else(Vec::new, |plan| numbers(&plan.osds)),
            acting: claim.map_or_else(Vec::new, |claim| numbers(&claim.acting)),
            primary: claim.map(|claim| claim.primary.0),
            epoch: epoch.map_or(0, |epoch| epoch.0),
            missing: claim.map_or(0, |claim| claim.missing),
        }
    }

    /// A PG, and why it is as it is.
    pub(super) fn pg_explained(&self, text: &str) -> Result<PgExplained, AdminError> {
        let map = &self.map;
        let bad = || AdminError::invalid(format!("bad PG {text:?}: write it as POOL.NUMBER, like 1.0"));
        let (pool, number) = text.rsplit_once('.').ok_or_else(bad)?;
        let number: u32 = number.parse().map_err(|_| bad())?;
        let (id, config) = find_pool(map, pool)?;
        if number >= config.value.pg_count {
            let last = config.value.pg_count.saturating_sub(1);
            return Err(not_found(format!("pool {pool} has the PGs {id}.0 to {id}.{last}")));
        }
        let pg = PgId {
            pool: id,
            generation: config.value.generation,
            number,
        };
        let history = map.history(pg).map_or_else(History::default, Cow::into_owned);
        let intervals = history.intervals.iter().map(|interval| PgInterval {
            epoch: interval.epoch.0,
            acting: numbers(&interval.acting),
            active: interval.active,
        });
        Ok(PgExplained {
            pg: self.pg_info(pg),
            reasons: reasons(map, pg, &config.value),
            waits_for: lost_intervals(map, pg).iter().map(|lost| numbers(lost)).collect(),
            intervals: intervals.collect(),
        })
    }
}

/// Why a PG does not serve, in a few words that other PGs may share.
pub(super) fn why_inactive(map: &ClusterMap, pg: PgId) -> String {
    let pool = map.pools.get(&pg.pool).map(|pool| &pool.value);
    let first = pool.and_then(|pool| reasons(map, pg, pool).into_iter().next());
    first.unwrap_or_else(|| "the pool is gone".to_owned())
}

/// Acting sets that may have acknowledged writes and of which nobody is up.
fn lost_intervals(map: &ClusterMap, pg: PgId) -> Vec<Vec<OsdId>> {
    let history = map.history(pg).map_or_else(History::default, Cow::into_owned);
    let active = history.intervals.into_iter().filter(|interval| interval.active);
    let mut lost: Vec<Vec<OsdId>> = Vec::new();
    for interval in active.filter(|interval| !interval.acting.iter().any(|osd| map.is_up(*osd))) {
        if !lost.contains(&interval.acting) {
            lost.push(interval.acting);
        }
    }
    lost
}

/// In words, what keeps it from serving first, then what keeps it from being clean.
fn reasons(map: &ClusterMap, pg: PgId, pool: &Pool) -> Vec<String> {
    let mut reasons = Vec::new();
    if map.halted.is_some() {
        reasons.push("nobody claims it while the metadata store is older than the data".to_owned());
    }
    let Some(plan) = map.plan_of(pg).filter(|plan| !plan.osds.is_empty()) else {
        reasons.push(unplanned(map, pg, pool));
        return reasons;
    };
    missing_osds(map, pool, plan, &mut reasons);
    for lost in lost_intervals(map, pg) {
        reasons.push(match lost.as_slice() {
            [only] => format!("OSD {only} alone may have acknowledged the last writes: it must come back"),
            some => format!(
                "OSDs {} may have acknowledged the last writes, and all of them are down: one of them must come back",
                listed(some)
            ),
        });
    }
    match acting_claim(map, pg) {
        None if reasons.is_empty() => reasons.push(unclaimed(map, plan)),
        None => {}
        Some(claim) => of_claim(map, pool, plan, claim, &mut reasons),
    }
    if plan.osds.len() < pool.replicas {
        let placed = of_copies(plan.osds.len(), pool, ["has", "have"]);
        reasons.push(format!("only {placed} a place: {}", room(map, pg, pool)));
    }
    let down: Vec<OsdId> = plan.osds.iter().copied().filter(|osd| !map.is_up(*osd)).collect();
    if !down.is_empty() {
        reasons.push(format!("of its up set, OSDs are down: {}", listed(down)));
    }
    if reasons.is_empty() {
        reasons.push("every object is on all members".to_owned());
    }
    reasons
}

fn unplanned(map: &ClusterMap, pg: PgId, pool: &Pool) -> String {
    if map.leader.is_none() {
        return "nobody has planned where it lives, and no monitor leads: start one with 'trivet mon'".to_owned();
    }
    format!("the monitor has no place for it yet: {}", room(map, pg, pool))
}

/// What a pool needs, and what there is of it.
fn room(map: &ClusterMap, pg: PgId, pool: &Pool) -> String {
    format!(
        "pool {} wants {} in different places of level {}, and {} can be used",
        pool.name,
        counted(pool.replicas as u64, "copy", "copies"),
        pool.failure_domain,
        domains(map, pg.pool)
    )
}

/// Too few of the up set are there.
fn missing_osds(map: &ClusterMap, pool: &Pool, plan: &PgPlan, reasons: &mut Vec<String>) {
    let (up, down): (Vec<OsdId>, Vec<OsdId>) = plan.osds.iter().partition(|osd| map.is_up(**osd));
    if up.len() >= pool.min_size {
        return;
    }
    let short = format!(
        "{} up and {} needed",
        counted(up.len() as u64, "of its OSDs is", "of its OSDs are"),
        counted(pool.min_size as u64, "is", "are")
    );
    reasons.push(match down.len() {
        0 => short,
        there => format!(
            "{short}: start {} of {}",
            (pool.min_size - up.len()).min(there),
            listed(down)
        ),
    });
}

fn unclaimed(map: &ClusterMap, plan: &PgPlan) -> String {
    match plan.primary {
        Some(osd) if map.is_up(osd) => format!("OSD {osd} is to act for it and has not begun yet"),
        Some(osd) if map.leader.is_none() => {
            format!("OSD {osd}, which was to act for it, is down, and no monitor leads: start one with 'trivet mon'")
        }
        Some(osd) => format!("OSD {osd}, which was to act for it, is down; the monitor names another one in a moment"),
        None => "no OSD is named to act for it; the monitor does so in a moment, if one leads".to_owned(),
    }
}

fn of_claim(map: &ClusterMap, pool: &Pool, plan: &PgPlan, claim: &Claim, reasons: &mut Vec<String>) {
    if !claim.active {
        reasons.push(format!(
            "OSD {} is finding out what there is (epoch {})",
            claim.primary, claim.epoch
        ));
        return;
    }
    if claim.missing > 0 {
        let short = counted(claim.missing, "object has", "objects have");
        reasons.push(format!("{short} too few copies; OSD {} has them made", claim.primary));
    }
    let idle: Vec<OsdId> = plan
        .osds
        .iter()
        .copied()
        .filter(|osd| map.is_up(*osd) && !claim.acting.contains(osd))
        .collect();
    if !idle.is_empty() {
        reasons.push(format!(
            "up and not taking part: OSDs {}; they join in a moment, or have no room for what they lack",
            listed(idle)
        ));
    }
    if claim.acting.len() < pool.replicas {
        let kept = of_copies(claim.acting.len(), pool, ["is", "are"]);
        reasons.push(format!("{kept} kept now"));
    }
}

/// `1 of 3 copies is`, `2 of 3 copies are`: the verb as it is for one, and for many.
fn of_copies(some: usize, pool: &Pool, [one, many]: [&str; 2]) -> String {
    let all = counted(pool.replicas as u64, "copy", "copies");
    format!("{some} of {all} {}", if some == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};
    use trivet_core::PoolId;
    use trivet_core::kv::{KeyValue, Notice};

    use super::*;

    /// One PG of three copies on OSDs 1, 2, 3, of which some are up; the rest as given.
    fn map(up: &[u32], more: &[(&str, Value)]) -> ClusterMap {
        let pool = json!({"name": "p", "replicas": 3, "min_size": 2, "pg_count": 1, "failure_domain": "host"});
        let mut rows = vec![
            ("pool/1".to_owned(), pool),
            ("plan/1".to_owned(), json!({"pgs": [{"osds": [1, 2, 3], "primary": 1}]})),
            ("mon/leader".to_owned(), json!({"id": 1})),
        ];
        rows.extend(
            up.iter()
                .map(|osd| (format!("osd/{osd}/state"), json!({"boot": 1, "size": 1}))),
        );
        for (key, value) in more {
            rows.retain(|(known, _)| known != key);
            rows.push(((*key).to_owned(), value.clone()));
        }
        let keys = rows.into_iter().filter(|(_, value)| !value.is_null());
        let keys = keys.map(|(key, value)| KeyValue {
            key,
            value: Bytes::from(value.to_string()),
            mod_revision: 1,
        });
        let mut map = ClusterMap::default();
        map.apply(&Notice::Snapshot {
            revision: 1,
            keys: keys.collect(),
        });
        assert_eq!(map.undecodable, 0);
        map
    }

    fn claim(acting: &[u32], active: bool, missing: u64) -> (&'static str, Value) {
        let claim = json!({"primary": 1, "epoch": 5, "acting": acting, "active": active, "missing": missing});
        ("pg/1/0/claim", claim)
    }

    fn history(acting: &[u32]) -> (&'static str, Value) {
        let old = json!({"epoch": 3, "acting": acting, "active": true});
        let tried = json!({"epoch": 4, "acting": [9], "active": false});
        ("pg/1/0/history", json!({"epoch": 4, "intervals": [old, tried]}))
    }

    /// Which OSDs are up, what else there is, the state, a part of the first reason.
    type Case<'a> = (&'a [u32], Vec<(&'static str, Value)>, &'a str, &'a str);

    fn check(cases: Vec<Case<'_>>) {
        let pg = PgId::first(PoolId(1), 0);
        for (up, more, state, why) in cases {
            let map = map(up, &more);
            let said = why_inactive(&map, pg);
            assert!(said.contains(why), "{why}: {said}");
            assert_eq!(pg_state(&map, pg), state, "{said}");
        }
    }

    #[test]
    fn a_pg_that_serves_says_how_it_is() {
        let short = ("plan/1", json!({"pgs": [{"osds": [1, 2], "primary": 1}]}));
        let whole: &[u32] = &[1, 2, 3];
        check(vec![
            (whole, vec![claim(whole, true, 0)], "clean", "every object is on all"),
            (
                whole,
                vec![claim(whole, true, 7)],
                "recovering",
                "7 objects have too few",
            ),
            (
                &[1, 2],
                vec![claim(&[1, 2], true, 0)],
                "degraded",
                "2 of 3 copies are kept now",
            ),
            (
                whole,
                vec![claim(&[1, 2], true, 0)],
                "degraded",
                "not taking part: OSDs 3",
            ),
            (
                &[1, 2],
                vec![claim(&[1, 2], true, 0), short],
                "degraded",
                "2 of 3 copies are kept now",
            ),
        ]);
    }

    #[test]
    fn a_pg_that_does_not_serve_says_what_keeps_it() {
        let unplanned = ("plan/1", Value::Null);
        let leaderless = ("mon/leader", Value::Null);
        let whole: &[u32] = &[1, 2, 3];
        let nowhere = "wants 3 copies in different places of level host, and 0";
        let dead = claim(&[1, 2], true, 0);
        check(vec![
            (
                whole,
                vec![claim(whole, false, 0)],
                "peering",
                "finding out what there is (epoch 5)",
            ),
            (
                &[1],
                vec![],
                "inactive",
                "1 of its OSDs is up and 2 are needed: start 1 of 2, 3",
            ),
            (
                &[2, 3],
                vec![dead.clone()],
                "inactive",
                "OSD 1, which was to act for it, is down; the",
            ),
            (&[2, 3], vec![dead, leaderless.clone()], "inactive", "no monitor leads"),
            (
                &[1, 2],
                vec![history(&[3, 4])],
                "inactive",
                "OSDs 3, 4 may have acknowledged the last writes",
            ),
            (&[1, 2], vec![history(&[3])], "inactive", "OSD 3 alone may have"),
            (whole, vec![history(&[3, 4])], "inactive", "OSD 1 is to act for it"),
            (whole, vec![unplanned.clone()], "inactive", nowhere),
            (
                whole,
                vec![unplanned, leaderless],
                "inactive",
                "no monitor leads: start one",
            ),
        ]);
        let pg = PgId::first(PoolId(1), 0);
        assert_eq!(
            lost_intervals(&map(&[1], &[history(&[3, 4])]), pg),
            [[OsdId(3), OsdId(4)]]
        );
    }
}
