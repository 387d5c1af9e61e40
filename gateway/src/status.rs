//! How the cluster is, as far as this gateway knows.

use std::collections::BTreeMap;

use trivet_core::map::ClusterMap;
use trivet_core::{OsdId, PgId};

use crate::admin::metrics::Protocol;
use crate::admin::{
    Capacity, ClientCounts, Health, OsdCounts, OsdInfo, OsdList, OsdState, PgCounts, Recovery, Scrub, Status,
};
use crate::gateway::Gateway;
use crate::session::Space;

/// What an OSD reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsdReport {
    /// Where its disk is.
    pub path: String,
    /// Bytes that objects can take.
    pub capacity: u64,
    /// Bytes that they do take.
    pub used: u64,
    /// How many there are.
    pub objects: u64,
}

impl Gateway {
    /// An OSD reports; the space that clients see follows.
    pub fn osd_report(&mut self, osd: OsdId, report: OsdReport) {
        self.osds.insert(osd, report);
        let replicas = self
            .client
            .map()
            .pools
            .values()
            .next()
            .map_or(1, |pool| pool.value.replicas.max(1)) as u64;
        let total: u64 = self.osds.values().map(|osd| osd.capacity).sum();
        let used: u64 = self.osds.values().map(|osd| osd.used).sum();
        self.background.space = Space {
            total: total / replicas,
            free: total.saturating_sub(used) / replicas,
        };
    }

    /// For `trivet status`.
    pub(crate) fn status(&self) -> Status {
        let map = self.client.map();
        let states: BTreeMap<PgId, &'static str> = map.pgs().map(|pg| (pg, pg_state(map, pg))).collect();
        let count = |wanted: &[&str]| states.values().filter(|state| wanted.contains(state)).count() as u64;
        let mut by_state = BTreeMap::new();
        for state in states.values() {
            *by_state.entry((*state).to_string()).or_default() += 1;
        }
        let pgs = PgCounts {
            total: states.len() as u64,
            active: count(&["clean", "degraded", "recovering"]),
            clean: count(&["clean"]),
            degraded: count(&["degraded", "recovering"]),
            by_state,
        };
        let osds = OsdCounts {
            total: map.members.len() as u64,
            up: map.osds.len() as u64,
        };
        let scrub = self.scrub();
        let (health, reasons) = health(&osds, &pgs, &scrub);
        let space = self.space();
        Status {
            health,
            reasons,
            version: env!("CARGO_PKG_VERSION").to_string(),
            cluster: map
                .cluster
                .as_ref()
                .map_or_else(String::new, |cluster| cluster.id.clone()),
            uptime_s: self.clock.now.since(self.started).as_secs(),
            osds,
            pgs,
            capacity: Capacity {
                total: space.total,
                used: space.total.saturating_sub(space.free),
                free: space.free,
            },
            images: self.namespace.files().count() as u64,
            clients: ClientCounts {
                nbd: self.clients(Protocol::Nbd),
                iscsi: self.clients(Protocol::Iscsi),
                nfs: self.clients(Protocol::Nfs),
            },
            recovery: Recovery {
                objects_missing: map.claims.values().map(|claim| claim.value.missing).sum(),
            },
            scrub,
        }
    }

    /// For `trivet osd ls`.
    pub(crate) fn osd_list(&self) -> OsdList {
        let map = self.client.map();
        let members = |osd: OsdId| {
            let pgs = map.plans.values().flat_map(|plan| &plan.value.pgs);
            pgs.filter(|pg| pg.osds.contains(&osd)).count() as u64
        };
        let leads = |osd: OsdId| map.claims.values().filter(|claim| claim.value.primary == osd).count() as u64;
        let osds = map
            .members
            .iter()
            .map(|(&id, config)| {
                let report = self.osds.get(&id).cloned().unwrap_or_default();
                OsdInfo {
                    id: id.0,
                    state: if map.is_up(id) { OsdState::Up } else { OsdState::Down },
                    path: report.path,
                    size: config.value.size,
                    used: report.used,
                    objects: report.objects,
                    pgs: members(id),
                    primary_pgs: leads(id),
                }
            })
            .collect();
        OsdList { osds }
    }
}

/// One word for a PG: `clean`, `recovering` (objects have too few copies), `degraded` (a member is down), `peering`, or
/// `inactive` (nobody acts for it).
fn pg_state(map: &ClusterMap, pg: PgId) -> &'static str {
    let Some(claim) = map
        .claims
        .get(&pg)
        .map(|claim| &claim.value)
        .filter(|claim| map.is_up(claim.primary))
    else {
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

fn health(osds: &OsdCounts, pgs: &PgCounts, scrub: &Scrub) -> (Health, Vec<String>) {
    let mut reasons = Vec::new();
    let inactive = pgs.total - pgs.active;
    if inactive > 0 {
        reasons.push(format!("{inactive} of {} PGs do not serve clients", pgs.total));
    }
    if osds.up < osds.total {
        reasons.push(format!("{} of {} OSDs are down", osds.total - osds.up, osds.total));
    }
    if pgs.degraded > 0 {
        reasons.push(format!("{} PGs have too few copies", pgs.degraded));
    }
    if scrub.lost > 0 {
        reasons.push(format!(
            "{} objects have data of which no good copy is left",
            scrub.lost
        ));
    }
    if scrub.inconsistent > 0 {
        reasons.push(format!("{} objects have copies that differ", scrub.inconsistent));
    }
    let health = match (inactive, reasons.is_empty()) {
        (0, true) => Health::Ok,
        (0, false) => Health::Warn,
        _ => Health::Error,
    };
    (health, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_names_its_reasons() {
        let osds = |up| OsdCounts { total: 3, up };
        let pgs = |active, clean| PgCounts {
            total: 8,
            active,
            clean,
            degraded: active - clean,
            by_state: BTreeMap::new(),
        };
        let scrub = |repaired, inconsistent, lost| Scrub {
            repaired,
            inconsistent,
            lost,
            ..Scrub::default()
        };
        let table = [
            (osds(3), pgs(8, 8), scrub(0, 0, 0), Health::Ok, 0),
            (osds(2), pgs(8, 5), scrub(0, 0, 0), Health::Warn, 2),
            (osds(3), pgs(7, 7), scrub(0, 0, 0), Health::Error, 1),
            (osds(3), pgs(8, 8), scrub(9, 0, 0), Health::Ok, 0),
            (osds(3), pgs(8, 8), scrub(9, 1, 0), Health::Warn, 1),
            (osds(3), pgs(8, 8), scrub(9, 1, 1), Health::Warn, 2),
        ];
        for (osds, pgs, scrub, verdict, reasons) in table {
            let (given, why) = health(&osds, &pgs, &scrub);
            assert_eq!((given, why.len()), (verdict, reasons), "{why:?}");
        }
    }
}
