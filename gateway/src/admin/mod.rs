//! The admin API of a gateway: what an administrator may ask, and how the questions travel.
//!
//! HTTP lives on tokio ([`http`]); what it asks about lives on the data-path thread. Between them is one bounded
//! queue of [`AdminCall`]s ([`channel`]): the HTTP side waits with a deadline, the data path takes calls when it
//! pleases with [`AdminReceiver::try_recv`] and answers whenever it can. Nothing here knows how a call is done.
//!
//! Promises: a call is answered or fails by its deadline; names and sizes in a call are already valid. Does not
//! authenticate: the listener is meant for loopback or a trusted network.

mod cluster;
mod cluster_http;
mod error;
mod guard;
pub mod http;
mod listener;
mod listings;
pub mod metrics;
mod model;
mod path;
mod scrape;
mod scrape_usage;
mod totals;
mod words;

#[cfg(test)]
mod http_tests;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use trivet_core::keys::Settings;

pub(crate) use cluster::valid_copies;
pub use cluster::{
    Adopt, ClusterChange, ClusterQuestion, CreatePool, DEFAULT_PGS, MAX_PGS, PatchOsd, PatchPool, PatchSettings,
    PgFilter, SetPlace,
};
pub use error::{AdminError, ErrorBody, ErrorKind};
pub use listings::{
    Df, GatewayInfo, GatewayList, MonitorInfo, MonitorList, PgExplained, PgInfo, PgInterval, PgList, PoolInfo,
    PoolList, Tree, TreeRow,
};
pub use model::{
    Capacity, ClientCounts, CreateImage, Health, ImageInfo, ImageList, OsdCounts, OsdInfo, OsdList, OsdState,
    PatchImage, PgCounts, Recovery, Scrub, ScrubAsked, Status, iscsi_target,
};
pub use path::{MAX_COMPONENT, MAX_PATH, clean_path};
pub use totals::{OpTotal, OpTotals};
pub use words::{Thousandths, clean_tags, valid_pool_name, valid_word};

/// Sizes of images are multiples of this, bytes: the sector that NBD and iSCSI clients see.
pub const SECTOR: u64 = 512;
/// The largest image, bytes: offsets are signed 64-bit in every client, so the last sector ends below 2^63.
pub const MAX_IMAGE_SIZE: u64 = (1 << 63) - SECTOR;

/// How long a question may take; beyond it the data path counts as stalled.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How long a change may take: it may have to wait for a failover of the OSDs it touches.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// Calls that may wait for the data path; more are refused.
const QUEUE_LENGTH: usize = 64;

/// One thing an administrator asks for. Paths have passed [`clean_path`], sizes are multiples of [`SECTOR`] in
/// `SECTOR..=MAX_IMAGE_SIZE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCall {
    /// Make an image, and the directories above it; answered with [`AdminAnswer::Image`].
    ImageCreate {
        /// Its path, `vms/web01`.
        path: String,
        /// Bytes.
        size: u64,
        /// The name or id of the pool to put it in; none: the one with the lowest id.
        pool: Option<String>,
    },
    /// All images, ascending by path; answered with [`AdminAnswer::Images`].
    ImageList,
    /// One image; answered with [`AdminAnswer::Image`].
    ImageInfo {
        /// Its path.
        path: String,
    },
    /// Grow or shrink; answered with [`AdminAnswer::Image`].
    ImageResize {
        /// Its path.
        path: String,
        /// The new size, bytes.
        size: u64,
    },
    /// Remove an image and its data; answered with [`AdminAnswer::Done`].
    ImageRemove {
        /// Its path.
        path: String,
    },
    /// Give an image another path, where nothing may be yet; answered with [`AdminAnswer::Image`].
    ImageRename {
        /// Its path.
        from: String,
        /// Its new path.
        to: String,
    },
    /// How the cluster is; answered with [`AdminAnswer::Status`].
    Status,
    /// All OSDs, ascending by number; answered with [`AdminAnswer::Osds`].
    OsdList,
    /// Stop an OSD until it is started again; answered with [`AdminAnswer::Done`] when it is down.
    OsdStop {
        /// Its number.
        osd: u32,
    },
    /// Start a stopped OSD; answered with [`AdminAnswer::Done`] when it is up, before it has recovered.
    OsdStart {
        /// Its number.
        osd: u32,
    },
    /// Have all copies of everything read and compared; answered with [`AdminAnswer::Scrub`] when that is asked for,
    /// before it is done.
    Scrub,
    /// Change what the cluster is made of; answered when the change is seen by this gateway.
    Change(ClusterChange),
    /// A question about what the cluster is made of.
    Ask(ClusterQuestion),
}

impl AdminCall {
    fn changes(&self) -> bool {
        use AdminCall as Call;
        !matches!(
            self,
            Call::ImageList | Call::ImageInfo { .. } | Call::Status | Call::OsdList | Call::Ask(_)
        )
    }

    fn deadline(&self) -> Duration {
        if self.changes() { CHANGE_DEADLINE } else { READ_DEADLINE }
    }
}

