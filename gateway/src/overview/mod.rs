//! What administrators are shown: a mirror of the metadata, and the listings, sums and verdicts that are made of it.
//!
//! It is no part of the gateway machine and never runs beside it: `gateway/control` keeps one on a thread of its own, so that
//! nobody's data waits for a listing of ten thousand images. What only the machine knows comes as an [`Inside`], which is
//! small. It changes nothing.

mod health;
mod images;
mod moving;
mod osds;
mod pgs;
mod pools;
mod recovery;
mod scrub;
mod status;
mod usage;

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_api::{
    AdminAnswer, AdminCall, AdminError, AdminResult, ClientCounts, ClusterChange, ClusterQuestion, Df, ErrorKind,
    GatewayInfo, GatewayList, GatewayStatus, ImageList, MonitorInfo, MonitorList, PoolList,
};
use trivet_core::kv::Notice;
use trivet_core::map::ClusterMap;
use trivet_core::{ClientId, ImageId, Now, OsdId};
use trivet_namespace::Namespace;

pub(crate) use pgs::pg_name;

use crate::cluster::{AdminKeys, Disks};
use crate::gateway::Clock;
use crate::status::OsdReport;
use moving::Moving;
use recovery::Progress;
use usage::Usages;

/// How often it looks at what takes time.
const TICK: Duration = Duration::from_secs(1);

/// What a gateway machine says of itself; it costs what its sessions are, not what there is in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    /// Since it started.
    pub uptime: Duration,
    /// Who is connected to it.
    pub clients: ClientCounts,
    /// How it is.
    pub gateway: GatewayStatus,
    /// What the OSDs of its process say of themselves.
    pub osds: BTreeMap<OsdId, OsdReport>,
    /// What keeps clients from what they want, in words.
    pub broken: Vec<String>,
    /// What somebody should look at, in words.
    pub doubtful: Vec<String>,
    /// Truncations and removals whose data does not go, and why.
    pub stuck: Vec<String>,
}

/// A mirror of the metadata, from which listings, sums and verdicts for administrators are made.
pub struct Overview {
    /// Whose gateway's it is.
    id: ClientId,
    map: ClusterMap,
    namespace: Namespace,
    usages: Usages,
    admin_keys: AdminKeys,
    progress: Progress,
    moving: Moving,
    now: Now,
    ticked: Now,
    /// What the OSDs of the process said when the machine was asked last.
    reports: BTreeMap<OsdId, OsdReport>,
}

impl Overview {
    /// Of the gateway `id`; it knows nothing before the first notice.
    #[must_use]
    pub fn new(id: ClientId) -> Overview {
        Overview {
            id,
            map: ClusterMap::default(),
            namespace: Namespace::default(),
            usages: Usages::default(),
            admin_keys: AdminKeys::default(),
            progress: Progress::default(),
            moving: Moving::default(),
            now: Now(0),
            ticked: Now(0),
            reports: BTreeMap::new(),
        }
    }

    /// The metadata store changed.
    pub fn notice(&mut self, notice: &Notice) {
        let known = self.map.revision;
        self.usages.apply(notice, known);
        self.admin_keys.apply(notice, known);
        self.namespace.apply(notice);
        self.map.apply(notice);
    }

    /// Looks how recovery gets on, and at the PGs that do not serve, once a second. Call it at least as often.
    pub fn tick(&mut self, now: Now) {
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.now = now;
        self.progress.sample(now, self.objects_missing());
        let mut moving = std::mem::take(&mut self.moving);
        moving.look(now, self.idle_pgs());
        self.moving = moving;
    }

    /// Whether the answer to a question has something of an [`Inside`].
    #[must_use]
    pub fn needs_inside(call: &AdminCall) -> bool {
        use ClusterQuestion as Question;
        match call {
            AdminCall::Status | AdminCall::OsdList => true,
            AdminCall::Ask(question) => matches!(question, Question::Pools | Question::Df | Question::Tree),
            call => call.changes(),
        }
    }

    /// Answers a question. Without `inside` the machine does not answer: what it said before counts, and there is no status.
    ///
    /// # Errors
    /// What there is not, or is asked for in the wrong words.
    pub fn answer(&mut self, clock: Clock, call: &AdminCall, inside: Option<&Inside>) -> AdminResult {
        self.take(clock, inside);
        if self.map.revision == 0 && *call != AdminCall::Status {
            // An empty list would be a lie.
            return Err(unread());
        }
        Ok(match call {
            AdminCall::ImageList => AdminAnswer::Images(ImageList {
                images: self.all_images(),
            }),
            AdminCall::ImageInfo { path } => AdminAnswer::Image(self.image_at(path)?),
            AdminCall::Status => {
                let inside = inside.ok_or_else(silent)?;
                AdminAnswer::Status(Box::new(self.status(clock, inside)))
            }
            AdminCall::OsdList => AdminAnswer::Osds(self.osd_list()),
            AdminCall::Ask(question) => self.cluster_question(question)?,
            _ => return Err(AdminError::new(ErrorKind::Internal, "this is not a question")),
        })
    }

