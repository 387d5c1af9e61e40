//! `trivet scrub --wait`: asks for a scrub, and waits until every PG has done it.

use std::thread;
use std::time::Duration;

use anyhow::Context;
use trivet_api::{Scrub, ScrubAsked, Status, counted};

use crate::client::Client;
use crate::commands::{Answer, read};
use crate::render;

/// How often the status is looked at meanwhile.
const POLL: Duration = Duration::from_millis(500);

/// Waits as long as it takes: a PG that has lost a member scrubs when it is clean again.
pub fn wait(client: &Client, json: bool) -> anyhow::Result<Answer> {
    let asked = client.send("POST", "/api/v1/scrub", Some("{}".to_owned()));
    let asked: ScrubAsked = read(&asked.context("cannot ask for a scrub")?)?;
    loop {
        let status = client.send("GET", "/api/v1/status", None);
        let status: Status = read(&status.context("cannot follow the scrub")?)?;
        if is_done(&status.scrub, asked.number) {
            return answer(&status.scrub, json);
        }
        thread::sleep(POLL);
    }
}

/// A later scrub that is done will do, too.
fn is_done(scrub: &Scrub, number: u64) -> bool {
    scrub.number >= number && scrub.done >= scrub.pgs
}

fn answer(scrub: &Scrub, json: bool) -> anyhow::Result<Answer> {
    let text = if json {
        serde_json::to_string(scrub).context("cannot write the result as JSON")?
    } else {
        render::scrub(scrub)
    };
    let Scrub { inconsistent, lost, .. } = scrub;
    let differ = counted(
        *inconsistent,
        "object whose copies differ",
        "objects whose copies differ",
    );
    let problem = format!("the scrub found {differ}, {lost} without a good copy");
    Ok(Answer {
        text: text + "\n",
        problem: (*inconsistent > 0 || *lost > 0).then_some(problem),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_when_every_pg_has_answered_this_number_or_a_later_one() {
        let scrub = |number, done| Scrub {
            number,
            done,
            pgs: 32,
            ..Scrub::default()
        };
        for (scrub, done) in [
            (scrub(6, 32), false),
            (scrub(7, 0), false),
            (scrub(7, 31), false),
            (scrub(7, 32), true),
            (scrub(8, 31), false),
            (scrub(8, 32), true),
        ] {
            assert_eq!(is_done(&scrub, 7), done, "{scrub:?}");
        }
    }
}
