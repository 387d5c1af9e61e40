//! One image operation in progress: which parts are still to be issued, what came back.

use std::collections::VecDeque;

use bytes::Bytes;
use trivet_core::kv::Revision;
use trivet_core::map::ClusterMap;
use trivet_core::message::Action;
use trivet_core::{ImageId, Now, Numbering, PgId, PoolId};

use crate::dispatch::Epochs;
use crate::split::{first_slice, payload, slices};
use crate::stamps::Caller;
use crate::sweep::Sweep;
use crate::{ImageOp, IoError, Ticket, turns};

/// Object operations of one image operation that are under way at once: covers the largest read or write of every
/// protocol (32 MiB).
const WINDOW: usize = 256;

/// Zeroes in more objects than this go by turns.
const SMALL_ZERO: usize = 16;

/// Which piece of a job an object operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part(usize);

#[derive(Debug)]
enum Work {
    Read {
        next: u64,
        end: u64,
    },
    Write {
        start: u64,
        next: u64,
        end: u64,
        data: Vec<Bytes>,
    },
    Zero {
        next: u64,
        end: u64,
    },
    Sweep(Sweep),
    /// The PGs that are still to be asked.
    Barrier(VecDeque<PgId>, Revision),
    Stopped,
}

/// One operation on an image, which becomes operations on its objects.
#[derive(Debug)]
pub(crate) struct Job {
    /// The caller's.
    pub ticket: Ticket,
    pub image: ImageId,
    pub numbering: Numbering,
    /// Who wants it.
    pub caller: Caller,
    /// When something of it was answered last, or it began.
    pub moved: Now,
    /// It makes much empty, and takes turns with others that do.
    pub by_turns: bool,
    work: Work,
    issued: usize,
    answered: usize,
    /// The data of each part of a read.
    results: Vec<Vec<Bytes>>,
    error: Option<IoError>,
}

impl Job {
    pub(crate) fn new(ticket: Ticket, image: ImageId, numbering: Numbering, op: ImageOp, caller: Caller) -> Job {
        let (mut results, mut by_turns) = (Vec::new(), false);
        let work = match op {
            ImageOp::Read { offset, len } => {
                let end = offset.saturating_add(len);
                results.resize(slices(offset, end), Vec::new());
                Work::Read { next: offset, end }
            }
            ImageOp::Write { offset, data } => {
                let len: u64 = data.iter().map(|segment| segment.len() as u64).sum();
                Work::Write {
                    start: offset,
                    next: offset,
                    end: offset.saturating_add(len),
                    data,
                }
            }
            ImageOp::Zero { offset, len } => {
                let end = offset.saturating_add(len);
                let objects = slices(offset, end);
                by_turns = objects > SMALL_ZERO;
                // Asking costs as much as there are PGs.
                if by_turns && objects > numbering.count as usize {
                    Work::Sweep(Sweep::zero(image, numbering, offset..end))
                } else {
                    Work::Zero { next: offset, end }
                }
            }
            ImageOp::Purge => {
                by_turns = true;
                Work::Sweep(Sweep::purge(image, numbering))
            }
        };
        Job {
            results,
            caller,
            by_turns,
            ..Job::of(ticket, image, numbering, work)
        }
    }

    /// A barrier of all PGs of a pool.
    pub(crate) fn barrier(ticket: Ticket, pool: PoolId, numbering: Numbering, revision: Revision) -> Job {
        let work = Work::Barrier(numbering.pgs(pool).collect(), revision);
        Job::of(ticket, ImageId::new(pool, 0), numbering, work)
    }

    fn of(ticket: Ticket, image: ImageId, numbering: Numbering, work: Work) -> Job {
        Job {
            ticket,
            image,
            numbering,
            caller: Caller::Own,
            moved: Now(0),
            by_turns: false,
            work,
            issued: 0,
            answered: 0,
            results: Vec::new(),
            error: None,
        }
    }

    /// The next object operation to issue, if there is one and the window has room.
    pub(crate) fn next_part(&mut self) -> Option<(Part, PgId, Action)> {
        let window = if self.by_turns { turns::MOST } else { WINDOW };
        if self.issued - self.answered >= window || self.error.is_some() {
            return None;
        }
        let (pg, action) = self.next_action()?;
        let part = Part(self.issued);
        self.issued += 1;
        Some((part, pg, action))
    }

