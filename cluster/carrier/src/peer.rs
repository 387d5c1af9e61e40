//! What a carrier knows of one other node: where it is, which of its links are open, and which start of its process
//! and which of its links are the latest.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use trivet_core::keys::OsdState;
use trivet_core::{NodeId, Now};

use crate::LinkId;
use crate::backoff::Backoff;
use crate::fault::Fault;
use crate::waiting::Waiting;

/// Earlier boots of a node that are remembered: they are turned away.
const BOOTS: usize = 4;
/// A node without links is remembered for so long: bytes that are older than its last link do not come later.
const MEMORY: Duration = Duration::from_secs(60);

/// What the map says of an OSD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) boot: u64,
    pub(crate) address: Option<SocketAddr>,
}

impl Entry {
    /// An address that is not one of IP and port is none.
    pub(crate) fn of(state: &OsdState) -> Entry {
        let address = state.address.as_deref().and_then(|address| address.parse().ok());
        Entry {
            boot: state.boot,
            address,
        }
    }
}

/// One other node.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// From the map.
    pub(crate) entry: Option<Entry>,
    /// Connected links, in the order in which they came to be: at most one that each side dialed.
    pub(crate) links: Vec<LinkId>,
    /// The one that is being opened.
    pub(crate) dialing: Option<LinkId>,
    /// Dial even if there is nothing to send, to learn whether the OSD is there.
    pub(crate) probe: bool,
    pub(crate) backoff: Backoff,
    /// Messages for the next link; none while there is one to send on.
    pub(crate) waiting: Waiting,
    /// The last link that was sent on. Never an earlier one again: the peer may not have read what a later one brought.
    used: Option<LinkId>,
    /// The boot of the last greeting.
    boot: Option<u64>,
    earlier: VecDeque<u64>,
    /// The latest of the peer's links of this boot that brought a frame, by the peer's number.
    newest: u64,
    /// When the last link ended.
    idle: Now,
}

impl Peer {
    /// The link to send on: the one that was used last, or else the first one that is later.
    pub(crate) fn pick(&mut self) -> Option<LinkId> {
        let used = self.used;
        let link = self.links.iter().copied().find(|&link| Some(link) == used);
        let link = link.or_else(|| self.links.iter().copied().find(|&link| Some(link) > used));
        self.used = link.or(used);
        link
    }

    /// Whether there is a link to send on. One that was accepted before the last used one was dialed, and greeted after
    /// that had ended, is only read.
    pub(crate) fn is_sendable(&self) -> bool {
        self.links.iter().any(|&link| Some(link) >= self.used)
    }

    /// Removes a link, and returns those that cannot be sent on any more because of that.
    pub(crate) fn remove(&mut self, now: Now, link: LinkId) -> Vec<LinkId> {
        self.links.retain(|&other| other != link);
        if self.dialing == Some(link) {
            self.dialing = None;
        }
        let mut useless = Vec::new();
        if self.used == Some(link) {
            let (later, earlier) = self.links.iter().partition(|&&other| other > link);
            (self.links, useless) = (later, earlier);
        }
        self.idle = now;
        useless
    }

    /// Where to dial if a link is wanted, there is none, and it is time.
    pub(crate) fn dial_due(&self, now: Now) -> Option<SocketAddr> {
        let wanted = self.probe || !self.waiting.is_empty();
        let idle = !self.is_sendable() && self.dialing.is_none();
        let address = self.entry.and_then(|entry| entry.address);
        address.filter(|_| wanted && idle && self.backoff.is_due(now))
    }

    /// A greeting with this boot. Says whether it is another one than before.
    pub(crate) fn greeted(&mut self, boot: u64) -> Result<bool, Fault> {
        if self.boot == Some(boot) {
            return Ok(false);
        }
        let confirmed = self.entry.is_some_and(|entry| entry.boot == boot);
        if self.earlier.contains(&boot) && !confirmed {
            return Err(Fault::Restarted);
        }
        if let Some(last) = self.boot.replace(boot) {
            self.retire(last);
        }
        self.earlier.retain(|&other| other != boot);
        self.newest = 0;
        Ok(true)
    }

    /// A boot that is over.
    pub(crate) fn retire(&mut self, boot: u64) {
        if self.boot == Some(boot) {
            self.boot = None;
        }
        self.earlier.retain(|&other| other != boot);
        self.earlier.push_back(boot);
        if self.earlier.len() > BOOTS {
            self.earlier.pop_front();
        }
    }

    /// A frame came on the peer's link of this number.
    pub(crate) fn heard(&mut self, number: u64) -> Result<(), Fault> {
        if number < self.newest {
            return Err(Fault::Older);
        }
        self.newest = number;
        Ok(())
    }

    /// Whether nothing is lost by forgetting it.
    pub(crate) fn is_forgettable(&self, now: Now) -> bool {
        let unused = self.entry.is_none() && self.links.is_empty() && self.dialing.is_none();
        unused && now.since(self.idle) >= MEMORY
    }
}

/// The OSD that a node is.
pub(crate) fn osd_of(node: NodeId) -> Option<trivet_core::OsdId> {
    match node {
        NodeId::Osd(osd) => Some(osd),
        NodeId::Client(_) => None,
    }
}
