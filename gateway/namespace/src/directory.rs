//! The entries of one directory, by name and by cookie.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use trivet_core::ImageId;
use trivet_core::kv::Revision;

use crate::inode::EntryValue;

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the listing; stays for the life of the name.
    pub cookie: u64,
    /// Any bytes but `/` and NUL.
    pub name: &'a [u8],
    /// Whose name it is.
    pub id: ImageId,
}

/// An entry with the commit that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) value: EntryValue,
    pub(crate) revision: Revision,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    by_name: BTreeMap<Arc<[u8]>, Slot>,
    by_cookie: BTreeSet<(u64, Arc<[u8]>)>,
}

impl Directory {
    pub(crate) fn get(&self, name: &[u8]) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    /// Returns the entry's name as it is kept, to be shared.
    pub(crate) fn insert(&mut self, name: &[u8], slot: Slot) -> Arc<[u8]> {
        self.remove(name);
        let name: Arc<[u8]> = name.into();
        self.by_cookie.insert((slot.value.cookie, Arc::clone(&name)));
        self.by_name.insert(Arc::clone(&name), slot);
        name
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Slot> {
        let (name, slot) = self.by_name.remove_entry(name)?;
        self.by_cookie.remove(&(slot.value.cookie, name));
        Some(slot)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The entries with cookies larger than `after`, in order of cookies.
    pub(crate) fn after(&self, after: u64) -> impl Iterator<Item = Entry<'_>> {
        let from = match after.checked_add(1) {
            Some(next) => Bound::Included((next, Arc::from([]))),
            None => Bound::Excluded((u64::MAX, Arc::from([0xff; crate::MAX_NAME + 1]))),
        };
        self.by_cookie
            .range((from, Bound::Unbounded))
            .filter_map(|(cookie, name)| {
                let slot = self.by_name.get(name)?;
                Some(Entry {
                    cookie: *cookie,
                    name,
                    id: slot.value.id,
                })
            })
    }
}
