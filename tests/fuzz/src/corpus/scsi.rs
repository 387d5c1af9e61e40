//! SCSI command descriptor blocks (SPC-4, SBC-3) of 16 bytes, with their data-out. Samples begin with the target's byte of
//! flags: 0 is a unit that takes writes.

/// CDBs and data-out, one after the other.
const COMMANDS: &[(&[u8], &[u8])] = &[
    (&[0x00], &[]),
    (&[0x03, 0, 0, 0, 252], &[]),
    (&[0x08, 0, 0, 8, 4], &[]),
    (&[0x0a, 0, 0, 8, 1], &[0x11; 512]),
    (&[0x12, 1, 0xb0, 0, 64], &[]),
    (
        &[0x15, 0x10, 0, 0, 24],
        &[
            0, 0, 0, 0, 0x08, 18, 4, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    ),
    (&[0x1a, 0, 0x3f, 0xff, 255], &[]),
    (&[0x25], &[]),
    (&[0x28, 0, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 0, 0, 0, 9], &[]),
    (&[0x2a, 8, 0, 0, 0, 8, 0, 0, 2], &[0x22; 1024]),
    (&[0x2f, 2, 0, 0, 0, 8, 0, 0, 1], &[0x33; 512]),
    (&[0x35], &[]),
    (&[0x41, 0, 0, 0, 0, 8, 0, 1, 0], &[0x44; 512]),
    (
        &[0x42, 0, 0, 0, 0, 0, 0, 0, 24],
        &[0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0],
    ),
    (&[0x5a, 0x10, 0x0a, 1, 0, 0, 0, 1, 0], &[]),
    (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8], &[]),
    (&[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1], &[0x55; 512]),
    (&[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 64], &[0; 512]),
    (&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], &[]),
    (&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[]),
    (&[0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 4, 0], &[]),
];

fn command(cdb: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = cdb.to_vec();
    out.resize(16, 0);
    out.extend(data);
    out
}

/// Each command alone, and all of them in a row, on a unit with every combination of flags.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let single = COMMANDS
        .iter()
        .map(|(cdb, data)| [&[0][..], &command(cdb, data)].concat());
    let row: Vec<u8> = COMMANDS.iter().flat_map(|(cdb, data)| command(cdb, data)).collect();
    let rows = (0..4).map(|flags| [&[flags][..], &row].concat());
    single.chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use trivet_scsi::{Unit, accept};

    use super::{COMMANDS, command};

    #[test]
    fn commands_are_accepted_with_their_data() {
        let unit = Unit {
            image: 1,
            cluster: 1,
            size: 1 << 20,
            read_only: false,
        };
        for (cdb, data) in COMMANDS {
            let sample = command(cdb, data);
            let accepted = accept(sample.first_chunk().unwrap(), Some(&unit));
            let wanted = accepted.map(|command| command.data_out() as usize);
            assert_eq!(wanted, Ok(data.len()), "{cdb:02x?}");
        }
    }
}
