//! The tree of names that NFS users change, beside a model of it.

pub mod model;
pub mod order;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use trivet_core::Now;

use model::{Answer, Node, Tree, TreeOp};
use order::Order;

/// Gateways answer from mirrors that are no older than this, in a run.
const OLDEST: Duration = Duration::from_secs(120);

/// The directories of a run, and what happened in them.
#[derive(Debug)]
pub struct TreeWatch {
    order: Order,
    number: u64,
    /// What its user gave up and may still happen.
    abandoned: Option<u64>,
    /// Which operation made a node: no number is given again, whatever is put back.
    made: BTreeMap<Node, u64>,
    /// Handles by node: they are the same at every gateway.
    pub handles: BTreeMap<Node, Bytes>,
    /// Those of directories.
    pub directories: BTreeSet<Node>,
    /// The directory that all users change.
    pub shared: Node,
    /// The root.
    pub root: Node,
}

impl TreeWatch {
    /// A root with one directory in it, of this name.
    #[must_use]
    pub fn new(root: Node, shared: Node, name: &str) -> TreeWatch {
        let mut tree = Tree::default();
        tree.plant(root);
        tree.apply(&TreeOp::MakeDir((root, name.to_owned())), shared);
        TreeWatch {
            order: Order::new(tree, OLDEST),
            number: 0,
            abandoned: None,
            made: BTreeMap::new(),
            handles: BTreeMap::new(),
            directories: BTreeSet::new(),
            shared,
            root,
        }
    }

    /// An operation begins; it is known by the number from now on.
    pub fn begin(&mut self, op: TreeOp) -> u64 {
        self.number += 1;
        self.order.begin(self.number, op);
        self.number
    }

    /// An operation is answered, by a gateway that knew everything until `since`.
    ///
    /// # Errors
    /// When no order of all operations explains it, or another one made the same node.
    pub fn end(&mut self, number: u64, now: Now, since: Now, answer: &Answer) -> Result<(), String> {
        if let Some(node) = answer.node.filter(|_| self.order.makes(number))
            && *self.made.entry(node).or_insert(number) != number
        {
            return Err(format!(
                "operations {} and {number} made node {node:x}",
                self.made[&node]
            ));
        }
        self.order.end(number, now, since, answer)
    }

    /// A change is refused by a gateway that is behind, while another one may still do it: until it is forgotten.
    ///
    /// # Errors
    /// When no order of all operations explains the refusal.
    pub fn refuse(&mut self, number: u64, now: Now, since: Now, answer: &Answer) -> Result<(), String> {
        self.order.refuse(number, now, since, answer)
    }

    /// A user does not want an operation any more. That is so for one at a time: the search knows all orders of what is open.
    pub fn abandon(&mut self, number: u64) -> bool {
        let first = self.abandoned.is_none();
        if first {
            self.abandoned = Some(number);
        }
        first
    }

    /// An operation that was abandoned long ago does not happen any more.
    pub fn forget(&mut self, number: u64) {
        if self.abandoned == Some(number) {
            self.abandoned = None;
        }
        self.order.forget(number);
    }

    /// A backup of the metadata is made.
    pub fn back_up(&mut self) {
        self.order.back_up();
    }

    /// The last backup takes the place of the metadata.
    pub fn put_back(&mut self, now: Now) {
        self.order.put_back(now);
    }

    /// A file that may be there, by its handle.
    pub fn file(&self, index: usize) -> Option<(Node, Bytes)> {
        let files = self.handles.iter().filter(|(node, _)| !self.directories.contains(node));
        let files: Vec<(&Node, &Bytes)> = files.collect();
        let (node, handle) = files.get(index.checked_rem(files.len())?)?;
        Some((**node, (*handle).clone()))
    }
}
