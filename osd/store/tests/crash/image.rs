//! The contents of a disk as shared 4 KiB pages: a copy costs one reference per page, so a hundred
//! thousand crash images are cheap.

use bytes::Bytes;
use trivet_core::buffer::zeroes;

use crate::rng::Rng;

/// Unit of every offset and length, bytes.
pub const PAGE: usize = 4096;
/// What a disk writes atomically, bytes.
pub const SECTOR: usize = 512;
/// Sectors of one page.
pub const SECTORS_PER_PAGE: usize = PAGE / SECTOR;

/// What a disk holds.
#[derive(Clone)]
pub struct Image {
    pages: Vec<Bytes>,
}

impl Image {
    /// `size` bytes of zeroes.
    pub fn blank(size: usize) -> Image {
        Image {
            pages: vec![zeroes(PAGE); size / PAGE],
        }
    }

    /// `size` bytes of noise: a disk that held something else before.
    pub fn noise(size: usize, rng: &mut Rng) -> Image {
        let kinds: Vec<Bytes> = (0..8).map(|_| noise_page(rng)).collect();
        Image {
            pages: (0..size / PAGE)
                .map(|_| kinds[rng.below(kinds.len())].clone())
                .collect(),
        }
    }

    pub fn size(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Replaces whole pages, by reference.
    pub fn write(&mut self, offset: usize, data: &Bytes) {
        for index in 0..data.len() / PAGE {
            self.pages[offset / PAGE + index] = data.slice(index * PAGE..(index + 1) * PAGE);
        }
    }

    /// Replaces only the sectors of `data` for which `keep` (by sector of the write) is true.
    pub fn overlay(&mut self, offset: usize, data: &Bytes, keep: &[bool]) {
        for (index, mask) in keep.chunks(SECTORS_PER_PAGE).enumerate() {
            if mask.iter().any(|&kept| kept) {
                let new = data.slice(index * PAGE..(index + 1) * PAGE);
                let page = &mut self.pages[offset / PAGE + index];
                *page = if mask.iter().all(|&kept| kept) {
                    new
                } else {
                    merge(page, &new, mask)
                };
            }
        }
    }

    pub fn read(&self, offset: usize, len: usize) -> Bytes {
        let pages = &self.pages[offset / PAGE..(offset + len) / PAGE];
        if let [page] = pages {
            return page.clone();
        }
        let mut whole = Vec::with_capacity(len);
        pages.iter().for_each(|page| whole.extend_from_slice(page));
        Bytes::from(whole)
    }

    /// Changes the bytes of the page that `offset` is in.
    pub fn alter(&mut self, offset: usize, change: impl FnOnce(&mut [u8])) {
        let page = &mut self.pages[offset / PAGE];
        let mut bytes = page.to_vec();
        change(&mut bytes);
        *page = Bytes::from(bytes);
    }

    /// The page that `offset` is in.
    pub fn page(&self, offset: usize) -> &Bytes {
        &self.pages[offset / PAGE]
    }

    /// The pages that are not all zero.
    pub fn used_pages(&self) -> Vec<usize> {
        let zero = zeroes(PAGE);
        (0..self.pages.len())
            .filter(|&index| self.pages[index] != zero)
            .collect()
    }
}

fn noise_page(rng: &mut Rng) -> Bytes {
    let words: Vec<u8> = (0..PAGE / 8).flat_map(|_| rng.draw().to_le_bytes()).collect();
    Bytes::from(words)
}

/// The sectors of `new` where `mask` says so, the rest of `old`.
fn merge(old: &Bytes, new: &Bytes, mask: &[bool]) -> Bytes {
    let mut page = old.to_vec();
    for (sector, _) in mask.iter().enumerate().filter(|(_, kept)| **kept) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        page[range.clone()].copy_from_slice(&new[range]);
    }
    Bytes::from(page)
}
