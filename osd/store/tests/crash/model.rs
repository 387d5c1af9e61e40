//! What the store may hold: per object every change asked of it since the last one that was answered.
//! The model computes contents itself and compares whole bytes; it shares no code with the store but the vocabulary.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use trivet_core::buffer::zeroes;
use trivet_core::mark::Mark;
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::{Epoch, ObjectId, OpId, PgId, UNITS_PER_OBJECT, UnitMask, Version};
use trivet_store::api::{ObjectInfo, Reply, Request, StoreError, Ticket};

use crate::Violation;
use crate::campaign::MANY;
use crate::image::PAGE;
use crate::marks::Marks;

/// Fewer objects than this, tombstones included, are never too many for any disk.
const ENTRIES: usize = 512;

/// What the store says of an object without reading it: also the operations that it remembers.
pub type Known = (Option<ObjectInfo>, Vec<OpId>);

/// One object in one version.
#[derive(Clone)]
pub struct Contents {
    pub exists: bool,
    pub version: Version,
    /// The client operations that it remembers, oldest first.
    pub ops: Vec<OpId>,
    pub tombstone: bool,
    pub units: Vec<Option<Bytes>>,
}

/// A change that was asked for.
#[derive(Clone)]
enum Change {
    /// What was there when the history begins.
    Start,
    Write(Rc<Mutation>),
    Forget,
}

/// A change and what the object is after it.
#[derive(Clone)]
struct Entry {
    serial: u64,
    change: Change,
    contents: Rc<Contents>,
}

/// One object over time. The store must hold one of the entries from `answered` on.
#[derive(Clone)]
pub struct History {
    entries: Vec<Entry>,
    answered: usize,
    /// Larger than any version ever used, lost ones included, is larger than this.
    pub newest: Version,
}

#[derive(Clone)]
struct Epochs {
    answered: Epoch,
    asked: Vec<Epoch>,
}

/// A request that is not answered yet.
#[derive(Clone)]
enum Asked {
    Write {
        object: ObjectId,
        serial: u64,
    },
    Stale,
    Read {
        object: ObjectId,
        first: usize,
        count: usize,
        floor: u64,
        /// Whatever can be read of it.
        salvage: bool,
    },
    Accept {
        pg: PgId,
        epoch: Epoch,
    },
    Mark(Mark),
    Forget {
        object: ObjectId,
        serial: Option<u64>,
    },
}

/// What a run is allowed to answer beyond the ordinary.
#[derive(Clone, Copy, Default)]
pub struct Tolerance {
    /// The disk has rotten, or cannot be read now and then: reads may report damage.
    pub damage: bool,
}

/// Counts of what was compared.
#[derive(Clone, Copy, Default)]
pub struct Compared {
    pub writes: u64,
    pub reads: u64,
    pub units: u64,
    pub no_space: u64,
    pub damaged_reads: u64,
    pub failed: u64,
}

/// The model.
#[derive(Clone)]
pub struct Model {
    objects: BTreeMap<ObjectId, History>,
    epochs: BTreeMap<PgId, Epochs>,
    pub marks: Marks,
    asked: BTreeMap<Ticket, Asked>,
    serial: u64,
    next_ticket: u64,
    /// The epoch of new versions; goes up with every crash.
    pub epoch: Epoch,
    pub tolerance: Tolerance,
    /// A write or flush of the disk has failed: requests may be answered with `Failed`.
    pub disk_failed: bool,
    pub compared: Compared,
    /// Data slots of the disk, to judge complaints about space.
    pub slots: usize,
}

impl Contents {
    fn absent() -> Contents {
        Contents {
            exists: false,
            version: Version::NONE,
            ops: Vec::new(),
            tombstone: false,
            units: vec![None; UNITS_PER_OBJECT],
        }
    }

    pub fn present(&self) -> UnitMask {
        (0..UNITS_PER_OBJECT)
            .filter(|&unit| self.units[unit].is_some())
            .fold(UnitMask::EMPTY, |mask, unit| mask.union(UnitMask::range(unit, 1)))
    }

    fn after(&self, mutation: &Mutation) -> Contents {
        let mut next = self.clone();
        next.exists = true;
        (next.version, next.tombstone) = (mutation.version, mutation.tombstone);
        mutation.ops.apply(&mut next.ops);
        mutation.zero.iter().for_each(|unit| next.units[unit] = None);
        for patch in &mutation.patches {
            for unit in 0..patch.units() {
                next.units[patch.first + unit] = Some(patch.data.slice(unit * PAGE..(unit + 1) * PAGE));
            }
        }
        next
    }

