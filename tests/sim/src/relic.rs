//! Relics: a gateway writes the first bytes of a file, and is cut off with the primary at this moment. What it writes is on
//! that disk alone. Others get the primary's PGs, with members that lack everything and to which nothing is brought; they know
//! nothing of the object, and users remove files more than usual. The OSD comes back while those PGs are still not clean: then they
//! take from it what only it has.

use std::time::Duration;

use trivet_core::Now;
use trivet_core::message::{Action, Message};

use crate::event::Undo;
use crate::exile::Exile;
use crate::network::Place;
use crate::world::{Phase, World};

/// How long they are cut off, milliseconds: long enough for the gateway to be fenced.
const CUT: (u64, u64) = (10_000, 40_000);
/// How long nothing is healed after that, milliseconds.
const UNHEALED: (u64, u64) = (1_000, 10_000);

/// Whether there is to be one, and until when there may be one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relic {
    /// The next gateway that writes the first bytes of a file leaves one.
    pub is_wanted: bool,
    until: Now,
}

impl Relic {
    /// Whether something may be on a disk that is cut off, and nowhere else.
    pub(crate) fn is_left(self, now: Now) -> bool {
        now < self.until
    }
}

impl World {
    /// Whether a gateway sends the first bytes of an object of a file that users made.
    pub(crate) fn is_first_of_file(&self, from: Place, message: &Message) -> bool {
        let Message::Op(op) = message else { return false };
        let Action::Write { object, .. } = &op.action else {
            return false;
        };
        let machines = || self.osds.iter().filter_map(|slot| slot.machine.as_ref());
        self.gateway_at(from).is_some()
            && !self.workload.has(object.image)
            && object.image != self.sized.image
            && !machines().any(|machine| machine.objects().any(|(stored, _)| stored == *object))
    }

    /// Cuts off a gateway with the primary that it writes to.
    pub(crate) fn leave_relic(&mut self, primary: Place, gateway: Place) {
        self.relic.is_wanted = false;
        let inside = self.truth.members.values().filter(|config| !config.value.out).count();
        // Without another OSD that gets its PGs, these are clean at once. While a disk is lost, what is left of its PGs is
        // enough only if nothing else goes away.
        let quiet = self.nemesis.is_calm() || self.atlas.wants_calm(self.swarm.min_size);
        if self.phase != Phase::Safety || quiet || inside <= self.swarm.replicas {
            return;
        }
        let millis = |(least, most), world: &mut World| Duration::from_millis(world.random.range(least..=most));
        let lasts = millis(CUT, self);
        let healed = lasts + millis(UNHEALED, self);
        let osd = self.osds[primary].number;
        self.trace
            .line(self.now, format_args!("TROUBLE relic on OSD {osd} for {lasts:?}"));
        self.relic.until = self.now + lasts;
        self.nemesis.busy(self.now + healed);
        self.heal_nothing(true);
        self.take_out(osd, true);
        self.begin_exile(Exile {
            osds: vec![primary],
            client: gateway,
            ends_lease: true,
            lasts,
            killed: None,
        });
        self.undo_in(lasts, Undo::Out(osd));
        self.undo_in(healed, Undo::NoRecovery);
    }
}
