//! The end of a run: whatever is stored belongs to somebody, and nothing waits to be removed.

use trivet_namespace::Namespace;

use crate::world::World;

impl World {
    /// What belongs to nobody, or is to go and does not; none if everything has its owner.
    pub(crate) fn ownerless(&self) -> Option<String> {
        let mut tree = Namespace::default();
        tree.apply(&self.kv.snapshot());
        if let Some((image, _)) = tree.purges().next() {
            return Some(format!("image {image} is removed, and its data is not"));
        }
        if let Some((image, _)) = tree.trims().next() {
            return Some(format!("image {image} is truncated, and its data is not"));
        }
        let machines = self.osds.iter().filter_map(|slot| slot.machine.as_ref());
        let mut stored = machines.flat_map(|machine| machine.objects());
        let ownerless = stored.find(|(object, info)| !info.tombstone && tree.inode(object.image).is_none());
        ownerless.map(|(object, _)| format!("object {object} belongs to no file"))
    }
}
