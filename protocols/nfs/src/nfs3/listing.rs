//! READDIR and READDIRPLUS results, encoded entry by entry until the client's limit is reached
//! (RFC 1813 sections 3.3.16, 3.3.17).

use std::marker::PhantomData;

use bytes::Bytes;

use super::attributes::{FATTR3_SIZE, PostOpAttr};
use super::types::{Handle, Status, Verifier};
use crate::xdr::{Reader, WORD, Writer, Xdr, XdrError};

/// cookieverf3, the FALSE that ends the list, and eof.
const FRAME_SIZE: usize = 8 + WORD + WORD;
/// An entry's fileid, length of the name, and cookie.
const DIRECTORY_SIZE: usize = 8 + WORD + 8;

xdr_struct! {
    /// entry3.
    Entry {
        /// The object's number.
        fileid: u64,
        /// Its name.
        name: Bytes,
        /// To go on behind it.
        cookie: u64,
    }
}

xdr_struct! {
    /// entryplus3.
    EntryPlus {
        /// The object's number.
        fileid: u64,
        /// Its name.
        name: Bytes,
        /// To go on behind it.
        cookie: u64,
        /// Its attributes.
        attributes: PostOpAttr,
        /// Its handle.
        handle: Option<Handle>,
    }
}

/// READDIR3resok or READDIRPLUS3resok, its list of entries already encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<E> {
    /// The directory's attributes.
    pub attributes: PostOpAttr,
    /// Makes cookies of a directory that has changed too much invalid.
    pub verifier: Verifier,
    /// dirlist3 or dirlistplus3.
    list: Bytes,
    entry: PhantomData<fn() -> E>,
}

impl<E: Xdr> Listing<E> {
    /// The entries, and whether they reach the end of the directory.
    #[must_use]
    pub fn entries(&self) -> (Vec<E>, bool) {
        let mut r = Reader::new(&self.list);
        let mut entries = Vec::new();
        while let Ok(Some(entry)) = Option::decode(&mut r) {
            entries.push(entry);
        }
        (entries, r.bool().unwrap_or(false))
    }
}

impl<E: Xdr> Xdr for Listing<E> {
    fn encode(&self, w: &mut Writer) {
        self.attributes.encode(w);
        self.verifier.encode(w);
        w.encoded(&self.list);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Listing<E>, XdrError> {
        let (attributes, verifier) = (Xdr::decode(r)?, Xdr::decode(r)?);
        let start = r.rest();
        while Option::<E>::decode(r)?.is_some() {}
        r.bool()?;
        Ok(Listing {
            attributes,
            verifier,
            list: r.since(start),
            entry: PhantomData,
        })
    }
}

/// What both builders share: the entries so far and the room that is left.
#[derive(Debug)]
struct Frame {
    attributes: PostOpAttr,
    verifier: Verifier,
    list: Writer,
    /// Bytes for entries; `None` if not even an empty list fits.
    room: Option<usize>,
}

impl Frame {
    fn new(limit: u32, attributes: PostOpAttr, verifier: Verifier) -> Frame {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let room = limit.checked_sub(FRAME_SIZE + attributes_size(&attributes));
        Frame {
            attributes,
            verifier,
            list: Writer::new(),
            room,
        }
    }

    /// Takes `size` bytes of the room, if they are there.
    fn take(&mut self, size: usize) -> bool {
        let left = self.room.and_then(|room| room.checked_sub(size));
        if left.is_some() {
            self.room = left;
        }
        left.is_some()
    }

    fn entry(&mut self, fileid: u64, name: &[u8], cookie: u64) {
        self.list.prepare();
        self.list.bool(true);
        self.list.u64(fileid);
        self.list.opaque(name);
        self.list.u64(cookie);
    }

