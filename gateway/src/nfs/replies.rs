//! The duplicate-request cache: a call that changes names and is sent again, usually over a new connection,
//! gets the answer of the first time (RFC 1813 section 4.5).
//!
//! It is the first of two stages: what was executed is also in the tree, for all gateways (see
//! [`trivet_namespace::CallId`]), and stays there when this gateway is gone.
//!
//! Bounded by a number of replies, the oldest go first; calls in progress are bounded by the connections'
//! own limits.

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::HashMap;
use trivet_namespace::CallId;
use trivet_nfs::connection::Fingerprint;
use trivet_nfs::nfs3::{Reply, Request};
use trivet_nfs::rpc::Credentials;

/// Replies kept, of a few hundred bytes each.
const MAX_REPLIES: usize = 8192;

/// Tells calls apart: two with the same key are the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallKey {
    /// Not its port: that may be another after a reconnect.
    pub(super) client: IpAddr,
    pub(super) xid: u32,
    pub(super) fingerprint: Fingerprint,
}

impl CallKey {
    /// The call as all gateways know it. A client comes from one address, behind which there may be several machines.
    pub(super) fn id(&self, credentials: &Credentials) -> CallId {
        let mut caller = self.client.to_canonical().to_string().into_bytes();
        if let Credentials::Sys(credentials) = credentials {
            caller.push(b' ');
            caller.extend_from_slice(&credentials.machine.0);
        }
        let Fingerprint {
            program: _,
            procedure,
            length,
            checksum,
        } = self.fingerprint;
        let parts = [self.xid, procedure, u32::try_from(length).unwrap_or(u32::MAX), checksum];
        CallId {
            caller: caller.into(),
            call: parts.into_iter().fold(0, |call, part| call << 32 | u128::from(part)),
        }
    }
}

/// What is known about a call that has come.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "looked at once, never kept")]
pub(super) enum Seen {
    /// It is new, and in progress from now on.
    New,
    /// It is in progress.
    InProgress,
    /// It was answered so.
    Answered(Reply),
}

#[derive(Debug, Default)]
pub(super) struct ReplyCache {
    /// `None` while in progress.
    calls: HashMap<CallKey, Option<Reply>>,
    /// The answered ones, oldest first.
    answered: VecDeque<CallKey>,
}

/// Whether doing it twice differs from doing it once.
pub(super) fn is_cached(request: &Request) -> bool {
    matches!(
        request,
        Request::SetAttr(_)
            | Request::Create(_)
            | Request::MakeDir(_)
            | Request::Symlink(_)
            | Request::MakeNode(_)
            | Request::Remove(_)
            | Request::RemoveDir(_)
            | Request::Rename(_)
            | Request::Link(_)
    )
}

impl ReplyCache {
    /// A call has come.
    pub(super) fn begin(&mut self, key: CallKey) -> Seen {
        match self.calls.entry(key) {
            hashbrown::hash_map::Entry::Vacant(entry) => {
                entry.insert(None);
                Seen::New
            }
            hashbrown::hash_map::Entry::Occupied(entry) => match entry.get() {
                Some(reply) => Seen::Answered(reply.clone()),
                None => Seen::InProgress,
            },
        }
    }

    /// A call that was answered is in progress again.
    pub(super) fn begin_again(&mut self, key: CallKey) {
        self.calls.insert(key, None);
        self.answered.retain(|answered| *answered != key);
    }

    /// A call is answered.
    pub(super) fn finish(&mut self, key: CallKey, reply: Reply) {
        self.calls.insert(key, Some(reply));
        self.answered.push_back(key);
        if self.answered.len() > MAX_REPLIES {
            let oldest = self.answered.pop_front().expect("not empty");
            self.calls.remove(&oldest);
        }
    }

    /// A call will not be answered: if it comes again, it is done again.
    pub(super) fn abandon(&mut self, key: CallKey) {
        self.calls.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_nfs::nfs3::{Status, WccData};

    fn key(xid: u32) -> CallKey {
        let fingerprint = Fingerprint {
            program: 100_003,
            procedure: 12,
            length: 8,
            checksum: 1,
        };
        CallKey {
            client: [192, 0, 2, 1].into(),
            xid,
            fingerprint,
        }
    }

    fn removed() -> Reply {
        Reply::Remove(Ok(WccData::default()))
    }

    #[test]
    fn a_call_that_is_begun_again_is_kept_once() {
        let mut cache = ReplyCache::default();
        for _ in 0..2 {
            cache.finish(key(1), removed());
            cache.begin_again(key(1));
            assert_eq!(cache.begin(key(1)), Seen::InProgress);
        }
        cache.finish(key(1), removed());
        assert_eq!((cache.calls.len(), cache.answered.len()), (1, 1));
    }

    #[test]
    fn a_call_is_new_once() {
        let mut cache = ReplyCache::default();
        assert_eq!(cache.begin(key(1)), Seen::New);
        assert_eq!(cache.begin(key(1)), Seen::InProgress);
        let other = Fingerprint {
            checksum: 2,
            ..key(1).fingerprint
        };
        assert_eq!(
            cache.begin(CallKey {
                fingerprint: other,
                ..key(1)
            }),
            Seen::New
        );
        assert_eq!(
            cache.begin(CallKey {
                client: [192, 0, 2, 2].into(),
                ..key(1)
            }),
            Seen::New
        );
        cache.finish(key(1), removed());
        assert_eq!(cache.begin(key(1)), Seen::Answered(removed()));
    }

    #[test]
    fn an_abandoned_call_is_done_again() {
        let mut cache = ReplyCache::default();
        assert_eq!(cache.begin(key(1)), Seen::New);
        cache.abandon(key(1));
        assert_eq!(cache.begin(key(1)), Seen::New);
    }

    #[test]
    fn the_oldest_replies_go_first() {
        let mut cache = ReplyCache::default();
        let newest = u32::try_from(MAX_REPLIES).unwrap();
        for xid in 0..=newest {
            cache.begin(key(xid));
            cache.finish(key(xid), Reply::Remove(Err(Status::NoEnt.into())));
        }
        assert_eq!(cache.calls.len(), MAX_REPLIES);
        assert_eq!(cache.begin(key(0)), Seen::New);
        assert!(matches!(cache.begin(key(1)), Seen::Answered(_)));
        assert!(matches!(cache.begin(key(newest)), Seen::Answered(_)));
    }
}
