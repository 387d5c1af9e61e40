//! What the gateway does on its own: removing the data of removed and truncated files, and writing times of
//! modification.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use trivet_client::{ImageOp, IoError};
use trivet_core::{ImageId, Now};
use trivet_namespace::{Caller, Operation, Time, Trimming};

use crate::gateway::{Effect, Gateway, Origin};
use crate::options::mutant;
use crate::session::Space;

/// Images whose data is removed at the same time.
const PURGES: usize = 4;
/// Removals of which the metadata store is told at the same time: many may end at once.
const ENDING: usize = 16;
/// What failed is tried again after this time.
const AGAIN: Duration = Duration::from_millis(500);
/// What has not moved for so long is told.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// So many things that do not move are told.
const STUCK_SHOWN: usize = 3;

/// How far the removal of an image's data is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The client removes it, under this ticket.
    Io(u64),
    /// It is gone, for good.
    Gone,
    /// The metadata store is asked, since then.
    Txn(Now),
    /// It could not be removed, at that time.
    Failed(IoError, Now),
}

impl Stage {
    /// Whether it is time to try again.
    fn is_due(self, now: Now) -> bool {
        matches!(self, Stage::Failed(_, at) if now.since(at) >= AGAIN)
    }
}

/// Files whose times one transaction moves: no more, so that there is room for all that a transaction carries.
const TOUCHES: usize = 64;

/// What is left to do for removed, truncated and written files when no client waits for it.
#[derive(Debug)]
pub(crate) struct Background {
    /// When images were written; the tree of names does not know it yet.
    pub touched: BTreeMap<ImageId, Time>,
    /// As of the last report of the OSDs.
    pub space: Space,
    /// The times that are on their way.
    touching: BTreeMap<ImageId, Time>,
    /// How many go at a time: fewer after a refusal, so that a file which others change all the time comes to travel alone.
    touches: usize,
    /// The last that went.
    last_touched: ImageId,
    purging: BTreeMap<ImageId, Stage>,
    /// The truncations whose data is being removed, or that are being taken over.
    trimming: BTreeMap<ImageId, (Trimming, Stage)>,
}

impl Default for Background {
    fn default() -> Background {
        Background {
            touched: BTreeMap::new(),
            space: Space::default(),
            touching: BTreeMap::new(),
            touches: TOUCHES,
            last_touched: ImageId(0),
            purging: BTreeMap::new(),
            trimming: BTreeMap::new(),
        }
    }
}

impl Gateway {
    /// Starts what is to be done and not under way.
    pub(crate) fn run_background(&mut self, out: &mut Vec<Effect>) {
        self.start_purges();
        self.end_purges(out);
        self.end_trims_of_removed(out);
        let now = self.clock.now;
        let trims: Vec<_> = self.namespace.trims().collect();
        for (image, trimming) in trims {
            let under_way = self.background.trimming.get(&image);
            if under_way.is_some_and(|(_, stage)| !stage.is_due(now)) {
                continue;
            }
            if trimming.by == self.id {
                self.start_trim(image);
            } else if mutant!(self.options, LeaveTrims) {
                continue;
            } else if !self.is_fenced(trimming.by) {
                self.fence(trimming.by, out);
            } else {
                self.background.trimming.insert(image, (trimming, Stage::Txn(now)));
                let operation = Operation::TakeTrim { id: image, trimming };
                self.start_change(Origin::Trim(image), operation, Caller::root(), out);
            }
        }
    }

    fn start_purges(&mut self) {
        let now = self.clock.now;
        let in_use_too = mutant!(self.options, PurgeInUse);
        let purging = &mut self.background.purging;
        purging.retain(|_, stage| !stage.is_due(now));
        // What waits for PGs to become clean, or is over, keeps nobody from making room.
        let makes_room = |stage: &&Stage| match stage {
            Stage::Io(ticket) => !self.client.is_swept(*ticket),
            Stage::Txn(_) | Stage::Failed(..) => true,
            Stage::Gone => false,
        };
        let room = PURGES.saturating_sub(purging.values().filter(makes_room).count());
        let purges = self.namespace.purges().map(|(id, _)| id);
        let next: Vec<ImageId> = purges
            .filter(|id| !purging.contains_key(id) && (in_use_too || !self.namespace.is_used(*id)))
            .take(room)
            .collect();
        for image in next {
            let ticket = self.start_io(Origin::Purge(image), image, ImageOp::Purge, None);
            self.background.purging.insert(image, Stage::Io(ticket));
        }
    }

    /// What a truncation cut off of a file that is gone meanwhile goes with the rest of it.
    fn end_trims_of_removed(&mut self, out: &mut Vec<Effect>) {
        let is_gone = |image: &ImageId| self.namespace.inode(*image).is_none();
        let gone: Vec<ImageId> = self.background.trimming.keys().copied().filter(is_gone).collect();
        for image in gone {
            if let Some((_, Stage::Io(ticket))) = self.background.trimming.get(&image) {
                self.client.stop(*ticket, &mut self.from_client);
            }
            self.trim_done(image, true, out);
        }
    }

    /// Whether a truncation by this gateway has left data to be removed.
    pub(crate) fn is_trimming(&self, image: ImageId) -> bool {
        self.namespace
            .inode(image)
            .and_then(|inode| inode.trimming)
            .is_some_and(|t| t.by == self.id)
    }

