//! What the clients of a run do: operations on images, from a seed, with data that says what it is.
//!
//! It makes operations and tells the history of them; it sends nothing. Sizes are skewed to one block, offsets
//! to hot spots so that operations meet, and waiting times to bursts.

use std::time::Duration;

use bytes::Bytes;
use trivet_client::ImageOp;
use trivet_core::{ImageId, Now};

use crate::random::Random;
use crate::register::{History, OpRef};
use crate::stamp::{self, SECTOR, Stamp};

/// Sectors of 4 KiB.
const BLOCK: u64 = 8;
/// Sectors of the largest read or write, 256 KiB.
const MAX_SECTORS: u64 = 512;
/// One zero of so many is of any length.
const DISCARDS: u64 = 8;
/// Operations within which a hot spot moves on, about.
const HOT_FOR: u64 = 200;
/// Waiting times in a burst are so many times shorter.
const BURST: u32 = 50;
/// How long, in seconds, a deleted image is only read, as it is with users: nobody writes over what deletion left.
const RESTS: (u64, u64) = (60, 400);
/// Bytes that are made zero where a whole image becomes empty: no image is longer.
const WHOLE: u64 = 1 << 60;
/// The kind of operation that empties an image.
const ERASURE: usize = 3;
/// Operations in 100 that go to the place that all clients are obsessed with.
const OBSESSED: u64 = 80;

/// What a run's workload is like. The mix is drawn in proportion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadOptions {
    /// The images and their sizes in bytes, multiples of 4096.
    pub images: Vec<(ImageId, u64)>,
    /// How often: reads.
    pub reads: u64,
    /// How often: writes.
    pub writes: u64,
    /// How often: ranges made zero.
    pub zeroes: u64,
    /// How often: all of an image deleted.
    pub erasures: u64,
    /// Operations in 100 that go to a hot spot.
    pub hot: u64,
    /// Operations in 100 that are aligned to 4096 bytes.
    pub aligned: u64,
    /// Largest operation, sectors: at most 512 count.
    pub largest: u64,
    /// Mean time between two operations of one client.
    pub pace: Duration,
}

impl WorkloadOptions {
    /// A mix that suits most runs, on these images.
    #[must_use]
    pub fn new(images: Vec<(ImageId, u64)>) -> WorkloadOptions {
        WorkloadOptions {
            images,
            reads: 450,
            writes: 510,
            zeroes: 39,
            erasures: 1,
            hot: 50,
            aligned: 60,
            largest: MAX_SECTORS,
            pace: Duration::from_millis(20),
        }
    }

    /// A mix drawn by a seed, on these images.
    #[must_use]
    pub fn draw(images: Vec<(ImageId, u64)>, random: &mut Random) -> WorkloadOptions {
        WorkloadOptions {
            images,
            reads: random.range(200..=700),
            writes: random.range(200..=700),
            zeroes: random.range(0..=50),
            erasures: random.range(0..=4),
            hot: random.range(0..=95),
            aligned: random.range(0..=100),
            largest: *random
                .pick(&[1, 8, 64, 256, MAX_SECTORS, MAX_SECTORS])
                .unwrap_or(&MAX_SECTORS),
            pace: random.duration(Duration::from_millis(2)..=Duration::from_millis(100)),
        }
    }
}

/// What a step does, as the history knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads the sectors.
    Read,
    /// Writes the sectors, with this sequence.
    Write(u64),
    /// Makes the sectors zero.
    Zero,
}

/// One operation to submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The image.
    pub image: ImageId,
    /// What to submit.
    pub op: ImageOp,
    /// What it does.
    pub action: Action,
    /// The first sector that it concerns.
    pub first: u64,
    /// How many sectors it concerns.
    pub sectors: u64,
}

impl Step {
    /// Tells the history that the operation begins now.
    pub fn invoke(&self, now: Now, history: &mut History) -> OpRef {
        let image = self.image.0;
        match self.action {
            Action::Read => history.invoke_read(now, image, self.first, self.sectors),
            Action::Write(sequence) => history.invoke_write(now, image, self.first, self.sectors, sequence),
            Action::Zero => history.invoke_zero(now, image, self.first, self.sectors),
        }
    }

