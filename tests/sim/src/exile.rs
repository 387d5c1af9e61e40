//! Exiles: the primary of an object is cut off together with a client, while everybody works on that object. What one
//! side acknowledges or shows, the other must not contradict.
//!
//! They come by themselves, and as ambushes where a primary has just begun to answer, or has just been replaced without
//! knowing it: what members promised to whom matters within less than a second.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::{Epoch, NodeId, Now, Numbering, OBJECT_SIZE, ObjectId, PgId};

use crate::event::Event;
use crate::network::Place;
use crate::random::Random;
use crate::trouble::Trouble;
use crate::workload::Writers;
use crate::world::{POOL, Phase, World};

/// Peering that took so long had to wait for somebody: what members promised meanwhile is nearly over.
const SLOW_INTERVIEW: Duration = Duration::from_millis(300);
/// Between the beginning of an exile and the next ambush at least.
const BETWEEN: Duration = Duration::from_secs(20);
/// One occasion in so many is taken.
const TAKEN: u64 = 2;
/// How often another object is looked for that suits.
const TRIES: usize = 16;

/// Somebody is cut off.
#[derive(Clone, Debug)]
pub struct Exile {
    /// Where its OSDs are, the primary first.
    pub osds: Vec<Place>,
    /// Where its client, or a gateway, is.
    pub client: Place,
    /// The OSDs' leases end at once.
    pub ends_lease: bool,
    /// For so long.
    pub lasts: Duration,
    /// One of those who stay is killed after a while, and is away for another.
    pub killed: Option<(Place, Duration, Duration)>,
}

/// What tells when an ambush is worth it.
#[derive(Debug)]
pub struct Ambush {
    random: Random,
    /// PGs that are claimed and not active, since when, and in which epoch.
    claimed: BTreeMap<PgId, (Epoch, Now)>,
    /// The number of PGs that the pool has.
    numbering: Option<Numbering>,
    /// No ambush before.
    quiet_until: Now,
}

impl Ambush {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(random: Random) -> Ambush {
        Ambush {
            random,
            claimed: BTreeMap::new(),
            numbering: None,
            quiet_until: Now(0),
        }
    }
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// One of the members that stay, half the time: it has forgotten what it promised when it comes back.
fn victim(staying: &[Place], random: &mut Random) -> Option<(Place, Duration, Duration)> {
    let strikes = random.one_in(2);
    let victim = *random.pick(staying).filter(|_| strikes)?;
    let after = random.duration(Duration::ZERO..=millis(100));
    Some((victim, after, random.duration(millis(5)..=millis(100))))
}

impl World {
    /// The primary of some object is going to be cut off with a client: for how long it will be a trouble.
    pub(crate) fn exile(&mut self, random: &mut Random) -> Duration {
        let index = random.index(self.clients.len());
        // Its clients are busy with it when it happens.
        let after = random.duration(Duration::ZERO..=millis(300));
        let object = self.obsess(index, after, random);
        let claim = self.truth.pg_of(object).and_then(|pg| self.truth.claims.get(&pg));
        let acting: Vec<Place> = claim
            .iter()
            .flat_map(|claim| std::iter::once(&claim.value.primary).chain(&claim.value.acting))
            .filter_map(|&osd| self.place_of(NodeId::Osd(osd)))
            .collect();
        let Some((&primary, others)) = acting.split_first() else {
            let osd = random.index(self.osds.len());
            return self.plan_exile(&[osd], &[], index, after, random);
        };
        let members: Vec<Place> = others.iter().copied().filter(|&place| place != primary).collect();
        let mut osds = vec![primary];
        // With two members on its side it hears most of those who have to confirm, but not all.
        let company = members.len() > 1 && random.one_in(2);
        osds.extend(random.pick(&members).filter(|_| company));
        let staying: Vec<Place> = members.into_iter().filter(|place| !osds.contains(place)).collect();
        self.plan_exile(&osds, &staying, index, after, random)
    }

    /// Everybody works on one object from now on; who writes it, is drawn. At times nobody does before the exile
    /// begins: what is under way then would make reads wait.
    fn obsess(&mut self, exiled: usize, after: Duration, random: &mut Random) -> ObjectId {
        let obsessed = random.duration(millis(500)..=Duration::from_secs(8));
        let exiled = u32::try_from(exiled).expect("few clients");
        let writers = *random
            .pick(&[Writers::All, Writers::Only(exiled), Writers::AllBut(exiled)])
            .unwrap_or(&Writers::All);
        let from = if random.one_in(3) { self.now + after } else { self.now };
        self.obsess_from(from, obsessed, writers)
    }

    /// Everybody works on one object for so long, and these write it from then on.
    pub(crate) fn obsess_from(&mut self, from: Now, lasts: Duration, writers: Writers) -> ObjectId {
        let (image, byte) = self.workload.obsess(self.now, from, from + lasts, writers);
        let number = byte / OBJECT_SIZE as u64;
        ObjectId { image, number }
    }

    /// As [`World::obsess`], on an object that suits, if one is found.
    fn obsess_with(&mut self, exiled: usize, random: &mut Random, suits: impl Fn(&World, ObjectId) -> bool) -> bool {
        (0..TRIES).any(|_| {
            let object = self.obsess(exiled, Duration::ZERO, random);
            suits(self, object)
        })
    }

