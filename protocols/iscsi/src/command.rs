//! SCSI commands: from the PDU through the collection of data-out to the backend and back.

use std::collections::VecDeque;

use bytes::Bytes;
use trivet_scsi::{
    BLOCK, BackendError, Command, Context, Outcome, Plan, Response, Sense, accept, compare, decode_lun, finish,
    ignores_attention, perform,
};

use crate::connection::{Action, Connection, Io, Reject};
use crate::data;
use crate::pdu::{Bhs, NO_TAG, opcode};
use crate::task::{DataOut, Direction, Tag, Task};
use crate::wire::Stat;
use crate::{IMMEDIATE, TRANSFER_BUDGET};

/// The memory that transfers hold, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    /// Bytes.
    pub(crate) used: u64,
    /// In the order of arrival.
    waiting: VecDeque<Tag>,
}

impl Transfers {
    fn fits(&self, weight: u64) -> bool {
        self.used == 0 || self.used + weight <= TRANSFER_BUDGET
    }
}

impl Task {
    /// Makes the command fail with `sense`; data that still comes is dropped. The first failure stays.
    fn fail(&mut self, sense: Sense) {
        if self.command.is_ok() {
            self.command = Err(sense);
        }
        self.out.want = 0;
        self.out.pieces.clear();
    }

    fn weight(&self) -> u64 {
        self.command.map_or(0, |command| command.weight().into())
    }
}

impl DataOut {
    /// Takes the next bytes, of which only those up to `want` are kept.
    fn push(&mut self, mut data: Bytes) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let room = self.want.saturating_sub(self.cursor);
        self.cursor = self.cursor.saturating_add(length);
        data.truncate(room as usize);
        if !data.is_empty() {
            self.pieces.push(data);
        }
    }
}

impl Connection {
    /// A SCSI command PDU with its immediate data.
    pub(crate) fn command(&mut self, bhs: &Bhs, immediate: Bytes, io: &mut Io<'_>) {
        let Some(target) = self.target else {
            return self.reject(bhs, Reject::NotSupported, io.out);
        };
        if let Err(reason) = self.admissible(bhs) {
            return self.reject(bhs, reason, io.out);
        }
        let mut task = self.task(target, bhs, io);
        self.first_data(&mut task, bhs, immediate);
        let windowed = task.windowed;
        let Some(tag) = self.tasks.insert(task) else {
            return self.reject(bhs, Reject::TooManyImmediate, io.out);
        };
        self.wire.outstanding += u32::from(windowed);
        self.advance(tag, io);
    }

    fn admissible(&self, bhs: &Bhs) -> Result<(), Reject> {
        if bhs.itt() == NO_TAG {
            return Err(Reject::InvalidField);
        }
        if bhs.flags() & 0x60 == 0x60 {
            return Err(Reject::NotSupported); // no command is bidirectional
        }
        if self.tasks.find(bhs.itt()).is_some() {
            return Err(Reject::TaskInProgress);
        }
        let immediate = self.tasks.len().saturating_sub(self.wire.outstanding as usize);
        if bhs.immediate() && immediate >= IMMEDIATE as usize {
            return Err(Reject::TooManyImmediate);
        }
        Ok(())
    }

    fn task(&mut self, target: u64, bhs: &Bhs, io: &Io<'_>) -> Box<Task> {
        let number = decode_lun(bhs.lun());
        let unit = number.and_then(|lun| io.targets.unit(target, lun));
        let cdb = bhs.field::<16>(32);
        let attention = match (number, unit) {
            (Some(lun), Some(unit)) if self.attentions.touch(lun, unit.size) && !ignores_attention(&cdb) => {
                self.attentions.take(lun)
            }
            _ => None,
        };
        let length = bhs.word20();
        let direction = match bhs.flags() & 0x60 {
            0x40 => Direction::In(length),
            0x20 => Direction::Out(length),
            _ => Direction::None,
        };
        let command = match attention {
            Some(sense) => Err(sense),
            None => accept(&cdb, unit.as_ref()).and_then(|command| whole_pattern(command, direction)),
        };
        let mut out = DataOut::default();
        if let (Direction::Out(length), Ok(command)) = (direction, &command) {
            out.want = command.data_out().min(length);
        }
        Box::new(Task {
            itt: bhs.itt(),
            lun: bhs.lun(),
            number,
            windowed: !bhs.immediate(),
            unit,
            command,
            direction,
            out,
            cost: 0,
            pending: 0,
            data: Vec::new(),
            expected: Vec::new(),
            error: None,
            aborted: false,
        })
    }

