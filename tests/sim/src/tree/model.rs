//! A tree of names as POSIX and RFC 1813 want it: what each operation answers and what is there afterwards.

use std::collections::{BTreeMap, BTreeSet};

/// A node's number.
pub type Node = u64;
/// A name in a directory.
pub type Place = (Node, String);

/// Statuses of NFSv3.
pub const OK: u32 = 0;
pub const NO_ENTRY: u32 = 2;
pub const EXISTS: u32 = 17;
pub const NOT_DIRECTORY: u32 = 20;
pub const IS_DIRECTORY: u32 = 21;
pub const NOT_EMPTY: u32 = 66;
pub const STALE: u32 = 70;

/// A question, or a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeOp {
    /// A file is made if there is none, or if the one that is there was made with this verifier.
    Create(Place, Option<u64>),
    /// A directory is made.
    MakeDir(Place),
    /// A name of a file goes.
    Remove(Place),
    /// An empty directory goes.
    RemoveDir(Place),
    /// A file gets another name, in place of the file that has it.
    Rename(Place, Place),
    /// A file gets one more name.
    Link(Node, Place),
    /// What a name stands for.
    Lookup(Place),
    /// All names of a directory.
    List(Node),
}

impl TreeOp {
    /// Whether success changes something.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(self, TreeOp::Lookup(_) | TreeOp::List(_))
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// 0 for success.
    pub status: u32,
    /// The node that was made or found.
    pub node: Option<Node>,
    /// What is in a directory.
    pub entries: BTreeSet<(String, Node)>,
}

impl Answer {
    fn status(status: u32) -> Answer {
        Answer {
            status,
            ..Answer::default()
        }
    }

    fn node(node: Node) -> Answer {
        Answer {
            node: Some(node),
            ..Answer::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Inode {
    directory: bool,
    verifier: Option<u64>,
}

/// The tree at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tree {
    nodes: BTreeMap<Node, Inode>,
    entries: BTreeMap<Place, Node>,
}

impl Tree {
    /// A directory that is there from the beginning.
    pub fn plant(&mut self, node: Node) {
        let inode = Inode {
            directory: true,
            verifier: None,
        };
        self.nodes.insert(node, inode);
    }

    /// Whether there is this node.
    #[must_use]
    pub fn has(&self, node: Node) -> bool {
        self.nodes.contains_key(&node)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.nodes.keys().copied()
    }

    /// Does it; a new node gets the number `fresh`.
    pub fn apply(&mut self, op: &TreeOp, fresh: Node) -> Answer {
        match op {
            TreeOp::Create(place, verifier) => self.make(place, fresh, false, *verifier),
            TreeOp::MakeDir(place) => self.make(place, fresh, true, None),
            TreeOp::Remove(place) => self.remove(place, false),
            TreeOp::RemoveDir(place) => self.remove(place, true),
            TreeOp::Rename(from, to) => self.rename(from, to),
            TreeOp::Link(node, place) => self.link(*node, place),
            TreeOp::Lookup(place) => match (self.has(place.0), self.entries.get(place)) {
                (false, _) => Answer::status(STALE),
                (true, Some(&node)) => Answer::node(node),
                (true, None) => Answer::status(NO_ENTRY),
            },
            TreeOp::List(dir) if !self.has(*dir) => Answer::status(STALE),
            TreeOp::List(dir) => Answer {
                entries: self.names(*dir).collect(),
                ..Answer::default()
            },
        }
    }

    fn names(&self, dir: Node) -> impl Iterator<Item = (String, Node)> {
        let entries = self.entries.iter().filter(move |((parent, _), _)| *parent == dir);
        entries.map(|((_, name), node)| (name.clone(), *node))
    }

    fn make(&mut self, place: &Place, fresh: Node, directory: bool, verifier: Option<u64>) -> Answer {
        if !self.has(place.0) {
            return Answer::status(STALE);
        }
        if let Some(&node) = self.entries.get(place) {
            let same = verifier.is_some() && self.nodes.get(&node).is_some_and(|inode| inode.verifier == verifier);
            return if same {
                Answer::node(node)
            } else {
                Answer::status(EXISTS)
            };
        }
        self.nodes.insert(fresh, Inode { directory, verifier });
        self.entries.insert(place.clone(), fresh);
        Answer::node(fresh)
    }

    fn is_directory(&self, node: Node) -> bool {
        self.nodes.get(&node).is_some_and(|inode| inode.directory)
    }

    fn remove(&mut self, place: &Place, directory: bool) -> Answer {
        let Some(&node) = self.entries.get(place) else {
            return Answer::status(if self.has(place.0) { NO_ENTRY } else { STALE });
        };
        match (directory, self.is_directory(node)) {
            (true, false) => Answer::status(NOT_DIRECTORY),
            (false, true) => Answer::status(IS_DIRECTORY),
            (true, true) if self.names(node).next().is_some() => Answer::status(NOT_EMPTY),
            _ => {
                self.drop_name(place);
                Answer::default()
            }
        }
    }

    /// A name goes, and its node with the last one.
    fn drop_name(&mut self, place: &Place) {
        if let Some(node) = self.entries.remove(place)
            && !self.entries.values().any(|other| *other == node)
        {
            self.nodes.remove(&node);
        }
    }

    fn rename(&mut self, from: &Place, to: &Place) -> Answer {
        if !self.has(from.0) || !self.has(to.0) {
            return Answer::status(STALE);
        }
        let Some(&node) = self.entries.get(from) else {
            return Answer::status(NO_ENTRY);
        };
        match self.entries.get(to) {
            // The same name, or two names of one file: nothing happens.
            Some(&other) if other == node => return Answer::default(),
            Some(&other) if self.is_directory(other) != self.is_directory(node) => {
                let status = if self.is_directory(other) {
                    IS_DIRECTORY
                } else {
                    NOT_DIRECTORY
                };
                return Answer::status(status);
            }
            Some(_) => self.drop_name(to),
            None => {}
        }
        self.entries.remove(from);
        self.entries.insert(to.clone(), node);
        Answer::default()
    }

    fn link(&mut self, node: Node, place: &Place) -> Answer {
        if !self.has(node) || !self.has(place.0) {
            return Answer::status(STALE);
        }
        if self.is_directory(node) {
            return Answer::status(IS_DIRECTORY);
        }
        if self.entries.contains_key(place) {
            return Answer::status(EXISTS);
        }
        self.entries.insert(place.clone(), node);
        Answer::default()
    }

    /// A node turns out to have another number.
    pub fn renumber(&mut self, old: Node, new: Node) {
        if let Some(inode) = self.nodes.remove(&old) {
            self.nodes.insert(new, inode);
        }
        self.entries
            .values_mut()
            .filter(|node| **node == old)
            .for_each(|node| *node = new);
    }
}
