//! Several gateways with stale mirrors against one store and one simple model of a file system.
//!
//! The model executes what committed, in commit order, knowing nothing of keys, revisions or plans: a
//! plan that rested on something stale, or an error that was none, shows as a difference.

use super::*;

type Name = Vec<u8>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File { links: u32, size: u64 },
    Dir(BTreeMap<Name, ImageId>),
}

struct Model {
    nodes: BTreeMap<ImageId, Node>,
}

impl Model {
    fn dir(&mut self, id: ImageId) -> Result<&mut BTreeMap<Name, ImageId>, NsError> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(entries)) => Ok(entries),
            Some(Node::File { .. }) => Err(NsError::NotDir),
            None => Err(NsError::Stale),
        }
    }

    fn find(&mut self, dir: ImageId, name: &[u8]) -> Result<ImageId, NsError> {
        self.dir(dir)?.get(name).copied().ok_or(NsError::NotFound)
    }

    fn is_dir(&self, id: ImageId) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Dir(_)))
    }

    fn unlink(&mut self, id: ImageId) -> Result<(), NsError> {
        let gone = match self.nodes.get_mut(&id).expect("entries name what exists") {
            Node::Dir(entries) if entries.is_empty() => true,
            Node::Dir(_) => return Err(NsError::NotEmpty),
            Node::File { links, .. } => {
                *links -= 1;
                *links == 0
            }
        };
        if gone {
            self.nodes.remove(&id);
        }
        Ok(())
    }

    fn contains(&self, top: ImageId, id: ImageId) -> bool {
        top == id
            || match self.nodes.get(&top) {
                Some(Node::Dir(entries)) => entries.values().any(|&below| self.contains(below, id)),
                _ => false,
            }
    }

    fn make(&mut self, dir: ImageId, name: &[u8], id: ImageId, node: Node) -> Result<(), NsError> {
        let entries = self.dir(dir)?;
        if entries.contains_key(name) {
            return Err(NsError::Exists);
        }
        entries.insert(name.into(), id);
        self.nodes.insert(id, node);
        Ok(())
    }

    /// `made` is the id that a creation was given.
    fn execute(&mut self, operation: &Operation, made: ImageId) -> Result<(), NsError> {
        match operation {
            Operation::CreateFile { parent, name, .. } => {
                self.make(*parent, name, made, Node::File { links: 1, size: 0 })
            }
            Operation::MakeDir { parent, name, .. } => self.make(*parent, name, made, Node::Dir(BTreeMap::new())),
            Operation::Link { id, parent, name } => self.link(*id, *parent, name),
            Operation::Remove { parent, name } => {
                let id = self.find(*parent, name)?;
                if self.is_dir(id) {
                    return Err(NsError::IsDir);
                }
                self.dir(*parent)?.remove(name);
                self.unlink(id)
            }
            Operation::RemoveDir { parent, name } => {
                let id = self.find(*parent, name)?;
                if !self.is_dir(id) {
                    return Err(NsError::NotDir);
                }
                self.unlink(id)?;
                self.dir(*parent)?.remove(name);
                Ok(())
            }
            Operation::Rename {
                from,
                from_name,
                to,
                to_name,
            } => self.rename((*from, from_name), (*to, to_name)),
            Operation::Grow { id, size, .. } => match self.nodes.get_mut(id) {
                Some(Node::File { size: old, .. }) => {
                    *old = (*old).max(*size);
                    Ok(())
                }
                Some(Node::Dir(_)) => Err(NsError::Inval),
                None => Err(NsError::Stale),
            },
            other => panic!("the race has no {other:?}"),
        }
    }

    fn link(&mut self, id: ImageId, parent: ImageId, name: &[u8]) -> Result<(), NsError> {
        let node = match self.nodes.get(&id).ok_or(NsError::Stale)? {
            Node::Dir(_) => return Err(NsError::IsDir),
            Node::File { links, size } => Node::File {
                links: links + 1,
                size: *size,
            },
        };
        self.make(parent, name, id, node)
    }

    fn rename(&mut self, from: (ImageId, &[u8]), to: (ImageId, &[u8])) -> Result<(), NsError> {
        self.dir(from.0)?;
        self.dir(to.0)?;
        let id = self.find(from.0, from.1)?;
        let target = self.dir(to.0)?.get(to.1).copied();
        if target == Some(id) {
            return Ok(());
        }
        if self.is_dir(id) && self.contains(id, to.0) {
            return Err(NsError::Inval);
        }
        if let Some(target) = target {
            match (self.is_dir(id), self.is_dir(target)) {
                (true, false) => return Err(NsError::NotDir),
                (false, true) => return Err(NsError::IsDir),
                _ => self.unlink(target)?,
            }
        }
        self.dir(from.0)?.remove(from.1);
        self.dir(to.0)?.insert(to.1.into(), id);
        Ok(())
    }

    fn same_as(&self, store: &Store) {
        let mut nodes = BTreeMap::new();
        for (id, inode) in store.inodes() {
            let node = match inode.is_dir() {
                true => Node::Dir(BTreeMap::new()),
                false => Node::File {
                    links: inode.nlink,
                    size: inode.size,
                },
            };
            nodes.insert(id, node);
        }
        for (dir, name, entry) in store.entries() {
            let Some(Node::Dir(entries)) = nodes.get_mut(&dir) else {
                panic!("{dir}: no directory")
            };
            entries.insert(name, entry.id);
        }
        assert_eq!(nodes, self.nodes);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % n as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What operations are about: live directories and files, few enough to meet, and sometimes others.
struct Targets {
    dirs: Vec<ImageId>,
    any: Vec<ImageId>,
}

impl Targets {
    fn new(model: &Model, ids: &[ImageId]) -> Targets {
        let live = |is_dir| move |id: &ImageId| model.nodes.contains_key(id) && model.is_dir(*id) == is_dir;
        let mut dirs: Vec<_> = ids.iter().rev().copied().filter(live(true)).take(5).collect();
        dirs.push(ROOT);
        let files = ids.iter().rev().copied().filter(live(false)).take(5);
        let any = dirs
            .iter()
            .copied()
            .chain(files)
            .chain(ids.iter().rev().copied().take(3));
        Targets {
            any: any.collect(),
            dirs,
        }
    }

    fn place(&self, random: &mut Random) -> (ImageId, &'static str) {
        let from = if random.below(12) == 0 { &self.any } else { &self.dirs };
        (random.pick(from), random.pick(&["a", "b", "c"]))
    }

    fn operation(&self, random: &mut Random) -> Operation {
        let ((dir, name), to) = (self.place(random), self.place(random));
        let id = random.pick(&self.any);
        match random.below(20) {
            0..4 => create(dir, name, CreateHow::Guarded),
            4..7 => make_dir(dir, name),
            7..9 => link(id, dir, name),
            9..11 => remove(dir, name),
            11..13 => remove_dir(dir, name),
            13..19 => rename((dir, name), to),
            _ => Operation::Grow {
                id,
                size: random.below(100) as u64,
                mtime: Time::default(),
            },
        }
    }
}

struct Gateway {
    namespace: Namespace,
    numbers: Numbers,
    context: Context,
    /// Notices of the log that it has seen.
    seen: usize,
}

impl Gateway {
    fn new(number: u64, store: &Store) -> Gateway {
        let mut numbers = Numbers::default();
        numbers.add(number << 20, (number + 1) << 20);
        let seen = store.log.len();
        Gateway {
            namespace: store.mirror(),
            numbers,
            context: context(number),
            seen,
        }
    }

    fn follow(&mut self, store: &Store, notices: usize) {
        let until = (self.seen + notices).min(store.log.len());
        store.log[self.seen..until]
            .iter()
            .for_each(|notice| self.namespace.apply(notice));
        self.seen = until;
    }
}

#[derive(Default, Debug)]
struct Tally {
    committed: usize,
    refused: usize,
    failed: usize,
}

fn race(seed: u64) -> Tally {
    let mut random = Random(seed);
    let mut store = Store::new();
    let mut model = Model {
        nodes: BTreeMap::from([(ROOT, Node::Dir(BTreeMap::new()))]),
    };
    let mut gateways: Vec<_> = (1..=4).map(|number| Gateway::new(number, &store)).collect();
    let mut ids = vec![ROOT];
    let mut tally = Tally::default();
    for step in 0..1500 {
        let index = random.below(4);
        let gateway = &mut gateways[index];
        gateway.follow(&store, [0, 0, 1, 1000][random.below(4)]);
        let operation = Targets::new(&model, &ids).operation(&mut random);
        let is_current = gateway.seen == store.log.len();
        let planned = gateway
            .namespace
            .plan(&operation, &gateway.context, &mut gateway.numbers);
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                tally.failed += 1;
                let same = !is_current || model.execute(&operation, ROOT) == Err(error.clone());
                assert!(same, "seed {seed} step {step}: {operation:?}: {error}");
                continue;
            }
        };
        match store.run(&plan.txn) {
            TxnOutcome::Committed(_) => {
                let made = if let Outcome::Node(id) = plan.outcome { id } else { ROOT };
                let done = model.execute(&operation, made);
                assert_eq!(done, Ok(()), "seed {seed} step {step}: {operation:?}");
                ids.extend(Some(made).filter(|made| *made != ROOT));
                tally.committed += 1;
                model.same_as(&store);
            }
            TxnOutcome::Refused(_) => {
                assert!(!is_current, "seed {seed} step {step}: refused with a current mirror");
                tally.refused += 1;
            }
            TxnOutcome::Unknown => unreachable!("the store in memory always knows"),
        }
    }
    store.check();
    for gateway in &mut gateways {
        gateway.follow(&store, usize::MAX / 2);
        assert!(gateway.namespace == store.mirror(), "seed {seed}: a mirror differs");
    }
    tally
}

#[test]
fn gateways_race() {
    for seed in 1..=40 {
        let tally = race(seed);
        assert!(
            tally.committed > 200 && tally.refused > 70 && tally.failed > 200,
            "{tally:?}"
        );
    }
}
