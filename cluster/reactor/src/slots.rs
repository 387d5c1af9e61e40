//! A table whose keys stay wrong once their entry is gone: index in the low half, generation in the high.
//! No hashing, no search; a key of a removed entry finds nothing.

/// Generations use 30 bits, so that two bits of an epoll token remain for its kind.
const GENERATION_MASK: u32 = (1 << 30) - 1;

pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Stores `value` and returns its key.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                value: None,
            });
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 entries")
        });
        let entry = &mut self.entries[index as usize];
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        entry.value = Some(value);
        (u64::from(entry.generation) << 32) | u64::from(index)
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let entry = self.entries.get(index(key))?;
        if entry.generation == generation(key) {
            entry.value.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let entry = self.entries.get_mut(index(key))?;
        if entry.generation == generation(key) {
            entry.value.as_mut()
        } else {
            None
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        self.get(key)?;
        let value = self.entries[index(key)].value.take();
        self.free.extend(u32::try_from(index(key)));
        value
    }

    /// All entries, in no particular order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|entry| entry.value.as_ref())
    }

    /// Removes the entries for which `keep` is false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.value.as_ref().is_some_and(|value| !keep(value)) {
                entry.value = None;
                self.free.extend(u32::try_from(index));
            }
        }
    }
}

fn index(key: u64) -> usize {
    usize::try_from(key & u64::from(u32::MAX)).expect("32 bits fit")
}

fn generation(key: u64) -> u32 {
    u32::try_from(key >> 32).expect("32 bits fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert("a");
        let second = slots.insert("b");
        assert_eq!(slots.remove(first), Some("a"));
        let third = slots.insert("c");
        assert_eq!(index(third), index(first), "the slot is used again");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"b"));
        assert_eq!(slots.get_mut(third), Some(&mut "c"));
        assert_eq!(slots.len(), 2);
        assert!(third >> 62 == 0, "two bits stay free");
    }
}
