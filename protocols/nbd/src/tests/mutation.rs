//! Seeded mutation: good sessions with bytes changed, cut, repeated and moved, through [`crate::fuzz`].

use super::*;

const SEEDS: u64 = 20_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

fn handshake(random: &mut Random) -> Vec<Vec<u8>> {
    let options = [
        option(3, b""),
        option(8, b""),
        option(6, &query("disk", &[0, 1, 2, 3])),
        option(6, &query("none", &[])),
        option(11, b""),
        option(99, &[7; 5000]),
    ];
    let mut parts = vec![vec![0, 0, 0, 3]];
    parts.extend((0..random.below(5)).map(|_| random.pick(&options).clone()));
    let last = [option(7, &query("disk", &[3])), option(1, b"disk"), option(2, b"")];
    parts.push(random.pick(&last).clone());
    parts
}

fn requests(random: &mut Random) -> Vec<Vec<u8>> {
    let offsets = [0, 1, 4096, SIZE - 512, SIZE, u64::MAX, u64::MAX - 511];
    let lengths = [0, 1, 512, 4096, 1 << 20, 1 << 25, (1 << 25) + 1, u32::MAX];
    (0..random.below(12))
        .map(|_| {
            let kind = *random.pick(&[READ, WRITE, READ, WRITE, FLUSH, TRIM, ZERO, DISC, 5, 7, 99]);
            let flags = *random.pick(&[0, 0, 0, 1, 2, 4, 8, 16, 32]);
            let length = *random.pick(&lengths);
            let mut bytes = command(kind, flags, *random.pick(&offsets), length);
            if kind == WRITE {
                bytes.resize(28 + length.min(4096) as usize, 0xa5);
            }
            bytes
        })
        .collect()
}

fn mutate(random: &mut Random, parts: &mut Vec<Vec<u8>>) {
    let index = random.below(parts.len());
    if parts.is_empty() {
        return;
    }
    match random.below(6) {
        0 => parts[index].truncate(random.below(32)),
        1 => parts.insert(index, parts[random.below(parts.len())].clone()),
        2 => {
            parts.remove(index);
        }
        3 => {
            let other = random.below(parts.len());
            parts.swap(index, other);
        }
        _ => {
            let part = &mut parts[index];
            let at = random.below(part.len().min(40));
            if let Some(byte) = part.get_mut(at) {
                *byte = *random.pick(&[0, 1, 2, 0x7f, 0x80, 0xff]);
            }
        }
    }
}

#[test]
fn mutated_sessions_keep_every_promise() {
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let mut parts = Vec::new();
        if random.below(2) == 0 {
            parts.extend(handshake(&mut random));
        }
        parts.extend(requests(&mut random));
        for _ in 0..random.below(4) {
            mutate(&mut random, &mut parts);
        }
        crate::fuzz::fuzz(&parts.concat());
    }
}

#[test]
fn noise_keeps_every_promise() {
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let noise: Vec<u8> = (0..random.below(200)).map(|_| random.next().to_le_bytes()[0]).collect();
        crate::fuzz::fuzz(&noise);
    }
}
