//! What goes wrong with gateways and on the way to them.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::kv::{Event as Change, Notice};

use crate::event::{Event, Undo};
use crate::network::Place;
use crate::random::Random;
use crate::streams::Leave;
use crate::trouble::Trouble;
use crate::users::UserSlot;
use crate::users::operations::DEEPEST;
use crate::world::World;

/// Bytes are held up no longer: beyond it connections end.
const LONGEST_CUT: Duration = Duration::from_secs(3);
/// Who has lost a refusal asks again within this time: the name may have become free.
const LONGEST_REFUSED: Duration = Duration::from_secs(6);
/// A killed gateway is away for so long at most.
const LONGEST_AWAY: Duration = Duration::from_secs(20);

/// How long a machine is paused that has something in its queues: longer than OSDs remember who changed what.
const QUEUED: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(40));

/// What a connection has beside its requests, bytes: heads, logins, what began to arrive.
const BESIDE: u64 = 64 << 10;
/// Bytes of the largest request.
const LARGEST: u64 = 256 << 10;

/// A gateway hears nothing of the metadata store for so long,
const MISLED: Duration = Duration::from_secs(9);
/// and after this time it knows that it is too old to tell anything about names.
const HEARS_NOTHING: Duration = Duration::from_millis(3_200);

/// A connection breaks between the execution of a call that changes names and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Break {
    /// From this time on.
    from: Now,
    /// Its user asks this gateway again; else any.
    turns_to: Option<usize>,
}

/// Keys of what callers were answered.
const REPLIES: &str = "vfs/reply/";

/// The user whose call a reply is to: callers are named after them.
fn caller_of(key: &str) -> Option<usize> {
    let (_, name) = key.strip_prefix(REPLIES)?.split_once("user")?;
    name.split('/').next()?.parse().ok()
}

impl World {
    /// No gateway counts more memory than its clients that are there can have asked for: nothing of those that are gone stays.
    pub(crate) fn watch_memory(&mut self) {
        for index in 0..self.gateways.len() {
            let (used, most) = (self.gateways[index].memory_used(), self.asked_of(index));
            if used > most {
                return self.fail(format!(
                    "gateway {index} keeps {used} bytes of clients that have {most}"
                ));
            }
        }
    }

    /// Bytes of the requests on connections that a gateway has: each is there twice while it arrives.
    fn asked_of(&self, gateway: usize) -> u64 {
        let most = |(user, there): (usize, bool)| match there {
            true => 2 * self.users[user].under_way() + BESIDE,
            false => 2 * DEEPEST as u64 * LARGEST + BESIDE,
        };
        self.streams.users_of(gateway).map(most).sum()
    }

    /// A call that changes names was executed and is not answered yet: at times its user's connection breaks now, and the user
    /// asks for it again.
    pub(crate) fn look_for_calls(&mut self, notice: &Notice) {
        let Notice::Changes { events, .. } = notice else {
            return;
        };
        let executed = events.iter().find_map(|event| match event {
            Change::Put(row) if row.key.starts_with(REPLIES) => caller_of(&row.key),
            _ => None,
        });
        let refused = self.refused.filter(|(user, _)| executed == Some(*user));
        let breaks = self.breaks_call.filter(|breaks| breaks.from <= self.now);
        let Some(user) = executed.filter(|_| breaks.is_some() || refused.is_some()) else {
            return;
        };
        let Some(path) = self.users.get(user).and_then(UserSlot::path_of_names) else {
            return;
        };
        self.user_gives_up(user, path, Leave::Reset);
        let next = match refused {
            Some((_, gateway)) => {
                self.refused = None;
                Some(gateway)
            }
            None => self.breaks_call.take().and_then(|breaks| breaks.turns_to),
        };
        if let Some(gateway) = next {
            self.users[user].turn_to(path, gateway);
        }
    }

    /// A change of names was refused: maybe the user's connection breaks before it hears of that. It asks another gateway after
    /// a while. When the call was executed there, that connection breaks, too, and it asks where it was refused.
    pub(crate) fn loses_refusal(&mut self, user: usize, path: usize, number: u64) -> bool {
        if !self.loses_next_refusal {
            return false;
        }
        self.loses_next_refusal = false;
        let gateway = self.users[user].gateway_of(path);
        self.refused = Some((user, gateway));
        self.user_gives_up(user, path, Leave::Reset);
        let later = self.now + self.random.duration(Duration::ZERO..=LONGEST_REFUSED);
        self.users[user].turn_to(path, (gateway + 1) % self.gateways.len());
        self.users[user].asks_not_before(number, later);
        true
    }