    fn read(image: ImageId, first: u64, sectors: u64) -> Step {
        let op = ImageOp::Read {
            offset: first * SECTOR as u64,
            len: sectors * SECTOR as u64,
        };
        Step {
            image,
            op,
            action: Action::Read,
            first,
            sectors,
        }
    }
}

/// The generator of one run, for all its clients.
#[derive(Clone, Debug)]
pub struct Workload {
    options: WorkloadOptions,
    random: Random,
    sequence: u64,
    /// An image's number and a sector that operations like now.
    hot: (usize, u64),
    /// By an image's number: until then it is only read.
    resting: Vec<Now>,
    /// Operations left of the burst.
    burst: u64,
    obsession: Option<Obsession>,
    /// Some image is emptied next, and rests until then.
    empties: Option<Now>,
}

/// For a while all clients work on one block.
#[derive(Clone, Copy, Debug)]
struct Obsession {
    until: Now,
    /// The image's number, and the block's first sector.
    number: usize,
    first: u64,
    writers: Writers,
    /// They only read it before that.
    from: Now,
}

/// Who writes what all are obsessed with; the others read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Everybody.
    All,
    /// This client, by its index.
    Only(u32),
    /// Everybody but this client.
    AllBut(u32),
}

impl Writers {
    fn include(self, client: u32) -> bool {
        match self {
            Writers::All => true,
            Writers::Only(one) => one == client,
            Writers::AllBut(one) => one != client,
        }
    }
}

impl Workload {
    /// The workload of this seed.
    ///
    /// # Panics
    /// When there are no images, or one is smaller than a block.
    #[must_use]
    pub fn new(options: WorkloadOptions, random: Random) -> Workload {
        assert!(!options.images.is_empty(), "a workload needs images");
        assert!(
            options.images.iter().all(|(_, size)| *size >= 4096),
            "images have blocks"
        );
        let mut workload = Workload {
            resting: vec![Now(0); options.images.len()],
            options,
            random,
            sequence: 0,
            hot: (0, 0),
            burst: 0,
            obsession: None,
            empties: None,
        };
        workload.heat(Now(0));
        workload
    }

    /// The images and their sizes in bytes.
    #[must_use]
    pub fn images(&self) -> &[(ImageId, u64)] {
        &self.options.images
    }

    /// Writes so far: each has a sequence of its own, from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// All clients work on one block from now until then, and write it from `from` on; which one it is, is drawn and
    /// returned: the image and the byte.
    pub fn obsess(&mut self, now: Now, from: Now, until: Now, writers: Writers) -> (ImageId, u64) {
        self.heat(now);
        let (number, sector) = self.hot;
        let first = sector / BLOCK * BLOCK;
        self.obsession = Some(Obsession {
            until,
            number,
            first,
            writers,
            from,
        });
        (self.options.images[number].0, first * SECTOR as u64)
    }

    /// The image and the byte that clients are, or were last, obsessed with.
    #[must_use]
    pub fn obsession(&self) -> Option<(ImageId, u64)> {
        let Obsession { number, first, .. } = self.obsession?;
        Some((self.options.images[number].0, first * SECTOR as u64))
    }

    /// Whether all clients work on one block now.
    #[must_use]
    pub fn is_obsessed(&self, now: Now) -> bool {
        self.obsession.is_some_and(|obsession| now < obsession.until)
    }

    /// The next client that works empties an image, which rests until then, unless all others do.
    pub fn empty_one(&mut self, until: Now) {
        self.empties = Some(until);
    }

