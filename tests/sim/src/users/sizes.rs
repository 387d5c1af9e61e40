//! Users of a file whose size changes: NFS clients that write it, cut it off and let it grow, and NBD clients that have it
//! open all the while. They come in rounds; in the pauses the file is only read.

use bytes::Bytes;
use trivet_client::IoError;
use trivet_core::Now;
use trivet_core::kv::Revision;
use trivet_gateway::metrics::Protocol;

use super::UserSlot;
use super::names::NameCall;
use super::session::{Ask, Found, Refusal};
use crate::random::Random;
use crate::sized::{self, BLOCK, BLOCKS, Change, STRIDE};
use crate::stamp::{self, Content, SECTOR};
use crate::swarm::Swarm;
use crate::trouble::Trouble;
use crate::workload::{Action, payload};
use crate::world::World;

/// Its name.
pub const SIZED: &str = "sized";
/// A round lasts so long, nanoseconds, of which changes come for so long.
const ROUND: u64 = 15_000_000_000;
const BUSY: u64 = 9_000_000_000;
/// Operations of such a user under way at most.
const DEEPEST: usize = 2;
/// One operation in so many is about names.
const NAMES: u64 = 3;
/// One operation in so many of a round reads.
const READS: u64 = 4;

/// What a user waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizedOp {
    /// A change, by its number.
    Change(u64),
    /// A block.
    Read {
        /// Which.
        block: u64,
        /// So often something had been concluded before.
        concluded: u64,
        /// The commit that wrote the file's inode last, if the gateways that may be asked knew that.
        revision: Option<Revision>,
    },
}

impl UserSlot {
    /// The users of the file whose size changes, at all gateways in turn; the first is an NFS client.
    pub(super) fn make_sized(swarm: &Swarm, first: usize, random: &Random) -> Vec<UserSlot> {
        (0..swarm.resizers)
            .map(|index| {
                let protocol = if index == 2 { Protocol::Nbd } else { Protocol::Nfs };
                let mut slot = UserSlot::make_one(swarm, first + index, protocol, random);
                slot.paths = vec![super::Path::new(index % swarm.gateways)];
                slot.resizes = true;
                slot
            })
            .collect()
    }
}

impl World {
    /// A user of the file thinks of something to do.
    pub(super) fn user_resizes(&mut self, user: usize) {
        let quiet = self.now.0 % ROUND >= BUSY;
        let is_nfs = self.users[user].protocol == Protocol::Nfs;
        // Names are judged also by those whose changes of the file wait.
        if is_nfs && self.users[user].random.one_in(NAMES) {
            return self.user_names(user);
        }
        let pending = self.users[user].pending.values();
        if pending.filter(|pending| pending.tree.is_none()).count() >= DEEPEST {
            return;
        }
        if is_nfs && (quiet || self.users[user].random.one_in(READS)) {
            return self.user_reads_sized(user);
        }
        if quiet || self.sized.under_way() >= sized::DEEPEST {
            return;
        }
        let random = &mut self.users[user].random;
        let (block, blocks, resizes) = (
            random.below(BLOCKS),
            random.range(0..=BLOCKS),
            is_nfs && random.one_in(3),
        );
        if resizes {
            self.counts.add(Trouble::Resize);
            self.user_changes_sized(user, block, |_| Change::Resize(blocks));
        } else {
            self.user_writes_sized(user, block);
        }
    }

    /// A user of the file writes a block.
    pub(crate) fn user_writes_sized(&mut self, user: usize, block: u64) {
        let grows = self.users[user].protocol == Protocol::Nfs;
        self.user_changes_sized(user, block, |sequence| Change::Write { block, sequence, grows });
    }

    fn user_changes_sized(&mut self, user: usize, block: u64, change: impl FnOnce(u64) -> Change) {
        let (number, change) = self.sized.begin(change);
        self.trace
            .line(self.now, format_args!("user {user} begins {change:?} of a file"));
        let ask = self.ask_for(user, change);
        self.begin_sized(
            user,
            SizedOp::Change(number),
            ask,
            (self.sized.image.0, block * sectors_of_stride()),
        );
    }

