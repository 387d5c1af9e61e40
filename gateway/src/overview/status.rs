//! How the cluster is, as far as is known here.

use std::collections::BTreeMap;

use trivet_api::{OsdCounts, PgCounts, Status};
use trivet_core::PgId;

use super::health::health;
use super::pgs::pg_state;
use super::{Inside, Overview};
use crate::gateway::Clock;

impl Overview {
    /// How many copies of objects are to be made.
    pub(super) fn objects_missing(&self) -> u64 {
        let claims = self.map.current_claims();
        claims.map(|(_, claim)| claim.missing).fold(0, u64::saturating_add)
    }

    /// For `trivet status`.
    pub(super) fn status(&self, clock: Clock, inside: &Inside) -> Status {
        let map = &self.map;
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
        let scrub = self.scrub(clock.wall);
        let (health, reasons) = health(&self.findings(&self.osd_list().osds, inside), &pgs, &scrub);
        Status {
            health,
            reasons,
            version: env!("CARGO_PKG_VERSION").to_string(),
            cluster: map
                .cluster
                .as_ref()
                .map_or_else(String::new, |cluster| cluster.id.clone()),
            uptime_s: inside.uptime.as_secs(),
            osds,
            pgs,
            capacity: self.disks().raw_space(),
            images: self.namespace.images().count() as u64,
            clients: inside.clients,
            recovery: self.progress.recovery(self.objects_missing()),
            scrub,
            gateway: inside.gateway,
        }
    }
}
