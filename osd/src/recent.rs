//! A bounded window of the operations that were executed lately in a PG, so that a repeated one is answered and not
//! executed again. Members keep it too; a new primary inherits the union.

use std::collections::VecDeque;

use hashbrown::HashMap;
use trivet_core::{OpId, Version};

/// Operations remembered per PG. Larger than what all clients together have in flight in one PG.
const WINDOW: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    order: VecDeque<OpId>,
    /// Never iterated: its order would be random.
    ops: HashMap<OpId, Version>,
}

impl Recent {
    /// Remembers an executed operation.
    pub(crate) fn insert(&mut self, op: OpId, version: Version) {
        if self.ops.insert(op, version).is_none() {
            self.order.push_back(op);
            if self.order.len() > WINDOW
                && let Some(oldest) = self.order.pop_front()
            {
                self.ops.remove(&oldest);
            }
        }
    }

    /// Whether the operation was executed.
    pub(crate) fn contains(&self, op: OpId) -> bool {
        self.ops.contains_key(&op)
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (OpId, Version)> {
        self.order
            .iter()
            .filter_map(|op| self.ops.get(op).map(|&version| (*op, version)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::ClientId;

    #[test]
    fn the_window_forgets_the_oldest() {
        let id = |sequence| OpId {
            client: ClientId(1),
            sequence,
        };
        let mut recent = Recent::default();
        for sequence in 0..=WINDOW as u64 {
            recent.insert(id(sequence), Version::NONE);
            recent.insert(id(sequence), Version::NONE);
        }
        assert!(!recent.contains(id(0)));
        assert!(recent.contains(id(1)) && recent.contains(id(WINDOW as u64)));
        assert_eq!(recent.iter().count(), WINDOW);
    }
}
