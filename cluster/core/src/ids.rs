//! Identifiers. All of them are small, `Copy`, ordered, and never derived from names.

use serde::{Deserialize, Serialize};

/// Allocation and checksum unit, bytes.
pub const UNIT_SIZE: usize = 4096;
/// Units of one object.
pub const UNITS_PER_OBJECT: usize = 32;
/// Bytes of one object (replicated pools).
pub const OBJECT_SIZE: usize = UNIT_SIZE * UNITS_PER_OBJECT;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A pool; 1-65535.
    PoolId(u16));
id!(/// An OSD's number; one per disk.
    OsdId(u32));
id!(/// A gateway's session as client of the cluster; drawn at random when the gateway starts.
    ClientId(u64));
id!(/// Counter per PG, one value per acting set per primary, never reused.
    Epoch(u64));

/// An image: pool in the upper 16 bits, a number that is never reused in the lower 48. It is also the
/// inode number (NFS fileid) of the image, so that identity never depends on names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub u64);

impl ImageId {
    /// The image `number` (48 bits) of `pool`.
    #[must_use]
    pub fn new(pool: PoolId, number: u64) -> ImageId {
        assert!(number < 1 << 48, "image numbers have 48 bits");
        ImageId(u64::from(pool.0) << 48 | number)
    }

    /// Its number, which no other image of any pool has.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// The pool it lives in.
    #[must_use]
    pub fn pool(self) -> PoolId {
        PoolId((self.0 >> 48) as u16)
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// One object: [`OBJECT_SIZE`] bytes of an image at `number * OBJECT_SIZE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The image it belongs to.
    pub image: ImageId,
    /// Its place in the image.
    pub number: u64,
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.image, self.number)
    }
}

/// How a pool's objects fall into PGs. With every change of their number a new generation of PGs takes over: those of
/// another generation are other PGs, whatever their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numbering {
    /// Counts the changes.
    pub generation: u16,
    /// How many PGs there are; 1 to [`Numbering::MAX`].
    pub count: u32,
}

impl Numbering {
    /// PGs of a pool at most: their numbers have 16 bits.
    pub const MAX: u32 = 1 << 16;

    /// The first numbering of a pool.
    #[must_use]
    pub fn first(count: u32) -> Numbering {
        Numbering { generation: 0, count }
    }

    /// All PGs of the pool.
    pub fn pgs(self, pool: PoolId) -> impl Iterator<Item = PgId> {
        let generation = self.generation;
        (0..self.count).map(move |number| PgId {
            pool,
            generation,
            number,
        })
    }

    /// The numbers among `before` PGs of those whose objects may be in this one: two counts share what is left of a
    /// hash modulo their greatest common divisor.
    pub fn parents(self, number: u32, before: u32) -> impl Iterator<Item = u32> {
        let common = common_divisor(self.count, before);
        (number % common..before).step_by(common as usize)
    }

    /// A PG takes over from so many PGs of the generation before at most: their histories become one.
    pub const MAX_PARENTS: u32 = 16;

    /// Whether `count` PGs can take over from `before` PGs in one step.
    #[must_use]
    pub fn can_follow(count: u32, before: u32) -> bool {
        let valid = (1..=Numbering::MAX).contains(&count);
        valid && before / common_divisor(count, before) <= Numbering::MAX_PARENTS
    }
}

/// Euclid's; 1 at least.
fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { common_divisor(b, a % b) }
}

/// A placement group of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgId {
    /// The pool.
    pub pool: PoolId,
    /// Of the pool's PGs: see [`Numbering`].
    pub generation: u16,
    /// 0 <= number < the generation's PG count.
    pub number: u32,
}

impl PgId {
    /// A PG of the pool's first generation.
    #[must_use]
    pub const fn first(pool: PoolId, number: u32) -> PgId {
        PgId {
            pool,
            generation: 0,
            number,
        }
    }

    /// Number and generation in 32 bits, as they are on the wire and on disks: the number in the lower half.
    ///
    /// # Panics
    /// If the number has more than 16 bits: no pool has so many PGs.
    #[must_use]
    pub fn packed(self) -> u32 {
        assert!(self.number < Numbering::MAX, "PG numbers have 16 bits");
        u32::from(self.generation) << 16 | self.number
    }

    /// The PG whose number and generation are packed so.
    #[must_use]
    pub fn unpacked(pool: PoolId, packed: u32) -> PgId {
        PgId {
            pool,
            generation: (packed >> 16) as u16,
            number: packed & (Numbering::MAX - 1),
        }
    }
}

/// `pool/number`; after changes of the number of PGs `pool.generation/number`.
impl std::fmt::Display for PgId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.generation {
            0 => write!(f, "{}/{}", self.pool, self.number),
            generation => write!(f, "{}.{generation}/{}", self.pool, self.number),
        }
    }
}

/// As [`Display`](std::fmt::Display) writes it.
impl std::str::FromStr for PgId {
    type Err = ();

    fn from_str(text: &str) -> Result<PgId, ()> {
        let (pool, number) = text.split_once('/').ok_or(())?;
        let (pool, generation) = match pool.split_once('.') {
            Some((pool, generation)) => (pool, generation.parse().ok().filter(|&g| g > 0)),
            None => (pool, Some(0)),
        };
        Ok(PgId {
            pool: PoolId(pool.parse().map_err(|_| ())?),
            generation: generation.ok_or(())?,
            number: number.parse().ok().filter(|&n| n < Numbering::MAX).ok_or(())?,
        })
    }
}

impl ObjectId {
    /// The PG of this object: hash(image, number) modulo the number of PGs, so that the hot first blocks of many
    /// images spread.
    #[must_use]
    pub fn pg(self, numbering: Numbering) -> PgId {
        PgId {
            pool: self.image.pool(),
            generation: numbering.generation,
            number: self.pg_number(numbering.count),
        }
    }

