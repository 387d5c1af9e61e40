//! NBD sessions: [`trivet_nbd`]'s connection on one side, the context on the other.
//!
//! Every image is an export; its name is its path in the tree, without a leading slash. The session answers what needs
//! no storage by itself: writes are durable when they are answered, so a flush has nothing left to do, and FUA
//! nothing to add. An image that was removed fails its requests: a late write must not bring its objects back. One that
//! became smaller fails those beyond its end; one that became larger shows it to those who open it anew.
//!
//! Storage is never reserved: zeroes written with NO_HOLE free space like all others.
//!
//! While [`Connection::is_full`], `receive` leaves requests in the input: the caller offers it again after
//! [`Session::finished`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trivet_client::{ImageOp, IoError};
use trivet_core::{ImageId, Now};
use trivet_namespace::Namespace;
use trivet_nbd::{Command, Connection, Export, Exports, Handle, Limits, NbdError, Request};

use crate::block::{BlockDevices, Commands, Completed, fits};
use crate::options::mutant;
use crate::session::{Ending, Finished, InFlight, Session, SessionContext, Ticket};

/// The handshake must be over by then.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The time of modification moves no more often.
const TOUCH_EVERY: Duration = Duration::from_secs(1);

/// One NBD client.
#[derive(Debug)]
pub struct NbdSession {
    connection: Connection,
    accepted: Now,
    commands: Commands<Handle>,
    touch: Touch,
    /// Requests of one `receive`, kept for its memory.
    requests: Vec<Request>,
}

impl NbdSession {
    /// A connection accepted at `now`.
    #[must_use]
    pub fn new(now: Now) -> NbdSession {
        NbdSession {
            connection: Connection::new(Limits::default()),
            accepted: now,
            commands: Commands::new(),
            touch: Touch::default(),
            requests: Vec::new(),
        }
    }

    fn submit(&mut self, request: Request, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        let Request {
            handle,
            export,
            command,
        } = request;
        let image = ImageId(export);
        let Some(size) = BlockDevices(context.namespace).size(image) else {
            return self.connection.reply(handle, Err(NbdError::Io), out);
        };
        let beyond = beyond_the_end(&command);
        let Some(op) = operation(command) else {
            return self.connection.reply(handle, Ok(Vec::new()), out);
        };
        // It may have become smaller since the export was opened.
        if !fits(&op, size) && !mutant!(context.options, WriteBeyondEnd) {
            return self.connection.reply(handle, Err(beyond), out);
        }
        self.commands.start(handle, image, op, context);
    }

    /// `Err` once the client has left and everything is answered.
    fn check_finished(&mut self, context: &mut SessionContext<'_>) -> Result<(), Ending> {
        if !self.connection.is_finished() {
            return Ok(());
        }
        self.touch.flush(context);
        Err(Ending::Graceful)
    }
}

impl Session for NbdSession {
    fn start(&mut self, _: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        self.connection.start(out);
    }

    fn receive(
        &mut self,
        input: &mut BytesMut,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        let mut requests = std::mem::take(&mut self.requests);
        let result = loop {
            let received = self
                .connection
                .receive(input, &Tree(context.namespace), out, &mut requests);
            let was_full = self.connection.is_full();
            requests
                .drain(..)
                .for_each(|request| self.submit(request, context, out));
            // Requests answered at once have made room for more.
            if received.is_err() || !was_full || self.connection.is_full() {
                break received;
            }
        };
        self.requests = requests;
        result.map_err(|reason| Ending::Fault(reason.to_string()))?;
        self.check_finished(context)
    }

    fn finished(
        &mut self,
        ticket: Ticket,
        result: Finished,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        let Completed { name, result, changed } = self.commands.complete(ticket, result);
        if let Some(image) = changed {
            self.touch.written(image, context);
        }
        self.connection.reply(name, result.map_err(nbd_error), out);
        self.check_finished(context)
    }

