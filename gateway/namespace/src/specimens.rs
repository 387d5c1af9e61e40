//! One key of each kind, with a value in which nothing is absent: for who holds `docs/metadata-keys.md` against them.

use serde::Serialize;
use serde_json::Value;
use trivet_core::{ClientId, ImageId};

use crate::author::DoneValue;
use crate::inode::{EntryValue, Inode, Kind, PurgeValue, Time, Trimming};
use crate::keys;
use crate::replies::ReplyValue;
use crate::users::UseValue;

const ID: ImageId = ImageId(0x3_0000_0000_0400);
const CLIENT: ClientId = ClientId(0x1112_1314_1516_1718);
const TIME: Time = Time { sec: 1, nsec: 2 };

/// The keys with their values; none for a value that is a number.
#[must_use]
pub fn specimens() -> Vec<(String, Value)> {
    let agreed = Some(TIME);
    let reply = ReplyValue { node: Some(ID), at: 1 };
    vec![
        (keys::NEXT.to_owned(), Value::Null),
        (keys::inode(ID), json(&inode())),
        (keys::entry(ID, b"name"), json(&EntryValue { id: ID, cookie: 16 })),
        (keys::purge(ID), json(&PurgeValue { size: 1 })),
        (keys::usage(ID, CLIENT), json(&UseValue { agreed })),
        (keys::reply(b"10.0.0.1 host", 1), json(&reply)),
        (keys::done(CLIENT, 1), json(&DoneValue { void: true })),
    ]
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain structs")
}

/// No inode has all of these fields, but each is one's.
fn inode() -> Inode {
    Inode {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 1,
        nlink: 1,
        atime: TIME,
        mtime: TIME,
        ctime: TIME,
        generation: 1,
        verifier: Some(1),
        target: Some(b"x".to_vec()),
        rdev: Some((1, 2)),
        parent: Some(ID),
        next_cookie: Some(16),
        trimming: Some(Trimming {
            from: 1,
            to: 2,
            by: CLIENT,
        }),
        cut: Some(TIME),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::specimens;
    use crate::keys::{Key, parse};

    /// A kind of keys that is added needs a specimen.
    fn number(key: &Key) -> usize {
        match key {
            Key::Next => 0,
            Key::Inode(_) => 1,
            Key::Entry(..) => 2,
            Key::Purge(_) => 3,
            Key::Done(..) => 4,
            Key::Use(..) => 5,
            Key::Reply(..) => 6,
        }
    }

    #[test]
    fn every_kind_is_there() {
        let kinds: BTreeSet<usize> = specimens()
            .iter()
            .map(|(key, _)| number(&parse(key).expect("a key")))
            .collect();
        assert!(kinds.into_iter().eq(0..=6));
    }
}
