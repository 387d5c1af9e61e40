//! The handshake: client flags, then options until one of them chooses an export.
//!
//! Nothing is kept between options but what was negotiated. An option that breaks a rule gets an error reply and
//! the haggling goes on; only what makes the stream unreadable, or passes a limit, ends it.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::CloseReason;
use crate::export::{Export, Exports, MAX_BLOCK, MIN_BLOCK, PREFERRED_BLOCK};
use crate::limits::Limits;
use crate::wire::{self, info, option, rep};

/// Characters of an unknown name that are kept for the log.
const NAME_IN_REASON: usize = 64;
/// Bytes asked for at once while an option is skipped.
const SKIP_HINT: usize = 64 << 10;

/// Where a step left the handshake.
pub(crate) enum Step {
    /// Nothing to do before this many more bytes have come.
    Need(usize),
    /// Call again.
    Next,
    /// The transmission phase begins.
    Chosen { export: Export, structured: bool },
    /// The client said goodbye.
    Aborted,
}

#[derive(Clone, Copy, Debug)]
enum State {
    ClientFlags,
    Header,
    Data {
        option: u32,
        length: usize,
    },
    /// Data of an option that is too long.
    Skip {
        option: u32,
        left: usize,
    },
}

/// The handshake of one connection.
#[derive(Debug)]
pub(crate) struct Handshake {
    limits: Limits,
    state: State,
    fixed_newstyle: bool,
    no_zeroes: bool,
    structured: bool,
    options: u32,
    data_bytes: u32,
    listed: usize,
}

impl Handshake {
    pub(crate) fn new(limits: Limits) -> Handshake {
        Handshake {
            limits,
            state: State::ClientFlags,
            fixed_newstyle: false,
            no_zeroes: false,
            structured: false,
            options: 0,
            data_bytes: 0,
            listed: 0,
        }
    }

    /// Takes one message, or part of a skipped one, from `input`.
    pub(crate) fn step(
        &mut self,
        input: &mut BytesMut,
        exports: &dyn Exports,
        out: &mut Vec<Bytes>,
    ) -> Result<Step, CloseReason> {
        let need = match self.state {
            State::ClientFlags => wire::CLIENT_FLAGS_LEN,
            State::Header => wire::OPTION_HEADER_LEN,
            State::Data { length, .. } => length,
            State::Skip { option, left } => return Ok(self.skip(option, left, input, out)),
        };
        if input.len() < need {
            return Ok(Step::Need(need - input.len()));
        }
        let message = input.split_to(need);
        match self.state {
            State::ClientFlags => self.client_flags(&message),
            State::Header => self.header(&message),
            State::Data { option, .. } => self.option(option, &message, exports, out),
            State::Skip { .. } => Ok(Step::Next),
        }
    }

    fn client_flags(&mut self, mut message: &[u8]) -> Result<Step, CloseReason> {
        let flags = message.get_u32();
        if flags & !(wire::CLIENT_FIXED_NEWSTYLE | wire::CLIENT_NO_ZEROES) != 0 {
            return Err(CloseReason::ClientFlags { flags });
        }
        self.fixed_newstyle = flags & wire::CLIENT_FIXED_NEWSTYLE != 0;
        self.no_zeroes = flags & wire::CLIENT_NO_ZEROES != 0;
        self.state = State::Header;
        Ok(Step::Next)
    }

    fn header(&mut self, mut message: &[u8]) -> Result<Step, CloseReason> {
        self.options += 1;
        let magic = message.get_u64();
        if magic != wire::OPTION_MAGIC {
            return Err(CloseReason::OptionMagic {
                magic,
                index: self.options,
            });
        }
        let option = message.get_u32();
        let length = message.get_u32();
        self.check_limits(option, length)?;
        self.data_bytes += length;
        let bytes = length as usize; // u32 fits usize on every platform with 32 MiB payloads
        self.state = if length > self.limits.option_bytes {
            State::Skip { option, left: bytes }
        } else {
            State::Data { option, length: bytes }
        };
        Ok(Step::Next)
    }

