//! One link: how far it is, who is at the other end, and what is not sent yet.

use std::time::Duration;

use trivet_core::{NodeId, Now};

use crate::fault::Fault;

/// A dial that takes longer is given up.
const DIAL: Duration = Duration::from_secs(2);
/// Who does not greet within this time is turned away.
const GREETING: Duration = Duration::from_secs(5);
/// A link that stood for so long was of use: the next dial may start at once when it breaks.
const STABLE: Duration = Duration::from_secs(1);

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection yet.
    Dialing { until: Now },
    /// The peer's greeting has not come. Who dialed may send already.
    Greeting { until: Now },
    /// Greeted.
    Standing {
        /// The peer's, from its greeting.
        boot: u64,
        /// The peer's number of the link.
        number: u64,
        since: Now,
    },
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Who is at the other end; of an accepted link, once it has greeted.
    pub(crate) node: Option<NodeId>,
    /// The peer dialed.
    pub(crate) incoming: bool,
    pub(crate) state: State,
    /// Bytes handed over that have not left, as far as it is known.
    pub(crate) unsent: usize,
    pub(crate) paused: bool,
}

impl Link {
    /// One that is being opened.
    pub(crate) fn dialing(now: Now, node: NodeId) -> Link {
        Link::new(Some(node), State::Dialing { until: now + DIAL })
    }

    /// One that was accepted.
    pub(crate) fn accepted(now: Now) -> Link {
        Link::new(None, Link::greeting(now))
    }

    fn new(node: Option<NodeId>, state: State) -> Link {
        Link {
            node,
            incoming: node.is_none(),
            state,
            unsent: 0,
            paused: false,
        }
    }

    /// The state of a link that has just connected.
    pub(crate) fn greeting(now: Now) -> State {
        let until = now + GREETING;
        State::Greeting { until }
    }

    pub(crate) fn is_dialing(&self) -> bool {
        matches!(self.state, State::Dialing { .. })
    }

    pub(crate) fn is_standing(&self) -> bool {
        matches!(self.state, State::Standing { .. })
    }

    /// Whether there was somebody at the other end. A peer that is just ending may still take a dial, and break it off
    /// before it greets.
    pub(crate) fn was_connected(&self) -> bool {
        match self.state {
            State::Dialing { .. } => false,
            State::Greeting { .. } => !self.incoming,
            State::Standing { .. } => true,
        }
    }

    pub(crate) fn was_useful(&self, now: Now) -> bool {
        matches!(self.state, State::Standing { since, .. } if now.since(since) >= STABLE)
    }

    /// The boot that the peer greeted with.
    pub(crate) fn boot(&self) -> Option<u64> {
        match self.state {
            State::Standing { boot, .. } => Some(boot),
            State::Dialing { .. } | State::Greeting { .. } => None,
        }
    }

    /// What is wrong if it has waited for too long.
    pub(crate) fn overdue(&self, now: Now) -> Option<Fault> {
        match self.state {
            State::Dialing { until } if now >= until => Some(Fault::Unreachable),
            State::Greeting { until } if now >= until => Some(Fault::Silent),
            _ => None,
        }
    }
}