    /// What makes an object like this one, whatever it was.
    pub fn as_mutation(&self, object: ObjectId) -> Mutation {
        let run = |(first, count): (usize, usize)| {
            let units = self.units[first..first + count].iter().flatten();
            let bytes: Vec<u8> = units.flat_map(|unit| unit.iter().copied()).collect();
            Patch::seal(object, first, bytes.into())
        };
        Mutation {
            version: self.version,
            ops: Ops::Exactly(self.ops.clone()),
            zero: UnitMask::ALL,
            patches: self.present().runs().map(run).collect(),
            tombstone: self.tombstone,
        }
    }

    fn known(&self) -> Known {
        (self.info(), self.ops.clone())
    }

    fn info(&self) -> Option<ObjectInfo> {
        self.exists.then(|| ObjectInfo {
            version: self.version,
            present: self.present(),
            tombstone: self.tombstone,
        })
    }

    /// Whether `segments` are exactly the units `first..first + count`, with zeroes for `damaged` ones; else the
    /// first wrong unit.
    fn compare(&self, first: usize, count: usize, damaged: UnitMask, segments: &[Bytes]) -> Result<(), String> {
        let zero = zeroes(PAGE);
        let mut pieces = segments.iter().flat_map(|segment| segment.chunks(PAGE));
        for unit in first..first + count {
            let piece = pieces.next().ok_or_else(|| format!("unit {unit} is missing"))?;
            let expected = self.units[unit]
                .as_ref()
                .filter(|_| !damaged.has(unit))
                .unwrap_or(&zero);
            if piece != expected {
                let at = piece.iter().zip(expected.iter()).position(|(a, b)| a != b);
                return Err(format!(
                    "unit {unit} differs from byte {at:?} on ({} bytes)",
                    piece.len()
                ));
            }
        }
        if pieces.next().is_some() {
            Err("more bytes than asked for".to_owned())
        } else {
            Ok(())
        }
    }
}

impl History {
    fn new() -> History {
        let start = Entry {
            serial: 0,
            change: Change::Start,
            contents: Rc::new(Contents::absent()),
        };
        History {
            entries: vec![start],
            answered: 0,
            newest: Version::NONE,
        }
    }

    fn last(&self) -> &Entry {
        self.entries.last().expect("a history has a start")
    }

    /// The answered contents, when no change is under way.
    pub fn settled(&self) -> Option<&Contents> {
        (self.answered + 1 == self.entries.len()).then(|| &*self.last().contents)
    }

    fn answered(&self) -> &Contents {
        &self.entries[self.answered].contents
    }

    /// What the store may hold now.
    fn candidates(&self) -> impl Iterator<Item = &Contents> {
        self.entries[self.answered..].iter().map(|entry| &*entry.contents)
    }

    fn push(&mut self, serial: u64, change: Change) {
        let contents = match &change {
            Change::Write(mutation) => self.last().contents.after(mutation),
            Change::Forget => Contents::absent(),
            Change::Start => unreachable!("only the first entry"),
        };
        self.entries.push(Entry {
            serial,
            change,
            contents: Rc::new(contents),
        });
    }

    fn index(&self, serial: u64) -> usize {
        self.entries
            .iter()
            .position(|entry| entry.serial == serial)
            .expect("unanswered entries are kept")
    }

    /// Takes out a refused write and recomputes what came after it.
    fn remove(&mut self, serial: u64) {
        let index = self.index(serial);
        let rest = self.entries.split_off(index + 1);
        self.entries.pop();
        for entry in rest {
            self.push(entry.serial, entry.change);
        }
    }

    /// Advances `answered` to a write; writes of one object are answered in order.
    fn answer(&mut self, serial: u64) -> Result<(), Violation> {
        let index = self.index(serial);
        let between = self.entries.get(self.answered + 1..index);
        let in_order = between.is_some_and(|all| all.iter().all(|e| matches!(e.change, Change::Forget)));
        if !in_order {
            return Err(Violation(format!(
                "version {} answered before an earlier write of its object, or twice",
                self.entries[index].contents.version
            )));
        }
        self.answered = index;
        Ok(())
    }

    fn prune(&mut self, floor: u64) {
        let floor = floor.min(self.entries[self.answered].serial);
        let gone = self.entries.iter().take_while(|entry| entry.serial < floor).count();
        self.entries.drain(..gone);
        self.answered -= gone;
    }

    /// The entry that `known` tells of, among those that may be there.
    fn find(&self, known: &Known) -> Option<usize> {
        (self.answered..self.entries.len()).find(|&index| self.entries[index].contents.known() == *known)
    }