    /// Makes trouble; says for how long, or that there was nobody to trouble.
    pub(crate) fn trouble_gateway(&mut self, trouble: Trouble, random: &mut Random) -> Option<Duration> {
        if self.gateways.is_empty() {
            return None;
        }
        let gateway = random.index(self.gateways.len());
        let place = self.gateway_place(gateway);
        let user = random.index(self.users.len());
        match trouble {
            Trouble::StopGateway => self.pause(place, random),
            Trouble::PauseGateway if self.swarm.has(Trouble::GiveUp) && !random.one_in(3) => {
                Some(match random.one_in(2) {
                    true => self.will_be_forsaken(gateway, random),
                    false => self.will_be_forsaken_with_queues(gateway, random),
                })
            }
            Trouble::PauseGateway => {
                let lasts = self.pause_gateway(place, random)?;
                let restarts = self.swarm.has(Trouble::Kill) && random.one_in(3);
                if restarts {
                    self.restart_osds_within(lasts, random);
                }
                // A new leader of the metadata store lets leases live on: this one does not end meanwhile.
                if restarts || random.one_in(2) {
                    self.metadata.late_until = self.metadata.late_until.max(self.now + lasts);
                }
                Some(lasts)
            }
            Trouble::KillGateway => {
                let down = random.exponential(LONGEST_AWAY / 6).min(LONGEST_AWAY);
                self.kill(place, down);
                Some(down)
            }
            Trouble::Relic => {
                self.relic.is_wanted = true;
                Some(Duration::ZERO)
            }
            Trouble::UserCut => {
                let lasts = random.duration(Duration::from_millis(10)..=LONGEST_CUT);
                self.streams.cut(user, gateway, self.now + lasts);
                Some(lasts)
            }
            Trouble::UserBreak if self.gateways.len() > 1 && random.one_in(3) => {
                self.loses_next_refusal = true;
                Some(Duration::ZERO)
            }
            Trouble::UserBreak if random.one_in(2) => Some(self.break_call(gateway, random)),
            Trouble::UserBreak => {
                let how = *random.pick(&[Leave::End, Leave::Reset, Leave::Silence])?;
                let path = self.users[user].draw_path(random);
                self.user_gives_up(user, path, how);
                Some(Duration::ZERO)
            }
            _ => None,
        }
    }

    /// A connection will break when a call was executed; says for how long something is wrong. Maybe its user turns to this
    /// gateway, which hears nothing of what was changed lately.
    fn break_call(&mut self, gateway: usize, random: &mut Random) -> Duration {
        let misleads = self.swarm.has(Trouble::WatchLate) && random.one_in(2);
        if !misleads {
            self.breaks_call = Some(Break {
                from: self.now,
                turns_to: None,
            });
            return Duration::ZERO;
        }
        let place = self.gateway_place(gateway);
        let process = &mut self.processes[place];
        process.watch_late = process.watch_late.max(self.now + MISLED);
        self.breaks_call = Some(Break {
            from: self.now + HEARS_NOTHING,
            turns_to: Some(gateway),
        });
        MISLED
    }

    /// All OSDs begin anew meanwhile, and so do their clocks: a gateway that was paused has none to compare its own with.
    fn restart_osds_within(&mut self, lasts: Duration, random: &mut Random) {
        for osd in 0..self.osds.len() {
            let when = self.now + random.duration(Duration::ZERO..=lasts);
            let down = random.duration(Duration::ZERO..=Duration::from_secs(1));
            self.schedule.at(when, Event::Kill(osd, down));
        }
    }

    /// The machine of a gateway is paused, and its clock stands still.
    fn pause_gateway(&mut self, place: Place, random: &mut Random) -> Option<Duration> {
        if random.one_in(2) {
            let lasts = random.duration(QUEUED.0..=QUEUED.1);
            return Some(self.pause_with_queues(place, lasts, random));
        }
        let lasts = self.pause(place, random)?;
        self.processes[place].stands_since = Some(self.now);
        Some(lasts)
    }

    /// The machine of a gateway is paused in a moment, and what the gateway sends to OSDs until then leaves it afterwards.
    pub(crate) fn pause_with_queues(&mut self, place: Place, lasts: Duration, random: &mut Random) -> Duration {
        let earlier = random.duration(Duration::from_millis(10)..=Duration::from_millis(500));
        self.delay_to_osds(place, lasts + earlier);
        self.undo_in(earlier, Undo::Queue(place, lasts));
        lasts + 2 * earlier
    }

    /// See [`World::pause_with_queues`].
    pub(crate) fn pause_machine(&mut self, place: Place, lasts: Duration) {
        self.delay_to_osds(place, Duration::ZERO);
        if self.pause_for(place, lasts) {
            self.processes[place].stands_since = Some(self.now);
        }
    }

    fn delay_to_osds(&mut self, place: Place, delay: Duration) {
        for osd in 0..self.osds.len() {
            self.network.set_delay(place, osd, delay);
        }
    }
}
