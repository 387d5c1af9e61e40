//! Making: files, directories, symbolic links, special files, hard links.

use trivet_core::{ImageId, PoolId};

use super::draft::Draft;
use super::{check_name, is_dots};
use crate::access::{Access, SETGID, may_or_owns};
use crate::inode::{Inode, Kind};
use crate::operation::{Attributes, CreateHow, NsError, Numbers, Outcome, Special};
use crate::{MAX_LINKS, MAX_SIZE, MAX_TARGET};

/// What is to be made, beside its attributes.
pub(super) struct Making<'a> {
    kind: Kind,
    target: Option<&'a [u8]>,
    rdev: Option<(u32, u32)>,
    verifier: Option<u64>,
}

impl<'a> Making<'a> {
    pub(super) fn of(kind: Kind) -> Making<'a> {
        Making {
            kind,
            target: None,
            rdev: None,
            verifier: None,
        }
    }

    pub(super) fn special(special: Special) -> Making<'a> {
        let (kind, rdev) = special.parts();
        Making {
            rdev,
            ..Making::of(kind)
        }
    }

    pub(super) fn symlink(target: &'a [u8]) -> Result<Making<'a>, NsError> {
        match target.len() {
            0 => Err(NsError::Inval),
            1..=MAX_TARGET => Ok(Making {
                target: Some(target),
                ..Making::of(Kind::Symlink)
            }),
            _ => Err(NsError::NameTooLong),
        }
    }

    fn default_mode(&self) -> u32 {
        match self.kind {
            Kind::Dir => 0o755,
            Kind::Symlink => 0o777,
            _ => 0o644,
        }
    }
}

impl Draft<'_> {
    pub(super) fn create_file(
        &mut self,
        parent: ImageId,
        name: &[u8],
        how: CreateHow,
        attributes: &Attributes,
        numbers: &mut Numbers,
    ) -> Result<Outcome, NsError> {
        let verifier = match how {
            CreateHow::Exclusive(verifier) => Some(verifier),
            CreateHow::Unchecked | CreateHow::Guarded => None,
        };
        self.check_new(parent, name)?;
        if let Some(found) = self.entry(parent, name)? {
            return self.found(found.id, how, attributes.size);
        }
        // The client of an exclusive create sets the attributes afterwards (RFC 1813, 3.3.8).
        let later = Attributes {
            mode: Some(0o600),
            ..Attributes::default()
        };
        let attributes = if verifier.is_some() { &later } else { attributes };
        let making = Making {
            verifier,
            ..Making::of(Kind::File)
        };
        self.make((parent, name), making, attributes, numbers)
            .map(Outcome::Node)
    }

    fn found(&mut self, id: ImageId, how: CreateHow, size: Option<u64>) -> Result<Outcome, NsError> {
        let inode = self.read_named(id)?.clone();
        let is_it = match how {
            CreateHow::Guarded => false,
            CreateHow::Unchecked => true,
            CreateHow::Exclusive(verifier) => inode.verifier == Some(verifier),
        };
        if inode.kind != Kind::File || !is_it {
            return Err(NsError::Exists);
        }
        if let (CreateHow::Unchecked, Some(size)) = (how, size) {
            if !may_or_owns(&inode, self.caller(), Access::WRITE) {
                return Err(NsError::Access);
            }
            if size != inode.size {
                self.set_size(id, size)?;
            }
        }
        Ok(Outcome::Node(id))
    }

    /// The name can be made in the directory, as far as its spelling and the directory's mode go.
    fn check_new(&mut self, parent: ImageId, name: &[u8]) -> Result<(), NsError> {
        check_name(name)?;
        self.may_search(parent)?;
        if is_dots(name) { Err(NsError::Exists) } else { Ok(()) }
    }

    pub(super) fn make(
        &mut self,
        (parent, name): (ImageId, &[u8]),
        making: Making<'_>,
        attributes: &Attributes,
        numbers: &mut Numbers,
    ) -> Result<ImageId, NsError> {
        self.check_new(parent, name)?;
        if self.entry(parent, name)?.is_some() {
            return Err(NsError::Exists);
        }
        self.may_change(parent)?;
        if making.rdev.is_some() && !self.caller().is_root() {
            return Err(NsError::Perm);
        }
        let inode = self.new_inode(parent, making, attributes)?;
        let pool = match inode.kind {
            Kind::File => self.context().pool.ok_or(NsError::NoPool)?,
            _ => PoolId(0),
        };
        let id = ImageId::new(pool, numbers.take()?);
        self.set_name(parent, name, id)?;
        if inode.is_dir() {
            let parent = self.edit(parent)?;
            parent.nlink = parent.nlink.checked_add(1).ok_or(NsError::TooManyLinks)?;
        }
        self.add(id, inode);
        Ok(id)
    }

    fn new_inode(&mut self, parent: ImageId, making: Making<'_>, attributes: &Attributes) -> Result<Inode, NsError> {
        let dir = self.read_dir(parent)?.clone();
        let inherits = dir.mode & SETGID != 0;
        let mode = attributes.mode.unwrap_or(making.default_mode());
        let owner = (self.caller().uid, if inherits { dir.gid } else { self.caller().gid });
        let mut inode = Inode::new(making.kind, mode, owner, self.context().now);
        // What the caller could not set afterwards it cannot set now.
        self.apply(
            &mut inode,
            &Attributes {
                mode: Some(mode),
                size: None,
                ..*attributes
            },
        )?;
        inode.ctime = self.context().now;
        if inherits && making.kind == Kind::Dir {
            inode.mode |= SETGID;
        }
        if let Some(size) = attributes.size.filter(|_| making.kind == Kind::File) {
            inode.size = Some(size).filter(|size| *size <= MAX_SIZE).ok_or(NsError::FileTooBig)?;
        }
        if let Some(target) = making.target {
            inode.size = u64::try_from(target.len()).map_err(|_| NsError::NameTooLong)?;
            inode.target = Some(target.to_vec());
        }
        (inode.rdev, inode.verifier) = (making.rdev, making.verifier);
        Ok(if making.kind == Kind::Dir {
            inode.into_directory(parent)
        } else {
            inode
        })
    }

    pub(super) fn link(&mut self, id: ImageId, parent: ImageId, name: &[u8]) -> Result<Outcome, NsError> {
        let inode = self.read(id)?;
        if inode.is_dir() {
            return Err(NsError::IsDir);
        }
        if inode.nlink >= MAX_LINKS {
            return Err(NsError::TooManyLinks);
        }
        self.check_new(parent, name)?;
        if self.entry(parent, name)?.is_some() {
            return Err(NsError::Exists);
        }
        self.may_change(parent)?;
        self.set_name(parent, name, id)?;
        let now = self.context().now;
        let inode = self.edit(id)?;
        inode.nlink += 1;
        inode.change(now);
        Ok(Outcome::Done)
    }
}
