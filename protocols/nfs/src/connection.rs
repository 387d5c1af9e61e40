//! One client's TCP connection: bytes in, calls out; replies in, segments out.
//!
//! NULL procedures and all errors of the RPC layer are answered here, at once and in the order in which
//! they came; every other call becomes a [`Call`] whose [`Ticket`] must come back through
//! [`Connection::reply`], [`Connection::refuse`] or [`Connection::forget`], in any order. When as much is
//! in flight as [`Limits`] allow, [`Connection::receive`] leaves the rest of the input where it is.
//!
//! The caller owns the socket and its deadlines ([`Connection::hint`] tells whether a record is
//! incomplete), and stops calling [`Connection::receive`] while its client does not take replies.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::rpc::{self, Assembler, CallHeader, Credentials, HeaderError, Refusal};
use crate::xdr::{Reader, Writer};
use crate::{mount, nfs3};

/// Bytes of a READ's or a WRITE's data at most; what FSINFO should promise.
pub const MAX_TRANSFER: u32 = 1 << 20;
/// Bytes of a call besides a WRITE's data: header (24), two `opaque_auth` (2 x 408), handle, offset, count,
/// stable_how (88), rounded up so that symbolic links of any legal length pass.
const MAX_CALL_OVERHEAD: usize = 8192;
/// Leading bytes of the arguments that the fingerprint covers: all of any call except WRITE's data and the
/// tail of long symbolic links.
const FINGERPRINT_SPAN: usize = 1024;

/// What one connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a record.
    pub record: usize,
    /// Fragments of a record, besides the last.
    pub fragments: u32,
    /// Calls in flight.
    pub calls: usize,
    /// Bytes in flight, see [`Connection::bytes_in_flight`]; one call may exceed it.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            record: (1 << 20) + MAX_CALL_OVERHEAD,
            fragments: 1024,
            calls: 256,
            bytes: 32 << 20,
        }
    }
}

/// Why a connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// A record mark asks for more than is allowed.
    #[error("a record of {size} bytes or more, {limit} are allowed")]
    RecordTooLarge {
        /// Bytes so far with the refused fragment.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A record has more fragments than allowed.
    #[error("a record of more than {limit} fragments")]
    TooManyFragments {
        /// Fragments allowed.
        limit: u32,
    },
    /// A record ends before the call's header does.
    #[error("a record that is shorter than a call's header")]
    ShortHeader,
    /// A record is a reply, or neither call nor reply.
    #[error("a record that is not a call")]
    NotACall,
}

/// The right and duty to answer one call.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call in flight must be answered or forgotten"]
pub struct Ticket {
    xid: u32,
    cost: usize,
}

impl Ticket {
    /// The client's transaction id; unique among its calls in flight if the client is sane.
    #[must_use]
    pub fn xid(&self) -> u32 {
        self.xid
    }
}

/// Tells a retransmission from another call with the same xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    /// The program's number.
    pub program: u32,
    /// The procedure's number.
    pub procedure: u32,
    /// Bytes of arguments.
    pub length: usize,
    /// CRC32C of their first 1024 bytes.
    pub checksum: u32,
}

/// A decoded call.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// To answer it.
    pub ticket: Ticket,
    /// Who calls, as the client says.
    pub credentials: Credentials,
    /// For the duplicate-request cache.
    pub fingerprint: Fingerprint,
    /// What is asked.
    pub body: Request,
}

/// A call of either program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// NFS version 3.
    Nfs(nfs3::Request),
    /// MOUNT version 3.
    Mount(mount::Request),
}

/// A result of either program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// NFS version 3.
    Nfs(nfs3::Reply),
    /// MOUNT version 3.
    Mount(mount::Reply),
}

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    assembler: Assembler,
    writer: Writer,
    calls: usize,
    bytes: usize,
}