    /// The answer to a change that has been made.
    ///
    /// # Errors
    /// When somebody has undone it meanwhile.
    pub fn changed(&mut self, clock: Clock, call: &AdminCall, inside: Option<&Inside>) -> AdminResult {
        self.take(clock, inside);
        Ok(match call {
            AdminCall::ImageCreate { path, .. }
            | AdminCall::ImageResize { path, .. }
            | AdminCall::ImageRename { to: path, .. } => AdminAnswer::Image(self.image_at(path)?),
            AdminCall::Change(ClusterChange::PoolCreate(pool)) => AdminAnswer::Pool(self.pool_info(&pool.name)?),
            AdminCall::Change(ClusterChange::PoolModify { pool, .. }) => AdminAnswer::Pool(self.pool_info(pool)?),
            AdminCall::Change(ClusterChange::OsdModify { osd, .. }) => AdminAnswer::Osd(self.osd_info(*osd)?),
            AdminCall::Change(ClusterChange::Settings(_)) => AdminAnswer::Settings(self.map.settings.clone()),
            _ => AdminAnswer::Done {},
        })
    }

    /// The path of an image; none: it is gone.
    #[must_use]
    pub fn path_of(&self, image: ImageId) -> Option<String> {
        let path = self.namespace.path_of(image)?;
        Some(String::from_utf8_lossy(&path).into_owned())
    }

    fn take(&mut self, clock: Clock, inside: Option<&Inside>) {
        self.now = clock.now;
        if let Some(inside) = inside {
            self.reports.clone_from(&inside.osds);
        }
    }

    fn disks(&self) -> Disks<'_> {
        Disks {
            map: &self.map,
            reports: &self.reports,
        }
    }

    /// Answers a question about what the cluster is made of.
    fn cluster_question(&self, question: &ClusterQuestion) -> AdminResult {
        use ClusterQuestion as Question;
        Ok(match question {
            Question::Pools => AdminAnswer::Pools(PoolList { pools: self.pools() }),
            Question::Df => AdminAnswer::Df(Df {
                raw: self.disks().raw_space(),
                pools: self.pools(),
            }),
            Question::Tree => AdminAnswer::Tree(self.tree()),
            Question::Pgs(filter) => AdminAnswer::Pgs(self.pg_list(filter)?),
            Question::Pg { pg } => AdminAnswer::Pg(self.pg_explained(pg)?),
            Question::Monitors => AdminAnswer::Monitors(self.monitors()),
            Question::Gateways => AdminAnswer::Gateways(self.gateways()),
            Question::Settings => AdminAnswer::Settings(self.map.settings.clone()),
        })
    }

    fn monitors(&self) -> MonitorList {
        let map = &self.map;
        let leader = map.leader.as_ref().map(|leader| leader.value.id);
        let mut monitors: Vec<MonitorInfo> = map
            .monitors
            .iter()
            .map(|(&id, state)| MonitorInfo {
                id: format!("{id:016x}"),
                host: Some(state.value.host.clone()),
                leads: leader == Some(id),
            })
            .collect();
        // One that leads without having said where it runs.
        if let Some(id) = leader.filter(|id| !map.monitors.contains_key(id)) {
            monitors.push(MonitorInfo {
                id: format!("{id:016x}"),
                host: None,
                leads: true,
            });
        }
        monitors.sort_by(|a, b| a.id.cmp(&b.id));
        MonitorList { monitors }
    }

    fn gateways(&self) -> GatewayList {
        let gateways = self.map.gateways.iter();
        let gateways = gateways.map(|(&id, state)| GatewayInfo {
            id: format!("{:016x}", id.0),
            name: state.value.name.clone(),
            http: state.value.http.clone(),
            this: id == self.id,
        });
        GatewayList {
            gateways: gateways.collect(),
        }
    }
}

/// The metadata has not come yet.
pub(crate) fn unread() -> AdminError {
    AdminError::new(
        ErrorKind::Unavailable,
        "the gateway has just started and has not read the metadata yet; try again in a moment",
    )
}

fn silent() -> AdminError {
    AdminError::new(
        ErrorKind::Timeout,
        "the storage does not answer; try again, and see the gateway's log",
    )
}
