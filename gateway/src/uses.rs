//! Which images this gateway changes the bytes of, as all gateways know: an open, or a client's first change where nothing
//! is opened, waits until the tree has the key that says so ([`crate::opens`]), and a truncation is agreed to when nothing is under way any more that began before it. So data is
//! removed when no write can come behind; see [`trivet_namespace::Use`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trivet_client::{ImageOp, IoError};
use trivet_core::kv::{Event, Notice, Revision, TxnOutcome};
use trivet_core::message::STAMP_LIFE;
use trivet_core::{ClientId, ImageId, Now};
use trivet_namespace::{Caller, Inode, Operation, Time, Trimming, Use, image_of};

use crate::gateway::{ConnKey, Effect, Gateway, Origin};
use crate::metrics::Protocol;
use crate::options::mutant;
use crate::session::Finished;

/// How long an image has to be left alone until its use ends.
const IDLE: Duration = Duration::from_secs(10);
/// The data of a removed image waits for so long for a gateway that seems to be gone, before that is fenced.
const PATIENCE: Duration = Duration::from_secs(60);
/// OSDs execute nothing that was sent longer ago than this: its stamp is too old by then, even where clocks differ by 1 %.
const OUTLIVED: Duration = STAMP_LIFE.saturating_add(Duration::from_millis(31));
/// Uses of gateways that are gone which are ended at the same time.
const ENDING: usize = 16;

/// What a transaction does about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Take,
    Agree,
    Leave,
}

/// An image whose bytes this gateway changes, or is about to.
#[derive(Debug)]
struct Usage {
    /// Changes under way, by the truncation that was the last one when they began.
    running: BTreeMap<Option<Time>, usize>,
    /// Changes that wait for the key, or for the end of a truncation.
    waiting: Vec<(Origin, ImageOp)>,
    /// When a change came or ended last.
    last: Now,
    /// A transaction about the key is under way.
    busy: bool,
    /// The next one has to wait until the mirror has more than this commit.
    behind: Revision,
    /// The next one has to wait for a tick, since the outcome of one is not known.
    paused: bool,
    /// The commit that took the key; the mirror may not have it yet.
    taken: Revision,
    /// Nothing begins before the key is gone, and taken again.
    leaving: bool,
    /// Connections that have it open: their changes need the metadata store no more.
    open: usize,
    /// So far was written, maybe beyond the end, before the last truncation, to which this gateway has not agreed yet.
    beyond: u64,
}

/// The images whose bytes this gateway changes, how far their keys are, and what waits for that.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    images: BTreeMap<ImageId, Usage>,
    /// Transactions under way, by ticket; as of which commit.
    txns: BTreeMap<u64, (ImageId, Step, Revision)>,
    /// Connections whose opens are not answered.
    pub(crate) opening: BTreeSet<(ImageId, ConnKey)>,
    /// Images of which something has changed.
    stirred: BTreeSet<ImageId>,
    /// Uses of gateways that are gone, being ended.
    ending: BTreeSet<(ImageId, ClientId)>,
    /// Uses of gateways that seem to be gone, whose times have moved.
    mourned: BTreeSet<(ImageId, ClientId)>,
    /// Changes that nobody waits for any more: until when OSDs may execute what was sent of them.
    forsaken: VecDeque<(Now, Begun)>,
}

/// A change of an image's bytes that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    image: ImageId,
    /// The image's last truncation when it began.
    pub(crate) cut: Option<Time>,
    /// The byte after its last.
    end: u64,
}

impl Begun {
    pub(crate) fn new(image: ImageId, cut: Option<Time>, op: &ImageOp) -> Begun {
        let end = end_of(op);
        Begun { image, cut, end }
    }
}

/// What an image's inode says about changes of its bytes.
#[derive(Clone, Copy, Debug)]
struct Extent {
    size: u64,
    cut: Option<Time>,
    trimming: Option<Trimming>,
}

impl From<&Inode> for Extent {
    fn from(inode: &Inode) -> Extent {
        Extent {
            size: inode.size,
            cut: inode.cut,
            trimming: inode.trimming,
        }
    }
}

/// Whether a change may begin.
enum Verdict {
    Start,
    Wait,
    Fail(IoError),
}

