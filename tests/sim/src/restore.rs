//! The metadata store is put back to an earlier time, or is empty for a while before that; and the administrator who
//! wanted it, and has the cluster go on with it.
//!
//! It happens while every copy is where it shall be and every OSD has seen a mark that the backup does not have. What
//! comes from an OSD that was away all the time nobody could tell from what is new.

use std::collections::BTreeSet;
use std::time::Duration;

use trivet_core::adopt::{Adoption, Hindrance};
use trivet_core::keys::{self, OsdConfig};
use trivet_core::kv::{Change, Notice, Revision, Txn};
use trivet_core::map::encode;
use trivet_core::witness::Witnesses;
use trivet_core::{ClientId, Now, OsdId};
use trivet_namespace::{Caller, Context, Namespace};

use crate::event::{Event, Undo};
use crate::gateways::wall;
use crate::kv::Kv;
use crate::mutants;
use crate::network::Place;
use crate::osds::OsdSlot;
use crate::random::Random;
use crate::world::{Phase, World};

/// A backup that is younger is not put back: most often it would say the same.
const AGE: Duration = Duration::from_secs(15);
/// An older one is made anew.
const TOO_OLD: Duration = Duration::from_secs(240);
/// The store is empty for so long at most before it is put back.
const EMPTY: Duration = Duration::from_secs(20);
/// Everybody knows of it after this time.
const KNOWN: Duration = Duration::from_secs(60);
/// While the administrator is at work, a step is done with one of so many chores.
const STEP: u64 = 4;

/// A copy of the store.
#[derive(Debug)]
pub struct Backup {
    kv: Kv,
    made: Now,
    /// The mark that it has.
    mark: u64,
}

impl World {
    /// Makes a backup, or puts the last one back.
    pub(crate) fn restore_metadata(&mut self, random: &mut Random) -> Option<Duration> {
        let age = self.metadata.backup.as_ref().map(|backup| self.now.since(backup.made));
        match age {
            Some(age) if age < AGE => return None,
            Some(age) if age < TOO_OLD => {}
            _ => {
                self.back_up();
                return None;
            }
        }
        if self.swarm.hostile || self.metadata.is_empty || !self.is_known_everywhere() {
            return None;
        }
        let wiped = random.one_in(4);
        let ahead = random.pick(&[0, 0, 1000, 1_000_000]).copied().unwrap_or(0);
        if !wiped {
            self.put_back(ahead);
            return Some(KNOWN);
        }
        let lasts = random.duration(Duration::from_millis(100)..=EMPTY);
        self.metadata.is_empty = true;
        self.replace_store(&Kv::new(), 1);
        self.schedule.at(self.now + lasts, Event::Undo(Undo::Empty(ahead)));
        Some(lasts + KNOWN)
    }

    fn back_up(&mut self) {
        if self.metadata.is_empty {
            return;
        }
        let mark = self.truth.mark.as_ref().map_or(0, |mark| mark.value.latest().count);
        self.metadata.backup = Some(Backup {
            kv: self.kv.clone(),
            made: self.now,
            mark,
        });
        self.tree.back_up();
    }

    /// Whether all copies are where they shall be, and every OSD would know the backup for one.
    fn is_known_everywhere(&self) -> bool {
        let mark = self.metadata.backup.as_ref().map_or(0, |backup| backup.mark);
        let has_seen = |slot: &OsdSlot| {
            let seen = slot.machine.as_ref().and_then(|machine| machine.store().mark());
            seen.is_some_and(|seen| seen.count > mark)
        };
        self.osds.iter().all(has_seen) && !self.atlas.any() && self.is_clean() && self.replicas_differ().is_none()
    }

    /// Puts the backup in the place of the store. Others that share it have taken so many commits since the lost ones.
    pub(crate) fn put_back(&mut self, ahead: Revision) {
        self.metadata.is_empty = false;
        let Some(backup) = self.metadata.backup.take() else {
            return;
        };
        let revision = match ahead {
            0 => 0,
            ahead => self.kv.revision() + ahead,
        };
        self.replace_store(&backup.kv, revision);
        self.tree.put_back(self.now);
        // What was written before has the time that the backup has.
        self.written.clear();
    }

