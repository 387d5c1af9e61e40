//! Does every acknowledgement rest on enough durable copies at its moment?
//!
//! When an OSD tells a client that its change is done, the acting set has at least `min_size` members and each of them
//! has the change on its disk. What a store took for durable last is asked of the store itself: it is exact, and cheap.
//! Whether that is the truth is tried now and then: a fresh store opens a copy of the disk from which the power was
//! taken at that moment.

use std::collections::BTreeMap;

use trivet_core::message::{Action, Message, Op, OpValue};
use trivet_core::{ClientId, ObjectId, OpId, OsdId, PgId, UnitMask};
use trivet_osd::Osd;
use trivet_store::api::Output;
use trivet_store::{State, Store};

use crate::disk::Disk;
use crate::mutants;
use crate::network::Place;
use crate::osds::OsdSlot;
use crate::world::{CLUSTER, World};

/// One acknowledgement in so many is compared with the disks.
const TRIED: u64 = 300;

/// A change that a client asked for, as it was sent last.
#[derive(Clone, Copy, Debug)]
struct Asked {
    pg: PgId,
    object: ObjectId,
    /// The units of which it leaves nothing; none where it writes, and leaves a trace whatever was there before.
    empties: Option<UnitMask>,
}

impl Asked {
    fn of(op: &Op) -> Option<Asked> {
        let object = op.action.object().filter(|_| op.action.is_mutation())?;
        let writes = matches!(op.action, Action::Write { .. });
        Some(Asked {
            pg: op.pg,
            object,
            empties: (!writes).then(|| op.action.units()),
        })
    }
}

/// What the checker has to know, and how much it checked.
#[derive(Debug, Default)]
pub struct Copies {
    asked: BTreeMap<OpId, Asked>,
    /// Acknowledgements that were checked.
    pub checked: u64,
    /// Disks that were opened to see whether stores tell the truth.
    pub opened: u64,
}

impl Copies {
    /// A client asks for something. What it says is answered nobody waits for, nor for what it says so of one object: that may
    /// as well have been given up, and what is left of it in a queue counts as executed.
    pub fn asks(&mut self, op: &Op) {
        let before = |sequence: u64| OpId { sequence, ..op.id };
        let settled = self.asked.range(before(0)..before(op.settled));
        let answered = self.asked.range(before(0)..before(op.answered.max(op.settled)));
        let object = op.action.object();
        let answered = answered.filter(|(_, asked)| Some(asked.object) == object);
        // Between a change and the one that it names as the one before, all of the object were given up.
        let given_up = self
            .asked
            .range(before(op.previous.saturating_add(1).min(op.id.sequence))..op.id);
        let given_up = given_up.filter(|(_, asked)| Some(asked.object) == object && op.action.is_mutation());
        let over: Vec<OpId> = settled.chain(answered).chain(given_up).map(|(&id, _)| id).collect();
        for id in over {
            self.asked.remove(&id);
        }
        if let Some(asked) = Asked::of(op) {
            self.asked.insert(op.id, asked);
        }
    }

    /// A client is gone: nobody waits for its answers.
    pub fn is_gone(&mut self, client: ClientId) {
        self.asked.retain(|id, _| id.client != client);
    }
}

/// What a store has of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    /// It says that the operation is done.
    Done,
    /// There is nothing of what the operation shall make empty. Then it changes nothing, and leaves no trace; the removal that
    /// comes next may count it among what it replaced.
    Empty,
    /// Neither.
    None,
}

fn copy(store: &Store, asked: Asked, op: OpId) -> Copy {
    let present = store.info(asked.object).map_or(UnitMask::EMPTY, |info| info.present);
    match asked.empties {
        _ if store.executed(asked.object, op) => Copy::Done,
        Some(units) if !present.intersects(units) => Copy::Empty,
        _ => Copy::None,
    }
}

impl World {
    /// An OSD answers a client: is it true?
    pub(crate) fn check_answer(&mut self, place: Place, message: &Message) {
        let Message::OpDone(done) = message else { return };
        let Some(asked) = self.copies.asked.get(&done.id).copied() else {
            return;
        };
        if done.result != Ok(OpValue::Changed) {
            return;
        }
        // Nobody hears that any more, and objects need not remember what a fenced client did.
        if !self.truth.clients.contains_key(&done.id.client) {
            return;
        }
        // A PG that began anew in the same step does not say any more who acted.
        let machine = self.osds[place].machine.as_ref();
        let Some(acting) = machine
            .and_then(|machine| machine.acting(asked.pg))
            .map(<[OsdId]>::to_vec)
        else {
            return;
        };
        self.copies.checked += 1;
        let copies: Vec<(OsdId, Option<Copy>)> = acting
            .iter()
            .map(|&osd| (osd, self.copy_at(osd, asked, done.id)))
            .collect();
        let those = |copy: Copy| copies.iter().filter(move |(_, found)| *found == Some(copy));
        let lacking: Vec<OsdId> = those(Copy::None).map(|&(osd, _)| osd).collect();
        let changed_nothing = asked.empties.is_some() && those(Copy::Done).next().is_none();
        if acting.len() < self.swarm.min_size || !(lacking.is_empty() || changed_nothing) {
            let number = self.osds[place].number;
            return self.fail(format!(
                "OSD {number} acknowledges operation {:?} on {}, of which {lacking:?} of the acting {acting:?} have no copy; the \
                 pool wants {}",
                done.id, asked.object, self.swarm.min_size,
            ));
        }
        if lacking.is_empty() && self.copies.checked.is_multiple_of(TRIED) {
            self.try_disks(&acting, asked, done.id);
        }
    }

