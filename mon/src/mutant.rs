//! Deliberate bugs, to show that tests of the cluster find them.

/// Which bug. Exists only in tests, and with the feature `mutants`.
#[cfg(any(test, feature = "mutants"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Writes plans without comparing anything.
    PlanWithoutCompare,
    /// Plans without leading, and without comparing who leads.
    TwoLeaders,
}

/// Whether the monitor is asked for a deliberate bug; never in a normal build.
macro_rules! mutant {
    ($monitor:expr, $name:ident) => {{
        #[cfg(any(test, feature = "mutants"))]
        {
            $monitor.mutant == Some($crate::Mutant::$name)
        }
        #[cfg(not(any(test, feature = "mutants")))]
        {
            let _ = &$monitor;
            false
        }
    }};
}
pub(crate) use mutant;
