//! Who may do what: owner, group, others, and root.

use crate::inode::{Inode, Kind};

/// Set-group-id.
pub(crate) const SETGID: u32 = 0o2000;
/// Set-user-id.
pub(crate) const SETUID: u32 = 0o4000;
/// In such a directory only owners remove and rename.
const STICKY: u32 = 0o1000;

/// On whose behalf something is done; squashing has happened already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User; 0 may do everything.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub gids: Vec<u32>,
}

impl Caller {
    /// The administrator.
    #[must_use]
    pub fn root() -> Caller {
        Caller::default()
    }

    /// Whether nothing is forbidden to it.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub(crate) fn owns(&self, inode: &Inode) -> bool {
        self.is_root() || self.uid == inode.uid
    }

    pub(crate) fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.gids.contains(&gid)
    }
}

/// A kind of access; of several, all are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// Read a file, list a directory.
    pub const READ: Access = Access(4);
    /// Write a file, change a directory's entries.
    pub const WRITE: Access = Access(2);
    /// Execute a file, look up in a directory.
    pub const EXECUTE: Access = Access(1);
    /// What making, removing and renaming entries takes.
    pub const CHANGE_ENTRIES: Access = Access(3);
}

/// Whether `caller` has `access` to `inode` by its mode.
#[must_use]
pub fn may(inode: &Inode, caller: &Caller, access: Access) -> bool {
    if caller.is_root() {
        let executable = inode.kind != Kind::File || inode.mode & 0o111 != 0;
        return access.0 & Access::EXECUTE.0 == 0 || executable;
    }
    let bits = if caller.uid == inode.uid {
        inode.mode >> 6
    } else if caller.is_in(inode.gid) {
        inode.mode >> 3
    } else {
        inode.mode
    };
    bits & access.0 == access.0
}

/// As [`may`], but the owner always may: NFS has no open files, and a client checks at open only
/// (RFC 1813, 4.4).
#[must_use]
pub fn may_or_owns(inode: &Inode, caller: &Caller, access: Access) -> bool {
    caller.owns(inode) || may(inode, caller, access)
}

/// Whether the sticky bit of `dir` lets `caller` remove or rename `inode`.
pub(crate) fn may_take(dir: &Inode, inode: &Inode, caller: &Caller) -> bool {
    dir.mode & STICKY == 0 || caller.owns(dir) || caller.owns(inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    fn who(uid: u32, gid: u32, gids: &[u32]) -> Caller {
        Caller {
            uid,
            gid,
            gids: gids.to_vec(),
        }
    }

    fn inode(kind: Kind, mode: u32) -> Inode {
        Inode::new(kind, mode, (10, 20), Time::default())
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let table = [
            (0o640, who(10, 1, &[]), true, true, false),
            (0o640, who(11, 20, &[]), true, false, false),
            (0o640, who(11, 1, &[5, 20]), true, false, false),
            (0o640, who(11, 1, &[]), false, false, false),
            (0o077, who(10, 20, &[]), false, false, false),
            (0o707, who(11, 20, &[]), false, false, false),
            (0o007, who(11, 21, &[]), true, true, true),
            (0o000, who(0, 0, &[]), true, true, false),
            (0o001, who(0, 0, &[]), true, true, true),
        ];
        for (mode, caller, read, write, execute) in table {
            let file = inode(Kind::File, mode);
            let got = [Access::READ, Access::WRITE, Access::EXECUTE].map(|a| may(&file, &caller, a));
            assert_eq!(got, [read, write, execute], "{mode:o} {caller:?}");
        }
        assert!(may(&inode(Kind::Dir, 0), &Caller::root(), Access::EXECUTE));
        assert!(!may(&inode(Kind::Dir, 0o200), &who(10, 1, &[]), Access::CHANGE_ENTRIES));
        assert!(may_or_owns(&inode(Kind::File, 0), &who(10, 1, &[]), Access::WRITE));
        assert!(!may_or_owns(&inode(Kind::File, 0), &who(11, 1, &[]), Access::WRITE));
    }

    #[test]
    fn sticky_directories() {
        let file = Inode {
            uid: 30,
            ..inode(Kind::File, 0o666)
        };
        for (mode, uid, may) in [
            (0o777, 40, true),
            (0o1777, 40, false),
            (0o1777, 30, true),
            (0o1777, 10, true),
            (0o1777, 0, true),
        ] {
            assert_eq!(
                may_take(&inode(Kind::Dir, mode), &file, &who(uid, 1, &[])),
                may,
                "{mode:o} {uid}"
            );
        }
    }
}
