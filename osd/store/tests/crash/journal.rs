//! What a disk was asked to write and what was there before, to undo single writes afterwards: as if the disk had
//! lost one, or put it elsewhere, and said nothing.

use bytes::Bytes;

use crate::image::{Image, PAGE};

/// One write.
#[derive(Clone)]
struct Past {
    offset: usize,
    data: Bytes,
    before: Vec<Bytes>,
}

/// All writes of a disk.
#[derive(Clone)]
pub struct Journal {
    writes: Vec<Past>,
    /// The last write to each page.
    last: Vec<Option<usize>>,
}

impl Journal {
    /// Nothing was written to a disk of that many bytes.
    pub fn new(size: usize) -> Journal {
        Journal {
            writes: Vec::new(),
            last: vec![None; size / PAGE],
        }
    }

    /// `data` is about to be written over what `image` has.
    pub fn note(&mut self, offset: usize, data: &Bytes, image: &Image) {
        let pages = offset / PAGE..(offset + data.len()) / PAGE;
        let before = pages.clone().map(|page| image.page(page * PAGE).clone()).collect();
        self.last[pages].fill(Some(self.writes.len()));
        self.writes.push(Past {
            offset,
            data: data.clone(),
            before,
        });
    }

    /// The numbers of the writes that began in `range` and of which something is still there, oldest first.
    pub fn within(&self, range: &std::ops::Range<usize>) -> Vec<usize> {
        (0..self.writes.len())
            .filter(|&at| range.contains(&self.writes[at].offset) && !self.left_of(at).is_empty())
            .collect()
    }

    /// Offset and length of a write.
    pub fn extent(&self, at: usize) -> (usize, usize) {
        (self.writes[at].offset, self.writes[at].data.len())
    }

    /// The pages that are still as the write left them.
    fn left_of(&self, at: usize) -> Vec<usize> {
        let (offset, len) = self.extent(at);
        (offset / PAGE..(offset + len) / PAGE)
            .filter(|&page| self.last[page] == Some(at))
            .collect()
    }

    /// Makes `image` what it were if the write had never arrived.
    pub fn undo(&self, at: usize, image: &mut Image) {
        let past = &self.writes[at];
        for page in self.left_of(at) {
            image.write(page * PAGE, &past.before[page - past.offset / PAGE]);
        }
    }

    /// Makes `image` what it were if the write had gone to `target` instead: pages written later are not touched.
    pub fn misdirect(&self, at: usize, target: usize, image: &mut Image) {
        self.undo(at, image);
        let past = &self.writes[at];
        for index in 0..past.data.len() / PAGE {
            let page = target / PAGE + index;
            if self.last[page].is_none_or(|last| last <= at) {
                image.write(page * PAGE, &past.data.slice(index * PAGE..(index + 1) * PAGE));
            }
        }
    }
}
