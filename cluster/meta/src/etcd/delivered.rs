//! What a watch has delivered so far, and by what it recognises the store that this came from.
//!
//! An etcd that was restored from a backup may have the same identity, and any revision: whoever went on from there would
//! lay changes over what they do not belong to. So the watch keeps the last key that it delivered as written, the
//! *witness*: the store had it, with this value and of this commit, at the revision that is known.

use trivet_core::kv::{Event, KeyValue, Notice, Revision};

use crate::Range;

/// How far a watch has delivered the store's changes, with the last key of them.
pub(super) struct Delivered {
    /// Everything up to here was delivered, or is known to the reader.
    known: Option<Revision>,
    /// Something was delivered.
    begun: bool,
    /// The changes after that are not to be had one by one.
    gap: bool,
    witness: Option<KeyValue>,
}

impl Delivered {
    /// Nothing yet, to a reader who knows everything up to `known`.
    pub(super) fn nothing(known: Option<Revision>) -> Delivered {
        Delivered {
            known,
            begun: false,
            gap: false,
            witness: None,
        }
    }

    /// The commit to go on from, if the store has what follows.
    pub(super) fn resume_from(&self) -> Option<Revision> {
        self.known.filter(|_| !self.gap)
    }

    /// The changes that follow are not there any more.
    pub(super) fn lost_changes(&mut self) {
        self.gap = true;
    }

    /// The key that the store must have had at the commit to go on from; empty if any will do.
    pub(super) fn witness(&self) -> &str {
        self.witness.as_ref().map_or("", |witness| &witness.key)
    }

    /// Whether that key, as the store says that it was then, is what was delivered.
    pub(super) fn is_witnessed_by(&self, row: Option<&KeyValue>) -> bool {
        self.witness.is_none() || self.witness.as_ref() == row
    }

    /// Whether everything that there is now cannot be what became of what was delivered.
    pub(super) fn contradicts(&self, range: &Range) -> bool {
        let known = self.known.filter(|_| self.begun);
        let is_older = known.is_some_and(|known| range.revision < known);
        is_older || self.witness.as_ref().is_some_and(|witness| is_before(range, witness))
    }

    /// Takes note of what the reader gets.
    pub(super) fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Snapshot { revision, keys } | Notice::Replaced { revision, keys } => {
                self.known = Some(*revision);
                self.witness = keys.iter().max_by_key(|kv| kv.mod_revision).cloned();
            }
            Notice::Changes { revision, events } => {
                self.known = Some(*revision);
                events.iter().for_each(|event| self.note_event(event));
            }
        }
        (self.begun, self.gap) = (true, false);
    }

    fn note_event(&mut self, event: &Event) {
        match event {
            Event::Put(kv) => self.witness = Some(kv.clone()),
            Event::Delete { key, .. } => drop(self.witness.take_if(|witness| witness.key == *key)),
        }
    }
}

/// Whether the key is there as it was before it became what was delivered. One that is not there may have been removed
/// since.
fn is_before(range: &Range, witness: &KeyValue) -> bool {
    let there = range.keys.iter().find(|kv| kv.key == witness.key);
    there.is_some_and(|kv| {
        kv.mod_revision < witness.mod_revision || kv.mod_revision == witness.mod_revision && kv != witness
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &'static str, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: value.into(),
            mod_revision,
        }
    }

    fn delivered(events: Vec<Event>) -> Delivered {
        let mut delivered = Delivered::nothing(None);
        delivered.note(&Notice::Snapshot {
            revision: 7,
            keys: vec![kv("a", "1", 5), kv("b", "1", 6), kv("c", "1", 4)],
        });
        if !events.is_empty() {
            delivered.note(&Notice::Changes { revision: 9, events });
        }
        delivered
    }

    #[test]
    fn the_last_key_that_is_there_is_the_witness() {
        let delete = |key: &str| Event::Delete {
            key: key.to_owned(),
            revision: 9,
        };
        let put = |key| Event::Put(kv(key, "2", 9));
        let table = [
            (vec![], "b"),
            (vec![put("c")], "c"),
            (vec![put("c"), delete("a")], "c"),
            (vec![put("c"), delete("c")], ""),
            (vec![delete("b")], ""),
        ];
        for (events, witness) in table {
            assert_eq!(delivered(events.clone()).witness(), witness, "{events:?}");
        }
    }

    #[test]
    fn another_store_is_recognised() {
        let delivered = delivered(vec![Event::Put(kv("a", "2", 8))]);
        assert!(delivered.is_witnessed_by(Some(&kv("a", "2", 8))));
        for other in [None, Some(kv("a", "1", 5)), Some(kv("a", "3", 8))] {
            assert!(!delivered.is_witnessed_by(other.as_ref()), "{other:?}");
        }
        let range = |revision, keys| Range { revision, keys };
        let table = [
            (range(9, vec![kv("a", "2", 8)]), false),
            (range(12, vec![kv("a", "3", 11)]), false),
            (range(12, vec![]), false),
            (range(8, vec![kv("a", "2", 8)]), true),
            (range(12, vec![kv("a", "1", 5)]), true),
            (range(12, vec![kv("a", "9", 8)]), true),
        ];
        for (range, is_other) in table {
            assert_eq!(delivered.contradicts(&range), is_other, "{range:?}");
        }
    }

    #[test]
    fn a_reader_who_got_nothing_yet_gets_what_there_is() {
        let delivered = Delivered::nothing(Some(90));
        let range = Range {
            revision: 3,
            keys: Vec::new(),
        };
        assert!(!delivered.contradicts(&range) && delivered.is_witnessed_by(None));
        assert_eq!(delivered.resume_from(), Some(90));
    }
}
