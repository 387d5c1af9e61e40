//! One store on one simulated disk with its model, in motion.

use std::collections::BTreeMap;
use std::ops::Range;

use trivet_core::disk::DiskOpKind;
use trivet_core::{Epoch, ObjectId, OsdId, PgId};
use trivet_store::api::{Output, Request};
use trivet_store::{Format, Mutant, Options, State, Store};

use crate::Violation;
use crate::disk::SimDisk;
use crate::image::Image;
use crate::model::{Known, Model};
use crate::rng::Rng;
use crate::workload::Workload;

/// More steps than any run takes to come to rest.
const RESTLESS: usize = 200_000;
/// Steps of a store that is asked for nothing.
const PATIENCE: usize = 40;
/// The cluster of all tests.
pub const CLUSTER: [u8; 16] = *b"crash test runs!";
/// The OSD of all tests.
pub const OSD: OsdId = OsdId(7);

/// The layout of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub size: usize,
    pub log: u64,
}

/// A store at work.
pub struct World {
    pub store: Store,
    pub disk: SimDisk,
    pub model: Model,
    pub rng: Rng,
    out: Output,
    /// At most so many requests are outstanding.
    depth: usize,
}

/// Formats `image`; what was there before must not matter. Gives back where the log lies: format writes to
/// the start of each part, the log is the last one.
pub fn format(image: &mut Image, geometry: Geometry, name: [u8; 16]) -> Result<Range<usize>, Violation> {
    let format = format_of(geometry, name);
    let mut rng = Rng::new(0);
    let mut disk = SimDisk::new(image.clone());
    let mut log = 0;
    for op in trivet_store::format(&format).map_err(Violation)? {
        if let DiskOpKind::Write { offset, .. } = op.kind {
            log = log.max(usize::try_from(offset).expect("a small disk"));
        }
        disk.submit(op, &mut rng)?;
        disk.complete(&mut rng);
    }
    if !disk.unflushed.is_empty() {
        return Err(Violation("formatting does not end with a flush".to_owned()));
    }
    *image = disk.durable;
    Ok(log..log + usize::try_from(geometry.log).expect("a small disk"))
}

/// How a store of that layout and name is made.
pub fn format_of(geometry: Geometry, name: [u8; 16]) -> Format {
    Format {
        size: geometry.size as u64,
        osd: OSD,
        cluster: CLUSTER,
        store: name,
        log_size: Some(geometry.log),
    }
}

impl World {
    /// Begins to open a store; nothing has been read yet.
    pub fn open(disk: SimDisk, model: Model, mut rng: Rng, mutant: Option<Mutant>) -> Result<World, Violation> {
        let mut out = Output::default();
        let options = Options {
            expect: Some((CLUSTER, OSD)),
            mutant,
        };
        let store = Store::open(disk.size(), options, &mut out);
        let depth = [1, 4, 32][rng.below(3)];
        let mut world = World {
            store,
            disk,
            model,
            rng,
            out,
            depth,
        };
        world.pump()?;
        Ok(world)
    }

    /// Lets the store act, and takes what it says.
    fn pump(&mut self) -> Result<(), Violation> {
        self.store.pump(&mut self.out);
        for op in self.out.disk.drain(..) {
            self.disk.submit(op, &mut self.rng)?;
        }
        self.model.disk_failed = self.disk.failed;
        for (ticket, result) in self.out.done.drain(..) {
            self.model.answer(ticket, result)?;
        }
        Ok(())
    }

    /// Completes up to `count` disk operations in one batch.
    pub fn complete(&mut self, count: usize) -> Result<(), Violation> {
        for _ in 0..count {
            if let Some(done) = self.disk.complete(&mut self.rng) {
                self.store.completed(done, &mut self.out);
            }
        }
        self.pump()
    }

    /// Drives the store until it has opened; the reason if it will not.
    pub fn opened(&mut self) -> Result<Result<(), String>, Violation> {
        for _ in 0..RESTLESS {
            match self.store.state() {
                State::Ready => return Ok(Ok(())),
                State::Failed(reason) => return Ok(Err(reason)),
                State::Opening if self.disk.idle() => {
                    return Err(Violation("opening waits for nothing".to_owned()));
                }
                State::Opening => self.complete(1)?,
            }
        }
        Err(Violation("opening does not end".to_owned()))
    }

