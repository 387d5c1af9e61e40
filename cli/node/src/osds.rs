//! The OSDs of this process: opening their disks, handing them leases, stopping and starting them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use trivet_api::{AdminAnswer, AdminError, ErrorKind};
use trivet_control::AdminReply;
use trivet_core::disk::{DiskDone, DiskError, DiskOpKind, IoId};
use trivet_core::keys::{self, OsdState, OsdStats};
use trivet_core::kv::{LeaseId, Notice, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::Message;
use trivet_core::{NodeId, Now, OsdId};
use trivet_gateway::status::OsdReport;
use trivet_osd::{Effect, Event, Identity, Osd};
use trivet_reactor::{DiskBackend, DiskOp, DiskToken, Event as ReactorEvent, OpenDisk, Reactor};
use trivet_store::{Format, Options, State, Store};

use super::channel::{Role, ToControl};
use super::cluster::{ClusterId, random};
use super::links::{Links, Loss};
use super::listening;
use super::output::Output;

/// The kernel has let go of a killed process's disks by then.
const LET_GO: Duration = Duration::from_secs(10);

/// The disk of an OSD.
pub struct Disk {
    /// Whose it is.
    pub osd: OsdId,
    /// A file or device.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// It is to be formatted.
    pub fresh: bool,
    /// Where the OSD listens for nodes of other processes, if there may be any.
    pub listen: Option<SocketAddr>,
    /// What it says that its address is, if that is not where it listens.
    pub advertise: Option<SocketAddr>,
}

/// One OSD of this process.
struct Slot {
    path: PathBuf,
    size: u64,
    /// Where others find it.
    address: Option<SocketAddr>,
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
    /// It is a store that took the place of the one before, and has not all OSDs of this process yet.
    is_replaced: bool,
    effects: Vec<Effect>,
    /// Why OSDs ended that nobody stopped.
    failures: Vec<String>,
    /// The log says that io_uring is not to be had.
    told_of_pool: bool,
}

impl Osds {
    /// Formats the disks that are new, and has OSDs listen for other nodes.
    pub fn prepare(
        reactor: &mut Reactor,
        links: &mut Links,
        cluster: &ClusterId,
        disks: Vec<Disk>,
    ) -> anyhow::Result<Osds> {
        let mut slots = BTreeMap::new();
        for disk in disks {
            if disk.fresh {
                format(reactor, disk.osd, &disk.path, Some(disk.size), cluster.id, random()?)?;
            }
            let address = disk.listen.map(|address| {
                let listens = links.listen(reactor, disk.osd, address);
                let listens = listens.map_err(|error| listening::refused("--listen", address, &error))?;
                found_at(listens, disk.advertise)
            });
            let address = address.transpose()?;
            let report = OsdReport {
                path: disk.path.display().to_string(),
                ..OsdReport::default()
            };
            let slot = Slot {
                path: disk.path,
                size: disk.size,
                address,
                life: Life::Starting,
                lease: None,
                report,
                busy_since: None,
                waiting: None,
            };
            slots.insert(disk.osd, slot);
        }
        Ok(Osds {
            slots,
            disks: BTreeMap::new(),
            cluster: cluster.id,
            mirror: BTreeMap::new(),
            revision: 0,
            is_replaced: false,
            effects: Vec::new(),
            failures: Vec::new(),
            told_of_pool: false,
        })
    }

    /// Asks for everybody's lease.
    pub fn lease_all(&self, control: &UnboundedSender<ToControl>) {
        for &osd in self.slots.keys() {
            // Without a control plane the process is about to end.
            let _ = control.send(ToControl::Lease(osd));
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
        self.tell_backend(disk.backend);
        let machine = self.machine(osd, boot, disk.size);
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        slot.busy_since = None;
        slot.life = Life::Running(Box::new(Running {
            machine,
            disk: disk.token,
            boot,
            is_open: false,
        }));
        let (lease, address) = (slot.lease, slot.address);
        self.disks.insert(disk.token, osd);
        if address.is_some() {
            out.links.start(out.reactor, now, NodeId::Osd(osd), boot);
        }
        self.step(now, osd, Event::Lease(lease), out);
        if self.revision > 0 {
            let snapshot = Notice::Snapshot {
                revision: self.revision,
                keys: self.mirror.values().cloned().collect(),
            };
            self.step(now, osd, Event::Notice(snapshot), out);
        }
    }

    /// Says once that disks are slower than they could be.
    fn tell_backend(&mut self, backend: DiskBackend) {
        if backend == DiskBackend::Pool && !self.told_of_pool {
            self.told_of_pool = true;
            tracing::warn!(
                "io_uring is not to be had, so threads drive the disks, which is slower: see kernel.io_uring_disabled, \
                 and what a container's seccomp profile forbids"
            );
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
        let slot = self.slots.get(&osd);
        let identity = Identity {
            id: osd,
            boot,
            size: slot.map_or(0, |slot| slot.size),
            address: slot.and_then(|slot| slot.address).map(|address| address.to_string()),
        };
        Osd::new(identity, trivet_osd::Options::default(), store, output)
    }

    /// The metadata store changed.
    pub fn notice(&mut self, now: Now, notice: &Notice, out: &mut Output<'_>) {
        if self.slots.is_empty() {
            return;
        }
        self.remember(notice);
        let ids: Vec<OsdId> = self.slots.keys().copied().collect();
        for osd in ids {
            self.step(now, osd, Event::Notice(notice.clone()), out);
        }
    }

    fn remember(&mut self, notice: &Notice) {
        use trivet_core::kv::Event as Change;
        // No OSD has any use for the others.
        let keep = |key: &str| key < keys::FOR_GATEWAYS;
        match notice {
            Notice::Snapshot { revision, keys } | Notice::Replaced { revision, keys } => {
                self.is_replaced |= matches!(notice, Notice::Replaced { .. });
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
        let mut own = self.slots.keys();
        self.is_replaced &= !own.all(|&osd| self.mirror.contains_key(&keys::osd_config(osd)));
    }

    /// Whether the OSD is one of this process.
    pub fn has(&self, osd: OsdId) -> bool {
        self.slots.contains_key(&osd)
    }

    /// Whether the metadata store shows all of them.
    pub fn all_shown(&self) -> bool {
        self.slots.iter().all(|(&osd, slot)| match &slot.life {
            Life::Running(running) => running.is_open && self.shown(osd) == Some(running.boot),
            _ => false,
        })
    }

    /// Why OSDs ended that nobody stopped, since the last call.
    pub fn take_failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }

    /// Has the metadata store show how the OSDs are, if it shows something else, or nothing.
    pub fn show_stats(&self, control: &UnboundedSender<ToControl>) {
        for (&osd, slot) in &self.slots {
            if let Life::Running(running) = &slot.life
                && running.is_open
            {
                let report = &slot.report;
                let stats = OsdStats {
                    path: report.path.clone(),
                    capacity: report.capacity,
                    used: report.used,
                    objects: report.objects,
                };
                let shown = self.mirror.get(&keys::osd_stats(osd));
                if shown.is_none_or(|kv| kv.value != encode(&stats)) {
                    // Without a control plane the process is about to end.
                    let _ = control.send(ToControl::Stats(osd, stats));
                }
            }
        }
    }

    /// A connection of an OSD with another one broke.
    pub fn lost(&mut self, now: Now, osd: OsdId, loss: &Loss, out: &mut Output<'_>) {
        let (other, gone) = (loss.osd, loss.gone);
        self.step(now, osd, Event::Lost { osd: other, gone }, out);
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
    /// failed, or that does not belong to the cluster any more.
    fn follow(&mut self, osd: OsdId, out: &mut Output<'_>) {
        let (shown, removed) = (self.shown(osd), self.is_removed(osd));
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        let Life::Running(running) = &mut slot.life else { return };
        match running.machine.state() {
            State::Failed(reason) => self.failed(osd, &reason, out),
            _ if removed => self.failed(osd, "it was removed from the cluster", out),
            State::Opening => {}
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

    /// Whether the metadata store, as far as it is known here, has no such OSD. Of a store that took the place of the one
    /// that was known that proves nothing: it may be older, or empty.
    fn is_removed(&self, osd: OsdId) -> bool {
        self.revision > 0 && !self.is_replaced && !self.mirror.contains_key(&keys::osd_config(osd))
    }

    /// An OSD cannot go on: the others take over.
    fn failed(&mut self, osd: OsdId, reason: &str, out: &mut Output<'_>) {
        self.failures.push(format!("OSD {osd} stopped: {reason}"));
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        if let Some(reply) = slot.waiting.take() {
            let error = AdminError::new(ErrorKind::Unavailable, format!("OSD {osd} does not start: {reason}"));
            // A caller that has given up is no concern of ours.
            let _ = reply.send(Err(error));
        }
        self.close(osd, out);
    }

    fn close(&mut self, osd: OsdId, out: &mut Output<'_>) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        if let Life::Running(running) = std::mem::replace(&mut slot.life, Life::Stopping) {
            out.reactor.close_disk(running.disk);
            self.disks.remove(&running.disk);
            out.links.stop(out.reactor, NodeId::Osd(osd));
        }
        let _ = out.control.send(ToControl::Revoke(osd));
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

    /// An administrator stops an OSD of this process.
    pub fn stop(&mut self, osd: OsdId, reply: AdminReply, out: &mut Output<'_>) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        let problem = match slot {
            Slot {
                life: Life::Running(running),
                waiting: waiting @ None,
                ..
            } if running.is_open => {
                *waiting = Some(reply);
                return self.close(osd, out);
            }
            Slot {
                life: Life::Stopped, ..
            } => format!("OSD {osd} is stopped already"),
            _ => format!("OSD {osd} is just being started or stopped; try again"),
        };
        let _ = reply.send(Err(AdminError::new(ErrorKind::Conflict, problem)));
    }

    /// An administrator starts an OSD of this process.
    pub fn start(&mut self, osd: OsdId, reply: AdminReply, control: &UnboundedSender<ToControl>) {
        let Some(slot) = self.slots.get_mut(&osd) else { return };
        if !matches!(slot.life, Life::Stopped) {
            let error = AdminError::new(ErrorKind::Conflict, format!("OSD {osd} runs already"));
            let _ = reply.send(Err(error));
            return;
        }
        slot.life = Life::Starting;
        slot.waiting = Some(reply);
        let _ = control.send(ToControl::Lease(osd));
    }

    /// What the OSDs have to report; of those that are stopped, what they said last.
    pub fn reports(&self) -> Vec<(OsdId, OsdReport)> {
        self.slots
            .iter()
            .map(|(&osd, slot)| (osd, slot.report.clone()))
            .collect()
    }
}

/// Where others find an OSD that listens there. Without a port of its own, what it advertises has that one.
fn found_at(listens: SocketAddr, advertise: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let mut address = advertise.unwrap_or(listens);
    if address.port() == 0 {
        address.set_port(listens.port());
    }
    ensure!(
        !address.ip().is_unspecified(),
        "others cannot find an OSD at {address}; give --advertise ADDRESS"
    );
    Ok(address)
}

/// Hands an OSD's effects on.
fn carry_out(osd: OsdId, disk: DiskToken, effects: &mut Vec<Effect>, out: &mut Output<'_>) {
    for effect in effects.drain(..) {
        match effect {
            Effect::Send(to, message) => out.queue.push_back((NodeId::Osd(osd), to, message)),
            Effect::Disk(op) => out.reactor.submit_disk(disk, op.id.0, disk_op(op.kind)),
            Effect::Txn(ticket, txn) => {
                let _ = out.control.send(ToControl::Txn(Role::Osd(osd), ticket, txn));
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

/// Makes an empty store on a disk; a file is made, or grows, to `size`. Returns its bytes.
pub fn format(
    reactor: &mut Reactor,
    osd: OsdId,
    path: &Path,
    size: Option<u64>,
    cluster: [u8; 16],
    store: [u8; 16],
) -> anyhow::Result<u64> {
    let about = |reason: String| anyhow::anyhow!("{}: {reason}", path.display());
    let mut format = Format {
        size: size.unwrap_or(0),
        osd,
        cluster,
        store,
        log_size: None,
    };
    let prewrite = match size {
        Some(_) => 0..trivet_store::data_start(&format).map_err(about)?,
        None => 0..0,
    };
    let disk = reactor.open_disk(
        path,
        &OpenDisk {
            size,
            prewrite,
            ..OpenDisk::default()
        },
    )?;
    format.size = size.unwrap_or(disk.size);
    let ops = trivet_store::format(&format).map_err(about)?;
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
    Ok(format.size)
}

/// Clients that come before there is a cluster have to come again.
fn turn_away(reactor: &mut Reactor, events: &[ReactorEvent]) {
    for event in events {
        if let ReactorEvent::Accepted { conn, .. } = event {
            reactor.abort(*conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_that_they_can_dial() {
        let table = [
            ("10.0.0.1:7000", None, Some("10.0.0.1:7000")),
            ("10.0.0.1:7000", Some("10.0.0.2:80"), Some("10.0.0.2:80")),
            ("0.0.0.0:7000", Some("10.0.0.2:0"), Some("10.0.0.2:7000")),
            ("[::]:7000", Some("[fd00::2]:0"), Some("[fd00::2]:7000")),
            ("0.0.0.0:7000", None, None),
            ("[::]:7000", None, None),
            ("10.0.0.1:7000", Some("0.0.0.0:80"), None),
        ];
        for (listens, advertise, found) in table {
            let advertise: Option<SocketAddr> = advertise.map(|address| address.parse().unwrap());
            let address = found_at(listens.parse().unwrap(), advertise).ok();
            assert_eq!(
                address.map(|address| address.to_string()).as_deref(),
                found,
                "{listens} {advertise:?}"
            );
        }
    }
}
