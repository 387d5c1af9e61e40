//! NFSv3 sessions: [`trivet_nfs`]'s connection on one side, the context on the other.
//!
//! Every call is judged on the tree of names as it is when the call comes: the handle's seal, the export's client
//! list, the credentials, the mode. What needs no storage and no change of the tree is answered at once, so
//! GETATTR and its like never wait behind data. Calls that change names are answered from the cache of replies
//! when they come again.
//!
//! A session keeps no open files and no locks. It relies on the context for two things: a change is answered when the
//! tree that the context shows contains it, and requests are answered even if the connection is gone by then, so that
//! the cache of replies learns of them.

mod attributes;
mod call_context;
mod conclude;
mod directories;
mod exports;
mod files;
mod handles;
mod io;
mod mounts;
mod replies;
mod server;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use trivet_core::Now;
use trivet_namespace::{CallId, Caller, NsError, Operation};
use trivet_nfs::connection::{self, Call, Connection, Limits, Reply, Request};
use trivet_nfs::mount::{self, MountStatus};
use trivet_nfs::nfs3::{self, Status};
use trivet_nfs::rpc::{AuthStat, Credentials, Refusal};

pub use exports::{BadNetwork, Export, Network, Squash};
pub use server::{NfsServer, Settings};

use crate::fresh::HOLD;
use crate::options::mutant;
use crate::session::{Ending, Finished, InFlight, Session, SessionContext, Ticket};
use call_context::{CallContext, Denied, Step, Then, Written};
use io::Next;
use replies::{CallKey, Seen};

/// A record that has begun must be whole by then.
const RECORD_DEADLINE: Duration = Duration::from_secs(120);
/// Calls that change names wait so long for news of the metadata, then their connection ends: no client has given them up by
/// then, and who still wants them sends them again, over another gateway perhaps.
const WAITS: Duration = Duration::from_secs(30);

/// One NFS client connection.
#[derive(Debug)]
pub struct NfsSession {
    server: Rc<NfsServer>,
    peer: SocketAddr,
    connection: Connection,
    pending: HashMap<Ticket, Pending>,
    /// Calls that are under way on another connection; they are tried again after every event. And when they came.
    parked: Vec<(Now, Call)>,
    /// Calls that change names and wait for a tree that is not too old, and when they came.
    waiting: Vec<(Now, Call)>,
    /// WRITEs that came before a truncation, until that is known to take them.
    cut_off: Vec<(Pending, Written)>,
    /// Mounts that wait for a tree of names that is not too old, and since when.
    mounting: Vec<(Now, Call)>,
    /// Since when a record has been incomplete.
    partial_since: Option<Now>,
    /// Calls of one `receive`, kept for its memory.
    calls: Vec<Call>,
}

/// A call that changes names or sizes.
#[derive(Clone, Debug)]
struct Named {
    /// As this gateway remembers it.
    key: CallKey,
    /// As all gateways know it.
    id: CallId,
}

/// A call that waits for an answer of the context.
#[derive(Debug)]
struct Pending {
    ticket: connection::Ticket,
    named: Option<Named>,
    then: Then,
}

impl NfsSession {
    /// A connection from `peer`.
    #[must_use]
    pub fn new(server: Rc<NfsServer>, peer: SocketAddr) -> NfsSession {
        NfsSession {
            server,
            peer,
            connection: Connection::new(Limits::default()),
            pending: HashMap::new(),
            parked: Vec::new(),
            waiting: Vec::new(),
            cut_off: Vec::new(),
            mounting: Vec::new(),
            partial_since: None,
            calls: Vec::new(),
        }
    }

    /// Begins a call that came at `since`.
    fn start_call(&mut self, since: Now, call: Call, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        let named = match &call.body {
            Request::Mount(_) => return self.mount(since, call, context, out),
            Request::Nfs(request) if replies::is_cached(request) => self.named(&call),
            Request::Nfs(_) => return self.execute(since, call, None, context, out),
        };
        // Whoever is told to come later comes with a new call, and another gateway may have executed this one.
        let waits = context.is_stale() && !was_done(&named, context);
        if waits && !mutant!(context.options, TellLater) {
            return self.waiting.push((since, call));
        }
        let seen = self.server.replies.borrow_mut().begin(named.key);
        match seen {
            Seen::New => self.execute(since, call, Some(named), context, out),
            Seen::InProgress => self.parked.push((since, call)),
            Seen::Answered(reply) if reply.status().is_some() && !mutant!(context.options, ReplayRefusals) => {
                // Another gateway may have done it since, for its client may not have heard of the refusal.
                self.server.replies.borrow_mut().begin_again(named.key);
                match was_done(&named, context) {
                    true => self.execute(since, call, Some(named), context, out),
                    false => self.answer(call.ticket, Some(named), reply, context, out),
                }
            }
            Seen::Answered(reply) => self.connection.reply(call.ticket, &Reply::Nfs(reply), out),
        }
    }

