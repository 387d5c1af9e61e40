//! Sessions against the real tree of names; the storage and the metadata store are played by the tests.

mod data;
mod names;
mod security;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use trivet_client::{ImageOp, IoError};
use trivet_core::{ClientId, ImageId, Now, PoolId};
use trivet_namespace::{Caller, Context, Namespace, NsError, Numbers, Operation, Outcome, Time};
use trivet_nfs::nfs3::{self, DirOpArgs, Handle, Reply, Request};
use trivet_nfs::rpc::{CallHeader, Credentials, Groups, SysCredentials, finish_record, write_call_header};
use trivet_nfs::xdr::{Reader, Writer};
use trivet_nfs::{mount, rpc};

use super::*;
use crate::fresh::Freshness;
use crate::session::{Request as Asked, Space};
use crate::test_tree::commit;

/// Bytes of a reply's mark and header.
const REPLY_HEADER: usize = 28;

/// One gateway with one tree and any number of sessions.
struct Gateway {
    server: Rc<NfsServer>,
    namespace: Namespace,
    numbers: Numbers,
    touched: BTreeMap<ImageId, Time>,
    freshness: Freshness,
    now: Now,
    revision: u64,
    next_ticket: u64,
    asked: Vec<(Ticket, Asked)>,
    /// The last truncation of the file that the storage was asked about last.
    cut: Option<Time>,
    sessions: Vec<NfsSession>,
    out: Vec<Bytes>,
    xid: u32,
    credentials: Credentials,
}

fn export(id: u32, path: &str, subtree: &str) -> Export {
    Export {
        id,
        path: path.to_owned(),
        subtree: subtree.to_owned(),
        clients: vec!["10.0.0.0/8".parse().unwrap()],
        read_only: false,
        squash: Squash::Nobody,
        anonymous: (65_534, 65_534),
        auth_none: false,
        privileged_port: true,
    }
}

fn user(uid: u32) -> Credentials {
    let machine = rpc::MachineName::default();
    Credentials::Sys(SysCredentials {
        stamp: 1,
        machine,
        uid,
        gid: uid,
        groups: Groups::default(),
    })
}

fn peer() -> SocketAddr {
    "10.0.0.9:900".parse().unwrap()
}

impl Gateway {
    fn new(exports: Vec<Export>) -> Gateway {
        let settings = Settings {
            exports,
            key: [7; 16],
            fsid: 0xf5,
            verifier: *b"verifier",
        };
        let mut namespace = Namespace::default();
        commit(&mut namespace, 1, &Namespace::bootstrap(Time::default()));
        let mut numbers = Numbers::default();
        numbers.add(5000, 100_000);
        let server = Rc::new(NfsServer::new(settings));
        let sessions = vec![NfsSession::new(Rc::clone(&server), peer())];
        Gateway {
            server,
            namespace,
            numbers,
            touched: BTreeMap::new(),
            freshness: Freshness::always(),
            now: Now(0),
            revision: 1,
            next_ticket: 1,
            asked: Vec::new(),
            cut: None,
            sessions,
            out: Vec::new(),
            xid: 100,
            credentials: user(0),
        }
    }

    /// The whole tree as `/export`.
    fn open() -> (Gateway, Handle) {
        let mut gateway = Gateway::new(vec![export(1, "/export", "")]);
        let root = gateway.mount("/export").unwrap();
        (gateway, root)
    }

    fn wall(&self) -> Time {
        Time {
            sec: 1000 + i64::try_from(self.revision).unwrap(),
            nsec: 0,
        }
    }