    pub fn submit(&mut self, request: Request) {
        let ticket = self.model.ask(&request);
        self.store.submit(ticket, request, &mut self.out);
    }

    /// One batch of requests or of completions.
    pub fn step(&mut self, workload: &mut Workload) -> Result<(), Violation> {
        let room = self.depth.saturating_sub(self.model.outstanding());
        if room > 0 && (self.disk.idle() || self.rng.one_in(2)) {
            for _ in 0..self.rng.between(1, room.min(6)) {
                let request = workload.draw(&self.model, &mut self.rng);
                self.submit(request);
            }
            self.pump()?;
            return self.look(workload);
        }
        if self.disk.idle() && self.model.outstanding() == 0 && self.rng.one_in(16) {
            return self.linger();
        }
        if self.disk.idle() && self.model.outstanding() > 0 {
            return Err(Violation("requests wait while the disk is idle".to_owned()));
        }
        let count = self.rng.between(1, 3);
        self.complete(count)
    }

    /// Makes most of the objects exist, all at once.
    pub fn fill(&mut self, workload: &mut Workload) -> Result<(), Violation> {
        for request in workload.fill(&self.model, &mut self.rng) {
            self.submit(request);
        }
        self.rest()
    }

    /// Looks at one object the way the OSD does.
    fn look(&mut self, workload: &Workload) -> Result<(), Violation> {
        let object = workload.objects()[self.rng.below(workload.objects().len())];
        self.model.check_info(object, &known(&self.store, object))?;
        let (said, latest) = (self.store.latest(object), self.model.latest(object));
        if self.model.disk_failed || said == latest {
            return Ok(());
        }
        Err(Violation(format!(
            "the latest of {object} is {said:?}, must be {latest:?}"
        )))
    }

    /// Asks nothing more and waits until all is answered and the disk rests.
    pub fn rest(&mut self) -> Result<(), Violation> {
        for _ in 0..RESTLESS {
            if self.disk.idle() {
                self.pump()?;
            }
            if self.disk.idle() {
                let waiting = self.model.outstanding();
                let lost = Violation(format!("{waiting} requests are never answered"));
                return if waiting == 0 { Ok(()) } else { Err(lost) };
            }
            self.complete(1)?;
        }
        Err(Violation("the store does not come to rest".to_owned()))
    }

    /// Nothing is asked for, for a while.
    pub fn linger(&mut self) -> Result<(), Violation> {
        for _ in 0..PATIENCE {
            self.complete(1)?;
        }
        self.rest()
    }

    /// The process ends; every write arrives, those in flight included.
    pub fn stop(&mut self) {
        let disk = &mut self.disk;
        for write in std::mem::take(&mut disk.unflushed) {
            if let (None, Some(journal)) = (write.completed, &mut disk.journal) {
                journal.note(write.offset, &write.data, &disk.durable);
            }
            disk.durable.write(write.offset, &write.data);
        }
    }

    /// Replaces every object by what it should be.
    pub fn repair_all(&mut self) -> Result<(), Violation> {
        for request in self.model.replacements() {
            self.submit(request);
        }
        self.rest()
    }

    /// After opening: what is there is what may be there; from now on it is what must be there.
    pub fn take_stock(&mut self) -> Result<(), Violation> {
        let epochs: BTreeMap<PgId, Epoch> = self.store.accepted_epochs().collect();
        let store = &self.store;
        self.model = self
            .model
            .survived(|object| known(store, object), &epochs, store.mark())?;
        self.model.slots = usize::try_from(self.store.stats().capacity).expect("small") / trivet_core::OBJECT_SIZE;
        let listed = self.store.objects().count();
        if listed != self.model.existing() {
            return Err(Violation(format!(
                "{listed} objects listed, {} exist",
                self.model.existing()
            )));
        }
        Ok(())
    }

    /// Reads everything back; all of every object if `whole`, else what is present.
    pub fn read_back(&mut self, whole: bool) -> Result<(), Violation> {
        for request in self.model.inventory(whole) {
            self.submit(request);
        }
        self.rest()
    }
}

fn known(store: &Store, object: ObjectId) -> Known {
    (store.info(object), store.ops(object))
}