    fn check_limits(&self, option: u32, length: u32) -> Result<(), CloseReason> {
        if self.options > self.limits.options {
            return Err(CloseReason::TooManyOptions {
                limit: self.limits.options,
            });
        }
        if option != option::EXPORT_NAME && !self.fixed_newstyle {
            return Err(CloseReason::NotFixedNewstyle { option });
        }
        if option == option::EXPORT_NAME && length > self.limits.option_bytes {
            return Err(CloseReason::NameTooLong {
                length,
                limit: self.limits.option_bytes,
            });
        }
        let limit = self.limits.handshake_bytes;
        if length > limit.saturating_sub(self.data_bytes) {
            return Err(CloseReason::TooMuchOptionData { option, length, limit });
        }
        Ok(())
    }

    fn skip(&mut self, option: u32, left: usize, input: &mut BytesMut, out: &mut Vec<Bytes>) -> Step {
        let taken = left.min(input.len());
        input.advance(taken);
        let left = left - taken;
        if left > 0 {
            self.state = State::Skip { option, left };
            return Step::Need(left.min(SKIP_HINT));
        }
        self.state = State::Header;
        let mut answer = Answer::new(option);
        answer.error(rep::ERR_TOO_BIG, "option data over the limit");
        answer.send(out);
        Step::Next
    }

    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<Bytes>,
    ) -> Result<Step, CloseReason> {
        self.state = State::Header;
        if option == option::EXPORT_NAME {
            return self.export_name(data, exports, out);
        }
        let mut answer = Answer::new(option);
        let step = match option {
            option::ABORT => {
                answer.reply(rep::ACK, &[]);
                Step::Aborted
            }
            option::LIST => self.list(data, exports, &mut answer),
            option::INFO | option::GO => self.info(option, data, exports, &mut answer),
            option::STRUCTURED_REPLY => self.structured_reply(data, &mut answer),
            _ => {
                answer.error(rep::ERR_UNSUP, "option not supported");
                Step::Next
            }
        };
        answer.send(out);
        Ok(step)
    }

    /// The old way to choose: no error reply exists, so an unknown name closes the connection.
    fn export_name(&self, data: &[u8], exports: &dyn Exports, out: &mut Vec<Bytes>) -> Result<Step, CloseReason> {
        let found = name_of(data).and_then(|name| exports.find(name));
        let export = found.ok_or_else(|| CloseReason::UnknownExport { name: for_reason(data) })?;
        let mut answer = Vec::with_capacity(10 + wire::EXPORT_NAME_PADDING);
        answer.extend_from_slice(&export.size.to_be_bytes());
        answer.extend_from_slice(&export.flags(self.structured).to_be_bytes());
        if !self.no_zeroes {
            answer.resize(answer.len() + wire::EXPORT_NAME_PADDING, 0);
        }
        out.push(Bytes::from(answer));
        Ok(Step::Chosen {
            export,
            structured: self.structured,
        })
    }

    fn structured_reply(&mut self, data: &[u8], answer: &mut Answer) -> Step {
        if data.is_empty() {
            self.structured = true;
            answer.reply(rep::ACK, &[]);
        } else {
            answer.error(rep::ERR_INVALID, "STRUCTURED_REPLY takes no data");
        }
        Step::Next
    }

    fn list(&mut self, data: &[u8], exports: &dyn Exports, answer: &mut Answer) -> Step {
        if !data.is_empty() {
            answer.error(rep::ERR_INVALID, "LIST takes no data");
            return Step::Next;
        }
        let budget = self.limits.list_bytes.saturating_sub(self.listed);
        let mut complete = true;
        exports.names(&mut |name| {
            let size = wire::OPTION_REPLY_HEADER_LEN + 4 + name.len();
            complete = answer.bytes.len() + size <= budget;
            // A name that no client could ask for is not worth telling.
            if complete && name.len() <= wire::MAX_STRING {
                answer.server(name);
            }
            complete
        });
        self.listed += answer.bytes.len();
        if complete {
            answer.reply(rep::ACK, &[]);
        } else {
            answer.error(rep::ERR_TOO_BIG, "more exports than one connection may list");
        }
        Step::Next
    }

    fn info(&mut self, option: u32, data: &[u8], exports: &dyn Exports, answer: &mut Answer) -> Step {
        let Some(query) = InfoQuery::decode(data) else {
            answer.error(rep::ERR_INVALID, "lengths in the request do not add up");
            return Step::Next;
        };
        let Some(name) = name_of(query.name) else {
            answer.error(rep::ERR_INVALID, "export name is not valid UTF-8");
            return Step::Next;
        };
        let Some(export) = exports.find(name) else {
            answer.error(rep::ERR_UNKNOWN, "no such export");
            return Step::Next;
        };
        answer.export(&export, self.structured);
        answer.block_size();
        if query.wants_name {
            answer.name(name);
        }
        answer.reply(rep::ACK, &[]);
        if option == option::INFO {
            return Step::Next;
        }
        Step::Chosen {
            export,
            structured: self.structured,
        }
    }
}