impl Extent {
    /// `grows`: the change may reach beyond the size, which follows.
    fn judge(&self, op: &ImageOp, grows: bool) -> Verdict {
        let end = end_of(op);
        if !grows && end > self.size {
            return Verdict::Fail(IoError::NoSpace);
        }
        // It would go with what the truncation still has to remove.
        match self.trimming {
            Some(trimming) if end > trimming.from => Verdict::Wait,
            _ => Verdict::Start,
        }
    }

    /// A change waits for the end of the truncation: those that come later and have bytes in common with it wait behind it.
    fn keep_behind(&mut self, op: &ImageOp) {
        if let Some(trimming) = &mut self.trimming {
            trimming.from = trimming.from.min(start_of(op));
        }
    }
}

/// The first byte that an operation is about.
fn start_of(op: &ImageOp) -> u64 {
    match op {
        ImageOp::Read { offset, .. } | ImageOp::Zero { offset, .. } | ImageOp::Write { offset, .. } => *offset,
        ImageOp::Purge => 0,
    }
}

/// The byte after the last that an operation is about.
pub(crate) fn end_of(op: &ImageOp) -> u64 {
    match op {
        ImageOp::Read { offset, len } | ImageOp::Zero { offset, len } => offset.saturating_add(*len),
        ImageOp::Write { offset, data } => data
            .iter()
            .fold(*offset, |end, part| end.saturating_add(part.len() as u64)),
        ImageOp::Purge => 0,
    }
}

impl Usage {
    fn new(now: Now) -> Usage {
        Usage {
            running: BTreeMap::new(),
            waiting: Vec::new(),
            last: now,
            busy: false,
            behind: 0,
            paused: false,
            taken: 0,
            leaving: false,
            open: 0,
            beyond: 0,
        }
    }

    fn is_quiet(&self) -> bool {
        self.open == 0 && self.is_done()
    }

    /// Whether nothing is under way, or waits.
    fn is_done(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Whether nothing is under way that began before the truncation `cut`.
    fn has_seen(&self, cut: Option<Time>) -> bool {
        self.running.keys().all(|began| *began == cut)
    }

    fn ended(&mut self, began: Option<Time>) {
        let count = self.running.get_mut(&began).expect("what ends has begun");
        *count -= 1;
        if *count == 0 {
            self.running.remove(&began);
        }
    }
}

impl Gateway {
    /// A client changes an image's bytes.
    pub(crate) fn change_bytes(&mut self, origin: Origin, image: ImageId, op: ImageOp, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        let usage = self.uses.images.entry(image).or_insert_with(|| Usage::new(now));
        usage.last = now;
        let left_behind = match mutant!(self.options, OvertakeWaiting) {
            true => std::mem::take(&mut usage.waiting),
            false => Vec::new(),
        };
        usage.waiting.push((origin, op));
        self.begin_waiting(image);
        if !left_behind.is_empty() {
            self.usage_of(image).waiting.splice(0..0, left_behind);
        }
        if !self.usage_of(image).waiting.is_empty() {
            self.tend_use(image, out);
        }
    }

    /// A change of an image's bytes has ended.
    pub(crate) fn change_ended(&mut self, change: Begun) {
        let now = self.clock.now;
        let usage = self.usage_of(change.image);
        usage.ended(change.cut);
        usage.last = now;
        // Somebody may have waited for that.
        if self.namespace.inode(change.image).map(|inode| inode.cut) != Some(change.cut) {
            self.written_before_cut(change.image, change.end);
        }
    }

    /// What has been written up to `end` goes with the image's last truncation, also what lay beyond the size.
    pub(crate) fn written_before_cut(&mut self, image: ImageId, end: u64) {
        if let Some(usage) = self.uses.images.get_mut(&image) {
            usage.beyond = usage.beyond.max(end);
        }
        self.uses.stirred.insert(image);
    }

    /// A connection opens an image, or has it open no more.
    pub(crate) fn note_open(&mut self, conn: ConnKey) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let image = connection.session.open_image().filter(|_| !connection.gone);
        let before = std::mem::replace(&mut connection.open, image);
        if before == image {
            return;
        }
        let now = self.clock.now;
        if let Some(before) = before {
            let usage = self.usage_of(before);
            (usage.open, usage.last) = (usage.open - 1, now);
            self.opens_no_more(conn, before);
        }
        if let Some(image) = image {
            self.uses.images.entry(image).or_insert_with(|| Usage::new(now)).open += 1;
            self.uses.stirred.insert(image);
            self.opened(conn, image);
        }
    }

