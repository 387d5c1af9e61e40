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
        let answer = self.request(|reply| Request::Change(call, reply), deadline).await;
        answer.map_err(|error| error.unwrap_or_else(|| timed_out(deadline)))?
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

fn timed_out(deadline: Duration) -> AdminError {
    silent(deadline, "the change may still happen: look before trying again")
}

fn stalled(deadline: Duration) -> AdminError {
    silent(deadline, "try again, and see the gateway's log")
}

fn silent(deadline: Duration, so: &str) -> AdminError {
    let seconds = deadline.as_secs();
    AdminError::new(
        ErrorKind::Timeout,
        format!("the storage did not answer within {seconds} s; {so}"),
    )
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
