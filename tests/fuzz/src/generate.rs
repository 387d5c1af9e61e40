//! Makes inputs: noise, and mutations of what is valid.

use crate::rng::Rng;

/// Longest input, bytes.
pub const MAX_INPUT: usize = 64 << 10;
/// Most mutations of one input.
const MAX_MUTATIONS: usize = 8;
/// Most samples that one input is made of.
const MAX_SAMPLES: usize = 6;

/// Numbers at which lengths, counts and offsets tend to go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x1000,
    0x7fff,
    0xffff,
    0x0001_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// The input of `seed` for a target whose corpus is `samples`.
#[must_use]
pub fn input(seed: u64, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut data = match rng.below(16) {
        0 => noise(&mut rng),
        1..=8 => rng.pick(samples).clone(),
        9..=11 => several(&mut rng, samples),
        12 | 13 => splice(&mut rng, samples),
        14 => repeated(&mut rng, samples),
        _ => behind_noise(&mut rng, samples),
    };
    data.truncate(MAX_INPUT);
    for _ in 0..rng.below(MAX_MUTATIONS + 1) {
        mutate(&mut rng, &mut data);
    }
    data.truncate(MAX_INPUT);
    data
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    let len = rng.length(MAX_INPUT);
    rng.bytes(len)
}

fn several(rng: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let count = 2 + rng.below(MAX_SAMPLES - 1);
    (0..count).flat_map(|_| rng.pick(samples).clone()).collect()
}

/// The beginning of one and the end of another.
fn splice(rng: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let (head, tail) = (rng.pick(samples), rng.pick(samples));
    let (head, tail) = (&head[..rng.below(head.len() + 1)], &tail[rng.below(tail.len() + 1)..]);
    [head, tail].concat()
}

/// One sample as often as fits, up to a random length.
fn repeated(rng: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let (sample, len) = (rng.pick(samples), rng.length(MAX_INPUT));
    sample.iter().copied().cycle().take(len).collect()
}

/// A sample's beginning, then noise.
fn behind_noise(rng: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let sample = rng.pick(samples);
    let mut data = sample[..rng.below(sample.len() + 1)].to_vec();
    data.extend(noise(rng));
    data
}

/// Changes one thing.
fn mutate(rng: &mut Rng, data: &mut Vec<u8>) {
    if data.is_empty() {
        return data.extend(rng.number().to_be_bytes());
    }
    let at = rng.below(data.len());
    let end = at + 1 + rng.length((data.len() - at - 1).min(64)).min(data.len() - at - 1);
    match rng.below(10) {
        0 | 1 => data[at] ^= 1 << rng.below(8),
        2 => data[at] = rng.number().to_le_bytes()[0],
        3 | 4 => edge(rng, &mut data[at..]),
        5 => data.truncate(at),
        6 => drop(data.drain(at..end)),
        7 => data.extend_from_within(at..end),
        8 => {
            let fill = *rng.pick(&[0, 0xff, b'0', b'9', b'/', rng.clone().number().to_le_bytes()[0]]);
            let run = vec![fill; 1 + rng.length(64)];
            drop(data.splice(at..at, run));
        }
        _ => {
            let to = rng.below(data.len() - (end - at) + 1);
            data.copy_within(at..end, to);
        }
    }
}

/// Overwrites the start of `data` with an edge (or one beside it) of 1, 2, 4 or 8 bytes in either byte order.
fn edge(rng: &mut Rng, data: &mut [u8]) {
    let beside = rng.below(3) as u64;
    let mut bytes = rng.pick(&EDGES).wrapping_add(beside).wrapping_sub(1).to_le_bytes();
    let len = *rng.pick(&[1, 2, 4, 8]);
    if rng.below(2) == 0 {
        bytes[..len].reverse();
    }
    let len = len.min(data.len());
    data[..len].copy_from_slice(&bytes[..len]);
}

#[cfg(test)]
mod tests {
    use super::{MAX_INPUT, input};

    #[test]
    fn inputs_are_repeatable_bounded_and_of_every_size() {
        let samples = [b"sample".to_vec(), vec![7; 100]];
        let mut sizes = [0; 18];
        for seed in 0..5_000 {
            let data = input(seed, &samples);
            assert!(data.len() <= MAX_INPUT);
            assert_eq!(data, input(seed, &samples));
            sizes[data.len().checked_ilog2().map_or(0, |bits| bits as usize + 1)] += 1;
        }
        assert!(sizes[..17].iter().all(|&count| count > 0), "{sizes:?}");
        let untouched = (0..5_000).filter(|&seed| samples.contains(&input(seed, &samples)));
        assert!(untouched.count() > 100, "some samples must stay valid");
    }
}
