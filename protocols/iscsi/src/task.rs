//! The tasks of a connection: a slab with a tag per task that is never mistaken for an older one.

use bytes::Bytes;
use trivet_scsi::{BackendError, Command, Sense, Unit};

use crate::{IMMEDIATE, WINDOW};

/// Names a task to the backend, and its transfer to the initiator (the target transfer tag).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// Tasks that a connection holds at most.
const CAPACITY: usize = (WINDOW + IMMEDIATE) as usize;
/// Generations of a slot; a tag is then never 0xFFFF_FFFF, which is reserved.
const GENERATIONS: u32 = 0x7FFF;

/// Which way the initiator expects data to go, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    None,
    In(u32),
    Out(u32),
}

/// The data-out of a task. Sequences come in order, so one cursor follows them.
#[derive(Debug, Default)]
pub(crate) struct DataOut {
    /// The pieces up to `want`.
    pub(crate) pieces: Vec<Bytes>,
    /// Bytes that the command needs and the initiator has.
    pub(crate) want: u32,
    /// Bytes that came.
    pub(crate) cursor: u32,
    /// Where the present sequence ends, at most.
    pub(crate) end: u32,
    /// DataSN of the next PDU of the present sequence.
    pub(crate) data_sn: u32,
    /// Unsolicited data is still to come.
    pub(crate) unsolicited: bool,
    /// An R2T is outstanding.
    pub(crate) solicited: bool,
    /// R2Ts that were sent.
    pub(crate) r2t_sn: u32,
}

/// A SCSI command from its arrival to its answer.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) itt: u32,
    pub(crate) lun: [u8; 8],
    pub(crate) number: Option<u64>,
    /// Whether it occupies the command window.
    pub(crate) windowed: bool,
    pub(crate) unit: Option<Unit>,
    pub(crate) command: Result<Command, Sense>,
    pub(crate) direction: Direction,
    pub(crate) out: DataOut,
    /// Bytes of the transfer budget that it holds.
    pub(crate) cost: u64,
    /// Backend operations under way.
    pub(crate) pending: u32,
    /// What a READ (or a comparing VERIFY) has read.
    pub(crate) data: Vec<Bytes>,
    /// What a comparing VERIFY is to read.
    pub(crate) expected: Vec<Bytes>,
    /// The first error of its operations.
    pub(crate) error: Option<BackendError>,
    /// No answer is to be sent.
    pub(crate) aborted: bool,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    task: Option<Box<Task>>,
}

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Initiator task tags by slot, side by side for a quick search; meaningful where there is a task.
    itts: Vec<u32>,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a task, unless there are too many.
    pub(crate) fn insert(&mut self, task: Box<Task>) -> Option<Tag> {
        let index = match self.free.pop() {
            Some(index) => usize::from(index),
            None if self.slots.len() < CAPACITY => {
                self.slots.push(Slot::default());
                self.itts.push(0);
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index];
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.itts[index] = task.itt;
        slot.task = Some(task);
        Some(tag(index, slot.generation))
    }

    pub(crate) fn get(&mut self, tag: Tag) -> Option<&mut Task> {
        let slot = self.slots.get_mut((tag.0 & 0xFFFF) as usize)?;
        if slot.generation == tag.0 >> 16 {
            slot.task.as_deref_mut()
        } else {
            None
        }
    }

    pub(crate) fn remove(&mut self, tag: Tag) -> Option<Box<Task>> {
        let index = u16::try_from(tag.0 & 0xFFFF).ok()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        if slot.generation != tag.0 >> 16 {
            return None;
        }
        let task = slot.task.take()?;
        self.free.push(index);
        Some(task)
    }

    /// The task with the initiator's tag `itt`.
    pub(crate) fn find(&self, itt: u32) -> Option<Tag> {
        let mut places = self.itts.iter().zip(&self.slots).enumerate();
        let (index, (_, slot)) = places.find(|(_, (own, slot))| **own == itt && slot.task.is_some())?;
        Some(tag(index, slot.generation))
    }

    /// The tags of the tasks that `f` chooses.
    pub(crate) fn select(&self, f: impl Fn(&Task) -> bool) -> Vec<Tag> {
        let tasks = self.slots.iter().enumerate();
        let chosen = tasks.filter(|(_, slot)| slot.task.as_deref().is_some_and(&f));
        chosen.map(|(index, slot)| tag(index, slot.generation)).collect()
    }
}

fn tag(index: usize, generation: u32) -> Tag {
    Tag(generation << 16 | u32::try_from(index).expect("fewer slots than 2^16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(itt: u32) -> Box<Task> {
        Box::new(Task {
            itt,
            lun: [0; 8],
            number: Some(0),
            windowed: true,
            unit: None,
            command: Ok(Command::Nothing),
            direction: Direction::None,
            out: DataOut::default(),
            cost: 0,
            pending: 0,
            data: Vec::new(),
            expected: Vec::new(),
            error: None,
            aborted: false,
        })
    }

    #[test]
    fn an_old_tag_names_nothing() {
        let mut tasks = Tasks::default();
        let old = tasks.insert(task(7)).unwrap();
        assert_eq!(tasks.find(7), Some(old));
        tasks.remove(old).unwrap();
        assert_eq!(tasks.find(7), None);
        let new = tasks.insert(task(7)).unwrap();
        assert_ne!(old, new);
        assert!(tasks.get(old).is_none() && tasks.remove(old).is_none());
        assert!(tasks.get(new).is_some());
        assert!(tasks.get(Tag(u32::MAX)).is_none());
    }

    #[test]
    fn there_is_a_limit() {
        let mut tasks = Tasks::default();
        for itt in 0..u32::try_from(CAPACITY).unwrap() {
            assert!(tasks.insert(task(itt)).is_some());
        }
        assert_eq!(tasks.insert(task(999)), None);
        assert_eq!(tasks.len(), CAPACITY);
        assert_eq!(tasks.select(|task| task.itt < 3).len(), 3);
    }
}
