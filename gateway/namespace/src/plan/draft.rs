//! A transaction in the making: working copies of what is read, each with the condition that it is
//! still so, and what is to be written of them.

use std::collections::BTreeMap;

use trivet_core::ImageId;
use trivet_core::kv::{Change, Compare, Revision, Txn};

use crate::access::{Access, Caller, may, may_take};
use crate::inode::{self, EntryValue, Inode, Kind, PurgeValue};
use crate::keys;
use crate::mirror::Namespace;
use crate::operation::{Context, NsError, Outcome, Plan};

/// A working copy; `None` is to be absent.
struct Held<T> {
    value: Option<T>,
    /// When it was written; `None` if it was absent.
    revision: Option<Revision>,
    changed: bool,
}

impl<T> Held<T> {
    fn compare(&self, key: String) -> Compare {
        match self.revision {
            Some(revision) => Compare::ModRevision(key, revision),
            None => Compare::Absent(key),
        }
    }
}

fn changed<T: serde::Serialize>(held: &Held<T>, key: String) -> Change {
    match &held.value {
        Some(value) => Change::put(key, inode::encode(value)),
        None => Change::Delete(key),
    }
}

pub(super) struct Draft<'a> {
    namespace: &'a Namespace,
    context: &'a Context,
    /// The context's, until the administrator steps in.
    caller: Caller,
    inodes: BTreeMap<ImageId, Held<Inode>>,
    entries: BTreeMap<(ImageId, Vec<u8>), Held<EntryValue>>,
    txn: Txn,
}

