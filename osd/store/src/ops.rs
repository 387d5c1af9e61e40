//! The client operations that an object remembers, oldest first.
//!
//! Most objects remember one or none: those cost no allocation.

use trivet_core::mutation::{MARK, Ops};
use trivet_core::{ClientId, OpId};

/// How "none" is kept. No client has this number.
const NONE: OpId = OpId {
    client: ClientId(u64::MAX),
    sequence: u64::MAX,
};

/// A list of operations. 24 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    newest: OpId,
    older: Option<Box<Older>>,
}

/// All but the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Older {
    ops: Vec<OpId>,
}

impl Remembered {
    /// No operations.
    pub const EMPTY: Remembered = Remembered {
        newest: NONE,
        older: None,
    };

    /// These, oldest first.
    pub fn of(mut ops: Vec<OpId>) -> Remembered {
        let newest = ops.pop().unwrap_or(NONE);
        let older = (!ops.is_empty()).then(|| Box::new(Older { ops }));
        Remembered { newest, older }
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = OpId> {
        let older = self.older.iter().flat_map(|older| older.ops.iter().copied());
        older.chain(Some(self.newest).filter(|&op| op != NONE))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.older.as_ref().map_or(0, |older| older.ops.len()) + usize::from(self.newest != NONE)
    }

    /// Whether they say that this one was executed.
    pub fn remembers(&self, op: OpId) -> bool {
        match &self.older {
            None => Ops::remembers(&[self.newest], op),
            Some(_) => Ops::remembers(&self.iter().collect::<Vec<_>>(), op),
        }
    }

    /// Changes the list as a mutation says.
    pub fn apply(&mut self, change: &Ops) {
        match change {
            Ops::Add { op, answered } if self.older.is_none() && is_replaced(self.newest, *op, *answered) => {
                self.newest = *op;
            }
            Ops::Exactly(ops) if ops.len() <= 1 => *self = Remembered::of(ops.clone()),
            _ => {
                let mut list: Vec<OpId> = self.iter().collect();
                change.apply(&mut list);
                *self = Remembered::of(list);
            }
        }
    }
}

/// Whether `op` alone is left of a list that only has `newest`.
fn is_replaced(newest: OpId, op: OpId, answered: u64) -> bool {
    let is_over = newest == NONE || newest.client == op.client && newest.sequence & !MARK < answered;
    is_over && answered == op.sequence
}

/// By how much a change makes a list longer, at most.
pub fn growth(change: &Ops) -> usize {
    match change {
        // With the bound of its client.
        Ops::Add { .. } => 2,
        Ops::Exactly(ops) => ops.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::mutation::MAX_OPS;

    fn op(client: u64, sequence: u64) -> OpId {
        OpId {
            client: ClientId(client),
            sequence,
        }
    }

    /// The list does what the vocabulary's own definition says, whatever the order.
    #[test]
    fn it_is_the_list_of_the_vocabulary() {
        let mut seed = 7u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let (mut list, mut model) = (Remembered::EMPTY, Vec::new());
        for sequence in 1..20_000 {
            let change = match random(40) {
                0 => Ops::Exactly((0..random(4)).map(|n| op(n, sequence)).collect()),
                _ => Ops::Add {
                    op: op(random(4), sequence - random(2)),
                    answered: sequence - random(60).min(sequence),
                },
            };
            list.apply(&change);
            change.apply(&mut model);
            assert_eq!(list.iter().collect::<Vec<_>>(), model);
            assert_eq!(list.len(), model.len());
            assert!(model.iter().all(|&op| op.sequence & MARK != 0 || list.remembers(op)));
            assert!(!list.remembers(op(9, 9)));
            assert_eq!(list.older.is_none(), model.len() <= 1);
        }
        assert!(model.len() <= MAX_OPS);
    }
}