/// Data of INFO and GO.
struct InfoQuery<'a> {
    name: &'a [u8],
    wants_name: bool,
}

impl InfoQuery<'_> {
    /// `None` if the lengths within do not add up to the length of the data.
    fn decode(data: &[u8]) -> Option<InfoQuery<'_>> {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (name, rest) = rest.split_at_checked(length)?;
        let (count, items) = rest.split_first_chunk::<2>()?;
        if items.len() != 2 * usize::from(u16::from_be_bytes(*count)) {
            return None;
        }
        let wants_name = items.chunks_exact(2).any(|item| item == info::NAME.to_be_bytes());
        Some(InfoQuery { name, wants_name })
    }
}

/// A name that may be looked up: UTF-8 without NUL, within the length of a string.
fn name_of(bytes: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(bytes).ok()?;
    (name.len() <= wire::MAX_STRING && !name.contains('\0')).then_some(name)
}

fn for_reason(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).chars().take(NAME_IN_REASON).collect()
}

/// The replies to one option, sent as one piece.
struct Answer {
    option: u32,
    bytes: Vec<u8>,
}

impl Answer {
    fn new(option: u32) -> Answer {
        Answer {
            option,
            bytes: Vec::new(),
        }
    }

    fn send(self, out: &mut Vec<Bytes>) {
        out.push(Bytes::from(self.bytes));
    }

    /// One reply whose data is the concatenation of `parts`, each far below 4 GiB.
    fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).expect("replies hold at most one string and some numbers");
        self.bytes.extend_from_slice(&wire::OPTION_REPLY_MAGIC.to_be_bytes());
        self.bytes.extend_from_slice(&self.option.to_be_bytes());
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    fn error(&mut self, kind: u32, text: &'static str) {
        self.reply(kind, &[text.as_bytes()]);
    }

    fn server(&mut self, name: &str) {
        let length = u32::try_from(name.len()).expect("names are at most 4096 bytes");
        self.reply(rep::SERVER, &[&length.to_be_bytes(), name.as_bytes()]);
    }

    fn name(&mut self, name: &str) {
        self.reply(rep::INFO, &[&info::NAME.to_be_bytes(), name.as_bytes()]);
    }

    fn export(&mut self, export: &Export, structured: bool) {
        let (size, flags) = (export.size.to_be_bytes(), export.flags(structured).to_be_bytes());
        self.reply(rep::INFO, &[&info::EXPORT.to_be_bytes(), &size, &flags]);
    }

    fn block_size(&mut self) {
        let [min, preferred, max] = [MIN_BLOCK, PREFERRED_BLOCK, MAX_BLOCK].map(u32::to_be_bytes);
        self.reply(rep::INFO, &[&info::BLOCK_SIZE.to_be_bytes(), &min, &preferred, &max]);
    }
}