impl<'a> Draft<'a> {
    pub(super) fn new(namespace: &'a Namespace, context: &'a Context) -> Draft<'a> {
        let (inodes, entries) = (BTreeMap::new(), BTreeMap::new());
        let caller = context.caller.clone();
        Draft {
            namespace,
            context,
            caller,
            inodes,
            entries,
            txn: Txn::default(),
        }
    }

    pub(super) fn namespace(&self) -> &'a Namespace {
        self.namespace
    }

    pub(super) fn context(&self) -> &'a Context {
        self.context
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// From here on everything is allowed.
    pub(super) fn as_administrator(&mut self) {
        self.caller = Caller::root();
    }

    pub(super) fn finish(mut self, outcome: Outcome) -> Plan {
        for (id, held) in &self.inodes {
            self.txn.compare.push(held.compare(keys::inode(*id)));
            if held.changed {
                self.txn.changes.push(changed(held, keys::inode(*id)));
            }
        }
        for ((dir, name), held) in &self.entries {
            self.txn.compare.push(held.compare(keys::entry(*dir, name)));
            if held.changed {
                self.txn.changes.push(changed(held, keys::entry(*dir, name)));
            }
        }
        Plan { txn: self.txn, outcome }
    }

    pub(super) fn require(&mut self, compare: Compare) {
        self.txn.compare.push(compare);
    }

    pub(super) fn change(&mut self, change: Change) {
        self.txn.changes.push(change);
    }

    fn hold(&mut self, id: ImageId) -> Result<&mut Held<Inode>, NsError> {
        if !self.inodes.contains_key(&id) {
            let (inode, revision) = self.namespace.known(id)?;
            let value = Some(inode.clone());
            self.inodes.insert(
                id,
                Held {
                    value,
                    revision: Some(revision),
                    changed: false,
                },
            );
        }
        self.inodes.get_mut(&id).ok_or(NsError::Stale)
    }

    /// The inode, which must then be as it is now.
    pub(super) fn read(&mut self, id: ImageId) -> Result<&Inode, NsError> {
        self.hold(id)?.value.as_ref().ok_or(NsError::Stale)
    }

    pub(super) fn read_dir(&mut self, id: ImageId) -> Result<&Inode, NsError> {
        let inode = self.read(id)?;
        if inode.is_dir() {
            Ok(inode)
        } else {
            Err(NsError::NotDir)
        }
    }

    /// The inode that an entry names: if it is missing, the store is damaged.
    pub(super) fn read_named(&mut self, id: ImageId) -> Result<&Inode, NsError> {
        self.read(id).map_err(|error| match error {
            NsError::Stale => NsError::Damaged(keys::inode(id)),
            other => other,
        })
    }

    pub(super) fn edit(&mut self, id: ImageId) -> Result<&mut Inode, NsError> {
        let held = self.hold(id)?;
        held.changed = true;
        held.value.as_mut().ok_or(NsError::Stale)
    }

    pub(super) fn add(&mut self, id: ImageId, inode: Inode) {
        self.inodes.insert(
            id,
            Held {
                value: Some(inode),
                revision: None,
                changed: true,
            },
        );
    }

    /// What `name` of `dir` is, which must then be as it is now.
    pub(super) fn entry(&mut self, dir: ImageId, name: &[u8]) -> Result<Option<EntryValue>, NsError> {
        Ok(self.hold_entry(dir, name)?.value)
    }

    fn hold_entry(&mut self, dir: ImageId, name: &[u8]) -> Result<&mut Held<EntryValue>, NsError> {
        let key = (dir, name.to_vec());
        let slot = self.namespace.slot(dir, name)?;
        Ok(self.entries.entry(key).or_insert_with(|| Held {
            value: slot.map(|slot| slot.value),
            revision: slot.map(|slot| slot.revision),
            changed: false,
        }))
    }

    fn set_entry(&mut self, dir: ImageId, name: &[u8], value: Option<EntryValue>) -> Result<(), NsError> {
        let held = self.hold_entry(dir, name)?;
        held.value = value;
        held.changed = true;
        Ok(())
    }

    /// Names `id` in `dir`; in the place of the entry that was there, or in a new one.
    pub(super) fn set_name(&mut self, dir: ImageId, name: &[u8], id: ImageId) -> Result<(), NsError> {
        let before = self.entry(dir, name)?;
        let now = self.context.now;
        let parent = self.edit(dir)?;
        parent.touch(now);
        let next = parent.next_cookie.ok_or(NsError::NotDir)?;
        if before.is_none() {
            parent.next_cookie = Some(next.checked_add(1).ok_or(NsError::NoSpace)?);
        }
        let cookie = before.map_or(next, |before| before.cookie);
        self.set_entry(dir, name, Some(EntryValue { id, cookie }))
    }

    pub(super) fn clear_name(&mut self, dir: ImageId, name: &[u8]) -> Result<(), NsError> {
        let now = self.context.now;
        self.edit(dir)?.touch(now);
        self.set_entry(dir, name, None)
    }

    /// Takes one link from an inode that is no directory; with the last it goes, and leaves a purge.
    pub(super) fn unlink(&mut self, id: ImageId) -> Result<(), NsError> {
        let now = self.context.now;
        let inode = self.edit(id)?;
        if inode.nlink > 1 {
            inode.nlink -= 1;
            inode.change(now);
            return Ok(());
        }
        let (kind, trimming) = (inode.kind, inode.trimming);
        let size = trimming.map_or(inode.size, |trimming| trimming.to);
        self.hold(id)?.value = None;
        if kind == Kind::File {
            self.change(Change::put(keys::purge(id), inode::encode(&PurgeValue { size })));
        }
        Ok(())
    }

    /// Takes an empty directory out of `parent`; its name is the caller's.
    pub(super) fn drop_dir(&mut self, parent: ImageId, id: ImageId) -> Result<(), NsError> {
        if !self.namespace.is_empty_dir(id) {
            return Err(NsError::NotEmpty);
        }
        self.require(Compare::EmptyPrefix(keys::entries(id)));
        let held = self.hold(id)?;
        held.value = None;
        held.changed = true;
        let parent = self.edit(parent)?;
        parent.nlink = parent.nlink.saturating_sub(1).max(2);
        Ok(())
    }

    /// Whether the caller may look `dir` up.
    pub(super) fn may_search(&mut self, dir: ImageId) -> Result<(), NsError> {
        self.allowed(dir, Access::EXECUTE)
    }

    /// Whether the caller may make and remove names in `dir`.
    pub(super) fn may_change(&mut self, dir: ImageId) -> Result<(), NsError> {
        self.allowed(dir, Access::CHANGE_ENTRIES)
    }

    fn allowed(&mut self, dir: ImageId, access: Access) -> Result<(), NsError> {
        let inode = self.read_dir(dir)?.clone();
        if may(&inode, &self.caller, access) {
            Ok(())
        } else {
            Err(NsError::Access)
        }
    }

    /// Whether the sticky bit of `dir` lets the caller take `id` out of it.
    pub(super) fn may_take(&mut self, dir: ImageId, id: ImageId) -> Result<(), NsError> {
        let dir = self.read_dir(dir)?.clone();
        let inode = self.read_named(id)?.clone();
        if may_take(&dir, &inode, &self.caller) {
            Ok(())
        } else {
            Err(NsError::Perm)
        }
    }
}
