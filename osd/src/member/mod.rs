//! The member's side of PGs: accept epochs, list, execute what the primary of the accepted epoch asks, and let go of what
//! is another's.
//!
//! A member decides nothing about an object: it executes a mutation on top of the version that the primary names, or
//! refuses.

mod accept;
mod execute;
mod promise;
mod strays;

use std::collections::BTreeMap;

use trivet_core::message::Message;
use trivet_core::{Epoch, Epochs, NodeId, Now, OsdId, PgId};

use crate::ctx::Ctx;
use crate::options::mutant;

pub(crate) use execute::{salvaged, say_forgotten, say_written, verified};
use promise::Promises;
use strays::Strays;

/// What this OSD has to keep as a member.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// The highest epoch accepted per PG, durable or on its way.
    pub accepted: Epochs,
    promises: Promises,
    /// How many listings were sent.
    listings: u32,
    /// PGs whose objects are being dropped, in the epoch that said so.
    dropping: BTreeMap<PgId, Epoch>,
    pub strays: Strays,
}

impl Member {
    /// Takes over what the store remembers from before the restart.
    pub(crate) fn load(&mut self, ctx: &Ctx) {
        self.accepted = ctx.store.accepted_epochs().collect();
        if !mutant!(ctx.options, ForgetAtRestart) {
            self.promises.restarted(self.accepted.iter().map(|(pg, _)| pg), ctx.now);
        }
    }

    /// The highest epoch of the PG that was accepted.
    pub(crate) fn accepted_epoch(&self, pg: PgId) -> Epoch {
        self.accepted.get(pg).unwrap_or_default()
    }

    /// A primary asks whether its epochs are still the accepted ones, and is promised that nobody else acts for a while.
    pub(crate) fn pinged(&mut self, ctx: &mut Ctx, from: OsdId, sent: Now, pgs: &[(PgId, Epoch)]) {
        let mut refused = Vec::new();
        for &(pg, epoch) in pgs {
            let accepted = self.accepted_epoch(pg);
            if epoch == accepted || mutant!(ctx.options, AcceptOldEpoch) {
                self.promises.confirmed(pg, from, ctx.now);
            } else {
                refused.push((pg, accepted));
            }
        }
        if refused.len() < pgs.len() {
            self.promises.give(from, ctx.now);
        }
        let free = ctx.store.room();
        ctx.send(NodeId::Osd(from), Message::Pong { sent, free, refused });
    }
}
