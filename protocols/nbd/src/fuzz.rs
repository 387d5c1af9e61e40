//! The entry for fuzzers: arbitrary bytes against a connection, with the promises of this crate as assertions.
//!
//! The same bytes are fed in two different splits; what reaches the storage must not depend on the split.

use bytes::{Bytes, BytesMut};

use crate::{CloseReason, Command, Connection, Export, Exports, Limits, NbdError, Request};

/// Size of the only export, bytes.
const SIZE: u64 = 1 << 20;
/// Data of every read.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

struct OneDisk;

impl Exports for OneDisk {
    fn find(&self, name: &str) -> Option<Export> {
        let export = Export {
            id: 1,
            size: SIZE,
            read_only: false,
            rotational: false,
        };
        (name == "disk" || name.is_empty()).then_some(export)
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        each("disk");
    }
}

/// Feeds `data` to a connection, whole and split, from the handshake and from the start of transmission.
///
/// # Panics
/// If the connection breaks a promise. That is what a fuzzer looks for.
pub fn fuzz(data: &[u8]) {
    let step = 1 + usize::from(data.first().copied().unwrap_or(0));
    for prefix in [&b""[..], SIMPLE, STRUCTURED] {
        let whole = run(prefix, data, data.len().max(1));
        let split = run(prefix, data, step);
        assert_eq!(whole, split, "the split of the input changed its meaning");
    }
}

/// Client flags and GO of the default export.
const SIMPLE: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0";
/// The same with STRUCTURED_REPLY before.
const STRUCTURED: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x08\0\0\0\0IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0";

/// What must not depend on how the input was split.
#[derive(Debug, PartialEq)]
struct Seen {
    commands: Vec<Command>,
    end: Result<(), CloseReason>,
    finished: bool,
}

fn run(prefix: &[u8], data: &[u8], step: usize) -> Seen {
    let limits = Limits {
        requests: 4,
        bytes: 1 << 20,
        ..Limits::default()
    };
    let mut session = Session::new(limits);
    session.feed(prefix);
    for piece in data.chunks(step) {
        session.feed(piece);
    }
    session.check_output(prefix.len() + data.len(), &limits);
    Seen {
        finished: session.connection.is_finished(),
        commands: session.commands,
        end: session.end,
    }
}

struct Session {
    connection: Connection,
    input: BytesMut,
    commands: Vec<Command>,
    end: Result<(), CloseReason>,
    sent: usize,
    asked: usize,
}

impl Session {
    fn new(limits: Limits) -> Session {
        let connection = Connection::new(limits);
        Session {
            connection,
            input: BytesMut::new(),
            commands: Vec::new(),
            end: Ok(()),
            sent: 0,
            asked: 0,
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        let (mut out, mut requests) = (Vec::new(), Vec::new());
        while self.end.is_ok() {
            let before = self.input.len();
            self.end = self
                .connection
                .receive(&mut self.input, &OneDisk, &mut out, &mut requests);
            assert!(self.connection.hint() <= crate::MAX_PAYLOAD as usize);
            if requests.is_empty() && self.input.len() == before {
                break;
            }
            requests.drain(..).for_each(|request| self.answer(request, &mut out));
        }
        self.sent += out.iter().map(Bytes::len).sum::<usize>();
    }

    fn answer(&mut self, request: Request, out: &mut Vec<Bytes>) {
        let result = match &request.command {
            Command::Read { offset, len } => {
                assert!(offset + u64::from(*len) <= SIZE);
                self.asked += *len as usize;
                Ok(zeroes(*len as usize))
            }
            Command::Flush => Err(NbdError::Io),
            _ => Ok(Vec::new()),
        };
        self.connection.reply(request.handle, result, out);
        self.commands.push(request.command);
    }

    /// The longest answers to the shortest questions: EXPORT_NAME with padding once, else about 8 bytes per byte.
    fn check_output(&self, received: usize, limits: &Limits) {
        let bound = 256 + 8 * received + limits.list_bytes + self.asked;
        assert!(self.sent <= bound, "{} bytes sent for {received}", self.sent);
        assert_eq!(self.connection.in_flight().requests, 0);
    }
}

fn zeroes(length: usize) -> Vec<Bytes> {
    let whole = Bytes::from_static(&ZEROES);
    let full = std::iter::repeat_n(whole.clone(), length / ZEROES.len());
    full.chain([whole.slice(..length % ZEROES.len())]).collect()
}