    /// The next operation, of this client, which writes under this name.
    pub fn next(&mut self, now: Now, client: u32, writer: u32) -> Step {
        if let Some(obsession) = self.obsession.filter(|obsession| now < obsession.until)
            && self.random.chance(OBSESSED, 100)
        {
            let (image, _) = self.options.images[obsession.number];
            let may_write = obsession.from <= now && obsession.writers.include(client);
            let may_write = may_write && !self.rests(obsession.number, now);
            let writes = may_write && self.random.one_in(2);
            return match writes {
                true => self.write(writer, image, obsession.first, BLOCK),
                false => Step::read(image, obsession.first, BLOCK),
            };
        }
        if self.random.one_in(HOT_FOR) {
            self.heat(now);
        }
        let WorkloadOptions {
            reads,
            writes,
            zeroes,
            erasures,
            ..
        } = self.options;
        let kind = match self.empties {
            Some(_) => ERASURE,
            None => self.random.weighted(&[reads, writes, zeroes, erasures]),
        };
        let (number, first, sectors) = self.place(now, kind > 0);
        let (image, size) = self.options.images[number];
        match kind {
            0 => Step::read(image, first, sectors),
            1 => self.write(writer, image, first, sectors),
            2 if self.random.one_in(DISCARDS) => self.discard(image, first, sectors_of(size)),
            2 => zero_range(image, first, sectors),
            _ => {
                self.rest(number, now);
                erase(image, size)
            }
        }
    }

    /// Zeroes from some place up to `first` on, as far as the end of the image.
    fn discard(&mut self, image: ImageId, first: u64, end: u64) -> Step {
        let first = self.random.below(first + 1);
        zero_range(image, first, self.random.range(1..=end - first))
    }

    /// The next operation on one of the images, by its number, of a user who sees no other.
    pub fn next_on(&mut self, now: Now, number: usize, writer: u32, zeroes: bool) -> Step {
        let (image, size) = self.options.images[number];
        let may_write = !self.rests(number, now);
        let obsession = self
            .obsession
            .filter(|obsession| now < obsession.until && obsession.number == number);
        if let Some(obsession) = obsession
            && self.random.chance(OBSESSED, 100)
        {
            let writes = obsession.writers == Writers::All && may_write && self.random.one_in(2);
            return match writes {
                true => self.write(writer, image, obsession.first, BLOCK),
                false => Step::read(image, obsession.first, BLOCK),
            };
        }
        let hot = self.hot.0 == number && self.random.chance(self.options.hot, 100);
        let (first, sectors) = self.range(hot, sectors_of(size));
        let zero = if zeroes { self.options.zeroes } else { 0 };
        let kind = self.random.weighted(&[self.options.reads, self.options.writes, zero]);
        match kind {
            1 if may_write => self.write(writer, image, first, sectors),
            2 if may_write => zero_range(image, first, sectors),
            _ => Step::read(image, first, sectors),
        }
    }

    /// How long the client waits before its next operation.
    pub fn pause(&mut self, now: Now) -> Duration {
        if self.is_obsessed(now) {
            return self.random.exponential(self.options.pace / BURST);
        }
        if self.burst == 0 && self.random.one_in(40) {
            self.burst = self.random.range(5..=60);
        }
        let pace = match self.burst.checked_sub(1) {
            Some(left) => {
                self.burst = left;
                self.options.pace / BURST
            }
            None => self.options.pace,
        };
        self.random.exponential(pace)
    }

    /// Reads of everything, for the end of a run.
    #[must_use]
    pub fn scan(&self) -> Vec<Step> {
        let images = self.options.images.iter();
        images
            .flat_map(|&(image, size)| {
                let end = sectors_of(size);
                let starts = (0..end).step_by(512);
                starts.map(move |first| Step::read(image, first, MAX_SECTORS.min(end - first)))
            })
            .collect()
    }

    /// Whether it works on this image.
    #[must_use]
    pub fn has(&self, image: ImageId) -> bool {
        self.options.images.iter().any(|(own, _)| *own == image)
    }

    /// Deletes everything.
    #[must_use]
    pub fn erasures(&self) -> Vec<Step> {
        self.options
            .images
            .iter()
            .map(|&(image, size)| erase(image, size))
            .collect()
    }

    fn heat(&mut self, now: Now) {
        let number = self.awake(now);
        let sectors = sectors_of(self.options.images[number].1);
        self.hot = (number, self.random.below(sectors));
    }

