//! Several gateways with stale mirrors against one store and one simple model of a file system.
//!
//! The model executes what committed, in commit order, knowing nothing of keys, revisions or plans: a
//! plan that rested on something stale, or an error that was none, shows as a difference. Outcomes get lost, of
//! transactions that were executed, were not, or will be much later: whoever asks is told what the store has done.

use super::*;
use crate::{Author, Trace};

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
                cut: None,
            },
        }
    }
}

struct Gateway {
    namespace: Namespace,
    numbers: Numbers,
    context: Context,
    author: Author,
    /// The number of its last change.
    number: u64,
    /// Numbers whose outcomes are known.
    settled: Vec<u64>,
    /// Outcomes that it has not heard.
    unknown: Vec<Unheard>,
    /// Notices of the log that it has seen.
    seen: usize,
}

/// A transaction whose outcome was lost.
struct Unheard {
    number: u64,
    /// It was executed.
    executed: bool,
    /// It is still on its way.
    late: Option<(Operation, Plan)>,
}

impl Gateway {
    fn new(number: u64, store: &mut Store) -> Gateway {
        let mut numbers = Numbers::default();
        numbers.add(number << 20, (number + 1) << 20);
        let author = author(number, store);
        Gateway {
            namespace: store.mirror(),
            numbers,
            context: context(number),
            author,
            number: 0,
            settled: Vec::new(),
            unknown: Vec::new(),
            seen: store.log.len(),
        }
    }

    /// Makes a plan this gateway's next change; returns its number and what it takes along.
    fn sign(&mut self, plan: &mut Plan) -> (u64, Vec<u64>) {
        self.number += 1;
        let taken = self.author.sign(&mut plan.txn, self.number, &self.settled);
        (self.number, self.settled.drain(..taken).collect())
    }

    /// Asks what became of a change; true if it was executed.
    fn ask(&mut self, number: u64, store: &mut Store) -> bool {
        if let TxnOutcome::Committed(_) = store.run(&self.author.void(number)) {
            return false;
        }
        self.follow(store, usize::MAX / 2);
        let trace = self.namespace.trace(self.author.client, number);
        if trace == Some(Trace::Executed) {
            self.settled.push(number);
        }
        trace.expect("whoever was refused left a trace") == Trace::Executed
    }

    fn follow(&mut self, store: &Store, notices: usize) {
        let until = (self.seen + notices).min(store.log.len());
        store.log[self.seen..until]
            .iter()
            .for_each(|notice| self.namespace.apply(notice));
        self.seen = until;
    }
}

/// Shows and registers a gateway.
fn author(number: u64, store: &mut Store) -> Author {
    let client = ClientId(number);
    let mut commit = |txn: &Txn| match store.run(txn) {
        TxnOutcome::Committed(revision) => revision,
        other => panic!("{other:?}"),
    };
    let shown = commit(&Txn {
        compare: vec![],
        changes: vec![Change::put(trivet_core::keys::gateway_state(client), "{}")],
    });
    let registered = commit(&Txn {
        compare: vec![],
        changes: vec![Change::put(trivet_core::keys::client(client), "{}")],
    });
    Author {
        client,
        shown,
        registered,
    }
}

#[derive(Default, Debug)]
struct Tally {
    committed: usize,
    refused: usize,
    failed: usize,
    /// Outcomes lost of what was executed, was not, and was to be later; of those how many were executed nevertheless.
    lost: [usize; 4],
}

/// One seed's race.
struct Race {
    seed: u64,
    random: Random,
    store: Store,
    model: Model,
    gateways: Vec<Gateway>,
    ids: Vec<ImageId>,
    tally: Tally,
}

impl Race {
    fn new(seed: u64) -> Race {
        let mut store = Store::new();
        let gateways = (1..=4).map(|number| Gateway::new(number, &mut store)).collect();
        Race {
            seed,
            random: Random(seed),
            store,
            model: Model {
                nodes: BTreeMap::from([(ROOT, Node::Dir(BTreeMap::new()))]),
            },
            gateways,
            ids: vec![ROOT],
            tally: Tally::default(),
        }
    }

    fn step(&mut self) {
        let index = self.random.below(4);
        match self.random.below(20) {
            0 => self.ask(index),
            1 => self.arrive(index),
            _ => self.change(index),
        }
    }

