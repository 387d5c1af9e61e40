//! Users who leave unseen: a truncation has begun and lasts for a while, a WRITE waits for its end, and whoever sent it leaves
//! that connection without an end that shows and comes back on another one. What it asks for there must be done last: they all
//! write the same block, for a while.

use std::time::Duration;

use trivet_gateway::metrics::Protocol;

use crate::event::Event;
use crate::network::Place;
use crate::sized::{self, BLOCKS};
use crate::streams::Leave;
use crate::trouble::Trouble;
use crate::users::UserEvent;
use crate::world::{Phase, World};

/// How long the truncation lasts, milliseconds: those who left are about to be back, and still count as there where they left.
const LASTS: (u64, u64) = (1_500, 2_100);
/// All gateways know of it by then.
const KNOWN: Duration = Duration::from_millis(50);
/// They leave after this time, milliseconds: something waits by then.
const LEAVE: (u64, u64) = (100, 200);
/// From then on the last block is written for so long: they come back, and get a few answers.
const INSISTED: Duration = Duration::from_millis(2_400);
/// With pauses as long as these, milliseconds.
const PAUSE: (u64, u64) = (5, 50);
/// One occasion in so many is taken.
const TAKEN: u64 = 2;

impl World {
    /// The gateway at this place has just begun to cut off the file: maybe it does not reach the OSDs for a while.
    pub(crate) fn hold_truncation(&mut self, gateway: Place) {
        if !self.swarm.has(Trouble::Unseen) || !self.random.one_in(TAKEN) {
            return;
        }
        self.counts.add(Trouble::Unseen);
        let lasts = Duration::from_millis(self.random.range(LASTS.0..=LASTS.1));
        self.trace
            .line(self.now, format_args!("TROUBLE a truncation lasts {lasts:?}"));
        self.nemesis.busy(self.now + lasts);
        let osds = (0..self.osds.len()).flat_map(|osd| [(gateway, osd), (osd, gateway)]);
        self.block(osds.collect(), lasts);
        let leave = self.now + Duration::from_millis(self.random.range(LEAVE.0..=LEAVE.1));
        self.insists_until = leave + INSISTED;
        let writes = |user: &usize| self.users[*user].resizes() && self.users[*user].protocol() == Protocol::Nfs;
        for user in (0..self.users.len()).filter(writes).collect::<Vec<_>>() {
            self.schedule.at(self.now + KNOWN, Event::User(user, UserEvent::Insist));
            self.schedule.at(leave, Event::User(user, UserEvent::Leave));
        }
    }

    /// A user writes the last block, again and again, as soon as it is answered.
    pub(crate) fn insist(&mut self, user: usize) {
        if self.phase != Phase::Safety || self.now >= self.insists_until {
            return;
        }
        let pause = Duration::from_millis(self.random.range(PAUSE.0..=PAUSE.1));
        self.schedule.at(self.now + pause, Event::User(user, UserEvent::Insist));
        self.ask_again(user);
        if !self.users[user].writes_sized() && self.sized.under_way() < sized::DEEPEST {
            self.user_writes_sized(user, BLOCKS - 1);
        }
    }

    /// A user whose change of the file has no answer leaves the connection that it asked on.
    pub(crate) fn leave_unseen(&mut self, user: usize) {
        if let Some(path) = self.users[user].path_of_sized().filter(|_| self.phase == Phase::Safety) {
            let gateway = self.users[user].gateway_of(path);
            self.user_gives_up(user, path, Leave::Silence);
            self.users[user].turn_to(path, gateway);
        }
    }
}
