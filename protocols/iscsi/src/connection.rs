//! The connection: what goes where.

use bytes::{Bytes, BytesMut};
use trivet_scsi::{Attentions, BackendError, BackendOp};

use crate::command::Transfers;
use crate::discovery::TextExchange;
use crate::login::{self, Login, Refusal};
use crate::management::Pending;
use crate::negotiate::{DEFAULT_RECEIVE, MAX_RECEIVE, Parameters};
use crate::pdu::{self, BHS_LEN, Bhs, Limits, NO_TAG, Pdu, opcode};
use crate::task::{Tag, Tasks};
use crate::text::TextError;
use crate::wire::{Place, Stat, Wire};
use crate::{LOGIN_DEADLINE_MS, PING_AFTER_MS, PING_TIMEOUT_MS, Targets};

/// Target transfer tag of our pings; no task's tag is as large.
const PING_TAG: u32 = 0x8000_0000;
/// Additional header segments, bytes: all that the length field can say.
const MAX_AHS: usize = 255 * 4;

/// Reasons of a Reject PDU (RFC 7143 11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reject {
    Snack = 0x03,
    Protocol = 0x04,
    NotSupported = 0x05,
    TooManyImmediate = 0x06,
    TaskInProgress = 0x07,
    InvalidField = 0x09,
}

/// Why a connection is to be closed. What was emitted before is still to be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// A PDU is longer than agreed on.
    #[error("PDU {opcode:#04x} is too long: {ahs} bytes of additional headers, {data} of data")]
    TooLong {
        /// Its operation code.
        opcode: u8,
        /// Bytes of additional header segments.
        ahs: usize,
        /// Bytes of data.
        data: usize,
    },
    /// The login was refused with this status class and detail.
    #[error("login refused, status {status:#06x}")]
    LoginRefused {
        /// Class and detail (RFC 7143 11.13.5).
        status: u16,
    },
    /// Something else than a login request came first.
    #[error("PDU {opcode:#04x} before login")]
    NotLoggedIn {
        /// Its operation code.
        opcode: u8,
    },
    /// Not logged in within the deadline.
    #[error("login took too long")]
    LoginTimeout,
    /// A login request in full feature phase.
    #[error("second login")]
    SecondLogin,
    /// A command number is missing.
    #[error("command number {cmd_sn} came too early")]
    CommandGap {
        /// The number that came.
        cmd_sn: u32,
    },
    /// A text request cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A ping was not answered.
    #[error("the initiator is silent")]
    Silent,
}

/// What the gateway has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Carry an operation out and call [`Connection::finished`] with the tag, once per action.
    Io {
        /// Names the task; several operations of one task carry the same.
        tag: Tag,
        /// The image.
        image: u64,
        /// What to do.
        op: BackendOp,
    },
    /// An initiator has logged in to a target. The reply waits for [`Connection::admit`], which is to be called when an older
    /// connection with the same three names (session reinstatement, RFC 7143 6.3.5), if any, is closed and its operations
    /// are done.
    Established {
        /// The initiator's name.
        initiator: String,
        /// Its session id.
        isid: [u8; 6],
        /// The target.
        target: u64,
    },
    /// The initiator has reset a unit, or all units: the target's other connections are to be told by [`Connection::reset`].
    Reset {
        /// The target.
        target: u64,
        /// The unit, or all.
        lun: Option<u64>,
    },
}

#[derive(Debug)]
pub(crate) enum Phase {
    Login(Box<Login>),
    /// Logged in; the reply waits.
    Held {
        reply: Bhs,
        text: Bytes,
    },
    Full,
    /// A logout or cold reset waits for operations; input is ignored.
    Closing,
    Ended,
}

/// What a call may use.
pub(crate) struct Io<'a> {
    pub(crate) targets: &'a dyn Targets,
    pub(crate) out: &'a mut Vec<Bytes>,
    pub(crate) actions: &'a mut Vec<Action>,
}

/// The target's side of one connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) phase: Phase,
    pub(crate) wire: Wire,
    pub(crate) parameters: Parameters,
    /// None in a discovery session.
    pub(crate) target: Option<u64>,
    pub(crate) target_name: String,
    pub(crate) tasks: Tasks,
    pub(crate) transfers: Transfers,
    pub(crate) management: Vec<Pending>,
    pub(crate) attentions: Attentions,
    pub(crate) text: TextExchange,
    tsih: u16,
    /// When it began and when something came last, milliseconds.
    last_input: u64,
    ping: Option<u64>,
    missing: usize,
}

