//! Listing OSDs and the places that they are in.

use trivet_api::{AdminError, OsdInfo, OsdList, OsdState, Thousandths, Tree};
use trivet_core::OsdId;
use trivet_core::keys::OsdConfig;

use super::Overview;
use crate::cluster::{grow_tree, no_osd};

impl Overview {
    /// All OSDs.
    pub(super) fn osd_list(&self) -> OsdList {
        let osds = self.map.members.iter();
        OsdList {
            osds: osds.map(|(&id, config)| self.describe_osd(id, &config.value)).collect(),
        }
    }

    /// The placement tree.
    pub(super) fn tree(&self) -> Tree {
        grow_tree(&self.map, self.osd_list().osds)
    }

    pub(super) fn osd_info(&self, osd: u32) -> Result<OsdInfo, AdminError> {
        let config = self.map.members.get(&OsdId(osd)).ok_or_else(|| no_osd(osd))?;
        Ok(self.describe_osd(OsdId(osd), &config.value))
    }

    fn describe_osd(&self, id: OsdId, config: &OsdConfig) -> OsdInfo {
        let map = &self.map;
        let planned = map.plans.values().flat_map(|plan| &plan.value.pgs);
        let leads = map.current_claims().filter(|(_, claim)| claim.primary == id);
        let usage = self.disks().usage(id).unwrap_or_default();
        OsdInfo {
            id: id.0,
            state: if map.is_up(id) { OsdState::Up } else { OsdState::Down },
            host: config.host.clone(),
            path: usage.path,
            tags: config.tags.clone(),
            reweight: Thousandths::new(config.reweight),
            noout: config.noout,
            out: config.out,
            dropped: config.dropped,
            size: config.size,
            capacity: usage.capacity,
            used: usage.used,
            objects: usage.objects,
            pgs: planned.filter(|pg| pg.osds.contains(&id)).count() as u64,
            primary_pgs: leads.count() as u64,
        }
    }
}
