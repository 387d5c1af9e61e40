//! Seeded mutations of sessions that make sense. The assertions are in [`crate::fuzz`].

use super::*;
use crate::fuzz::{fuzz, login};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ z >> 31) % n as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next(256)).unwrap()
    }
}

/// Well-formed PDUs, numbered from 1 if they follow each other.
fn session(random: &mut Random) -> Vec<Raw> {
    let opcodes = [
        0x00, 0x03, 0x12, 0x1A, 0x25, 0x28, 0x2A, 0x35, 0x41, 0x42, 0x55, 0x88, 0x8A, 0x93, 0x9E, 0xA0, 0xA3,
    ];
    let mut cmd_sn = 1;
    let mut out = Vec::new();
    for itt in 0..10 {
        let length = 512 * u32::try_from(random.next(9)).unwrap();
        let data = vec![random.byte(); random.next(1025)];
        let pdu = match random.next(8) {
            0 => Raw::new(0x40, 0x80).word(20, u32::MAX).with(&data),
            1 => Raw::new(0x42, 0x81 + u8::try_from(random.next(8)).unwrap()).word(20, itt / 2),
            2 => Raw::new(0x44, 0x80).word(20, u32::MAX).with(b"SendTargets=\0X-1=2\0"),
            3 => Raw::new(0x45, 0x80).word(20, u32::MAX).with(&data),
            4 => Raw::new(0x45, 0x80).word(20, 0x0001_0000 + itt).with(&data),
            _ => {
                let mut cdb = [0; 16];
                cdb[0] = opcodes[random.next(opcodes.len())];
                cdb[8] = u8::try_from(random.next(9)).unwrap();
                cdb[9 + random.next(7)] = random.byte();
                let direction = [0x80, 0xC0, 0xA0, 0x20][random.next(4)];
                let data = if direction & 0x20 == 0 { &[][..] } else { &data };
                Raw::new(0x01, direction).word(20, length).cdb(&cdb).with(data)
            }
        };
        out.push(pdu.word(16, itt).word(24, cmd_sn));
        cmd_sn += u32::from(out[out.len() - 1].bhs[0] & 0x40 == 0);
    }
    out
}

#[test]
fn mutated_sessions_do_no_harm() {
    let mut random = Random(20_261_122);
    for _ in 0..20_000 {
        let mut bytes = vec![random.byte() | 1];
        bytes.extend(session(&mut random).iter().flat_map(Raw::bytes));
        for _ in 0..random.next(6) {
            let at = 1 + random.next(bytes.len() - 1);
            bytes[at] = match random.next(3) {
                0 => random.byte(),
                1 => 0xFF,
                _ => bytes[at] ^ 1 << random.next(8),
            };
        }
        bytes.truncate(1 + random.next(bytes.len()));
        fuzz(&bytes);
    }
}

#[test]
fn mutated_logins_do_no_harm() {
    let mut random = Random(7143);
    for _ in 0..20_000 {
        let mut bytes = vec![random.byte() & 0xFE];
        bytes.extend(login());
        for _ in 0..1 + random.next(4) {
            let at = 1 + random.next(bytes.len() - 1);
            bytes[at] = random.byte();
        }
        fuzz(&bytes);
    }
    fuzz(&[]);
}
