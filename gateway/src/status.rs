//! How the cluster is, as far as this gateway knows.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::{OsdId, PgId};

use crate::admin::metrics::Protocol;
use crate::admin::{ClientCounts, GatewayStatus, OsdCounts, PgCounts, Status};
use crate::cluster::{health, pg_state};
use crate::gateway::Gateway;

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
    /// An OSD of this process reports. The space that clients see follows within a second.
    pub fn osd_report(&mut self, osd: OsdId, report: OsdReport) {
        self.osds.insert(osd, report);
        if self.background.space.total == 0 {
            self.update_space();
        }
    }

    /// So many lines of the process's log could not be written since it started.
    pub fn log_lines_lost(&mut self, lines: u64) {
        self.log_lines_lost = lines;
    }

    /// How many copies of objects are to be made.
    pub(crate) fn objects_missing(&self) -> u64 {
        let claims = self.client.map().current_claims();
        claims.map(|(_, claim)| claim.missing).fold(0, u64::saturating_add)
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
        let (health, reasons) = health(&self.findings(&self.osd_list().osds), &pgs, &scrub);
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
            capacity: self.raw_space(),
            images: self.namespace.files().count() as u64,
            clients: ClientCounts {
                nbd: self.clients(Protocol::Nbd),
                iscsi: self.clients(Protocol::Iscsi),
                nfs: self.clients(Protocol::Nfs),
            },
            recovery: self.progress.recovery(self.objects_missing()),
            scrub,
            gateway: self.own_status(),
        }
    }

    fn own_status(&self) -> GatewayStatus {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.now;
        GatewayStatus {
            serves: self.is_ready(),
            opens: self.is_ready() && !self.freshness.is_stale(now),
            metadata_age_ms: self.freshness.age(now).map(millis),
            metadata_latency_ms: millis(self.freshness.latency()),
            buffers: self.memory.used as u64,
            buffers_max: self.memory.budget as u64,
            waiting_for_buffers: self.waiting_for_memory(),
            log_lines_lost: self.log_lines_lost,
        }
    }
}