/// What a call that succeeded brings; as JSON it is the body of the HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum AdminAnswer {
    /// Nothing to tell: `{}`.
    Done {},
    /// One image.
    Image(ImageInfo),
    /// All images.
    Images(ImageList),
    /// The cluster.
    Status(Box<Status>),
    /// All OSDs.
    Osds(OsdList),
    /// A scrub was asked for.
    Scrub(ScrubAsked),
    /// One OSD.
    Osd(OsdInfo),
    /// One pool.
    Pool(PoolInfo),
    /// All pools.
    Pools(PoolList),
    /// Space.
    Df(Df),
    /// The placement tree.
    Tree(Tree),
    /// PGs.
    Pgs(PgList),
    /// One PG, explained.
    Pg(PgExplained),
    /// The monitors.
    Monitors(MonitorList),
    /// The gateways.
    Gateways(GatewayList),
    /// The settings.
    Settings(Settings),
}

/// How a call ended.
pub type AdminResult = Result<AdminAnswer, AdminError>;
/// Where the answer to a call goes. A caller that gave up is gone: sending to it fails, which is no error. Dropped
/// unused, it tells the caller that the gateway is stopping.
pub type AdminReply = oneshot::Sender<AdminResult>;

/// Makes the queue between HTTP and the data path. `wake` is called after every call that was put in: it must
/// not block, and must make the owner of the [`AdminReceiver`] look at it soon.
pub fn channel(wake: impl Fn() + Send + Sync + 'static) -> (AdminHandle, AdminReceiver) {
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    let handle = AdminHandle {
        calls: sender,
        wake: Arc::new(wake),
    };
    (handle, AdminReceiver { calls: receiver })
}

/// The asking end of the queue.
#[derive(Clone)]
pub struct AdminHandle {
    calls: mpsc::Sender<(AdminCall, AdminReply)>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl AdminHandle {
    /// Asks, and waits for the answer: 5 s for a question, 30 s for a change.
    ///
    /// # Errors
    /// What the data path answered; `Unavailable` when the queue is full or the other end is gone; `Timeout` when
    /// no answer came in time, and then a change may still happen.
    pub async fn call(&self, call: AdminCall) -> AdminResult {
        let deadline = call.deadline();
        self.call_within(call, deadline).await
    }

    /// The same with another deadline.
    pub(crate) async fn call_within(&self, call: AdminCall, deadline: Duration) -> AdminResult {
        let changes = call.changes();
        let (reply, answer) = oneshot::channel();
        self.calls.try_send((call, reply)).map_err(|e| refused(&e))?;
        (self.wake)();
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(timed_out(changes, deadline)),
        }
    }
}

fn refused<T>(error: &mpsc::error::TrySendError<T>) -> AdminError {
    match error {
        mpsc::error::TrySendError::Full(_) => AdminError::new(
            ErrorKind::Unavailable,
            "too many admin calls are waiting; try again in a moment",
        ),
        mpsc::error::TrySendError::Closed(_) => stopping(),
    }
}

fn stopping() -> AdminError {
    AdminError::new(
        ErrorKind::Unavailable,
        "the gateway is stopping; try again when it is back",
    )
}

fn timed_out(changes: bool, deadline: Duration) -> AdminError {
    let so = if changes {
        "the change may still happen: look before trying again"
    } else {
        "try again, and see the gateway's log"
    };
    let seconds = deadline.as_secs();
    AdminError::new(
        ErrorKind::Timeout,
        format!("the storage did not answer within {seconds} s; {so}"),
    )
}

/// The answering end of the queue; needs no async runtime.
pub struct AdminReceiver {
    calls: mpsc::Receiver<(AdminCall, AdminReply)>,
}

impl AdminReceiver {
    /// The next call, if one waits.
    pub fn try_recv(&mut self) -> Option<(AdminCall, AdminReply)> {
        self.calls.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn a_call_travels_and_wakes() {
        let (woken, wakes) = std::sync::mpsc::channel();
        let (handle, mut receiver) = channel(move || woken.send(()).unwrap());
        let answering = std::thread::spawn(move || {
            wakes.recv().unwrap();
            let (call, reply) = receiver.try_recv().expect("woken after the call was put in");
            assert_eq!(call, AdminCall::OsdStop { osd: 7 });
            reply.send(Ok(AdminAnswer::Done {})).unwrap();
        });
        let answer = runtime().block_on(handle.call(AdminCall::OsdStop { osd: 7 }));
        assert_eq!(answer, Ok(AdminAnswer::Done {}));
        answering.join().unwrap();
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (handle, receiver) = channel(|| {});
        let short = Duration::from_millis(1);
        let ask = |call| runtime().block_on(handle.call_within(call, short)).unwrap_err();
        let question = ask(AdminCall::Status);
        let change = ask(AdminCall::OsdStop { osd: 0 });
        assert_eq!((question.kind, change.kind), (ErrorKind::Timeout, ErrorKind::Timeout));
        assert!(change.message.contains("may still happen"), "{change}");
        assert!(!question.message.contains("may still happen"), "{question}");
        drop(receiver);
        assert_eq!(ask(AdminCall::Status).kind, ErrorKind::Unavailable);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (handle, _receiver) = channel(|| {});
        let short = Duration::from_micros(1);
        let kinds = runtime().block_on(async {
            let mut kinds = Vec::new();
            for _ in 0..=QUEUE_LENGTH {
                kinds.push(handle.call_within(AdminCall::Status, short).await.unwrap_err().kind);
            }
            kinds
        });
        assert!(kinds[..QUEUE_LENGTH].iter().all(|&kind| kind == ErrorKind::Timeout));
        assert_eq!(kinds[QUEUE_LENGTH], ErrorKind::Unavailable);
    }
}