    /// Answers a call of the MOUNT program that came at `since`. MOUNT has no word for *come later*: the call waits.
    fn mount(&mut self, since: Now, call: Call, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        let Request::Mount(request) = &call.body else { return };
        let unsure = context.is_stale() && matches!(request, mount::Request::Mount(_));
        if unsure && context.now.since(since) < HOLD {
            self.mounting.push((since, call));
            return;
        }
        let server = Rc::clone(&self.server);
        let reply = if unsure {
            mount::Reply::Mount(Err(MountStatus::ServerFault))
        } else {
            mounts::answer(&self.call_context(&server, context, &call.credentials), request)
        };
        self.connection.reply(call.ticket, &Reply::Mount(reply), out);
    }

    fn named(&self, call: &Call) -> Named {
        let key = CallKey {
            client: self.peer.ip(),
            xid: call.ticket.xid(),
            fingerprint: call.fingerprint,
        };
        let id = key.id(&call.credentials);
        Named { key, id }
    }

    fn execute(
        &mut self,
        since: Now,
        call: Call,
        named: Option<Named>,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) {
        let Request::Nfs(request) = &call.body else {
            return;
        };
        let server = Rc::clone(&self.server);
        let mut call_context = self.call_context(&server, context, &call.credentials);
        call_context.is_repeat = named.as_ref().is_some_and(|named| was_done(named, context));
        let later = Err(Denied::Status(Status::Jukebox));
        let step = if context.is_stale() && rests_on_names(request) && !call_context.is_repeat {
            later
        } else {
            match run(&call_context, request) {
                Ok(Step::Io(image, ..)) if context.is_stale() && !context.was_served(image) => later,
                step => step,
            }
        };
        match step {
            Ok(Step::Reply(reply)) => self.answer(call.ticket, named, reply, context, out),
            Ok(Step::Io(image, op, then)) => {
                let next = context.io(image, op);
                let Call { ticket, .. } = call;
                self.pending.insert(next, Pending { ticket, named, then });
            }
            Ok(Step::Change(operation, caller, then)) => {
                let next = match &named {
                    Some(named) => context.change_once(operation, caller, named.id.clone(), since),
                    None => context.change(operation, caller),
                };
                let Call { ticket, .. } = call;
                self.pending.insert(next, Pending { ticket, named, then });
            }
            Err(Denied::Status(status)) => {
                let reply = request.fail(status);
                self.answer(call.ticket, named, reply, context, out);
            }
            Err(Denied::TooWeak) => {
                if let Some(named) = named {
                    self.abandon(named.key);
                }
                self.connection
                    .refuse(call.ticket, Refusal::Auth(AuthStat::TooWeak), out);
            }
        }
    }

