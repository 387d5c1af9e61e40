//! What the gateway does on its own: removing the data of removed and truncated files, and writing times of
//! modification.

use std::collections::{BTreeMap, BTreeSet};

use trivet_client::ImageOp;
use trivet_core::ImageId;
use trivet_namespace::{Caller, Operation, Time, Trimming};

use crate::gateway::{Effect, Gateway, Origin};
use crate::session::Space;

/// Images whose data is removed at the same time.
const PURGES: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Background {
    /// When images were written; the tree of names does not know it yet.
    pub touched: BTreeMap<ImageId, Time>,
    /// As of the last report of the OSDs.
    pub space: Space,
    touching: BTreeMap<ImageId, Time>,
    purging: BTreeSet<ImageId>,
    /// The truncations whose data is being removed, or that are being taken over.
    trimming: BTreeMap<ImageId, Trimming>,
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
            .filter(|id| !purging.contains(id))
            .take(room)
            .collect();
        for image in next {
            self.background.purging.insert(image);
            self.forget_metrics(image);
            self.start_io(Origin::Purge(image), image, ImageOp::Purge);
        }
        let trims: Vec<_> = self.namespace.trims().collect();
        for (image, trimming) in trims {
            if self.background.trimming.contains_key(&image) {
                continue;
            }
            if trimming.by == self.id {
                self.start_trim(image);
            } else if !self.client.map().gateways.contains_key(&trimming.by) {
                // Its gateway is gone for certain: a gateway's key hangs on its lease.
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

    /// Removes what a truncation cut off.
    pub(crate) fn start_trim(&mut self, image: ImageId) {
        let Some(trimming) = self.namespace.inode(image).and_then(|inode| inode.trimming) else {
            return;
        };
        if self.background.trimming.contains_key(&image) {
            return;
        }
        self.background.trimming.insert(image, trimming);
        let op = ImageOp::Zero {
            offset: trimming.from,
            len: trimming.to.saturating_sub(trimming.from),
        };
        self.start_io(Origin::Trim(image), image, op);
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

    /// Writes the times of modification that are not on their way yet.
    pub(crate) fn write_touched(&mut self, out: &mut Vec<Effect>) {
        let due: Vec<(ImageId, Time)> = self
            .background
            .touched
            .iter()
            .filter(|(id, _)| !self.background.touching.contains_key(*id))
            .map(|(&id, &mtime)| (id, mtime))
            .collect();
        for (id, mtime) in due {
            self.background.touching.insert(id, mtime);
            let operation = Operation::Grow { id, size: 0, mtime };
            self.start_change(Origin::Touch(id), operation, Caller::root(), out);
        }
    }

    pub(crate) fn touch_done(&mut self, image: ImageId, ok: bool) {
        let written = self.background.touching.remove(&image);
        let gone = self.namespace.inode(image).is_none();
        if gone || (ok && self.background.touched.get(&image).copied() == written) {
            self.background.touched.remove(&image);
        }
    }
}
