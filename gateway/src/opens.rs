//! An open is answered when all gateways know of it.
//!
//! Whoever has an image open relies on its reads and writes going on whatever becomes of the metadata store. A change of an
//! image's bytes needs a key in that store, though ([`crate::uses`]). So the key is taken with the open, and what the
//! client is told from then on waits until the key is there; if that takes too long, the client is sent elsewhere.
//! Protocols that open nothing take the key with the first change.

use bytes::Bytes;
use trivet_core::{ImageId, Now};

use crate::fresh::HOLD;
use crate::gateway::{ConnKey, Effect, Gateway};
use crate::session::Ending;

/// A connection that has opened an image which this gateway is not known to use yet.
#[derive(Debug)]
pub(crate) struct Opening {
    since: Now,
    /// What its client is to be told.
    said: Vec<Bytes>,
}

impl Gateway {
    /// A connection has opened an image.
    pub(crate) fn opened(&mut self, conn: ConnKey, image: ImageId) {
        let since = self.clock.now;
        if self.is_open(image) {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            let said = Vec::new();
            connection.opening = Some(Opening { since, said });
            self.uses.opening.insert((image, conn));
        }
    }

    /// Whether an open of the image may be answered. If it is gone, what is asked next is refused.
    fn is_open(&mut self, image: ImageId) -> bool {
        self.namespace.inode(image).is_none() || self.is_user(image)
    }

    /// A connection has an image open no more.
    pub(crate) fn opens_no_more(&mut self, conn: ConnKey, image: ImageId) {
        self.uses.opening.remove(&(image, conn));
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.opening = None;
        }
    }

    /// Whether the client of a connection waits for the answer to its open; nothing more is taken of it.
    pub(crate) fn is_opening(&self, conn: ConnKey) -> bool {
        self.connections.get(&conn).is_some_and(|c| c.opening.is_some())
    }

    /// A session tells its client something.
    pub(crate) fn say(&mut self, conn: ConnKey, bytes: Vec<Bytes>, out: &mut Vec<Effect>) {
        let connection = self.connections.get_mut(&conn);
        match connection.and_then(|connection| connection.opening.as_mut()) {
            Some(opening) => opening.said.extend(bytes),
            None if bytes.is_empty() => {}
            None => out.push(Effect::Send(conn, bytes)),
        }
    }

    /// Answers the opens of an image, if this gateway is known to use it.
    pub(crate) fn answer_opens(&mut self, image: ImageId, out: &mut Vec<Effect>) {
        let opening = self
            .uses
            .opening
            .range((image, ConnKey(0))..=(image, ConnKey(u64::MAX)));
        let waiting: Vec<ConnKey> = opening.map(|&(_, conn)| conn).collect();
        if waiting.is_empty() || !self.is_open(image) {
            return;
        }
        for conn in waiting {
            self.uses.opening.remove(&(image, conn));
            self.say_all(conn, out);
            if let Some(connection) = self.connections.get_mut(&conn) {
                out.extend(connection.pause_or_go_on(conn));
                let more = connection.attendance.has_leftover();
                out.extend(more.then_some(Effect::Again(conn)));
            }
        }
    }

    /// Nothing that a client was to be told waits any more.
    pub(crate) fn say_all(&mut self, conn: ConnKey, out: &mut Vec<Effect>) {
        let connection = self.connections.get_mut(&conn);
        if let Some(opening) = connection.and_then(|connection| connection.opening.take()) {
            self.say(conn, opening.said, out);
        }
    }

    /// Closes connections whose opens have waited for too long.
    pub(crate) fn look_at_opens(&mut self, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        let opening: Vec<ConnKey> = self.uses.opening.iter().map(|&(_, conn)| conn).collect();
        for conn in opening {
            let connection = self.connections.get(&conn);
            let since = connection.and_then(|c| c.opening.as_ref()).map(|opening| opening.since);
            if since.is_some_and(|since| now.since(since) >= HOLD) {
                let why = self.why_stale();
                let why = why.unwrap_or("the metadata store takes no changes".to_owned());
                self.end(conn, Ending::Fault(format!("nothing can be opened: {why}")), out);
            }
        }
    }
}