    fn call_context<'a>(
        &self,
        server: &'a NfsServer,
        context: &SessionContext<'a>,
        credentials: &'a Credentials,
    ) -> CallContext<'a> {
        let (namespace, touched, wall, space) = (context.namespace, context.touched, context.wall, context.space());
        CallContext {
            server,
            namespace,
            touched,
            wall,
            space,
            peer: self.peer,
            credentials,
            is_repeat: false,
        }
    }

    /// Answers a call; a refusal of one that changes names when the metadata store has no trace of it.
    fn answer(
        &mut self,
        ticket: connection::Ticket,
        named: Option<Named>,
        reply: nfs3::Reply,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) {
        if let Some(named) = named {
            let doubted = reply.status().is_some() && !was_done(&named, context);
            // A client that is told to come later must find the call undone then.
            if reply.status() == Some(Status::Jukebox) {
                self.abandon(named.key);
            } else if doubted && !mutant!(context.options, ReplayRefusals) {
                let asked = context.confirm(named.id.clone());
                let (named, then) = (Some(named), Then::Refused(Box::new(reply)));
                self.pending.insert(asked, Pending { ticket, named, then });
                return;
            } else {
                self.server.replies.borrow_mut().finish(named.key, reply.clone());
            }
        }
        self.connection.reply(ticket, &Reply::Nfs(reply), out);
    }

    /// The metadata store was asked whether a call was executed that is to be refused. If it was, its client is sent away: the
    /// mirror knows what to answer when it comes back.
    fn refuse(&mut self, pending: Pending, result: &Finished, out: &mut Vec<Bytes>) -> Result<(), Ending> {
        let Pending {
            ticket,
            named: Some(Named { key, .. }),
            then: Then::Refused(reply),
        } = pending
        else {
            unreachable!("the store is asked about calls that change names")
        };
        if !matches!(result, Finished::Change(Ok(_))) {
            self.abandon(key);
            let why = "a call that came again was executed by another gateway, of which this one does not know yet";
            return Err(Ending::Fault(why.to_owned()));
        }
        self.server.replies.borrow_mut().finish(key, (*reply).clone());
        self.connection.reply(ticket, &Reply::Nfs(*reply), out);
        Ok(())
    }

    fn abandon(&self, key: CallKey) {
        self.server.replies.borrow_mut().abandon(key);
    }

    fn retry_parked(&mut self, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        for (pending, written) in std::mem::take(&mut self.cut_off) {
            self.written(pending, written, context, out);
        }
        let mut calls = std::mem::take(&mut self.parked);
        if !context.is_stale() {
            calls.append(&mut self.waiting);
        }
        for (since, call) in calls {
            self.start_call(since, call, context, out);
        }
        for (since, call) in std::mem::take(&mut self.mounting) {
            self.mount(since, call, context, out);
        }
    }

    /// A WRITE's data is durable: takes its next step.
    fn written(&mut self, pending: Pending, written: Written, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        let Some(inode) = context.namespace.inode(written.file) else {
            return self.reply_written(pending, written, context, out);
        };
        let next = match io::next(inode, &written) {
            Next::Done | Next::Wait if mutant!(context.options, GrowThoughCut) && written.end > inode.size => {
                Next::Grow(inode.cut)
            }
            next => next,
        };
        match next {
            Next::Grow(cut) => {
                let operation = Operation::Grow {
                    id: written.file,
                    size: written.end,
                    mtime: context.wall,
                    cut,
                };
                let next = context.change(operation, Caller::root());
                let then = Then::Grow(Written { cut, ..written });
                self.pending.insert(next, Pending { then, ..pending });
            }
            Next::Done => {
                context.touch(written.file);
                self.reply_written(pending, written, context, out);
            }
            // What is there of that truncation behind it is none of its concern.
            Next::Wait => self.cut_off.push((pending, Written { cut: None, ..written })),
        }
    }

    fn reply_written(
        &mut self,
        pending: Pending,
        written: Written,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) {
        let then = Then::Write(written);
        self.reply(
            Pending { then, ..pending },
            Finished::Io(Ok(Vec::new()), None),
            context,
            out,
        );
    }

    /// Answers a call whose step has ended, unless there is another step to take.
    fn conclude(
        &mut self,
        pending: Pending,
        result: Finished,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        match (&pending.then, &result) {
            (Then::Write(written), Finished::Io(Ok(_), cut)) => {
                let written = Written { cut: *cut, ..*written };
                self.written(pending, written, context, out);
            }
            (Then::Grow(written), Finished::Change(Err(NsError::Cut))) => {
                let written = *written;
                self.written(pending, written, context, out);
            }
            (Then::Refused(_), _) => return self.refuse(pending, &result, out),
            _ => self.reply(pending, result, context, out),
        }
        Ok(())
    }

    fn reply(&mut self, pending: Pending, result: Finished, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) {
        let Pending { ticket, named, then } = pending;
        let server = Rc::clone(&self.server);
        let call_context = self.call_context(&server, context, &Credentials::None);
        let reply = match result {
            Finished::Io(result, _) => conclude::io(&call_context, then, result),
            Finished::Change(result) => conclude::change(&call_context, then, result),
        };
        self.answer(ticket, named, reply, context, out);
    }
}