    /// This image is deleted now: half of them are only read for a while, unless all others are.
    fn rest(&mut self, number: usize, now: Now) {
        let is_last = (0..self.resting.len()).all(|other| other == number || self.rests(other, now));
        let wanted = self.empties.take();
        if is_last || wanted.is_none() && self.random.one_in(2) {
            return;
        }
        let any = Duration::from_secs(self.random.range(RESTS.0..=RESTS.1));
        self.resting[number] = wanted.unwrap_or(now + any);
        if self.hot.0 == number {
            self.heat(now);
        }
    }

    fn rests(&self, number: usize, now: Now) -> bool {
        now < self.resting[number]
    }

    /// Any image that does not rest.
    fn awake(&mut self, now: Now) -> usize {
        let awake: Vec<usize> = (0..self.resting.len())
            .filter(|&number| !self.rests(number, now))
            .collect();
        self.random.pick(&awake).copied().unwrap_or(0)
    }

    /// An image's number, the first sector in it, and how many.
    fn place(&mut self, now: Now, changes: bool) -> (usize, u64, u64) {
        let hot = self.random.chance(self.options.hot, 100) && !(changes && self.rests(self.hot.0, now));
        let number = match (hot, changes) {
            (true, _) => self.hot.0,
            (false, true) => self.awake(now),
            (false, false) => self.random.index(self.options.images.len()),
        };
        let (first, sectors) = self.range(hot, sectors_of(self.options.images[number].1));
        (number, first, sectors)
    }

    /// The first sector in an image of so many, and how many.
    fn range(&mut self, hot: bool, end: u64) -> (u64, u64) {
        let aligned = self.random.chance(self.options.aligned, 100);
        let mut sectors = self.length(aligned).min(end);
        let mut first = match hot {
            true => (self.hot.1 + self.random.below(4 * BLOCK)).saturating_sub(self.random.below(sectors + 1)),
            false => self.random.below(end),
        };
        first = first.min(end - sectors);
        if aligned {
            first = first / BLOCK * BLOCK;
            sectors = sectors.min(end - first);
        }
        (first, sectors)
    }

    fn length(&mut self, aligned: bool) -> u64 {
        let sectors = match self.random.below(100) {
            0..50 => BLOCK,
            50..65 => self.random.range(1..=BLOCK),
            65..85 => self.random.range(1..=8 * BLOCK),
            85..95 => self.random.range(1..=32 * BLOCK),
            _ => self.random.range(32 * BLOCK..=MAX_SECTORS),
        };
        let sectors = sectors.min(self.options.largest.max(1));
        if aligned {
            sectors.next_multiple_of(BLOCK)
        } else {
            sectors
        }
    }

    fn write(&mut self, writer: u32, image: ImageId, first: u64, sectors: u64) -> Step {
        self.sequence += 1;
        let sequence = self.sequence;
        let data = payload(image, first, sectors, writer, sequence);
        let offset = first * SECTOR as u64;
        let op = ImageOp::Write {
            offset,
            data: self.cut(data),
        };
        Step {
            image,
            op,
            action: Action::Write(sequence),
            first,
            sectors,
        }
    }

    /// The same sectors as an earlier write, with a value of its own.
    pub(crate) fn write_again(&mut self, writer: u32, (image, first, sectors): (u64, u64, u64)) -> Step {
        self.write(writer, ImageId(image), first, sectors)
    }

    /// Front ends hand data on as it came from the network: sometimes in two pieces.
    fn cut(&mut self, mut data: Bytes) -> Vec<Bytes> {
        if !self.random.one_in(4) {
            return vec![data];
        }
        let first = data.split_to(1 + self.random.index(data.len() - 1));
        vec![first, data]
    }
}

/// The stamped data of a write.
#[must_use]
pub fn payload(image: ImageId, first: u64, sectors: u64, writer: u32, sequence: u64) -> Bytes {
    let len = usize::try_from(sectors).expect("at most an image in memory") * SECTOR;
    let mut data = vec![0; len];
    for (sector, out) in (first..).zip(data.chunks_exact_mut(SECTOR)) {
        let stamp = Stamp {
            image: image.0,
            sector,
            writer,
            sequence,
        };
        stamp::fill(out, stamp);
    }
    Bytes::from(data)
}

