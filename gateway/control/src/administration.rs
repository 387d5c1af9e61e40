//! Who is asked for what: the clerk for whatever there is to see, the data path for changes.

use std::time::Duration;

use trivet_api::{AdminAnswer, AdminCall, AdminError, AdminResult, GatewayStatus};
use trivet_gateway::overview::{Inside, Overview};

use crate::calls::{AdminHandle, LOOK_DEADLINE};
use crate::clerk::Clerk;
use crate::exposition::Format;

/// How long probes and scrapes wait for the data path: they have short deadlines of their own.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// The administration of a gateway and its cluster.
#[derive(Clone)]
pub struct Administration {
    /// Makes changes, and says how the data path is.
    pub engine: AdminHandle,
    /// Shows everything.
    pub clerk: Clerk,
}

impl Administration {
    /// Answers a question, or makes a change and shows what has become of it.
    ///
    /// # Errors
    /// What the call is answered with; `Timeout` when the data path did not answer in time, and a change may still happen then.
    pub async fn call(&self, call: AdminCall) -> AdminResult {
        if call.changes() {
            return match self.engine.change(call.clone()).await? {
                AdminAnswer::Done {} => self.clerk.show(call, self.look(LOOK_DEADLINE).await).await,
                answer => Ok(answer),
            };
        }
        let inside = match call {
            // Of no use without.
            AdminCall::Status => Some(self.engine.look(LOOK_DEADLINE).await?),
            _ if Overview::needs_inside(&call) => self.look(PROBE_DEADLINE).await,
            _ => None,
        };
        self.clerk.answer(call, inside).await
    }

    /// How the gateway is. Nothing is looked up for it.
    ///
    /// # Errors
    /// When the data path does not say.
    pub(crate) async fn probe(&self) -> Result<GatewayStatus, AdminError> {
        Ok(self.engine.look(PROBE_DEADLINE).await?.gateway)
    }

    /// All that is counted, as text in a format.
    ///
    /// # Errors
    /// When nobody is left to write it.
    pub(crate) async fn scrape(&self, format: Format) -> Result<String, AdminError> {
        self.clerk.scrape(self.look(PROBE_DEADLINE).await, format).await
    }

    /// What the data path says of itself, if it says anything.
    async fn look(&self, deadline: Duration) -> Option<Inside> {
        self.engine.look(deadline).await.ok()
    }
}
