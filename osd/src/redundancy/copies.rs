//! Replication: every member of the acting set keeps all of an object, in the same version.

use trivet_core::mutation::{Mutation, Patch};
use trivet_core::{OsdId, UNIT_SIZE, UnitMask, Version};

/// What each of these members has to execute of a mutation.
pub(crate) fn shards<'a>(members: &'a [OsdId], mutation: &'a Mutation) -> impl Iterator<Item = (OsdId, Mutation)> + 'a {
    // The bytes are shared, not copied.
    members.iter().map(|&osd| (osd, mutation.clone()))
}

/// An object that is made whole again from what can be read of its copies.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// What was gathered so far, of one version.
    known: Option<Mutation>,
    /// The units that are still wanting.
    pub wanting: UnitMask,
}

impl Gathered {
    /// Adds what a copy of the version has: all but its damaged units.
    pub(crate) fn add(&mut self, copy: Mutation, damaged: UnitMask) {
        let Some(known) = &mut self.known else {
            self.known = Some(copy);
            self.wanting = damaged;
            return;
        };
        for patch in copy.patches {
            let found = UnitMask(patch.mask().0 & self.wanting.0);
            known.patches.extend(found.iter().map(|unit| one_unit(&patch, unit)));
        }
        self.wanting = UnitMask(self.wanting.0 & damaged.0);
    }

    /// What is known of it; none if no copy was read.
    pub(crate) fn known(&self) -> Option<&Mutation> {
        self.known.as_ref()
    }

    /// The object, once nothing is wanting.
    pub(crate) fn take_whole(&mut self) -> Option<Mutation> {
        self.known.take_if(|_| self.wanting.is_empty())
    }
}

/// One unit of a patch.
fn one_unit(patch: &Patch, unit: usize) -> Patch {
    let index = unit - patch.first;
    Patch {
        first: unit,
        data: patch.data.slice(index * UNIT_SIZE..(index + 1) * UNIT_SIZE),
        sums: vec![patch.sums[index]],
    }
}

/// What a member has of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub osd: OsdId,
    pub version: Version,
    pub digest: u64,
    pub damaged: UnitMask,
}

/// What the copies of an object say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    /// They have different versions.
    Changing,
    /// Of the same version, and not the same.
    Inconsistent,
    /// These have units that cannot be read.
    Damaged(Vec<OsdId>),
}

/// Compares the copies of an object.
pub(crate) fn judge(copies: &[Copy]) -> Verdict {
    let Some(first) = copies.first() else {
        return Verdict::Equal;
    };
    if copies.iter().any(|copy| copy.version != first.version) {
        return Verdict::Changing;
    }
    let damaged: Vec<OsdId> = copies.iter().filter(|c| !c.damaged.is_empty()).map(|c| c.osd).collect();
    if !damaged.is_empty() {
        return Verdict::Damaged(damaged);
    }
    if first.version != Version::NONE && copies.iter().any(|copy| copy.digest != first.digest) {
        return Verdict::Inconsistent;
    }
    Verdict::Equal
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trivet_core::mutation::Ops;
    use trivet_core::{Epoch, ObjectId};

    use super::*;

    /// A whole object of three units with this fill, without those that are damaged.
    fn whole(fill: u8, damaged: UnitMask) -> Mutation {
        let object = ObjectId::default();
        let present = UnitMask::range(0, 3).minus(damaged);
        let patches = present
            .runs()
            .map(|(first, count)| Patch::seal(object, first, Bytes::from(vec![fill; count * UNIT_SIZE])));
        Mutation {
            version: Version::NONE,
            ops: Ops::Exactly(Vec::new()),
            zero: UnitMask::ALL,
            patches: patches.collect(),
            tombstone: false,
        }
    }

    #[test]
    fn what_one_source_cannot_read_comes_from_another() {
        let mut gathered = Gathered::default();
        gathered.add(whole(1, UnitMask(0b110)), UnitMask(0b110));
        assert_eq!(gathered.wanting, UnitMask(0b110));
        gathered.add(whole(1, UnitMask(0b011)), UnitMask(0b011));
        assert_eq!(gathered.wanting, UnitMask(0b010), "nobody has the one in the middle");
        gathered.add(whole(1, UnitMask(0b001)), UnitMask(0b001));
        assert!(gathered.wanting.is_empty());
        let units: UnitMask = gathered
            .take_whole()
            .unwrap()
            .patches
            .iter()
            .inspect(|patch| assert!(patch.verify(ObjectId::default())))
            .fold(UnitMask::EMPTY, |mask, patch| {
                assert!(!mask.intersects(patch.mask()));
                mask.union(patch.mask())
            });
        assert_eq!(units, UnitMask(0b111));
    }

    #[test]
    fn verdicts() {
        let copy = |osd, counter, digest, damaged| Copy {
            osd: OsdId(osd),
            version: Version {
                epoch: Epoch(1),
                counter,
            },
            digest,
            damaged: UnitMask(damaged),
        };
        let table = [
            (vec![copy(1, 1, 7, 0), copy(2, 1, 7, 0)], Verdict::Equal),
            (vec![copy(1, 1, 7, 0), copy(2, 2, 8, 0)], Verdict::Changing),
            (vec![copy(1, 1, 7, 0), copy(2, 1, 8, 0)], Verdict::Inconsistent),
            (
                vec![copy(1, 1, 7, 0), copy(2, 1, 7, 4)],
                Verdict::Damaged(vec![OsdId(2)]),
            ),
            (vec![], Verdict::Equal),
        ];
        for (copies, expected) in table {
            assert_eq!(judge(&copies), expected, "{copies:?}");
        }
    }
}
