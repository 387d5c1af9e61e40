//! Is there an order of the operations that explains all answers? The search goes along with the history: it keeps every
//! state that the tree can be in, with the operations that must have happened before their answer to get there.
//!
//! Changes that succeed are ordered exactly. Questions, and changes that are refused or find nothing to do, are answered by
//! a gateway from its mirror of the tree, which may be behind: they have to be true of some moment not longer ago than that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trivet_core::Now;

use super::model::{Answer, Node, OK, Tree, TreeOp};

/// Nodes whose number is not known yet are numbered from here on, by operation.
const UNKNOWN: Node = 1 << 63;
/// States that are kept at most: many more than a few users make.
const MOST: usize = 20_000;

/// A state of the tree, and what the operations will answer that happened already.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Possible {
    tree: Tree,
    done: BTreeMap<u64, Answer>,
    /// The tree that a backup of the metadata has.
    backup: Option<Tree>,
}

impl Possible {
    /// This state, and those in which the node that an operation names is one whose number was not known.
    fn identified(&self, op: &TreeOp) -> Vec<Possible> {
        let mut all = vec![self.clone()];
        let TreeOp::Link(named, _) = op else { return all };
        if !self.tree.has(*named) {
            all.extend(self.tree.nodes().filter(|node| *node >= UNKNOWN).map(|unknown| {
                let mut known = self.clone();
                known.renumber(unknown, *named);
                known
            }));
        }
        all
    }

    /// The same after the backup was put back, with any of the operations that are not answered undone.
    fn put_back(&self) -> BTreeSet<Possible> {
        let tree = self.backup.clone().unwrap_or_default();
        let mut all: BTreeSet<BTreeMap<u64, Answer>> = [BTreeMap::new()].into();
        for (number, answer) in &self.done {
            let with = all.iter().cloned().map(|mut done| {
                done.insert(*number, answer.clone());
                done
            });
            all.extend(Vec::from_iter(with));
        }
        let state = |done| Possible {
            tree: tree.clone(),
            done,
            backup: None,
        };
        all.into_iter().map(state).collect()
    }

    fn renumber(&mut self, old: Node, new: Node) {
        self.tree.renumber(old, new);
        if let Some(backup) = &mut self.backup {
            backup.renumber(old, new);
        }
        for answer in self.done.values_mut().filter(|answer| answer.node == Some(old)) {
            answer.node = Some(new);
        }
    }
}

/// The tree at moments of the past.
#[derive(Debug)]
struct Moment {
    /// Until when it was one of these.
    until: Now,
    trees: BTreeSet<Tree>,
}

/// The states that the tree may be in after all that was answered so far.
#[derive(Debug)]
pub struct Order {
    possible: BTreeSet<Possible>,
    open: BTreeMap<u64, TreeOp>,
    past: VecDeque<Moment>,
    /// How long moments are remembered.
    memory: Duration,
}

impl Order {
    /// A tree of which this is known; answers are at most so old.
    #[must_use]
    pub fn new(tree: Tree, memory: Duration) -> Order {
        let possible = Possible {
            tree,
            ..Possible::default()
        };
        Order {
            possible: [possible].into(),
            open: BTreeMap::new(),
            past: VecDeque::new(),
            memory,
        }
    }

    /// An operation begins.
    pub fn begin(&mut self, number: u64, op: TreeOp) {
        self.open.insert(number, op);
    }

    /// Whether an operation that is under way makes a node.
    #[must_use]
    pub fn makes(&self, number: u64) -> bool {
        let op = self.open.get(&number);
        op.is_some_and(|op| matches!(op, TreeOp::Create(..) | TreeOp::MakeDir(_)))
    }

    /// An operation is answered. What is answered from a mirror is true of a moment since `since`.
    ///
    /// # Errors
    /// When no order explains it.
    pub fn end(&mut self, number: u64, now: Now, since: Now, answer: &Answer) -> Result<(), String> {
        let (op, all) = self.begun(number)?;
        let mut ends = BTreeSet::new();
        if self.is_mirrored(number, &op, answer, since) {
            let untouched = self
                .possible
                .iter()
                .filter(|possible| !possible.done.contains_key(&number));
            ends.extend(untouched.cloned());
        }
        if op.changes() && answer.status == OK {
            ends.append(&mut self.ordered(number, &op, answer));
        }
        if ends.is_empty() {
            return Err(self.contradiction(&op, answer));
        }
        self.remember(now, all);
        self.open.remove(&number);
        self.possible = ends;
        Ok(())
    }

    /// A change is refused from a mirror that is behind, while somebody else has done it or may still do it, until it is forgotten.
    ///
    /// # Errors
    /// When no order explains the refusal.
    pub fn refuse(&mut self, number: u64, now: Now, since: Now, answer: &Answer) -> Result<(), String> {
        let (op, all) = self.begun(number)?;
        if !self.is_mirrored(number, &op, answer, since) {
            return Err(self.contradiction(&op, answer));
        }
        self.remember(now, all);
        Ok(())
    }

    /// An operation that is under way, and the states that there can be.
    fn begun(&self, number: u64) -> Result<(TreeOp, BTreeSet<Possible>), String> {
        let all = self.reachable(None);
        if all.len() > MOST {
            return Err(format!("{} states of the tree are possible", all.len()));
        }
        let op = self.open.get(&number).cloned();
        let op = op.ok_or_else(|| format!("operation {number} on the tree was answered twice"))?;
        Ok((op, all))
    }

