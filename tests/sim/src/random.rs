//! Seeded pseudo-random numbers (xoshiro256**), so that every run can be repeated from its seed.
//!
//! Integers only: the same seed gives the same numbers on every machine. Not for secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

/// ln 2, in 65536ths.
const LN_2: u64 = 45_426;

/// A generator; the same seed gives the same sequence.
#[derive(Clone, Debug)]
pub struct Random {
    /// What it was made from: forks depend on this, not on how much was drawn.
    seed: u64,
    state: [u64; 4],
}

/// The finalizer of SplitMix64: a bijection in which every bit depends on every other.
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut at = seed;
        let state = [(); 4].map(|()| {
            at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(at)
        });
        Random { seed, state }
    }

    /// An independent generator. It depends on the seed and the label alone, so that what one component
    /// draws does not shift what another gets; the same label gives the same generator.
    #[must_use]
    pub fn fork(&self, label: &str) -> Random {
        let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random::new(mix(mix(self.seed) ^ hash))
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        b.wrapping_mul(5).rotate_left(7).wrapping_mul(9)
    }

    /// A number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The high half of the product is uniform up to n / 2^64.
        let wide = u128::from(self.draw()) * u128::from(n);
        u64::try_from(wide >> 64).expect("half of 128 bits")
    }

    /// An index in `0..n`; 0 if `n` is 0.
    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("less than a usize")
    }

    /// A number of the range; its start if the range is empty.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        match high.saturating_sub(low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.draw(),
        }
    }

    /// True in `numerator` of `denominator` cases.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.chance(1, n)
    }

    /// Waiting time between events that come independently, one in `mean` on average; at most 45 times that.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let nanos = u128::from(minus_log2(self.draw() | 1)) * u128::from(LN_2) * mean.as_nanos();
        Duration::from_nanos(u64::try_from(nanos >> 32).unwrap_or(u64::MAX))
    }

    /// A duration of the range, evenly.
    pub fn duration(&mut self, range: RangeInclusive<Duration>) -> Duration {
        let nanos = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.range(nanos(range.start())..=nanos(range.end())))
    }

    /// One of the items; `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = self.index(items.len());
        items.get(index)
    }

    /// An index into `weights`, as often as its weight says; 0 if all are 0.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            if at < weight {
                return index;
            }
            at -= weight;
        }
        0
    }

    /// Puts the items into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// -log2(x / 2^64) in 65536ths, for x > 0: the leading zeros, and the mantissa squared again and again.
fn minus_log2(x: u64) -> u64 {
    let zeros = x.leading_zeros();
    let mut mantissa = (x << zeros) >> 32;
    let mut fraction = 0;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        fraction *= 2;
        if mantissa >= 1 << 32 {
            mantissa >>= 1;
            fraction += 1;
        }
    }
    ((u64::from(zeros) + 1) << 16) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_for_ever() {
        // The first numbers of the published generator for the state 1, 2, 3, 4.
        let mut random = Random {
            seed: 0,
            state: [1, 2, 3, 4],
        };
        let drawn: Vec<u64> = (0..4).map(|_| random.draw()).collect();
        assert_eq!(drawn, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
        assert_eq!(Random::new(5).draw(), Random::new(5).draw());
        assert_ne!(Random::new(5).draw(), Random::new(6).draw());
    }

    #[test]
    fn forks_depend_on_seed_and_label_only() {
        let mut random = Random::new(1);
        let before = random.fork("disk 1").draw();
        random.draw();
        assert_eq!(random.fork("disk 1").draw(), before);
        assert_ne!(random.fork("disk 2").draw(), before);
        assert_ne!(Random::new(2).fork("disk 1").draw(), before);
    }

    #[test]
    fn numbers_keep_to_their_bounds_and_reach_them() {
        let mut random = Random::new(2);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.index(7)] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        let drawn: Vec<u64> = (0..100).map(|_| random.range(3..=5)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&5)));
        assert_eq!(random.range(9..=9), 9);
        assert_eq!((random.below(0), random.index(0), random.pick::<u8>(&[])), (0, 0, None));
        random.range(0..=u64::MAX);
        let often = (0..10_000).filter(|_| random.chance(3, 10)).count();
        assert!((2800..3200).contains(&often), "{often}");
    }

    #[test]
    fn waiting_times_have_the_mean_and_the_tail_of_an_exponential() {
        let mut random = Random::new(3);
        let mean = Duration::from_millis(10);
        let times: Vec<Duration> = (0..20_000).map(|_| random.exponential(mean)).collect();
        let average = times.iter().sum::<Duration>() / 20_000;
        assert!((9_800..10_200).contains(&average.as_micros()), "{average:?}");
        // exp(-1) and exp(-3) of them are longer than once and three times the mean.
        for (factor, share) in [(1, 7358), (3, 996)] {
            let longer = times.iter().filter(|&&time| time > mean * factor).count();
            assert!(longer.abs_diff(share) < share / 10, "{factor}: {longer}");
        }
    }

    #[test]
    fn weights_and_shuffles_are_fair() {
        let mut random = Random::new(4);
        let mut seen = [0; 3];
        let mut first = [0; 4];
        for _ in 0..4000 {
            seen[random.weighted(&[1, 0, 3])] += 1;
            let mut items = [0, 1, 2, 3];
            random.shuffle(&mut items);
            first[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3]);
        }
        assert!((900..1100).contains(&seen[0]) && seen[1] == 0, "{seen:?}");
        assert!(first.iter().all(|&n| (850..1150).contains(&n)), "{first:?}");
    }
}
