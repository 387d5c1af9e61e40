//! OSDs: changing how they are used, forgetting one.

use std::collections::BTreeSet;

use trivet_api::{AdminError, PatchOsd, Thousandths, clean_tags, counted};
use trivet_core::keys;
use trivet_core::kv::{Change, Compare};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{OsdId, PgId};

use super::admin_keys::same;
use super::edits::Planned;
use super::{conflict, listed, not_found};
use crate::gateway::Gateway;
use crate::overview::pg_name;

impl Gateway {
    pub(super) fn plan_osd_modify(&self, osd: u32, patch: &PatchOsd) -> Result<Planned, AdminError> {
        let id = OsdId(osd);
        let old = self.client.map().members.get(&id).ok_or_else(|| no_osd(osd))?;
        let mut new = old.value.clone();
        new.reweight = patch.reweight.map_or(new.reweight, Thousandths::get);
        new.noout = patch.noout.unwrap_or(new.noout);
        if let Some(out) = patch.out {
            new.out = out;
            new.dropped &= out;
        }
        let mut tags = patch.tags.clone().unwrap_or(new.tags);
        tags.retain(|tag| !patch.remove_tags.contains(tag));
        tags.extend(patch.add_tags.iter().cloned());
        new.tags = clean_tags(&tags)?;
        let key = keys::osd_config(id);
        let mut planned = Planned::whole(vec![Compare::ModRevision(key.clone(), old.revision)], Vec::new());
        if new != old.value {
            planned.txn.changes.push(Change::put(key, encode(&new)));
        }
        Ok(planned)
    }

    /// Everything that could name it again is compared: while no plan has it and it is down, no PG comes to it.
    pub(super) fn plan_osd_remove(&self, osd: u32) -> Result<Planned, AdminError> {
        let map = self.client.map();
        let id = OsdId(osd);
        let member = map.members.get(&id).ok_or_else(|| no_osd(osd))?;
        if map.is_up(id) {
            return Err(conflict(format!("OSD {osd} is up; stop its process first")));
        }
        let planned = planned_on(map, id);
        if !planned.is_empty() {
            return Err(conflict(format!(
                "{} planned on OSD {osd}: {}; take it out with 'trivet osd out {osd}', and wait until it has none",
                counted(planned.len() as u64, "PG is", "PGs are"),
                listed(planned.into_iter().map(pg_name))
            )));
        }
        let needed = needed_by(map, id);
        if !needed.is_empty() {
            return Err(conflict(format!(
                "{} may need what OSD {osd} has, until clean: {}; 'trivet pg explain {}' says more",
                counted(needed.len() as u64, "PG", "PGs"),
                listed(needed.iter().copied().map(pg_name)),
                needed.first().copied().map_or_else(String::new, pg_name)
            )));
        }
        let config = keys::osd_config(id);
        let mut compare = vec![
            Compare::ModRevision(config.clone(), member.revision),
            Compare::Absent(keys::osd_state(id)),
        ];
        let plans = map.pools.keys().map(|&pool| {
            let plan = map.plans.get(&pool);
            same(&keys::plan(pool), plan.map(|plan| plan.revision))
        });
        compare.extend(plans);
        let changes = vec![Change::Delete(config), Change::Delete(keys::osd_stats(id))];
        Ok(Planned::whole(compare, changes))
    }
}

/// Why an OSD cannot be stopped or started from here: there is none, or another process runs it.
pub(crate) fn runs_elsewhere(map: &ClusterMap, osd: u32) -> AdminError {
    let Some(config) = map.members.get(&OsdId(osd)) else {
        return no_osd(osd);
    };
    let other = "this gateway's process does not run";
    conflict(match &config.value.host {
        Some(host) => format!("{other} OSD {osd}: it is a process of its own on host {host}; stop and start it there"),
        None => format!("{other} OSD {osd}, but another one does; stop and start it there"),
    })
}

pub(crate) fn no_osd(osd: u32) -> AdminError {
    not_found(format!("there is no OSD {osd}; 'trivet osd ls' lists what there is"))
}

/// The PGs whose up set has the OSD.
fn planned_on(map: &ClusterMap, osd: OsdId) -> BTreeSet<PgId> {
    let on = |pg: &PgId| map.plan_of(*pg).is_some_and(|plan| plan.osds.contains(&osd));
    map.pgs().filter(on).collect()
}

/// The PGs that may have acknowledged writes with the OSD since they were clean.
fn needed_by(map: &ClusterMap, osd: OsdId) -> BTreeSet<PgId> {
    let pools = |pg: &PgId| map.pools.contains_key(&pg.pool);
    let histories = map.histories.iter().filter(|(pg, _)| pools(pg));
    let needs = histories.filter(|(_, history)| {
        let mut intervals = history.value.intervals.iter();
        intervals.any(|interval| interval.active && interval.acting.contains(&osd))
    });
    needs.map(|(&pg, _)| pg).collect()
}
