//! The mirror: what the store has under `vfs/`, as of one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trivet_core::ImageId;
use trivet_core::kv::{Change, Compare, Event, KeyValue, News, Notice, Revision, Txn};

use crate::author::{Authors, DoneValue};
use crate::directory::{Directory, Entry, Slot};
use crate::inode::{self, Inode, Kind, PurgeValue, Time, Trimming};
use crate::keys::{self, Key};
use crate::operation::NsError;
use crate::replies::{Replies, ReplyValue};
use crate::users::{UseValue, Users};
use crate::{PREFIX, ROOT};

/// More directories above a file than this are taken for a cycle in damaged metadata.
const MAX_DEPTH: usize = 4096;
/// The first image number; smaller ones are for the root and for what else may need a fixed id.
const FIRST_NUMBER: u64 = 1024;

/// A directory and a name in it.
type Name = (ImageId, Arc<[u8]>);

/// The tree of names. See the crate's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    revision: Revision,
    inodes: BTreeMap<ImageId, (Inode, Revision)>,
    directories: BTreeMap<ImageId, Directory>,
    /// The names of each inode, in order, so that all gateways take the same for the first.
    names: BTreeMap<ImageId, Vec<Name>>,
    purges: BTreeMap<ImageId, (PurgeValue, Revision)>,
    trims: BTreeSet<ImageId>,
    next: Option<(u64, Revision)>,
    pub(crate) authors: Authors,
    pub(crate) users: Users,
    pub(crate) replies: Replies,
    damaged: BTreeMap<String, String>,
}

impl Namespace {
    /// The transaction that makes the root directory; it is refused if that exists.
    #[must_use]
    pub fn bootstrap(now: Time) -> Txn {
        let root = Inode::new(Kind::Dir, 0o755, (0, 0), now).into_directory(ROOT);
        let (inode, next) = (keys::inode(ROOT), keys::NEXT.to_owned());
        let compare = vec![Compare::Absent(inode.clone()), Compare::Absent(next.clone())];
        let first = Change::put(next, inode::encode(&FIRST_NUMBER));
        Txn {
            compare,
            changes: vec![Change::put(inode, inode::encode(&root)), first],
        }
    }

    /// Follows the store: first a snapshot of `vfs/`, then changes. What is older than the mirror (a stale read, a repeated
    /// change) is passed over, unless the store itself was replaced.
    pub fn apply(&mut self, notice: &Notice) {
        let known = self.revision;
        for news in notice.news(known) {
            match news {
                News::All(rows) => {
                    *self = Namespace::default();
                    rows.iter().for_each(|row| self.put(row));
                }
                News::Put(row) => self.put(row),
                News::Delete(key) => self.delete(key),
            }
        }
        self.revision = notice.known_after(known);
    }

    /// The commit as of which everything here is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The inode.
    #[must_use]
    pub fn inode(&self, id: ImageId) -> Option<&Inode> {
        self.inodes.get(&id).map(|(inode, _)| inode)
    }

    /// The inode that `name` of `dir` names; `.` and `..` too.
    ///
    /// # Errors
    /// `Stale`, `NotDir`, `NotFound`, `NameTooLong`, `Damaged`.
    pub fn lookup(&self, dir: ImageId, name: &[u8]) -> Result<ImageId, NsError> {
        let inode = self.directory(dir)?;
        match name {
            b"." => return Ok(dir),
            b".." => return Ok(inode.parent.unwrap_or(ROOT)),
            _ if name.len() > crate::MAX_NAME => return Err(NsError::NameTooLong),
            _ => {}
        }
        let slot = self.slot(dir, name)?.ok_or(NsError::NotFound)?;
        match self.inodes.contains_key(&slot.value.id) {
            true => Ok(slot.value.id),
            false => Err(NsError::Damaged(keys::inode(slot.value.id))),
        }
    }

