//! Whether the metadata store is the one that this OSD's data belongs to.
//!
//! A store that was restored from a backup, or wiped, knows of acting sets, epochs and images as of an earlier time. Who
//! acted on that would serve old data, and drop the new as strays. So an OSD remembers the latest mark of the store that
//! it saw, and whenever it reads everything anew it compares also what it has: epochs that the store never gave, images
//! that are still to be given. Until that is settled it claims nothing, and neither drops nor forgets anything.
//!
//! A mirror may be stale, and so no proof. The proof is a transaction that compares what the doubt rests on: if it
//! commits, the store is as it was read, and `config/halted` is in it, which makes everybody stand still. If it is
//! refused, the mirror was behind.

use std::time::Duration;

use trivet_core::keys;
use trivet_core::kv::{Change, Compare, Revision, Txn};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::mark::{Halted, Mark};
use trivet_core::{Epoch, Epochs, Now, PgId};
use trivet_store::api::Request;

use crate::ctx::{Ctx, TxnWait, Wait};
use crate::options::mutant;

/// What was not written is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What this OSD knows the metadata store by.
#[derive(Debug, Default)]
pub(crate) struct Recognition {
    /// The latest mark that was seen.
    seen: Option<Mark>,
    /// What this OSD has, and the store must know of, as of when everything was read; none once that was compared.
    past: Option<Past>,
    /// The halt that a store had which took the place of another: it was in a backup.
    returned: Option<Revision>,
    tried_at: Option<Now>,
    under_way: Option<u64>,
}

/// What an OSD has that came from the metadata store.
#[derive(Clone, Debug, Default)]
struct Past {
    epochs: Epochs,
    /// No object is of an image with this number or a higher one.
    next_image: u64,
}

/// Why the store cannot be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    reason: String,
    /// It is as this OSD has read it.
    same: Compare,
}

impl Recognition {
    /// The store is open: what it remembers is to be compared.
    pub(crate) fn begin(&mut self, ctx: &mut Ctx, accepted: &Epochs) {
        self.seen = ctx.store.mark();
        self.past = Some(Past::of(ctx, accepted));
        self.recognise(ctx);
    }

    /// Another metadata store, or another state of it, took the place of the one that was read.
    pub(crate) fn replaced(&mut self, ctx: &mut Ctx, accepted: &Epochs) {
        self.past = Some(Past::of(ctx, accepted));
        self.returned = ctx.map.halted.as_ref().map(|halted| halted.revision);
        ctx.usage.replaced();
    }

    /// Compares, and halts or takes note of the latest mark.
    pub(crate) fn recognise(&mut self, ctx: &mut Ctx) {
        let of_mark = self.seen.and_then(|seen| older_mark(&ctx.map, seen));
        let doubt = of_mark.or_else(|| self.past.as_ref().and_then(|past| unknown_past(&ctx.map, past)));
        ctx.doubt = doubt.filter(|_| !mutant!(ctx.options, BelieveAnyStore));
        if ctx.is_halted() {
            return self.halt(ctx);
        }
        self.past = None;
        self.keep_mark(ctx);
    }

    /// Remembers the latest mark.
    fn keep_mark(&mut self, ctx: &mut Ctx) {
        let Some(mark) = ctx.map.mark.as_ref().map(|mark| mark.value.latest()) else {
            return;
        };
        if self.seen.is_none_or(|seen| seen.count < mark.count) {
            self.seen = Some(mark);
            ctx.ask(Request::KeepMark { mark }, Wait::Nobody);
        }
    }

