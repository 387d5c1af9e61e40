//! What goes wrong with gateways and on the way to them.

use std::time::Duration;

use crate::random::Random;
use crate::streams::Leave;
use crate::trouble::Trouble;
use crate::world::World;

/// Bytes are held up no longer: beyond it connections end.
const LONGEST_CUT: Duration = Duration::from_secs(3);
/// A killed gateway is away for so long at most.
const LONGEST_AWAY: Duration = Duration::from_secs(20);

impl World {
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
            Trouble::PauseGateway => {
                let lasts = self.pause(place, random)?;
                self.processes[place].stands_since = Some(self.now);
                Some(lasts)
            }
            Trouble::KillGateway => {
                let down = random.exponential(LONGEST_AWAY / 6).min(LONGEST_AWAY);
                self.kill(place, down);
                Some(down)
            }
            Trouble::UserCut => {
                let lasts = random.duration(Duration::from_millis(10)..=LONGEST_CUT);
                self.streams.cut(user, gateway, self.now + lasts);
                Some(lasts)
            }
            Trouble::UserBreak => {
                let how = *random.pick(&[Leave::End, Leave::Reset, Leave::Silence])?;
                let path = self.users[user].draw_path(random);
                self.user_gives_up(user, path, how);
                Some(Duration::ZERO)
            }
            _ => None,
        }
    }
}
