//! Single corruptions: one bit flips, one write is lost, one write goes to another place, in one part of the disk.
//! Either nothing is lost, or the store says what: it does not open and tells why, or reads report damage. What is
//! damaged is whole again when it is replaced, and stays so.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use trivet_store::{Mutant, Regions, regions};

use crate::Violation;
use crate::campaign::draw_geometry;
use crate::disk::{Mischief, SimDisk};
use crate::image::{Image, PAGE};
use crate::journal::Journal;
use crate::model::Model;
use crate::rng::Rng;
use crate::workload::Workload;
use crate::world::{World, format, format_of};

/// Corruptions of one store.
const COPIES: u64 = 200;
/// One in so many corruptions happens to a store at work.
const LIVE: u64 = 10;
/// Name of the stores.
const NAME: [u8; 16] = *b"single corrupted";

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Flip,
    Lost,
    Misdirected,
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Superblock,
    Checkpoint,
    Log,
    Data,
}

const KINDS: [Kind; 3] = [Kind::Flip, Kind::Lost, Kind::Misdirected];
const PARTS: [Part; 4] = [Part::Superblock, Part::Checkpoint, Part::Log, Part::Data];

/// What became of the corruptions of one kind in one part.
#[derive(Clone, Copy, Default)]
struct Count {
    injected: u64,
    /// The store did not open, and said why.
    refused: u64,
    /// Reads reported damage.
    reported: u64,
    /// Of the reported ones, all that was damaged is whole after it was replaced; or a copy mended it at open.
    repaired: u64,
    /// Everything is there.
    harmless: u64,
}

/// What became of all.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<(Part, Kind), Count>,
    pub injected: u64,
    pub reasons: BTreeMap<String, u64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} single corruptions: 0 violations", self.injected)?;
        writeln!(
            f,
            "{:<12} {:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "part", "corruption", "injected", "detected", "(refused", "reported)", "repaired", "harmless"
        )?;
        for ((part, kind), count) in &self.counts {
            let (part, kind) = (format!("{part:?}"), format!("{kind:?}"));
            let detected = count.refused + count.reported;
            writeln!(
                f,
                "{part:<12} {kind:<12} {:>9} {detected:>9} {:>9} {:>9} {:>9} {:>9}",
                count.injected, count.refused, count.reported, count.repaired, count.harmless
            )?;
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  {count} x {reason}")?;
        }
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, what: (Part, Kind)) -> &mut Count {
        self.counts.entry(what).or_default()
    }

    fn refused(&mut self, what: (Part, Kind), reason: &str) {
        self.count(what).refused += 1;
        let reason: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        *self.reasons.entry(reason).or_default() += 1;
    }
}

/// A store that stopped, with all that is needed to damage it.
struct Stopped {
    image: Image,
    journal: Journal,
    model: Model,
    regions: Regions,
    /// Pages in use, by part.
    used: BTreeMap<Part, Vec<usize>>,
    /// Writes of which nothing proves that they were durable: not to be damaged.
    unproven: Vec<Range<usize>>,
}

/// One store, stopped, with many single corruptions, each of a copy of it; then some stores at work.
pub fn run(seed: u64, mutant: Option<Mutant>, tally: &mut Tally) -> Result<(), Violation> {
    let mut rng = Rng::new(seed);
    let stopped = stopped(&mut rng, mutant)?;
    for copy in 0..COPIES {
        let kind = KINDS[rng.below(KINDS.len())];
        let part = PARTS[rng.weighted(&[1, 3, 5, 3])];
        let Some((image, place)) = spoil(&stopped, part, kind, &mut rng) else {
            continue;
        };
        tally.injected += 1;
        tally.count((part, kind)).injected += 1;
        examine(image, &stopped, (part, kind), mutant, &mut rng, tally)
            .map_err(|Violation(why)| Violation(format!("{why} (copy {copy}, {kind:?} in {part:?} at {place})")))?;
    }
    for _ in 0..COPIES / LIVE {
        at_work(&mut rng, mutant, tally)?;
    }
    Ok(())
}

fn range(part: Part, regions: &Regions) -> Range<usize> {
    let range = match part {
        Part::Superblock => regions.superblocks[0].start..regions.superblocks[1].end,
        Part::Checkpoint => regions.checkpoint.clone(),
        Part::Log => regions.log.clone(),
        Part::Data => regions.data.clone(),
    };
    let place = |offset: u64| usize::try_from(offset).expect("a small disk");
    place(range.start)..place(range.end)
}

