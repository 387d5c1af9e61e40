//! Unit attention conditions of one I_T nexus (SAM-5 clause 5.14).
//!
//! A unit that the nexus has not used yet has POWER ON pending. Conditions are reported in the order in which they arose, each
//! once; a condition that is pending already is not queued again, so the queue is bounded by the number of kinds.

use crate::Sense;

/// The pending conditions of each unit that a nexus has used.
#[derive(Debug, Default)]
pub struct Attentions {
    units: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    lun: u64,
    size: u64,
    pending: Vec<Sense>,
}

impl Attentions {
    /// Notes that `lun` is being used and has `size` bytes: the first use raises POWER ON, another size CAPACITY CHANGED.
    /// Says whether anything is pending. Call only for units that exist, which bounds the list.
    pub fn touch(&mut self, lun: u64, size: u64) -> bool {
        let Some(entry) = self.units.iter_mut().find(|entry| entry.lun == lun) else {
            self.units.push(Entry {
                lun,
                size,
                pending: vec![Sense::POWER_ON],
            });
            return true;
        };
        if entry.size != size {
            entry.size = size;
            raise(&mut entry.pending, Sense::CAPACITY_CHANGED);
        }
        !entry.pending.is_empty()
    }

    /// Raises a condition on `lun`, or on all units in use.
    pub fn raise(&mut self, lun: Option<u64>, condition: Sense) {
        for entry in self
            .units
            .iter_mut()
            .filter(|entry| lun.is_none_or(|lun| lun == entry.lun))
        {
            raise(&mut entry.pending, condition);
        }
    }

    /// Takes the oldest condition of `lun`: it is being reported.
    pub fn take(&mut self, lun: u64) -> Option<Sense> {
        let entry = self.units.iter_mut().find(|entry| entry.lun == lun)?;
        (!entry.pending.is_empty()).then(|| entry.pending.remove(0))
    }
}

fn raise(pending: &mut Vec<Sense>, condition: Sense) {
    if !pending.contains(&condition) {
        pending.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_on_is_reported_once() {
        let mut attentions = Attentions::default();
        assert!(attentions.touch(0, 512));
        assert_eq!(attentions.take(0), Some(Sense::POWER_ON));
        assert_eq!(attentions.take(0), None);
        assert!(!attentions.touch(0, 512));
        assert!(attentions.touch(1, 512), "each unit has its own");
    }

    #[test]
    fn resize_and_reset_queue_in_order_without_repeats() {
        let mut attentions = Attentions::default();
        attentions.touch(0, 512);
        attentions.touch(0, 1024);
        attentions.raise(None, Sense::DEVICE_RESET);
        attentions.raise(Some(0), Sense::DEVICE_RESET);
        attentions.raise(Some(7), Sense::DEVICE_RESET);
        let order: Vec<_> = std::iter::from_fn(|| attentions.take(0)).collect();
        assert_eq!(order, [Sense::POWER_ON, Sense::CAPACITY_CHANGED, Sense::DEVICE_RESET]);
        assert_eq!(attentions.take(7), None);
    }
}
