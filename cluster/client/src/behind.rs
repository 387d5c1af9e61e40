//! A metadata store that is older than one that was known: it was wiped, or a backup was put in its place. What it lacks
//! may be there again soon, so operations on a pool that it does not know wait, and only fail if it has gone on from there.

use trivet_core::mark::{self, Mark};
use trivet_core::{ImageId, Now};

use crate::stamps::Caller;
use crate::{Client, Effect, ImageOp, Presence, Ticket};

/// An operation on a pool that is not known.
#[derive(Debug)]
struct Held {
    ticket: Ticket,
    image: ImageId,
    op: ImageOp,
    caller: Caller,
}

/// The latest mark of any store, and the operations that are held because the present store is older.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// The latest mark that any store had.
    newest: Option<Mark>,
    held: Vec<Held>,
}

impl Behind {
    /// The store has this mark.
    pub(crate) fn seen(&mut self, mark: Option<Mark>) {
        if let Some(mark) = mark {
            self.newest = mark::later(self.newest, mark);
        }
    }

    /// Whether a store with this mark is older than one that was known.
    fn is_older(&self, mark: Option<Mark>) -> bool {
        mark.map(|mark| mark.count) < self.newest.map(|newest| newest.count)
    }

    /// More is known of callers.
    pub(crate) fn seen_of(&mut self, tickets: &[Ticket], presence: Presence) {
        let of_them = self.held.iter_mut().filter(|held| tickets.contains(&held.ticket));
        for held in of_them {
            if let Caller::Seen(before) = held.caller {
                held.caller = Caller::Seen(before.and(presence));
            }
        }
    }

    /// Nobody wants these any more.
    pub(crate) fn forsake(&mut self, tickets: &[Ticket]) {
        self.held.retain(|held| !tickets.contains(&held.ticket));
    }
}

impl Client {
    fn mark(&self) -> Option<Mark> {
        let mark = self.map().mark.as_ref();
        mark.map(|mark| mark.value.latest())
    }

    /// An operation on a pool that is not known: it waits if the store is an older one.
    pub(crate) fn without_pool(
        &mut self,
        ticket: Ticket,
        image: ImageId,
        op: ImageOp,
        caller: Caller,
        out: &mut Vec<Effect>,
    ) {
        if self.behind.is_older(self.mark()) {
            let held = Held {
                ticket,
                image,
                op,
                caller,
            };
            return self.behind.held.push(held);
        }
        out.push(Effect::Done(ticket, Err(crate::IoError::NoPool)));
    }

    /// The map has changed: what was held goes on, fails, or is held again.
    pub(crate) fn map_moved(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.behind.seen(self.mark());
        for held in std::mem::take(&mut self.behind.held) {
            self.submit(now, held.ticket, held.image, held.op, held.caller, out);
        }
    }
}
