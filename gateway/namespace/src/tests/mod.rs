//! Tests of the whole crate: a store in memory, one gateway's view of it, and the rules that the
//! stored keys keep whatever happened.

mod attributes;
mod images;
mod mirror;
mod operations;
mod race;
mod users;

use std::collections::BTreeMap;

use trivet_core::kv::{Change, Compare, Event, KeyValue, Notice, Revision, Txn, TxnOutcome};
use trivet_core::{ClientId, ImageId, PoolId};

use crate::inode::{self, EntryValue};
use crate::keys::{self, Key};
use crate::{
    Attributes, Caller, Context, CreateHow, Inode, Namespace, NsError, Numbers, Operation, Outcome, Plan, ROOT, Time,
};

/// What every metadata store does, in memory.
#[derive(Default)]
struct Store {
    revision: Revision,
    keys: BTreeMap<String, KeyValue>,
    log: Vec<Notice>,
}

impl Store {
    fn new() -> Store {
        let mut store = Store::default();
        let txn = Namespace::bootstrap(Time { sec: 1, nsec: 0 });
        assert_eq!(store.run(&txn), TxnOutcome::Committed(1));
        assert_eq!(store.run(&txn), TxnOutcome::Refused(1));
        store
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, revision) => self.keys.get(key).is_some_and(|row| row.mod_revision == *revision),
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Exists(key) => self.keys.contains_key(key),
            Compare::EmptyPrefix(prefix) => !self.keys.keys().any(|key| key.starts_with(prefix)),
        }
    }

    fn run(&mut self, txn: &Txn) -> TxnOutcome {
        assert!(txn.compare.len() <= 128 && txn.changes.len() <= 100, "too large");
        let mut touched: Vec<_> = txn.changes.iter().map(Change::key).collect();
        touched.sort_unstable();
        assert!(
            touched.windows(2).all(|pair| pair[0] != pair[1]),
            "a key twice: {touched:?}"
        );
        if !txn.compare.iter().all(|compare| self.holds(compare)) {
            return TxnOutcome::Refused(self.revision);
        }
        if txn.changes.is_empty() {
            return TxnOutcome::Committed(self.revision);
        }
        self.revision += 1;
        let events = txn.changes.iter().map(|change| self.change(change)).collect();
        self.log.push(Notice::Changes {
            revision: self.revision,
            events,
        });
        TxnOutcome::Committed(self.revision)
    }

    fn change(&mut self, change: &Change) -> Event {
        match change {
            Change::Put { key, value, .. } => {
                let (key, value) = (key.clone(), value.clone());
                let row = KeyValue {
                    key,
                    value,
                    mod_revision: self.revision,
                };
                self.keys.insert(row.key.clone(), row.clone());
                Event::Put(row)
            }
            Change::Delete(key) => {
                self.keys.remove(key).expect("planners delete what exists");
                Event::Delete {
                    key: key.clone(),
                    revision: self.revision,
                }
            }
        }
    }

    fn snapshot(&self) -> Notice {
        Notice::Snapshot {
            revision: self.revision,
            keys: self.keys.values().cloned().collect(),
        }
    }

    fn mirror(&self) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.apply(&self.snapshot());
        namespace
    }

    fn inodes(&self) -> BTreeMap<ImageId, Inode> {
        let read = |row: &KeyValue| match keys::parse(&row.key) {
            Some(Key::Inode(id)) => Some((id, Inode::decode(&row.value).unwrap())),
            _ => None,
        };
        self.keys.values().filter_map(read).collect()
    }

    fn entries(&self) -> Vec<(ImageId, Vec<u8>, EntryValue)> {
        let read = |row: &KeyValue| match keys::parse(&row.key)? {
            Key::Entry(dir, name) => Some((dir, name, inode::decode(&row.value).unwrap())),
            _ => None,
        };
        self.keys.values().filter_map(read).collect()
    }

    /// No orphan, no lost name, right link counts, one tree, cookies once.
    fn check(&self) {
        let (inodes, entries) = (self.inodes(), self.entries());
        let (mut names, mut subdirs) = (BTreeMap::new(), BTreeMap::new());
        let mut cookies = std::collections::BTreeSet::new();
        for (dir, name, entry) in &entries {
            let parent = &inodes[dir];
            let inode = &inodes[&entry.id];
            assert!(entry.cookie < parent.next_cookie.unwrap(), "{dir} {name:?}");
            assert!(cookies.insert((*dir, entry.cookie)), "a cookie twice in {dir}");
            *names.entry(entry.id).or_insert(0u32) += 1;
            if inode.is_dir() {
                assert_eq!(inode.parent, Some(*dir), "{}", entry.id);
                *subdirs.entry(*dir).or_insert(0u32) += 1;
            }
        }
        for (id, inode) in &inodes {
            let named = names.get(id).copied().unwrap_or(0);
            let subdirs = subdirs.get(id).copied().unwrap_or(0);
            if inode.is_dir() {
                assert_eq!(named, u32::from(*id != ROOT), "directory {id} has {named} names");
                assert_eq!(inode.nlink, 2 + subdirs, "directory {id}");
            } else {
                assert_eq!(named, inode.nlink, "{id}");
            }
            assert!(!self.keys.contains_key(&keys::purge(*id)), "{id} is purged alive");
            let mut at = *id;
            for _ in 0..=inodes.len() {
                at = if inodes[&at].is_dir() {
                    inodes[&at].parent.unwrap()
                } else {
                    ROOT
                };
            }
            assert_eq!(at, ROOT, "{id} is in a cycle");
        }
    }
}

