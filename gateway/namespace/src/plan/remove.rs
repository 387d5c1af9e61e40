//! Removing names.

use trivet_core::ImageId;

use super::draft::Draft;
use super::{check_name, is_dots};
use crate::operation::{NsError, Outcome};

impl Draft<'_> {
    pub(super) fn remove(&mut self, parent: ImageId, name: &[u8]) -> Result<Outcome, NsError> {
        check_name(name)?;
        self.may_search(parent)?;
        if is_dots(name) {
            return Err(NsError::IsDir);
        }
        let entry = self.entry(parent, name)?.ok_or(NsError::NotFound)?;
        self.may_change(parent)?;
        self.may_take(parent, entry.id)?;
        if self.read_named(entry.id)?.is_dir() {
            return Err(NsError::IsDir);
        }
        self.clear_name(parent, name)?;
        self.unlink(entry.id)?;
        Ok(Outcome::Done)
    }

    pub(super) fn remove_dir(&mut self, parent: ImageId, name: &[u8]) -> Result<Outcome, NsError> {
        check_name(name)?;
        self.may_search(parent)?;
        match name {
            b"." => return Err(NsError::Inval),
            b".." => return Err(NsError::NotEmpty),
            _ => {}
        }
        let entry = self.entry(parent, name)?.ok_or(NsError::NotFound)?;
        self.may_change(parent)?;
        self.may_take(parent, entry.id)?;
        if !self.read_named(entry.id)?.is_dir() {
            return Err(NsError::NotDir);
        }
        self.clear_name(parent, name)?;
        self.drop_dir(parent, entry.id)?;
        Ok(Outcome::Done)
    }
}
