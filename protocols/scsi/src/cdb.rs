//! Command descriptor blocks: sixteen bytes in, a typed and checked [`Command`] out.

use crate::mode::ModeSense;
use crate::{BLOCK, Key, MAX_TRANSFER_BLOCKS, MAX_WRITE_SAME_BLOCKS, Sense, Unit};

/// A transfer longer than VPD B0 allows: INVALID FIELD IN CDB. The field differs by the form and is not pointed at.
const TOO_LONG: Sense = Sense::new(Key::IllegalRequest, 0x24, 0x00);

/// Consecutive logical blocks, within the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub lba: u64,
    /// How many; may be none.
    pub blocks: u32,
}

impl Extent {
    /// Where it starts, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.lba * u64::from(BLOCK)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.blocks) * u64::from(BLOCK)
    }

    /// Whether it has no blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }
}

/// What REPORT SUPPORTED OPERATION CODES asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpcodeQuery {
    /// All commands.
    All,
    /// One without service actions.
    Opcode {
        /// Its operation code.
        opcode: u8,
    },
    /// One with a service action.
    Action {
        /// Its operation code.
        opcode: u8,
        /// Its service action.
        action: u16,
    },
    /// One, whether or not it has service actions.
    Either {
        /// Its operation code.
        opcode: u8,
        /// Its service action if it has them.
        action: u16,
    },
}

/// A command, checked against the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL: nothing to do.
    Nothing,
    /// REQUEST SENSE.
    RequestSense {
        /// Descriptor rather than fixed format.
        descriptor: bool,
        /// Allocation length.
        allocation: u32,
    },
    /// INQUIRY.
    Inquiry {
        /// A vital product data page; otherwise standard data.
        page: Option<u8>,
        /// Allocation length.
        allocation: u32,
    },
    /// MODE SENSE (6) and (10).
    ModeSense(ModeSense),
    /// MODE SELECT (6) and (10).
    ModeSelect {
        /// The long form.
        ten: bool,
        /// Parameter list length.
        length: u32,
    },
    /// READ CAPACITY (10).
    ReadCapacity10,
    /// READ CAPACITY (16).
    ReadCapacity16 {
        /// Allocation length.
        allocation: u32,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// Whether only well known units are asked for (SELECT REPORT 01h), of which there are none.
        well_known: bool,
        /// Allocation length.
        allocation: u32,
    },
    /// REPORT SUPPORTED OPERATION CODES.
    ReportOpcodes {
        /// Which.
        query: OpcodeQuery,
        /// Return command timeouts descriptors.
        timeouts: bool,
        /// Allocation length.
        allocation: u32,
    },
    /// READ (6) to (16).
    Read(Extent),
    /// WRITE (6) to (16).
    Write {
        /// Where.
        extent: Extent,
        /// Force unit access.
        fua: bool,
    },
    /// VERIFY (10) and (16): reads.
    Verify {
        /// Where.
        extent: Extent,
        /// BYTCHK 01b: what is read must be the data-out.
        compare: bool,
    },
    /// SYNCHRONIZE CACHE (10) and (16).
    Synchronize,
    /// WRITE SAME (10) and (16).
    WriteSame {
        /// Where; not empty.
        extent: Extent,
        /// Free the blocks if the pattern is zero.
        unmap: bool,
        /// No data-out: the pattern is zero.
        no_data: bool,
    },
    /// UNMAP.
    Unmap {
        /// Parameter list length.
        length: u32,
    },
}

impl Command {
    /// Bytes of data-out that the command needs.
    #[must_use]
    pub fn data_out(&self) -> u32 {
        match self {
            Self::Write { extent, .. } | Self::Verify { extent, compare: true } => extent.blocks * BLOCK,
            Self::WriteSame { no_data: false, .. } => BLOCK,
            Self::Unmap { length } | Self::ModeSelect { length, .. } => *length,
            _ => 0,
        }
    }

    /// Bytes that a read reads; other commands' data-in is known when they are done.
    #[must_use]
    pub fn read_length(&self) -> u32 {
        match self {
            Self::Read(extent) => extent.blocks * BLOCK,
            _ => 0,
        }
    }

    /// Bytes that the backend handles for it: what its part in memory may come to.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self {
            Self::Verify { extent, .. }
            | Self::WriteSame {
                extent, no_data: false, ..
            } => extent.blocks * BLOCK,
            _ => self.read_length().max(self.data_out()),
        }
    }
}

/// Whether the command of `cdb` is carried out though a unit attention is pending (SPC-4 5.14): INQUIRY, REPORT LUNS and
/// REQUEST SENSE.
#[must_use]
pub fn ignores_attention(cdb: &[u8; 16]) -> bool {
    matches!(cdb[0], 0x03 | 0x12 | 0xA0)
}

