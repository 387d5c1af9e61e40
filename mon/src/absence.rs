//! OSDs that are down for long: they are dropped from the placement, until they are up again.
//!
//! How long is measured by this monitor's own clock from when it first saw the OSD missing; one that leads anew begins
//! to count when it started. An OSD is not dropped if a pool could then not have as many copies as it has: what is
//! nowhere else to be put stays where it is.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::keys::{self, OsdConfig};
use trivet_core::kv::{Change, Compare, Event, Notice, Txn};
use trivet_core::map::{ClusterMap, Versioned, encode};
use trivet_core::{Now, OsdId};

use crate::placement::{self, Inputs};
use crate::{Guard, MAX_CHANGES, Monitor};

/// Since when OSDs are not up.
#[derive(Debug, Default)]
pub(crate) struct Absences(BTreeMap<OsdId, Now>);

impl Absences {
    /// Forgets those who were up meanwhile, for all that a notice says: they may be down again at its end.
    pub(crate) fn interrupt(&mut self, notice: &Notice) {
        match notice {
            Notice::Snapshot { .. } | Notice::Replaced { .. } => self.0.clear(),
            Notice::Changes { events, .. } => self.0.retain(|&osd, _| {
                let state = keys::osd_state(osd);
                !events
                    .iter()
                    .any(|event| matches!(event, Event::Put(kv) if kv.key == state))
            }),
        }
    }

    /// Looks who is up.
    pub(crate) fn observe(&mut self, map: &ClusterMap, now: Now) {
        self.0
            .retain(|&osd, _| map.members.contains_key(&osd) && !map.is_up(osd));
        for &osd in map.members.keys().filter(|&&osd| !map.is_up(osd)) {
            self.0.entry(osd).or_insert(now);
        }
    }

    fn longer_than(&self, time: Duration, now: Now) -> impl Iterator<Item = OsdId> {
        let absent = self.0.iter().filter(move |(_, since)| now.since(**since) >= time);
        absent.map(|(&osd, _)| osd)
    }
}

impl Monitor {
    /// Says of OSDs whether the placement may count on them, where that changed. All at once, so that data is not moved
    /// to where it has to move away from.
    pub(crate) fn mark_absent(&self, guard: Guard, now: Now) -> Option<Txn> {
        let mut compare = Vec::new();
        let mut changes = Vec::new();
        let changed = self.returned().map(|osd| (osd, false));
        let changed = changed.chain(self.lost(now).into_iter().map(|osd| (osd, true)));
        for (osd, dropped) in changed.take(MAX_CHANGES) {
            let Some(member) = self.map.members.get(&osd) else {
                continue;
            };
            let config = OsdConfig {
                dropped,
                ..member.value.clone()
            };
            compare.push(Compare::ModRevision(keys::osd_config(osd), member.revision));
            if dropped {
                compare.push(Compare::Absent(keys::osd_state(osd)));
            }
            changes.push(Change::put(keys::osd_config(osd), encode(&config)));
        }
        (!changes.is_empty()).then(|| guard.txn(compare, changes))
    }

    /// Those that were dropped and are up again, or are exempt now.
    fn returned(&self) -> impl Iterator<Item = OsdId> {
        let back = |(&osd, member): (&OsdId, &Versioned<OsdConfig>)| {
            let config = &member.value;
            (config.dropped && (config.noout || self.map.is_up(osd))).then_some(osd)
        };
        self.map.members.iter().filter_map(back)
    }

    /// Those that are down for too long and whose PGs can live elsewhere.
    fn lost(&self, now: Now) -> Vec<OsdId> {
        let limit = Duration::from_secs(self.map.settings.osd_out_s);
        let exempt = |osd: &OsdId| {
            self.map
                .members
                .get(osd)
                .is_none_or(|m| m.value.noout || m.value.dropped)
        };
        let absent: Vec<OsdId> = self
            .absences
            .longer_than(limit, now)
            .filter(|osd| !exempt(osd))
            .collect();
        if absent.is_empty() {
            return absent;
        }
        let pools = self
            .map
            .pools
            .iter()
            .map(|(&id, pool)| placement::inputs(&self.map, id, &pool.value));
        let pools: Vec<Inputs> = pools.collect();
        let mut lost: Vec<OsdId> = Vec::new();
        for osd in absent {
            lost.push(osd);
            if !pools.iter().all(|pool| is_spared_by(pool, &lost)) {
                lost.pop();
            }
        }
        lost
    }
}

/// Whether a pool can have as many copies without these OSDs as with them, on OSDs that are up; or never had them.
fn is_spared_by(pool: &Inputs, lost: &[OsdId]) -> bool {
    let loses = pool.osds.iter().any(|osd| lost.contains(&osd.id));
    let without = pool.domains(|osd| osd.up && !lost.contains(&osd.id));
    !loses || without >= pool.replicas.min(pool.domains(|_| true))
}
