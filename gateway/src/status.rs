//! How the gateway is, and what the OSDs of its process report.

use std::time::Duration;

use trivet_api::{ClientCounts, GatewayStatus};
use trivet_core::OsdId;

use crate::gateway::{Clock, Gateway};
use crate::metrics::Protocol;
use crate::overview::Inside;

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

    /// What it says of itself to whoever shows the cluster to administrators.
    #[must_use]
    pub fn look(&self, clock: Clock) -> Inside {
        let mut inside = Inside {
            uptime: clock.now.since(self.started),
            clients: ClientCounts {
                nbd: self.clients(Protocol::Nbd),
                iscsi: self.clients(Protocol::Iscsi),
                nfs: self.clients(Protocol::Nfs),
            },
            gateway: self.own_status(),
            osds: self.osds.clone(),
            ..Inside::default()
        };
        self.look_within(&mut inside);
        inside
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
