//! Keys and values of the namespace (`docs/metadata-keys.md`), one in a line.

/// A root with two directories in it, one moved within the other, and one of everything else.
const TREE: &str = r#"config/next_image 70
vfs/inode/1 {"kind":"dir","mode":493,"uid":0,"gid":0,"size":4096,"nlink":3,"atime":[1,0],"mtime":[2,0],"ctime":[2,1],"generation":5,"parent":1,"next_cookie":21}
vfs/entry/1/vms {"id":16,"cookie":16}
vfs/entry/1/web%2001 {"id":1000000000007,"cookie":17}
vfs/entry/1/link {"id":18,"cookie":18}
vfs/entry/1/sda {"id":19,"cookie":19}
vfs/entry/1/pipe {"id":20,"cookie":20}
vfs/inode/10 {"kind":"dir","mode":448,"uid":7,"gid":7,"size":4096,"nlink":2,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":6,"parent":1,"next_cookie":17}
vfs/entry/10/hard {"id":17,"cookie":16}
vfs/inode/11 {"kind":"file","mode":420,"uid":0,"gid":0,"size":4096,"nlink":1,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":7,"verifier":99,"trimming":{"from":8192,"to":131072,"by":3},"cut":[1,5]}
vfs/inode/12 {"kind":"symlink","mode":511,"uid":0,"gid":0,"size":2,"nlink":1,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":8,"target":"a%2F"}
vfs/inode/13 {"kind":"block","mode":384,"uid":0,"gid":0,"size":0,"nlink":1,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":9,"rdev":[8,1]}
vfs/inode/14 {"kind":"fifo","mode":384,"uid":0,"gid":0,"size":0,"nlink":1,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":9}
vfs/purge/15 {"size":131072}
vfs/use/11/00000000000000a1 {"agreed":[1,5]}
vfs/use/11/00000000000000a2 {}
vfs/reply/192.0.2.1%20host/1f {"node":18}
vfs/reply/192.0.2.1%20host/20 {}
vfs/done/00000000000000a1/1f {}
vfs/done/00000000000000a1/20 {"void":true}
"#;

/// Directories that lie within each other.
const CYCLE: &str = r#"vfs/inode/50 {"kind":"dir","mode":493,"uid":0,"gid":0,"size":4096,"nlink":3,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":1,"parent":81,"next_cookie":21}
vfs/inode/51 {"kind":"dir","mode":493,"uid":0,"gid":0,"size":4096,"nlink":3,"atime":[1,0],"mtime":[1,0],"ctime":[1,0],"generation":1,"parent":80,"next_cookie":21}
vfs/entry/50/b {"id":81,"cookie":20}
vfs/entry/51/a {"id":80,"cookie":20}
"#;

/// The trees, and each line of them.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let lines = TREE.split_inclusive('\n');
    [TREE, CYCLE]
        .into_iter()
        .chain(lines)
        .map(|text| text.as_bytes().to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use trivet_core::ImageId;
    use trivet_core::kv::{KeyValue, Notice};
    use trivet_namespace::{Namespace, ROOT};

    use super::TREE;

    #[test]
    fn the_tree_is_one() {
        let rows = TREE.lines().map(|line| line.split_once(' ').unwrap());
        let keys = rows.map(|(key, value)| KeyValue {
            key: key.into(),
            value: value.into(),
            mod_revision: 1,
        });
        let mut namespace = Namespace::default();
        namespace.apply(&Notice::Snapshot {
            revision: 1,
            keys: keys.collect(),
        });
        assert_eq!(namespace.entries(ROOT, 0).count(), 5);
        assert_eq!((namespace.files().count(), namespace.trims().count()), (1, 1));
        assert_eq!(namespace.lookup(ImageId(16), b"hard").ok(), Some(ImageId(17)));
    }
}
