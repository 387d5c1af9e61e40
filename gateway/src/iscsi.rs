//! iSCSI sessions: [`trivet_iscsi`]'s connection on one side, the context on the other.
//!
//! Every image is LUN 0 of a target named after its path, `/` written as `:`. Images whose paths cannot be told apart that
//! way, or are no iSCSI names, are no targets. A removed image's unit is gone: its commands fail. Writes are durable when they
//! are answered, so SYNCHRONIZE CACHE has nothing left to do, and FUA nothing to add; zeroes always free space.
//!
//! Not here yet: an older session of the same initiator is not closed by a new one, and a reset does not reach the target's
//! other sessions; sessions do not know of each other.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use trivet_client::{ImageOp, IoError};
use trivet_core::{ImageId, Now};
use trivet_iscsi::{Action, BackendError, BackendOp, Connection, Tag, TargetInfo, Targets, Unit};

use crate::block::{BlockDevices, Commands, Completed, fits};
use crate::session::{Ending, Finished, InFlight, Session, SessionContext, Ticket};

/// What every target's name begins with.
const NAME: &str = "iqn.2026-11.io.trivet:";
/// Longest iSCSI name (RFC 7143 4.2.7.1).
const MAX_NAME: usize = 223;
/// The portal group of every gateway: any of them serves any target.
const PORTAL_GROUP: u16 = 1;

/// One iSCSI initiator.
#[derive(Debug)]
pub struct IscsiSession {
    connection: Connection,
    cluster: u64,
    commands: Commands<Tag>,
    /// Actions of one call, kept for their memory.
    actions: Vec<Action>,
}

impl IscsiSession {
    /// A connection accepted at `now`; `number` tells it from others, `cluster` is the cluster's number, which takes part in
    /// the units' names.
    #[must_use]
    pub fn new(now: Now, number: u64, cluster: u64) -> IscsiSession {
        // The session's handle: any number but zero.
        let handle = u16::try_from(number % u64::from(u16::MAX)).map_or(1, |rest| rest + 1);
        IscsiSession {
            connection: Connection::new(millis(now), handle),
            cluster,
            commands: Commands::new(),
            actions: Vec::new(),
        }
    }

    /// Takes input and does what the connection asks for, until it asks for nothing more.
    fn advance(
        &mut self,
        input: &mut BytesMut,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        loop {
            let tree = Tree::new(context, self.cluster);
            let result = self
                .connection
                .receive(millis(context.now), input, &tree, out, &mut self.actions);
            let admitted = self.act(context, out);
            result.map_err(|reason| Ending::Fault(reason.to_string()))?;
            if !admitted {
                return self.check_finished();
            }
        }
    }

    /// Takes the actions; whether the connection was admitted, and takes input again.
    fn act(&mut self, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) -> bool {
        let mut admitted = false;
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Io { tag, image, op } => self.submit(tag, ImageId(image), op, context, out),
                    Action::Established { .. } => {
                        self.connection.admit(out);
                        admitted = true;
                    }
                    Action::Reset { .. } => {}
                }
            }
        }
        admitted
    }

    fn submit(
        &mut self,
        tag: Tag,
        image: ImageId,
        op: BackendOp,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) {
        let Some(op) = operation(op) else {
            return self.answer(tag, Ok(Vec::new()), context, out);
        };
        // A command was checked when it came; its data may have come after the image became smaller.
        match BlockDevices(context.namespace).size(image) {
            Some(size) if fits(&op, size) => self.commands.start(tag, image, op, context),
            Some(_) => self.answer(tag, Err(BackendError::OutOfRange), context, out),
            None => self.answer(tag, Err(BackendError::Gone), context, out),
        }
    }

    fn answer(
        &mut self,
        tag: Tag,
        result: Result<Vec<Bytes>, BackendError>,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) {
        let tree = Tree::new(context, self.cluster);
        self.connection.finished(tag, result, &tree, out, &mut self.actions);
    }

    /// `Err` once the initiator has logged out.
    fn check_finished(&self) -> Result<(), Ending> {
        if self.connection.is_finished() {
            Err(Ending::Graceful)
        } else {
            Ok(())
        }
    }
}

