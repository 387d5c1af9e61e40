//! The gateways as those know them who test: where each listens, and whether it may still hold what clients left there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use crate::server::Ports;

/// What a gateway holds comes out sooner once nothing holds it up.
const COMES_OUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct State {
    /// It is stopped, down or cut off.
    held: bool,
    since: Instant,
}

#[derive(Debug)]
struct Front {
    ports: Ports,
    state: Mutex<State>,
}

/// All gateways of a cluster; shared by those who stop them and those who use them.
#[derive(Debug)]
pub struct Fronts(Vec<Front>);

impl Fronts {
    /// None of the cluster's gateways is held up.
    #[must_use]
    pub fn of(fleet: &Fleet) -> Self {
        Self::at(fleet.gateways.iter().map(|gateway| gateway.ports))
    }

    fn at(ports: impl Iterator<Item = Ports>) -> Self {
        let state = State {
            held: false,
            since: Instant::now(),
        };
        let front = |ports| Front {
            ports,
            state: Mutex::new(state),
        };
        Self(ports.map(front).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Where one listens.
    #[must_use]
    pub fn ports(&self, at: usize) -> Ports {
        self.0[at].ports
    }

    /// A gateway is held up from now on, or no more.
    pub fn note(&self, at: usize, held: bool) {
        let since = Instant::now();
        *self.0[at].state.lock().unwrap_or_else(PoisonError::into_inner) = State { held, since };
    }

    /// Whether what somebody left at a gateway then has come out by now, if it ever does.
    #[must_use]
    pub fn has_let_go(&self, at: usize, left: Instant) -> bool {
        let state = *self.0[at].state.lock().unwrap_or_else(PoisonError::into_inner);
        !state.held && state.since.elapsed() > COMES_OUT && left.elapsed() > COMES_OUT
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{COMES_OUT, Fronts};
    use crate::server::Ports;

    #[test]
    fn what_was_left_may_come_out_until_a_while_after_the_hold() {
        let ports = Ports {
            nbd: 1,
            iscsi: 2,
            nfs: 3,
            http: 4,
        };
        let fronts = Fronts::at([ports].into_iter());
        let left = Instant::now();
        let long_ago = left - 2 * COMES_OUT;
        assert!(!fronts.has_let_go(0, left));
        fronts.0[0].state.lock().unwrap().since = long_ago;
        assert!(!fronts.has_let_go(0, left) && fronts.has_let_go(0, long_ago));
        fronts.note(0, true);
        assert!(!fronts.has_let_go(0, long_ago));
        fronts.note(0, false);
        assert!(!fronts.has_let_go(0, long_ago), "a moment ago it was held");
        std::thread::sleep(COMES_OUT + Duration::from_millis(50));
        assert!(fronts.has_let_go(0, long_ago));
    }
}