/// Reads a CDB for `unit` (`None`: there is no such unit).
///
/// # Errors
/// The sense data to answer with: unknown opcode, invalid field, range, no such unit, write protected.
pub fn accept(cdb: &[u8; 16], unit: Option<&Unit>) -> Result<Command, Sense> {
    let command = match cdb[0] {
        0x03 => Command::RequestSense {
            descriptor: cdb[1] & 1 != 0,
            allocation: u32::from(cdb[4]),
        },
        0x12 => inquiry(cdb)?,
        0xA0 => report_luns(cdb)?,
        _ => for_unit(cdb, unit.ok_or(Sense::NO_UNIT)?)?,
    };
    let control: u16 = [5, 9, 9, 15, 15, 11, 11, 11][usize::from(cdb[0] >> 5)];
    if cdb[usize::from(control)] & 0x04 != 0 {
        return Err(Sense::invalid_cdb(control)); // NACA
    }
    Ok(command)
}

fn for_unit(cdb: &[u8; 16], unit: &Unit) -> Result<Command, Sense> {
    Ok(match cdb[0] {
        0x00 | 0x1B | 0x1E => Command::Nothing,
        0x08 => Command::Read(transfer(six(cdb), unit)?),
        0x0A => Command::Write {
            extent: writable(transfer(six(cdb), unit)?, unit)?,
            fua: false,
        },
        0x15 | 0x55 => mode_select(cdb)?,
        0x1A | 0x5A => mode_sense(cdb),
        0x25 => Command::ReadCapacity10,
        0x28 | 0x88 | 0xA8 => Command::Read(transfer(protected(cdb)?, unit)?),
        0x2A | 0x8A | 0xAA => Command::Write {
            extent: writable(transfer(protected(cdb)?, unit)?, unit)?,
            fua: cdb[1] & 0x08 != 0,
        },
        0x2F | 0x8F => verify(cdb, unit)?,
        0x35 | 0x91 => {
            within(extent(cdb), unit)?;
            Command::Synchronize
        }
        0x41 | 0x93 => write_same(cdb, unit)?,
        0x42 => unmap(cdb, unit)?,
        0x9E if cdb[1] & 0x1F == 0x10 => Command::ReadCapacity16 {
            allocation: be32(cdb, 10),
        },
        0x9E => return Err(Sense::invalid_cdb(1)),
        0xA3 if cdb[1] & 0x1F == 0x0C => report_opcodes(cdb)?,
        0xA3 => return Err(Sense::invalid_cdb(1)),
        _ => return Err(Sense::UNKNOWN_OPCODE),
    })
}

fn be16(cdb: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

fn be32(cdb: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

/// The 21-bit address and 8-bit length of the six-byte commands; length 0 means 256.
fn six(cdb: &[u8; 16]) -> Extent {
    let lba = u64::from(cdb[1] & 0x1F) << 16 | u64::from(be16(cdb, 2));
    let blocks = if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) };
    Extent { lba, blocks }
}

/// Address and length of the 10, 12 and 16-byte commands, which keep them in the same places.
fn extent(cdb: &[u8; 16]) -> Extent {
    let short = u64::from(be32(cdb, 2));
    match cdb[0] >> 5 {
        1 | 2 => Extent {
            lba: short,
            blocks: be16(cdb, 7).into(),
        },
        5 => Extent {
            lba: short,
            blocks: be32(cdb, 6),
        },
        _ => Extent {
            lba: short << 32 | u64::from(be32(cdb, 6)),
            blocks: be32(cdb, 10),
        },
    }
}

/// The same, where byte 1 must not ask for protection information, which the unit does not have.
fn protected(cdb: &[u8; 16]) -> Result<Extent, Sense> {
    if cdb[1] & 0xE0 != 0 {
        return Err(Sense::invalid_cdb(1));
    }
    Ok(extent(cdb))
}

fn within(extent: Extent, unit: &Unit) -> Result<Extent, Sense> {
    match extent.lba.checked_add(extent.blocks.into()) {
        Some(end) if end <= unit.blocks() => Ok(extent),
        _ => Err(Sense::OUT_OF_RANGE),
    }
}

fn transfer(extent: Extent, unit: &Unit) -> Result<Extent, Sense> {
    let extent = within(extent, unit)?;
    if extent.blocks > MAX_TRANSFER_BLOCKS {
        Err(TOO_LONG)
    } else {
        Ok(extent)
    }
}

fn writable(extent: Extent, unit: &Unit) -> Result<Extent, Sense> {
    if unit.read_only {
        Err(Sense::WRITE_PROTECTED)
    } else {
        Ok(extent)
    }
}