    fn change(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        gateway.follow(&self.store, [0, 0, 1, 1000][self.random.below(4)]);
        let operation = Targets::new(&self.model, &self.ids).operation(&mut self.random);
        let is_current = gateway.seen == self.store.log.len();
        let planned = gateway
            .namespace
            .plan(&operation, &gateway.context, &mut gateway.numbers);
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                self.tally.failed += 1;
                let same = !is_current || self.model.execute(&operation, ROOT) == Err(error.clone());
                assert!(same, "seed {}: {operation:?}: {error}", self.seed);
                return;
            }
        };
        if plan.is_nothing() {
            return;
        }
        self.send(index, operation, plan, is_current);
    }

    fn send(&mut self, index: usize, operation: Operation, mut plan: Plan, is_current: bool) {
        let (number, taken) = self.gateways[index].sign(&mut plan);
        let fate = self.random.below(16);
        let executed = fate < 14 && self.execute(&operation, &plan);
        let gateway = &mut self.gateways[index];
        if fate < 13 {
            assert!(
                executed || !is_current,
                "seed {}: refused with a current mirror",
                self.seed
            );
            let (known, count) = match executed {
                true => (vec![number], &mut self.tally.committed),
                false => (taken, &mut self.tally.refused),
            };
            gateway.settled.extend(known);
            *count += 1;
            return;
        }
        let late = (fate == 15).then_some((operation, plan));
        self.tally.lost[fate - 13] += 1;
        gateway.unknown.push(Unheard { number, executed, late });
    }

    /// Runs a transaction, and the model if it is committed; whether it was.
    fn execute(&mut self, operation: &Operation, plan: &Plan) -> bool {
        if let TxnOutcome::Refused(_) = self.store.run(&plan.txn) {
            return false;
        }
        let made = if let Outcome::Node(id) = plan.outcome { id } else { ROOT };
        let done = self.model.execute(operation, made);
        assert_eq!(done, Ok(()), "seed {}: {operation:?}", self.seed);
        self.ids.extend(Some(made).filter(|made| *made != ROOT));
        self.model.same_as(&self.store);
        true
    }

    /// A gateway finds out what became of something.
    fn ask(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        if gateway.unknown.is_empty() {
            return;
        }
        let mut unheard = gateway.unknown.swap_remove(self.random.below(gateway.unknown.len()));
        // The outcome of a question may get lost, too.
        if self.random.below(3) == 0 {
            self.store.run(&gateway.author.void(unheard.number));
        }
        assert_eq!(
            gateway.ask(unheard.number, &mut self.store),
            unheard.executed,
            "seed {}",
            self.seed
        );
        if let Some((operation, plan)) = unheard.late.take() {
            assert!(
                !self.execute(&operation, &plan),
                "seed {}: executed after all",
                self.seed
            );
        }
    }

    /// Something that was on its way reaches the store.
    fn arrive(&mut self, index: usize) {
        let Some(at) = self.gateways[index].unknown.iter().position(|u| u.late.is_some()) else {
            return;
        };
        let (operation, plan) = self.gateways[index].unknown[at].late.take().expect("just found");
        let executed = self.execute(&operation, &plan);
        self.gateways[index].unknown[at].executed = executed;
        self.tally.lost[3] += usize::from(executed);
    }

    fn end(mut self) -> Tally {
        for index in 0..self.gateways.len() {
            while !self.gateways[index].unknown.is_empty() {
                self.ask(index);
            }
        }
        self.store.check();
        for gateway in &mut self.gateways {
            gateway.follow(&self.store, usize::MAX / 2);
            assert!(
                gateway.namespace == self.store.mirror(),
                "seed {}: a mirror differs",
                self.seed
            );
        }
        self.tally
    }
}

fn race(seed: u64) -> Tally {
    let mut race = Race::new(seed);
    for _ in 0..2000 {
        race.step();
    }
    race.end()
}

#[test]
fn gateways_race() {
    let mut lost = [0; 4];
    for seed in 1..=40 {
        let tally = race(seed);
        assert!(
            tally.committed > 200 && tally.refused > 70 && tally.failed > 200,
            "{tally:?}"
        );
        lost.iter_mut().zip(tally.lost).for_each(|(sum, more)| *sum += more);
    }
    assert!(lost.iter().all(|count| *count > 100), "{lost:?}");
}

#[test]
fn what_is_gone_for_good_is_swept_up() {
    let mut store = Store::new();
    let mut gone = Gateway::new(1, &mut store);
    for name in ["a", "b"] {
        let mut plan = gone
            .namespace
            .plan(&make_dir(ROOT, name), &gone.context, &mut gone.numbers)
            .unwrap();
        gone.sign(&mut plan);
        assert!(matches!(store.run(&plan.txn), TxnOutcome::Committed(_)));
        gone.follow(&store, 10);
    }
    let id = gone.author.client;
    let sweep = |store: &mut Store| {
        let txn = store.mirror().sweep(id)?;
        Some(matches!(store.run(&txn), TxnOutcome::Committed(_)))
    };
    assert_eq!(sweep(&mut store), Some(false), "it is registered");
    store.run(&Txn {
        compare: vec![],
        changes: vec![Change::Delete(trivet_core::keys::client(id))],
    });
    let refused = store.run(&gone.author.void(3));
    assert!(matches!(refused, TxnOutcome::Refused(_)), "it cannot know any more");
    assert_eq!(sweep(&mut store), Some(true));
    assert_eq!((sweep(&mut store), store.mirror().authors().count()), (None, 0));
}
