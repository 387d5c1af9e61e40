//! Renaming: POSIX rename(2) within the tree.

use trivet_core::ImageId;
use trivet_core::kv::Compare;

use super::draft::Draft;
use super::{check_name, is_dots};
use crate::ROOT;
use crate::access::{Access, may};
use crate::inode::EntryValue;
use crate::keys;
use crate::operation::{NsError, Outcome};

/// Directories above the target of a moved directory: each is a condition of the transaction.
const MAX_ANCESTORS: usize = 100;

type Place<'n> = (ImageId, &'n [u8]);

impl Draft<'_> {
    pub(super) fn rename(&mut self, from: Place<'_>, to: Place<'_>) -> Result<Outcome, NsError> {
        check_name(from.1)?;
        check_name(to.1)?;
        self.may_search(from.0)?;
        self.may_search(to.0)?;
        if is_dots(from.1) || is_dots(to.1) {
            return Err(NsError::Inval);
        }
        let source = self.entry(from.0, from.1)?.ok_or(NsError::NotFound)?;
        let target = self.entry(to.0, to.1)?;
        if target.is_some_and(|target| target.id == source.id) {
            // Two names of one inode, or the same name: nothing happens (POSIX).
            return Ok(Outcome::Done);
        }
        self.may_move(from.0, source.id, to.0)?;
        let is_dir = self.read_named(source.id)?.is_dir();
        if is_dir && from.0 != to.0 {
            self.not_into_itself(source.id, to.0)?;
        }
        if let Some(target) = target {
            self.replace(to.0, target, is_dir)?;
        }
        self.set_name(to.0, to.1, source.id)?;
        self.clear_name(from.0, from.1)?;
        self.relocate(source.id, from.0, to.0)?;
        Ok(Outcome::Done)
    }

    fn may_move(&mut self, from: ImageId, id: ImageId, to: ImageId) -> Result<(), NsError> {
        self.may_change(from)?;
        self.may_change(to)?;
        self.may_take(from, id)?;
        let inode = self.read_named(id)?.clone();
        // Its `..` changes (rename(2), EACCES).
        let rewritten = inode.is_dir() && from != to;
        if rewritten && !may(&inode, self.caller(), Access::WRITE) {
            return Err(NsError::Access);
        }
        Ok(())
    }

    /// Makes way at the target.
    fn replace(&mut self, to: ImageId, target: EntryValue, is_dir: bool) -> Result<(), NsError> {
        self.may_take(to, target.id)?;
        match (is_dir, self.read_named(target.id)?.is_dir()) {
            (true, false) => Err(NsError::NotDir),
            (false, true) => Err(NsError::IsDir),
            (true, true) => self.drop_dir(to, target.id),
            (false, false) => self.unlink(target.id),
        }
    }

    /// The directory `id` is not above `to`, and will not be by another rename meanwhile: every
    /// directory on the way up keeps its place, that is, its entry.
    fn not_into_itself(&mut self, id: ImageId, to: ImageId) -> Result<(), NsError> {
        let namespace = self.namespace();
        for (depth, dir) in namespace.chain(to).enumerate() {
            if dir == id {
                return Err(NsError::Inval);
            }
            if dir == ROOT {
                return Ok(());
            }
            if depth >= MAX_ANCESTORS {
                return Err(NsError::TooDeep);
            }
            let damaged = || NsError::Damaged(keys::inode(dir));
            let (parent, name) = namespace.name_of(dir).ok_or_else(damaged)?;
            let slot = namespace.slot(parent, name)?.ok_or_else(damaged)?;
            self.require(Compare::ModRevision(keys::entry(parent, name), slot.revision));
        }
        Err(NsError::Damaged(keys::inode(to)))
    }

    fn relocate(&mut self, id: ImageId, from: ImageId, to: ImageId) -> Result<(), NsError> {
        let now = self.context().now;
        let inode = self.edit(id)?;
        inode.change(now);
        if inode.is_dir() && from != to {
            inode.parent = Some(to);
            let left = self.edit(from)?;
            left.nlink = left.nlink.saturating_sub(1).max(2);
            let entered = self.edit(to)?;
            entered.nlink = entered.nlink.checked_add(1).ok_or(NsError::TooManyLinks)?;
        }
        Ok(())
    }
}