    /// The number of this object's PG if there are `count` of them, which is not 0.
    #[must_use]
    pub fn pg_number(self, count: u32) -> u32 {
        let mixed = mix(self.image.0 ^ mix(self.number));
        u32::try_from(mixed % u64::from(count)).expect("less than the count")
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): part of the on-wire contract, never change it.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An object's version: strictly increasing, equal version means equal bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The PG's epoch when it was written.
    pub epoch: Epoch,
    /// Counts the writes of this object in this epoch, from 1.
    pub counter: u64,
}

impl Version {
    /// The version of an object that was never written.
    pub const NONE: Version = Version {
        epoch: Epoch(0),
        counter: 0,
    };

    /// The version that a write in `epoch` makes of an object that has this one.
    #[must_use]
    pub fn next(self, epoch: Epoch) -> Version {
        assert!(epoch >= self.epoch, "a version from a later epoch than the writer's");
        let counter = if epoch == self.epoch { self.counter + 1 } else { 1 };
        Version { epoch, counter }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

/// Names a client operation for ever: a repeated request is recognised by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// Who asked.
    pub client: ClientId,
    /// Counts the client's operations, from 1.
    pub sequence: u64,
}

/// Who sends and receives OSD wire messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// An OSD.
    Osd(OsdId),
    /// A gateway.
    Client(ClientId),
}

/// A set of the units of one object; bit i is unit i.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UnitMask(pub u32);

impl UnitMask {
    /// No unit.
    pub const EMPTY: UnitMask = UnitMask(0);
    /// The whole object.
    pub const ALL: UnitMask = UnitMask(u32::MAX);

    /// `count` units from `first`; `first + count <= UNITS_PER_OBJECT`.
    #[must_use]
    pub fn range(first: usize, count: usize) -> UnitMask {
        assert!(first + count <= UNITS_PER_OBJECT, "units beyond the object");
        if count == 0 {
            return UnitMask::EMPTY;
        }
        UnitMask((u32::MAX >> (UNITS_PER_OBJECT - count)) << first)
    }

    /// The units that the bytes `[offset, offset + len)` of an object touch.
    #[must_use]
    pub fn touched(offset: usize, len: usize) -> UnitMask {
        if len == 0 {
            return UnitMask::EMPTY;
        }
        let first = offset / UNIT_SIZE;
        let last = (offset + len - 1) / UNIT_SIZE;
        UnitMask::range(first, last - first + 1)
    }

    /// The units that lie wholly within the bytes `[offset, offset + len)`.
    #[must_use]
    pub fn covered(offset: usize, len: usize) -> UnitMask {
        let first = offset.div_ceil(UNIT_SIZE);
        let end = (offset + len) / UNIT_SIZE;
        if end <= first {
            UnitMask::EMPTY
        } else {
            UnitMask::range(first, end - first)
        }
    }

    /// Whether the two sets share a unit.
    #[must_use]
    pub fn intersects(self, other: UnitMask) -> bool {
        self.0 & other.0 != 0
    }

    /// Units in either set.
    #[must_use]
    pub fn union(self, other: UnitMask) -> UnitMask {
        UnitMask(self.0 | other.0)
    }

    /// Units in this set but not in `other`.
    #[must_use]
    pub fn minus(self, other: UnitMask) -> UnitMask {
        UnitMask(self.0 & !other.0)
    }

    /// Whether unit `index` is in the set.
    #[must_use]
    pub fn has(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// Whether no unit is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many units are in the set.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The units in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..UNITS_PER_OBJECT).filter(move |&i| self.has(i))
    }

    /// The maximal runs of neighbouring units, as (first, count), ascending.
    pub fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let first = rest.trailing_zeros() as usize;
            let count = (rest >> first).trailing_ones() as usize;
            rest &= !UnitMask::range(first, count).0;
            Some((first, count))
        })
    }
}

impl std::fmt::Debug for UnitMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnitMask({:#010x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_increase_within_and_across_epochs() {
        let first = Version::NONE.next(Epoch(1));
        assert_eq!(
            first,
            Version {
                epoch: Epoch(1),
                counter: 1
            }
        );
        let second = first.next(Epoch(1));
        let third = second.next(Epoch(4));
        assert!(Version::NONE < first && first < second && second < third);
        assert_eq!(third.counter, 1);
    }

    #[test]
    fn unit_masks() {
        assert_eq!(UnitMask::touched(0, OBJECT_SIZE), UnitMask::ALL);
        assert_eq!(UnitMask::touched(4095, 2), UnitMask(0b11));
        assert_eq!(UnitMask::covered(1, 8191), UnitMask(0b10));
        assert_eq!(UnitMask::covered(1, 4096), UnitMask::EMPTY);
        assert_eq!(UnitMask::touched(131_071, 1), UnitMask(1 << 31));
        let runs: Vec<_> = UnitMask(0b1011_0001).runs().collect();
        assert_eq!(runs, [(0, 1), (4, 2), (7, 1)]);
        assert_eq!(UnitMask::ALL.runs().collect::<Vec<_>>(), [(0, 32)]);
    }

    #[test]
    fn objects_spread_over_pgs() {
        let mut counts = [0u32; 32];
        for image in 1..=100 {
            for number in 0..32 {
                let object = ObjectId {
                    image: ImageId::new(PoolId(1), image),
                    number,
                };
                counts[object.pg_number(32) as usize] += 1;
            }
        }
        assert!(counts.iter().all(|&n| (60..140).contains(&n)), "{counts:?}");
    }
}
