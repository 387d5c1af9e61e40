//! Sessions as bytes: a client that can say anything, against a connection with four exports.

mod handshake;
mod malformed;
mod mutation;
mod transmission;

use bytes::{Bytes, BytesMut};

use crate::{CloseReason, Connection, Export, Exports, Handle, Limits, NbdError, Request};

pub(crate) const SIZE: u64 = 1 << 20;
pub(crate) const HUGE: u64 = 1 << 63;

/// `disk` (1 MiB, default), `huge` (2^63 bytes), `frozen` (read-only, rotational), and any number of others.
pub(crate) struct Table {
    pub(crate) more: usize,
}

impl Exports for Table {
    fn find(&self, name: &str) -> Option<Export> {
        let export = |id, size, frozen| Export {
            id,
            size,
            read_only: frozen,
            rotational: frozen,
        };
        match name {
            "" | "disk" => Some(export(7, SIZE, false)),
            "huge" => Some(export(8, HUGE, false)),
            "frozen" => Some(export(9, SIZE, true)),
            _ => None,
        }
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let more = (0..self.more).map(|i| format!("more/{i:08}"));
        let all = ["disk", "huge", "frozen"].map(String::from).into_iter().chain(more);
        for name in all {
            if !each(&name) {
                return;
            }
        }
    }
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) input: BytesMut,
    pub(crate) requests: Vec<Request>,
    pub(crate) exports: Table,
}

impl Session {
    /// After the greeting, before the client flags.
    pub(crate) fn accepted() -> Session {
        Session::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Session {
        Session {
            connection: Connection::new(limits),
            input: BytesMut::new(),
            requests: Vec::new(),
            exports: Table { more: 0 },
        }
    }

    /// After client flags of 3.
    pub(crate) fn haggling() -> Session {
        let mut session = Session::accepted();
        assert_eq!(session.send(&[0, 0, 0, 3]), (Vec::new(), Ok(())));
        session
    }

    /// In transmission.
    pub(crate) fn open(limits: Limits, name: &str, structured: bool) -> Session {
        let mut session = Session::with(limits);
        session.send(&[0, 0, 0, 3]).1.unwrap();
        if structured {
            session.send(&option(8, b"")).1.unwrap();
        }
        session.send(&option(7, &query(name, &[]))).1.unwrap();
        assert!(session.connection.export().is_some());
        session
    }

    /// Sends bytes; returns what came back, and how `receive` ended.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> (Vec<u8>, Result<(), CloseReason>) {
        self.input.extend_from_slice(bytes);
        let mut out = Vec::new();
        let result = self
            .connection
            .receive(&mut self.input, &self.exports, &mut out, &mut self.requests);
        (out.concat(), result)
    }

    /// Sends bytes that are answered without any request.
    pub(crate) fn answer_to(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (answer, result) = self.send(bytes);
        assert_eq!(result, Ok(()));
        assert_eq!(self.requests, []);
        answer
    }

    /// Sends bytes that make one request.
    pub(crate) fn request(&mut self, bytes: &[u8]) -> Request {
        assert_eq!(self.send(bytes), (Vec::new(), Ok(())));
        assert_eq!(self.requests.len(), 1);
        self.requests.remove(0)
    }

    pub(crate) fn reply(&mut self, handle: Handle, result: Result<Vec<Bytes>, NbdError>) -> Vec<u8> {
        let mut out = Vec::new();
        self.connection.reply(handle, result, &mut out);
        out.concat()
    }
}

pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&b"IHAVEOPT"[..], &number.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// Data of INFO and GO.
pub(crate) fn query(name: &str, items: &[u16]) -> Vec<u8> {
    let length = u32::try_from(name.len()).unwrap().to_be_bytes();
    let count = u16::try_from(items.len()).unwrap().to_be_bytes();
    let items: Vec<u8> = items.iter().flat_map(|item| item.to_be_bytes()).collect();
    [&length[..], name.as_bytes(), &count, &items].concat()
}

/// One reply to an option.
pub(crate) fn rep(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let magic = [0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9];
    [
        &magic[..],
        &option.to_be_bytes(),
        &kind.to_be_bytes(),
        &length.to_be_bytes(),
        data,
    ]
    .concat()
}

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const ZERO: u16 = 6;
/// The cookie of every request that [`command`] makes.
pub(crate) const COOKIE: [u8; 8] = *b"cookie!!";

pub(crate) fn command(kind: u16, flags: u16, offset: u64, length: u32) -> Vec<u8> {
    let magic = [0x25, 0x60, 0x95, 0x13];
    let codes = [flags.to_be_bytes(), kind.to_be_bytes()].concat();
    [
        &magic[..],
        &codes,
        &COOKIE,
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn simple(error: u8) -> Vec<u8> {
    [&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, error][..], &COOKIE].concat()
}

/// One chunk, the last of its reply.
pub(crate) fn chunk(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [
        &[0x66, 0x8e, 0x33, 0xef, 0, 1][..],
        &kind.to_be_bytes(),
        &COOKIE,
        &length,
        payload,
    ]
    .concat()
}
