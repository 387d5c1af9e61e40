//! Status codes (SAM-5 clause 5.3.1) and sense data (SPC-4 clause 4.5).

/// Bytes of fixed format sense data.
pub const SENSE_LEN: usize = 18;

/// The status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// Not done; sense data says why.
    CheckCondition = 0x02,
    /// Not now: the initiator retries.
    Busy = 0x08,
    /// Another nexus holds a reservation.
    ReservationConflict = 0x18,
    /// Too many tasks: the initiator retries with fewer.
    TaskSetFull = 0x28,
}

/// The sense key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Key {
    /// Nothing to say.
    NoSense = 0x0,
    /// The unit cannot be accessed now.
    NotReady = 0x2,
    /// The data could not be read or written.
    MediumError = 0x3,
    /// The command or its parameters are wrong.
    IllegalRequest = 0x5,
    /// Something about the unit has changed.
    UnitAttention = 0x6,
    /// Writes are refused.
    DataProtect = 0x7,
    /// The device gave the command up.
    AbortedCommand = 0xB,
    /// The data is not what the initiator said.
    Miscompare = 0xE,
}

/// The byte, and bit if known, that is in error (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Whether it is in the CDB rather than in the parameter list.
    pub in_cdb: bool,
    /// Which byte.
    pub byte: u16,
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The sense key.
    pub key: Key,
    /// The additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    /// What is in error, for an illegal request.
    pub field: Option<Field>,
}

impl Sense {
    /// No sense.
    pub const NONE: Self = Self::new(Key::NoSense, 0x00, 0x00);
    /// INVALID COMMAND OPERATION CODE.
    pub const UNKNOWN_OPCODE: Self = Self::new(Key::IllegalRequest, 0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const OUT_OF_RANGE: Self = Self::new(Key::IllegalRequest, 0x21, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const NO_UNIT: Self = Self::new(Key::IllegalRequest, 0x25, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const LIST_LENGTH: Self = Self::new(Key::IllegalRequest, 0x1A, 0x00);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const NO_SAVING: Self = Self::new(Key::IllegalRequest, 0x39, 0x00);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const POWER_ON: Self = Self::new(Key::UnitAttention, 0x29, 0x00);
    /// BUS DEVICE RESET FUNCTION OCCURRED.
    pub const DEVICE_RESET: Self = Self::new(Key::UnitAttention, 0x29, 0x03);
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: Self = Self::new(Key::UnitAttention, 0x2A, 0x09);
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    pub const COMMANDS_CLEARED: Self = Self::new(Key::UnitAttention, 0x2F, 0x00);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self::new(Key::DataProtect, 0x27, 0x00);
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const NO_SPACE: Self = Self::new(Key::DataProtect, 0x27, 0x07);
    /// UNRECOVERED READ ERROR.
    pub const READ_ERROR: Self = Self::new(Key::MediumError, 0x11, 0x00);
    /// WRITE ERROR.
    pub const WRITE_ERROR: Self = Self::new(Key::MediumError, 0x0C, 0x00);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE: Self = Self::new(Key::Miscompare, 0x1D, 0x00);
    /// LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION.
    pub const TRANSITIONING: Self = Self::new(Key::NotReady, 0x04, 0x0A);
    /// WRITE ERROR - UNEXPECTED UNSOLICITED DATA (RFC 7143 11.4.7.2).
    pub const UNEXPECTED_DATA: Self = Self::new(Key::AbortedCommand, 0x0C, 0x0C);
    /// WRITE ERROR - NOT ENOUGH UNSOLICITED DATA: the transfer was not what it should be (RFC 7143 11.4.7.2).
    pub const INCORRECT_DATA: Self = Self::new(Key::AbortedCommand, 0x0C, 0x0D);

    /// Sense data without more.
    #[must_use]
    pub const fn new(key: Key, asc: u8, ascq: u8) -> Self {
        Self {
            key,
            asc,
            ascq,
            field: None,
        }
    }

    /// INVALID FIELD IN CDB, at `byte`.
    #[must_use]
    pub const fn invalid_cdb(byte: u16) -> Self {
        Self {
            key: Key::IllegalRequest,
            asc: 0x24,
            ascq: 0x00,
            field: Some(Field { in_cdb: true, byte }),
        }
    }

    /// INVALID FIELD IN PARAMETER LIST, at `byte`.
    #[must_use]
    pub const fn invalid_list(byte: u16) -> Self {
        Self {
            key: Key::IllegalRequest,
            asc: 0x26,
            ascq: 0x00,
            field: Some(Field { in_cdb: false, byte }),
        }
    }

    /// Fixed format, current error (response code 70h).
    #[must_use]
    pub fn fixed(&self) -> [u8; SENSE_LEN] {
        let mut out = [0; SENSE_LEN];
        out[0] = 0x70;
        out[2] = self.key as u8;
        out[7] = 10;
        out[12] = self.asc;
        out[13] = self.ascq;
        out[15..18].copy_from_slice(&self.key_specific());
        out
    }

    /// Descriptor format, current error (response code 72h); with the sense key specific descriptor if there is a field.
    #[must_use]
    pub fn descriptor(&self) -> Vec<u8> {
        let mut out = vec![0x72, self.key as u8, self.asc, self.ascq, 0, 0, 0, 0];
        if self.field.is_some() {
            out[7] = 8;
            out.extend_from_slice(&[0x02, 0x06, 0, 0]);
            out.extend_from_slice(&self.key_specific());
            out.push(0);
        }
        out
    }

    /// The field pointer (SKSV, C/D, byte), or zeros.
    fn key_specific(&self) -> [u8; 3] {
        self.field.map_or([0; 3], |field| {
            let [high, low] = field.byte.to_be_bytes();
            [0x80 | if field.in_cdb { 0x40 } else { 0 }, high, low]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_is_as_in_spc() {
        let sense = Sense::invalid_cdb(2).fixed();
        assert_eq!(sense, [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xC0, 0, 2]);
        let sense = Sense::invalid_list(0x102).fixed();
        assert_eq!(sense[12..], [0x26, 0, 0, 0x80, 1, 2]);
        assert_eq!(
            Sense::POWER_ON.fixed(),
            [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn descriptor_format_is_as_in_spc() {
        assert_eq!(Sense::NO_SPACE.descriptor(), [0x72, 7, 0x27, 7, 0, 0, 0, 0]);
        assert_eq!(
            Sense::invalid_cdb(1).descriptor(),
            [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xC0, 0, 1, 0]
        );
    }
}
