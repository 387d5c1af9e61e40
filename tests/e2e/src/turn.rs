//! Whose turn it is on the machine: light tests take turns in twos, what measures time or loads the disk waits until
//! it is alone.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// A test's turn; it ends when this is dropped. A test that takes two at once may wait for itself.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Others that are light may run, as many as libtest has threads.
    Shared { _guard: RwLockReadGuard<'static, ()> },
    /// Nothing else runs.
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Turn {
    /// Waits until nobody is alone.
    pub(crate) fn shared() -> Self {
        let guard = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        Self::Shared { _guard: guard }
    }

    /// Waits until all others are gone.
    pub(crate) fn alone() -> Self {
        let guard = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        Self::Alone { _guard: guard }
    }
}
