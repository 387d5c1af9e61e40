//! The headers of calls and replies (RFC 5531 section 9).

use bytes::Bytes;

use super::auth::{AuthStat, Credentials};
use super::record::{LAST_FRAGMENT, MARK_SIZE};
use crate::connection::CloseReason;
use crate::xdr::{Reader, Writer, XdrError};

/// The only version of the RPC protocol.
pub const RPC_VERSION: u32 = 2;

/// `msg_type`.
const CALL: u32 = 0;
const REPLY: u32 = 1;
/// `reply_stat`.
const MSG_DENIED: u32 = 1;
/// `reject_stat`.
const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;
/// `accept_stat`.
const SUCCESS: u32 = 0;
const PROG_UNAVAIL: u32 = 1;
const PROG_MISMATCH: u32 = 2;
const PROC_UNAVAIL: u32 = 3;
const GARBAGE_ARGS: u32 = 4;
const SYSTEM_ERR: u32 = 5;

/// A call's header; the arguments follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHeader {
    /// Chosen by the client; the reply repeats it.
    pub xid: u32,
    /// The program's number.
    pub program: u32,
    /// The program's version.
    pub version: u32,
    /// The procedure's number.
    pub procedure: u32,
    /// Who calls.
    pub credentials: Credentials,
}

/// An answer that is not a procedure's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The RPC version is not [`RPC_VERSION`].
    RpcMismatch,
    /// The credentials do not do.
    Auth(AuthStat),
    /// The program is not served here.
    ProgUnavail,
    /// The program is served in these versions only.
    ProgMismatch {
        /// Lowest version.
        low: u32,
        /// Highest version.
        high: u32,
    },
    /// The program has no such procedure.
    ProcUnavail,
    /// The arguments cannot be decoded.
    GarbageArgs,
    /// The server failed in a way that the procedure's results cannot express.
    SystemErr,
}

/// Why a record is not an acceptable call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It cannot be answered.
    Close(CloseReason),
    /// It is to be answered so.
    Refuse(u32, Refusal),
}

impl From<XdrError> for HeaderError {
    fn from(_: XdrError) -> HeaderError {
        HeaderError::Close(CloseReason::ShortHeader)
    }
}

impl CallHeader {
    /// Takes the header from the front of a record.
    ///
    /// # Errors
    /// Records that are not calls, other RPC versions, credentials that cannot be understood.
    pub fn decode(r: &mut Reader<'_>) -> Result<CallHeader, HeaderError> {
        let (xid, kind) = (r.u32()?, r.u32()?);
        if kind != CALL {
            return Err(HeaderError::Close(CloseReason::NotACall));
        }
        if r.u32()? != RPC_VERSION {
            return Err(HeaderError::Refuse(xid, Refusal::RpcMismatch));
        }
        let (program, version, procedure) = (r.u32()?, r.u32()?, r.u32()?);
        let credentials = Credentials::decode(r).map_err(|stat| HeaderError::Refuse(xid, Refusal::Auth(stat)))?;
        Ok(CallHeader {
            xid,
            program,
            version,
            procedure,
            credentials,
        })
    }
}

/// Starts a record with a call's header, as a client does; end it with [`finish_record`].
pub fn write_call_header(w: &mut Writer, header: &CallHeader) {
    for word in [
        0,
        header.xid,
        CALL,
        RPC_VERSION,
        header.program,
        header.version,
        header.procedure,
    ] {
        w.u32(word);
    }
    header.credentials.encode(w);
}

/// Starts the record of a successful reply: mark, xid, REPLY, MSG_ACCEPTED, AUTH_NONE verifier, SUCCESS.
/// The results follow; [`finish_record`] ends it.
pub fn begin_reply(w: &mut Writer, xid: u32) {
    accepted(w, xid, SUCCESS);
}