    /// The data in the command PDU, and whether unsolicited data follows it.
    fn first_data(&self, task: &mut Task, bhs: &Bhs, data: Bytes) {
        let Direction::Out(length) = task.direction else {
            if !data.is_empty() {
                task.fail(Sense::UNEXPECTED_DATA);
            }
            return;
        };
        task.out.end = length.min(self.parameters.first_burst);
        task.out.unsolicited = !bhs.is_final();
        let immediate = data.is_empty() || self.parameters.immediate_data;
        let unsolicited = bhs.is_final() || !self.parameters.initial_r2t;
        if immediate && unsolicited && data.len() <= task.out.end as usize {
            task.out.push(data);
        } else {
            task.fail(Sense::UNEXPECTED_DATA);
        }
    }

    /// A Data-Out PDU. What belongs to no transfer is dropped: its task may just have been aborted.
    pub(crate) fn data_out(&mut self, bhs: &Bhs, data: Bytes, io: &mut Io<'_>) {
        let transfer = bhs.word20();
        let solicited = transfer != NO_TAG;
        let tag = if solicited {
            Some(Tag(transfer))
        } else {
            self.tasks.find(bhs.itt())
        };
        let Some((tag, task)) = tag.and_then(|tag| Some((tag, self.tasks.get(tag)?))) else {
            return;
        };
        let expected = if solicited {
            task.out.solicited
        } else {
            task.out.unsolicited
        };
        if task.itt != bhs.itt() || !expected || task.aborted {
            return;
        }
        accept_data(task, bhs, data, solicited);
        if bhs.is_final() {
            task.out.solicited = false;
            task.out.unsolicited = false;
            self.advance(tag, io);
        }
    }

    /// Takes a task as far as it goes: to an answer, an R2T, the backend, or the queue for memory.
    fn advance(&mut self, tag: Tag, io: &mut Io<'_>) {
        let Some(task) = self.tasks.get(tag) else {
            return;
        };
        if task.out.unsolicited || task.out.solicited || task.pending > 0 {
            return;
        }
        let command = task.command;
        match command {
            Err(sense) => self.answer(tag, &Response::check(sense), io.out),
            Ok(_) if !self.charge(tag) => {}
            Ok(command) => self.proceed(tag, &command, io),
        }
    }

    /// Charges a task for its memory, or queues it. One whose data is all here already, which is at most a first burst, never
    /// waits.
    fn charge(&mut self, tag: Tag) -> bool {
        let Some(task) = self.tasks.get(tag) else {
            return false;
        };
        let weight = task.weight();
        if task.cost > 0 || weight == 0 {
            return true;
        }
        let here = task.out.cursor >= task.out.want && u64::from(task.out.want) == weight;
        if !here && !self.transfers.fits(weight) {
            self.transfers.waiting.push_back(tag);
            return false;
        }
        task.cost = weight;
        self.transfers.used += weight;
        true
    }

    /// Lets waiting tasks go on that there is room for now.
    pub(crate) fn pump(&mut self, io: &mut Io<'_>) {
        while let Some(tag) = self.transfers.waiting.front().copied() {
            let weight = self.tasks.get(tag).map(|task| task.weight());
            if weight.is_some_and(|weight| !self.transfers.fits(weight)) {
                return;
            }
            self.transfers.waiting.pop_front();
            self.advance(tag, io);
        }
    }

    fn proceed(&mut self, tag: Tag, command: &Command, io: &mut Io<'_>) {
        let Some(task) = self.tasks.get(tag) else {
            return;
        };
        let out = &mut task.out;
        if out.cursor >= out.want {
            return self.start(tag, command, io);
        }
        let length = (out.want - out.cursor).min(self.parameters.max_burst);
        out.end = out.cursor + length;
        out.data_sn = 0;
        out.solicited = true;
        let r2t = Bhs::new(opcode::R2T, 0x80)
            .set(8, task.lun)
            .put(16, task.itt)
            .put(20, tag.0)
            .put(36, task.out.r2t_sn)
            .put(40, task.out.cursor)
            .put(44, length);
        task.out.r2t_sn += 1;
        self.wire.send(r2t, Stat::Show, &[], io.out);
    }