    fn finish<E>(mut self, eof: bool) -> Result<Listing<E>, Status> {
        if self.room.is_none() || (self.list.is_empty() && !eof) {
            return Err(Status::TooSmall);
        }
        self.list.bool(false);
        self.list.bool(eof);
        let Frame {
            attributes,
            verifier,
            list,
            ..
        } = self;
        Ok(Listing {
            attributes,
            verifier,
            list: list.into_bytes(),
            entry: PhantomData,
        })
    }
}

/// Bytes of a post_op_attr.
fn attributes_size(attributes: &PostOpAttr) -> usize {
    WORD + attributes.map_or(0, |_| FATTR3_SIZE)
}

/// Bytes of a post_op_fh3.
fn handle_size(handle: Option<&Handle>) -> usize {
    WORD + handle.map_or(0, |handle| WORD + handle.as_bytes().len().next_multiple_of(WORD))
}

/// Bytes of fileid, name and cookie.
fn directory_size(name: &[u8]) -> usize {
    DIRECTORY_SIZE + name.len().next_multiple_of(WORD)
}

/// Builds a READDIR result.
#[derive(Debug)]
pub struct ReadDirBuilder(Frame);

impl ReadDirBuilder {
    /// An empty listing whose READDIR3resok has at most `count` bytes; clamp the client's count before.
    #[must_use]
    pub fn new(count: u32, attributes: PostOpAttr, verifier: Verifier) -> ReadDirBuilder {
        ReadDirBuilder(Frame::new(count, attributes, verifier))
    }

    /// Appends an entry; `false`, and nothing changes, if it does not fit.
    #[must_use]
    pub fn push(&mut self, fileid: u64, name: &[u8], cookie: u64) -> bool {
        let fits = self.0.take(WORD + directory_size(name));
        if fits {
            self.0.entry(fileid, name, cookie);
        }
        fits
    }

    /// The listing; `eof` if its last entry is the directory's last.
    ///
    /// # Errors
    /// [`Status::TooSmall`] if there are entries and not one fitted, or if an empty list does not fit.
    pub fn finish(self, eof: bool) -> Result<Listing<Entry>, Status> {
        self.0.finish(eof)
    }
}

/// Builds a READDIRPLUS result.
#[derive(Debug)]
pub struct ReadDirPlusBuilder {
    frame: Frame,
    directory_room: usize,
}

impl ReadDirPlusBuilder {
    /// An empty listing whose READDIRPLUS3resok has at most `max_count` bytes, of which fileids, names
    /// and cookies at most `dir_count`; clamp the client's counts before. The first entry is exempt from
    /// `dir_count`, so that a client which sends a tiny one still gets on.
    #[must_use]
    pub fn new(dir_count: u32, max_count: u32, attributes: PostOpAttr, verifier: Verifier) -> ReadDirPlusBuilder {
        ReadDirPlusBuilder {
            frame: Frame::new(max_count, attributes, verifier),
            directory_room: usize::try_from(dir_count).unwrap_or(usize::MAX),
        }
    }

    /// Appends an entry; `false`, and nothing changes, if it does not fit.
    #[must_use]
    pub fn push(
        &mut self,
        fileid: u64,
        name: &[u8],
        cookie: u64,
        attributes: &PostOpAttr,
        handle: Option<&Handle>,
    ) -> bool {
        let directory = directory_size(name);
        if directory > self.directory_room && !self.frame.list.is_empty() {
            return false;
        }
        if !self
            .frame
            .take(WORD + directory + attributes_size(attributes) + handle_size(handle))
        {
            return false;
        }
        self.directory_room = self.directory_room.saturating_sub(directory);
        self.frame.entry(fileid, name, cookie);
        attributes.encode(&mut self.frame.list);
        self.frame.list.bool(handle.is_some());
        if let Some(handle) = handle {
            handle.encode(&mut self.frame.list);
        }
        true
    }

    /// The listing; `eof` if its last entry is the directory's last.
    ///
    /// # Errors
    /// [`Status::TooSmall`] if there are entries and not one fitted, or if an empty list does not fit.
    pub fn finish(self, eof: bool) -> Result<Listing<EntryPlus>, Status> {
        self.frame.finish(eof)
    }
}
