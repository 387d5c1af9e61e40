//! What NFS users do to the tree of names.

use bytes::Bytes;
use trivet_core::{ImageId, Now};

use super::names::{CreateHow, NameCall, NameReply};
use super::session::Ask;
use crate::stamp::SECTOR;
use crate::tree::model::{Answer, Node, OK, Place, TreeOp};
use crate::trouble::Trouble;
use crate::workload::payload;
use crate::world::World;

/// The directory that all users change.
pub const SHARED: &str = "shared";
/// Names of files and of directories in it: few, so that users meet.
const FILES: u64 = 5;
const DIRECTORIES: u64 = 2;
/// Sectors of a write to a file, and where it begins, at most.
const LARGEST: u64 = 64;
/// How often a file is removed, beside other operations, that has left something on a disk that is cut off.
const MANY: u64 = 200;
/// A gateway that serves names knows all that happened until so many nanoseconds ago, by its own clock: it may be slow, and
/// that of a virtual machine stands still while the machine does.
const OLDEST: u64 = 3_100_000_000;

/// How an operation on names was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) begun: Now,
    /// Until when the gateways that were asked knew the tree, the one that knew least.
    pub(super) knew: Now,
    /// Whether more than one was asked.
    pub(super) elsewhere: bool,
}

impl World {
    /// A user begins something with names, if it has nothing of that kind under way.
    pub(super) fn user_names(&mut self, user: usize) {
        let slot = &self.users[user];
        if slot.pending.values().any(|pending| pending.tree.is_some()) {
            return;
        }
        if self.swarm.has(Trouble::WriteRemoved) && self.users[user].random.one_in(4) {
            return self.user_puts(user);
        }
        let (op, call) = match self.tree.handles.get(&self.tree.shared).cloned() {
            Some(dir) => self.draw_names(user, &dir),
            None => self.look_up_shared(user),
        };
        self.trace.line(self.now, format_args!("user {user} begins {op:?}"));
        let number = self.tree.begin(op);
        self.begin_names(user, number, Ask::Name(call));
    }

    /// A user writes to a file that may be there.
    fn user_puts(&mut self, user: usize) {
        let slot = &mut self.users[user];
        let which = slot.random.index(usize::from(u16::MAX));
        let (first, sectors) = (slot.random.below(LARGEST), slot.random.range(1..=LARGEST));
        let writer = slot.writer;
        if let Some((node, file)) = self.tree.file(which) {
            if self.kv.get(&format!("vfs/inode/{}", ImageId(node))).is_none() {
                self.counts.add(Trouble::WriteRemoved);
            }
            let data = payload(ImageId(node), first, sectors, writer, 1);
            self.begin_put(user, file, first * SECTOR as u64, data);
        }
    }

    fn look_up_shared(&self, user: usize) -> (TreeOp, NameCall) {
        let call = NameCall::Lookup {
            dir: self.users[user].handles.root.clone(),
            name: SHARED.to_owned(),
        };
        (TreeOp::Lookup((self.tree.root, SHARED.to_owned())), call)
    }

    fn draw_names(&mut self, user: usize, dir: &Bytes) -> (TreeOp, NameCall) {
        let shared = self.tree.shared;
        let left = self.relic_name();
        let removals = if left.is_some() { MANY } else { 22 };
        let random = &mut self.users[user].random;
        let mut name = |kind: char, count| format!("{kind}{}", random.below(count));
        let (one, other, directory) = (name('f', FILES), name('f', FILES), name('d', DIRECTORIES));
        let one = left.unwrap_or(one);
        let at = |name: &String| -> Place { (shared, name.clone()) };
        let dir = dir.clone();
        let kind = random.weighted(&[30, 8, removals, 15, 8, 10, 7, 4, 3]);
        let verifier = random.draw();
        let file = random.index(usize::from(u16::MAX));
        match (kind, self.tree.file(file)) {
            (0, _) => guarded(at(&one), dir, one),
            (1, _) => exclusive(at(&one), dir, one, verifier),
            (2, _) => (TreeOp::Remove(at(&one)), NameCall::Remove { dir, name: one }),
            (3, _) => {
                let op = TreeOp::Rename(at(&one), at(&other));
                let (from, to) = ((dir.clone(), one), (dir, other));
                (op, NameCall::Rename { from, to })
            }
            (4, Some((node, file))) => {
                let op = TreeOp::Link(node, at(&one));
                (op, NameCall::Link { file, dir, name: one })
            }
            (5, _) => (TreeOp::Lookup(at(&one)), NameCall::Lookup { dir, name: one }),
            (6, _) => (TreeOp::List(shared), NameCall::List { dir }),
            (7, _) => {
                let op = TreeOp::MakeDir(at(&directory));
                (op, NameCall::MakeDir { dir, name: directory })
            }
            _ => {
                let op = TreeOp::RemoveDir(at(&directory));
                (op, NameCall::RemoveDir { dir, name: directory })
            }
        }
    }

    /// A gateway has answered what a user asked.
    pub(super) fn user_named(&mut self, (user, gateway): (usize, usize), number: u64, asked: Asked, reply: &NameReply) {
        let clock = &self.processes[self.gateway_place(gateway)].clock;
        let since = asked.knew.max(clock.before(asked.begun, OLDEST));
        self.traffic.names += 1;
        let node = reply.attributes.map(|attributes| attributes.fileid);
        if let (Some(node), Some(handle)) = (node, &reply.handle) {
            self.tree.handles.insert(node, handle.clone());
            if reply.attributes.is_some_and(|attributes| attributes.directory) {
                self.tree.directories.insert(node);
            }
        }
        let answer = Answer {
            status: reply.status,
            node: node.filter(|_| reply.status == OK && reply.handle.is_some()),
            entries: entries(reply),
        };
        // Another gateway has asked the metadata store to do it, perhaps, knowing more; or was about to when its machine was paused.
        let may_happen = asked.elsewhere && (asked.knew < asked.begun || self.any_gateway_stands_midway());
        let result = if reply.status != OK && may_happen {
            self.user_forgets(user, number);
            self.tree.refuse(number, self.now, since, &answer)
        } else {
            self.tree.end(number, self.now, since, &answer)
        };
        if let Err(what) = result {
            self.fail(what);
        }
    }

    /// Until when a gateway's mirror of the metadata knows everything.
    pub(super) fn knows_until(&self, gateway: usize) -> Now {
        let process = &self.processes[self.gateway_place(gateway)];
        if process.era != self.metadata.era {
            return self.metadata.replaced;
        }
        let known = process.watch.unwrap_or(0);
        let unknown = self.metadata.commits.iter().find(|(revision, _)| *revision > known);
        unknown.map_or(self.now, |(_, when)| *when)
    }
}

fn entries(reply: &NameReply) -> std::collections::BTreeSet<(String, Node)> {
    let names = reply.entries.iter().filter(|(name, _)| name != "." && name != "..");
    names.cloned().collect()
}

fn guarded(place: Place, dir: Bytes, name: String) -> (TreeOp, NameCall) {
    let how = CreateHow::Guarded;
    (TreeOp::Create(place, None), NameCall::Create { dir, name, how })
}

fn exclusive(place: Place, dir: Bytes, name: String, verifier: u64) -> (TreeOp, NameCall) {
    let how = CreateHow::Exclusive(verifier);
    (
        TreeOp::Create(place, Some(verifier)),
        NameCall::Create { dir, name, how },
    )
}