/// A store on a new disk, or on one that had another store before.
fn fresh(rng: &mut Rng, mutant: Option<Mutant>) -> Result<(World, Workload, Regions), Violation> {
    let (geometry, objects) = draw_geometry(rng);
    let mut image = Image::blank(geometry.size);
    if rng.one_in(3) {
        format(&mut image, geometry, *b"an older format!")?;
    }
    let mut workload = Workload::new(objects, rng);
    let model = Model::new(workload.objects().iter().copied());
    let mut journal = Journal::new(geometry.size);
    let before = image.clone();
    let log = format(&mut image, geometry, NAME)?;
    let regions = regions(&format_of(geometry, NAME)).map_err(Violation)?;
    for page in range(Part::Superblock, &regions).step_by(PAGE) {
        journal.note(page, image.page(page), &before);
    }
    let mut disk = SimDisk::new(image);
    (disk.journal, disk.log) = (Some(journal), log);
    let mut world = World::open(disk, model, rng.fork(), mutant)?;
    world.opened()?.map_err(Violation)?;
    world.take_stock()?;
    if objects >= crate::campaign::MANY {
        world.fill(&mut workload)?;
    }
    Ok((world, workload, regions))
}

fn stopped(rng: &mut Rng, mutant: Option<Mutant>) -> Result<Stopped, Violation> {
    let (mut world, mut workload, regions) = fresh(rng, mutant)?;
    for life in 0..rng.between(1, 3) {
        if life > 0 {
            world = reopened(world, rng, mutant)?;
        }
        for _ in 0..rng.between(50, 500) {
            world.step(&mut workload)?;
        }
    }
    let quiet = !rng.one_in(3);
    if quiet {
        world.rest()?;
        world.linger()?;
    }
    if rng.one_in(4) {
        world = reopened(world, rng, mutant)?;
    }
    world.stop();
    let image = world.disk.durable.clone();
    let mut used = BTreeMap::new();
    for page in image.used_pages() {
        let inside = |part: &&Part| range(**part, &regions).contains(&(page * PAGE));
        if let Some(&part) = PARTS.iter().find(inside) {
            used.entry(part).or_insert_with(Vec::new).push(page);
        }
    }
    Ok(Stopped {
        image,
        journal: world.disk.journal.clone().expect("it has one"),
        model: world.model,
        regions,
        used,
        unproven: if quiet { Vec::new() } else { world.disk.tail },
    })
}

/// The store is stopped, and opened again.
fn reopened(mut old: World, rng: &mut Rng, mutant: Option<Mutant>) -> Result<World, Violation> {
    old.stop();
    let mut disk = SimDisk::new(old.disk.durable);
    (disk.journal, disk.log, disk.tail) = (old.disk.journal, old.disk.log, old.disk.tail);
    let mut world = World::open(disk, old.model, rng.fork(), mutant)?;
    world.opened()?.map_err(Violation)?;
    world.take_stock()?;
    Ok(world)
}

/// A damaged copy, and where it is damaged.
fn spoil(stopped: &Stopped, part: Part, kind: Kind, rng: &mut Rng) -> Option<(Image, usize)> {
    let mut image = stopped.image.clone();
    if kind == Kind::Flip {
        let offset = flip_at(stopped.used.get(&part)?, rng);
        image.alter(offset, |page| page[offset % PAGE] ^= 1 << rng.below(8));
        return stopped.may_be_damaged(offset, 1).then_some((image, offset));
    }
    let writes = stopped.journal.within(&range(part, &stopped.regions));
    let recent = writes
        .len()
        .saturating_sub(if rng.one_in(2) { 8 } else { writes.len() });
    let among = &writes[recent..];
    let at = *among.get(rng.below(among.len().max(1)))?;
    let (offset, len) = stopped.journal.extent(at);
    if !stopped.may_be_damaged(offset, len) {
        return None;
    }
    if kind == Kind::Lost {
        stopped.journal.undo(at, &mut image);
        return Some((image, offset));
    }
    let other = if rng.one_in(3) { PARTS[rng.below(4)] } else { part };
    let place = range(other, &stopped.regions);
    let target = place.start / PAGE + rng.below(place.len() / PAGE);
    let target = target.min((image.size() - len) / PAGE) * PAGE;
    if target == offset || !stopped.may_be_damaged(target, len) {
        return None;
    }
    stopped.journal.misdirect(at, target, &mut image);
    Some((image, offset))
}

/// Headers are small and at the start of pages: they are hit more often.
fn flip_at(used: &[usize], rng: &mut Rng) -> usize {
    let span = if rng.one_in(3) { 128 } else { PAGE };
    let within = rng.below(span);
    used[rng.below(used.len())] * PAGE + within
}

impl Stopped {
    fn may_be_damaged(&self, offset: usize, len: usize) -> bool {
        self.unproven
            .iter()
            .all(|range| range.end <= offset || offset + len <= range.start)
    }