    /// Has everybody stand still, if the store is as this OSD has read it.
    fn halt(&mut self, ctx: &mut Ctx) {
        let due = self.tried_at.is_none_or(|at| ctx.now.since(at) >= TRY_AGAIN);
        if !due || self.under_way.is_some() {
            return;
        }
        let (same, reason) = match (&ctx.map.halted, &ctx.doubt) {
            // What was testified in it, and came back, says nothing of now.
            (Some(halted), _) if self.returned == Some(halted.revision) => {
                let same = Compare::ModRevision(keys::HALTED.to_owned(), halted.revision);
                (vec![same], halted.value.reason.clone())
            }
            (None, Some(doubt)) => {
                let absent = Compare::Absent(keys::HALTED.to_owned());
                (vec![doubt.same.clone(), absent], doubt.reason.clone())
            }
            _ => return,
        };
        let by = ctx.id();
        let txn = Txn {
            compare: same,
            changes: vec![Change::put(keys::HALTED, encode(&Halted { reason, by }))],
        };
        self.tried_at = Some(ctx.now);
        self.under_way = Some(ctx.run_txn(txn, TxnWait::Halt));
    }

    pub(crate) fn ended(&mut self, ticket: u64) {
        self.under_way.take_if(|under_way| *under_way == ticket);
    }
}

impl Past {
    fn of(ctx: &Ctx, accepted: &Epochs) -> Past {
        let numbers = ctx.store.objects().map(|(object, _)| object.image.number());
        Past {
            epochs: accepted.clone(),
            next_image: numbers.max().map_or(0, |number| number + 1),
        }
    }
}

/// The store's marks are not those of the one in which `seen` was the latest.
fn older_mark(map: &ClusterMap, seen: Mark) -> Option<Doubt> {
    let Some(marks) = &map.mark else {
        return Some(Doubt {
            reason: format!("no mark, and not {}", seen.count),
            same: Compare::Absent(keys::MARK.to_owned()),
        });
    };
    Some(Doubt {
        reason: marks.value.contradiction(seen)?,
        same: Compare::ModRevision(keys::MARK.to_owned(), marks.revision),
    })
}

/// The store does not know of what it must have given.
fn unknown_past(map: &ClusterMap, past: &Past) -> Option<Doubt> {
    let epochs = past.epochs.iter();
    let mut of_epochs =
        epochs.filter_map(|(pg, epoch)| unknown_pool(map, pg).or_else(|| unknown_epoch(map, pg, epoch)));
    of_epochs.next().or_else(|| unknown_image(map, past.next_image))
}

/// The pool is still to be made, or its PGs are still to be renumbered.
fn unknown_pool(map: &ClusterMap, pg: PgId) -> Option<Doubt> {
    if let Some(pool) = map.pools.get(&pg.pool) {
        return (pool.value.generation < pg.generation).then(|| Doubt {
            reason: format!("PG {pg} is of a later generation than pool {}", pg.pool),
            same: Compare::ModRevision(keys::pool(pg.pool), pool.revision),
        });
    }
    let (next, same) = match &map.next_pool {
        Some(next) => (
            next.value,
            Compare::ModRevision(keys::NEXT_POOL.to_owned(), next.revision),
        ),
        None => {
            let last = map.pools.last_key_value().map_or(0, |(id, _)| u32::from(id.0));
            (last + 1, Compare::Absent(keys::NEXT_POOL.to_owned()))
        }
    };
    // One that was removed is none to wonder about.
    (u32::from(pg.pool.0) >= next).then(|| Doubt {
        reason: format!("pool {} is still to be made", pg.pool),
        same,
    })
}

/// An epoch was accepted that nobody has claimed yet.
fn unknown_epoch(map: &ClusterMap, pg: PgId, accepted: Epoch) -> Option<Doubt> {
    if !map.is_current(pg) {
        return None;
    }
    let key = keys::history(pg);
    let (claimed, same) = match map.histories.get(&pg) {
        Some(history) => (history.value.epoch, Compare::ModRevision(key, history.revision)),
        None => (Epoch(0), Compare::Absent(key)),
    };
    (claimed < accepted).then(|| Doubt {
        reason: format!("epoch {claimed} < {accepted} of PG {pg}"),
        same,
    })
}

