//! Times of modification: what was written through a gateway and acknowledged shows a later time in the end, whatever became
//! of the gateway.

use trivet_core::{ImageId, Now};
use trivet_namespace::Namespace;

use crate::gateways::wall;
use crate::trouble::Trouble;
use crate::world::World;

impl World {
    /// A user's change of an image, which began then, was acknowledged.
    pub(crate) fn written(&mut self, image: ImageId, began: Now) {
        // Its time may have been noted in a store that is not there any more.
        if began < self.metadata.replaced {
            return;
        }
        let last = self.written.entry(image).or_default();
        *last = (*last).max(began);
    }

    /// Some gateway dies at the last moment, with what it has not written down yet.
    pub(crate) fn last_death(&mut self) {
        if self.swarm.has(Trouble::KillGateway) && !self.gateways.is_empty() {
            let gateway = self.random.index(self.gateways.len());
            let place = self.gateway_place(gateway);
            self.kill(place, std::time::Duration::ZERO);
        }
    }

    /// What was written and is older than that, as the tree has it; and a file whose size is wrong.
    pub(crate) fn outdated(&self) -> Option<String> {
        if self.users.is_empty() {
            return None;
        }
        let mut tree = Namespace::default();
        tree.apply(&self.kv.snapshot());
        let late = self.written.iter().find_map(|(&image, &began)| {
            let (has, written) = (tree.inode(image)?.mtime, wall(began));
            let (image, late) = (image.0, has < written);
            late.then(|| format!("image {image:x} was written at {written:?}, and its time is {has:?}"))
        });
        let size = tree.inode(self.sized.image).map(|inode| inode.size);
        late.or_else(|| size.and_then(|size| self.sized_wrongly(size)))
    }
}