    fn describe(&self) -> String {
        let all: Vec<String> = self
            .candidates()
            .map(|c| {
                format!(
                    "{} {:?} {} operations{}",
                    c.version,
                    c.present(),
                    c.ops.len(),
                    if c.tombstone { " deleted" } else { "" }
                )
            })
            .collect();
        all.join(", ")
    }
}

impl Model {
    pub fn new(objects: impl IntoIterator<Item = ObjectId>) -> Model {
        Model {
            objects: objects.into_iter().map(|object| (object, History::new())).collect(),
            epochs: BTreeMap::new(),
            marks: Marks::default(),
            asked: BTreeMap::new(),
            serial: 0,
            next_ticket: 0,
            epoch: Epoch(1),
            tolerance: Tolerance::default(),
            disk_failed: false,
            compared: Compared::default(),
            slots: usize::MAX,
        }
    }

    pub fn objects(&self) -> impl ExactSizeIterator<Item = (&ObjectId, &History)> {
        self.objects.iter()
    }

    pub fn history(&self, object: ObjectId) -> &History {
        &self.objects[&object]
    }

    pub fn outstanding(&self) -> usize {
        self.asked.len()
    }

    /// The version for the next write of `object`.
    pub fn next_version(&self, object: ObjectId) -> Version {
        self.objects[&object].newest.next(self.epoch)
    }