impl Connection {
    /// A connection that has just been accepted. `tsih` is not zero and names the session if one comes about.
    #[must_use]
    pub fn new(now_ms: u64, tsih: u16) -> Self {
        Self {
            phase: Phase::Login(Box::default()),
            wire: Wire::new(),
            parameters: Parameters::default(),
            target: None,
            target_name: String::new(),
            tasks: Tasks::default(),
            transfers: Transfers::default(),
            management: Vec::new(),
            attentions: Attentions::default(),
            text: TextExchange::default(),
            tsih: tsih.max(1),
            last_input: now_ms,
            ping: None,
            missing: BHS_LEN,
        }
    }

    /// Takes what whole PDUs there are off `input`. Takes nothing between [`Action::Established`] and [`Connection::admit`], nor
    /// when it is finished.
    ///
    /// # Errors
    /// The connection is to be closed when `out` has been sent.
    pub fn receive(
        &mut self,
        now_ms: u64,
        input: &mut BytesMut,
        targets: &dyn Targets,
        out: &mut Vec<Bytes>,
        actions: &mut Vec<Action>,
    ) -> Result<(), CloseReason> {
        let io = &mut Io { targets, out, actions };
        while let Some(limits) = self.limits() {
            match pdu::take(input, limits)? {
                Ok(pdu) => self.dispatch(now_ms, pdu, io)?,
                Err(missing) => {
                    self.missing = missing;
                    break;
                }
            }
        }
        self.pump(io);
        Ok(())
    }

    /// What the next PDU may be; none while nothing is taken.
    fn limits(&self) -> Option<Limits> {
        match self.phase {
            Phase::Login(_) => Some(Limits {
                ahs: 0,
                data: DEFAULT_RECEIVE as usize,
            }),
            Phase::Full => Some(Limits {
                ahs: MAX_AHS,
                data: MAX_RECEIVE as usize,
            }),
            Phase::Held { .. } | Phase::Closing | Phase::Ended => None,
        }
    }

    fn dispatch(&mut self, now_ms: u64, pdu: Pdu, io: &mut Io<'_>) -> Result<(), CloseReason> {
        if let Phase::Login(_) = self.phase {
            return self.login(&pdu, io);
        }
        self.last_input = now_ms;
        self.ping = None;
        let code = pdu.bhs.opcode();
        match code {
            opcode::DATA_OUT => {
                self.data_out(&pdu.bhs, pdu.data, io);
                return Ok(());
            }
            opcode::NOP_OUT | opcode::COMMAND | opcode::MANAGEMENT | opcode::TEXT | opcode::LOGOUT => {}
            opcode::LOGIN => return Err(CloseReason::SecondLogin),
            opcode::SNACK => {
                self.reject(&pdu.bhs, Reject::Snack, io.out);
                return Ok(());
            }
            _ => {
                self.reject(&pdu.bhs, Reject::NotSupported, io.out);
                return Ok(());
            }
        }
        if !pdu.bhs.immediate() {
            let cmd_sn = pdu.bhs.cmd_sn();
            match self.wire.sequence(cmd_sn) {
                Place::Next => {}
                Place::Outside => return Ok(()),
                Place::Gap => return Err(CloseReason::CommandGap { cmd_sn }),
            }
        }
        match code {
            opcode::COMMAND => self.command(&pdu.bhs, pdu.data, io),
            opcode::MANAGEMENT => self.manage(&pdu.bhs, io),
            opcode::LOGOUT => self.logout(&pdu.bhs, io),
            opcode::TEXT => return self.text(&pdu, io),
            _ => self.nop(&pdu, io.out),
        }
        Ok(())
    }

    fn login(&mut self, pdu: &Pdu, io: &mut Io<'_>) -> Result<(), CloseReason> {
        let Phase::Login(login) = &mut self.phase else {
            return Ok(());
        };
        if pdu.bhs.opcode() != opcode::LOGIN {
            return Err(CloseReason::NotLoggedIn {
                opcode: pdu.bhs.opcode(),
            });
        }
        self.wire.start(pdu.bhs.cmd_sn());
        match login.step(pdu, io.targets) {
            Ok(answer) if answer.full => {
                let reply = login::response(&pdu.bhs, answer.flags, self.tsih);
                self.establish(reply, answer.text, io);
                Ok(())
            }
            Ok(answer) => {
                let reply = login::response(&pdu.bhs, answer.flags, 0);
                self.wire.send(reply, Stat::Take, &[answer.text], io.out);
                Ok(())
            }
            Err(Refusal(status)) => {
                let reply = login::response(&pdu.bhs, 0, 0).set(36, status.to_be_bytes());
                self.wire.send(reply, Stat::Take, &[], io.out);
                Err(CloseReason::LoginRefused { status })
            }
        }
    }