    /// All data-out is here: the device server carries the command out.
    fn start(&mut self, tag: Tag, command: &Command, io: &mut Io<'_>) {
        let Some(task) = self.tasks.get(tag) else {
            return;
        };
        let pieces = std::mem::take(&mut task.out.pieces);
        let unit = task.unit;
        let luns = match (command, self.target) {
            (Command::ReportLuns { .. }, Some(target)) => io.targets.luns(target),
            _ => Vec::new(),
        };
        let attention = match (command, task.number) {
            (Command::RequestSense { .. }, Some(lun)) => self.attentions.take(lun),
            _ => None,
        };
        let expected = if let Direction::In(length) = task.direction {
            length
        } else {
            0
        };
        let context = Context {
            unit: unit.as_ref(),
            luns: &luns,
            attention,
            expected,
        };
        match (perform(command, &context, pieces), unit) {
            (Outcome::Backend(mut plan), Some(unit)) => {
                task.expected = std::mem::take(&mut plan.expected);
                task.pending = emit(plan, tag, unit.image, io.actions);
            }
            (Outcome::Backend(_), None) => self.answer(tag, &Response::check(Sense::NO_UNIT), io.out),
            (Outcome::Done(response), _) => {
                if !response.data.is_empty() {
                    task.data.push(response.data.clone());
                }
                self.answer(tag, &response, io.out);
            }
        }
    }

    /// One operation of a task is done; with the last, the task is.
    pub(crate) fn operation_finished(&mut self, tag: Tag, result: Result<Vec<Bytes>, BackendError>, io: &mut Io<'_>) {
        let Some(task) = self.tasks.get(tag).filter(|task| task.pending > 0) else {
            return;
        };
        task.pending -= 1;
        match (result, task.command) {
            (Ok(data), Ok(Command::Read(_) | Command::Verify { compare: true, .. })) => task.data = data,
            (Ok(_), _) => {}
            (Err(error), _) => task.error = task.error.or(Some(error)),
        }
        if task.pending > 0 {
            return;
        }
        if task.aborted {
            self.release(tag);
            self.settle(io.out);
        } else if let Ok(command) = task.command {
            let response = conclude(&command, task);
            self.answer(tag, &response, io.out);
        }
    }

    /// Sends data-in and status, and ends the task.
    fn answer(&mut self, tag: Tag, response: &Response, out: &mut Vec<Bytes>) {
        if let Some(task) = self.release(tag) {
            data::send(&mut self.wire, &self.parameters, *task, response, out);
        }
    }

    /// Ends a task: its place in the window and its memory are free.
    pub(crate) fn release(&mut self, tag: Tag) -> Option<Box<Task>> {
        let task = self.tasks.remove(tag)?;
        self.wire.outstanding -= u32::from(task.windowed);
        self.transfers.used -= task.cost;
        Some(task)
    }
}

/// WRITE SAME takes exactly one block: half a pattern is none, and of two it would be unclear which.
fn whole_pattern(command: Command, direction: Direction) -> Result<Command, Sense> {
    match (command, direction) {
        (Command::WriteSame { no_data: false, .. }, Direction::Out(length)) if length != BLOCK => {
            Err(Sense::LIST_LENGTH)
        }
        _ => Ok(command),
    }
}

/// The answer to a command whose operations are done.
fn conclude(command: &Command, task: &mut Task) -> Response {
    match (command, task.error) {
        (Command::Verify { compare: true, .. }, None) => {
            let read = std::mem::take(&mut task.data);
            compare(&read, &task.expected)
        }
        (_, error) => finish(command, error.map_or(Ok(()), Err)),
    }
}

/// Puts a plan's operations out and counts them.
fn emit(plan: Plan, tag: Tag, image: u64, actions: &mut Vec<Action>) -> u32 {
    let before = actions.len();
    actions.push(Action::Io {
        tag,
        image,
        op: plan.first,
    });
    actions.extend(plan.rest.into_iter().map(|op| Action::Io { tag, image, op }));
    u32::try_from(actions.len() - before).unwrap_or(u32::MAX)
}

/// Checks a Data-Out PDU against its sequence and takes its data; what is wrong fails the task, whose sequence goes on to its
/// end.
fn accept_data(task: &mut Task, bhs: &Bhs, data: Bytes, solicited: bool) {
    if task.command.is_err() {
        return;
    }
    let out = &mut task.out;
    let in_order = bhs.word(36) == out.data_sn && bhs.word(40) == out.cursor;
    let room = out.end.saturating_sub(out.cursor) as usize;
    if data.len() > room {
        return task.fail(if solicited {
            Sense::INCORRECT_DATA
        } else {
            Sense::UNEXPECTED_DATA
        });
    }
    if !in_order || (solicited && bhs.is_final() && data.len() != room) {
        return task.fail(Sense::INCORRECT_DATA);
    }
    out.data_sn += 1;
    out.push(data);
}