    /// An operation that nobody waits for any more does not happen from now on, if it has not happened yet.
    pub fn forget(&mut self, number: u64) {
        let end = |mut possible: Possible| {
            possible.done.remove(&number);
            possible
        };
        self.possible = self.reachable(None).into_iter().map(end).collect();
        self.open.remove(&number);
    }

    /// A backup is made of the tree as it is.
    pub fn back_up(&mut self) {
        let keep = |mut possible: Possible| {
            possible.backup = Some(possible.tree.clone());
            possible
        };
        self.possible = self.reachable(None).into_iter().map(keep).collect();
    }

    /// The tree is again what the backup has. Of what has happened and is not answered everything may happen again.
    pub fn put_back(&mut self, now: Now) {
        let all = self.reachable(None);
        self.possible = all.iter().flat_map(Possible::put_back).collect();
        self.remember(now, all);
    }

    /// The tree as it may be when nothing is under way.
    pub fn trees(&self) -> impl Iterator<Item = &Tree> {
        self.possible.iter().map(|possible| &possible.tree)
    }

    fn contradiction(&self, op: &TreeOp, answer: &Answer) -> String {
        let states: Vec<&Tree> = self.trees().take(3).collect();
        format!(
            "no order of the changes explains {answer:?} to {op:?}\n  under way: {:?}\n  {} states, of these: {states:?}",
            self.open,
            self.possible.len()
        )
    }

    /// All states to which operations that are under way can lead, but for one of them.
    fn reachable(&self, without: Option<u64>) -> BTreeSet<Possible> {
        let mut all = self.possible.clone();
        let mut fresh: Vec<Possible> = all.iter().cloned().collect();
        while let Some(possible) = fresh.pop() {
            let open = self
                .open
                .iter()
                .filter(|(number, op)| Some(**number) != without && op.changes());
            for (number, op) in open {
                if possible.done.contains_key(number) {
                    continue;
                }
                for mut next in possible.identified(op) {
                    let answer = next.tree.apply(op, UNKNOWN | number);
                    if answer.status != OK {
                        // A change that is refused leaves no trace: it can be thought to happen later.
                        continue;
                    }
                    next.done.insert(*number, answer);
                    if all.insert(next.clone()) {
                        fresh.push(next);
                    }
                }
            }
        }
        all
    }

    /// The states after a change that succeeded so.
    fn ordered(&self, number: u64, op: &TreeOp, answer: &Answer) -> BTreeSet<Possible> {
        let mut ends = BTreeSet::new();
        for mut possible in self.reachable(Some(number)) {
            match possible.done.remove(&number) {
                // It happened before, to explain something else.
                Some(told) => {
                    if told.node.is_some_and(|node| node >= UNKNOWN)
                        && let (Some(old), Some(new)) = (told.node, answer.node)
                    {
                        if possible.tree.has(new) {
                            continue;
                        }
                        possible.renumber(old, new);
                    } else if answer.node.is_some() && told.node != answer.node {
                        continue;
                    }
                    ends.insert(possible);
                }
                None => {
                    let known = answer.node.is_some_and(|node| possible.tree.has(node));
                    let fresh = answer.node.filter(|_| !known).unwrap_or(UNKNOWN | number);
                    for mut possible in possible.identified(op) {
                        let told = possible.tree.apply(op, fresh);
                        let fits = answer.node.is_none() || told.node == answer.node;
                        if told.status == OK && fits {
                            ends.insert(possible);
                        }
                    }
                }
            }
        }
        ends
    }

    /// Whether this answer is true of a moment since then, and changes nothing.
    fn is_mirrored(&self, number: u64, op: &TreeOp, answer: &Answer, since: Now) -> bool {
        let now = self.reachable(Some(number));
        let now = now.iter().map(|possible| &possible.tree);
        let past = self.past.iter().filter(|moment| moment.until >= since);
        let mut trees = now.chain(past.flat_map(|moment| &moment.trees));
        trees.any(|tree| explains(tree, op, answer))
    }

    fn remember(&mut self, now: Now, all: BTreeSet<Possible>) {
        let trees = all.into_iter().map(|possible| possible.tree).collect();
        self.past.push_back(Moment { until: now, trees });
        while self
            .past
            .front()
            .is_some_and(|moment| now.since(moment.until) > self.memory)
        {
            self.past.pop_front();
        }
    }
}

/// Whether a tree gives this answer and stays as it is. A node whose number is not known may be any.
fn explains(tree: &Tree, op: &TreeOp, answer: &Answer) -> bool {
    let possible = Possible {
        tree: tree.clone(),
        ..Possible::default()
    };
    possible
        .identified(op)
        .iter()
        .any(|possible| is_told(&possible.tree, op, answer))
}

fn is_told(tree: &Tree, op: &TreeOp, answer: &Answer) -> bool {
    let mut after = tree.clone();
    let told = after.apply(op, UNKNOWN);
    if after != *tree {
        return false;
    }
    let same = |told: Node, given: Node| told == given || (told >= UNKNOWN && !tree.has(given));
    let nodes = match (told.node, answer.node) {
        (Some(told), Some(given)) => same(told, given),
        _ => true,
    };
    let entries = told.entries.len() == answer.entries.len()
        && told.entries.iter().all(|(name, told)| {
            let mut given = answer.entries.iter().filter(|(other, _)| other == name);
            given.any(|(_, given)| same(*told, *given))
        });
    told.status == answer.status && nodes && entries
}