    /// What an OSD has of the change durably: as its store says, or said when its process ended, or as its disk says when
    /// the store has failed. None when nobody can tell. What an operator has replaced was there when it was said to be.
    fn copy_at(&self, osd: OsdId, asked: Asked, op: OpId) -> Option<Copy> {
        let slot = self.osds.iter().find(|slot| slot.number == osd)?;
        let serves = |machine: &&Osd| machine.state() == State::Ready;
        match slot.machine.as_ref().filter(serves).or(slot.before.as_ref()) {
            Some(machine) => Some(copy(machine.store(), asked, op)),
            None if self.hurts_disks() => None,
            None => Some(self.on_disk(slot, asked, op).unwrap_or(Copy::None)),
        }
    }

    /// Disks that are hurt prove nothing.
    fn hurts_disks(&self) -> bool {
        self.swarm.hostile || self.atlas.any()
    }

    /// What a fresh store finds on a copy of the disk from which the power is taken.
    fn on_disk(&self, slot: &OsdSlot, asked: Asked, op: OpId) -> Result<Copy, String> {
        let options = mutants::store_options(self.mutant, (CLUSTER, slot.number));
        open(slot.disk.without_power(), options).map(|store| copy(&store, asked, op))
    }

    /// Compares what the members' stores say with what is on their disks.
    fn try_disks(&mut self, acting: &[OsdId], asked: Asked, op: OpId) {
        if self.hurts_disks() {
            return;
        }
        for &osd in acting {
            let Some(slot) = self.osds.iter().find(|slot| slot.number == osd) else {
                continue;
            };
            let found = self.on_disk(slot, asked, op);
            self.copies.opened += 1;
            if matches!(found, Ok(Copy::None) | Err(_)) {
                let what = format!(
                    "operation {op:?} on {} is acknowledged, and the disk of OSD {osd} says {found:?}",
                    asked.object
                );
                return self.fail(what);
            }
        }
    }
}

/// The store that is on a disk.
///
/// # Errors
/// Why it cannot be opened.
fn open(mut disk: Disk, options: trivet_store::Options) -> Result<Store, String> {
    let mut output = Output::default();
    let mut store = Store::open(disk.size(), options, &mut output);
    loop {
        match store.state() {
            State::Ready => return Ok(store),
            State::Failed(why) => return Err(why),
            State::Opening if output.disk.is_empty() => return Err("it waits for nothing".into()),
            State::Opening => {}
        }
        for op in std::mem::take(&mut output.disk) {
            let id = op.id;
            disk.submit(op).map_err(|misuse| misuse.to_string())?;
            if let Some(done) = disk.complete(id) {
                store.completed(done, &mut output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trivet_core::{Epoch, ImageId};

    use super::*;

    #[test]
    fn what_was_answered_is_forgotten() {
        let op = |sequence, settled, previous| Op {
            id: OpId {
                client: ClientId(1),
                sequence,
            },
            pg: PgId::default(),
            epoch: Epoch(1),
            settled,
            answered: 0,
            previous,
            stamp: trivet_core::Tick::default(),
            action: Action::Remove {
                object: ObjectId {
                    image: ImageId(1),
                    number: 0,
                },
            },
        };
        let mut copies = Copies::default();
        // Asked for, as of which settled ones and behind which one; what somebody waits for then.
        for (sequence, settled, previous, left) in [
            (5, 5, 0, &[5][..]),
            (6, 5, 5, &[5, 6]),
            (8, 6, 6, &[6, 8]),
            (9, 6, 6, &[6, 9]),
        ] {
            copies.asks(&op(sequence, settled, previous));
            let asked: Vec<u64> = copies.asked.keys().map(|id| id.sequence).collect();
            assert_eq!(asked, left, "{sequence}");
        }
        copies.is_gone(ClientId(1));
        assert!(copies.asked.is_empty());
    }
}
