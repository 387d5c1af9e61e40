//! Rot. The disk of a store that was stopped is damaged somewhere and opened again: every read gives the right
//! bytes or says that they are damaged, or opening says why it will not; nothing acknowledged is silently gone.

use std::ops::Range;

use crate::Violation;
use crate::disk::SimDisk;
use crate::failures::fresh;
use crate::image::{Image, PAGE, SECTOR};
use crate::rng::Rng;
use crate::world::World;

/// Rotten copies made of one stopped store.
const COPIES: usize = 200;

/// Bytes at the start of the disk that hold two copies of the superblock.
const SUPERBLOCKS: usize = 2 * PAGE;

/// What became of the rotten disks.
#[derive(Default)]
pub struct Tally {
    pub disks: u64,
    /// Every byte was still right: the rot hit what is not in use, or a copy helped.
    pub unharmed: u64,
    /// Opened, and some reads reported damage.
    pub reported: u64,
    /// Would not open, and said why.
    pub refused: u64,
    pub reasons: std::collections::BTreeMap<String, u64>,
    pub damaged_reads: u64,
}

/// One store, worked with and stopped, at rest or not, then damaged in many ways.
pub fn run(seed: u64, tally: &mut Tally) -> Result<(), Violation> {
    let mut rng = Rng::new(seed);
    let (mut world, mut workload) = fresh(&mut rng, None)?;
    for _ in 0..rng.between(50, 600) {
        world.step(&mut workload)?;
    }
    if rng.one_in(2) {
        world.rest()?;
    }
    world.stop();
    if rng.one_in(2) {
        world = once_more(world, &mut rng)?;
    }
    let used = world.disk.durable.used_pages();
    for copy in 0..COPIES {
        let mut image = world.disk.durable.clone();
        let places = rot(&mut image, &used, &world.disk, &mut rng);
        examine(image, &places, &world, &mut rng, tally).map_err(|Violation(why)| {
            let (log, tail) = (&world.disk.log, &world.disk.tail);
            Violation(format!(
                "{why} (copy {copy}, rot at {places:?}, log {log:?}, tail {tail:?})"
            ))
        })?;
    }
    Ok(())
}

/// Opens and stops the store: after that nothing that was answered is in the last batch, unless the log was
/// too full for the first batch of an opening.
fn once_more(stopped: World, rng: &mut Rng) -> Result<World, Violation> {
    let mut disk = SimDisk::new(stopped.disk.durable);
    disk.tail = stopped.disk.tail;
    disk.log = stopped.disk.log;
    let mut world = World::open(disk, stopped.model, rng.fork(), None)?;
    world.opened()?.map_err(Violation)?;
    world.take_stock()?;
    world.stop();
    Ok(world)
}

/// Damages one to three places and tells which. Not in what was written last: rot there looks like a write
/// that a power cut tore, and nobody can tell the two apart.
fn rot(image: &mut Image, used: &[usize], disk: &SimDisk, rng: &mut Rng) -> Vec<usize> {
    let mut places = Vec::new();
    for _ in 0..if rng.one_in(4) { rng.between(2, 3) } else { 1 } {
        let offset = used[rng.below(used.len())] * PAGE + rng.below(PAGE);
        // Headers are small and at the start of pages: look there more often.
        let offset = if rng.one_in(3) {
            offset / PAGE * PAGE + offset % 128
        } else {
            offset
        };
        if !disk.tail.iter().any(|range| range.contains(&offset)) {
            damage(image, offset, used, disk, rng);
            places.push(offset);
        }
    }
    places
}

/// A bit or byte flips, a sector is zeroed, the last write of the page was lost, or another page was
/// written here by mistake.
fn damage(image: &mut Image, offset: usize, used: &[usize], disk: &SimDisk, rng: &mut Rng) {
    let sector = offset % PAGE / SECTOR * SECTOR;
    let other = match rng.below(8) {
        0 => disk.older.page(offset).clone(),
        1 => disk.durable.page(used[rng.below(used.len())] * PAGE).clone(),
        2 => return image.alter(offset, |page| page[sector..sector + SECTOR].fill(0)),
        3 => return image.alter(offset, |page| page[offset % PAGE] ^= 0xff),
        _ => return image.alter(offset, |page| page[offset % PAGE] ^= 1 << rng.below(8)),
    };
    image.write(offset / PAGE * PAGE, &other);
}

/// Rot in one copy of the superblock or in one unit of the data must not keep the store from opening, and
/// must not hurt more than one object.
fn is_contained(places: &[usize], log: &Range<usize>) -> bool {
    matches!(places, [] | [_]) && places.iter().all(|&at| at < SUPERBLOCKS || at >= log.end)
}

fn examine(image: Image, places: &[usize], stopped: &World, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
    tally.disks += 1;
    let contained = is_contained(places, &stopped.disk.log);
    let mut world = World::open(SimDisk::new(image), stopped.model.clone(), rng.fork(), None)?;
    world.model.tolerance.damage = true;
    if let Err(reason) = world.opened()? {
        tally.refused += 1;
        let kind: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        *tally.reasons.entry(kind).or_default() += 1;
        let fine = !contained && !reason.is_empty();
        return if fine {
            Ok(())
        } else {
            Err(Violation(format!("refused to open: {reason:?}")))
        };
    }
    world.take_stock()?;
    let before = world.model.compared.damaged_reads;
    world.read_back(rng.one_in(4))?;
    let damaged = world.model.compared.damaged_reads - before;
    // It is read, and it is salvaged.
    if damaged > 2 && contained {
        return Err(Violation(format!("one rotten byte damaged {damaged} reads")));
    }
    tally.damaged_reads += damaged;
    if damaged > 0 {
        tally.reported += 1
    } else {
        tally.unharmed += 1
    }
    Ok(())
}