    fn plan_exile(
        &mut self,
        osds: &[Place],
        staying: &[Place],
        client: usize,
        after: Duration,
        random: &mut Random,
    ) -> Duration {
        let killed = victim(staying, random);
        let exile = Exile {
            osds: osds.to_vec(),
            client: self.osds.len() + client,
            // Others take over before the one who was killed could remember anything again.
            ends_lease: killed.is_some() || random.one_in(2),
            lasts: random.duration(Duration::from_secs(8)..=Duration::from_secs(20)),
            killed,
        };
        let lasts = exile.lasts;
        self.schedule.at(self.now + after, Event::Exile(Box::new(exile)));
        after + lasts
    }

    /// It begins.
    pub(crate) fn begin_exile(&mut self, exile: Exile) {
        if self.phase != Phase::Safety {
            return;
        }
        self.ambush.quiet_until = self.now + BETWEEN;
        let mut inside = exile.osds.clone();
        inside.push(exile.client);
        let cut = self.around(&inside);
        self.block(cut, exile.lasts);
        if let Some((place, after, down)) = exile.killed {
            self.schedule.at(self.now + after, Event::Kill(place, down));
        }
        if exile.ends_lease {
            exile.osds.into_iter().for_each(|osd| self.end_lease(osd));
        }
    }

    /// The metadata store has changed: is there an occasion?
    pub(crate) fn look_for_ambush(&mut self) {
        let before = std::mem::replace(&mut self.ambush.numbering, self.truth.numbering(POOL));
        let renumbered =
            before.filter(|before| Some(before.generation) != self.ambush.numbering.map(|now| now.generation));
        let activated = self.slow_activation();
        let quiet =
            self.now < self.ambush.quiet_until || self.nemesis.is_calm() || self.atlas.wants_calm(self.swarm.min_size);
        if quiet || self.phase != Phase::Safety || !self.swarm.has(Trouble::Exile) {
            return;
        }
        let mut random = self.ambush.random.clone();
        match (renumbered, activated) {
            (Some(before), _) if random.one_in(TAKEN) => self.ambush_replaced(before, &mut random),
            (None, Some(pg)) if random.one_in(TAKEN) => self.ambush_beginner(pg, &mut random),
            _ => {}
        }
        self.ambush.random = random;
    }

    /// A PG that has just become active, after members had to wait for what they promised to somebody else.
    fn slow_activation(&mut self) -> Option<PgId> {
        let mut slow = None;
        for (&pg, claim) in &self.truth.claims {
            let claim = &claim.value;
            let claimed = self.ambush.claimed.get(&pg).filter(|(epoch, _)| *epoch == claim.epoch);
            match (claim.active, claimed) {
                (false, None) => drop(self.ambush.claimed.insert(pg, (claim.epoch, self.now))),
                (true, Some((_, since))) => {
                    slow = Some(pg).filter(|_| self.now.since(*since) >= SLOW_INTERVIEW).or(slow);
                    self.ambush.claimed.remove(&pg);
                }
                _ => {}
            }
        }
        slow
    }

    /// The PGs of a pool are of a new generation: a primary of the one before is cut off before it hears of it.
    fn ambush_replaced(&mut self, before: Numbering, random: &mut Random) {
        let client = random.index(self.clients.len());
        let old = |world: &World, object: ObjectId| {
            world
                .truth
                .claims
                .get(&object.pg(before))
                .map(|claim| claim.value.primary)
        };
        // Where somebody else takes over, who lives.
        let suits = |world: &World, object: ObjectId| {
            let new = world
                .truth
                .pg_of(object)
                .and_then(|pg| world.truth.plan_of(pg)?.primary);
            old(world, object).is_some_and(|old| new.is_some_and(|new| new != old))
        };
        if !self.obsess_with(client, random, suits) {
            return;
        }
        let primary = self.workload.obsession().and_then(|(image, byte)| {
            let number = byte / OBJECT_SIZE as u64;
            old(self, ObjectId { image, number })
        });
        if let Some(place) = primary.and_then(|osd| self.place_of(NodeId::Osd(osd))) {
            self.ambush_at(place, client, Duration::ZERO, random);
        }
    }

    /// A primary that has just begun to serve is cut off.
    fn ambush_beginner(&mut self, pg: PgId, random: &mut Random) {
        let client = random.index(self.clients.len());
        let primary = self.truth.claims.get(&pg).map(|claim| claim.value.primary);
        let Some(place) = primary.and_then(|osd| self.place_of(NodeId::Osd(osd))) else {
            return;
        };
        if self.obsess_with(client, random, |world, object| world.truth.pg_of(object) == Some(pg)) {
            let after = random.duration(Duration::ZERO..=millis(20));
            self.ambush_at(place, client, after, random);
        }
    }

    fn ambush_at(&mut self, osd: Place, client: usize, after: Duration, random: &mut Random) {
        self.trace.line(self.now, format_args!("TROUBLE ambush of place {osd}"));
        self.counts.add(Trouble::Exile);
        let exile = Exile {
            osds: vec![osd],
            client: self.osds.len() + client,
            ends_lease: true,
            lasts: random.duration(Duration::from_secs(3)..=Duration::from_secs(12)),
            killed: None,
        };
        self.ambush.quiet_until = self.now + BETWEEN;
        self.nemesis.busy(self.now + after + exile.lasts);
        self.schedule.at(self.now + after, Event::Exile(Box::new(exile)));
    }
}