fn inquiry(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let vpd = cdb[1] & 1 != 0;
    if cdb[1] & 2 != 0 {
        return Err(Sense::invalid_cdb(1)); // CMDDT, obsolete
    }
    if !vpd && cdb[2] != 0 {
        return Err(Sense::invalid_cdb(2));
    }
    Ok(Command::Inquiry {
        page: vpd.then_some(cdb[2]),
        allocation: be16(cdb, 3).into(),
    })
}

/// SPC-4 6.33: an allocation length under 16 is an error.
fn report_luns(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let allocation = be32(cdb, 6);
    match cdb[2] {
        _ if allocation < 16 => Err(Sense::invalid_cdb(6)),
        0 | 2 => Ok(Command::ReportLuns {
            well_known: false,
            allocation,
        }),
        1 => Ok(Command::ReportLuns {
            well_known: true,
            allocation,
        }),
        _ => Err(Sense::invalid_cdb(2)),
    }
}

fn mode_sense(cdb: &[u8; 16]) -> Command {
    let ten = cdb[0] == 0x5A;
    Command::ModeSense(ModeSense {
        ten,
        dbd: cdb[1] & 0x08 != 0,
        llbaa: ten && cdb[1] & 0x10 != 0,
        control: cdb[2] >> 6,
        page: cdb[2] & 0x3F,
        subpage: cdb[3],
        allocation: if ten { be16(cdb, 7).into() } else { cdb[4].into() },
    })
}

fn mode_select(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let ten = cdb[0] == 0x55;
    if cdb[1] & 0x01 != 0 {
        return Err(Sense::invalid_cdb(1)); // SP: nothing can be saved
    }
    Ok(Command::ModeSelect {
        ten,
        length: if ten { be16(cdb, 7).into() } else { cdb[4].into() },
    })
}

/// BYTCHK 00b and 01b.
fn verify(cdb: &[u8; 16], unit: &Unit) -> Result<Command, Sense> {
    if cdb[1] & 0x04 != 0 {
        return Err(Sense::invalid_cdb(1));
    }
    Ok(Command::Verify {
        extent: transfer(protected(cdb)?, unit)?,
        compare: cdb[1] & 0x02 != 0,
    })
}

fn write_same(cdb: &[u8; 16], unit: &Unit) -> Result<Command, Sense> {
    let long = cdb[0] == 0x93;
    // ANCHOR, PBDATA and LBDATA are refused; NDOB exists in the long form only.
    if cdb[1] & 0x16 != 0 || (!long && cdb[1] & 0x01 != 0) {
        return Err(Sense::invalid_cdb(1));
    }
    let extent = writable(within(protected(cdb)?, unit)?, unit)?;
    if extent.is_empty() || extent.blocks > MAX_WRITE_SAME_BLOCKS {
        return Err(Sense::invalid_cdb(if long { 10 } else { 7 }));
    }
    Ok(Command::WriteSame {
        extent,
        unmap: cdb[1] & 0x08 != 0,
        no_data: cdb[1] & 0x01 != 0,
    })
}

fn unmap(cdb: &[u8; 16], unit: &Unit) -> Result<Command, Sense> {
    if cdb[1] & 0x01 != 0 {
        return Err(Sense::invalid_cdb(1)); // ANCHOR
    }
    writable(Extent { lba: 0, blocks: 0 }, unit)?;
    Ok(Command::Unmap {
        length: be16(cdb, 7).into(),
    })
}

