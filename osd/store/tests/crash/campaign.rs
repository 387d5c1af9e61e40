//! Crash runs: a seeded world works, loses power at many points in many ways, and every image that may be
//! left is opened by a fresh store and checked against the model. Some of the reopened stores go on
//! working and crash again, some crash while they open, some are killed without losing power.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use trivet_store::Mutant;

use crate::Violation;
use crate::disk::SimDisk;
use crate::image::Image;
use crate::model::{Compared, Model};
use crate::power::Remains;
use crate::rng::{Rng, mix};
use crate::workload::Workload;
use crate::world::{Geometry, World, format};

/// So many objects fill many chunks of a checkpoint.
pub const MANY: usize = 700;
/// A small disk and almost as many objects as it can remember.
const CHURN: (Geometry, usize) = (
    Geometry {
        size: 48 * trivet_core::OBJECT_SIZE,
        log: 384 << 10,
    },
    1000,
);
/// Images sampled at one crash point besides the exhaustive ones.
const SAMPLES: usize = 10;
/// Crashes within crashes, at most.
const DEEPEST: usize = 4;
/// Crashes of one run that the run itself survives.
const LIVES: usize = 4;

/// What a campaign has done.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub runs: u64,
    /// Images of disks after a crash, each opened and checked.
    pub images: u64,
    /// Stores opened.
    pub stores: u64,
    /// Of the images, how many come from a crash while opening.
    pub while_opening: u64,
    /// Of the images, how many come from a store that had itself recovered from one.
    pub nested: u64,
    /// Processes killed without loss of power.
    pub kills: u64,
    pub torn_writes: u64,
    pub compared: Compared,
}

/// A violation and how to see it again.
pub struct Failure {
    pub seed: u64,
    pub images: u64,
    pub violation: Violation,
}

/// What a campaign is about.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// The deliberate bug that is to be found.
    pub mutant: Option<Mutant>,
    /// Many objects that come and go while the changes of a checkpoint are written.
    pub churn: bool,
}

/// Runs of one seed.
pub struct Campaign {
    pub tally: Tally,
    goal: u64,
    options: Options,
    rng: Rng,
    /// Where in the run we are, for reports.
    place: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "after {} images: {}\nagain: TRIVET_CRASH_SEED={} cargo test -p trivet-store --test crash",
            self.images, self.violation.0, self.seed
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.compared;
        write!(
            f,
            "{} crash images ({} while opening, {} nested), {} stores opened, {} torn writes, {} kills; \
             {} writes answered, {} reads and {} units compared, {} refused for space, in {} runs: 0 violations",
            self.images,
            self.while_opening,
            self.nested,
            self.stores,
            self.torn_writes,
            self.kills,
            c.writes,
            c.reads,
            c.units,
            c.no_space,
            self.runs
        )
    }
}

impl Compared {
    pub fn add(&mut self, other: &Compared, base: &Compared) {
        self.writes += other.writes - base.writes;
        self.reads += other.reads - base.reads;
        self.units += other.units - base.units;
        self.no_space += other.no_space - base.no_space;
        self.damaged_reads += other.damaged_reads - base.damaged_reads;
        self.failed += other.failed - base.failed;
    }
}

/// A disk of 16 to 40 slots with a small log; at times more objects than slots, or so many that a checkpoint
/// has several chunks and is written as changes.
pub fn draw_geometry(rng: &mut Rng) -> (Geometry, usize) {
    let slots = rng.between(16, 40);
    let log = [272, 384, 512, 1024][rng.below(4)] << 10;
    let geometry = Geometry {
        size: (1 << 20) + log + slots * trivet_core::OBJECT_SIZE,
        log: log as u64,
    };
    let objects = match rng.below(16) {
        0..4 => slots + 8,
        4..6 => rng.between(MANY, 2 * MANY),
        _ => rng.between(4, 14),
    };
    (geometry, objects)
}

/// Runs campaigns from `seed` on until `goal` images are checked.
pub fn run(seed: u64, goal: u64, options: Options) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let only = std::env::var("TRIVET_CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u64>().ok());
    for index in 0.. {
        let seed = only.unwrap_or_else(|| mix(seed ^ mix(index)));
        let mut campaign = Campaign {
            tally,
            goal,
            options,
            rng: Rng::new(seed),
            place: String::new(),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| campaign.one_run()));
        let outcome = outcome.unwrap_or_else(|_| Err(Violation("panicked, see above".to_owned())));
        if let Err(Violation(what)) = outcome {
            let violation = Violation(format!("{what} ({})", campaign.place));
            return Err(Failure {
                seed,
                images: campaign.tally.images,
                violation,
            });
        }
        tally = campaign.tally;
        tally.runs += 1;
        if tally.images >= goal || only.is_some() {
            break;
        }
    }
    Ok(tally)
}

impl Campaign {
    /// One freshly formatted disk and several lives of the store on it.
    fn one_run(&mut self) -> Result<(), Violation> {
        let (geometry, objects) = if self.options.churn {
            CHURN
        } else {
            draw_geometry(&mut self.rng)
        };
        let make = if self.options.churn {
            Workload::churn
        } else {
            Workload::new
        };
        let mut workload = make(objects, &mut self.rng);
        let model = Model::new(workload.objects().iter().copied());
        let mut image = self.old_disk(geometry);
        format(&mut image, geometry, *b"the first format")?;
        let mut world = self.open(SimDisk::new(image), &model)?;
        if objects >= MANY {
            self.place = format!("{geometry:?}, {objects} objects, filling");
            world.fill(&mut workload)?;
        }
        for life in 0..LIVES {
            self.place = format!("{geometry:?}, {objects} objects, life {life}");
            self.live(&mut world, &mut workload)?;
            if self.tally.images >= self.goal {
                break;
            }
            let remains = world.disk.power_cut(&mut self.rng);
            world = self.reopen(remains, &world.model)?;
        }
        Ok(())
    }

