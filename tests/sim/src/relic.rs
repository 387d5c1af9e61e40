//! Relics: a gateway writes the first bytes of a file, and is cut off with the primary at this moment. What it writes is on
//! that disk alone. Others get the primary's PGs, with members that lack everything and to which nothing is brought; they know
//! nothing of the object. Who wrote it turns to another gateway and wants that no more, and users remove that file more than any
//! other. The OSD comes back while those PGs are still not clean: then they take from it what only it has.

use std::time::Duration;

use trivet_core::kv::Notice;
use trivet_core::message::{Action, Message};
use trivet_core::{ImageId, Now};
use trivet_namespace::Namespace;

use crate::event::{Event, Undo};
use crate::exile::Exile;
use crate::network::Place;
use crate::users::UserEvent;
use crate::world::{Phase, World};

/// How long they are cut off, milliseconds: long enough for the gateway to be fenced.
const CUT: (u64, u64) = (15_000, 40_000);
/// The gateway's users leave it after this time, milliseconds.
const LEAVE: (u64, u64) = (100, 1_500);
/// How long nothing is healed after that, milliseconds.
const UNHEALED: (u64, u64) = (1_000, 10_000);

/// Whether there is to be one, and until when there may be one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relic {
    /// The next gateway that writes the first bytes of a file leaves one.
    pub is_wanted: bool,
    /// The file.
    file: Option<ImageId>,
    until: Now,
}

impl Relic {
    /// Whether something may be on a disk that is cut off, and nowhere else.
    pub(crate) fn is_left(self, now: Now) -> bool {
        now < self.until
    }
}

/// The name of a file in the directory that all users change, if the metadata store knows one.
fn name_of(file: ImageId, store: &Notice) -> Option<String> {
    let mut tree = Namespace::default();
    tree.apply(store);
    let path = String::from_utf8(tree.path_of(file)?).ok()?;
    path.rsplit('/').next().map(str::to_owned)
}

impl World {
    /// The file that users made to which a gateway sends the first bytes of an object, if it does.
    pub(crate) fn begun_file(&self, from: Place, message: &Message) -> Option<ImageId> {
        let Message::Op(op) = message else { return None };
        let Action::Write { object, .. } = &op.action else {
            return None;
        };
        let machines = || self.osds.iter().filter_map(|slot| slot.machine.as_ref());
        let is_first = self.gateway_at(from).is_some()
            && !self.workload.has(object.image)
            && object.image != self.sized.image
            && !machines().any(|machine| machine.objects().any(|(stored, _)| stored == *object));
        is_first.then_some(object.image)
    }

    /// The name of the file that has left something, while that is cut off.
    pub(crate) fn relic_name(&self) -> Option<String> {
        let file = self.relic.file.filter(|_| self.relic.is_left(self.now))?;
        name_of(file, &self.kv.snapshot())
    }

    /// The users of a gateway that is cut off turn to the next one.
    fn users_will_disown(&mut self, gateway: usize) {
        for user in 0..self.users.len() {
            let leave = Duration::from_millis(self.random.range(LEAVE.0..=LEAVE.1));
            let event = UserEvent::Disown(gateway);
            self.schedule.at(self.now + leave, Event::User(user, event));
        }
    }

    /// A user leaves a gateway, and does not want any more what it has written to files beside its image.
    pub(crate) fn user_disowns(&mut self, user: usize, gateway: usize) {
        self.user_forsakes(user, gateway);
        self.users[user].drop_puts();
    }

    /// Cuts off a gateway with the primary that it writes the first bytes of a file to.
    pub(crate) fn leave_relic(&mut self, primary: Place, gateway: Place, file: ImageId) {
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
        self.relic.file = Some(file);
        if let Some(index) = self.gateway_at(gateway) {
            self.users_will_disown(index);
        }
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