/// One gateway with its store, always up to date.
struct World {
    store: Store,
    namespace: Namespace,
    numbers: Numbers,
    context: Context,
}

impl World {
    fn new() -> World {
        let store = Store::new();
        let namespace = store.mirror();
        World {
            store,
            namespace,
            numbers: Numbers::default(),
            context: context(1),
        }
    }

    fn plan(&mut self, operation: &Operation) -> Result<Plan, NsError> {
        let planned = self.namespace.plan(operation, &self.context, &mut self.numbers);
        if planned != Err(NsError::NeedNumbers) {
            return planned;
        }
        let reserved = self.run(&Operation::Reserve { count: 100 })?;
        let Outcome::Numbers(first, end) = reserved else {
            panic!("{reserved:?}")
        };
        self.numbers.add(first, end);
        self.namespace.plan(operation, &self.context, &mut self.numbers)
    }

    fn run(&mut self, operation: &Operation) -> Result<Outcome, NsError> {
        self.context.now.sec += 1;
        let plan = self.plan(operation)?;
        let outcome = self.store.run(&plan.txn);
        assert_eq!(outcome, TxnOutcome::Committed(self.store.revision), "{operation:?}");
        if !plan.is_nothing() {
            self.namespace.apply(self.store.log.last().unwrap());
        }
        self.store.check();
        assert!(
            self.namespace == self.store.mirror(),
            "the mirror differs after {operation:?}"
        );
        Ok(plan.outcome)
    }

    fn node(&mut self, operation: &Operation) -> ImageId {
        match self.run(operation) {
            Ok(Outcome::Node(id)) => id,
            other => panic!("{operation:?} came to {other:?}"),
        }
    }

    fn file(&mut self, parent: ImageId, name: &str) -> ImageId {
        self.node(&create(parent, name, CreateHow::Guarded))
    }

    fn dir(&mut self, parent: ImageId, name: &str) -> ImageId {
        self.node(&make_dir(parent, name))
    }

    fn done(&mut self, operation: &Operation) {
        assert_eq!(self.run(operation), Ok(Outcome::Done), "{operation:?}");
    }

    fn inode(&self, id: ImageId) -> &Inode {
        self.namespace.inode(id).expect("it exists")
    }

    fn as_user<T>(&mut self, uid: u32, act: impl FnOnce(&mut World) -> T) -> T {
        let user = Caller {
            uid,
            gid: uid,
            gids: vec![],
        };
        let before = std::mem::replace(&mut self.context.caller, user);
        let result = act(self);
        self.context.caller = before;
        result
    }
}

fn context(gateway: u64) -> Context {
    let now = Time { sec: 1000, nsec: 0 };
    Context {
        caller: Caller::root(),
        now,
        pool: Some(PoolId(1)),
        gateway: ClientId(gateway),
    }
}

fn create(parent: ImageId, name: &str, how: CreateHow) -> Operation {
    Operation::CreateFile {
        parent,
        name: name.into(),
        how,
        attributes: Attributes::default(),
    }
}

fn make_dir(parent: ImageId, name: &str) -> Operation {
    Operation::MakeDir {
        parent,
        name: name.into(),
        attributes: Attributes::default(),
    }
}

fn remove(parent: ImageId, name: &str) -> Operation {
    Operation::Remove {
        parent,
        name: name.into(),
    }
}

fn remove_dir(parent: ImageId, name: &str) -> Operation {
    Operation::RemoveDir {
        parent,
        name: name.into(),
    }
}

fn link(id: ImageId, parent: ImageId, name: &str) -> Operation {
    Operation::Link {
        id,
        parent,
        name: name.into(),
    }
}

fn rename(from: (ImageId, &str), to: (ImageId, &str)) -> Operation {
    let (from_name, to_name) = (from.1.into(), to.1.into());
    Operation::Rename {
        from: from.0,
        from_name,
        to: to.0,
        to_name,
    }
}

fn set(id: ImageId, changes: Attributes) -> Operation {
    Operation::SetAttr {
        id,
        changes,
        guard_ctime: None,
    }
}

fn mode(mode: u32) -> Attributes {
    Attributes {
        mode: Some(mode),
        ..Attributes::default()
    }
}

fn size(size: u64) -> Attributes {
    Attributes {
        size: Some(size),
        ..Attributes::default()
    }
}
