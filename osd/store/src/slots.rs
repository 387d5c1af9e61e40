//! Which data slots are free, and which of the free ones must wait for a settling write to end.

use trivet_core::OBJECT_SIZE;

/// The allocator of data slots. Promised slots count as used.
#[derive(Debug, Default)]
pub struct Slots {
    /// One bit per slot, 1 = used.
    words: Vec<u64>,
    count: u32,
    free: u32,
    reserve: u32,
    /// The word where the last search ended.
    cursor: usize,
    /// Slots that a settling write is going to, and whether they were released meanwhile.
    pinned: Vec<(u32, bool)>,
}

impl Slots {
    /// `count` free slots, of which 2 %, at least 2, are kept for overwrites.
    pub fn new(count: u32) -> Slots {
        let mut words = vec![0; count.div_ceil(64) as usize];
        if !count.is_multiple_of(64) {
            words[count as usize / 64] = u64::MAX << (count % 64);
        }
        Slots {
            words,
            count,
            free: count,
            reserve: (count / 50).max(2),
            cursor: 0,
            pinned: Vec::new(),
        }
    }

    /// Takes a free slot; the last ones only for an overwrite.
    pub fn take(&mut self, overwrite: bool) -> Option<u32> {
        if self.free <= if overwrite { 0 } else { self.reserve } {
            return None;
        }
        while self.words[self.cursor] == u64::MAX {
            self.cursor = (self.cursor + 1) % self.words.len();
        }
        let bit = self.words[self.cursor].trailing_ones();
        let slot = u32::try_from(self.cursor * 64).expect("fewer than 2^32 slots") + bit;
        assert!(self.claim(slot), "a free slot can be claimed");
        Some(slot)
    }

    /// Marks a slot as used; false if it does not exist or is used already.
    pub fn claim(&mut self, slot: u32) -> bool {
        let bit = 1 << (slot % 64);
        match self.words.get_mut(slot as usize / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.free -= 1;
                true
            }
            _ => false,
        }
    }

    /// Gives a slot back; it becomes free when no settling write goes to it.
    pub fn release(&mut self, slot: u32) {
        match self.pinned.iter_mut().find(|p| p.0 == slot) {
            Some(pin) => pin.1 = true,
            None => self.set_free(slot),
        }
    }

    /// Keeps a slot from being reused while a settling write goes to it.
    pub fn pin(&mut self, slot: u32) {
        self.pinned.push((slot, false));
    }

    /// The settling write has ended.
    pub fn unpin(&mut self, slot: u32) {
        let at = self.pinned.iter().position(|p| p.0 == slot).expect("it was pinned");
        if self.pinned.swap_remove(at).1 {
            self.set_free(slot);
        }
    }

    fn set_free(&mut self, slot: u32) {
        let bit = 1 << (slot % 64);
        let word = &mut self.words[slot as usize / 64];
        assert!(*word & bit != 0, "slot {slot} is freed twice");
        *word &= !bit;
        self.free += 1;
    }

    /// Bytes of all slots.
    pub fn capacity(&self) -> u64 {
        u64::from(self.count) * OBJECT_SIZE as u64
    }

    /// Slots that new objects can have.
    pub fn room(&self) -> u32 {
        self.free.saturating_sub(self.reserve)
    }

    /// Bytes of slots in use or promised.
    pub fn used(&self) -> u64 {
        u64::from(self.count - self.free) * OBJECT_SIZE as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_for_overwrites() {
        let mut slots = Slots::new(100);
        let taken: Vec<u32> = std::iter::from_fn(|| slots.take(false)).collect();
        assert_eq!(taken, (0..98).collect::<Vec<_>>());
        assert_eq!(slots.take(true), Some(98));
        assert_eq!(slots.take(true), Some(99));
        assert_eq!(slots.take(true), None);
        slots.release(17);
        assert_eq!((slots.take(false), slots.take(true)), (None, Some(17)));
        assert_eq!(slots.used(), slots.capacity());
    }

    #[test]
    fn a_pinned_slot_is_not_reused() {
        let mut slots = Slots::new(4);
        assert!(slots.claim(0) && !slots.claim(0) && !slots.claim(4) && !slots.claim(u32::MAX));
        slots.pin(0);
        slots.release(0);
        assert_eq!(slots.take(false), Some(1));
        slots.unpin(0);
        assert_eq!(std::iter::from_fn(|| slots.take(true)).collect::<Vec<_>>(), [0, 2, 3]);
    }
}