    /// The entries of `dir` with cookies larger than `after` (0: all but `.` and `..`), in order.
    pub fn entries(&self, dir: ImageId, after: u64) -> impl Iterator<Item = Entry<'_>> {
        self.directories
            .get(&dir)
            .into_iter()
            .flat_map(move |directory| directory.after(after))
    }

    /// The inode at `path`: slash-separated, from the root, empty parts ignored.
    ///
    /// # Errors
    /// As [`Namespace::lookup`].
    pub fn resolve(&self, path: &[u8]) -> Result<ImageId, NsError> {
        let mut parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
        parts.try_fold(ROOT, |dir, part| self.lookup(dir, part))
    }

    /// A path of the inode, without a leading slash; the root's is empty. Of several, one.
    #[must_use]
    pub fn path_of(&self, id: ImageId) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while at != ROOT {
            let (parent, name) = self.name_of(at).filter(|_| parts.len() < MAX_DEPTH)?;
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    /// Whether any name of `id` is `top` or below it.
    #[must_use]
    pub fn is_within(&self, id: ImageId, top: ImageId) -> bool {
        if id == top || top == ROOT {
            return self.inodes.contains_key(&id);
        }
        let parents = self.names.get(&id).into_iter().flatten().map(|(parent, _)| *parent);
        parents
            .into_iter()
            .any(|parent| self.chain(parent).any(|dir| dir == top))
    }

    /// All regular files, with a path of each.
    pub fn files(&self) -> impl Iterator<Item = (Vec<u8>, ImageId)> {
        let files = self.inodes.iter().filter(|(_, (inode, _))| inode.kind == Kind::File);
        files.filter_map(|(id, _)| Some((self.path_of(*id)?, *id)))
    }

    /// All regular files that have a name.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        let files = self.inodes.iter().filter(|(_, (inode, _))| inode.kind == Kind::File);
        files.map(|(id, _)| *id).filter(|id| self.names.contains_key(id))
    }

    /// Removed files whose data is still there: image and size.
    pub fn purges(&self) -> impl Iterator<Item = (ImageId, u64)> {
        self.purges.iter().map(|(id, (purge, _))| (*id, purge.size))
    }

    /// Truncations whose data is still there.
    pub fn trims(&self) -> impl Iterator<Item = (ImageId, Trimming)> {
        self.trims
            .iter()
            .filter_map(|id| Some((*id, self.inode(*id)?.trimming?)))
    }

    /// Keys that cannot be read, and why.
    pub fn damaged(&self) -> impl Iterator<Item = (&str, &str)> {
        self.damaged.iter().map(|(key, why)| (key.as_str(), why.as_str()))
    }

    /// The directory and those above it, the root last; ends early in damaged metadata.
    pub(crate) fn chain(&self, dir: ImageId) -> impl Iterator<Item = ImageId> {
        let above = |at: &ImageId| match *at {
            ROOT => None,
            at => self.inode(at)?.parent,
        };
        std::iter::successors(Some(dir), above).take(MAX_DEPTH)
    }

    pub(crate) fn name_of(&self, id: ImageId) -> Option<(ImageId, &[u8])> {
        self.names.get(&id)?.first().map(|(parent, name)| (*parent, &name[..]))
    }

    pub(crate) fn directory(&self, id: ImageId) -> Result<&Inode, NsError> {
        let inode = self.known(id)?.0;
        if inode.is_dir() {
            Ok(inode)
        } else {
            Err(NsError::NotDir)
        }
    }

    /// The inode and the commit that wrote it; `Stale` if there is none.
    pub(crate) fn known(&self, id: ImageId) -> Result<(&Inode, Revision), NsError> {
        match self.inodes.get(&id) {
            Some((inode, revision)) => Ok((inode, *revision)),
            None => {
                self.undamaged(keys::inode(id))?;
                Err(NsError::Stale)
            }
        }
    }

    pub(crate) fn slot(&self, dir: ImageId, name: &[u8]) -> Result<Option<Slot>, NsError> {
        let slot = self.directories.get(&dir).and_then(|directory| directory.get(name));
        if slot.is_none() {
            self.undamaged(keys::entry(dir, name))?;
        }
        Ok(slot)
    }

    pub(crate) fn is_empty_dir(&self, dir: ImageId) -> bool {
        let prefix = keys::entries(dir);
        let mut damaged = self.damaged.range(prefix.clone()..);
        self.directories.get(&dir).is_none_or(Directory::is_empty)
            && damaged.next().is_none_or(|(key, _)| !key.starts_with(&prefix))
    }

    pub(crate) fn purge_revision(&self, id: ImageId) -> Option<Revision> {
        self.purges.get(&id).map(|(_, revision)| *revision)
    }

    pub(crate) fn next_number(&self) -> Result<(u64, Revision), NsError> {
        self.next.ok_or_else(|| NsError::Damaged(keys::NEXT.to_owned()))
    }

    fn undamaged(&self, key: String) -> Result<(), NsError> {
        let is_damaged = !self.damaged.is_empty() && self.damaged.contains_key(&key);
        if is_damaged { Err(NsError::Damaged(key)) } else { Ok(()) }
    }

    fn put(&mut self, row: &KeyValue) {
        // What is not of the tree is no concern of ours.
        if !row.key.starts_with(PREFIX) && row.key != keys::NEXT {
            return;
        }
        self.delete(&row.key);
        if let Err(why) = self.read(row) {
            self.damaged.insert(row.key.clone(), why);
        }
    }

    fn read(&mut self, row: &KeyValue) -> Result<(), String> {
        let revision = row.mod_revision;
        match keys::parse(&row.key).ok_or("an unknown key")? {
            Key::Next => self.next = Some((inode::decode(&row.value)?, revision)),
            Key::Purge(id) => {
                self.purges.insert(id, (inode::decode(&row.value)?, revision));
            }
            Key::Done(client, number) => {
                let value: DoneValue = inode::decode(&row.value)?;
                self.authors.put(client, number, value);
            }
            Key::Reply(caller, call) => {
                let value: ReplyValue = inode::decode(&row.value)?;
                self.replies.put(&caller, call, value, revision);
            }
            Key::Use(image, client) => {
                let value: UseValue = inode::decode(&row.value)?;
                self.users.put(image, client, value, revision);
            }
            Key::Inode(id) => {
                let inode = Inode::decode(&row.value)?;
                if inode.trimming.is_some() {
                    self.trims.insert(id);
                }
                self.inodes.insert(id, (inode, revision));
            }
            Key::Entry(dir, name) => {
                let slot = Slot {
                    value: inode::decode(&row.value)?,
                    revision,
                };
                let name = self.directories.entry(dir).or_default().insert(&name, slot);
                let names = self.names.entry(slot.value.id).or_default();
                names.insert(
                    names.partition_point(|known| *known < (dir, Arc::clone(&name))),
                    (dir, name),
                );
            }
        }
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        self.damaged.remove(key);
        match keys::parse(key) {
            None => {}
            Some(Key::Next) => self.next = None,
            Some(Key::Reply(caller, call)) => self.replies.remove(&caller, call),
            Some(Key::Use(image, client)) => self.users.remove(image, client),
            Some(Key::Done(client, number)) => self.authors.remove(client, number),
            Some(Key::Purge(id)) => {
                self.purges.remove(&id);
            }
            Some(Key::Inode(id)) => {
                self.inodes.remove(&id);
                self.trims.remove(&id);
            }
            Some(Key::Entry(dir, name)) => self.delete_entry(dir, &name),
        }
    }

    fn delete_entry(&mut self, dir: ImageId, name: &[u8]) {
        let Some(directory) = self.directories.get_mut(&dir) else {
            return;
        };
        let Some(slot) = directory.remove(name) else {
            return;
        };
        if directory.is_empty() {
            self.directories.remove(&dir);
        }
        let id = slot.value.id;
        let Some(names) = self.names.get_mut(&id) else {
            return;
        };
        let found = names.binary_search_by(|(parent, known)| (*parent, &known[..]).cmp(&(dir, name)));
        found.into_iter().for_each(|at| {
            names.remove(at);
        });
        if names.is_empty() {
            self.names.remove(&id);
        }
    }
}

