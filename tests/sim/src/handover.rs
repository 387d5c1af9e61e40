//! Handovers: a client does not reach the primary of an object, and its callers leave it in silence. Others do what they
//! wanted, and more, with that primary, and it is killed. The client sends what it still has to the next one, which does not
//! know what its predecessor executed meanwhile.

use std::time::Duration;

use trivet_core::NodeId;

use crate::event::Event;
use crate::network::Place;
use crate::random::Random;
use crate::workload::Writers;
use crate::world::{Phase, World};

/// The callers leave after this time, milliseconds.
const LEAVE: (u64, u64) = (100, 500);
/// The primary is killed so much later, milliseconds: another one serves before what the client has is too old.
const KILLED: (u64, u64) = (100, 800);
/// It is away for so long, milliseconds.
const DOWN: (u64, u64) = (50, 15_000);
/// The client hears of none of this for so long, nor does it reach the primary.
const SILENCE: Duration = Duration::from_secs(4);

/// The callers of a client leave it, and the OSD that it does not reach is killed.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    client: usize,
    primary: Place,
    /// After so long.
    killed: Duration,
    /// For so long.
    down: Duration,
}

impl World {
    /// Everybody works on one object, whose primary a client does not reach; for how long that is a trouble.
    pub(crate) fn hand_over(&mut self, random: &mut Random) -> Option<Duration> {
        let client = random.index(self.clients.len());
        self.another_client(client)?;
        let object = self.obsess_from(self.now, SILENCE, Writers::All);
        let pg = self.truth.pg_of(object)?;
        let primary = self.truth.claims.get(&pg)?.value.primary;
        let primary = self.place_of(NodeId::Osd(primary))?;
        let place = self.client_place(client);
        self.block(vec![(place, primary), (primary, place)], SILENCE);
        let mut millis = |(least, most)| Duration::from_millis(random.range(least..=most));
        let leave = millis(LEAVE);
        let handover = Handover {
            client,
            primary,
            killed: millis(KILLED),
            down: millis(DOWN),
        };
        self.schedule.at(self.now + leave, Event::Handover(handover));
        Some(SILENCE.max(leave + handover.killed + handover.down))
    }

    /// The callers leave.
    pub(crate) fn leave_for_good(&mut self, handover: Handover) {
        if self.phase != Phase::Safety {
            return;
        }
        let Handover { client, primary, .. } = handover;
        let tickets: Vec<u64> = self.clients[client].unanswered().collect();
        for ticket in tickets {
            self.turn_away(client, ticket, SILENCE);
        }
        self.schedule
            .at(self.now + handover.killed, Event::Kill(primary, handover.down));
    }
}
