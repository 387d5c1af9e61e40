//! Which objects each PG has: lists of entry numbers, so that whatever concerns one PG costs what that PG holds, not what
//! the disk holds.
//!
//! A store finds out from its OSD how the PGs of a pool are numbered. Before it knows, and when a pool's PGs are
//! renumbered, the index sorts the pool's objects anew; otherwise a list changes only when an object comes or goes.

use std::collections::BTreeMap;

use trivet_core::{Numbering, ObjectId, PgId, PoolId};

/// The objects of all PGs of all pools whose numbering is known.
#[derive(Debug, Default)]
pub struct Groups {
    pools: BTreeMap<PoolId, Pool>,
}

/// The PGs of a pool that have objects here.
#[derive(Debug)]
struct Pool {
    numbering: Numbering,
    pgs: BTreeMap<u32, Vec<u32>>,
}

impl Groups {
    /// How a pool's PGs are numbered, as far as this store knows.
    pub fn numbering(&self, pool: PoolId) -> Option<Numbering> {
        self.pools.get(&pool).map(|pool| pool.numbering)
    }

    /// The PGs of a pool are numbered so from now on. All of its objects have to be added again.
    pub fn renumber(&mut self, pool: PoolId, numbering: Numbering) {
        let pgs = BTreeMap::new();
        self.pools.insert(pool, Pool { numbering, pgs });
    }

    /// Adds an object's entry to its PG's list: its place there. None if the numbering of its pool is not known.
    pub fn add(&mut self, object: ObjectId, entry: u32) -> Option<u32> {
        let pool = self.pools.get_mut(&object.image.pool())?;
        let list = pool.pgs.entry(object.pg(pool.numbering).number).or_default();
        list.push(entry);
        Some(u32::try_from(list.len() - 1).expect("fewer than 2^32 objects"))
    }

    /// Takes out the entry at this place of the list of the object's PG: the entry that has this place now, if there is
    /// one.
    pub fn remove(&mut self, object: ObjectId, place: u32) -> Option<u32> {
        let pool = self.pools.get_mut(&object.image.pool()).expect("it was added");
        let number = object.pg(pool.numbering).number;
        let list = pool.pgs.get_mut(&number).expect("it was added");
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        if list.is_empty() {
            pool.pgs.remove(&number);
        }
        moved
    }

    /// The entries of a PG's objects, in an order that only depends on what happened; none if the PG is of another
    /// numbering than the pool's present one.
    pub fn entries(&self, pg: PgId) -> &[u32] {
        let pool = self.pools.get(&pg.pool);
        let list = pool.filter(|pool| pool.numbering.generation == pg.generation);
        list.and_then(|pool| pool.pgs.get(&pg.number))
            .map_or(&[], Vec::as_slice)
    }

    /// The PGs that have objects here, ascending.
    pub fn pgs(&self) -> impl Iterator<Item = PgId> + '_ {
        self.pools.iter().flat_map(|(&id, pool)| {
            let generation = pool.numbering.generation;
            pool.pgs.keys().map(move |&number| PgId {
                pool: id,
                generation,
                number,
            })
        })
    }
}
