//! Whether this node's clock went on, as OSDs tell: who is asked, whose word counts, and what is doubted until then.
//!
//! An OSD on this node's host stands still whenever the host does. Its word counts only where there is no OSD on another one.

use std::time::Duration;

use trivet_core::message::Message;
use trivet_core::{Now, OsdId, Tick};

use crate::mutant::mutant;
use crate::pace::{Gone, Pace};
use crate::stamps::ASK_EVERY;
use crate::{Client, Effect};

/// OSDs that are asked at once whether this node's clock went on: one of them answers.
const WITNESSES: usize = 3;
/// They are asked again after this time, if no answer has come.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What OSDs tell of this node's clock: whether it went on, and until when that is known.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    pace: Pace,
    /// When all OSDs were asked last.
    asked: Now,
    /// This node's clock did not stand still until then, as an OSD has told that was asked then.
    went_on: Now,
    /// When some were asked for that last.
    questioned: Now,
    /// The host that this node is on, if it is known.
    host: Option<String>,
}

impl Client {
    /// This node is on this host.
    pub fn set_host(&mut self, host: String) {
        self.clocks.host = Some(host);
    }

    /// Until when this node's clock is known not to have stood still unnoticed; none while there is no OSD to tell.
    #[must_use]
    pub fn went_on(&self) -> Option<Now> {
        (!self.clocks.pace.is_empty()).then_some(self.clocks.went_on)
    }

    /// Whether the word of an OSD is waited for that is doubted: this node may have stood still, and nobody has told.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        self.dispatcher.stamps.has_doubts()
    }

    /// Asks some OSDs for their clocks, for [`Client::went_on`], unless the answers to this question are still to come.
    pub fn ask_clocks(&mut self, now: Now, out: &mut Vec<Effect>) {
        let clocks = &mut self.clocks;
        if clocks.questioned <= clocks.went_on || now.since(clocks.questioned) >= ASK_AGAIN {
            clocks.questioned = now;
            ask(now, self.witnesses(), out);
        }
    }

    /// Asks all OSDs now and then, and gives up waiting for a word that makes one believed.
    pub(crate) fn look_at_clocks(&mut self, now: Now, out: &mut Vec<Effect>) {
        if now.since(self.clocks.asked) >= ASK_EVERY {
            self.clocks.asked = now;
            ask(now, self.dispatcher.map.osds.keys().copied(), out);
        }
        self.end_doubts(now, out);
    }

    /// Nobody has told whether this node's clock went on.
    fn end_doubts(&mut self, now: Now, out: &mut Vec<Effect>) {
        let stamps = &mut self.dispatcher.stamps;
        if stamps.has_doubted_for_long(now) {
            stamps.believe_all();
            out.push(Effect::Stood(Duration::MAX));
            self.dispatch_all(now, out);
        }
    }

    /// An OSD says what its clock is; asked for it at `sent`, if it was.
    pub(crate) fn clock(&mut self, now: Now, from: OsdId, (tick, sent): (Tick, Option<Now>), out: &mut Vec<Effect>) {
        let gone = self.clocks.pace.heard(now, from, tick, sent);
        let can_tell = sent.is_some() && (!self.is_neighbour(from) || self.has_neighbours_only());
        let stamps = &mut self.dispatcher.stamps;
        stamps.heard(now, from, tick);
        match gone {
            Gone::On(Some(until)) if can_tell && !stamps.doubts(from) => {
                self.clocks.went_on = self.clocks.went_on.max(until);
                let pace = &self.clocks.pace;
                if stamps.believe(until, |osd| pace.compares(osd)) {
                    self.dispatch_all(now, out);
                }
            }
            Gone::On(_) => {}
            Gone::Stood(time) => {
                stamps.believe_all();
                out.push(Effect::Stood(time));
            }
            Gone::Unknown { first } if self.has_begun(from, first) => {}
            Gone::Unknown { .. } => self.heard_first(now, from, out),
        }
    }

    /// Whether there was no OSD so far that could have told that this node stood still, when this one is heard.
    fn has_begun(&self, osd: OsdId, first: bool) -> bool {
        let mut others = self.clocks.pace.osds().filter(|other| *other != osd);
        (first || self.is_neighbour(osd)) && others.all(|other| self.is_neighbour(other))
    }

    /// An OSD is heard for the first time, or after another start. Whether this node stood still until then others have to tell.
    fn heard_first(&mut self, now: Now, osd: OsdId, out: &mut Vec<Effect>) {
        if !mutant!(self.dispatcher, BelieveFirstClock) && self.dispatcher.stamps.doubt(now, osd) {
            let others = self.witnesses().into_iter().filter(|other| *other != osd);
            ask(now, others.chain([osd]), out);
        }
    }

    /// The OSDs that are asked: those that have answered last of those whose word counts.
    fn witnesses(&self) -> Vec<OsdId> {
        let mut all = self.clocks.pace.compared();
        if !self.has_neighbours_only() {
            all.retain(|osd| !self.is_neighbour(*osd));
        }
        all.truncate(WITNESSES);
        all
    }

    fn has_neighbours_only(&self) -> bool {
        self.clocks.pace.osds().all(|osd| self.is_neighbour(osd))
    }

    fn is_neighbour(&self, osd: OsdId) -> bool {
        let host = &self.clocks.host;
        let member = self.dispatcher.map.members.get(&osd);
        host.is_some() && member.is_some_and(|member| member.value.host == *host)
    }
}

fn ask(now: Now, osds: impl IntoIterator<Item = OsdId>, out: &mut Vec<Effect>) {
    let question = |osd| Effect::Send(osd, Message::TickRequest { sent: now });
    out.extend(osds.into_iter().map(question));
}