impl Session for NfsSession {
    fn start(&mut self, _: &mut SessionContext<'_>, _: &mut Vec<Bytes>) {}

    fn receive(
        &mut self,
        input: &mut BytesMut,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        let before = input.len();
        let mut calls = std::mem::take(&mut self.calls);
        let result = loop {
            let received = self.connection.receive(input, out, &mut calls);
            let was_full = !self.connection.has_room();
            calls
                .drain(..)
                .for_each(|call| self.start_call(context.now, call, context, out));
            // Calls answered at once have made room for more.
            if received.is_err() || !was_full || !self.connection.has_room() {
                break received;
            }
        };
        self.calls = calls;
        let is_partial = self.connection.has_room() && (!input.is_empty() || self.connection.collected() > 0);
        let moved = input.len() < before;
        let since = self.partial_since.filter(|_| !moved).unwrap_or(context.now);
        self.partial_since = is_partial.then_some(since);
        result.map_err(|reason| Ending::Fault(reason.to_string()))
    }

    fn finished(
        &mut self,
        ticket: Ticket,
        result: Finished,
        context: &mut SessionContext<'_>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Ending> {
        let pending = self
            .pending
            .remove(&ticket)
            .expect("the context answers each request once");
        self.conclude(pending, result, context, out)?;
        self.retry_parked(context, out);
        Ok(())
    }

    fn tick(&mut self, context: &mut SessionContext<'_>, out: &mut Vec<Bytes>) -> Result<(), Ending> {
        if self
            .partial_since
            .is_some_and(|since| context.now.since(since) >= RECORD_DEADLINE)
        {
            return Err(Ending::Fault("a record is not whole after 120 s".to_owned()));
        }
        self.retry_parked(context, out);
        // What its client has given up since is not sent again.
        let oldest = self.waiting.first().map(|(since, _)| *since);
        match oldest.filter(|since| context.now.since(*since) >= WAITS) {
            Some(_) => Err(Ending::Fault(format!(
                "no news of the metadata for {} s",
                WAITS.as_secs()
            ))),
            None => Ok(()),
        }
    }

    fn forsaken(&mut self) {
        self.parked.clear();
        self.waiting.clear();
        self.mounting.clear();
    }

    /// There are no opens: calls are judged one by one.
    fn opens(&self) -> bool {
        false
    }

    fn hint(&self) -> usize {
        self.connection.hint()
    }

    fn in_flight(&self) -> InFlight {
        InFlight {
            requests: self.connection.calls_in_flight(),
            bytes: self.connection.bytes_in_flight(),
        }
    }
}

impl Drop for NfsSession {
    /// Nobody is left to answer the calls under way: when they come again they are done again.
    fn drop(&mut self) {
        let named = self.pending.values().filter_map(|pending| pending.named.as_ref());
        named.for_each(|named| self.abandon(named.key));
    }
}

/// Whether any gateway has executed a call, as far as the tree says.
fn was_done(named: &Named, context: &SessionContext<'_>) -> bool {
    context.namespace.reply(&named.id).is_some()
}

/// Whether the answer depends on what a name means: it must not come from a tree that is too old.
fn rests_on_names(request: &nfs3::Request) -> bool {
    !matches!(
        request,
        nfs3::Request::GetAttr(_)
            | nfs3::Request::Access(_)
            | nfs3::Request::ReadLink(_)
            | nfs3::Request::Read(_)
            | nfs3::Request::Write(_)
            | nfs3::Request::FsStat(_)
            | nfs3::Request::FsInfo(_)
            | nfs3::Request::PathConf(_)
            | nfs3::Request::Commit(_)
    )
}

/// One procedure.
fn run(call_context: &CallContext<'_>, request: &nfs3::Request) -> Result<Step, Denied> {
    match request {
        nfs3::Request::GetAttr(handle) => attributes::get(call_context, handle),
        nfs3::Request::SetAttr(args) => attributes::set(call_context, args),
        nfs3::Request::Lookup(args) => files::lookup(call_context, args),
        nfs3::Request::Access(args) => attributes::access(call_context, args),
        nfs3::Request::ReadLink(handle) => files::read_link(call_context, handle),
        nfs3::Request::Read(args) => io::read(call_context, args),
        nfs3::Request::Write(args) => io::write(call_context, args),
        nfs3::Request::Create(args) => files::create(call_context, args),
        nfs3::Request::MakeDir(args) => directories::make(call_context, args),
        nfs3::Request::Symlink(args) => files::symlink(call_context, args),
        nfs3::Request::MakeNode(args) => files::make_node(call_context, args),
        nfs3::Request::Remove(args) => files::remove(call_context, args),
        nfs3::Request::RemoveDir(args) => directories::remove(call_context, args),
        nfs3::Request::Rename(args) => files::rename(call_context, args),
        nfs3::Request::Link(args) => files::link(call_context, args),
        nfs3::Request::ReadDir(args) => directories::read(call_context, args),
        nfs3::Request::ReadDirPlus(args) => directories::read_plus(call_context, args),
        nfs3::Request::FsStat(handle) => attributes::fs_stat(call_context, handle),
        nfs3::Request::FsInfo(handle) => attributes::fs_info(call_context, handle),
        nfs3::Request::PathConf(handle) => attributes::path_conf(call_context, handle),
        nfs3::Request::Commit(args) => io::commit(call_context, args),
    }
}
