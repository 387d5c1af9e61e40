//! The OSDs of this process: opening their disks, handing them leases, stopping and starting them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use trivet_core::disk::{DiskDone, DiskError, DiskOpKind, IoId};
use trivet_core::keys::{self, OsdState};
use trivet_core::kv::{LeaseId, Notice, TxnOutcome};
use trivet_core::message::Message;
use trivet_core::{NodeId, Now, OsdId};
use trivet_gateway::admin::{AdminAnswer, AdminError, AdminReply, ErrorKind};
use trivet_gateway::status::OsdReport;
use trivet_osd::{Effect, Event, Identity, Osd};
use trivet_reactor::{DiskOp, DiskToken, Event as ReactorEvent, OpenDisk, Reactor};
use trivet_store::{Format, Options, State, Store};

use super::link::{Ask, Role};
use super::startup::{Plan, random};

/// The kernel has let go of a killed process's disks by then.
const LET_GO: Duration = Duration::from_secs(10);

/// Where the effects of OSDs go.
pub struct Output<'a> {
    /// Messages between nodes.
    pub queue: &'a mut VecDeque<(NodeId, NodeId, Message)>,
    /// The disks.
    pub reactor: &'a mut Reactor,
    /// The metadata store.
    pub control: &'a UnboundedSender<Ask>,
}

/// One OSD of this process.
struct Slot {
    path: PathBuf,
    size: u64,
    life: Life,
    /// What its keys hang on.
    lease: Option<LeaseId>,
    report: OsdReport,
    /// Since when the disk is locked by somebody else.
    busy_since: Option<Now>,
    /// The administrator who waits for the stop or start.
    waiting: Option<AdminReply>,
}

/// Where an OSD's life stands.
enum Life {
    Stopped,
    /// Its disk is to be opened, and may have to be let go by the last run.
    Starting,
    /// Its store opens, or serves.
    Running(Box<Running>),
    /// Its keys are being removed.
    Stopping,
}

struct Running {
    machine: Osd,
    disk: DiskToken,
    boot: u64,
    is_open: bool,
}

/// All OSDs of this process.
pub struct Osds {
    slots: BTreeMap<OsdId, Slot>,
    disks: BTreeMap<DiskToken, OsdId>,
    cluster: [u8; 16],
    /// The last snapshot and what changed since would be long: a late OSD gets the mirrored keys instead.
    mirror: BTreeMap<String, trivet_core::kv::KeyValue>,
    revision: u64,
    effects: Vec<Effect>,
}

impl Osds {
    /// Formats the disks of a new cluster; checks that those of an old one are there.
    pub fn prepare(reactor: &mut Reactor, plan: &Plan, disks: Vec<(OsdId, PathBuf)>) -> anyhow::Result<Osds> {
        let sizes: BTreeMap<OsdId, u64> = plan.osds.iter().copied().collect();
        let mut slots = BTreeMap::new();
        for (osd, path) in disks {
            let size = sizes.get(&osd).copied().unwrap_or(0);
            if plan.new {
                format(reactor, osd, &path, size, plan.cluster)?;
            }
            let report = OsdReport {
                path: path.display().to_string(),
                ..OsdReport::default()
            };
            slots.insert(
                osd,
                Slot {
                    path,
                    size,
                    life: Life::Starting,
                    lease: None,
                    report,
                    busy_since: None,
                    waiting: None,
                },
            );
        }
        Ok(Osds {
            slots,
            disks: BTreeMap::new(),
            cluster: plan.cluster,
            mirror: BTreeMap::new(),
            revision: 0,
            effects: Vec::new(),
        })
    }

    /// Asks for everybody's lease.
    pub fn lease_all(&self, control: &UnboundedSender<Ask>) {
        for &osd in self.slots.keys() {
            // Without a control plane the process is about to end.
            let _ = control.send(Ask::Lease(osd));
        }
    }

    /// An OSD has a new lease, or none any more.
    pub fn leased(&mut self, now: Now, osd: OsdId, lease: Option<LeaseId>, out: &mut Output<'_>) {
        if let Some(slot) = self.slots.get_mut(&osd)
            && matches!(slot.life, Life::Starting | Life::Running(_))
        {
            slot.lease = lease;
            self.open(now, osd, out);
            self.step(now, osd, Event::Lease(lease), out);
        }
    }

