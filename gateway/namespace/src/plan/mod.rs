//! Planners: one function per operation, each on a [`Draft`] that collects what was read and changed.

mod attributes;
mod create;
mod draft;
mod images;
mod lost;
mod remove;
mod rename;

use trivet_core::keys::client as registration;
use trivet_core::kv::{Change, Compare};
use trivet_core::{ClientId, ImageId};

use crate::inode::{self, Kind};
use crate::keys;
use crate::mirror::Namespace;
use crate::operation::{Context, NsError, Numbers, Operation, Outcome, Plan};
use create::Making;
use draft::Draft;

/// Image numbers have this many bits.
const NUMBER_BITS: u32 = 48;
/// Numbers that one reservation may take.
const MAX_RESERVE: u64 = 1 << 20;

impl Namespace {
    /// Decides `operation` on the mirror as it is.
    ///
    /// # Errors
    /// What the operation comes to as of [`Namespace::revision`]; and `NeedNumbers`, `Trimming` and
    /// `Damaged`, which ask for something to be done before it is planned again.
    pub fn plan(&self, operation: &Operation, context: &Context, numbers: &mut Numbers) -> Result<Plan, NsError> {
        let mut draft = Draft::new(self, context);
        let outcome = decide(&mut draft, operation, numbers)?;
        Ok(draft.finish(outcome))
    }
}

fn decide(draft: &mut Draft<'_>, operation: &Operation, numbers: &mut Numbers) -> Result<Outcome, NsError> {
    match operation {
        Operation::CreateFile {
            parent,
            name,
            how,
            attributes,
        } => draft.create_file(*parent, name, *how, attributes, numbers),
        Operation::MakeDir {
            parent,
            name,
            attributes,
        } => {
            let making = Making::of(Kind::Dir);
            draft
                .make((*parent, name), making, attributes, numbers)
                .map(Outcome::Node)
        }
        Operation::Symlink {
            parent,
            name,
            target,
            attributes,
        } => {
            let making = Making::symlink(target)?;
            draft
                .make((*parent, name), making, attributes, numbers)
                .map(Outcome::Node)
        }
        Operation::MakeNode {
            parent,
            name,
            special,
            attributes,
        } => {
            let making = Making::special(*special);
            draft
                .make((*parent, name), making, attributes, numbers)
                .map(Outcome::Node)
        }
        Operation::Link { id, parent, name } => draft.link(*id, *parent, name),
        Operation::Remove { parent, name } => draft.remove(*parent, name),
        Operation::RemoveDir { parent, name } => draft.remove_dir(*parent, name),
        Operation::Rename {
            from,
            from_name,
            to,
            to_name,
        } => draft.rename((*from, from_name), (*to, to_name)),
        Operation::SetAttr {
            id,
            changes,
            guard_ctime,
        } => draft.set_attributes(*id, changes, *guard_ctime),
        Operation::Grow { id, size, mtime, cut } => draft.grow(*id, *size, *mtime, *cut),
        Operation::Touch { times } => draft.touch_files(times),
        Operation::TrimDone { id, trimming } => draft.trim_done(*id, *trimming),
        Operation::TakeTrim { id, trimming } => draft.take_trim(*id, *trimming),
        Operation::PurgeDone { id } => draft.purge_done(*id),
        Operation::EndUse { id, client } => draft.end_use(*id, *client),
        Operation::CreateImage { path, size } => draft.create_image(path, *size, numbers),
        Operation::RemoveImage { path } => draft.remove_image(path),
        Operation::RenameImage { from, to } => draft.rename_image(from, to),
        Operation::Resize { id, size } => draft.resize(*id, *size),
        Operation::Reserve { count } => draft.reserve(*count),
    }
}

impl Draft<'_> {
    fn reserve(&mut self, count: u64) -> Result<Outcome, NsError> {
        if !(1..=MAX_RESERVE).contains(&count) {
            return Err(NsError::Inval);
        }
        let (next, revision) = self.namespace().next_number()?;
        let end = next.checked_add(count).filter(|end| *end <= 1 << NUMBER_BITS);
        let end = end.ok_or(NsError::NoSpace)?;
        let key = keys::NEXT.to_owned();
        self.require(Compare::ModRevision(key.clone(), revision));
        self.change(Change::put(key, inode::encode(&end)));
        Ok(Outcome::Numbers(next, end))
    }

    fn purge_done(&mut self, id: ImageId) -> Result<Outcome, NsError> {
        if let Some(revision) = self.namespace().purge_revision(id) {
            let key = keys::purge(id);
            self.require(Compare::ModRevision(key.clone(), revision));
            self.require(Compare::EmptyPrefix(keys::users(id)));
            self.change(Change::Delete(key));
        }
        Ok(Outcome::Done)
    }

    /// What the gateway wrote last may not have moved the file's times: other clients would keep what they have cached.
    fn end_use(&mut self, id: ImageId, client: ClientId) -> Result<Outcome, NsError> {
        let Some(usage) = self.namespace().use_of(id, client) else {
            return Ok(Outcome::Done);
        };
        let key = keys::usage(id, client);
        self.require(Compare::Absent(registration(client)));
        self.require(Compare::ModRevision(key.clone(), usage.revision));
        self.change(Change::Delete(key));
        if self.namespace().inode(id).is_some() {
            let now = self.context().now;
            self.edit(id)?.touch(now);
        }
        Ok(Outcome::Done)
    }
}

/// Whether `name` can be that of an entry; `.` and `..` are the caller's.
fn check_name(name: &[u8]) -> Result<(), NsError> {
    if name.len() > crate::MAX_NAME {
        return Err(NsError::NameTooLong);
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(NsError::Inval);
    }
    Ok(())
}

fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}
