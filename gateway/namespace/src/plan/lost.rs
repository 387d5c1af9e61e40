//! Names for files of which there is data and nothing else: the metadata is older than they are.

use trivet_core::ImageId;
use trivet_core::kv::{Change, Compare};

use super::NUMBER_BITS;
use super::create::Making;
use super::draft::Draft;
use crate::ROOT;
use crate::inode::{self, Inode, Kind};
use crate::keys;
use crate::mirror::Namespace;
use crate::operation::{Attributes, Context, NsError, Numbers, Outcome, Plan};

/// Where they are found.
const LOST: &[u8] = b"lost+found";
/// Files that are named at once: each takes two changes.
const AT_ONCE: usize = 20;
/// Only the administrator shall look at them at first.
const MODE: u32 = 0o600;

impl Namespace {
    /// Plans names below `/lost+found` for the first of these files, given with their sizes, that have no inode and are not
    /// being purged; none if there are none. What has to be numbered gets numbers from `free` on, which nothing ever had.
    ///
    /// # Errors
    /// `NotDir` if something else has the name of the directory, `NoSpace` if numbers run out, `Damaged`.
    pub fn plan_lost(
        &self,
        files: impl Iterator<Item = (ImageId, u64)>,
        free: u64,
        context: &Context,
    ) -> Result<Option<Plan>, NsError> {
        let is_lost = |file: &(ImageId, u64)| self.inode(file.0).is_none() && self.purge_revision(file.0).is_none();
        let lost: Vec<(ImageId, u64)> = files.filter(is_lost).take(AT_ONCE).collect();
        if lost.is_empty() {
            return Ok(None);
        }
        let mut draft = Draft::new(self, context);
        draft.as_administrator();
        let dir = draft.lost_and_found(free)?;
        for (id, size) in lost {
            let file = Inode {
                size,
                ..Inode::new(Kind::File, MODE, (0, 0), context.now)
            };
            draft.set_name(dir, id.to_string().as_bytes(), id)?;
            draft.add(id, file);
        }
        Ok(Some(draft.finish(Outcome::Done)))
    }
}

impl Draft<'_> {
    fn lost_and_found(&mut self, free: u64) -> Result<ImageId, NsError> {
        if let Some(entry) = self.entry(ROOT, LOST)? {
            self.namespace().directory(entry.id)?;
            return Ok(entry.id);
        }
        let (next, revision) = self.namespace().next_number()?;
        let number = next.max(free);
        let end = number.checked_add(1).filter(|end| *end <= 1 << NUMBER_BITS);
        let end = end.ok_or(NsError::NoSpace)?;
        let key = keys::NEXT.to_owned();
        self.require(Compare::ModRevision(key.clone(), revision));
        self.change(Change::put(key, inode::encode(&end)));
        let mut numbers = Numbers::default();
        numbers.add(number, end);
        self.make(
            (ROOT, LOST),
            Making::of(Kind::Dir),
            &Attributes::default(),
            &mut numbers,
        )
    }
}