    fn with<R>(
        &mut self,
        session: usize,
        act: impl FnOnce(&mut NfsSession, &mut SessionContext<'_>, &mut Vec<Bytes>) -> R,
    ) -> R {
        let wall = self.wall();
        let mut context = SessionContext {
            now: self.now,
            wall,
            namespace: &self.namespace,
            local: ([127, 0, 0, 1], 2049).into(),
            space: Space { total: 1000, free: 400 },
            touched: &self.touched,
            freshness: &self.freshness,
            options: crate::options::Options::default(),
            requests: &mut self.asked,
            next_ticket: &mut self.next_ticket,
        };
        act(&mut self.sessions[session], &mut context, &mut self.out)
    }

    fn send(&mut self, session: usize, bytes: &[u8]) -> Result<(), Ending> {
        let mut input = BytesMut::from(bytes);
        self.with(session, |session, context, out| {
            session.receive(&mut input, context, out)
        })
    }

    fn call(&mut self, program: u32, procedure: u32, encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let (mut w, mut out) = (Writer::new(), Vec::new());
        let (xid, credentials) = (self.xid, self.credentials.clone());
        write_call_header(
            &mut w,
            &CallHeader {
                xid,
                program,
                version: 3,
                procedure,
                credentials,
            },
        );
        encode(&mut w);
        finish_record(&mut w, &mut out);
        out.concat()
    }

    fn request(&mut self, request: &Request) -> Vec<u8> {
        self.xid += 1;
        self.call(nfs3::PROGRAM, request.procedure(), |w| request.encode(w))
    }

    /// The one reply that was sent, if it was.
    fn reply(&mut self, request: &Request) -> Option<Reply> {
        let bytes = Bytes::from(std::mem::take(&mut self.out).concat());
        if bytes.is_empty() {
            return None;
        }
        let results = bytes.slice(REPLY_HEADER..);
        let mut r = Reader::new(&results);
        let reply = Reply::decode(request.procedure(), &mut r).unwrap().unwrap();
        r.finish().unwrap();
        Some(reply)
    }

    /// Runs a request to its end, the tree changing as it asks; data is not expected.
    fn run(&mut self, request: &Request) -> Reply {
        let bytes = self.request(request);
        self.send(0, &bytes).unwrap();
        self.settle(0);
        self.reply(request).expect("answered")
    }

    /// Plans and commits all changes that were asked for; touches are noted.
    fn settle(&mut self, session: usize) {
        while !self.asked.is_empty() {
            match self.asked.remove(0) {
                (ticket, Asked::Change { operation, caller, .. }) => {
                    let result = self.change(&operation, caller);
                    self.finish(session, ticket, Finished::Change(result));
                }
                (_, Asked::Touch { image }) => {
                    let wall = self.wall();
                    self.touched.insert(image, wall);
                }
                (ticket, Asked::Confirm { .. }) => {
                    self.finish(session, ticket, Finished::Change(Ok(Outcome::Done)));
                }
                (_, Asked::Io { op, .. }) => panic!("{op:?}"),
            }
        }
    }

    fn change(&mut self, operation: &Operation, caller: Caller) -> Result<Outcome, NsError> {
        let context = Context {
            caller,
            now: self.wall(),
            pool: Some(PoolId(1)),
            gateway: ClientId(1),
        };
        let plan = self.namespace.plan(operation, &context, &mut self.numbers)?;
        self.revision += 1;
        commit(&mut self.namespace, self.revision, &plan.txn);
        Ok(plan.outcome)
    }

    fn finish(&mut self, session: usize, ticket: Ticket, result: Finished) {
        self.with(session, |session, context, out| {
            session.finished(ticket, result, context, out)
        })
        .unwrap();
    }

    /// Sends a request and takes what it asks of the storage.
    fn asks(&mut self, request: &Request) -> (Ticket, ImageOp) {
        let bytes = self.request(request);
        self.send(0, &bytes).unwrap();
        self.io()
    }

    fn io(&mut self) -> (Ticket, ImageOp) {
        match self.asked.remove(0) {
            (ticket, Asked::Io { op, image }) => {
                self.cut = self.namespace.inode(image).and_then(|inode| inode.cut);
                (ticket, op)
            }
            other => panic!("{other:?}"),
        }
    }

    fn io_done(&mut self, ticket: Ticket, result: Result<Vec<Bytes>, IoError>) {
        self.finish(0, ticket, Finished::Io(result, self.cut));
    }

    fn mount_call(&mut self, request: &mount::Request) -> mount::Reply {
        let bytes = self.call(mount::PROGRAM, request.procedure(), |w| request.encode(w));
        self.send(0, &bytes).unwrap();
        let results = Bytes::from(std::mem::take(&mut self.out).concat()).slice(REPLY_HEADER..);
        mount::Reply::decode(request.procedure(), &mut Reader::new(&results))
            .unwrap()
            .unwrap()
    }

    fn mount(&mut self, path: &str) -> Result<Handle, mount::MountStatus> {
        let path = mount::Path(Bytes::copy_from_slice(path.as_bytes()));
        match self.mount_call(&mount::Request::Mount(path)) {
            mount::Reply::Mount(outcome) => outcome.map(|ok| ok.handle),
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, dir: Handle, name: &str) -> Handle {
        let how = nfs3::CreateHow::Guarded(nfs3::Sattr3::default());
        match self.run(&Request::Create(nfs3::CreateArgs {
            target: at(dir, name),
            how,
        })) {
            Reply::Create(Ok(made)) => made.object.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn make_dir(&mut self, dir: Handle, name: &str) -> Handle {
        let attributes = nfs3::Sattr3 {
            mode: Some(0o755),
            ..Default::default()
        };
        match self.run(&Request::MakeDir(nfs3::MakeDirArgs {
            target: at(dir, name),
            attributes,
        })) {
            Reply::MakeDir(Ok(made)) => made.object.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn lookup(&mut self, dir: Handle, name: &str) -> Result<Handle, Status> {
        match self.run(&Request::Lookup(at(dir, name))) {
            Reply::Lookup(outcome) => outcome.map(|ok| ok.object).map_err(|failure| failure.status),
            other => panic!("{other:?}"),
        }
    }

    fn attributes(&mut self, object: Handle) -> Result<nfs3::Fattr3, Status> {
        match self.run(&Request::GetAttr(object)) {
            Reply::GetAttr(outcome) => outcome.map_err(|failure| failure.status),
            other => panic!("{other:?}"),
        }
    }

    /// How a request ends: `None` is well.
    fn status(&mut self, request: &Request) -> Option<Status> {
        self.run(request).status()
    }
}

fn at(dir: Handle, name: &str) -> DirOpArgs {
    DirOpArgs {
        dir,
        name: Bytes::copy_from_slice(name.as_bytes()),
    }
}
