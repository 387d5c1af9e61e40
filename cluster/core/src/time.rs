//! Time as an argument: machines never read a clock.

use std::time::Duration;

/// A point on the monotonic (boot-time) clock, in nanoseconds since an arbitrary origin of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub u64);

impl Now {
    /// The time that passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A point on an OSD's clock as it tells clients of it: nanoseconds since an origin that is drawn with every start of the
/// OSD, and wrapping around. Only the OSD itself can tell how old one is; one of another start is older than any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The clock at `now` of the start of an OSD that drew `boot`.
    #[must_use]
    pub fn of(boot: u64, now: Now) -> Tick {
        Tick(boot.wrapping_add(now.0))
    }

    /// The time that passed from this one to `now`, both of the same OSD.
    #[must_use]
    pub fn age(self, now: Tick) -> Duration {
        Duration::from_nanos(now.0.wrapping_sub(self.0))
    }
}

impl std::ops::Add<Duration> for Now {
    type Output = Now;

    fn add(self, rhs: Duration) -> Now {
        Now(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}