    /// Removes what a truncation cut off, once all who use the image have agreed.
    pub(crate) fn start_trim(&mut self, image: ImageId) {
        let Some(trimming) = self.namespace.inode(image).and_then(|inode| inode.trimming) else {
            return;
        };
        let under_way = self.background.trimming.get(&image);
        if under_way.is_some_and(|(_, stage)| !stage.is_due(self.clock.now)) || !self.has_grace(image) {
            return;
        }
        let op = ImageOp::Zero {
            offset: trimming.from,
            len: trimming.to.saturating_sub(trimming.from),
        };
        let ticket = self.start_io(Origin::Trim(image), image, op, None);
        self.background.trimming.insert(image, (trimming, Stage::Io(ticket)));
    }

    /// Reports the truncation that was begun: by now there may be another one, whose data is still there.
    pub(crate) fn trim_io_ended(&mut self, image: ImageId, result: Result<(), IoError>, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        // The file may be gone.
        let Some((trimming, stage)) = self.background.trimming.get_mut(&image) else {
            return;
        };
        let trimming = *trimming;
        match result {
            Err(error) => *stage = Stage::Failed(error, now),
            Ok(()) => {
                *stage = Stage::Txn(now);
                let operation = Operation::TrimDone { id: image, trimming };
                self.start_change(Origin::Trim(image), operation, Caller::root(), out);
            }
        }
    }

    /// A truncation's data is gone (or somebody else took care): those who waited for it are answered.
    pub(crate) fn trim_done(&mut self, image: ImageId, ok: bool, out: &mut Vec<Effect>) {
        self.background.trimming.remove(&image);
        if !ok || self.is_trimming(image) {
            return;
        }
        for (change, outcome) in self.changes.trimming.remove(&image).unwrap_or_default() {
            self.finish_change(&change, Ok(outcome), out);
        }
        self.retry_changes(out);
    }

    pub(crate) fn purge_io_ended(&mut self, image: ImageId, result: Result<(), IoError>, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        match result {
            Err(error) => {
                self.background.purging.insert(image, Stage::Failed(error, now));
            }
            Ok(()) => {
                self.background.purging.insert(image, Stage::Gone);
                self.end_purges(out);
            }
        }
    }

    /// Tells the metadata store of removals that are over.
    fn end_purges(&mut self, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        let purging = &self.background.purging;
        let told = purging.values().filter(|stage| matches!(stage, Stage::Txn(_))).count();
        let gone = purging.iter().filter(|(_, stage)| matches!(stage, Stage::Gone));
        let next: Vec<ImageId> = gone.map(|(&id, _)| id).take(ENDING.saturating_sub(told)).collect();
        for image in next {
            self.background.purging.insert(image, Stage::Txn(now));
            let operation = Operation::PurgeDone { id: image };
            self.start_change(Origin::Purge(image), operation, Caller::root(), out);
        }
    }

    pub(crate) fn purge_done(&mut self, image: ImageId) {
        self.background.purging.remove(&image);
    }

    /// Truncations and removals whose data does not go, and why.
    pub(crate) fn stuck_removals(&self) -> Vec<String> {
        let name = |image: ImageId| match self.namespace.path_of(image) {
            Some(path) => String::from_utf8_lossy(&path).into_owned(),
            None => image.to_string(),
        };
        let Background { purging, trimming, .. } = &self.background;
        let trims = trimming.iter().filter_map(|(&image, (_, stage))| {
            let why = self.why_stuck(*stage)?;
            Some(format!("the truncation of {} {why}", name(image)))
        });
        let purges = purging.iter().filter_map(|(&image, stage)| {
            let why = self.why_stuck(*stage)?;
            Some(format!("the removal of the data of image {image} {why}"))
        });
        let mut told: Vec<String> = trims.chain(purges).collect();
        let more = told.len().saturating_sub(STUCK_SHOWN);
        told.truncate(STUCK_SHOWN);
        if more > 0 {
            told.push(format!("{more} more truncations and removals do not end"));
        }
        told
    }

    fn why_stuck(&self, stage: Stage) -> Option<String> {
        let has_waited = |since: Now| self.clock.now.since(since) >= STUCK_AFTER;
        match stage {
            Stage::Io(ticket) => {
                let (_, pg) = self.client.waits(ticket).filter(|(since, _)| has_waited(*since))?;
                Some(format!("waits for PG {pg}"))
            }
            Stage::Gone => None,
            Stage::Txn(since) => has_waited(since).then(|| "waits for the metadata store".to_owned()),
            Stage::Failed(error, _) => Some(format!("fails: {error}")),
        }
    }

    /// Writes times of modification, in one transaction at a time; those that find no room go with the next. A file that is
    /// growing gets its time with its size.
    pub(crate) fn write_touched(&mut self, out: &mut Vec<Effect>) {
        if !self.background.touching.is_empty() {
            return;
        }
        let background = &self.background;
        let behind = background.touched.range((Excluded(background.last_touched), Unbounded));
        let before = background.touched.range(..=background.last_touched);
        let due = behind.chain(before).filter(|(id, _)| !self.is_growing(**id));
        let times: Vec<(ImageId, Time)> = due.take(background.touches).map(|(&id, &time)| (id, time)).collect();
        let Some(&(last, _)) = times.last() else { return };
        self.background.last_touched = last;
        self.background.touching = times.iter().copied().collect();
        self.start_change(Origin::Touch, Operation::Touch { times }, Caller::root(), out);
    }

    /// Times of modification were written, or not.
    pub(crate) fn touches_done(&mut self, ok: bool) {
        let background = &mut self.background;
        background.touches = match ok {
            true => (background.touches * 2).min(TOUCHES),
            false => (background.touches / 2).max(1),
        };
        for (image, written) in std::mem::take(&mut background.touching) {
            let gone = self.namespace.inode(image).is_none();
            if gone || (ok && background.touched.get(&image) == Some(&written)) {
                background.touched.remove(&image);
            }
        }
    }
}