fn sectors_of(bytes: u64) -> u64 {
    bytes / SECTOR as u64
}

fn zero_range(image: ImageId, first: u64, sectors: u64) -> Step {
    let op = ImageOp::Zero {
        offset: first * SECTOR as u64,
        len: sectors * SECTOR as u64,
    };
    Step {
        image,
        op,
        action: Action::Zero,
        first,
        sectors,
    }
}

/// Makes the whole image empty, while others use it: a sweep however small the image is.
fn erase(image: ImageId, size: u64) -> Step {
    Step {
        image,
        op: ImageOp::Zero { offset: 0, len: WHOLE },
        action: Action::Zero,
        first: 0,
        sectors: sectors_of(size),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trivet_core::PoolId;

    use super::*;
    use crate::stamp::{Content, parse_all};

    fn images() -> Vec<(ImageId, u64)> {
        [4 << 20, 1 << 20, 4096]
            .into_iter()
            .zip(1..)
            .map(|(size, number)| (ImageId::new(PoolId(1), number), size))
            .collect()
    }

    fn workload(seed: u64) -> Workload {
        Workload::new(WorkloadOptions::new(images()), Random::new(seed))
    }

    /// First byte and length of an operation on an image of this size.
    fn extent(op: &ImageOp, size: u64) -> (u64, u64) {
        match op {
            ImageOp::Zero { len: WHOLE, .. } => (0, size),
            ImageOp::Read { offset, len } | ImageOp::Zero { offset, len } => (*offset, *len),
            ImageOp::Write { offset, data } => (*offset, data.iter().map(|data| data.len() as u64).sum()),
            ImageOp::Purge => panic!("nobody uses an image that is removed"),
        }
    }

    #[test]
    fn steps_fit_their_image_and_say_what_they_are() {
        let sizes: BTreeMap<ImageId, u64> = images().into_iter().collect();
        let mut random = Random::new(1);
        for seed in 0..50 {
            let options = WorkloadOptions::draw(images(), &mut random);
            let (largest, mut last) = (options.largest, 0);
            let mut workload = Workload::new(options, Random::new(seed));
            for _ in 0..200 {
                let step = workload.next(Now(0), 0, 5);
                let size = sizes[&step.image];
                let (offset, len) = extent(&step.op, size);
                assert_eq!((offset, len), (step.first * 512, step.sectors * 512), "{step:?}");
                assert!(len > 0 && offset + len <= size, "{step:?}");
                assert!(
                    step.action == Action::Zero || step.sectors <= largest.next_multiple_of(8),
                    "{step:?}"
                );
                if let (Action::Write(sequence), ImageOp::Write { data, .. }) = (step.action, &step.op) {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                    let contents = parse_all(data, step.image.0, step.first).unwrap();
                    assert!(contents.iter().all(|&content| content == Content::Value(sequence)));
                }
            }
            assert_eq!(workload.sequence(), last);
        }
    }

    #[test]
    fn a_deleted_image_is_often_only_read_for_a_while_but_never_all_are() {
        let mut workload = workload(3);
        let (mut deleted, mut rested) = (0, 0);
        for second in 0..40_000 {
            let now = Now(second * 1_000_000_000);
            let resting: Vec<bool> = (0..3).map(|number| workload.rests(number, now)).collect();
            assert!(resting.contains(&false));
            let step = workload.next(now, 0, 1);
            let number = images().iter().position(|(image, _)| *image == step.image).unwrap();
            assert!(
                step.action == Action::Read || !resting[number],
                "{step:?} while it rests"
            );
            if matches!(step.op, ImageOp::Zero { len: WHOLE, .. }) {
                deleted += 1;
                rested += usize::from(workload.rests(number, now + Duration::from_secs(59)));
            }
        }
        assert!(
            deleted > 20 && rested > deleted / 4 && rested < deleted,
            "{rested} of {deleted}"
        );
    }

    #[test]
    fn the_mix_is_as_ordered_with_blocks_odd_places_and_hot_spots() {
        let mut workload = workload(2);
        let (mut kinds, mut aligned, mut blocks, mut meetings) = ([0; 4], 0, 0, 0);
        let mut before: Option<Step> = None;
        for second in 0..20_000 {
            let step = workload.next(Now(second * 1_000_000_000), 0, 1);
            kinds[match step.op {
                ImageOp::Read { .. } => 0,
                ImageOp::Write { .. } => 1,
                ImageOp::Zero { len: WHOLE, .. } => 3,
                ImageOp::Zero { .. } => 2,
                ImageOp::Purge => panic!("nobody uses an image that is removed"),
            }] += 1;
            aligned += usize::from((step.first | step.sectors).is_multiple_of(8));
            blocks += usize::from(step.sectors == 8);
            let meets = |other: &Step| {
                other.image == step.image
                    && other.first < step.first + step.sectors
                    && step.first < other.first + other.sectors
            };
            meetings += usize::from(before.as_ref().is_some_and(meets));
            before = Some(step);
        }
        assert!(
            kinds[0] > 8500 && kinds[1] > 9500 && kinds[2] > 600 && (5..60).contains(&kinds[3]),
            "{kinds:?}"
        );
        assert!((10_000..17_000).contains(&aligned), "{aligned} aligned");
        assert!((8_000..16_000).contains(&blocks), "{blocks} of one block");
        assert!(meetings > 2000, "{meetings} meet the one before");
    }

    #[test]
    fn a_scan_reads_every_sector_once() {
        let scan = workload(3).scan();
        for (image, size) in images() {
            let steps = scan.iter().filter(|step| step.image == image);
            let end = steps.fold(0, |end, step| {
                assert_eq!(extent(&step.op, size), (end, step.sectors * 512));
                end + step.sectors * 512
            });
            assert_eq!(end, size);
        }
    }

    #[test]
    fn pauses_have_bursts() {
        let mut workload = workload(4);
        let pauses: Vec<Duration> = (0..10_000).map(|_| workload.pause(Now(0))).collect();
        let short = pauses.iter().filter(|pause| **pause < Duration::from_millis(1)).count();
        assert!((2000..8000).contains(&short), "{short} short");
        assert!(pauses.iter().max() > Some(&Duration::from_millis(80)));
    }

    #[test]
    fn the_history_hears_of_each_step_and_finds_a_right_run_right() {
        let mut workload = workload(5);
        let mut history = History::new();
        let mut now = Now(0);
        let mut images: BTreeMap<ImageId, Vec<Content>> = images()
            .into_iter()
            .map(|(image, size)| (image, vec![Content::Zero; usize::try_from(size / 512).unwrap()]))
            .collect();
        let steps: Vec<Step> = (0..500).map(|_| workload.next(Now(0), 0, 1)).collect();
        for step in steps.into_iter().chain(workload.scan()) {
            now = now + workload.pause(Now(0));
            let op = step.invoke(now, &mut history);
            let start = usize::try_from(step.first).unwrap();
            let range = start..start + usize::try_from(step.sectors).unwrap();
            let sectors = &mut images.get_mut(&step.image).unwrap()[range];
            match step.action {
                Action::Read => history.end_read(op, now, sectors).unwrap(),
                Action::Write(sequence) => sectors.fill(Content::Value(sequence)),
                Action::Zero => sectors.fill(Content::Zero),
            }
            if step.action != Action::Read {
                history.end_ok(op, now);
            }
        }
        let stats = history.check().unwrap();
        assert!(
            stats.value_reads > 1000 && stats.zeroes > 0 && stats.indeterminate == 0,
            "{stats:?}"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_steps() {
        let steps = |seed| {
            let mut workload = workload(seed);
            (0..50)
                .map(|_| (workload.next(Now(0), 0, 1), workload.pause(Now(0))))
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(6), steps(6));
        assert_ne!(steps(6), steps(7));
    }
}
