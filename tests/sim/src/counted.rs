//! What OSDs count against what their stores hold.

use std::collections::BTreeMap;

use trivet_core::map::encode;
use trivet_core::usage::{self, PoolUsage, PoolsUsage};
use trivet_core::{ImageId, OsdId, PoolId, UNIT_SIZE};
use trivet_osd::Osd;

use crate::world::World;

/// Bytes and objects.
type Space = (u64, u64);

impl World {
    /// Why what is counted is wrong: every primary claims exactly the objects of its PGs, as its store has them, and the
    /// metadata store shows the sum. `None` if nothing is.
    pub(crate) fn miscounted(&self) -> Option<String> {
        let machines = || {
            self.osds
                .iter()
                .filter_map(|slot| Some((slot.number, slot.machine.as_ref()?)))
        };
        machines().find_map(|(osd, machine)| {
            self.images_miscounted(osd, machine)
                .or_else(|| self.pool_miscounted(osd, machine))
        })
    }

    /// What the store of an OSD has of the PGs that it is the primary of.
    fn led(&self, osd: OsdId, machine: &Osd) -> BTreeMap<ImageId, Space> {
        let mut led: BTreeMap<ImageId, Space> = BTreeMap::new();
        for (object, info) in machine.objects().filter(|(_, info)| !info.present.is_empty()) {
            let claim = self.truth.pg_of(object).and_then(|pg| self.truth.claims.get(&pg));
            if claim.is_some_and(|claim| claim.value.primary == osd && claim.value.active) {
                let (bytes, objects) = led.entry(object.image).or_default();
                *bytes += (info.present.len() * UNIT_SIZE) as u64;
                *objects += 1;
            }
        }
        led
    }

    fn images_miscounted(&self, osd: OsdId, machine: &Osd) -> Option<String> {
        let led = self.led(osd, machine);
        let counted = machine.image_usage().into_iter();
        let counted = counted.map(|(image, usage)| (image, (usage.used, usage.objects)));
        let counted: BTreeMap<ImageId, Space> = counted.filter(|(_, space)| *space != (0, 0)).collect();
        (counted != led).then(|| format!("OSD {osd} counts {counted:?} and has {led:?}"))
    }

    fn pool_miscounted(&self, osd: OsdId, machine: &Osd) -> Option<String> {
        let has = |(_, info): &(_, trivet_store::api::ObjectInfo)| !info.present.is_empty();
        let mut pools: BTreeMap<PoolId, PoolUsage> = BTreeMap::new();
        for (object, _) in machine.objects().filter(has) {
            pools.entry(object.image.pool()).or_default().copies += 1;
        }
        for (image, (used, objects)) in self.led(osd, machine) {
            let pool = pools.entry(image.pool()).or_default();
            pool.used += used;
            pool.objects += objects;
        }
        let right = encode(&PoolsUsage { pools });
        let shown = self.kv.get(&usage::pools(osd)).map(|kv| kv.value);
        (shown.as_ref() != Some(&right)).then(|| format!("OSD {osd} reports {shown:?} and has {right:?}"))
    }
}