    /// A connection has ended: what it wanted and was not begun is not begun any more.
    pub(crate) fn forsake_waiting(&mut self, conn: ConnKey) {
        for usage in self.uses.images.values_mut() {
            usage
                .waiting
                .retain(|(origin, _)| !matches!(origin, Origin::Session(of, _) if *of == conn));
        }
    }

    /// A change is not sent again: what was sent of it ends by itself, and nobody will hear of it.
    pub(crate) fn change_forsaken(&mut self, change: Begun) {
        let until = self.clock.now + OUTLIVED;
        self.uses.forsaken.push_back((until, change));
    }

    /// What was forsaken long enough ago has ended.
    pub(crate) fn end_forsaken(&mut self) {
        while let Some(&(until, change)) = self.uses.forsaken.front()
            && until <= self.clock.now
        {
            self.uses.forsaken.pop_front();
            self.change_ended(change);
        }
    }

    fn usage_of(&mut self, image: ImageId) -> &mut Usage {
        self.uses
            .images
            .get_mut(&image)
            .expect("used while something is under way")
    }

    /// Whether data may go that the image's last truncation cut off.
    pub(crate) fn has_grace(&self, image: ImageId) -> bool {
        let agreed = self.has_seen_cut(image) && self.namespace.others_agree(image, self.id) && self.takes_all(image);
        agreed || mutant!(self.options, NoGrace)
    }

    /// Whether nothing of this gateway is under way that began before the image's last truncation.
    fn has_seen_cut(&self, image: ImageId) -> bool {
        let cut = self.namespace.inode(image).and_then(|inode| inode.cut);
        let usage = self.uses.images.get(&image);
        usage.is_none_or(|usage| usage.has_seen(cut)) && !self.is_growing_from(image, cut)
    }

    /// Whether what goes is all that this gateway has written beyond the end.
    fn takes_all(&self, image: ImageId) -> bool {
        let beyond = self.uses.images.get(&image).map_or(0, |usage| usage.beyond);
        let trimming = self.namespace.inode(image).and_then(|inode| inode.trimming);
        trimming.is_none_or(|trimming| beyond <= trimming.to)
    }

    fn may_agree(&self, image: ImageId) -> bool {
        self.has_seen_cut(image) || mutant!(self.options, AgreeEarly)
    }

    /// Something has ended for which the agreement to a truncation may have waited.
    pub(crate) fn stir_use(&mut self, image: ImageId) {
        self.uses.stirred.insert(image);
    }

    /// Notes which images the metadata store says something about.
    pub(crate) fn stir_uses(&mut self, notice: &Notice) {
        let stirred = &mut self.uses.stirred;
        match notice {
            Notice::Snapshot { .. } | Notice::Replaced { .. } => {
                let own = self.namespace.uses().filter(|(_, client)| *client == self.id);
                stirred.extend(self.uses.images.keys());
                stirred.extend(own.map(|(image, _)| image));
            }
            Notice::Changes { events, .. } => stirred.extend(events.iter().filter_map(|event| match event {
                Event::Put(row) => image_of(&row.key),
                Event::Delete { key, .. } => image_of(key),
            })),
        }
    }

    /// The metadata store was put back: what was committed to the one before, which this one need not have, counts no more.
    pub(crate) fn uses_replaced(&mut self) {
        for usage in self.uses.images.values_mut() {
            (usage.behind, usage.taken) = (0, 0);
        }
    }

    /// Looks at the images of which something has changed. Nothing is counted any more of those that are gone.
    pub(crate) fn tend_stirred(&mut self, out: &mut Vec<Effect>) {
        for image in std::mem::take(&mut self.uses.stirred) {
            let now = self.clock.now;
            if self.namespace.inode(image).is_none() {
                self.metrics.forget(image);
            }
            // A key that nobody waits for any more: it was taken late, and goes when it is idle.
            if self.namespace.use_of(image, self.id).is_some() {
                self.uses.images.entry(image).or_insert_with(|| Usage::new(now));
            }
            self.tend_use(image, out);
        }
    }