    fn next_action(&mut self) -> Option<(PgId, Action)> {
        let (image, numbering) = (self.image, self.numbering);
        match &mut self.work {
            Work::Read { next, end } => {
                let slice = take(image, next, *end)?.1;
                let action = Action::Read {
                    object: slice.object,
                    offset: slice.offset,
                    len: slice.len,
                };
                Some((slice.object.pg(numbering), action))
            }
            Work::Write { start, next, end, data } => {
                let (at, slice) = take(image, next, *end)?;
                let data = payload(data, *start, at, slice.len);
                let action = Action::Write {
                    object: slice.object,
                    offset: slice.offset,
                    data,
                };
                Some((slice.object.pg(numbering), action))
            }
            Work::Zero { next, end } => {
                let slice = take(image, next, *end)?.1;
                let action = Action::Zero {
                    object: slice.object,
                    offset: slice.offset,
                    len: slice.len,
                };
                Some((slice.object.pg(numbering), action))
            }
            Work::Sweep(sweep) => sweep.next(),
            Work::Barrier(pgs, revision) => {
                let revision = *revision;
                Some((pgs.pop_front()?, Action::Barrier { revision }))
            }
            Work::Stopped => None,
        }
    }

    /// Nothing more of it is issued.
    pub(crate) fn stop(&mut self) {
        self.work = Work::Stopped;
    }

    /// The pool's objects fall into other PGs now. `dropped` lists or barriers were under way, and are not answered any more.
    /// `asks`: see [`Sweep::renumber`].
    pub(crate) fn renumber(&mut self, numbering: Numbering, dropped: usize, asks: bool) {
        self.numbering = numbering;
        self.answered += dropped;
        match &mut self.work {
            Work::Sweep(sweep) => sweep.renumber(numbering, asks),
            Work::Barrier(pgs, _) => *pgs = numbering.pgs(self.image.pool()).collect(),
            Work::Read { .. } | Work::Write { .. } | Work::Zero { .. } | Work::Stopped => {}
        }
    }

    /// A part was executed.
    pub(crate) fn part_done(&mut self, part: Part, data: Vec<Bytes>) {
        self.answered += 1;
        if let Some(slot) = self.results.get_mut(part.0) {
            *slot = data;
        }
    }

    /// A part failed: no further parts are issued.
    pub(crate) fn part_failed(&mut self, error: IoError) {
        self.answered += 1;
        self.error.get_or_insert(error);
    }

    /// A PG listed objects of the range that is being swept.
    pub(crate) fn listed(&mut self, pg: PgId, numbers: &[u64], complete: bool) {
        self.answered += 1;
        if let Work::Sweep(sweep) = &mut self.work {
            sweep.listed(pg, numbers, complete);
        }
    }

    /// A PG executed a part in one of these epochs.
    pub(crate) fn executed(&mut self, pg: PgId, epochs: Epochs) {
        if let Work::Sweep(sweep) = &mut self.work {
            sweep.executed(pg, epochs);
        }
    }

    /// A removal that has nothing else to do looks what the PGs' histories say; whether that changed anything.
    pub(crate) fn settle(&mut self, map: &ClusterMap) -> bool {
        let swept = self.is_swept();
        match &mut self.work {
            Work::Sweep(sweep) if swept => sweep.settle(map),
            _ => false,
        }
    }

    /// It waits for nothing but PGs that are not clean.
    pub(crate) fn is_swept(&self) -> bool {
        let swept = |sweep: &Sweep| sweep.is_exhausted() && !sweep.is_settled();
        self.issued == self.answered && matches!(&self.work, Work::Sweep(sweep) if swept(sweep))
    }

    /// Everything was issued and answered, or a part failed and nothing is under way.
    pub(crate) fn is_complete(&self) -> bool {
        let exhausted = match &self.work {
            Work::Read { next, end } | Work::Write { next, end, .. } | Work::Zero { next, end } => next >= end,
            Work::Sweep(sweep) => sweep.is_exhausted() && sweep.is_settled(),
            Work::Barrier(pgs, _) => pgs.is_empty(),
            Work::Stopped => true,
        };
        self.issued == self.answered && (exhausted || self.error.is_some())
    }

    /// It is a write, and some of it was executed.
    pub(crate) fn is_partly_written(&self) -> bool {
        matches!(self.work, Work::Write { .. }) && self.answered > 0
    }

    /// The result of a complete job; `backwards` is how a deliberate bug wants it.
    pub(crate) fn into_result(mut self, backwards: bool) -> Result<Vec<Bytes>, IoError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if backwards {
            self.results.reverse();
        }
        if self.results.len() == 1 {
            return Ok(self.results.swap_remove(0));
        }
        Ok(self.results.into_iter().flatten().collect())
    }
}

/// Takes the first slice of `[next, end)` and moves `next` behind it; also where it started.
fn take(image: ImageId, next: &mut u64, end: u64) -> Option<(u64, crate::split::Slice)> {
    if *next >= end {
        return None;
    }
    let at = *next;
    let slice = first_slice(image, at, end);
    *next += slice.len as u64;
    Some((at, slice))
}
