//! How an administrator's calls travel from tokio to the data path and back.
//!
//! One bounded queue ([`channel`]): the HTTP side waits with a deadline, the data path takes calls when it pleases with
//! [`AdminReceiver::try_recv`] and answers whenever it can.
//!
//! Promises: a call is answered or fails by its deadline. Does not authenticate: the listener is meant for loopback or a
//! trusted network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trivet_gateway::admin::{AdminCall, AdminError, AdminResult, ErrorKind};

/// How long a question may take; beyond it the data path counts as stalled.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How long a change may take: it may have to wait for a failover of the OSDs it touches.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// Calls that may wait for the data path; more are refused.
const QUEUE_LENGTH: usize = 64;

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
        let deadline = deadline(&call);
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

fn deadline(call: &AdminCall) -> Duration {
    if call.changes() { CHANGE_DEADLINE } else { READ_DEADLINE }
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
    use trivet_gateway::admin::AdminAnswer;

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