    /// Opens the disk of an OSD that starts.
    fn open(&mut self, now: Now, osd: OsdId, out: &mut Output<'_>) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        if !matches!(slot.life, Life::Starting) {
            return;
        }
        let boot = match random() {
            Ok(bytes) => u64::from_le_bytes(bytes),
            Err(error) => return self.failed(osd, &error.to_string(), out),
        };
        let disk = match out.reactor.open_disk(&slot.path, &OpenDisk::default()) {
            Ok(disk) => disk,
            // The last run's operations are still with the kernel, which holds the lock for them; the next tick tries
            // again.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let since = *slot.busy_since.get_or_insert(now);
                if now.since(since) >= LET_GO {
                    self.failed(osd, &error.to_string(), out);
                }
                return;
            }
            Err(error) => return self.failed(osd, &error.to_string(), out),
        };
        let machine = self.machine(osd, boot, disk.size);
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        slot.busy_since = None;
        slot.life = Life::Running(Box::new(Running {
            machine,
            disk: disk.token,
            boot,
            is_open: false,
        }));
        let lease = slot.lease;
        self.disks.insert(disk.token, osd);
        self.step(now, osd, Event::Lease(lease), out);
        if self.revision > 0 {
            let snapshot = Notice::Snapshot {
                revision: self.revision,
                keys: self.mirror.values().cloned().collect(),
            };
            self.step(now, osd, Event::Notice(snapshot), out);
        }
    }

    fn machine(&self, osd: OsdId, boot: u64, disk_size: u64) -> Osd {
        let mut output = trivet_store::api::Output::default();
        #[allow(clippy::needless_update, reason = "tests build the store with another option")]
        let options = Options {
            expect: Some((self.cluster, osd)),
            ..Options::default()
        };
        let store = Store::open(disk_size, options, &mut output);
        let identity = Identity {
            id: osd,
            boot,
            size: self.slots.get(&osd).map_or(0, |slot| slot.size),
            address: None,
        };
        Osd::new(identity, trivet_osd::Options::default(), store, output)
    }

    /// The metadata store changed.
    pub fn notice(&mut self, now: Now, notice: &Notice, out: &mut Output<'_>) {
        self.remember(notice);
        let ids: Vec<OsdId> = self.slots.keys().copied().collect();
        for osd in ids {
            self.step(now, osd, Event::Notice(notice.clone()), out);
        }
    }

    fn remember(&mut self, notice: &Notice) {
        use trivet_core::kv::Event as Change;
        let keep = |key: &str| !key.starts_with(trivet_namespace::PREFIX);
        match notice {
            Notice::Snapshot { revision, keys } => {
                self.mirror = keys
                    .iter()
                    .filter(|kv| keep(&kv.key))
                    .map(|kv| (kv.key.clone(), kv.clone()))
                    .collect();
                self.revision = *revision;
            }
            Notice::Changes { revision, events } => {
                for event in events {
                    match event {
                        Change::Put(kv) if keep(&kv.key) => drop(self.mirror.insert(kv.key.clone(), kv.clone())),
                        Change::Put(_) => {}
                        Change::Delete { key, .. } => drop(self.mirror.remove(key)),
                    }
                }
                self.revision = *revision;
            }
        }
    }

    /// A message for an OSD. If it is not there, the message is lost, as on a network.
    pub fn message(&mut self, now: Now, osd: OsdId, from: NodeId, message: Message, out: &mut Output<'_>) {
        self.step(now, osd, Event::Message(from, message), out);
    }

    /// A transaction of an OSD has ended.
    pub fn txn_ended(&mut self, now: Now, osd: OsdId, ticket: u64, outcome: TxnOutcome, out: &mut Output<'_>) {
        self.step(now, osd, Event::Txn(ticket, outcome), out);
    }

    /// A disk operation has ended.
    pub fn disk_done(&mut self, now: Now, disk: DiskToken, id: u64, result: io::Result<Bytes>, out: &mut Output<'_>) {
        let Some(&osd) = self.disks.get(&disk) else { return };
        let result = result.map_err(|error| DiskError {
            errno: error.raw_os_error().unwrap_or(0),
            what: error.to_string(),
        });
        self.step(now, osd, Event::Disk(DiskDone { id: IoId(id), result }), out);
    }

    /// Several times a second.
    pub fn tick(&mut self, now: Now, out: &mut Output<'_>) {
        let ids: Vec<OsdId> = self.slots.keys().copied().collect();
        for osd in ids {
            self.open(now, osd, out);
            self.step(now, osd, Event::Tick, out);
            self.follow(osd, out);
        }
    }

    /// What was gathered goes to the disks.
    pub fn flush(&mut self, out: &mut Output<'_>) {
        for (&osd, slot) in &mut self.slots {
            if let Life::Running(running) = &mut slot.life {
                running.machine.flush(&mut self.effects);
                carry_out(osd, running.disk, &mut self.effects, out);
            }
        }
    }

    fn step(&mut self, now: Now, osd: OsdId, event: Event, out: &mut Output<'_>) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        let Life::Running(running) = &mut slot.life else { return };
        running.machine.step(now, event, &mut self.effects);
        carry_out(osd, running.disk, &mut self.effects, out);
    }

    /// Takes the report of an OSD whose store is open, and tells who waits for it that it is up; ends one whose disk
    /// failed.
    fn follow(&mut self, osd: OsdId, out: &mut Output<'_>) {
        let shown = self.shown(osd);
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        let Life::Running(running) = &mut slot.life else { return };
        match running.machine.state() {
            State::Opening => {}
            State::Failed(reason) => self.failed(osd, &reason, out),
            State::Ready => {
                let stats = running.machine.status().store;
                slot.report.capacity = stats.capacity;
                slot.report.used = stats.used;
                slot.report.objects = stats.objects;
                running.is_open = true;
                if let Some(reply) = slot.waiting.take_if(|_| shown == Some(running.boot)) {
                    // A caller that has given up is no concern of ours.
                    let _ = reply.send(Ok(AdminAnswer::Done {}));
                }
            }
        }
    }

    /// The start of the OSD that the metadata store shows.
    fn shown(&self, osd: OsdId) -> Option<u64> {
        let state = self.mirror.get(&keys::osd_state(osd))?;
        let state: OsdState = serde_json::from_slice(&state.value).ok()?;
        Some(state.boot)
    }

    /// The disk of an OSD cannot be used: the others take over.
    fn failed(&mut self, osd: OsdId, reason: &str, out: &mut Output<'_>) {
        tracing::error!("OSD {osd} stopped: {reason}");
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        if let Some(reply) = slot.waiting.take() {
            let error = AdminError::new(ErrorKind::Unavailable, format!("OSD {osd} does not start: {reason}"));
            // A caller that has given up is no concern of ours.
            let _ = reply.send(Err(error));
        }
        self.close(osd, out.reactor, out.control);
    }

    fn close(&mut self, osd: OsdId, reactor: &mut Reactor, control: &UnboundedSender<Ask>) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        if let Life::Running(running) = std::mem::replace(&mut slot.life, Life::Stopping) {
            reactor.close_disk(running.disk);
            self.disks.remove(&running.disk);
        }
        let _ = control.send(Ask::Revoke(osd));
    }

    /// An OSD's keys are gone.
    pub fn revoked(&mut self, osd: OsdId) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        slot.life = Life::Stopped;
        slot.lease = None;
        if let Some(reply) = slot.waiting.take() {
            let _ = reply.send(Ok(AdminAnswer::Done {}));
        }
    }

    /// An administrator stops an OSD.
    pub fn stop(&mut self, osd: OsdId, reply: AdminReply, reactor: &mut Reactor, control: &UnboundedSender<Ask>) {
        let problem = match self.slots.get_mut(&osd) {
            None => (
                ErrorKind::NotFound,
                format!("no OSD {osd}; 'trivet osd ls' lists what there is"),
            ),
            Some(Slot {
                life: Life::Running(running),
                waiting: waiting @ None,
                ..
            }) if running.is_open => {
                *waiting = Some(reply);
                return self.close(osd, reactor, control);
            }
            Some(Slot {
                life: Life::Stopped, ..
            }) => (ErrorKind::Conflict, format!("OSD {osd} is stopped already")),
            Some(_) => (
                ErrorKind::Conflict,
                format!("OSD {osd} is just being started or stopped; try again"),
            ),
        };
        let _ = reply.send(Err(AdminError::new(problem.0, problem.1)));
    }

    /// An administrator starts an OSD.
    pub fn start(&mut self, osd: OsdId, reply: AdminReply, control: &UnboundedSender<Ask>) {
        let problem = match self.slots.get_mut(&osd) {
            None => (
                ErrorKind::NotFound,
                format!("no OSD {osd}; 'trivet osd ls' lists what there is"),
            ),
            Some(Slot {
                life: life @ Life::Stopped,
                waiting,
                ..
            }) => {
                *life = Life::Starting;
                *waiting = Some(reply);
                let _ = control.send(Ask::Lease(osd));
                return;
            }
            Some(_) => (ErrorKind::Conflict, format!("OSD {osd} runs already")),
        };
        let _ = reply.send(Err(AdminError::new(problem.0, problem.1)));
    }

    /// What the OSDs have to report; of those that are stopped, what they said last.
    pub fn reports(&self) -> Vec<(OsdId, OsdReport)> {
        self.slots
            .iter()
            .map(|(&osd, slot)| (osd, slot.report.clone()))
            .collect()
    }
}

