//! The administrator's operations on images, by path.

use trivet_core::ImageId;

use super::create::Making;
use super::draft::Draft;
use super::{check_name, is_dots};
use crate::ROOT;
use crate::inode::Kind;
use crate::operation::{Attributes, CreateHow, NsError, Numbers, Outcome};

/// Directories in the path of an image that is made: each new one takes two changes.
const MAX_PARENTS: usize = 40;

impl Draft<'_> {
    pub(super) fn create_image(&mut self, path: &[u8], size: u64, numbers: &mut Numbers) -> Result<Outcome, NsError> {
        self.as_administrator();
        let (parents, name) = split(path)?;
        if parents.len() > MAX_PARENTS {
            return Err(NsError::TooDeep);
        }
        let mut dir = ROOT;
        for part in parents {
            dir = self.enter_or_make(dir, part, numbers)?;
        }
        let attributes = Attributes {
            size: Some(size),
            ..Attributes::default()
        };
        self.create_file(dir, name, CreateHow::Guarded, &attributes, numbers)
    }

    fn enter_or_make(&mut self, dir: ImageId, name: &[u8], numbers: &mut Numbers) -> Result<ImageId, NsError> {
        if let Some(entry) = self.entry(dir, name)? {
            self.namespace().directory(entry.id)?;
            return Ok(entry.id);
        }
        self.make((dir, name), Making::of(Kind::Dir), &Attributes::default(), numbers)
    }

    pub(super) fn remove_image(&mut self, path: &[u8]) -> Result<Outcome, NsError> {
        self.as_administrator();
        let (dir, name) = self.find(path)?;
        self.remove(dir, name)
    }

    pub(super) fn rename_image(&mut self, from: &[u8], to: &[u8]) -> Result<Outcome, NsError> {
        self.as_administrator();
        let (from, to) = (self.find(from)?, self.find(to)?);
        if self.entry(to.0, to.1)?.is_some() {
            return Err(NsError::Exists);
        }
        self.rename(from, to)
    }

    /// The directory and the name that a path ends in.
    fn find<'p>(&mut self, path: &'p [u8]) -> Result<(ImageId, &'p [u8]), NsError> {
        let (parents, name) = split(path)?;
        let namespace = self.namespace();
        let dir = parents.iter().try_fold(ROOT, |dir, part| namespace.lookup(dir, part))?;
        Ok((dir, name))
    }
}

fn split(path: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), NsError> {
    let mut parts: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in &parts {
        check_name(part)?;
        if is_dots(part) {
            return Err(NsError::Inval);
        }
    }
    let name = parts.pop().ok_or(NsError::Inval)?;
    Ok((parts, name))
}