    /// Looks at what cannot go on by itself.
    pub(crate) fn tend_waiting(&mut self, out: &mut Vec<Effect>) {
        let Uses { images, stirred, .. } = &mut self.uses;
        let stuck = images
            .iter_mut()
            .filter(|(_, usage)| usage.paused || !usage.waiting.is_empty());
        stirred.extend(stuck.map(|(&image, usage)| {
            usage.paused = false;
            image
        }));
        if mutant!(self.options, OvertakeWaiting) && self.clock.now.0 % 1_000_000_000 < 100_000_000 {
            let all: Vec<ImageId> = images.keys().copied().collect();
            all.into_iter().for_each(|image| self.begin_waiting(image));
        }
        self.tend_stirred(out);
    }

    /// Looks at all images that are used: some have been left alone.
    pub(crate) fn tend_uses(&mut self, out: &mut Vec<Effect>) {
        self.uses.stirred.extend(self.uses.images.keys());
        self.tend_stirred(out);
        self.end_uses(out);
    }

    fn tend_use(&mut self, image: ImageId, out: &mut Vec<Effect>) {
        if !self.uses.images.contains_key(&image) {
            return;
        }
        if !mutant!(self.options, OvertakeWaiting) {
            self.begin_waiting(image);
        }
        self.answer_opens(image, out);
        self.settle_key(image, out);
        if self.is_trimming(image) {
            self.start_trim(image);
        }
    }

    /// Begins the changes that may; those of an image that is gone must not bring its objects back.
    fn begin_waiting(&mut self, image: ImageId) {
        let mut extent = self.namespace.inode(image).map(Extent::from);
        if extent.is_some() && !self.is_user(image) {
            return;
        }
        for (origin, op) in std::mem::take(&mut self.usage_of(image).waiting) {
            let grows = self.protocol_of(origin) == Some(Protocol::Nfs) || mutant!(self.options, WriteBeyondEnd);
            let Some(extent) = &mut extent else {
                self.refuse_io(origin, IoError::Damaged);
                continue;
            };
            match extent.judge(&op, grows) {
                Verdict::Fail(error) => self.refuse_io(origin, error),
                Verdict::Wait => {
                    extent.keep_behind(&op);
                    self.usage_of(image).waiting.push((origin, op));
                }
                Verdict::Start => {
                    *self.usage_of(image).running.entry(extent.cut).or_default() += 1;
                    let cut = Some(extent.cut);
                    self.start_io(origin, image, op, cut);
                }
            }
        }
    }

    /// Whether all gateways know that this one uses the image, or find out before they remove data.
    pub(crate) fn is_user(&mut self, image: ImageId) -> bool {
        if mutant!(self.options, WriteWithoutKey) {
            return true;
        }
        let is_known = self.namespace.use_of(image, self.id).is_some();
        let revision = self.namespace.revision();
        let usage = self.usage_of(image);
        !usage.leaving && (is_known || usage.taken > revision)
    }

    fn refuse_io(&mut self, origin: Origin, error: IoError) {
        if let Origin::Session(conn, ticket) = origin {
            self.answer(conn, ticket, Finished::Io(Err(error), None));
        }
    }

    fn is_idle(&self, image: ImageId, usage: &Usage) -> bool {
        if !usage.is_done() || self.is_growing(image) {
            return false;
        }
        let gone = self.namespace.inode(image).is_none();
        // Without the metadata store the key could neither go nor be taken again, and whoever is served now counts on it.
        let is_stale = self.freshness.is_stale(self.clock.now);
        // Whoever ends the use of a gateway that died moves the times; this one has to do so by itself.
        gone || (usage.open == 0
            && usage.beyond == 0
            && !is_stale
            && self.clock.now.since(usage.last) >= IDLE
            && !self.background.touched.contains_key(&image))
    }

    /// Brings the key to what it should be.
    fn settle_key(&mut self, image: ImageId, out: &mut Vec<Effect>) {
        let key = self.namespace.use_of(image, self.id);
        let cut = self.namespace.inode(image).and_then(|inode| inode.cut);
        let usage = self.usage_of(image);
        if key.is_some_and(|key| key.agreed == cut) {
            usage.beyond = 0;
        }
        let can_act = !usage.busy && !usage.paused;
        if !can_act || self.usage_of(image).behind >= self.namespace.revision() {
            return;
        }
        let usage = self.usage_of(image);
        usage.leaving &= key.is_some();
        match self.next_step(image, key) {
            Some(step) => self.run_step(image, step, key, out),
            None if key.is_none() && self.usage_of(image).is_quiet() => drop(self.uses.images.remove(&image)),
            None => {}
        }
    }