impl Connection {
    /// A connection that has received nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Connection {
        let assembler = Assembler::new(limits.record, limits.fragments);
        Connection {
            limits,
            assembler,
            writer: Writer::new(),
            calls: 0,
            bytes: 0,
        }
    }

    /// Takes all whole records from `input`, as far as there is room for their calls. What is answered at
    /// once goes to `out`.
    ///
    /// # Errors
    /// The connection must be closed; calls that were appended before may be answered first.
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<Bytes>,
        calls: &mut Vec<Call>,
    ) -> Result<(), CloseReason> {
        while self.has_room() {
            let Some(record) = self.assembler.next(input)? else {
                break;
            };
            self.dispatch(&record, out, calls)?;
        }
        Ok(())
    }

    /// Answers a call; appends the segments of the reply to `out`.
    pub fn reply(&mut self, ticket: Ticket, reply: &Reply, out: &mut Vec<Bytes>) {
        rpc::begin_reply(&mut self.writer, ticket.xid);
        match reply {
            Reply::Nfs(reply) => reply.encode(&mut self.writer),
            Reply::Mount(reply) => reply.encode(&mut self.writer),
        }
        rpc::finish_record(&mut self.writer, out);
        self.forget(ticket);
    }

    /// Answers a call with an error of the RPC layer (for example [`rpc::AuthStat::TooWeak`]).
    pub fn refuse(&mut self, ticket: Ticket, refusal: Refusal, out: &mut Vec<Bytes>) {
        self.send_refusal(ticket.xid, refusal, out);
        self.forget(ticket);
    }

    /// Does not answer a call (a retransmission of one that is still in progress).
    pub fn forget(&mut self, ticket: Ticket) {
        self.calls -= 1;
        self.bytes -= ticket.cost;
    }

    /// Whether another call may come in; while not, the socket need not be read.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.calls < self.limits.calls && self.bytes < self.limits.bytes
    }

    /// Calls that were handed out and not answered yet.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.calls
    }

    /// The size of their records plus the data that they ask for.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.bytes
    }

    /// Bytes that must come before [`Self::receive`] can go on: the rest of a record mark or a fragment.
    /// 4 between records.
    #[must_use]
    pub fn hint(&self) -> usize {
        self.assembler.missing()
    }

    /// Bytes of fragments that are kept until their record is whole.
    #[must_use]
    pub fn collected(&self) -> usize {
        self.assembler.collected()
    }

    fn dispatch(&mut self, record: &Bytes, out: &mut Vec<Bytes>, calls: &mut Vec<Call>) -> Result<(), CloseReason> {
        let mut r = Reader::new(record);
        let header = match CallHeader::decode(&mut r) {
            Ok(header) => header,
            Err(HeaderError::Close(reason)) => return Err(reason),
            Err(HeaderError::Refuse(xid, refusal)) => {
                self.send_refusal(xid, refusal, out);
                return Ok(());
            }
        };
        let fingerprint = Fingerprint::of(&header, r.rest());
        match decode_body(&header, &mut r) {
            Ok(Some(body)) => calls.push(self.admit(record.len(), header, fingerprint, body)),
            Ok(None) => {
                rpc::begin_reply(&mut self.writer, header.xid);
                rpc::finish_record(&mut self.writer, out);
            }
            Err(refusal) => self.send_refusal(header.xid, refusal, out),
        }
        Ok(())
    }

    fn admit(&mut self, size: usize, header: CallHeader, fingerprint: Fingerprint, body: Request) -> Call {
        let wanted = match &body {
            Request::Nfs(request) => request.wanted().min(MAX_TRANSFER),
            Request::Mount(_) => 0,
        };
        let cost = size + usize::try_from(wanted).unwrap_or(0);
        self.calls += 1;
        self.bytes += cost;
        let ticket = Ticket { xid: header.xid, cost };
        Call {
            ticket,
            credentials: header.credentials,
            fingerprint,
            body,
        }
    }

    fn send_refusal(&mut self, xid: u32, refusal: Refusal, out: &mut Vec<Bytes>) {
        rpc::write_refusal(&mut self.writer, xid, refusal);
        rpc::finish_record(&mut self.writer, out);
    }
}

impl Fingerprint {
    fn of(header: &CallHeader, arguments: &[u8]) -> Fingerprint {
        let span = &arguments[..arguments.len().min(FINGERPRINT_SPAN)];
        Fingerprint {
            program: header.program,
            procedure: header.procedure,
            length: arguments.len(),
            checksum: crc32c::crc32c(span),
        }
    }
}

/// Takes the arguments, to the end of the record. `None` is a NULL procedure.
fn decode_body(header: &CallHeader, r: &mut Reader<'_>) -> Result<Option<Request>, Refusal> {
    let expected = match header.program {
        nfs3::PROGRAM => nfs3::VERSION,
        mount::PROGRAM => mount::VERSION,
        _ => return Err(Refusal::ProgUnavail),
    };
    if header.version != expected {
        return Err(Refusal::ProgMismatch {
            low: expected,
            high: expected,
        });
    }
    let body = match (header.program, header.procedure) {
        (_, nfs3::NULL) => Some(Ok(None)),
        (nfs3::PROGRAM, procedure) => nfs3::Request::decode(procedure, r).map(|body| body.map(Request::Nfs).map(Some)),
        (_, procedure) => mount::Request::decode(procedure, r).map(|body| body.map(Request::Mount).map(Some)),
    };
    let body = body.ok_or(Refusal::ProcUnavail)?.map_err(|_| Refusal::GarbageArgs)?;
    r.finish().map_err(|_| Refusal::GarbageArgs)?;
    Ok(body)
}

#[cfg(test)]
mod tests;
