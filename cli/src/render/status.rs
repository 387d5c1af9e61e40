//! How the cluster is, in words.

use trivet_api::{Health, PgCounts, Recovery, Scrub, ScrubAsked, Status, counted};

use super::{duration, one_line, pairs};
use crate::size::human_size;

/// `trivet status`.
pub fn status(status: &Status) -> String {
    let space = &status.capacity;
    let clients = &status.clients;
    let [total, used, free] = [space.total, space.used, space.free].map(human_size);
    pairs([
        ("cluster", Some(one_line(&status.cluster))),
        ("version", Some(one_line(&status.version))),
        ("uptime", Some(duration(status.uptime_s))),
        ("health", Some(health(status))),
        ("osds", Some(format!("{} of {} up", status.osds.up, status.osds.total))),
        ("pgs", Some(pgs(&status.pgs))),
        ("recovery", Some(recovery(&status.recovery))),
        ("scrub", Some(scrub(&status.scrub))),
        ("capacity", Some(format!("{used} used, {free} free of {total} raw"))),
        ("images", Some(status.images.to_string())),
        (
            "clients",
            Some(format!(
                "{} nbd, {} iscsi, {} nfs",
                clients.nbd, clients.iscsi, clients.nfs
            )),
        ),
    ])
}

fn health(status: &Status) -> String {
    let verdict = match status.health {
        Health::Ok => "ok",
        Health::Warn => "warn",
        Health::Error => "error",
    };
    if status.reasons.is_empty() {
        return verdict.to_owned();
    }
    format!("{verdict}: {}", one_line(&status.reasons.join("; ")))
}

fn pgs(pgs: &PgCounts) -> String {
    let mut text = format!(
        "{}: {} active, {} clean, {} degraded",
        pgs.total, pgs.active, pgs.clean, pgs.degraded
    );
    let states: Vec<String> = pgs.by_state.iter().map(|(state, n)| format!("{n} {state}")).collect();
    if !states.is_empty() {
        text.push_str(&format!(" ({})", one_line(&states.join(", "))));
    }
    text
}

fn recovery(recovery: &Recovery) -> String {
    let missing = match recovery.objects_missing {
        0 => return "nothing missing".to_owned(),
        1 => "1 object copy missing".to_owned(),
        missing => format!("{} object copies missing", thousands(missing)),
    };
    match recovery.eta_s {
        Some(eta) => format!(
            "{missing}, {} a second, about {} left",
            thousands(recovery.rate),
            duration(eta)
        ),
        None => missing,
    }
}

/// How far a scrub is and what it found, without a line end.
pub fn scrub(scrub: &Scrub) -> String {
    if scrub.number == 0 {
        return "never asked for".to_owned();
    }
    let numbers = [scrub.objects, scrub.repaired, scrub.inconsistent, scrub.lost];
    let [objects, repaired, inconsistent, lost] = numbers.map(thousands);
    let noun = if scrub.objects == 1 { "object" } else { "objects" };
    format!(
        "{} of {}, {objects} {noun} compared, {repaired} repaired, {inconsistent} inconsistent, {lost} lost \
         (asked {} ago)",
        scrub.done,
        counted(scrub.pgs, "PG", "PGs"),
        duration(scrub.age_s)
    )
}

/// `trivet scrub`.
pub fn scrub_asked(asked: &ScrubAsked) -> String {
    format!(
        "scrub {} is asked for; 'trivet status' shows how far it is\n",
        asked.number
    )
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_why() {
        let mut now = Status {
            health: Health::Warn,
            uptime_s: 3_700,
            ..Status::default()
        };
        now.reasons = vec!["OSD 1 is down".into(), "3 PGs are degraded".into()];
        now.pgs = PgCounts {
            total: 32,
            active: 32,
            clean: 29,
            degraded: 3,
            ..PgCounts::default()
        };
        now.pgs.by_state.insert("active+degraded".into(), 3);
        now.scrub = Scrub {
            number: 2,
            age_s: 300,
            pgs: 32,
            done: 31,
            objects: 1_234,
            repaired: 2,
            ..Scrub::default()
        };
        let text = status(&now);
        for line in [
            "health    warn: OSD 1 is down; 3 PGs are degraded",
            "pgs       32: 32 active, 29 clean, 3 degraded (3 active+degraded)",
            "uptime    1h 1m",
            "recovery  nothing missing",
            "scrub     31 of 32 PGs, 1,234 objects compared, 2 repaired, 0 inconsistent, 0 lost (asked 5m 0s ago)",
        ] {
            assert!(text.lines().any(|given| given == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn recovery_tells_its_pace() {
        let recovery = |objects_missing, rate, eta_s| {
            recovery(&Recovery {
                objects_missing,
                rate,
                eta_s,
            })
        };
        assert_eq!(recovery(1, 0, None), "1 object copy missing");
        assert_eq!(recovery(1_200, 0, None), "1,200 object copies missing");
        let text = "1,200 object copies missing, 20 a second, about 1m 0s left";
        assert_eq!(recovery(1_200, 20, Some(60)), text);
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (123_456_789, "123,456,789"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
