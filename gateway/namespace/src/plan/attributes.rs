//! Attributes: mode, owner, times, size, and the truncations that a smaller size leaves to be done.

use trivet_core::ImageId;

use super::draft::Draft;
use crate::MAX_SIZE;
use crate::access::{Access, SETGID, SETUID, may, may_or_owns};
use crate::inode::{Inode, Kind, MODE_BITS, Time, Trimming};
use crate::operation::{Attributes, NsError, Outcome, SetTime};

const GROUP_EXECUTE: u32 = 0o010;

impl Draft<'_> {
    pub(super) fn set_attributes(
        &mut self,
        id: ImageId,
        changes: &Attributes,
        guard_ctime: Option<Time>,
    ) -> Result<Outcome, NsError> {
        let before = self.read(id)?.clone();
        if guard_ctime.is_some_and(|guard| guard != before.ctime) {
            return Err(NsError::NotSync);
        }
        if *changes == Attributes::default() {
            return Ok(Outcome::Done);
        }
        let mut after = before.clone();
        self.apply(&mut after, changes)?;
        after.verifier = None;
        *self.edit(id)? = after;
        if let Some(size) = changes.size {
            if !may_or_owns(&before, self.caller(), Access::WRITE) {
                return Err(NsError::Access);
            }
            self.set_size(id, size)?;
            // A time that is given wins over the truncation's.
            let now = self.context().now;
            set_time(&mut self.edit(id)?.mtime, changes.mtime, now);
        }
        Ok(Outcome::Done)
    }

    /// Everything but the size, on a working copy.
    pub(super) fn apply(&self, inode: &mut Inode, changes: &Attributes) -> Result<(), NsError> {
        self.check_times(inode, changes)?;
        self.set_owner(inode, changes)?;
        if let Some(mode) = changes.mode {
            self.set_mode(inode, mode)?;
        }
        let now = self.context().now;
        inode.change(now);
        set_time(&mut inode.atime, changes.atime, now);
        set_time(&mut inode.mtime, changes.mtime, now);
        Ok(())
    }

    fn check_times(&self, inode: &Inode, changes: &Attributes) -> Result<(), NsError> {
        let owns = self.caller().owns(inode);
        for time in [changes.atime, changes.mtime] {
            match time {
                SetTime::Keep => {}
                SetTime::Now if owns || may(inode, self.caller(), Access::WRITE) => {}
                SetTime::Now => return Err(NsError::Access),
                SetTime::To(time) if !time.is_valid() => return Err(NsError::Inval),
                SetTime::To(_) if owns => {}
                SetTime::To(_) => return Err(NsError::Perm),
            }
        }
        Ok(())
    }

    /// Root gives away; an owner may change the group to one of its own (chown(2)).
    fn set_owner(&self, inode: &mut Inode, changes: &Attributes) -> Result<(), NsError> {
        let (uid, gid) = (changes.uid.unwrap_or(inode.uid), changes.gid.unwrap_or(inode.gid));
        let caller = self.caller();
        let own = caller.owns(inode);
        if (changes.uid.is_some() || changes.gid.is_some()) && !own {
            return Err(NsError::Perm);
        }
        if !caller.is_root() && (uid != inode.uid || (gid != inode.gid && !caller.is_in(gid))) {
            return Err(NsError::Perm);
        }
        if (uid, gid) != (inode.uid, inode.gid) && !inode.is_dir() {
            drop_set_id(inode);
        }
        (inode.uid, inode.gid) = (uid, gid);
        Ok(())
    }

    fn set_mode(&self, inode: &mut Inode, mode: u32) -> Result<(), NsError> {
        let caller = self.caller();
        if !caller.owns(inode) {
            return Err(NsError::Perm);
        }
        let foreign = !caller.is_root() && !caller.is_in(inode.gid);
        inode.mode = mode & MODE_BITS & if foreign { !SETGID } else { MODE_BITS };
        Ok(())
    }

    /// Sets the size of a file; a smaller one leaves a [`Trimming`] for this gateway. While there is one no size is set, not
    /// even the one that there is: others may still write what is cut off.
    pub(super) fn set_size(&mut self, id: ImageId, size: u64) -> Result<(), NsError> {
        let (now, by) = (self.context().now, self.context().gateway);
        let is_root = self.caller().is_root();
        let inode = self.edit(id)?;
        match inode.kind {
            Kind::File => {}
            Kind::Dir => return Err(NsError::IsDir),
            _ => return Err(NsError::Inval),
        }
        if size > MAX_SIZE {
            return Err(NsError::FileTooBig);
        }
        match inode.trimming {
            Some(trimming) => return Err(NsError::Trimming(trimming)),
            None if size < inode.size => {
                inode.trimming = Some(Trimming {
                    from: size,
                    to: inode.size,
                    by,
                });
            }
            None => {}
        }
        let is_cut = size < inode.size;
        inode.size = size;
        inode.touch(now);
        if is_cut {
            inode.cut = Some(inode.ctime);
        }
        if !is_root {
            drop_set_id(inode);
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, id: ImageId, size: u64) -> Result<Outcome, NsError> {
        self.as_administrator();
        if self.read(id)?.size != size || self.read(id)?.kind != Kind::File {
            self.set_size(id, size)?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn grow(&mut self, id: ImageId, size: u64, mtime: Time, cut: Option<Time>) -> Result<Outcome, NsError> {
        let inode = self.edit(id)?;
        if inode.kind != Kind::File || !mtime.is_valid() {
            return Err(NsError::Inval);
        }
        if size > MAX_SIZE {
            return Err(NsError::FileTooBig);
        }
        if inode.cut != cut {
            return Err(NsError::Cut);
        }
        if let Some(trimming) = inode.trimming.filter(|_| size > inode.size) {
            return Err(NsError::Trimming(trimming));
        }
        inode.size = inode.size.max(size);
        inode.touch(mtime);
        Ok(Outcome::Done)
    }

    pub(super) fn touch_files(&mut self, times: &[(ImageId, Time)]) -> Result<Outcome, NsError> {
        for &(id, time) in times.iter().filter(|(_, time)| time.is_valid()) {
            if self.namespace().inode(id).is_some_and(|inode| inode.kind == Kind::File) {
                self.edit(id)?.touch(time);
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn trim_done(&mut self, id: ImageId, trimming: Trimming) -> Result<Outcome, NsError> {
        if self.is_trimming(id, trimming) {
            self.edit(id)?.trimming = None;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn take_trim(&mut self, id: ImageId, trimming: Trimming) -> Result<Outcome, NsError> {
        if self.is_trimming(id, trimming) {
            let by = self.context().gateway;
            self.edit(id)?.trimming = Some(Trimming { by, ..trimming });
        }
        Ok(Outcome::Done)
    }

    fn is_trimming(&self, id: ImageId, trimming: Trimming) -> bool {
        self.namespace()
            .inode(id)
            .is_some_and(|inode| inode.trimming == Some(trimming))
    }
}

fn set_time(time: &mut Time, set: SetTime, now: Time) {
    match set {
        SetTime::Keep => {}
        SetTime::Now => *time = now,
        SetTime::To(to) => *time = to,
    }
}

/// Set-user-id goes with the owner; set-group-id too where it means execution (chown(2)).
fn drop_set_id(inode: &mut Inode) {
    inode.mode &= !SETUID;
    if inode.mode & GROUP_EXECUTE != 0 {
        inode.mode &= !SETGID;
    }
}