impl Session for IscsiSession {
    fn start(&mut self, _: &mut SessionContext<'_>, _: &mut Vec<Bytes>) {}

    fn receive(
        &mut self,
        input: &mut BytesMut,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        self.advance(input, context, out)
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
            context.touch(image);
        }
        self.answer(name, result.map_err(scsi_error), context, out);
        self.act(context, out);
        self.check_finished()
    }

    fn tick(&mut self, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) -> Result<(), Ending> {
        self.connection
            .tick(millis(context.now), out)
            .map_err(|reason| Ending::Fault(reason.to_string()))
    }

    /// Until it is logged in to a target. Discovery only asks for names.
    fn opens(&self) -> bool {
        !self.connection.has_target()
    }

    fn open_image(&self) -> Option<ImageId> {
        self.connection.target().map(ImageId)
    }

    fn hint(&self) -> usize {
        self.connection.hint()
    }

    fn held(&self) -> usize {
        usize::try_from(self.connection.in_flight_bytes()).unwrap_or(usize::MAX)
    }

    /// Commands only: the connection bounds their bytes itself (by its window and the transfers it asks for), and must be read
    /// from while there is memory, for pings are answered though the storage stalls.
    fn in_flight(&self) -> InFlight {
        InFlight {
            requests: self.connection.in_flight(),
            bytes: 0,
        }
    }
}

fn millis(now: Now) -> u64 {
    now.0 / 1_000_000
}

/// What the storage has to do for an operation, if anything.
fn operation(op: BackendOp) -> Option<ImageOp> {
    match op {
        BackendOp::Read { offset, len } => Some(ImageOp::Read {
            offset,
            len: u64::from(len),
        }),
        BackendOp::Write { offset, data, .. } => Some(ImageOp::Write { offset, data }),
        BackendOp::Zero { offset, len, .. } => Some(ImageOp::Zero { offset, len }),
        BackendOp::Flush => None,
    }
}

fn scsi_error(error: IoError) -> BackendError {
    match error {
        IoError::NoSpace => BackendError::NoSpace,
        IoError::Damaged | IoError::NoPool => BackendError::Io,
    }
}

/// The tree of names as targets.
struct Tree<'a> {
    devices: BlockDevices<'a>,
    local: SocketAddr,
    cluster: u64,
}

impl<'a> Tree<'a> {
    fn new(context: &SessionContext<'a>, cluster: u64) -> Tree<'a> {
        Tree {
            devices: BlockDevices(context.namespace),
            local: context.local,
            cluster,
        }
    }
}

impl Targets for Tree<'_> {
    fn find(&self, iqn: &str) -> Option<TargetInfo> {
        let path = iqn.strip_prefix(NAME)?.replace(':', "/");
        let (image, _) = self.devices.find(path.as_bytes())?;
        Some(TargetInfo { id: image.0 })
    }

    fn each(&self, f: &mut dyn FnMut(&str)) {
        for (path, _) in self.devices.0.files() {
            if let Some(name) = target_name(&path) {
                f(&name);
            }
        }
    }

    fn portal(&self) -> String {
        let address = SocketAddr::new(self.local.ip().to_canonical(), self.local.port());
        format!("{address},{PORTAL_GROUP}")
    }

    fn unit(&self, target: u64, lun: u64) -> Option<Unit> {
        let size = self.devices.size(ImageId(target)).filter(|_| lun == 0)?;
        Some(Unit {
            image: target,
            cluster: self.cluster,
            size,
            read_only: false,
        })
    }

    fn luns(&self, _: u64) -> Vec<u64> {
        vec![0]
    }
}

