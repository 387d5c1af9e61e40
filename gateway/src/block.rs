//! What NBD and iSCSI have in common: every image of the tree is a block device.
//!
//! [`BlockDevices`] finds images and says how large they are now, for they may become smaller or go while somebody has
//! them open; [`Commands`] are those of one session whose operations are under way. Which errors the protocols have for
//! what goes wrong is theirs to say.

use bytes::Bytes;
use hashbrown::HashMap;
use trivet_client::{ImageOp, IoError};
use trivet_core::ImageId;
use trivet_namespace::{Kind, Namespace};

use crate::session::{Finished, SessionContext, Ticket};
use crate::uses::end_of;

/// The images of the tree.
#[derive(Clone, Copy)]
pub(crate) struct BlockDevices<'a>(pub(crate) &'a Namespace);

impl BlockDevices<'_> {
    /// The image at a path, and its size in bytes.
    pub(crate) fn find(self, path: &[u8]) -> Option<(ImageId, u64)> {
        let image = self.0.resolve(path).ok()?;
        Some((image, self.size(image)?))
    }

    /// Bytes of an image; `None` if it is gone, or no file.
    pub(crate) fn size(self, image: ImageId) -> Option<u64> {
        let inode = self.0.inode(image).filter(|inode| inode.kind == Kind::File);
        inode.map(|inode| inode.size)
    }
}

/// Whether an operation ends within a device of that many bytes.
pub(crate) fn fits(op: &ImageOp, size: u64) -> bool {
    end_of(op) <= size
}

/// The commands of a session whose operations are under way; `N` is what the protocol's machine calls a command.
#[derive(Debug)]
pub(crate) struct Commands<N> {
    running: HashMap<Ticket, Command<N>>,
}

#[derive(Debug)]
struct Command<N> {
    name: N,
    image: ImageId,
    changes: bool,
}

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completed<N> {
    /// Which.
    pub(crate) name: N,
    /// The data of a read, nothing for the others.
    pub(crate) result: Result<Vec<Bytes>, IoError>,
    /// The image whose bytes it changed.
    pub(crate) changed: Option<ImageId>,
}

impl<N> Commands<N> {
    pub(crate) fn new() -> Commands<N> {
        Commands {
            running: HashMap::new(),
        }
    }

    /// Asks for the operation of a command.
    pub(crate) fn start(&mut self, name: N, image: ImageId, op: ImageOp, context: &mut SessionContext<'_>) {
        let changes = !matches!(op, ImageOp::Read { .. });
        let ticket = context.io(image, op);
        self.running.insert(ticket, Command { name, image, changes });
    }

    /// The context has answered.
    pub(crate) fn complete(&mut self, ticket: Ticket, result: Finished) -> Completed<N> {
        let command = self.running.remove(&ticket);
        let Command { name, image, changes } = command.expect("the context answers each request once");
        let Finished::Io(result, _) = result else {
            panic!("sessions of block devices change no names");
        };
        let changed = Some(image).filter(|_| changes && result.is_ok());
        Completed { name, result, changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::session::{Request, Space};
    use crate::test_tree::with_image;
    use trivet_core::{Now, PoolId};
    use trivet_namespace::{ROOT, Time};

    const SIZE: u64 = 8192;

    fn vm() -> ImageId {
        ImageId::new(PoolId(1), 7)
    }

    fn write(offset: u64, parts: &[&'static [u8]]) -> ImageOp {
        ImageOp::Write {
            offset,
            data: parts.iter().map(|part| Bytes::from_static(part)).collect(),
        }
    }

    #[test]
    fn files_are_devices() {
        let tree = with_image("vm", vm(), SIZE);
        let devices = BlockDevices(&tree);
        assert_eq!(devices.find(b"vm"), Some((vm(), SIZE)));
        assert_eq!((devices.find(b"/"), devices.find(b"no")), (None, None));
        assert_eq!((devices.size(vm()), devices.size(ROOT)), (Some(SIZE), None));
        assert_eq!(BlockDevices(&Namespace::default()).size(vm()), None);
    }

    #[test]
    fn operations_end_within_the_device() {
        let read = |offset, len| ImageOp::Read { offset, len };
        let zero = |offset, len| ImageOp::Zero { offset, len };
        for (op, expected) in [
            (read(0, SIZE), true),
            (read(1, SIZE), false),
            (read(SIZE, 0), true),
            (read(u64::MAX, 2), false),
            (zero(SIZE - 1, 1), true),
            (zero(SIZE, 1), false),
            (zero(1, u64::MAX), false),
            (write(SIZE - 3, &[b"a", b"bc"]), true),
            (write(SIZE - 2, &[b"a", b"bc"]), false),
        ] {
            assert_eq!(fits(&op, SIZE), expected, "{op:?}");
        }
    }

    /// What a command with this operation becomes when it was answered so.
    fn completed(op: ImageOp, result: Result<Vec<Bytes>, IoError>) -> Completed<&'static str> {
        let (mut requests, mut next_ticket) = (Vec::new(), 5);
        let mut context = SessionContext {
            now: Now(0),
            wall: Time::default(),
            namespace: &Namespace::default(),
            local: ([127, 0, 0, 1], 10809).into(),
            space: Space::default(),
            touched: &BTreeMap::new(),
            freshness: &crate::fresh::Freshness::always(),
            options: crate::options::Options::default(),
            requests: &mut requests,
            next_ticket: &mut next_ticket,
        };
        let mut commands = Commands::new();
        commands.start("name", vm(), op.clone(), &mut context);
        assert!(
            matches!(&requests[..], [(Ticket(5), Request::Io { image, op: asked })] if *image == vm() && *asked == op)
        );
        commands.complete(Ticket(5), Finished::Io(result, None))
    }

    #[test]
    fn what_changes_bytes_is_told() {
        let read = ImageOp::Read { offset: 0, len: 1 };
        let zero = ImageOp::Zero { offset: 0, len: 1 };
        let byte = vec![Bytes::from_static(b"x")];
        for (op, result, changed) in [
            (read, Ok(byte), None),
            (write(0, &[b"x"]), Ok(Vec::new()), Some(vm())),
            (write(0, &[b"x"]), Err(IoError::NoSpace), None),
            (zero, Ok(Vec::new()), Some(vm())),
        ] {
            let name = "name";
            let expected = Completed {
                name,
                result: result.clone(),
                changed,
            };
            assert_eq!(completed(op, result), expected);
        }
    }
}
