//! The epochs that a member has accepted: what it has promised to execute nothing below of.
//!
//! Of a pool's PGs only the latest generation counts ([`Numbering`](crate::Numbering)): whoever accepts an epoch of one
//! refuses all earlier ones, whatever their epochs, and need not remember them.

use std::collections::BTreeMap;

use crate::ids::{Epoch, PgId};

/// The highest accepted epoch of every PG of the latest generations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs(BTreeMap<PgId, Epoch>);

impl Epochs {
    /// Accepts an epoch, unless there is a higher one or a later generation. True if with it a generation takes over
    /// from an earlier one.
    pub fn accept(&mut self, pg: PgId, epoch: Epoch) -> bool {
        if self.is_past(pg) {
            return false;
        }
        let highest = self.0.entry(pg).or_default();
        *highest = epoch.max(*highest);
        let earlier = first(pg, 0)..first(pg, pg.generation);
        let over: Vec<PgId> = self.0.range(earlier).map(|(&pg, _)| pg).collect();
        for pg in &over {
            self.0.remove(pg);
        }
        !over.is_empty()
    }

    /// Whether with this PG a generation would take over from an earlier one, which is then forgotten.
    #[must_use]
    pub fn replaces(&self, pg: PgId) -> bool {
        !self.is_past(pg) && self.0.range(first(pg, 0)..first(pg, pg.generation)).next().is_some()
    }

    /// The epoch that was accepted last.
    #[must_use]
    pub fn get(&self, pg: PgId) -> Option<Epoch> {
        self.0.get(&pg).copied()
    }

    /// Whether a later generation of the pool's PGs was accepted: nothing is executed for this one any more.
    #[must_use]
    pub fn is_past(&self, pg: PgId) -> bool {
        let last = PgId {
            generation: u16::MAX,
            number: u32::MAX,
            ..pg
        };
        let latest = self.0.range(first(pg, 0)..=last).next_back();
        latest.is_some_and(|(latest, _)| latest.generation > pg.generation)
    }

    /// All of them, by PG.
    pub fn iter(&self) -> impl Iterator<Item = (PgId, Epoch)> + '_ {
        self.0.iter().map(|(&pg, &epoch)| (pg, epoch))
    }

    /// How many PGs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was ever accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(PgId, Epoch)> for Epochs {
    fn from_iter<I: IntoIterator<Item = (PgId, Epoch)>>(pairs: I) -> Epochs {
        let mut epochs = Epochs::default();
        for (pg, epoch) in pairs {
            epochs.accept(pg, epoch);
        }
        epochs
    }
}

fn first(pg: PgId, generation: u16) -> PgId {
    PgId {
        generation,
        number: 0,
        ..pg
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PoolId;

    fn pg(pool: u16, generation: u16, number: u32) -> PgId {
        PgId {
            pool: PoolId(pool),
            generation,
            number,
        }
    }

    #[test]
    fn a_generation_ends_those_before_it() {
        let mut epochs = Epochs::default();
        let accepted = [
            (pg(1, 0, 3), 5, false),
            (pg(1, 0, 3), 4, false),
            (pg(1, 0, 7), 9, false),
            (pg(2, 0, 3), 8, false),
            (pg(1, 2, 3), 6, true),
            (pg(1, 2, 4), 6, false),
            (pg(1, 1, 9), 90, false),
        ];
        for (pg, epoch, takes_over) in accepted {
            assert_eq!(epochs.accept(pg, Epoch(epoch)), takes_over, "{pg} {epoch}");
        }
        let all: Vec<(PgId, u64)> = epochs.iter().map(|(pg, epoch)| (pg, epoch.0)).collect();
        assert_eq!(all, [(pg(1, 2, 3), 6), (pg(1, 2, 4), 6), (pg(2, 0, 3), 8)]);
        let past = [
            pg(1, 0, 3),
            pg(1, 1, 0),
            pg(1, 2, 5),
            pg(1, 3, 3),
            pg(2, 0, 9),
            pg(3, 0, 0),
        ];
        assert_eq!(
            past.map(|pg| epochs.is_past(pg)),
            [true, true, false, false, false, false]
        );
    }
}
