//! The end of a run: everything is healed, and then everything has to come together again.

use std::collections::BTreeMap;

use trivet_core::{NodeId, ObjectId, OsdId, PgId, Version};

use crate::network::Place;
use crate::world::World;
use trivet_core::OBJECT_SIZE;

/// What a replica says of an object.
type Copy = (Version, bool, u64);

impl World {
    /// Every trouble ends now.
    pub(crate) fn heal_everything(&mut self) {
        self.trace.line(self.now, format_args!("everything is healed"));
        self.network.heal();
        self.streams.heal();
        self.end_of_restores();
        self.metadata.end_troubles();
        self.kv.extend_all(self.now);
        self.atlas.close();
        let numbers: Vec<OsdId> = self.truth.members.keys().copied().collect();
        numbers.into_iter().for_each(|osd| self.take_out(osd, false));
        self.heal_nothing(false);
        for place in 0..self.meta() {
            self.processes[place].watch_late = self.now;
            if place < self.osds.len() {
                self.osds[place].doom = None;
                let disk = &mut self.osds[place].disk;
                (disk.slow, disk.frozen_until) = (1, self.now);
                disk.disarm();
            }
            self.revive(place);
        }
    }

    fn revive(&mut self, place: Place) {
        let process = &self.processes[place];
        let life = process.life;
        if process.alive {
            return self.resume(place, life);
        }
        let replaced = self.osds.get(place).is_some_and(|slot| slot.awaits_operator);
        if replaced {
            self.replace(place, life);
        } else {
            self.start(place);
        }
    }

    /// Why the cluster is not together again; `None` if it is.
    pub(crate) fn apart(&self) -> Option<String> {
        let waiting = self.waiting();
        if waiting > 0 {
            return Some(format!("{waiting} operations wait: {}", self.who_waits()));
        }
        if self.atlas.any() {
            return Some(format!("damage is not healed: {}", self.atlas.describe()));
        }
        if let Some(halted) = &self.truth.halted {
            return Some(format!("all stand still: {halted:?}"));
        }
        if !self.is_clean() {
            return Some("not all PGs are clean".into());
        }
        if let Some(what) = self.unfinished() {
            return Some(what);
        }
        self.replicas_differ()
            .or_else(|| self.space_lost())
            .or_else(|| self.miscounted())
            .or_else(|| self.ownerless())
            .or_else(|| self.outdated())
    }

    /// A change of the number of PGs that is not over, or left something behind.
    fn unfinished(&self) -> Option<String> {
        let truth = &self.truth;
        let pools = truth.pools.values().map(|pool| &pool.value);
        let mut changing = pools.filter(|pool| pool.pgs_wanted.is_some() || pool.pgs_before.is_some());
        if let Some(pool) = changing.next() {
            return Some(format!("the number of PGs is being changed: {pool:?}"));
        }
        let known = truth
            .claims
            .keys()
            .chain(truth.histories.keys())
            .chain(truth.scrubs.keys());
        let mut over = known.filter(|pg| !truth.is_current(**pg));
        over.next().map(|pg| format!("keys of PG {pg} are left, which is over"))
    }

    /// The PG of an object. The pool is never removed.
    fn pg_of(&self, object: ObjectId) -> PgId {
        self.truth.pg_of(object).unwrap_or_default()
    }

    fn holdings(&self, place: Place) -> BTreeMap<PgId, BTreeMap<ObjectId, Copy>> {
        let mut all: BTreeMap<PgId, BTreeMap<ObjectId, Copy>> = BTreeMap::new();
        let Some(machine) = &self.osds[place].machine else {
            return all;
        };
        for (object, info) in machine.objects() {
            let copy = (info.version, info.tombstone, machine.store().digest(object));
            all.entry(self.pg_of(object)).or_default().insert(object, copy);
        }
        all
    }

    /// Members have the same objects, others have none.
    pub(crate) fn replicas_differ(&self) -> Option<String> {
        let mut model: BTreeMap<PgId, (OsdId, BTreeMap<ObjectId, Copy>)> = BTreeMap::new();
        for (place, slot) in self.osds.iter().enumerate() {
            let mut holdings = self.holdings(place);
            for id in self.truth.pgs() {
                let pg = self.truth.plan_of(id)?;
                let mine = holdings.remove(&id).unwrap_or_default();
                if !pg.osds.contains(&slot.number) {
                    if let Some(object) = mine.keys().next() {
                        return Some(format!("OSD {} still has {object} of PG {id}", slot.number));
                    }
                    continue;
                }
                let (other, theirs) = model.entry(id).or_insert_with(|| (slot.number, mine.clone()));
                if *theirs != mine {
                    return Some(difference(id, (*other, theirs), (slot.number, &mine)));
                }
            }
        }
        None
    }

    /// Why not all tombstones are gone.
    pub(crate) fn unforgotten(&self) -> Option<String> {
        self.osds.iter().find_map(|slot| {
            let mut objects = slot.machine.as_ref()?.objects();
            let (object, _) = objects.find(|(_, info)| info.tombstone)?;
            let pg = self.pg_of(object);
            Some(format!(
                "OSD {} still has the tombstone of {object} of PG {pg}",
                slot.number
            ))
        })
    }

    /// Slots are used by objects, and by nothing else.
    fn space_lost(&self) -> Option<String> {
        self.osds.iter().find_map(|slot| {
            let machine = slot.machine.as_ref()?;
            let most = machine.objects().filter(|(_, info)| !info.present.is_empty()).count();
            let used = machine.store().stats().used / OBJECT_SIZE as u64;
            (used > most as u64).then(|| format!("OSD {}: {used} slots for {most} objects", slot.number))
        })
    }

    /// The state of the cluster, for people.
    pub(crate) fn describe(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for (&pg, claim) in &self.truth.claims {
            let claim = &claim.value;
            let up = self.truth.plan_of(pg);
            let history = self
                .truth
                .histories
                .get(&pg)
                .map(|history| history.value.intervals.len());
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "\n  PG {pg}: epoch {} of {} acting {:?} active {} missing {}, {history:?} intervals, plan {:?}",
                claim.epoch,
                claim.primary,
                claim.acting.iter().map(|osd| osd.0).collect::<Vec<_>>(),
                claim.active,
                claim.missing,
                up.map(|up| (up.osds.iter().map(|osd| osd.0).collect::<Vec<_>>(), up.primary)),
            );
        }
        for (place, slot) in self.osds.iter().enumerate() {
            let process = &self.processes[place];
            let state = slot.machine.as_ref().map(trivet_osd::Osd::state);
            let up = self.truth.is_up(slot.number);
            let at = self.place_of(NodeId::Osd(slot.number));
            let _ = write!(
                text,
                "\n  OSD {} at {at:?}: {state:?}, up {up}, lease {:?}",
                slot.number, process.lease
            );
        }
        let _ = write!(
            text,
            "\n  {} monitors, leader {:?}",
            self.monitors.len(),
            self.truth.leader
        );
        text
    }
}

fn difference(
    pg: PgId,
    (left, one): (OsdId, &BTreeMap<ObjectId, Copy>),
    (right, two): (OsdId, &BTreeMap<ObjectId, Copy>),
) -> String {
    let objects = one.keys().chain(two.keys());
    let object = objects.copied().find(|object| one.get(object) != two.get(object));
    let show = |copies: &BTreeMap<ObjectId, Copy>| object.and_then(|object| copies.get(&object).copied());
    format!(
        "PG {pg}: OSDs {left} and {right} differ in {object:?}: {:x?} and {:x?}",
        show(one),
        show(two)
    )
}
