//! The network: one connection per direction and pair of places, which keeps its order, and what happens to it.
//!
//! It decides whether and when something arrives; the events themselves are the world's.

use std::collections::VecDeque;
use std::time::Duration;

use trivet_core::message::Message;
use trivet_core::{NodeId, Now};

use crate::random::Random;

/// Where a node is: an index into the places of the run (disks' nodes, clients, monitors, the metadata store).
pub type Place = usize;

/// Messages that a connection may deliver again after a reconnect.
const RECENT: usize = 8;
/// One message in so many is late by a spike, if there are spikes.
const SPIKE: u64 = 200;

/// One direction of one pair of places.
#[derive(Debug, Default)]
struct Link {
    /// Counts breaks: what was sent on an earlier connection does not arrive.
    generation: u32,
    /// When the last message arrives: later ones do not overtake it.
    last: Now,
    /// How many faults block it now.
    blocked: u32,
    /// Messages lost, per mille.
    loss: u64,
    /// Comes on top of every message's latency.
    delay: Duration,
    recent: VecDeque<(NodeId, NodeId, Message)>,
}

/// What latency is like in a run.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Mean of the exponential part.
    pub mean: Duration,
    /// Nothing is faster.
    pub least: Duration,
    /// Some messages are late by up to this.
    pub spike: Duration,
}

/// All connections.
#[derive(Debug)]
pub struct Network {
    places: usize,
    links: Vec<Link>,
    latency: Latency,
    random: Random,
    /// Whether messages are remembered for repetition.
    remembers: bool,
    /// What was lost, for the report.
    pub lost: u64,
}

impl Network {
    /// A healthy network between so many places.
    #[must_use]
    pub fn new(places: usize, latency: Latency, remembers: bool, random: Random) -> Network {
        Network {
            places,
            links: (0..places * places).map(|_| Link::default()).collect(),
            latency,
            random,
            remembers,
            lost: 0,
        }
    }

    fn link(&mut self, from: Place, to: Place) -> &mut Link {
        &mut self.links[from * self.places + to]
    }

    /// When something sent now arrives, and on which connection; `None` if it is lost.
    pub fn send(&mut self, now: Now, from: Place, to: Place) -> Option<(Now, u32)> {
        let latency = self.draw();
        let lost = self.random.below(1000);
        let link = self.link(from, to);
        if link.blocked > 0 || lost < link.loss {
            self.lost += 1;
            return None;
        }
        link.last = link.last.max(now + latency + link.delay);
        Some((link.last, link.generation))
    }

    fn draw(&mut self) -> Duration {
        let spike = self.latency.spike > Duration::ZERO && self.random.one_in(SPIKE);
        let late = if spike {
            self.random.duration(Duration::ZERO..=self.latency.spike)
        } else {
            Duration::ZERO
        };
        self.latency.least + self.random.exponential(self.latency.mean) + late
    }

    /// Whether what was sent on this connection arrives now.
    pub fn arrives(&mut self, from: Place, to: Place, generation: u32) -> bool {
        let link = self.link(from, to);
        let arrives = link.blocked == 0 && link.generation == generation;
        self.lost += u64::from(!arrives);
        arrives
    }

    /// Remembers what arrived, for a repetition.
    pub fn remember(&mut self, (from, to): (Place, Place), sender: NodeId, receiver: NodeId, message: &Message) {
        if self.remembers {
            let link = self.link(from, to);
            link.recent.push_back((sender, receiver, message.clone()));
            if link.recent.len() > RECENT {
                link.recent.pop_front();
            }
        }
    }

    /// The connection breaks and its last messages are sent again on the next one.
    pub fn resend(&mut self, from: Place, to: Place) -> Vec<(NodeId, NodeId, Message)> {
        self.break_link(from, to);
        let count = self.random.range(1..=RECENT as u64);
        let recent = std::mem::take(&mut self.link(from, to).recent);
        let skipped = recent.len().saturating_sub(usize::try_from(count).unwrap_or(RECENT));
        recent.into_iter().skip(skipped).collect()
    }

    /// Everything that is on its way in this direction is lost.
    pub fn break_link(&mut self, from: Place, to: Place) {
        self.link(from, to).generation += 1;
    }

    /// A process has ended: what is on its way to it is lost, and what it had sent, too, if so.
    pub fn break_place(&mut self, place: Place, also_sent: bool) {
        for other in 0..self.places {
            self.break_link(other, place);
            self.link(place, other).recent.clear();
            if also_sent {
                self.break_link(place, other);
            }
        }
    }

    /// Nothing arrives in this direction until it is unblocked as often.
    pub fn block(&mut self, from: Place, to: Place) {
        self.link(from, to).blocked += 1;
    }

    /// Takes back one [`Network::block`].
    pub fn unblock(&mut self, from: Place, to: Place) {
        let link = self.link(from, to);
        link.blocked = link.blocked.saturating_sub(1);
    }

    /// Whether anything arrives.
    #[must_use]
    pub fn is_blocked(&self, from: Place, to: Place) -> bool {
        self.links[from * self.places + to].blocked > 0
    }

    /// Messages of this direction are lost, so many per mille.
    pub fn set_loss(&mut self, from: Place, to: Place, per_mille: u64) {
        self.link(from, to).loss = per_mille;
    }

    /// Messages of this direction come later by this.
    pub fn set_delay(&mut self, from: Place, to: Place, delay: Duration) {
        self.link(from, to).delay = delay;
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            (link.blocked, link.loss, link.delay) = (0, 0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let latency = Latency {
            mean: Duration::from_millis(1),
            least: Duration::from_micros(1),
            spike: Duration::from_secs(1),
        };
        Network::new(2, latency, false, Random::new(1))
    }

    #[test]
    fn a_connection_keeps_its_order() {
        let mut network = network();
        let arrivals: Vec<Now> = (0..1000u64)
            .filter_map(|at| network.send(Now(at), 0, 1))
            .map(|(when, _)| when)
            .collect();
        assert_eq!(arrivals.len(), 1000);
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn what_is_under_way_when_a_connection_breaks_is_lost() {
        let mut network = network();
        let (_, before) = network.send(Now(0), 0, 1).unwrap();
        network.break_link(0, 1);
        let (_, after) = network.send(Now(0), 0, 1).unwrap();
        assert!(!network.arrives(0, 1, before) && network.arrives(0, 1, after));
        network.block(0, 1);
        assert!(network.send(Now(0), 0, 1).is_none() && !network.arrives(0, 1, after));
        assert!(network.send(Now(0), 1, 0).is_some(), "the other direction works");
        network.heal();
        assert!(network.arrives(0, 1, after));
    }
}