    fn tick(&mut self, context: &mut SessionContext<'_>, _: &mut Vec<Bytes>) -> Result<(), Ending> {
        if self.connection.export().is_none() && context.now.since(self.accepted) >= HANDSHAKE_DEADLINE {
            return Err(Ending::Fault("handshake: not over after 10 s".to_owned()));
        }
        self.touch.flush(context);
        Ok(())
    }

    fn opens(&self) -> bool {
        self.connection.export().is_none()
    }

    fn open_image(&self) -> Option<ImageId> {
        self.connection.export().map(|export| ImageId(export.id))
    }

    fn hint(&self) -> usize {
        self.connection.hint()
    }

    fn in_flight(&self) -> InFlight {
        let under_way = self.connection.in_flight();
        let bytes = usize::try_from(under_way.bytes).unwrap_or(usize::MAX);
        InFlight {
            requests: under_way.requests,
            bytes,
        }
    }
}

/// What a command that does not end within the image is answered with: the errors that the specification names for what
/// lies beyond the device.
fn beyond_the_end(command: &Command) -> NbdError {
    match command {
        Command::Write { .. } | Command::Zero { .. } => NbdError::NoSpace,
        Command::Read { .. } | Command::Trim { .. } | Command::Flush => NbdError::Invalid,
    }
}

/// What the storage has to do for a command, if anything.
fn operation(command: Command) -> Option<ImageOp> {
    match command {
        Command::Read { offset, len } => Some(ImageOp::Read {
            offset,
            len: u64::from(len),
        }),
        Command::Write { offset, data, .. } => Some(ImageOp::Write {
            offset,
            data: vec![data],
        }),
        Command::Trim { offset, len, .. } | Command::Zero { offset, len, .. } => Some(ImageOp::Zero {
            offset,
            len: u64::from(len),
        }),
        Command::Flush => None,
    }
}

fn nbd_error(error: IoError) -> NbdError {
    match error {
        IoError::NoSpace => NbdError::NoSpace,
        IoError::Damaged | IoError::NoPool => NbdError::Io,
    }
}

/// Moves an image's time of modification, at most once per [`TOUCH_EVERY`].
#[derive(Debug, Default)]
struct Touch {
    last: Option<Now>,
    dirty: Option<ImageId>,
}

impl Touch {
    fn written(&mut self, image: ImageId, context: &mut SessionContext<'_>) {
        self.dirty = Some(image);
        if self.last.is_none_or(|last| context.now.since(last) >= TOUCH_EVERY) {
            self.flush(context);
        }
    }

    fn flush(&mut self, context: &mut SessionContext<'_>) {
        if let Some(image) = self.dirty.take() {
            context.touch(image);
            self.last = Some(context.now);
        }
    }
}

/// The tree of names as a list of exports.
struct Tree<'a>(&'a Namespace);

