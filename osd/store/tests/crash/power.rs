//! What a power cut leaves: of every unflushed write, each 512 B sector independently keeps what it
//! was or gets what was written. All subsets where they are few, a choice of nasty ones otherwise.

use std::collections::BTreeSet;

use crate::disk::{SimDisk, Unflushed};
use crate::image::{Image, SECTORS_PER_PAGE};
use crate::rng::{Rng, mix};

/// Up to so many pieces (pages, else writes) all subsets are tried...
const EXHAUSTIVE: usize = 6;
/// ... always up to this many, at some crash points above.
const ALWAYS_EXHAUSTIVE: usize = 3;

/// One way to lose power.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Every unflushed sector is lost.
    Nothing,
    /// Every sector arrives.
    Everything,
    /// What completed arrives; of what was in flight any sectors.
    Completed,
    /// Each write arrives or not, as a whole.
    Writes,
    /// Each page arrives or not.
    Pages,
    /// Each sector arrives with this chance in eight.
    Sectors(usize),
    /// All but one sector arrive.
    OneLost,
    /// A prefix of each write arrives.
    Prefixes,
    /// The latest writes arrive, the earlier ones do not.
    Reversed,
    /// The pages whose bits are set.
    PageSubset(usize),
    /// The writes whose bits are set.
    WriteSubset(usize),
}

/// A disk after a power cut.
pub struct Remains {
    pub image: Image,
    /// Writes of which some sectors arrived and some did not.
    pub torn: u64,
    pub cut: Cut,
}

impl SimDisk {
    /// Different images that a power cut now may leave: all of them where the writes are few, else
    /// about `samples`.
    pub fn power_cuts(&self, samples: usize, rng: &mut Rng) -> Vec<Remains> {
        let mut seen = BTreeSet::new();
        let mut remains = Vec::new();
        for cut in self.choose(samples, rng) {
            let keep: Vec<Vec<bool>> = self
                .unflushed
                .iter()
                .enumerate()
                .map(|(i, write)| self.keep(cut, i, write, rng))
                .collect();
            if seen.insert(fingerprint(&keep)) {
                remains.push(self.after(cut, &keep));
            }
        }
        remains
    }

    /// One image that a power cut now may leave.
    pub fn power_cut(&self, rng: &mut Rng) -> Remains {
        let mut all = self.power_cuts(1, rng);
        all.swap_remove(rng.below(all.len()))
    }

    fn pages(&self) -> usize {
        self.unflushed
            .iter()
            .map(|write| write.sectors() / SECTORS_PER_PAGE)
            .sum()
    }

    fn choose(&self, samples: usize, rng: &mut Rng) -> Vec<Cut> {
        if self.unflushed.is_empty() {
            return vec![Cut::Nothing];
        }
        let mut cuts: Vec<Cut> = (0..samples).map(|_| sample(rng)).collect();
        let limit = if rng.one_in(6) { EXHAUSTIVE } else { ALWAYS_EXHAUSTIVE };
        match (self.pages(), self.unflushed.len()) {
            // A single sample stands for a random choice.
            _ if samples == 1 => {}
            (pages, _) if pages <= limit => cuts.extend((0..1 << pages).map(Cut::PageSubset)),
            (_, writes) if writes <= limit => cuts.extend((0..1 << writes).map(Cut::WriteSubset)),
            _ => cuts.extend([Cut::Nothing, Cut::Everything]),
        }
        cuts
    }

    fn keep(&self, cut: Cut, index: usize, write: &Unflushed, rng: &mut Rng) -> Vec<bool> {
        let sectors = write.sectors();
        let whole = |kept: bool| vec![kept; sectors];
        match cut {
            Cut::Nothing => whole(false),
            Cut::Everything => whole(true),
            Cut::Completed if write.completed.is_some() => whole(true),
            Cut::Completed => each(sectors, 1, || rng.one_in(2)),
            Cut::Writes => whole(rng.one_in(2)),
            Cut::Pages => each(sectors, SECTORS_PER_PAGE, || rng.one_in(2)),
            Cut::Sectors(eighths) => each(sectors, 1, || rng.below(8) < eighths),
            Cut::OneLost => {
                let lost = rng.below(sectors);
                let here = rng.below(self.unflushed.len()) == 0;
                (0..sectors).map(|sector| !here || sector != lost).collect()
            }
            Cut::Prefixes => {
                let end = rng.below(sectors + 1);
                (0..sectors).map(|sector| sector < end).collect()
            }
            Cut::Reversed => whole(index * 2 >= self.unflushed.len()),
            Cut::PageSubset(bits) => {
                let before: usize = self.unflushed[..index]
                    .iter()
                    .map(|w| w.sectors() / SECTORS_PER_PAGE)
                    .sum();
                let mut page = before;
                each(sectors, SECTORS_PER_PAGE, || {
                    page += 1;
                    bits >> (page - 1) & 1 == 1
                })
            }
            Cut::WriteSubset(bits) => whole(bits >> index & 1 == 1),
        }
    }

    fn after(&self, cut: Cut, keep: &[Vec<bool>]) -> Remains {
        let mut image = self.durable.clone();
        let mut torn = 0;
        for (write, kept) in self.unflushed.iter().zip(keep) {
            image.overlay(write.offset, &write.data, kept);
            torn += u64::from(kept.contains(&true) && kept.contains(&false));
        }
        Remains { image, torn, cut }
    }
}

fn sample(rng: &mut Rng) -> Cut {
    match rng.below(10) {
        0 => Cut::Nothing,
        1 => Cut::Completed,
        2 => Cut::Writes,
        3 => Cut::Pages,
        4 => Cut::Sectors(rng.between(1, 7)),
        5 => Cut::OneLost,
        6 => Cut::Prefixes,
        7 => Cut::Reversed,
        8 => Cut::Sectors(4),
        _ => Cut::Everything,
    }
}

/// `len` decisions, drawn once for each group of `group`.
fn each(len: usize, group: usize, mut decide: impl FnMut() -> bool) -> Vec<bool> {
    let mut keep = Vec::with_capacity(len);
    while keep.len() < len {
        keep.resize((keep.len() + group).min(len), decide());
    }
    keep
}

fn fingerprint(keep: &[Vec<bool>]) -> u64 {
    keep.iter()
        .flatten()
        .fold(1, |hash, &kept| mix(hash.wrapping_mul(2) + u64::from(kept)))
}