/// Feeds bytes from outside to the mirror and asks it everything; for fuzzing. Lines of key, space, value.
pub fn fuzz(data: &[u8]) {
    let rows = data.split(|&byte| byte == b'\n').filter_map(|line| {
        let (key, value) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        Some(KeyValue {
            key: key.into(),
            value: value.to_owned().into(),
            mod_revision: 1,
        })
    });
    let rows: Vec<KeyValue> = rows.collect();
    let mut namespace = Namespace::default();
    namespace.apply(&Notice::Snapshot {
        revision: 1,
        keys: rows.clone(),
    });
    let ids: Vec<ImageId> = namespace.inodes.keys().chain(namespace.names.keys()).copied().collect();
    for id in ids {
        let listed = namespace.entries(id, 0).count() + namespace.entries(id, u64::MAX).count();
        let within = namespace.is_within(id, ImageId(2));
        std::hint::black_box((namespace.path_of(id), listed, within, namespace.lookup(id, b"..").ok()));
    }
    std::hint::black_box(namespace.files().count() + namespace.trims().count());
    let events = rows
        .into_iter()
        .map(|row| Event::Delete {
            key: row.key,
            revision: 2,
        })
        .collect();
    namespace.apply(&Notice::Changes { revision: 2, events });
    assert_eq!(
        namespace,
        Namespace {
            revision: 2,
            ..Namespace::default()
        }
    );
}
