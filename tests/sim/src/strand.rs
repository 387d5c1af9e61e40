//! Gateways that do not end what they have begun: one that has just cut off a file is killed, or cut off itself. It knows
//! what it has to do and cannot, and others do not know whether it ever will.

use std::time::Duration;

use trivet_core::NodeId;
use trivet_namespace::{Namespace, Trimming};

use crate::event::{Event, Undo};
use crate::network::Place;
use crate::trouble::Trouble;
use crate::world::{Phase, World};

/// How long it is cut off, milliseconds: others have to take it for gone.
const STRANDED: (u64, u64) = (6_000, 12_000);
/// It hears what the metadata store made of its truncation within this time, milliseconds.
const HEARS: (u64, u64) = (5, 500);
/// It reaches the OSDs again so much earlier than the metadata store at most, milliseconds: more than it waits at most before
/// it sends something again.
const EARLIER: u64 = 12_000;
/// One occasion in so many is taken.
const TAKEN: u64 = 3;

/// What was cut off last, as far as the metadata says.
#[derive(Debug, Default)]
pub struct Truncations {
    names: Namespace,
    last: Option<Trimming>,
}

impl World {
    /// The metadata has changed: maybe there is a truncation that was not there before.
    pub(crate) fn look_for_truncation(&mut self, notice: &trivet_core::kv::Notice) {
        if !self.swarm.has(Trouble::Strand) && !self.swarm.has(Trouble::Unseen) {
            return;
        }
        self.truncations.names.apply(notice);
        let inode = self.truncations.names.inode(self.sized.image);
        let now = inode.and_then(|inode| inode.trimming);
        let before = std::mem::replace(&mut self.truncations.last, now);
        let Some(begun) = now.filter(|_| before.is_none()) else {
            return;
        };
        let Some(place) = self.place_of(NodeId::Client(begun.by)) else {
            return;
        };
        if self.phase != Phase::Safety || self.nemesis.is_calm() {
            return;
        }
        if self.swarm.has(Trouble::Strand) && self.random.one_in(TAKEN) {
            self.strand(place);
        } else {
            self.hold_truncation(place);
        }
    }

    fn strand(&mut self, place: Place) {
        self.counts.add(Trouble::Strand);
        if self.swarm.has(Trouble::KillGateway) && self.random.one_in(3) {
            let down = self.random.duration(Duration::ZERO..=Duration::from_secs(10));
            self.trace.line(
                self.now,
                format_args!("TROUBLE the gateway at {place} is killed and away for {down:?}"),
            );
            self.nemesis.busy(self.now + down);
            return self.schedule.at(self.now, Event::Kill(place, down));
        }
        let millis = Duration::from_millis(self.random.range(STRANDED.0..=STRANDED.1));
        let hears = Duration::from_millis(self.random.range(HEARS.0..=HEARS.1));
        let earlier = Duration::from_millis(self.random.below(EARLIER));
        self.trace.line(
            self.now,
            format_args!("TROUBLE the gateway at {place} is cut off for {millis:?}"),
        );
        self.nemesis.busy(self.now + millis + earlier);
        let osds: Vec<(Place, Place)> = (0..self.osds.len())
            .flat_map(|osd| [(place, osd), (osd, place)])
            .collect();
        self.block(osds, millis);
        let cut = Event::Undo(Undo::Connected(place, millis + earlier));
        self.schedule.at(self.now + hears, cut);
        // Those who shall know that it is fenced may hear of it late.
        if self.random.one_in(2) {
            let until = self.now + millis + earlier + Duration::from_secs(2);
            for osd in 0..self.osds.len() {
                self.processes[osd].watch_late = self.processes[osd].watch_late.max(until);
            }
        }
    }

    /// A gateway is cut off from the metadata store.
    pub(crate) fn cut_from_metadata(&mut self, place: Place, lasts: Duration) {
        if self.phase == Phase::Safety {
            let meta = self.meta();
            self.block(vec![(place, meta), (meta, place)], lasts);
        }
    }
}
