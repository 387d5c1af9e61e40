//! Scrubs that nobody has to ask for.

use std::time::Duration;

use trivet_api::{AdminAnswer, AdminCall, Scrub};
use trivet_control::Administration;

/// A scrub is asked for when the last one, whoever asked for it, is older: disks lose data silently while nobody reads
/// it, and within two weeks a second copy is unlikely to go the same way.
const EVERY: Duration = Duration::from_secs(14 * 86_400);
/// How often that is looked at, for the first time this long after the start.
const LOOK: Duration = Duration::from_secs(3_600);

/// Asks for scrubs as they become due, for ever.
pub async fn ask_when_due(admin: Administration) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Ok(AdminAnswer::Status(status)) = admin.call(AdminCall::Status).await
            && is_due(&status.scrub)
        {
            match admin.call(AdminCall::Scrub).await {
                Ok(_) => tracing::info!("the last scrub is long ago: asked for one"),
                Err(error) => tracing::warn!("cannot ask for a scrub, trying again later: {error}"),
            }
        }
    }
}

fn is_due(last: &Scrub) -> bool {
    last.number == 0 || last.age_s > EVERY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_when_long_ago_or_never() {
        for (number, age_s, due) in [
            (0, 0, true),
            (1, 0, false),
            (1, EVERY.as_secs(), false),
            (1, EVERY.as_secs() + 1, true),
        ] {
            let last = Scrub {
                number,
                age_s,
                ..Scrub::default()
            };
            assert_eq!(is_due(&last), due, "{last:?}");
        }
    }
}