    /// Ends the login phase: a discovery session begins at once, another when it is admitted.
    fn establish(&mut self, reply: Bhs, text: Bytes, io: &mut Io<'_>) {
        let held = Phase::Held { reply, text };
        let Phase::Login(login) = std::mem::replace(&mut self.phase, held) else {
            return;
        };
        self.parameters = login.negotiation.parameters;
        self.target = login.target;
        let isid = login.isid();
        match login.target {
            Some(target) => {
                self.target_name = login.target_name.unwrap_or_default();
                let initiator = login.initiator.unwrap_or_default();
                io.actions.push(Action::Established {
                    initiator,
                    isid,
                    target,
                });
            }
            None => self.admit(io.out),
        }
    }

    /// Sends the reply that opens full feature phase, after [`Action::Established`]. Then [`Connection::receive`] is to be
    /// called again if there is input.
    pub fn admit(&mut self, out: &mut Vec<Bytes>) {
        if let Phase::Held { reply, text } = std::mem::replace(&mut self.phase, Phase::Full) {
            self.wire.send(reply, Stat::Take, &[text], out);
        }
    }

    /// Answers a ping, whatever else is going on. What has no task tag answers our own.
    fn nop(&mut self, pdu: &Pdu, out: &mut Vec<Bytes>) {
        if pdu.bhs.itt() == NO_TAG {
            return;
        }
        let reply = Bhs::new(opcode::NOP_IN, 0x80)
            .set(8, pdu.bhs.lun())
            .put(16, pdu.bhs.itt())
            .put(20, NO_TAG);
        let mut data = pdu.data.clone();
        data.truncate(self.parameters.max_send as usize);
        self.wire.send(reply, Stat::Take, &[data], out);
    }

    /// Sends a rejected header back.
    pub(crate) fn reject(&mut self, bhs: &Bhs, reason: Reject, out: &mut Vec<Bytes>) {
        let reply = Bhs::new(opcode::REJECT, 0x80).set(2, [reason as u8]).put(16, NO_TAG);
        self.wire
            .send(reply, Stat::Take, &[Bytes::copy_from_slice(&bhs.0)], out);
    }

    /// Takes the result of one operation: the data of a read, nothing of others. A tag that names nothing is ignored.
    pub fn finished(
        &mut self,
        tag: Tag,
        result: Result<Vec<Bytes>, BackendError>,
        targets: &dyn Targets,
        out: &mut Vec<Bytes>,
        actions: &mut Vec<Action>,
    ) {
        let io = &mut Io { targets, out, actions };
        self.operation_finished(tag, result, io);
        self.pump(io);
    }

    /// Another connection of the target has reset a unit (or all): its tasks end without an answer.
    pub fn reset(&mut self, lun: Option<u64>, targets: &dyn Targets, out: &mut Vec<Bytes>, actions: &mut Vec<Action>) {
        let io = &mut Io { targets, out, actions };
        self.reset_units(lun);
        self.settle(io.out);
        self.pump(io);
    }

    /// Deadlines and pings; about once a second.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Bytes>) -> Result<(), CloseReason> {
        let silent = now_ms.saturating_sub(self.last_input);
        match self.phase {
            Phase::Login(_) if silent >= LOGIN_DEADLINE_MS => {
                return Err(CloseReason::LoginTimeout);
            }
            // While transfers are under way the gateway may hold input back, and an answer with it.
            Phase::Full if self.transfers.used == 0 => {}
            _ => return Ok(()),
        }
        match self.ping {
            Some(sent) if now_ms.saturating_sub(sent) >= PING_TIMEOUT_MS => {
                return Err(CloseReason::Silent);
            }
            None if silent >= PING_AFTER_MS => {
                self.ping = Some(now_ms);
                let ping = Bhs::new(opcode::NOP_IN, 0x80).put(16, NO_TAG).put(20, PING_TAG);
                self.wire.send(ping, Stat::Show, &[], out);
            }
            _ => {}
        }
        Ok(())
    }

    /// How many bytes at least the next PDU still needs, as of the last [`Connection::receive`].
    #[must_use]
    pub fn hint(&self) -> usize {
        self.missing
    }

    /// Tasks that are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Bytes of the transfers that are under way.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.transfers.used
    }

    /// Whether it is logged in to a target. Until then, and for as long as it only discovers, what comes may name one.
    #[must_use]
    pub fn has_target(&self) -> bool {
        self.target().is_some()
    }

    /// The target that it is logged in to.
    #[must_use]
    pub fn target(&self) -> Option<u64> {
        self.target.filter(|_| !matches!(self.phase, Phase::Login(_)))
    }

    /// Whether the connection is over by agreement: close it when everything is sent.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }
}
