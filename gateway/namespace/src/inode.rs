//! Inodes and their JSON. What is read is checked: a value that breaks a rule is no inode.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trivet_core::{ClientId, ImageId};

use crate::{FIRST_COOKIE, MAX_SIZE, MAX_TARGET};

/// Permission bits with set-uid, set-gid and sticky.
pub(crate) const MODE_BITS: u32 = 0o7777;
/// What a directory gives as its size, bytes.
const DIRECTORY_SIZE: u64 = 4096;
const NANOS: u32 = 1_000_000_000;

/// A point in wall-clock time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(i64, u32)", into = "(i64, u32)")]
pub struct Time {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds, less than 10^9.
    pub nsec: u32,
}

impl From<(i64, u32)> for Time {
    fn from((sec, nsec): (i64, u32)) -> Time {
        Time { sec, nsec }
    }
}

impl From<Time> for (i64, u32) {
    fn from(time: Time) -> (i64, u32) {
        (time.sec, time.nsec)
    }
}

impl Time {
    /// `now`, or a nanosecond after this one if that is not later: clients take an attribute with an
    /// older ctime for an old one.
    pub(crate) fn advance(self, now: Time) -> Time {
        if now > self {
            return now;
        }
        match self.nsec + 1 {
            NANOS => Time {
                sec: self.sec.saturating_add(1),
                nsec: 0,
            },
            nsec => Time { sec: self.sec, nsec },
        }
    }

    pub(crate) fn is_valid(self) -> bool {
        self.nsec < NANOS
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file: an image with the inode's id.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// A truncation whose data is still to be removed. Until then the size stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trimming {
    /// First byte to remove.
    pub from: u64,
    /// The byte after the last to remove.
    pub to: u64,
    /// The gateway that removes it. Only this one may: a late removal by another could hit newer data.
    pub by: ClientId,
}

/// An inode, as in `vfs/inode/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// What it is; never changes.
    pub kind: Kind,
    /// Permission bits, set-uid, set-gid, sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; of a symlink, of its target.
    pub size: u64,
    /// Names; of a directory, 2 and the directories in it.
    pub nlink: u32,
    /// Last read, as clients set it.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Tells this inode from one with the same id in an older copy of the store (wall clock, ns).
    pub generation: u64,
    /// Of an exclusive create, until attributes are set (RFC 1813, 3.3.8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<u64>,
    /// Of a symlink; any bytes, escaped as names are.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "escaped")]
    pub target: Option<Vec<u8>>,
    /// Of a device: major, minor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdev: Option<(u32, u32)>,
    /// Of a directory: the one that it is in; of the root, itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ImageId>,
    /// Of a directory: the cookie of the next new entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cookie: Option<u64>,
    /// Of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trimming: Option<Trimming>,
    /// Of a file: the ctime that its last truncation gave it, which tells truncations apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Time>,
}

mod escaped {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::keys;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(v: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        v.as_deref().map(keys::escape).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Option::deserialize(d)?;
        text.map(|text| keys::unescape(&text).ok_or_else(|| D::Error::custom("bad escape")))
            .transpose()
    }
}

impl Inode {
    /// An inode of `kind` made `now` by `uid` and `gid`; what its kind needs is still to be filled in.
    pub(crate) fn new(kind: Kind, mode: u32, (uid, gid): (u32, u32), now: Time) -> Inode {
        let sec = u64::try_from(now.sec).unwrap_or(0);
        let generation = sec.wrapping_mul(u64::from(NANOS)).wrapping_add(u64::from(now.nsec));
        Inode {
            kind,
            mode: mode & MODE_BITS,
            uid,
            gid,
            size: 0,
            nlink: 1,
            atime: now,
            mtime: now,
            ctime: now,
            generation,
            verifier: None,
            target: None,
            rdev: None,
            parent: None,
            next_cookie: None,
            trimming: None,
            cut: None,
        }
    }

    /// Makes it an empty directory in `parent`.
    pub(crate) fn into_directory(self, parent: ImageId) -> Inode {
        let next_cookie = Some(FIRST_COOKIE);
        Inode {
            size: DIRECTORY_SIZE,
            nlink: 2,
            parent: Some(parent),
            next_cookie,
            ..self
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// Its content changed.
    pub(crate) fn touch(&mut self, now: Time) {
        self.change(now);
        self.mtime = self.ctime;
    }

    /// The inode itself changed.
    pub(crate) fn change(&mut self, now: Time) {
        self.ctime = self.ctime.advance(now);
    }

    /// Whether it follows the rules above.
    fn check(&self) -> Result<(), &'static str> {
        let kind = self.kind;
        let times = [self.atime, self.mtime, self.ctime];
        let rules = [
            (self.mode & !MODE_BITS == 0, "mode has more than the permission bits"),
            (self.size <= MAX_SIZE, "too large"),
            (self.nlink >= 1, "no links"),
            (times.iter().all(|time| time.is_valid()), "not a time"),
            (
                self.parent.is_some() == (kind == Kind::Dir),
                "a directory and only it has a parent",
            ),
            (
                self.next_cookie.is_some() == (kind == Kind::Dir),
                "a directory and only it has cookies",
            ),
            (
                self.next_cookie.is_none_or(|next| next >= FIRST_COOKIE),
                "cookies too small",
            ),
            (
                self.target.is_some() == (kind == Kind::Symlink),
                "a symlink and only it has a target",
            ),
            (
                self.target.as_ref().is_none_or(|t| t.len() <= MAX_TARGET),
                "the target is too long",
            ),
            (
                self.rdev.is_some() == matches!(kind, Kind::Char | Kind::Block),
                "rdev and kind differ",
            ),
            (
                kind == Kind::File || self.trimming.is_none(),
                "only a file can be trimmed",
            ),
            (
                self.cut.is_none_or(Time::is_valid) && self.cut.is_some() >= self.trimming.is_some(),
                "a trimming has its time",
            ),
            (
                self.trimming.is_none_or(|t| self.size <= t.from && t.from < t.to),
                "a bad trimming",
            ),
            (self.trimming.is_none_or(|t| t.to <= MAX_SIZE), "a trimming too far"),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, rule)| Err(*rule))
    }

