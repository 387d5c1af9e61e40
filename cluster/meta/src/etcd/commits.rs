//! Whole commits out of etcd's messages, which may end in the middle of one.

use trivet_core::kv::{Event, Notice, Revision};

use super::keyspace::revision_of;

/// The changes of one watch, between etcd and the reader.
pub(super) struct Commits {
    /// Everything up to here was given out.
    known: Revision,
    /// The begin of a commit whose end is still to come.
    half: Vec<Event>,
}

impl Commits {
    pub(super) fn after(known: Revision) -> Commits {
        Commits {
            known,
            half: Vec::new(),
        }
    }

    /// Takes the changes of a message, in commit order; gives out those of whole commits. `more` says that the
    /// next message goes on where this one ends.
    pub(super) fn take(&mut self, events: impl Iterator<Item = Event>, more: bool) -> Option<Notice> {
        let known = self.known;
        self.half.extend(events.filter(|event| revision_of(event) > known));
        let last = revision_of(self.half.last()?);
        let whole = if more {
            self.half.partition_point(|event| revision_of(event) < last)
        } else {
            self.half.len()
        };
        let rest = self.half.split_off(whole);
        let events = std::mem::replace(&mut self.half, rest);
        let revision = revision_of(events.last()?);
        self.known = revision;
        Some(Notice::Changes { revision, events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(revisions: &[Revision]) -> Vec<Event> {
        let event = |(index, &revision): (usize, &Revision)| Event::Delete {
            key: index.to_string(),
            revision,
        };
        revisions.iter().enumerate().map(event).collect()
    }

    #[test]
    fn commits_are_given_out_whole() {
        type Message = (&'static [Revision], bool);
        let table: [(&[Message], &[&[Revision]]); 7] = [
            (&[(&[6, 6, 7], false)], &[&[6, 6, 7]]),
            (&[(&[6, 7], true), (&[7, 8], false)], &[&[6], &[7, 7, 8]]),
            (&[(&[6], true), (&[6], true), (&[6], false)], &[&[6, 6, 6]]),
            (&[(&[6], true), (&[7], true), (&[], false)], &[&[6], &[7]]),
            (&[(&[4, 5], false), (&[5, 6], false), (&[6], false)], &[&[6]]),
            (&[(&[], false)], &[]),
            (&[(&[6], true)], &[]),
        ];
        for (messages, want) in table {
            let mut commits = Commits::after(5);
            let given = messages
                .iter()
                .filter_map(|(revisions, more)| commits.take(events(revisions).into_iter(), *more))
                .map(|notice| match notice {
                    Notice::Changes { revision, events } => {
                        let revisions: Vec<_> = events.iter().map(revision_of).collect();
                        assert_eq!(revisions.last(), Some(&revision));
                        revisions
                    }
                    Notice::Snapshot { .. } | Notice::Replaced { .. } => panic!("no snapshot"),
                });
            assert_eq!(given.collect::<Vec<_>>(), want, "{messages:?}");
        }
    }
}