/// Hands an OSD's effects on.
fn carry_out(osd: OsdId, disk: DiskToken, effects: &mut Vec<Effect>, out: &mut Output<'_>) {
    for effect in effects.drain(..) {
        match effect {
            Effect::Send(to, message) => out.queue.push_back((NodeId::Osd(osd), to, message)),
            Effect::Disk(op) => out.reactor.submit_disk(disk, op.id.0, disk_op(op.kind)),
            Effect::Txn(ticket, txn) => {
                let _ = out.control.send(Ask::Txn(Role::Osd(osd), ticket, txn));
            }
        }
    }
}

fn disk_op(kind: DiskOpKind) -> DiskOp {
    match kind {
        DiskOpKind::Read { offset, len } => DiskOp::Read { offset, len },
        DiskOpKind::Write { offset, data } => DiskOp::Write { offset, data },
        DiskOpKind::Flush => DiskOp::Flush,
    }
}

/// Makes the file of an OSD and the empty store in it.
fn format(reactor: &mut Reactor, osd: OsdId, path: &Path, size: u64, cluster: [u8; 16]) -> anyhow::Result<()> {
    let format = Format {
        size,
        osd,
        cluster,
        store: random()?,
        log_size: None,
    };
    let ops = trivet_store::format(&format).map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
    let prewrite =
        0..trivet_store::data_start(&format).map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
    let disk = reactor.open_disk(
        path,
        &OpenDisk {
            size: Some(size),
            prewrite,
            ..OpenDisk::default()
        },
    )?;
    let mut events = Vec::new();
    for op in ops {
        reactor.submit_disk(disk.token, op.id.0, disk_op(op.kind));
        // One after the other: the last is the flush.
        loop {
            reactor.poll(&mut events, None)?;
            turn_away(reactor, &events);
            let done = events.iter().find_map(|event| match event {
                ReactorEvent::Disk { result, .. } => Some(result.as_ref().map(|_| ()).map_err(ToString::to_string)),
                _ => None,
            });
            match done {
                Some(Ok(())) => break,
                Some(Err(error)) => bail!("{}: cannot format: {error}", path.display()),
                None => {}
            }
        }
    }
    reactor.close_disk(disk.token);
    Ok(())
}

/// Clients that come before there is a cluster have to come again.
fn turn_away(reactor: &mut Reactor, events: &[ReactorEvent]) {
    for event in events {
        if let ReactorEvent::Accepted { conn, .. } = event {
            reactor.abort(*conn);
        }
    }
}
