//! Forsaken gateways: the machine of a gateway is paused when its kernel has just asked a user's whether that is there. The
//! answer waits for the machine, and behind it what the user asks for meanwhile. Its users leave it, many without an end that
//! shows, ask another gateway for the same, and write on there. What is found when the machine goes on must not be done.

use std::time::Duration;

use trivet_core::Now;

use crate::event::Event;
use crate::random::Random;
use crate::streams::Leave;
use crate::users::UserEvent;
use crate::workload::Writers;
use crate::world::{Phase, World};

/// The machine is paused for so long, milliseconds: its users have left it and written on elsewhere.
const LASTS: (u64, u64) = (8_500, 14_000);
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