    /// A new disk is blank, holds noise, or was formatted and used before.
    fn old_disk(&mut self, geometry: Geometry) -> Image {
        match self.rng.below(3) {
            0 => Image::blank(geometry.size),
            1 => Image::noise(geometry.size, &mut self.rng),
            _ => self.used_disk(geometry).unwrap_or_else(|_| Image::blank(geometry.size)),
        }
    }

    fn used_disk(&mut self, geometry: Geometry) -> Result<Image, Violation> {
        let mut image = Image::blank(geometry.size);
        format(&mut image, geometry, *b"an older format!")?;
        let mut workload = Workload::new(6, &mut self.rng);
        let model = Model::new(workload.objects().iter().copied());
        let mut world = self.open(SimDisk::new(image), &model)?;
        for _ in 0..200 {
            world.step(&mut workload)?;
        }
        Ok(world.disk.seen)
    }

    /// Works for a while; crashes on the side at many points.
    fn live(&mut self, world: &mut World, workload: &mut Workload) -> Result<(), Violation> {
        let steps = self.rng.between(60, 500) * if self.options.churn { 4 } else { 1 };
        let every = self.rng.between(4, 40) * if self.options.churn { 4 } else { 1 };
        let mut generation = world.disk.generation;
        let before = world.model.compared;
        for step in 0..steps {
            world.step(workload)?;
            if world.disk.generation != generation && self.rng.one_in(every) {
                generation = world.disk.generation;
                let place = std::mem::take(&mut self.place);
                self.place = format!("{place}, step {step}");
                self.crash_point(world, workload, 0)?;
                self.place = place;
            }
            if self.tally.images >= self.goal {
                break;
            }
        }
        self.tally.compared.add(&world.model.compared, &before);
        Ok(())
    }

    fn crash_point(&mut self, world: &World, workload: &Workload, depth: usize) -> Result<(), Violation> {
        let samples = if depth == 0 { SAMPLES } else { 2 };
        for remains in world.disk.power_cuts(samples, &mut self.rng) {
            self.examine(remains, &world.model, workload, depth)?;
        }
        if self.rng.one_in(4) {
            self.kill(world, workload, depth)
        } else {
            Ok(())
        }
    }

    /// Opens what a crash left and checks it; then, at times, goes on from there.
    fn examine(&mut self, remains: Remains, model: &Model, workload: &Workload, depth: usize) -> Result<(), Violation> {
        self.count(&remains, depth);
        if depth < DEEPEST && self.rng.one_in(16) {
            return self.crash_while_opening(remains, model, workload, depth);
        }
        let mut world = self.reopen(remains, model)?;
        if depth < DEEPEST && self.rng.one_in(32) {
            self.go_on(&mut world, workload, depth)?;
        }
        Ok(())
    }

    fn count(&mut self, remains: &Remains, depth: usize) {
        self.tally.images += 1;
        self.tally.torn_writes += remains.torn;
        self.tally.nested += u64::from(depth > 0);
    }

    fn go_on(&mut self, world: &mut World, workload: &Workload, depth: usize) -> Result<(), Violation> {
        let mut workload = workload.clone();
        let before = world.model.compared;
        for _ in 0..self.rng.between(5, 60) {
            world.step(&mut workload)?;
        }
        self.tally.compared.add(&world.model.compared, &before);
        self.crash_point(world, &workload, depth + 1)
    }

    fn crash_while_opening(
        &mut self,
        remains: Remains,
        model: &Model,
        workload: &Workload,
        depth: usize,
    ) -> Result<(), Violation> {
        self.tally.while_opening += 1;
        let mut world = self.begin(SimDisk::new(remains.image), model)?;
        for _ in 0..self.rng.below(12) {
            world.complete(1)?;
        }
        let again = world.disk.power_cut(&mut self.rng);
        self.examine(again, model, workload, depth + 1)
    }

    /// Kills the process. What the next one reports must survive the power cut after it.
    fn kill(&mut self, world: &World, workload: &Workload, depth: usize) -> Result<(), Violation> {
        self.tally.kills += 1;
        let disk = world.disk.kill(&mut self.rng);
        let mut next = self.open(disk, &world.model)?;
        if self.rng.one_in(2) {
            next.read_back(false)?;
        }
        let remains = next.disk.power_cut(&mut self.rng);
        self.examine(remains, &next.model, workload, depth + 1)
    }

    fn begin(&mut self, disk: SimDisk, model: &Model) -> Result<World, Violation> {
        self.tally.stores += 1;
        World::open(disk, model.clone(), self.rng.fork(), self.options.mutant)
    }

    /// Opens a healthy disk: must succeed, and hold what the model says.
    fn open(&mut self, disk: SimDisk, model: &Model) -> Result<World, Violation> {
        let mut world = self.begin(disk, model)?;
        world
            .opened()?
            .map_err(|reason| Violation(format!("the store does not open: {reason}")))?;
        world.take_stock()?;
        Ok(world)
    }

    fn reopen(&mut self, remains: Remains, model: &Model) -> Result<World, Violation> {
        let cut = remains.cut;
        self.verified(remains.image, model)
            .map_err(|Violation(what)| Violation(format!("{what}, after {cut:?}")))
    }

    /// A store opened on `image` whose every byte has been compared.
    fn verified(&mut self, image: Image, model: &Model) -> Result<World, Violation> {
        let mut world = self.open(SimDisk::new(image), model)?;
        let before = world.model.compared;
        world.read_back(model.objects().len() < MANY && self.rng.one_in(16))?;
        self.tally.compared.add(&world.model.compared, &before);
        Ok(world)
    }
}
