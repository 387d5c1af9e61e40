//! One connection from accept to close: the handshake, then the transmission phase.

use bytes::{Bytes, BytesMut};

use crate::error::{CloseReason, NbdError};
use crate::export::{Export, Exports};
use crate::handshake::{Handshake, Step};
use crate::in_flight::{Handle, InFlight};
use crate::limits::Limits;
use crate::request::Request;
use crate::transmission::Transmission;
use crate::wire;

#[derive(Debug)]
enum Phase {
    Handshake(Handshake),
    Transmission(Box<Transmission>),
    /// The client aborted the handshake.
    Aborted,
}

/// The server side of one connection.
///
/// Send what [`start`](Self::start) gives; then feed received bytes to [`receive`](Self::receive) and results to
/// [`reply`](Self::reply), send what they append to `out` in order, and close when
/// [`is_finished`](Self::is_finished) or on an error. When [`is_full`](Self::is_full), stop reading from the socket and call
/// `receive` again after a reply, with the input that is left.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    phase: Phase,
    missing: usize,
    fault: Option<CloseReason>,
}

impl Connection {
    /// A connection just accepted.
    #[must_use]
    pub fn new(limits: Limits) -> Connection {
        Connection {
            limits,
            phase: Phase::Handshake(Handshake::new(limits)),
            missing: wire::CLIENT_FLAGS_LEN,
            fault: None,
        }
    }

    /// Appends the greeting, which the server sends first.
    pub fn start(&self, out: &mut Vec<Bytes>) {
        out.push(Bytes::from_static(&wire::GREETING));
    }

    /// Takes what it can from `input`, appends bytes to send to `out` and requests to `requests`. Payloads are split
    /// off `input` without copying, so it must be able to hold [`hint`](Self::hint) more bytes than it does.
    ///
    /// # Errors
    /// The peer broke the protocol: close after sending `out`. The reason is returned again by later calls.
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        exports: &dyn Exports,
        out: &mut Vec<Bytes>,
        requests: &mut Vec<Request>,
    ) -> Result<(), CloseReason> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let result = self.advance(input, exports, out, requests);
        self.missing = *result.as_ref().unwrap_or(&0);
        self.fault = result.as_ref().err().cloned();
        result.map(|_| ())
    }

    fn advance(
        &mut self,
        input: &mut BytesMut,
        exports: &dyn Exports,
        out: &mut Vec<Bytes>,
        requests: &mut Vec<Request>,
    ) -> Result<usize, CloseReason> {
        loop {
            match &mut self.phase {
                Phase::Handshake(handshake) => match handshake.step(input, exports, out)? {
                    Step::Need(bytes) => return Ok(bytes),
                    Step::Next => {}
                    Step::Chosen { export, structured } => {
                        let transmission = Transmission::new(self.limits, export, structured);
                        self.phase = Phase::Transmission(Box::new(transmission));
                    }
                    Step::Aborted => self.phase = Phase::Aborted,
                },
                Phase::Transmission(transmission) => {
                    return transmission.receive(input, out, requests);
                }
                Phase::Aborted => {
                    input.clear();
                    return Ok(0);
                }
            }
        }
    }

    /// Answers one request. The segments of a successful read must add up to its length; for any other command
    /// there are none. After a fault the result is taken but nothing is sent.
    ///
    /// # Panics
    /// If the handle was answered before or is not of this connection, or the segments do not add up: going on
    /// would hand one request's data to another.
    pub fn reply(&mut self, handle: Handle, result: Result<Vec<Bytes>, NbdError>, out: &mut Vec<Bytes>) {
        let Phase::Transmission(transmission) = &mut self.phase else {
            panic!("a reply before any request");
        };
        let sent_before = out.len();
        transmission.reply(handle, result, out);
        if self.fault.is_some() {
            out.truncate(sent_before);
        }
    }

    /// Bytes missing, after the last `receive`, for the next message that can be taken whole; 0 when no input is
    /// wanted. At most [`crate::MAX_PAYLOAD`].
    #[must_use]
    pub fn hint(&self) -> usize {
        self.missing
    }

    /// What waits for [`reply`](Self::reply).
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.transmission().map(Transmission::in_flight).unwrap_or_default()
    }

    /// True while the limits on what is in flight keep `receive` from taking requests.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.transmission().is_some_and(Transmission::is_full)
    }

    /// The client left in good order (ABORT, or DISC and every request before it is answered): close after sending.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.phase {
            Phase::Handshake(_) => false,
            Phase::Transmission(t) => t.is_leaving() && t.in_flight().requests == 0,
            Phase::Aborted => true,
        }
    }

    /// The export that was chosen; `None` during the handshake, for which the caller keeps a deadline.
    #[must_use]
    pub fn export(&self) -> Option<&Export> {
        self.transmission().map(Transmission::export)
    }

    fn transmission(&self) -> Option<&Transmission> {
        match &self.phase {
            Phase::Transmission(transmission) => Some(transmission),
            Phase::Handshake(_) | Phase::Aborted => None,
        }
    }
}
