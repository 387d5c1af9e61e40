//! Numbers and fixed layouts of the NBD protocol, named as in the specification. All integers are big-endian.
//!
//! Only codes: what they mean to a connection is decided in `handshake` and `transmission`.

use bytes::Buf;

/// Sent by the server on accept: `NBDMAGIC`, `IHAVEOPT`, and the handshake flags FIXED_NEWSTYLE and NO_ZEROES.
pub(crate) const GREETING: [u8; 18] = *b"NBDMAGICIHAVEOPT\x00\x03";

/// `NBD_FLAG_C_FIXED_NEWSTYLE`: the client understands replies to options.
pub(crate) const CLIENT_FIXED_NEWSTYLE: u32 = 1;
/// `NBD_FLAG_C_NO_ZEROES`: leave out the padding after EXPORT_NAME.
pub(crate) const CLIENT_NO_ZEROES: u32 = 2;
/// Bytes of client flags that open the client's side.
pub(crate) const CLIENT_FLAGS_LEN: usize = 4;

/// `IHAVEOPT`, before each option.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Magic, option, length.
pub(crate) const OPTION_HEADER_LEN: usize = 16;
/// Before each reply to an option.
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic, option, reply type, length.
pub(crate) const OPTION_REPLY_HEADER_LEN: usize = 20;
/// Zeroes after the answer to EXPORT_NAME when the client did not ask for NO_ZEROES.
pub(crate) const EXPORT_NAME_PADDING: usize = 124;
/// Longest string the specification allows, bytes.
pub(crate) const MAX_STRING: usize = 4096;

/// Options (`NBD_OPT_*`).
pub(crate) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
}

/// Replies to options (`NBD_REP_*`).
pub(crate) mod rep {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const ERR_UNSUP: u32 = 0x8000_0001;
    pub(crate) const ERR_INVALID: u32 = 0x8000_0003;
    pub(crate) const ERR_UNKNOWN: u32 = 0x8000_0006;
    pub(crate) const ERR_TOO_BIG: u32 = 0x8000_0009;
}

/// Information items of INFO and GO (`NBD_INFO_*`).
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags (`NBD_FLAG_*`).
pub(crate) mod flag {
    pub(crate) const HAS_FLAGS: u16 = 1 << 0;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const ROTATIONAL: u16 = 1 << 4;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Flags of one command (`NBD_CMD_FLAG_*`).
pub(crate) mod command_flag {
    pub(crate) const FUA: u16 = 1 << 0;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
}

/// Before each request.
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic, flags, type, cookie, offset, length.
pub(crate) const REQUEST_LEN: usize = 28;
/// Before each simple reply.
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Magic, error, cookie.
pub(crate) const SIMPLE_REPLY_LEN: usize = 16;
/// Before each chunk of a structured reply.
pub(crate) const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// Magic, flags, type, cookie, length.
pub(crate) const CHUNK_LEN: usize = 20;
/// Payload of OFFSET_DATA before its data: the offset.
pub(crate) const CHUNK_OFFSET_LEN: u32 = 8;
/// Payload of an error chunk without a message: error and message length.
pub(crate) const CHUNK_ERROR_LEN: u32 = 6;
/// `NBD_REPLY_FLAG_DONE`: the last chunk of the reply.
pub(crate) const CHUNK_DONE: u16 = 1;

/// Types of chunks (`NBD_REPLY_TYPE_*`).
pub(crate) mod chunk {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const ERROR: u16 = 0x8001;
}

/// Commands this server knows (`NBD_CMD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    WriteZeroes,
}

impl Kind {
    fn from_code(code: u16) -> Option<Kind> {
        Some(match code {
            0 => Kind::Read,
            1 => Kind::Write,
            2 => Kind::Disconnect,
            3 => Kind::Flush,
            4 => Kind::Trim,
            6 => Kind::WriteZeroes,
            _ => return None,
        })
    }
}

/// The header of one request, after its magic was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHeader {
    pub(crate) flags: u16,
    /// `None`: a command this server does not know.
    pub(crate) kind: Option<Kind>,
    pub(crate) cookie: u64,
    /// Bytes from the start of the export.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u32,
}

impl RequestHeader {
    /// Decodes a header; a wrong magic is returned as the error.
    pub(crate) fn decode(bytes: &[u8; REQUEST_LEN]) -> Result<RequestHeader, u32> {
        let mut rest = &bytes[..];
        let magic = rest.get_u32();
        if magic != REQUEST_MAGIC {
            return Err(magic);
        }
        Ok(RequestHeader {
            flags: rest.get_u16(),
            kind: Kind::from_code(rest.get_u16()),
            cookie: rest.get_u64(),
            offset: rest.get_u64(),
            length: rest.get_u32(),
        })
    }

    /// True if all of `flag` is set.
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }
}