/// The record of a refusal; [`finish_record`] ends it.
pub fn write_refusal(w: &mut Writer, xid: u32, refusal: Refusal) {
    match refusal {
        Refusal::RpcMismatch => denied(w, xid, &[RPC_MISMATCH, RPC_VERSION, RPC_VERSION]),
        Refusal::Auth(stat) => denied(w, xid, &[AUTH_ERROR, stat.number()]),
        Refusal::ProgUnavail => accepted(w, xid, PROG_UNAVAIL),
        Refusal::ProgMismatch { low, high } => {
            accepted(w, xid, PROG_MISMATCH);
            w.u32(low);
            w.u32(high);
        }
        Refusal::ProcUnavail => accepted(w, xid, PROC_UNAVAIL),
        Refusal::GarbageArgs => accepted(w, xid, GARBAGE_ARGS),
        Refusal::SystemErr => accepted(w, xid, SYSTEM_ERR),
    }
}

fn accepted(w: &mut Writer, xid: u32, stat: u32) {
    let mut words = [0; 28];
    words[4..8].copy_from_slice(&xid.to_be_bytes());
    words[8..12].copy_from_slice(&REPLY.to_be_bytes());
    words[24..28].copy_from_slice(&stat.to_be_bytes());
    w.prepare();
    w.bytes(&words);
}

fn denied(w: &mut Writer, xid: u32, rest: &[u32]) {
    w.prepare();
    for &word in [0, xid, REPLY, MSG_DENIED].iter().chain(rest) {
        w.u32(word);
    }
}

/// Sets the mark of the record in `w`, one last fragment, and moves it to `out`.
///
/// # Panics
/// If it has 2^31 bytes or more, which no limit of ours allows.
pub fn finish_record(w: &mut Writer, out: &mut Vec<Bytes>) {
    let length = u32::try_from(w.len() - MARK_SIZE).expect("records are limited far below 2^31");
    assert!(length < LAST_FRAGMENT, "records are limited far below 2^31");
    w.patch_first(length | LAST_FRAGMENT);
    w.finish(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_standard_form() {
        let cases: &[(Refusal, &[u32])] = &[
            (Refusal::RpcMismatch, &[1, 1, 0, 2, 2]),
            (Refusal::Auth(AuthStat::TooWeak), &[1, 1, 1, 5]),
            (Refusal::ProgUnavail, &[1, 0, 0, 0, 1]),
            (Refusal::ProgMismatch { low: 3, high: 4 }, &[1, 0, 0, 0, 2, 3, 4]),
            (Refusal::ProcUnavail, &[1, 0, 0, 0, 3]),
            (Refusal::GarbageArgs, &[1, 0, 0, 0, 4]),
            (Refusal::SystemErr, &[1, 0, 0, 0, 5]),
        ];
        for &(refusal, words) in cases {
            let (mut w, mut out) = (Writer::new(), Vec::new());
            write_refusal(&mut w, 0xabcd, refusal);
            finish_record(&mut w, &mut out);
            let mark = LAST_FRAGMENT | u32::try_from(4 + 4 * words.len()).unwrap();
            let expected: Vec<u8> = [mark, 0xabcd]
                .iter()
                .chain(words)
                .flat_map(|w| w.to_be_bytes())
                .collect();
            assert_eq!(out.concat(), expected, "{refusal:?}");
        }
    }

    #[test]
    fn headers_that_cannot_be_answered_close() {
        let call = |words: &[u32]| -> Bytes { words.iter().flat_map(|w| w.to_be_bytes()).collect() };
        let cases: &[(&[u32], CloseReason)] = &[
            (&[], CloseReason::ShortHeader),
            (&[1], CloseReason::ShortHeader),
            (&[1, 1, 0, 0, 0, 0], CloseReason::NotACall),
            (&[1, 2, 2, 100_003], CloseReason::NotACall),
            (&[1, 0], CloseReason::ShortHeader),
            (&[1, 0, 2, 100_003, 3], CloseReason::ShortHeader),
        ];
        for &(words, reason) in cases {
            let record = call(words);
            let result = CallHeader::decode(&mut Reader::new(&record));
            assert_eq!(result, Err(HeaderError::Close(reason)), "{words:?}");
        }
        let record = call(&[9, 0, 3]);
        let result = CallHeader::decode(&mut Reader::new(&record));
        assert_eq!(result, Err(HeaderError::Refuse(9, Refusal::RpcMismatch)));
    }
}