    fn next_step(&self, image: ImageId, key: Option<Use>) -> Option<Step> {
        let usage = self.uses.images.get(&image)?;
        let inode = self.namespace.inode(image);
        match (key, inode) {
            (Some(_), _) if usage.leaving || self.is_idle(image, usage) => Some(Step::Leave),
            (Some(key), Some(inode)) if key.agreed != inode.cut && self.may_agree(image) => Some(Step::Agree),
            (None, Some(_)) if !usage.waiting.is_empty() || usage.open > 0 => Some(Step::Take),
            _ => None,
        }
    }

    fn run_step(&mut self, image: ImageId, step: Step, key: Option<Use>, out: &mut Vec<Effect>) {
        let Some(author) = self.author() else { return };
        let beyond = self.usage_of(image).beyond;
        let txn = match (step, key) {
            (Step::Agree, Some(key)) => author.agree(&self.namespace, image, key, beyond),
            (Step::Leave, Some(key)) => Some(author.leave(image, key)),
            _ => author.take(&self.namespace, image),
        };
        let (Some(txn), Some(usage)) = (txn, self.uses.images.get_mut(&image)) else {
            return;
        };
        usage.busy = true;
        usage.leaving = step == Step::Leave;
        let ticket = self.number();
        let revision = self.namespace.revision();
        self.uses.txns.insert(ticket, (image, step, revision));
        out.push(Effect::Txn(ticket, txn));
    }

    /// A transaction has ended; false if it was not about a use.
    pub(crate) fn use_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) -> bool {
        let Some((image, step, planned)) = self.uses.txns.remove(&ticket) else {
            return false;
        };
        let usage = self.usage_of(image);
        usage.busy = false;
        match outcome {
            TxnOutcome::Committed(revision) => {
                usage.behind = revision.saturating_sub(1);
                if step == Step::Take {
                    usage.taken = revision;
                }
            }
            TxnOutcome::Refused(_) => usage.behind = planned,
            TxnOutcome::Unknown => usage.paused = true,
        }
        self.tend_use(image, out);
        true
    }

    /// Ends what gateways used that are gone.
    fn end_uses(&mut self, out: &mut Vec<Effect>) {
        let room = ENDING.saturating_sub(self.uses.ending.len());
        let others: Vec<_> = self.namespace.uses().filter(|(_, client)| *client != self.id).collect();
        self.mourn(&others, out);
        let uses = others.into_iter().filter(|(_, client)| self.is_fenced(*client));
        let due = uses.filter(|ended| !self.uses.ending.contains(ended)).take(room);
        for (image, client) in Vec::from_iter(due) {
            self.uses.ending.insert((image, client));
            let operation = Operation::EndUse { id: image, client };
            self.start_change(Origin::EndUse(image, client), operation, Caller::root(), out);
        }
    }

    /// Of gateways that seem to be gone: the times of what they used move at once, since the last ones may be lost. They are
    /// fenced only where somebody waits for them: one that is cut off from the metadata store alone shall go on. One that is
    /// not registered any more does not: whoever began to fence it may have died before the end.
    fn mourn(&mut self, uses: &[(ImageId, ClientId)], out: &mut Vec<Effect>) {
        let gateways = &self.client.map().gateways;
        let gone = uses.iter().filter(|(_, client)| !gateways.contains_key(client));
        let gone: BTreeSet<(ImageId, ClientId)> = gone.copied().collect();
        let wall = self.clock.wall;
        for &(image, client) in &gone {
            let waits = match self.namespace.inode(image) {
                _ if !self.client.map().clients.contains_key(&client) => true,
                Some(inode) => inode.trimming.is_some(),
                None => self.dead_for(client) >= PATIENCE,
            };
            if waits {
                self.fence(client, out);
            } else if !self.uses.mourned.contains(&(image, client)) && !mutant!(self.options, ForgetTimes) {
                self.background.touched.insert(image, wall);
            }
        }
        self.uses.mourned = gone;
    }

    /// The use of a gateway that is gone is ended, or could not be.
    pub(crate) fn use_ended(&mut self, image: ImageId, client: ClientId) {
        self.uses.ending.remove(&(image, client));
    }
}