    /// Notes a request that is about to be submitted.
    pub fn ask(&mut self, request: &Request) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let asked = match request {
            Request::Write { object, mutation } => self.ask_write(*object, mutation, false),
            Request::Replace { object, mutation } => self.ask_write(*object, mutation, true),
            Request::Read { object, first, count } => self.ask_read(*object, *first, *count, false),
            Request::Salvage { object } => self.ask_read(*object, 0, UNITS_PER_OBJECT, true),
            Request::AcceptEpoch { pg, epoch } => {
                let known = self.epochs.entry(*pg).or_insert(Epochs {
                    answered: Epoch(0),
                    asked: Vec::new(),
                });
                known.asked.push(*epoch);
                Asked::Accept { pg: *pg, epoch: *epoch }
            }
            Request::KeepMark { mark } => {
                self.marks.ask(*mark);
                Asked::Mark(*mark)
            }
            Request::Forget { object, version } => self.ask_forget(*object, *version),
        };
        self.asked.insert(ticket, asked);
        ticket
    }

    fn ask_read(&self, object: ObjectId, first: usize, count: usize, salvage: bool) -> Asked {
        let history = &self.objects[&object];
        Asked::Read {
            object,
            first,
            count,
            floor: history.entries[history.answered].serial,
            salvage,
        }
    }

    fn ask_write(&mut self, object: ObjectId, mutation: &Mutation, replaces: bool) -> Asked {
        self.serial += 1;
        let serial = self.serial;
        let history = self.objects.get_mut(&object).expect("of the run");
        let same = replaces && history.settled().is_some_and(|now| now.version == mutation.version);
        if mutation.version <= history.newest && !same {
            return Asked::Stale;
        }
        history.newest = history.newest.max(mutation.version);
        history.push(serial, Change::Write(Rc::new(mutation.clone())));
        Asked::Write { object, serial }
    }

    /// A forget has an effect only on a settled tombstone of this version; the workload asks for others
    /// only with versions that never were.
    fn ask_forget(&mut self, object: ObjectId, version: Version) -> Asked {
        self.serial += 1;
        let serial = self.serial;
        let history = self.objects.get_mut(&object).expect("of the run");
        if !history
            .settled()
            .is_some_and(|now| now.tombstone && now.version == version)
        {
            return Asked::Forget { object, serial: None };
        }
        history.push(serial, Change::Forget);
        Asked::Forget {
            object,
            serial: Some(serial),
        }
    }

    /// Checks an answer of the store.
    pub fn answer(&mut self, ticket: Ticket, result: Result<Reply, StoreError>) -> Result<(), Violation> {
        let Some(asked) = self.asked.remove(&ticket) else {
            return Err(Violation(format!(
                "{ticket:?} answered twice, or never asked: {result:?}"
            )));
        };
        if let Err(StoreError::Failed(reason)) = &result {
            self.compared.failed += 1;
            let fine = self.disk_failed && !reason.is_empty();
            return if fine {
                Ok(())
            } else {
                Err(Violation(format!("failed for no reason: {reason:?}")))
            };
        }
        match (asked, result) {
            (Asked::Write { object, serial }, Ok(Reply::Written)) => self.written(object, serial),
            (Asked::Write { object, serial }, Err(StoreError::NoSpace)) => self.refused(object, serial),
            (Asked::Stale, Err(StoreError::StaleVersion { .. }))
            | (Asked::Forget { serial: None, .. }, Ok(Reply::Forgotten)) => Ok(()),
            (
                Asked::Read {
                    object,
                    first,
                    count,
                    floor,
                    salvage: false,
                },
                Ok(Reply::Data { version, segments }),
            ) => self.compare_read(object, (first, count), floor, version, UnitMask::EMPTY, &segments),
            (
                Asked::Read {
                    object,
                    floor,
                    salvage: true,
                    ..
                },
                Ok(Reply::Salvaged {
                    version,
                    segments,
                    damaged,
                }),
            ) => {
                self.damage(damaged)?;
                self.compare_read(object, (0, UNITS_PER_OBJECT), floor, version, damaged, &segments)
            }
            (Asked::Read { salvage: false, .. }, Err(StoreError::Damaged { units, .. })) if !units.is_empty() => {
                self.damage(units)
            }
            (Asked::Accept { pg, epoch }, Ok(Reply::Accepted)) => {
                let known = self.epochs.get_mut(&pg).expect("asked for");
                known.answered = known.answered.max(epoch);
                Ok(())
            }
            (Asked::Mark(mark), Ok(Reply::Kept)) => self.marks.answer(mark),
            (
                Asked::Forget {
                    object,
                    serial: Some(serial),
                },
                Ok(Reply::Forgotten),
            ) => {
                let history = self.objects.get_mut(&object).expect("of the run");
                history.answered = history.answered.max(history.index(serial));
                self.prune(object);
                Ok(())
            }
            (asked, result) => Err(Violation(format!("{} answered by {result:?}", asked.describe()))),
        }
    }

    /// Units were reported as damaged; only in a run in which that can be.
    fn damage(&mut self, units: UnitMask) -> Result<(), Violation> {
        if units.is_empty() {
            return Ok(());
        }
        self.compared.damaged_reads += 1;
        if self.tolerance.damage {
            Ok(())
        } else {
            Err(Violation(format!("units {units:?} are damaged for no reason")))
        }
    }

    fn written(&mut self, object: ObjectId, serial: u64) -> Result<(), Violation> {
        self.compared.writes += 1;
        self.objects.get_mut(&object).expect("of the run").answer(serial)?;
        self.prune(object);
        Ok(())
    }

    /// A read under way may still return what was answered when it was asked.
    fn prune(&mut self, object: ObjectId) {
        let floors = self.asked.values().filter_map(|asked| match asked {
            Asked::Read { object: of, floor, .. } if *of == object => Some(*floor),
            _ => None,
        });
        let floor = floors.min().unwrap_or(u64::MAX);
        self.objects.get_mut(&object).expect("of the run").prune(floor);
    }

    /// Only a write that needs space may be refused for lack of it, and only when there is little.
    fn refused(&mut self, object: ObjectId, serial: u64) -> Result<(), Violation> {
        self.compared.no_space += 1;
        let live = self
            .objects
            .values()
            .filter(|h| h.candidates().any(|c| !c.present().is_empty()))
            .count();
        let existing = self.objects.values().filter(|h| h.last().contents.exists).count();
        let history = self.objects.get_mut(&object).expect("of the run");
        let index = history.index(serial);
        let Change::Write(mutation) = &history.entries[index].change else {
            unreachable!("a write was refused")
        };
        let wanted = mutation
            .patches
            .iter()
            .fold(UnitMask::EMPTY, |mask, patch| mask.union(patch.mask()));
        let overwrite = history.entries[history.answered..index]
            .iter()
            .all(|entry| entry.contents.exists && wanted.minus(entry.contents.present()).is_empty());
        // A write that waits may hold a slot besides that of its object.
        let held = live + self.asked.len();
        if overwrite || held * 2 < self.slots && existing < ENTRIES {
            return Err(Violation(format!(
                "no space for {object} {}, {live} of {} slots in use, overwrite: {overwrite}",
                mutation.version, self.slots
            )));
        }
        history.remove(serial);
        Ok(())
    }

    fn compare_read(
        &mut self,
        object: ObjectId,
        (first, count): (usize, usize),
        floor: u64,
        version: Version,
        damaged: UnitMask,
        segments: &[Bytes],
    ) -> Result<(), Violation> {
        self.compared.reads += 1;
        self.compared.units += count as u64;
        let history = &self.objects[&object];
        let entry = history.entries[..=history.answered]
            .iter()
            .find(|entry| entry.serial >= floor && entry.contents.version == version);
        let Some(entry) = entry else {
            let oldest = history
                .entries
                .iter()
                .find(|entry| entry.serial >= floor)
                .map(|e| e.contents.version);
            return Err(Violation(format!(
                "a read of {object} returned version {version}, not one from {oldest:?} to {}",
                history.answered().version
            )));
        };
        entry
            .contents
            .compare(first, count, damaged, segments)
            .map_err(|what| Violation(format!("a read of {object} version {version}: {what}")))
    }

    /// What `info` may say at any time: nothing older than answered, nothing that was not asked for.
    pub fn check_info(&self, object: ObjectId, known: &Known) -> Result<(), Violation> {
        self.survivor(object, known).map(|_| ())
    }

    /// What must be there when everything that was asked for is done.
    pub fn latest(&self, object: ObjectId) -> (Version, bool) {
        let last = &self.objects[&object].last().contents;
        (last.version, !last.exists || last.tombstone)
    }

    fn survivor(&self, object: ObjectId, known: &Known) -> Result<usize, Violation> {
        let history = &self.objects[&object];
        let (info, ops) = (known.0, known.1.len());
        history.find(known).ok_or_else(|| {
            let possible = history.describe();
            Violation(format!(
                "{object} is {info:?}, {ops} operations, must be one of [{possible}]"
            ))
        })
    }

    /// The model after a crash: what the reopened store holds is what was answered; nothing is under way.
    pub fn survived(
        &self,
        known: impl Fn(ObjectId) -> Known,
        epochs: &BTreeMap<PgId, Epoch>,
        mark: Option<Mark>,
    ) -> Result<Model, Violation> {
        let mut next = self.clone();
        next.asked.clear();
        next.marks = self.marks.survived(mark)?;
        next.epoch = Epoch(self.epoch.0 + 1);
        for (&object, history) in &mut next.objects {
            let index = self.survivor(object, &known(object))?;
            let contents = history.entries[index].contents.clone();
            history.entries = vec![Entry {
                serial: 0,
                change: Change::Start,
                contents,
            }];
            history.answered = 0;
        }
        for (&pg, known) in &mut next.epochs {
            let stored = epochs.get(&pg).copied().unwrap_or(Epoch(0));
            let asked = stored == known.answered || known.asked.contains(&stored);
            if stored < known.answered || !asked {
                return Err(Violation(format!(
                    "{pg} is at epoch {stored}, {} was accepted",
                    known.answered
                )));
            }
            *known = Epochs {
                answered: stored,
                asked: Vec::new(),
            };
        }
        if let Some(pg) = epochs.keys().find(|pg| !next.epochs.contains_key(pg)) {
            return Err(Violation(format!("an epoch of {pg} that nobody asked for")));
        }
        Ok(next)
    }

    /// Reads that cover what the store must hold: the present units, or whole objects unless there are many without
    /// any.
    pub fn inventory(&self, whole: bool) -> Vec<Request> {
        let mut reads = Vec::new();
        for (&object, history) in &self.objects {
            let runs: Vec<_> = history.answered().present().runs().collect();
            let whole = whole && (!runs.is_empty() || self.objects.len() < MANY);
            let runs = if whole { vec![(0, UNITS_PER_OBJECT)] } else { runs };
            if whole {
                reads.push(Request::Salvage { object });
            }
            reads.extend(
                runs.into_iter()
                    .map(|(first, count)| Request::Read { object, first, count }),
            );
        }
        reads
    }

    /// Replacements of all objects by what they should be.
    pub fn replacements(&self) -> Vec<Request> {
        let existing = self.objects.iter().filter(|(_, history)| history.answered().exists);
        let replacements = existing.map(|(&object, history)| Request::Replace {
            object,
            mutation: history.answered().as_mutation(object),
        });
        replacements.collect()
    }

    /// How many objects exist, tombstones included, when nothing is under way.
    pub fn existing(&self) -> usize {
        self.objects
            .values()
            .filter(|history| history.answered().exists)
            .count()
    }
}

impl Asked {
    fn describe(&self) -> String {
        match self {
            Asked::Write { object, serial } => format!("write {serial} of {object}"),
            Asked::Stale => "a write with an old version".to_owned(),
            Asked::Read {
                object, first, count, ..
            } => format!("read of {object} units {first}+{count}"),
            Asked::Accept { pg, epoch } => format!("epoch {epoch} of {pg}"),
            Asked::Mark(mark) => format!("mark {}", mark.count),
            Asked::Forget { object, .. } => format!("forget of {object}"),
        }
    }
}