impl Exports for Tree<'_> {
    fn find(&self, name: &str) -> Option<Export> {
        let (image, size) = BlockDevices(self.0).find(name.as_bytes())?;
        Some(Export {
            id: image.0,
            size,
            read_only: false,
            rotational: false,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        // Names that are not UTF-8 cannot be exports (NBD protocol, "String values").
        let paths = self.0.files().filter_map(|(path, _)| String::from_utf8(path).ok());
        for path in paths {
            if !each(&path) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::session::{Request as Asked, Space};
    use trivet_core::PoolId;
    use trivet_namespace::Time;

    /// Client flags and GO of `vm`.
    const HELLO: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x08\0\0\0\x02vm\0\0";
    const SIZE: u64 = 1 << 20;

    struct Gateway {
        namespace: Namespace,
        session: NbdSession,
        now: Now,
        next_ticket: u64,
        asked: Vec<(Ticket, Asked)>,
        out: Vec<Bytes>,
    }

    impl Gateway {
        fn new() -> Gateway {
            let namespace = namespace();
            let session = NbdSession::new(Now(0));
            Gateway {
                namespace,
                session,
                now: Now(0),
                next_ticket: 1,
                asked: Vec::new(),
                out: Vec::new(),
            }
        }

        fn opened() -> Gateway {
            let mut gateway = Gateway::new();
            gateway.send(HELLO).unwrap();
            gateway.out.clear();
            gateway
        }

        fn with<R>(&mut self, act: impl FnOnce(&mut NbdSession, &mut SessionContext<'_>, &mut Vec<Bytes>) -> R) -> R {
            let mut context = SessionContext {
                now: self.now,
                wall: Time::default(),
                namespace: &self.namespace,
                local: ([127, 0, 0, 1], 10809).into(),
                space: Space::default(),
                touched: &BTreeMap::new(),
                freshness: &crate::fresh::Freshness::always(),
                options: crate::options::Options::default(),
                requests: &mut self.asked,
                next_ticket: &mut self.next_ticket,
            };
            act(&mut self.session, &mut context, &mut self.out)
        }

        fn send(&mut self, bytes: &[u8]) -> Result<(), Ending> {
            let mut input = BytesMut::from(bytes);
            self.with(|session, context, out| session.receive(&mut input, context, out))
        }

        /// Sends a request and takes what it asks of the storage.
        fn asks(&mut self, bytes: &[u8]) -> (Ticket, ImageOp) {
            self.send(bytes).unwrap();
            match self.asked.remove(0) {
                (ticket, Asked::Io { image, op }) => {
                    assert_eq!(image, vm());
                    (ticket, op)
                }
                other => panic!("{other:?}"),
            }
        }

        fn finish(&mut self, ticket: Ticket, result: Result<Vec<Bytes>, IoError>) -> Result<(), Ending> {
            self.with(|session, context, out| session.finished(ticket, Finished::Io(result, None), context, out))
        }

        fn sent(&mut self) -> Vec<u8> {
            std::mem::take(&mut self.out).concat()
        }

        fn touches(&mut self) -> usize {
            let count = self.asked.len();
            assert!(
                self.asked
                    .drain(..)
                    .all(|(_, asked)| matches!(asked, Asked::Touch { .. }))
            );
            count
        }
    }

    fn vm() -> ImageId {
        ImageId::new(PoolId(1), 7)
    }

    fn namespace() -> Namespace {
        crate::test_tree::with_image("vm", vm(), SIZE)
    }

    fn command(kind: u16, offset: u64, length: u32) -> Vec<u8> {
        let head = [&[0x25, 0x60, 0x95, 0x13, 0, 0][..], &kind.to_be_bytes(), b"cookie!!"].concat();
        [&head[..], &offset.to_be_bytes(), &length.to_be_bytes()].concat()
    }

    fn simple(error: u8) -> Vec<u8> {
        [&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, error][..], b"cookie!!"].concat()
    }

    #[test]
    fn commands_become_operations() {
        let data = Bytes::from_static(b"data");
        let zero = ImageOp::Zero {
            offset: 4096,
            len: 8192,
        };
        let write = [&command(1, 512, 4)[..], b"data"].concat();
        for (bytes, op, result, answer) in [
            (
                command(0, 8, 4),
                ImageOp::Read { offset: 8, len: 4 },
                vec![data.clone()],
                &b"data"[..],
            ),
            (
                write,
                ImageOp::Write {
                    offset: 512,
                    data: vec![data.clone()],
                },
                Vec::new(),
                b"",
            ),
            (command(4, 4096, 8192), zero.clone(), Vec::new(), b""),
            (command(6, 4096, 8192), zero, Vec::new(), b""),
        ] {
            let mut gateway = Gateway::opened();
            let (ticket, asked) = gateway.asks(&bytes);
            assert_eq!(asked, op);
            assert_eq!(gateway.session.in_flight().requests, 1);
            gateway.finish(ticket, Ok(result)).unwrap();
            assert_eq!(gateway.sent(), [&simple(0)[..], answer].concat());
        }
    }

    #[test]
    fn a_flush_has_nothing_left_to_do() {
        let mut gateway = Gateway::opened();
        gateway.send(&command(3, 0, 0).repeat(1000)).unwrap();
        assert_eq!(gateway.sent(), simple(0).repeat(1000));
        assert!(gateway.asked.is_empty());
    }

    #[test]
    fn errors_are_told() {
        for (error, code) in [(IoError::NoSpace, 28), (IoError::Damaged, 5), (IoError::NoPool, 5)] {
            let mut gateway = Gateway::opened();
            let (ticket, _) = gateway.asks(&command(4, 0, 512));
            gateway.finish(ticket, Err(error)).unwrap();
            assert_eq!(gateway.sent(), simple(code));
            assert_eq!(gateway.touches(), 0);
        }
    }

    #[test]
    fn a_removed_image_fails_its_requests() {
        let mut gateway = Gateway::opened();
        gateway.namespace = Namespace::default();
        gateway.send(&command(0, 0, 512)).unwrap();
        assert_eq!(gateway.sent(), simple(5));
        assert!(gateway.asked.is_empty());
    }

    #[test]
    fn a_smaller_image_fails_requests_beyond_its_end() {
        let mut gateway = Gateway::opened();
        gateway.namespace = crate::test_tree::with_image("vm", vm(), 8192);
        let write = |offset| [&command(1, offset, 4)[..], b"data"].concat();
        // EINVAL and ENOSPC, as the specification has it.
        for (bytes, code) in [
            (command(0, 8192, 1), 22),
            (command(0, 8191, 2), 22),
            (command(4, 4096, 8192), 22),
            (command(6, 4096, 8192), 28),
            (write(8190), 28),
        ] {
            gateway.send(&bytes).unwrap();
            assert_eq!(gateway.sent(), simple(code));
            assert!(gateway.asked.is_empty());
        }
        for bytes in [command(0, 8191, 1), command(4, 0, 8192), write(8188)] {
            gateway.asks(&bytes);
        }
        // What is larger again, beyond what the client was told, is not shown to it.
        gateway.namespace = crate::test_tree::with_image("vm", vm(), 2 * SIZE);
        gateway.asks(&command(0, SIZE - 1, 1));
        gateway.send(&command(0, SIZE, 1)).unwrap();
        assert_eq!(gateway.sent(), simple(22));
    }

    #[test]
    fn writes_touch_at_most_once_a_second_and_none_is_lost() {
        let mut gateway = Gateway::opened();
        let mut touches = Vec::new();
        for millis in [0, 10, 500, 1000, 1100] {
            gateway.now = Now(millis * 1_000_000);
            let (ticket, _) = gateway.asks(&command(6, 0, 512));
            gateway.finish(ticket, Ok(Vec::new())).unwrap();
            touches.push(gateway.touches());
        }
        assert_eq!(touches, [1, 0, 0, 1, 0]);
        let disc = command(2, 0, 0);
        assert_eq!(gateway.send(&disc), Err(Ending::Graceful));
        assert_eq!(gateway.touches(), 1);
    }

    #[test]
    fn a_goodbye_waits_for_answers() {
        let mut gateway = Gateway::opened();
        let (ticket, _) = gateway.asks(&command(0, 0, 1));
        gateway.send(&command(2, 0, 0)).unwrap();
        let end = gateway.finish(ticket, Ok(vec![Bytes::from_static(b"x")]));
        assert_eq!((end, gateway.sent().len()), (Err(Ending::Graceful), 17));
    }

    #[test]
    fn faults_and_slow_handshakes_end() {
        let mut gateway = Gateway::opened();
        let fault = gateway.send(&[0; 28]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "transmission: request 1 starts with 0x00000000 instead of 0x25609513"
        );
        for (opened, fine) in [(Gateway::opened(), true), (Gateway::new(), false)] {
            let mut gateway = opened;
            for (nanos, fine) in [(9_999_999_999, true), (10_000_000_000, fine)] {
                gateway.now = Now(nanos);
                let result = gateway.with(|session, context, out| session.tick(context, out));
                assert_eq!(result.is_ok(), fine);
            }
        }
    }
}