    fn replace_store(&mut self, with: &Kv, revision: Revision) {
        self.kv.put_back(self.now, with, revision);
        self.metadata.era += 1;
        self.metadata.replaced = self.now;
        self.metadata.commits.clear();
        self.trace.line(
            self.now,
            format_args!("the metadata store is put back: {}", self.kv.revision()),
        );
        self.truth.apply(&self.kv.replaced());
        self.online.put_back(&self.truth);
        self.register_anew();
        for place in 0..self.meta() {
            self.wake(place);
        }
    }

    /// What the watch of a process says first of a store that took the place of the one that it watched.
    pub(crate) fn news_of_store(&mut self, place: Place) -> Option<Notice> {
        let process = &mut self.processes[place];
        let era = std::mem::replace(&mut process.era, self.metadata.era);
        (era != self.metadata.era && process.watch.is_some()).then(|| self.kv.replaced())
    }

    /// The administrator has the cluster go on, when everybody was heard.
    pub(crate) fn administer(&mut self) {
        if self.metadata.is_empty || self.metadata.is_away(self.now) {
            return;
        }
        if self.truth.halted.is_none() {
            return self.admit_again();
        }
        self.nemesis.busy(self.now + Duration::from_secs(5));
        if self.phase == Phase::Safety && !self.random.one_in(STEP) {
            return;
        }
        let mut witnesses = Witnesses::default();
        witnesses.apply(&self.kv.snapshot(), 0);
        // Those whose disks were replaced do not come back. Those that were added since the backup are not missed by it, but by
        // the administrator, who has started them all.
        let there: BTreeSet<OsdId> = self.osds.iter().map(|slot| slot.number).collect();
        let members = self.truth.members.keys().copied();
        let without: BTreeSet<OsdId> = members.filter(|osd| !there.contains(osd)).collect();
        let adoption = Adoption {
            map: &self.truth,
            witnesses: &witnesses,
            without: &without,
        };
        let heard: BTreeSet<OsdId> = adoption.heard().map(|(osd, _)| osd).collect();
        if !there.is_subset(&heard) {
            return;
        }
        let step = adoption.check().and_then(|()| match adoption.step()? {
            Some(txn) => Ok(txn),
            None => match lost(&self.kv, &adoption, self.now) {
                Some(txn) => Ok(txn),
                None => Ok(mutants::adoption(self.mutant, adoption.last(1, self.now)?)),
            },
        });
        match step {
            Ok(txn) => {
                self.kv.transact(self.now, &txn);
                self.committed();
            }
            Err(Hindrance::NotHeard(_) | Hindrance::NotDown(_)) => {}
            Err(why) => self.fail(format!("the store cannot be adopted: {why}")),
        }
    }

    /// An OSD that was added since the backup, and was not there when the store was adopted, is added again.
    fn admit_again(&mut self) {
        let unknown = |slot: &&OsdSlot| !self.truth.members.contains_key(&slot.number);
        let unknown = self.osds.iter().filter(unknown).map(|slot| {
            let config = OsdConfig {
                size: slot.size,
                ..OsdConfig::default()
            };
            Change::put(keys::osd_config(slot.number), encode(&config))
        });
        let changes: Vec<Change> = unknown.collect();
        if self.metadata.era > 0 && !changes.is_empty() {
            self.commit(changes);
        }
    }

    /// A backup that is still to be put back is, before everything has to come together.
    pub(crate) fn end_of_restores(&mut self) {
        if self.metadata.is_empty {
            self.put_back(0);
        }
    }
}

/// Names for the first of the files that the store does not know; none if there are none. No handle leads to them.
fn lost(kv: &Kv, adoption: &Adoption<'_>, now: Now) -> Option<Txn> {
    let mut names = Namespace::default();
    names.apply(&kv.snapshot());
    let context = Context {
        caller: Caller::root(),
        now: wall(now),
        pool: None,
        gateway: ClientId(0),
    };
    let plan = names.plan_lost(adoption.images(), adoption.free_number(), &context);
    plan.expect("the tree is whole").map(|plan| plan.txn)
}