    /// Both copies of the superblock are as they should be.
    fn has_superblocks(&self, image: &Image) -> bool {
        range(Part::Superblock, &self.regions)
            .step_by(PAGE)
            .all(|page| image.page(page) == self.image.page(page))
    }
}

/// Opens a damaged disk and compares everything.
fn examine(
    image: Image,
    stopped: &Stopped,
    what: (Part, Kind),
    mutant: Option<Mutant>,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), Violation> {
    let spoiled = !stopped.has_superblocks(&image);
    let mut world = World::open(SimDisk::new(image), stopped.model.clone(), rng.fork(), mutant)?;
    world.model.tolerance.damage = true;
    if let Err(reason) = world.opened()? {
        // One flipped bit of a superblock, or one damaged unit, is nothing.
        let fatal = what.1 == Kind::Flip && matches!(what.0, Part::Superblock | Part::Data);
        if fatal || reason.is_empty() {
            return Err(Violation(format!("refused to open: {reason:?}")));
        }
        tally.refused(what, &reason);
        return Ok(());
    }
    world.take_stock()?;
    if !stopped.has_superblocks(&world.disk.durable) {
        return Err(Violation("a superblock stays damaged".to_owned()));
    }
    let reported = inspect(&mut world)?;
    let count = tally.count(what);
    count.reported += u64::from(reported);
    count.harmless += u64::from(!reported && !spoiled);
    count.repaired += u64::from(reported || spoiled);
    if reported || rng.one_in(8) {
        repair_and_go_on(world, stopped, mutant, rng)?;
    }
    Ok(())
}

/// Reads all of everything; whether damage was reported.
fn inspect(world: &mut World) -> Result<bool, Violation> {
    let before = world.model.compared.damaged_reads;
    world.read_back(true)?;
    Ok(world.model.compared.damaged_reads > before)
}

/// Replaces every object by what it should be. After that nothing is damaged, also after a power cut; and the
/// store works as any other.
fn repair_and_go_on(
    mut world: World,
    stopped: &Stopped,
    mutant: Option<Mutant>,
    rng: &mut Rng,
) -> Result<(), Violation> {
    world.repair_all()?;
    world.model.tolerance.damage = false;
    world.read_back(true)?;
    let mut workload = Workload::new(1, rng).over(stopped.model.objects().map(|(&object, _)| object).collect());
    for _ in 0..rng.below(120) {
        world.step(&mut workload)?;
    }
    let remains = world.disk.power_cut(rng);
    let mut next = World::open(SimDisk::new(remains.image), world.model, rng.fork(), mutant)?;
    next.opened()?.map_err(Violation)?;
    next.take_stock()?;
    next.read_back(true)
}

/// A write of a store at work is lost or goes astray, and the store goes on until it is at rest. What it reads, and
/// what the next opening finds, is right or known to be wrong.
fn at_work(rng: &mut Rng, mutant: Option<Mutant>, tally: &mut Tally) -> Result<(), Violation> {
    let (mut world, mut workload, regions) = fresh(rng, mutant)?;
    let part = PARTS[rng.weighted(&[0, 1, 2, 2])];
    let kind = KINDS[rng.between(1, 2)];
    let place = range(part, &regions);
    let elsewhere = range(PARTS[rng.between(1, 3)], &regions);
    world.disk.faults.mischief = Some(Mischief {
        within: place,
        after: rng.below(60),
        target: (kind == Kind::Misdirected).then_some(elsewhere),
    });
    world.model.tolerance.damage = true;
    for _ in 0..rng.between(100, 700) {
        world.step(&mut workload)?;
    }
    world.rest()?;
    world.linger()?;
    if world.disk.faults.mischief.is_some() {
        return Ok(());
    }
    tally.injected += 1;
    tally.count((part, kind)).injected += 1;
    let mut reported = inspect(&mut world)?;
    let model = world.model.clone();
    let remains = world.disk.power_cut(rng);
    let mut next = World::open(SimDisk::new(remains.image), model, rng.fork(), mutant)?;
    if let Err(reason) = next.opened()? {
        tally.refused((part, kind), &reason);
        return Ok(());
    }
    next.take_stock()
        .map_err(|Violation(why)| Violation(format!("{why}, at work, {kind:?} in {part:?}")))?;
    reported |= inspect(&mut next)?;
    let count = tally.count((part, kind));
    count.reported += u64::from(reported);
    count.harmless += u64::from(!reported);
    if reported {
        next.repair_all()?;
        next.model.tolerance.damage = false;
        next.read_back(true)?;
        tally.count((part, kind)).repaired += 1;
    }
    Ok(())
}