/// The name of the target of the image at `path`, if it can have one: visible ASCII, from which the path can be read back.
fn target_name(path: &[u8]) -> Option<String> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let plain = path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':');
    let path = std::str::from_utf8(path).ok().filter(|_| plain)?;
    let name = format!("{NAME}{}", path.replace('/', ":"));
    (name.len() <= MAX_NAME).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::session::{Request as Asked, Space};
    use trivet_core::PoolId;
    use trivet_namespace::{Namespace, Time};

    const SIZE: u64 = 1 << 20;

    struct Gateway {
        namespace: Namespace,
        session: IscsiSession,
        asked: Vec<(Ticket, Asked)>,
        out: Vec<Bytes>,
        next_ticket: u64,
    }

    impl Gateway {
        fn new() -> Gateway {
            let namespace = crate::test_tree::with_image("vm", image(), SIZE);
            let session = IscsiSession::new(Now(0), 7, 1);
            Gateway {
                namespace,
                session,
                asked: Vec::new(),
                out: Vec::new(),
                next_ticket: 1,
            }
        }

        /// Logged in to `vm`, its unit attention taken.
        fn opened() -> Gateway {
            let mut gateway = Gateway::new();
            let login = login("InitiatorName=i\0TargetName=iqn.2026-11.io.trivet:vm\0");
            // A command right behind the login is taken after it.
            gateway.send(&[login, command(1, &[0; 6], 0, &[])].concat()).unwrap();
            assert_eq!(gateway.opcodes(), [0x23, 0x21]);
            gateway
        }

        fn with<R>(&mut self, act: impl FnOnce(&mut IscsiSession, &mut SessionContext<'_>, &mut Vec<Bytes>) -> R) -> R {
            let mut context = SessionContext {
                now: Now(0),
                wall: Time::default(),
                namespace: &self.namespace,
                local: "[::ffff:10.0.0.1]:3260".parse().unwrap(),
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

        fn finish(&mut self, ticket: Ticket, result: Result<Vec<Bytes>, IoError>) -> Result<(), Ending> {
            self.with(|session, context, out| session.finished(ticket, Finished::Io(result, None), context, out))
        }

        fn asks(&mut self) -> (Ticket, ImageOp) {
            match self.asked.remove(0) {
                (ticket, Asked::Io { image: own, op }) if own == image() => (ticket, op),
                other => panic!("{other:?}"),
            }
        }

        /// Operation codes of the PDUs that were sent.
        fn opcodes(&mut self) -> Vec<u8> {
            let bytes = std::mem::take(&mut self.out).concat();
            let (mut rest, mut codes) = (&bytes[..], Vec::new());
            while let Some(header) = rest.first_chunk::<48>() {
                codes.push(header[0]);
                let length = usize::from(u16::from_be_bytes([header[6], header[7]]));
                rest = &rest[48 + length.next_multiple_of(4)..];
            }
            codes
        }
    }

    fn image() -> ImageId {
        ImageId::new(PoolId(1), 7)
    }

    fn login(text: &str) -> Vec<u8> {
        pdu(0x43, 0x87, 1, 0, text.as_bytes())
    }

    fn pdu(opcode: u8, flags: u8, number: u8, length: u16, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 48];
        (out[0], out[1]) = (opcode, flags);
        out[6..8].copy_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        out[19] = number;
        out[22..24].copy_from_slice(&length.to_be_bytes());
        out[27] = number;
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn command(number: u8, cdb: &[u8], length: u16, data: &[u8]) -> Vec<u8> {
        let flags = if data.is_empty() { 0xC0 } else { 0xA0 };
        let mut out = pdu(0x01, flags, number, length, data);
        out[32..32 + cdb.len()].copy_from_slice(cdb);
        out
    }

    #[test]
    fn commands_become_operations() {
        let data = Bytes::from_static(&[7; 512]);
        let cdb = |opcode| [opcode, 0, 0, 0, 0, 1, 0, 0, 1, 0];
        let write = ImageOp::Write {
            offset: 512,
            data: vec![data.clone()],
        };
        for (bytes, op, result, code, touches) in [
            (
                command(2, &cdb(0x28), 512, &[]),
                ImageOp::Read { offset: 512, len: 512 },
                vec![data.clone()],
                0x25,
                0,
            ),
            (command(2, &cdb(0x2A), 512, &data), write, vec![], 0x21, 1),
            (
                command(2, &cdb(0x41), 512, &[0; 512]),
                ImageOp::Zero { offset: 512, len: 512 },
                vec![],
                0x21,
                1,
            ),
        ] {
            let mut gateway = Gateway::opened();
            gateway.send(&bytes).unwrap();
            let (ticket, asked) = gateway.asks();
            assert_eq!((asked, gateway.session.in_flight().requests), (op, 1));
            gateway.finish(ticket, Ok(result)).unwrap();
            assert_eq!((gateway.opcodes(), gateway.asked.len()), (vec![code], touches));
        }
    }

    #[test]
    fn a_flush_has_nothing_left_to_do() {
        let mut gateway = Gateway::opened();
        gateway.send(&command(2, &[0x35], 0, &[])).unwrap();
        assert_eq!((gateway.opcodes(), gateway.asked.len()), (vec![0x21], 0));
    }

    #[test]
    fn errors_become_sense() {
        for (error, key) in [(IoError::NoSpace, 7), (IoError::Damaged, 3), (IoError::NoPool, 3)] {
            let mut gateway = Gateway::opened();
            gateway
                .send(&command(2, &[0x2A, 0, 0, 0, 0, 0, 0, 0, 1], 512, &[1; 512]))
                .unwrap();
            let (ticket, _) = gateway.asks();
            gateway.finish(ticket, Err(error)).unwrap();
            assert_eq!(gateway.out.concat()[48 + 4] & 0x0F, key);
            assert_eq!(gateway.asked.len(), 0, "not touched");
        }
    }

    #[test]
    fn a_removed_image_is_a_unit_that_is_gone() {
        let mut gateway = Gateway::opened();
        gateway.namespace = Namespace::default();
        gateway
            .send(&command(2, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], 512, &[]))
            .unwrap();
        let sent = gateway.out.concat();
        assert_eq!((sent[48 + 4], sent[48 + 14], gateway.asked.len()), (5, 0x25, 0));
    }

    #[test]
    fn images_are_discovered_under_their_addresses() {
        let mut gateway = Gateway::new();
        let discovery = login("InitiatorName=i\0SessionType=Discovery\0");
        let mut text = pdu(0x04, 0x80, 1, 0, b"SendTargets=All\0");
        text[20..24].fill(0xFF);
        gateway.send(&[discovery, text].concat()).unwrap();
        let sent = String::from_utf8_lossy(&gateway.out.concat()).into_owned();
        assert!(
            sent.contains("TargetName=iqn.2026-11.io.trivet:vm\0TargetAddress=10.0.0.1:3260,1\0"),
            "{sent:?}"
        );
    }

    #[test]
    fn names_of_targets() {
        let long = vec![b'x'; 202];
        for (path, name) in [
            (
                &b"vms/web01/disk.raw"[..],
                Some("iqn.2026-11.io.trivet:vms:web01:disk.raw"),
            ),
            (b"/vm", Some("iqn.2026-11.io.trivet:vm")),
            (b"a:b", None),
            (b"a b", None),
            (b"\xFF", None),
            (&long, None),
        ] {
            assert_eq!(target_name(path).as_deref(), name, "{path:?}");
        }
    }

    #[test]
    fn the_end() {
        let mut gateway = Gateway::opened();
        assert_eq!(gateway.send(&pdu(0x46, 0x80, 2, 0, &[])), Err(Ending::Graceful));
        assert_eq!(gateway.opcodes(), [0x26]);
        let mut gateway = Gateway::new();
        let refused = gateway.send(&login("InitiatorName=i\0TargetName=iqn.2026-11.io.trivet:no\0"));
        assert_eq!(refused, Err(Ending::Fault("login refused, status 0x0203".to_owned())));
        assert_eq!(gateway.opcodes(), [0x23]);
    }
}