    /// Reads the value of a key.
    pub(crate) fn decode(value: &[u8]) -> Result<Inode, String> {
        let inode: Inode = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        inode.check()?;
        Ok(inode)
    }
}

/// The value of an entry's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryValue {
    pub(crate) id: ImageId,
    pub(crate) cookie: u64,
}

/// The value of a purge's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PurgeValue {
    /// No object beyond this many bytes was ever written.
    pub(crate) size: u64,
}

/// The value of a key.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value)
        .expect("plain structs with string keys")
        .into()
}

/// Reads the value of a key that has no rules beyond its type.
pub(crate) fn decode<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ROOT;

    const NOW: Time = Time {
        sec: 1_000,
        nsec: 999_999_999,
    };

    #[test]
    fn json_and_back() {
        let file = Inode::new(Kind::File, 0o4755, (1, 2), NOW);
        let trimming = Some(Trimming {
            from: 10,
            to: 20,
            by: ClientId(7),
        });
        let trimmed = Inode {
            size: 10,
            trimming,
            cut: Some(NOW),
            verifier: Some(u64::MAX),
            ..file.clone()
        };
        let target = Some(b"../\xff \n".to_vec());
        let link = Inode {
            kind: Kind::Symlink,
            target,
            size: 5,
            ..file.clone()
        };
        let device = Inode {
            kind: Kind::Block,
            rdev: Some((8, 1)),
            ..file.clone()
        };
        let dir = Inode {
            kind: Kind::Dir,
            ..file.clone()
        }
        .into_directory(ROOT);
        for inode in [file, trimmed, link, device, dir] {
            assert_eq!(Inode::decode(&encode(&inode)), Ok(inode));
        }
    }

    #[test]
    fn the_stored_form_stays() {
        let dir = Inode::new(Kind::Dir, 0o755, (0, 0), Time { sec: 2, nsec: 5 }).into_directory(ROOT);
        let text = r#"{"kind":"dir","mode":493,"uid":0,"gid":0,"size":4096,"nlink":2,"#.to_owned()
            + r#""atime":[2,5],"mtime":[2,5],"ctime":[2,5],"generation":2000000005,"#
            + r#""parent":1,"next_cookie":16}"#;
        assert_eq!(std::str::from_utf8(&encode(&dir)).unwrap(), text);
    }

    #[test]
    fn what_breaks_a_rule_is_no_inode() {
        let good = r#"{"kind":"file","mode":1,"uid":0,"gid":0,"size":10,"nlink":1,"atime":[0,0],"mtime":[0,0],"ctime":[0,0],"generation":0}"#;
        assert!(Inode::decode(good.as_bytes()).is_ok());
        let table = [
            (r#""mode":1"#, r#""mode":65536"#),
            (r#""mode":1"#, r#""mode":-1"#),
            (r#""size":10"#, r#""size":9223372036854775808"#),
            (r#""nlink":1"#, r#""nlink":0"#),
            (r#""atime":[0,0]"#, r#""atime":[0,1000000000]"#),
            (r#""atime":[0,0]"#, r#""atime":[0]"#),
            (r#""kind":"file""#, r#""kind":"dir""#),
            (r#""kind":"file""#, r#""kind":"symlink""#),
            (r#""kind":"file""#, r#""kind":"char""#),
            (r#""kind":"file""#, r#""kind":"door""#),
            (r#""uid":0"#, r#""uid":0,"parent":1"#),
            (r#""uid":0"#, r#""uid":0,"target":"x""#),
            (r#""uid":0"#, r#""uid":0,"next_cookie":16"#),
            (
                r#""uid":0"#,
                r#""uid":0,"trimming":{"from":9,"to":20,"by":1},"cut":[1,0]"#,
            ),
            (
                r#""uid":0"#,
                r#""uid":0,"trimming":{"from":20,"to":20,"by":1},"cut":[1,0]"#,
            ),
            (r#""uid":0"#, r#""uid":0,"trimming":{"from":10,"to":20,"by":1}"#),
            (r#""uid":0"#, r#""uid":0,"cut":[1,1000000000]"#),
            (r#""uid":0,"#, ""),
            ("}", ""),
        ];
        for (from, to) in table {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(Inode::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ctime_always_advances() {
        let later = Time { sec: 2_000, nsec: 0 };
        assert_eq!(NOW.advance(later), later);
        assert_eq!(NOW.advance(NOW), Time { sec: 1_001, nsec: 0 });
        assert_eq!(later.advance(NOW), Time { sec: 2_000, nsec: 1 });
    }
}
