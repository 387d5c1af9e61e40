//! The commands this device server has, as REPORT SUPPORTED OPERATION CODES (SPC-4 clause 6.35) tells them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{OpcodeQuery, Sense};

/// One command: the opcode is the first byte of `usage`, the CDB usage data; `action` its service action.
struct Entry {
    action: Option<u16>,
    usage: &'static [u8],
}

const fn plain(usage: &'static [u8]) -> Entry {
    Entry { action: None, usage }
}

const fn with_action(action: u16, usage: &'static [u8]) -> Entry {
    Entry {
        action: Some(action),
        usage,
    }
}

const COMMANDS: &[Entry] = &[
    plain(&[0x00, 0, 0, 0, 0, 0]),
    plain(&[0x03, 0x01, 0, 0, 0xFF, 0]),
    plain(&[0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0]),
    plain(&[0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0]),
    plain(&[0x12, 0x01, 0xFF, 0xFF, 0xFF, 0]),
    plain(&[0x15, 0x11, 0, 0, 0xFF, 0]),
    plain(&[0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0]),
    plain(&[0x1B, 0x01, 0, 0x0F, 0xF7, 0]),
    plain(&[0x1E, 0, 0, 0, 0x03, 0]),
    plain(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    plain(&[0x28, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0]),
    plain(&[0x2A, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0]),
    plain(&[0x2F, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0]),
    plain(&[0x35, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0]),
    plain(&[0x41, 0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0]),
    plain(&[0x42, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
    plain(&[0x55, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
    plain(&[0x5A, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0]),
    plain(&[
        0x88, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0,
    ]),
    plain(&[
        0x8A, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0,
    ]),
    plain(&[
        0x8F, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0,
    ]),
    plain(&[
        0x91, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0,
    ]),
    plain(&[
        0x93, 0x09, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0,
    ]),
    with_action(
        0x10,
        &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    ),
    plain(&[0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
    with_action(
        0x0C,
        &[0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
    ),
    plain(&[0xA8, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
    plain(&[0xAA, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
];

/// A command timeouts descriptor: ten bytes follow, no times given.
const TIMEOUTS: [u8; 12] = [0, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The parameter data, not yet cut to the allocation length.
pub(crate) fn report(query: OpcodeQuery, timeouts: bool) -> Result<Bytes, Sense> {
    let found = match query {
        OpcodeQuery::All => return Ok(all(timeouts)),
        OpcodeQuery::Opcode { opcode } => {
            let found = COMMANDS.iter().find(|entry| entry.usage[0] == opcode);
            if found.is_some_and(|entry| entry.action.is_some()) {
                return Err(Sense::invalid_cdb(2));
            }
            found
        }
        OpcodeQuery::Action { opcode, action } => {
            if COMMANDS
                .iter()
                .any(|entry| entry.usage[0] == opcode && entry.action.is_none())
            {
                return Err(Sense::invalid_cdb(2));
            }
            COMMANDS
                .iter()
                .find(|entry| entry.usage[0] == opcode && entry.action == Some(action))
        }
        OpcodeQuery::Either { opcode, action } => COMMANDS
            .iter()
            .find(|entry| entry.usage[0] == opcode && entry.action.is_none_or(|own| own == action)),
    };
    Ok(one(found, timeouts))
}

/// All commands, eight bytes each and twelve more with timeouts.
fn all(timeouts: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + COMMANDS.len() * 20);
    out.put_u32(0);
    for entry in COMMANDS {
        out.put_u8(entry.usage[0]);
        out.put_u8(0);
        out.put_u16(entry.action.unwrap_or(0));
        out.put_u8(0);
        out.put_u8(if timeouts { 0x02 } else { 0 } | u8::from(entry.action.is_some()));
        out.put_u16(u16::try_from(entry.usage.len()).expect("a CDB has at most 16 bytes"));
        if timeouts {
            out.put_slice(&TIMEOUTS);
        }
    }
    let length = u32::try_from(out.len() - 4).expect("a few hundred bytes");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// One command: SUPPORT 3 with its usage data, or 1 (not supported).
fn one(entry: Option<&Entry>, timeouts: bool) -> Bytes {
    let Some(entry) = entry else {
        return Bytes::from_static(&[0, 0x01, 0, 0]);
    };
    let mut out = BytesMut::with_capacity(32);
    out.put_u8(0);
    out.put_u8(0x03 | if timeouts { 0x80 } else { 0 });
    out.put_u16(u16::try_from(entry.usage.len()).expect("a CDB has at most 16 bytes"));
    out.put_slice(entry.usage);
    if timeouts {
        out.put_slice(&TIMEOUTS);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept;

    #[test]
    fn every_listed_command_is_known_to_the_parser() {
        let unit = crate::Unit {
            image: 1,
            cluster: 1,
            size: 1 << 30,
            read_only: false,
        };
        for entry in COMMANDS {
            let mut cdb = [0; 16];
            cdb[0] = entry.usage[0];
            cdb[1] = u8::try_from(entry.action.unwrap_or(0)).unwrap();
            let result = accept(&cdb, Some(&unit));
            assert_ne!(result.err(), Some(Sense::UNKNOWN_OPCODE), "{:#x}", cdb[0]);
            let length = [6, 10, 10, 0, 16, 12][usize::from(cdb[0] >> 5)];
            assert_eq!(entry.usage.len(), length, "{:#x}", cdb[0]);
        }
    }

    #[test]
    fn every_known_command_is_listed() {
        let unit = crate::Unit {
            image: 1,
            cluster: 1,
            size: 1 << 30,
            read_only: false,
        };
        for opcode in 0..=255u8 {
            let listed = COMMANDS.iter().find(|entry| entry.usage[0] == opcode);
            let action = listed.and_then(|entry| entry.action).unwrap_or(0);
            let mut cdb = [0; 16];
            cdb[..2].copy_from_slice(&[opcode, u8::try_from(action).unwrap()]);
            let known = accept(&cdb, Some(&unit)).err() != Some(Sense::UNKNOWN_OPCODE);
            assert_eq!(known, listed.is_some(), "{opcode:#x}");
        }
    }

    #[test]
    fn queries() {
        let read16 = report(OpcodeQuery::Opcode { opcode: 0x88 }, false).unwrap();
        assert_eq!(read16[..6], [0, 3, 0, 16, 0x88, 0x18]);
        let none = report(OpcodeQuery::Opcode { opcode: 0x89 }, true).unwrap();
        assert_eq!(none[..], [0, 1, 0, 0]);
        assert_eq!(
            report(OpcodeQuery::Opcode { opcode: 0x9E }, false),
            Err(Sense::invalid_cdb(2))
        );
        assert_eq!(
            report(
                OpcodeQuery::Action {
                    opcode: 0x28,
                    action: 0
                },
                false
            ),
            Err(Sense::invalid_cdb(2))
        );
        let capacity = report(
            OpcodeQuery::Action {
                opcode: 0x9E,
                action: 0x10,
            },
            true,
        )
        .unwrap();
        assert_eq!((capacity.len(), capacity[1]), (4 + 16 + 12, 0x83));
        let either = report(
            OpcodeQuery::Either {
                opcode: 0x9E,
                action: 0x11,
            },
            false,
        )
        .unwrap();
        assert_eq!(either[1], 1);
        assert_eq!(report(OpcodeQuery::All, false).unwrap().len(), 4 + 8 * COMMANDS.len());
        assert_eq!(report(OpcodeQuery::All, true).unwrap().len(), 4 + 20 * COMMANDS.len());
    }
}
