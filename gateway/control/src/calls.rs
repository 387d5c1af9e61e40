//! How administrators' changes travel from tokio to the data path and back, and how the data path is asked how it is.
//!
//! One bounded queue ([`channel`]): the HTTP side waits with a deadline, the data path takes requests when it pleases with
//! [`AdminReceiver::try_recv`] and answers whenever it can.
//!
//! Promises: a request is answered or fails by its deadline. Does not authenticate: the listener is meant for loopback or a
//! trusted network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trivet_api::{AdminCall, AdminError, AdminResult, ErrorKind};
use trivet_gateway::overview::Inside;

/// How long the data path may take to say how it is; beyond it, it counts as stalled.
pub(crate) const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to say what is wrong, when a change has taken too long already.
const COMPLAINT_DEADLINE: Duration = Duration::from_millis(500);
/// How long a change may take: it may have to wait for a failover of the OSDs it touches.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// Calls that may wait for the data path; more are refused.
const QUEUE_LENGTH: usize = 64;

/// Where the answer to a call goes. A caller that gave up is gone: sending to it fails, which is no error. Dropped
/// unused, it tells the caller that the gateway is stopping.
pub type AdminReply = oneshot::Sender<AdminResult>;

/// What the data path is asked for.
#[derive(Debug)]
pub enum Request {
    /// A change.
    Change(AdminCall, AdminReply),
    /// How it is; answered at once.
    Look(oneshot::Sender<Inside>),
}

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
    calls: mpsc::Sender<Request>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl AdminHandle {
    /// Asks for a change, and waits for its end: 30 s at most.
    ///
    /// # Errors
    /// What the data path answered; `Unavailable` when the queue is full or the other end is gone; `Timeout` when
    /// no answer came in time, and then the change may still happen.
    pub async fn change(&self, call: AdminCall) -> AdminResult {
        self.change_within(call, CHANGE_DEADLINE).await
    }

    async fn change_within(&self, call: AdminCall, deadline: Duration) -> AdminResult {
        match self.request(|reply| Request::Change(call, reply), deadline).await {
            Ok(result) => result,
            Err(Some(error)) => Err(error),
            Err(None) => Err(timed_out(deadline, self.complaint().await)),
        }
    }

    /// What the data path itself finds wrong, the worst first, if it says so at once.
    async fn complaint(&self) -> Option<String> {
        let inside = self.look(COMPLAINT_DEADLINE).await.ok()?;
        inside.broken.into_iter().chain(inside.doubtful).next()
    }

    /// Asks how the data path is.
    ///
    /// # Errors
    /// As [`AdminHandle::change`].
    pub(crate) async fn look(&self, deadline: Duration) -> Result<Inside, AdminError> {
        let answer = self.request(Request::Look, deadline).await;
        answer.map_err(|error| error.unwrap_or_else(|| stalled(deadline)))
    }

    /// The answer; without an error, none came in time.
    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
        deadline: Duration,
    ) -> Result<T, Option<AdminError>> {
        let (reply, answer) = oneshot::channel();
        self.calls.try_send(request(reply)).map_err(|e| Some(refused(&e)))?;
        (self.wake)();
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Some(stopping())),
            Err(_) => Err(None),
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

fn timed_out(deadline: Duration, complaint: Option<String>) -> AdminError {
    let why = complaint.unwrap_or_else(|| SILENT.to_owned());
    late(deadline, &why, "the change may still happen: look before trying again")
}

fn stalled(deadline: Duration) -> AdminError {
    late(deadline, SILENT, "try again, and see the gateway's log")
}

/// What is said when nothing else is known.
const SILENT: &str = "the storage did not answer";

fn late(deadline: Duration, why: &str, so: &str) -> AdminError {
    let limit = deadline.as_secs();
    AdminError::new(ErrorKind::Timeout, format!("not done within {limit} s: {why}; {so}"))
}

/// The answering end of the queue; needs no async runtime.
pub struct AdminReceiver {
    calls: mpsc::Receiver<Request>,
}

impl AdminReceiver {
    /// The next request, if one waits.
    pub fn try_recv(&mut self) -> Option<Request> {
        self.calls.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use trivet_api::AdminAnswer;

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
            let Some(Request::Change(call, reply)) = receiver.try_recv() else {
                panic!("woken after the call was put in");
            };
            assert_eq!(call, AdminCall::OsdStop { osd: 7 });
            reply.send(Ok(AdminAnswer::Done {})).unwrap();
        });
        let answer = runtime().block_on(handle.change(AdminCall::OsdStop { osd: 7 }));
        assert_eq!(answer, Ok(AdminAnswer::Done {}));
        answering.join().unwrap();
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (handle, receiver) = channel(|| {});
        let short = Duration::from_millis(1);
        let look = || runtime().block_on(handle.look(short)).unwrap_err();
        let stop = AdminCall::OsdStop { osd: 0 };
        let question = look();
        let change = runtime().block_on(handle.change_within(stop, short)).unwrap_err();
        assert_eq!((question.kind, change.kind), (ErrorKind::Timeout, ErrorKind::Timeout));
        assert!(change.message.contains("may still happen"), "{change}");
        assert!(!question.message.contains("may still happen"), "{question}");
        drop(receiver);
        assert_eq!(look().kind, ErrorKind::Unavailable);
    }

    #[test]
    fn a_change_that_takes_too_long_names_what_is_wrong() {
        let (woken, wakes) = std::sync::mpsc::channel();
        let (handle, mut receiver) = channel(move || woken.send(()).unwrap());
        let answering = std::thread::spawn(move || {
            wakes.recv().unwrap();
            let Some(Request::Change(_, never_answered)) = receiver.try_recv() else {
                panic!("the change comes first");
            };
            wakes.recv().unwrap();
            let Some(Request::Look(reply)) = receiver.try_recv() else {
                panic!("then somebody asks why");
            };
            let broken = vec!["the metadata store does not answer".to_owned()];
            let inside = Inside {
                broken,
                ..Inside::default()
            };
            reply.send(inside).unwrap();
            drop(never_answered);
        });
        let stop = AdminCall::OsdStop { osd: 0 };
        let change = runtime().block_on(handle.change_within(stop, Duration::from_millis(20)));
        let said = change.unwrap_err().message;
        assert!(
            said.contains("s: the metadata store does not answer; the change may still"),
            "{said}"
        );
        answering.join().unwrap();
    }

    #[test]
    fn the_queue_is_bounded() {
        let (handle, _receiver) = channel(|| {});
        let short = Duration::from_micros(1);
        let kinds = runtime().block_on(async {
            let mut kinds = Vec::new();
            for _ in 0..=QUEUE_LENGTH {
                kinds.push(handle.look(short).await.unwrap_err().kind);
            }
            kinds
        });
        assert!(kinds[..QUEUE_LENGTH].iter().all(|&kind| kind == ErrorKind::Timeout));
        assert_eq!(kinds[QUEUE_LENGTH], ErrorKind::Unavailable);
    }
}
