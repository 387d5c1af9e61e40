//! What the gateway does on its own: removing the data of removed and truncated files, and writing times of
//! modification.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use trivet_client::ImageOp;
use trivet_core::ImageId;
use trivet_namespace::{Caller, Operation, Time, Trimming};

use crate::gateway::{Effect, Gateway, Origin};
use crate::session::Space;

/// Images whose data is removed at the same time.
const PURGES: usize = 4;

/// Files whose times one transaction moves: no more, so that there is room for all that a transaction carries.
const TOUCHES: usize = 64;

/// See the module.
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
    purging: BTreeSet<ImageId>,
    /// The truncations whose data is being removed, or that are being taken over.
    trimming: BTreeMap<ImageId, Trimming>,
}

impl Default for Background {
    fn default() -> Background {
        Background {
            touched: BTreeMap::new(),
            space: Space::default(),
            touching: BTreeMap::new(),
            touches: TOUCHES,
            last_touched: ImageId(0),
            purging: BTreeSet::new(),
            trimming: BTreeMap::new(),
        }
    }
}

impl Gateway {
    /// Starts what is to be done and not under way.
    pub(crate) fn run_background(&mut self, out: &mut Vec<Effect>) {
        let room = PURGES.saturating_sub(self.background.purging.len());
        let purging = &self.background.purging;
        let next: Vec<ImageId> = self
            .namespace
            .purges()
            .map(|(id, _)| id)
            .filter(|id| !purging.contains(id) && !self.namespace.is_used(*id))
            .take(room)
            .collect();
        for image in next {
            self.background.purging.insert(image);
            self.forget_metrics(image);
            self.start_io(Origin::Purge(image), image, ImageOp::Purge, None);
        }
        let trims: Vec<_> = self.namespace.trims().collect();
        for (image, trimming) in trims {
            if self.background.trimming.contains_key(&image) {
                continue;
            }
            if trimming.by == self.id {
                self.start_trim(image);
            } else if self.is_fenced(trimming.by) {
                self.background.trimming.insert(image, trimming);
                let operation = Operation::TakeTrim { id: image, trimming };
                self.start_change(Origin::Trim(image), operation, Caller::root(), out);
            }
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
        if self.background.trimming.contains_key(&image) || !self.has_grace(image) {
            return;
        }
        self.background.trimming.insert(image, trimming);
        let op = ImageOp::Zero {
            offset: trimming.from,
            len: trimming.to.saturating_sub(trimming.from),
        };
        self.start_io(Origin::Trim(image), image, op, None);
    }

    /// Reports the truncation that was begun: by now there may be another one, whose data is still there.
    pub(crate) fn trim_io_ended(&mut self, image: ImageId, ok: bool, out: &mut Vec<Effect>) {
        match self.background.trimming.get(&image).copied().filter(|_| ok) {
            Some(trimming) => {
                let operation = Operation::TrimDone { id: image, trimming };
                self.start_change(Origin::Trim(image), operation, Caller::root(), out);
            }
            None => self.trim_done(image, ok, out),
        }
    }

    /// A truncation's data is gone (or somebody else took care): those who waited for it are answered. If it could not be
    /// removed, the next round tries again.
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

    pub(crate) fn purge_io_ended(&mut self, image: ImageId, ok: bool, out: &mut Vec<Effect>) {
        if ok {
            let operation = Operation::PurgeDone { id: image };
            self.start_change(Origin::Purge(image), operation, Caller::root(), out);
        } else {
            self.background.purging.remove(&image);
        }
    }

    pub(crate) fn purge_done(&mut self, image: ImageId) {
        self.background.purging.remove(&image);
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
