//! Disks that report failure. A failed write or flush is final: nothing is acknowledged any more, and what
//! was acknowledged before is there when the disk is opened again. A failed read is only a failed read.

use crate::Violation;
use crate::campaign::draw_geometry;
use crate::disk::{Faults, SimDisk};
use crate::image::Image;
use crate::model::Model;
use crate::rng::Rng;
use crate::workload::Workload;
use crate::world::{World, format};
use trivet_store::{Mutant, State};

/// Images looked at after each failure.
const SAMPLES: usize = 6;
/// Steps within which every injected failure has happened.
const PATIENCE: usize = 20_000;

/// What the runs did.
#[derive(Default)]
pub struct Tally {
    pub failures: u64,
    pub answered_failed: u64,
    pub images: u64,
    pub writes: u64,
}

/// A new store, open, on a healthy disk.
pub fn fresh(rng: &mut Rng, mutant: Option<Mutant>) -> Result<(World, Workload), Violation> {
    let (geometry, objects) = draw_geometry(rng);
    let workload = Workload::new(objects, rng);
    let mut image = Image::blank(geometry.size);
    let log = format(&mut image, geometry, *b"the first format")?;
    let model = Model::new(workload.objects().iter().copied());
    let mut world = reopen(image, &model, rng, mutant)?;
    world.disk.log = log;
    Ok((world, workload))
}

fn reopen(image: Image, model: &Model, rng: &mut Rng, mutant: Option<Mutant>) -> Result<World, Violation> {
    let mut world = World::open(SimDisk::new(image), model.clone(), rng.fork(), mutant)?;
    world
        .opened()?
        .map_err(|reason| Violation(format!("the store does not open: {reason}")))?;
    world.take_stock()?;
    Ok(world)
}

/// One run with one failed write or flush.
pub fn final_failure(seed: u64, mutant: Option<Mutant>, tally: &mut Tally) -> Result<(), Violation> {
    let mut rng = Rng::new(seed);
    let (mut world, mut workload) = fresh(&mut rng, mutant)?;
    let after = rng.below(150);
    world.disk.faults = if rng.one_in(2) {
        Faults {
            flush_after: Some(after),
            ..Faults::default()
        }
    } else {
        Faults {
            write_after: Some(after),
            ..Faults::default()
        }
    };
    for _ in 0..PATIENCE {
        if world.disk.failed {
            break;
        }
        world.step(&mut workload)?;
    }
    if !world.disk.failed {
        return Err(Violation(format!(
            "{after} writes or flushes do not happen in {PATIENCE} steps"
        )));
    }
    tally.failures += 1;
    failed_for_good(&mut world, &mut workload)?;
    tally.answered_failed += world.model.compared.failed;
    tally.writes += world.model.compared.writes;
    for remains in world.disk.power_cuts(SAMPLES, &mut rng) {
        tally.images += 1;
        let mut model = world.model.clone();
        model.disk_failed = false;
        reopen(remains.image, &model, &mut rng, mutant)?.read_back(false)?;
    }
    Ok(())
}

/// The store says so, and answers everything, old and new, with the failure.
fn failed_for_good(world: &mut World, workload: &mut Workload) -> Result<(), Violation> {
    let State::Failed(reason) = world.store.state() else {
        return Err(Violation("a disk failed and the store goes on".to_owned()));
    };
    if reason.is_empty() {
        return Err(Violation("a failure without a reason".to_owned()));
    }
    world.rest()?;
    let written = world.model.compared.writes;
    let failed = world.model.compared.failed;
    for _ in 0..20 {
        let request = workload.draw(&world.model, &mut world.rng);
        world.submit(request);
    }
    world.rest()?;
    let answered = world.model.compared.failed - failed;
    if answered != 20 || world.model.compared.writes != written {
        return Err(Violation(format!(
            "{answered} of 20 requests failed after the disk did"
        )));
    }
    Ok(())
}

/// One run in which reads fail now and then.
pub fn read_errors(seed: u64, tally: &mut Tally) -> Result<(), Violation> {
    let mut rng = Rng::new(seed);
    let (mut world, mut workload) = fresh(&mut rng, None)?;
    world.disk.faults = Faults {
        read_one_in: Some(rng.between(3, 30)),
        ..Faults::default()
    };
    world.model.tolerance.damage = true;
    for _ in 0..500 {
        world.step(&mut workload)?;
    }
    world.rest()?;
    if world.store.state() != State::Ready {
        return Err(Violation("a failed read stopped the store".to_owned()));
    }
    world.model.tolerance.damage = false;
    world.disk.faults = Faults::default();
    world.read_back(true)?;
    tally.failures += 1;
    tally.writes += world.model.compared.writes;
    let remains = world.disk.power_cut(&mut rng);
    tally.images += 1;
    reopen(remains.image, &world.model, &mut rng, None)?.read_back(true)
}
