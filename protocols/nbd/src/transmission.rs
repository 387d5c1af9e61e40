//! The transmission phase: requests in, replies out, in any order.
//!
//! A request that breaks a rule is answered here; the payload of such a WRITE is skipped first, however long it
//! is and without holding it, so that the stream stays in step.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{CloseReason, NbdError};
use crate::export::Export;
use crate::in_flight::{Handle, InFlight, Pending, Table};
use crate::limits::{Limits, MAX_PAYLOAD};
use crate::reply::Replies;
use crate::request::{Command, Request};
use crate::wire::{Kind, REQUEST_LEN, RequestHeader, command_flag};

/// Bytes asked for at once while a payload is skipped.
const SKIP_HINT: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    /// The payload of a good WRITE.
    Payload(RequestHeader),
    /// The payload of a bad WRITE.
    Skip {
        cookie: u64,
        left: usize,
        error: NbdError,
    },
    /// DISC was received: what follows is ignored.
    Leaving,
}

/// The transmission phase of one connection.
#[derive(Debug)]
pub(crate) struct Transmission {
    limits: Limits,
    export: Export,
    state: State,
    table: Table,
    replies: Replies,
    /// Headers taken.
    received: u64,
}

impl Transmission {
    pub(crate) fn new(limits: Limits, export: Export, structured: bool) -> Transmission {
        Transmission {
            limits,
            export,
            state: State::Header,
            table: Table::default(),
            replies: Replies::new(structured),
            received: 0,
        }
    }

    pub(crate) fn export(&self) -> &Export {
        &self.export
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        self.table.total()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    pub(crate) fn is_full(&self) -> bool {
        !self.is_leaving() && self.table.is_full(&self.limits)
    }

    /// Takes all whole requests from `input` that the limits allow. Returns how many bytes are missing for the next
    /// step, 0 if none are wanted now.
    pub(crate) fn receive(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<Bytes>,
        requests: &mut Vec<Request>,
    ) -> Result<usize, CloseReason> {
        loop {
            let missing = match self.state {
                State::Header => self.header(input, out, requests)?,
                State::Payload(header) => self.payload(&header, input, requests),
                State::Skip { cookie, left, error } => self.skip(cookie, left, error, input, out),
                State::Leaving => {
                    input.clear();
                    Some(0)
                }
            };
            if let Some(missing) = missing {
                return Ok(missing);
            }
        }
    }

    /// The answer to one request.
    pub(crate) fn reply(&mut self, handle: Handle, result: Result<Vec<Bytes>, NbdError>, out: &mut Vec<Bytes>) {
        let pending = self.table.remove(handle);
        match result {
            Ok(data) => self.replies.done(&pending, data, out),
            Err(error) => self.replies.failed(pending.cookie, pending.is_read, error, out),
        }
    }

    fn header(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<Bytes>,
        requests: &mut Vec<Request>,
    ) -> Result<Option<usize>, CloseReason> {
        if self.table.is_full(&self.limits) {
            return Ok(Some(0));
        }
        let Some(bytes) = input.first_chunk::<REQUEST_LEN>() else {
            return Ok(Some(REQUEST_LEN - input.len()));
        };
        self.received += 1;
        let decoded = RequestHeader::decode(bytes);
        let header = decoded.map_err(|magic| CloseReason::RequestMagic {
            magic,
            index: self.received,
        })?;
        input.advance(REQUEST_LEN);
        self.accept(header, out, requests);
        Ok(None)
    }

    fn accept(&mut self, header: RequestHeader, out: &mut Vec<Bytes>, requests: &mut Vec<Request>) {
        let is_write = header.kind == Some(Kind::Write);
        match self.check(&header) {
            _ if header.kind == Some(Kind::Disconnect) => self.state = State::Leaving,
            Err(error) if is_write => {
                let left = header.length as usize; // u32 fits usize on every platform with 32 MiB payloads
                self.state = State::Skip {
                    cookie: header.cookie,
                    left,
                    error,
                };
            }
            Err(error) => {
                let is_read = header.kind == Some(Kind::Read);
                self.replies.failed(header.cookie, is_read, error, out);
            }
            Ok(()) if header.length == 0 && header.kind != Some(Kind::Flush) => {
                self.replies.done(&Pending::new(&header), Vec::new(), out);
            }
            Ok(()) if is_write => self.state = State::Payload(header),
            Ok(()) => self.push(&header, Bytes::new(), requests),
        }
    }

    fn push(&mut self, header: &RequestHeader, data: Bytes, requests: &mut Vec<Request>) {
        if let Some(command) = Command::new(header, data) {
            let handle = self.table.insert(Pending::new(header));
            requests.push(Request {
                handle,
                export: self.export.id,
                command,
            });
        }
    }

    fn payload(&mut self, header: &RequestHeader, input: &mut BytesMut, requests: &mut Vec<Request>) -> Option<usize> {
        let length = header.length as usize;
        if input.len() < length {
            return Some(length - input.len());
        }
        self.state = State::Header;
        let data = input.split_to(length).freeze();
        self.push(header, data, requests);
        None
    }

    fn skip(
        &mut self,
        cookie: u64,
        left: usize,
        error: NbdError,
        input: &mut BytesMut,
        out: &mut Vec<Bytes>,
    ) -> Option<usize> {
        let taken = left.min(input.len());
        input.advance(taken);
        let left = left - taken;
        if left > 0 {
            self.state = State::Skip { cookie, left, error };
            return Some(left.min(SKIP_HINT));
        }
        self.state = State::Header;
        self.replies.failed(cookie, false, error, out);
        None
    }

    /// The rules of the specification for one request, in the order in which errors take precedence.
    fn check(&self, header: &RequestHeader) -> Result<(), NbdError> {
        let kind = header.kind.ok_or(NbdError::Invalid)?;
        if header.flags & !self.allowed_flags(kind) != 0 {
            return Err(NbdError::Invalid);
        }
        match kind {
            Kind::Disconnect => Ok(()),
            Kind::Flush if header.offset == 0 && header.length == 0 => Ok(()),
            Kind::Flush => Err(NbdError::Invalid),
            Kind::Read if header.length > MAX_PAYLOAD && header.has(command_flag::DF) => Err(NbdError::Overflow),
            Kind::Read if header.length > MAX_PAYLOAD => Err(NbdError::Invalid),
            Kind::Read => self.check_range(header, NbdError::Invalid),
            _ if self.export.read_only => Err(NbdError::Permission),
            Kind::Write if header.length > MAX_PAYLOAD => Err(NbdError::Invalid),
            Kind::Write | Kind::WriteZeroes => self.check_range(header, NbdError::NoSpace),
            Kind::Trim => self.check_range(header, NbdError::Invalid),
        }
    }

    fn check_range(&self, header: &RequestHeader, error: NbdError) -> Result<(), NbdError> {
        if self.export.holds(header.offset, header.length) {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// FUA means nothing to a command that does not write, but the specification lets clients set it there.
    fn allowed_flags(&self, kind: Kind) -> u16 {
        let own = match kind {
            Kind::Read if self.replies.structured() => command_flag::DF,
            Kind::WriteZeroes => command_flag::NO_HOLE,
            _ => 0,
        };
        own | command_flag::FUA
    }
}
