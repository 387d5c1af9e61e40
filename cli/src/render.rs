//! Answers as text for people: aligned columns, sizes with units, nothing that a name could do to a terminal.

use std::fmt::Write;

use trivet_gateway::admin::{
    Health, ImageInfo, ImageList, OsdInfo, OsdList, OsdState, PgCounts, Scrub, ScrubAsked, Status,
};

use crate::size::human_size;

/// The last second of the year 9999, since when dates are shown as the number they are.
const LAST_DATE: u64 = 253_402_300_799;
/// Seconds of a day.
const DAY: u64 = 86_400;

/// The text with control characters written out: one line, and no orders to the terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Rows of cells, the columns as wide as their widest; the flags say which are right-aligned.
fn table(header: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = header.iter().map(|(title, _)| (*title).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&titles).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).filter_map(width).collect();
    let mut text = String::new();
    for row in all {
        let cells = row.iter().zip(header).zip(&widths);
        let cells: Vec<String> = cells
            .map(|((cell, (_, right)), width)| pad(cell, *right, *width))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn pad(cell: &str, right: bool, width: usize) -> String {
    if right {
        format!("{cell:>width$}")
    } else {
        format!("{cell:<width$}")
    }
}

/// Names and values, one pair a line; what has no value is left out.
fn pairs<const N: usize>(pairs: [(&str, Option<String>); N]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value) in pairs {
        if let Some(value) = value {
            text.push_str(&format!("{key:<width$}  {value}\n"));
        }
    }
    text
}

/// `trivet image ls`.
pub fn images(list: &ImageList) -> String {
    let row = |image: &ImageInfo| {
        let used = image.used.map_or_else(|| "-".to_owned(), human_size);
        vec![one_line(&image.path), human_size(image.size), used, image.id.clone()]
    };
    let rows: Vec<_> = list.images.iter().map(row).collect();
    table(&[("NAME", false), ("SIZE", true), ("USED", true), ("ID", true)], &rows)
}

/// `trivet image info`, and what the changes print.
pub fn image(image: &ImageInfo) -> String {
    pairs([
        ("image", Some(one_line(&image.path))),
        ("id", Some(image.id.clone())),
        (
            "size",
            Some(format!("{} ({} bytes)", human_size(image.size), image.size)),
        ),
        ("used", image.used.map(human_size)),
        ("created", image.created.map(date)),
        ("modified", image.modified.map(date)),
        ("nbd export", Some(one_line(&image.nbd))),
        ("iscsi target", image.iscsi.as_deref().map(one_line)),
        ("nfs path", Some(one_line(&image.nfs))),
    ])
}

/// `trivet osd ls`.
pub fn osds(list: &OsdList) -> String {
    let row = |osd: &OsdInfo| {
        let state = if osd.state == OsdState::Up { "up" } else { "down" };
        let numbers = [osd.objects, osd.pgs, osd.primary_pgs].map(|number| number.to_string());
        let mut row = vec![
            osd.id.to_string(),
            state.to_owned(),
            human_size(osd.size),
            human_size(osd.used),
        ];
        row.extend(numbers);
        row.push(one_line(&osd.path));
        row
    };
    let header = [
        ("OSD", true),
        ("STATE", false),
        ("SIZE", true),
        ("USED", true),
        ("OBJECTS", true),
        ("PGS", true),
        ("PRIMARY", true),
        ("PATH", false),
    ];
    table(&header, &list.osds.iter().map(row).collect::<Vec<_>>())
}

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
        ("recovery", Some(recovery(status.recovery.objects_missing))),
        ("scrub", Some(scrub(&status.scrub))),
        ("capacity", Some(format!("{used} used, {free} free of {total}"))),
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

fn recovery(missing: u64) -> String {
    match missing {
        0 => "nothing missing".to_owned(),
        1 => "1 object copy missing".to_owned(),
        _ => format!("{missing} object copies missing"),
    }
}

/// How far a scrub is and what it found, without a line end.
pub fn scrub(scrub: &Scrub) -> String {
    if scrub.number == 0 {
        return "never asked for".to_owned();
    }
    let numbers = [scrub.objects, scrub.repaired, scrub.inconsistent, scrub.lost];
    let [objects, repaired, inconsistent, lost] = numbers.map(thousands);
    format!(
        "{} of {} PGs, {objects} objects compared, {repaired} repaired, {inconsistent} inconsistent, {lost} lost \
         (asked {} ago)",
        scrub.done,
        scrub.pgs,
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

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`.
fn duration(seconds: u64) -> String {
    let [days, hours, minutes] = [seconds / DAY, seconds / 3600 % 24, seconds / 60 % 60];
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A Unix time as `2026-11-22 16:31:12 UTC`.
fn date(seconds: u64) -> String {
    if seconds > LAST_DATE {
        return seconds.to_string();
    }
    let (year, month, day) = civil(seconds / DAY);
    let rest = seconds % DAY;
    let mut text = format!("{year}-{month:02}-{day:02} ");
    let clock = write!(text, "{:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60);
    clock.expect("writing to a string does not fail");
    text
}

/// Year, month and day of the month of the `day`th day since 1970-01-01.
fn civil(mut day: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while day >= 365 + leap(year) {
        day -= 365 + leap(year);
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

/// The leap days of a year.
fn leap(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    u64::from(leap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut first = ImageInfo::new("demo", "1000000000001", 1 << 30);
        first.used = Some(1536);
        let list = ImageList {
            images: vec![first, ImageInfo::new("vms/a\nb", "2", 512)],
        };
        let text = "\
NAME         SIZE     USED             ID
demo      1.0 GiB  1.5 KiB  1000000000001
vms/a\\nb    512 B        -              2
";
        assert_eq!(images(&list), text);
        assert_eq!(images(&ImageList::default()), "NAME  SIZE  USED  ID\n");
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let mut info = ImageInfo::new("a", "1", 1024);
        info.created = Some(0);
        let text = "\
image         a
id            1
size          1.0 KiB (1024 bytes)
created       1970-01-01 00:00:00 UTC
nbd export    a
iscsi target  iqn.2026-11.io.trivet:a
nfs path      /a
";
        assert_eq!(image(&info), text);
    }

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

    #[test]
    fn dates() {
        for (seconds, text) in [
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_365_072, "2026-11-22 16:31:12 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (LAST_DATE, "9999-12-31 23:59:59 UTC"),
            (LAST_DATE + 1, "253402300800"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
