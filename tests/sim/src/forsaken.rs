//! Forsaken gateways: their users leave them, many without an end that shows, ask another gateway for the same, and write on
//! there. What a forsaken gateway still has must not be done. There are three kinds:
//!
//! - its machine is paused when its kernel has just asked a user's whether that is there: the answer waits for the machine, and
//!   behind it what the user asks for meanwhile;
//! - its machine is paused with requests to OSDs in its queues: they come when no OSD remembers what was written since;
//! - it does not reach the metadata store: when it does again, nobody wants what it was asked to change there.

use std::time::Duration;

use trivet_core::Now;

use crate::event::Event;
use crate::random::Random;
use crate::streams::Leave;
use crate::users::UserEvent;
use crate::workload::Writers;
use crate::world::{Phase, World};

/// The machine is paused for so long, milliseconds: its users have left it and written on elsewhere, and in the end what they
/// do not want any more counts as gone.
const LASTS: (u64, u64) = (8_500, 26_000);
/// It does not reach the metadata store for so long, milliseconds.
const CUT: (u64, u64) = (18_000, 30_000);
/// With requests to OSDs in its queues for so long, milliseconds.
const QUEUED: (u64, u64) = (16_000, 30_000);
/// Users write the same place for so long, and then others, so that OSDs forget who wrote it.
const WRITTEN: Duration = Duration::from_secs(8);
/// They leave after this time, milliseconds.
const LEAVE: (u64, u64) = (3_000, 5_000);
/// A kernel asks for its users within this time.
const ASKS: Duration = Duration::from_secs(1);

/// A gateway whose machine is to be paused, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forsaken {
    gateway: usize,
    lasts: Duration,
    /// Not later: a gateway that nobody uses asks for no user.
    until: Now,
}

impl World {
    /// The machine of this gateway will be paused; says for how long that is a trouble. Its lease lives on.
    pub(crate) fn will_be_forsaken(&mut self, gateway: usize, random: &mut Random) -> Duration {
        let lasts = Duration::from_millis(random.range(LASTS.0..=LASTS.1));
        let until = self.now + ASKS;
        self.forsaken = Some(Forsaken { gateway, lasts, until });
        self.metadata.late_until = self.metadata.late_until.max(until + lasts);
        ASKS + lasts
    }

    /// The kernel of a gateway has just asked for a user: maybe its machine is paused now.
    pub(crate) fn asked_for_user(&mut self, gateway: usize) {
        let is_due = |forsaken: &Forsaken| forsaken.gateway == gateway && self.now <= forsaken.until;
        let due = self.forsaken.filter(is_due);
        let Some(Forsaken { lasts, .. }) = due.filter(|_| self.phase == Phase::Safety) else {
            return;
        };
        self.forsaken = None;
        self.pause_machine(self.gateway_place(gateway), lasts);
        self.obsess_from(self.now, lasts, Writers::All);
        self.users_will_forsake(gateway);
    }

    /// The machine of this gateway will be paused with requests to OSDs in its queues; says for how long that is a trouble.
    pub(crate) fn will_be_forsaken_with_queues(&mut self, gateway: usize, random: &mut Random) -> Duration {
        let lasts = Duration::from_millis(random.range(QUEUED.0..=QUEUED.1));
        let trouble = self.pause_with_queues(self.gateway_place(gateway), lasts, random);
        self.metadata.late_until = self.metadata.late_until.max(self.now + trouble);
        self.obsess_from(self.now, WRITTEN, Writers::All);
        self.users_will_forsake(gateway);
        trouble
    }

    /// A gateway does not reach the metadata store for a while, for how long is said, and its lease lives on.
    pub(crate) fn forsake_cut_off(&mut self, gateway: usize, random: &mut Random) -> Duration {
        let lasts = Duration::from_millis(random.range(CUT.0..=CUT.1));
        let (place, meta) = (self.gateway_place(gateway), self.meta());
        self.metadata.late_until = self.metadata.late_until.max(self.now + lasts);
        self.block(vec![(place, meta), (meta, place)], lasts);
        self.users_will_forsake(gateway);
        lasts
    }

    fn users_will_forsake(&mut self, gateway: usize) {
        for user in 0..self.users.len() {
            let leave = Duration::from_millis(self.random.range(LEAVE.0..=LEAVE.1));
            let event = UserEvent::Forsake(gateway);
            self.schedule.at(self.now + leave, Event::User(user, event));
        }
    }

    /// A user leaves a gateway for the next one.
    pub(crate) fn user_forsakes(&mut self, user: usize, gateway: usize) {
        if self.phase != Phase::Safety {
            return;
        }
        for path in self.users[user].paths_to(gateway) {
            let how = match self.random.one_in(2) {
                true => Leave::Silence,
                false => self.how_to_leave(user),
            };
            self.user_gives_up(user, path, how);
            self.users[user].turn_to(path, (gateway + 1) % self.gateways.len());
        }
    }
}