    fn ask_for(&self, user: usize, change: Change) -> Ask {
        match change {
            Change::Resize(blocks) => Ask::Name(NameCall::SetSize {
                file: self.users[user].handles.file.clone(),
                size: sized::size_of(blocks),
            }),
            Change::Write { block, sequence, .. } => {
                let sectors = (BLOCK / SECTOR) as u64;
                let writer = self.users[user].writer;
                Ask::Write {
                    offset: block * STRIDE,
                    data: payload(self.sized.image, block * sectors_of_stride(), sectors, writer, sequence),
                }
            }
        }
    }

    fn user_reads_sized(&mut self, user: usize) {
        let block = self.users[user].random.below(BLOCKS);
        let ask = Ask::Read {
            offset: block * STRIDE,
            len: u32::try_from(BLOCK).expect("a small block"),
        };
        let read = SizedOp::Read {
            block,
            concluded: self.sized.concluded(),
            revision: self
                .inode_written()
                .filter(|revision| self.is_known_to(user, *revision)),
        };
        self.begin_sized(user, read, ask, (self.sized.image.0, block * sectors_of_stride()));
    }

    /// An operation on the file was answered; it was begun then.
    pub(super) fn user_resized(&mut self, (op, since): (SizedOp, Now), answer: Result<Found, Refusal>) {
        let result = match (op, answer) {
            (SizedOp::Change(number), Ok(Found::Done)) => self.sized_changed(number, since),
            (SizedOp::Change(number), Ok(Found::Name(reply))) if reply.status == 0 => self.sized_changed(number, since),
            (SizedOp::Change(number), Err(Refusal::NoSpace)) => {
                self.sized.refuse(number);
                Ok(())
            }
            (
                SizedOp::Read {
                    block,
                    concluded,
                    revision,
                },
                Ok(Found::Data(data)),
            ) => {
                let is_certain = self.sized.concluded() == concluded && self.inode_written() == revision;
                self.sized_read(block, &data, is_certain)
            }
            (SizedOp::Read { .. }, Err(Refusal::Io)) if self.may_fail(IoError::Damaged, Action::Read, since) => Ok(()),
            (op, answer) => Err(format!("{op:?} of a file is answered with {answer:?}")),
        };
        if let Err(what) = result {
            self.fail(what);
        }
    }

    fn sized_changed(&mut self, number: u64, since: Now) -> Result<(), String> {
        self.written(self.sized.image, since);
        self.trace
            .line(self.now, format_args!("change {number} of a file is done"));
        self.sized.end(number)
    }

    /// The commit that wrote the file's inode last.
    fn inode_written(&self) -> Option<Revision> {
        let row = self.kv.get(&format!("vfs/inode/{}", self.sized.image));
        row.map(|row| row.mod_revision)
    }

    /// Whether the gateways that a user may ask have this commit.
    fn is_known_to(&self, user: usize, revision: Revision) -> bool {
        let gateways = self.users[user]
            .paths
            .iter()
            .map(|path| self.gateway_place(path.gateway));
        let mut known = gateways.map(|place| self.processes[place].watch.unwrap_or(0));
        known.all(|known| known >= revision)
    }

    /// A block was read. What is certain is judged: the size has not changed meanwhile, and the gateway knew it.
    fn sized_read(&mut self, block: u64, data: &Bytes, is_certain: bool) -> Result<(), String> {
        let image = self.sized.image.0;
        let contents = stamp::parse_all(std::slice::from_ref(data), image, block * sectors_of_stride());
        let contents = contents.map_err(|(sector, lie)| format!("image {image:x} sector {sector}: {lie}"))?;
        let values = contents.iter().map(|content| match content {
            Content::Zero => 0,
            Content::Value(sequence) => *sequence,
        });
        let values: Vec<u64> = values.collect();
        if values.iter().any(|value| *value != values[0]) || ![0, BLOCK / SECTOR].contains(&values.len()) {
            return Err(format!("block {block} of a file is {values:?}"));
        }
        if !is_certain {
            return Ok(());
        }
        let found = values.first().copied();
        self.trace
            .line(self.now, format_args!("block {block} of a file is {found:?}"));
        self.sized.read(block, found)
    }

    /// At the end: why the tree is not as the file must be.
    pub(crate) fn sized_wrongly(&self, size: u64) -> Option<String> {
        let wrong = self.sized.under_way() == 0 && !self.sized.may_have(size);
        wrong.then(|| format!("a file has a size of {size}, which it cannot have"))
    }
}

fn sectors_of_stride() -> u64 {
    STRIDE / SECTOR as u64
}