fn report_opcodes(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let (opcode, action) = (cdb[3], be16(cdb, 4));
    let query = match cdb[2] & 0x07 {
        0 => OpcodeQuery::All,
        1 => OpcodeQuery::Opcode { opcode },
        2 => OpcodeQuery::Action { opcode, action },
        3 => OpcodeQuery::Either { opcode, action },
        _ => return Err(Sense::invalid_cdb(2)),
    };
    Ok(Command::ReportOpcodes {
        query,
        timeouts: cdb[2] & 0x80 != 0,
        allocation: be32(cdb, 6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2^22 blocks: more than the six-byte commands reach.
    const UNIT: Unit = Unit {
        image: 1,
        cluster: 1,
        size: 2 << 30,
        read_only: false,
    };

    fn cdb(bytes: &[u8]) -> [u8; 16] {
        let mut out = [0; 16];
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }

    fn on_unit(bytes: &[u8]) -> Result<Command, Sense> {
        accept(&cdb(bytes), Some(&UNIT))
    }

    #[test]
    fn reads_and_writes_of_all_lengths() {
        let read = |lba, blocks| Ok(Command::Read(Extent { lba, blocks }));
        let write = |lba, blocks, fua| {
            Ok(Command::Write {
                extent: Extent { lba, blocks },
                fua,
            })
        };
        for (bytes, want) in [
            (&[0x08, 0x1F, 1, 2, 0, 0][..], read(0x1F_0102, 256)),
            (&[0x08, 0xE0, 0, 0, 5, 0], read(0, 5)),
            (&[0x28, 0x10, 0, 0, 1, 0, 0, 1, 0, 0], read(256, 256)),
            (&[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0], read(0, 0)),
            (&[0xA8, 0, 0, 0, 0, 9, 0, 0, 0x80, 0, 0, 0], read(9, 0x8000)),
            (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0], read(3, 4)),
            (&[0x0A, 0, 0, 1, 1, 0], write(1, 1, false)),
            (&[0x2A, 0x08, 0, 0, 0, 1, 0, 0, 8, 0], write(1, 8, true)),
            (&[0xAA, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0], write(1, 8, false)),
            (
                &[0x8A, 0x18, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0],
                write(1, 8, true),
            ),
            (
                &[0x2F, 0, 0, 0, 0, 1, 0, 0, 8, 0],
                Ok(Command::Verify {
                    extent: Extent { lba: 1, blocks: 8 },
                    compare: false,
                }),
            ),
            (&[0x91], Ok(Command::Synchronize)),
        ] {
            assert_eq!(on_unit(bytes), want, "{bytes:x?}");
        }
    }

    #[test]
    fn addresses_are_checked_at_the_edge_and_beyond() {
        let out = Err(Sense::OUT_OF_RANGE);
        for (bytes, want) in [
            (
                &[0x28, 0, 0, 0x40, 0, 0, 0, 0, 0, 0][..],
                Ok(Command::Read(Extent {
                    lba: 1 << 22,
                    blocks: 0,
                })),
            ),
            (&[0x28, 0, 0, 0x40, 0, 1, 0, 0, 0, 0], out),
            (&[0x28, 0, 0, 0x3F, 0xFF, 0xFF, 0, 0, 2, 0], out),
            (
                &[0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0],
                out,
            ),
            (
                &[
                    0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0,
                ],
                out,
            ),
            (
                &[
                    0x93, 0x01, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0,
                ],
                out,
            ),
            (&[0x35, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1, 0], out),
            (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0], Err(TOO_LONG)),
        ] {
            assert_eq!(on_unit(bytes), want, "{bytes:x?}");
        }
    }

    #[test]
    fn invalid_fields() {
        for (bytes, field) in [
            (&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0][..], 1),
            (&[0x2A, 0x80, 0, 0, 0, 0, 0, 0, 1, 0], 1),
            (&[0x2F, 0x06, 0, 0, 0, 0, 0, 0, 1, 0], 1),
            (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0x04], 9),
            (&[0x12, 0, 0x80, 0, 96, 0], 2),
            (&[0x12, 2, 0, 0, 96, 0], 1),
            (&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0], 6),
            (&[0xA0, 0, 9, 0, 0, 0, 0, 0, 0, 16, 0, 0], 2),
            (&[0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0], 7),
            (&[0x41, 1, 0, 0, 0, 0, 0, 0, 1, 0], 1),
            (&[0x93, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 1),
            (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0], 10),
            (&[0x42, 1, 0, 0, 0, 0, 0, 0, 8, 0], 1),
            (&[0x15, 0x01, 0, 0, 8, 0], 1),
            (&[0x9E, 0x12], 1),
            (&[0xA3, 0x0A], 1),
            (&[0xA3, 0x0C, 0x04], 2),
        ] {
            assert_eq!(on_unit(bytes), Err(Sense::invalid_cdb(field)), "{bytes:x?}");
        }
        assert_eq!(on_unit(&[0xC0]), Err(Sense::UNKNOWN_OPCODE));
    }

    #[test]
    fn without_a_unit_only_three_commands_work() {
        for opcode in 0..=255u8 {
            let result = accept(&cdb(&[opcode, 0, 0, 0, 0, 0, 0, 0, 0, 16]), None);
            let want = matches!(opcode, 0x03 | 0x12 | 0xA0);
            assert_eq!(result.is_ok(), want, "{opcode:#x}");
            assert!(want || result == Err(Sense::NO_UNIT));
        }
    }

    #[test]
    fn a_read_only_unit_refuses_what_changes_it() {
        let unit = Unit {
            read_only: true,
            ..UNIT
        };
        for bytes in [
            &[0x0A, 0, 0, 0, 1, 0][..],
            &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0],
            &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        ] {
            assert_eq!(
                accept(&cdb(bytes), Some(&unit)),
                Err(Sense::WRITE_PROTECTED),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            let mut bytes = [0; 16];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = state.to_be_bytes()[0];
            }
            if let Ok(command) = accept(&bytes, Some(&UNIT)) {
                assert!(command.weight() <= MAX_WRITE_SAME_BLOCKS * BLOCK);
            }
        }
    }
}