/// There are objects of an image whose number is still to be given.
fn unknown_image(map: &ClusterMap, next_image: u64) -> Option<Doubt> {
    let next = map.next_image.as_ref().filter(|next| next.value < next_image)?;
    Some(Doubt {
        reason: format!("next image {:x} < {next_image:x}", next.value),
        same: Compare::ModRevision(keys::NEXT_IMAGE.to_owned(), next.revision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use trivet_core::PoolId;
    use trivet_core::keys::{History, Pool};
    use trivet_core::kv::{KeyValue, Notice, Revision};
    use trivet_core::mark::Marks;

    const PG: PgId = PgId::first(PoolId(2), 1);

    fn kv(key: impl Into<String>, value: Bytes, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: key.into(),
            value,
            mod_revision,
        }
    }

    /// A store that knows mark 5, pool 2 with 4 PGs, epoch 7 of one of them, and image numbers up to 100.
    fn map() -> ClusterMap {
        let pool = Pool {
            pg_count: 4,
            ..Pool::default()
        };
        let history = History {
            epoch: Epoch(7),
            intervals: Vec::new(),
        };
        let keys = vec![
            kv(keys::MARK, encode(&Marks::first(mark(5))), 1),
            kv(keys::pool(PoolId(2)), encode(&pool), 2),
            kv(keys::history(PG), encode(&history), 3),
            kv(keys::NEXT_IMAGE, encode(&101_u64), 4),
        ];
        let mut map = ClusterMap::default();
        map.apply(&Notice::Snapshot { revision: 9, keys });
        map
    }

    fn mark(count: u64) -> Mark {
        Mark { count, draw: 77 }
    }

    fn past(pg: PgId, epoch: u64, next_image: u64) -> Past {
        Past {
            epochs: [(pg, Epoch(epoch))].into_iter().collect(),
            next_image,
        }
    }

    fn said(doubt: Option<Doubt>) -> Option<(String, String)> {
        let doubt = doubt?;
        let key = match doubt.same {
            Compare::ModRevision(key, revision) => format!("{key}@{revision}"),
            Compare::Absent(key) => format!("no {key}"),
            other => panic!("{other:?} proves nothing"),
        };
        Some((doubt.reason, key))
    }

    #[test]
    fn marks_are_compared() {
        let map = map();
        assert_eq!(said(older_mark(&map, mark(5))), None);
        assert_eq!(said(older_mark(&map, mark(4))), None);
        let older = ("mark 5 < 6".to_owned(), "config/mark@1".to_owned());
        assert_eq!(said(older_mark(&map, mark(6))), Some(older));
        let wiped = ("no mark, and not 6".to_owned(), "no config/mark".to_owned());
        assert_eq!(said(older_mark(&ClusterMap::default(), mark(6))), Some(wiped));
    }

    #[test]
    fn what_the_store_gave_it_must_know_of() {
        let map = map();
        let later = PgId { generation: 1, ..PG };
        let table = [
            (past(PG, 7, 101), None),
            (past(PG, 3, 0), None),
            (past(PG, 8, 0), Some(("epoch 7 < 8 of PG 2/1", "pg/2/1/history@3"))),
            (
                past(PgId { number: 2, ..PG }, 1, 0),
                Some(("epoch 0 < 1 of PG 2/2", "no pg/2/2/history")),
            ),
            (
                past(later, 1, 0),
                Some(("PG 2.1/1 is of a later generation than pool 2", "pool/2@2")),
            ),
            (
                past(PgId { pool: PoolId(3), ..PG }, 1, 0),
                Some(("pool 3 is still to be made", "no config/next_pool")),
            ),
            // It was removed.
            (past(PgId { pool: PoolId(1), ..PG }, 90, 0), None),
            (past(PG, 7, 102), Some(("next image 65 < 66", "config/next_image@4"))),
        ];
        for (past, expected) in table {
            let found = said(unknown_past(&map, &past));
            let found = found.as_ref().map(|(reason, key)| (reason.as_str(), key.as_str()));
            assert_eq!(found, expected, "{past:?}");
        }
    }
}
