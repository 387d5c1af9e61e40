//! Answers as text for people: aligned columns, sizes with units, nothing that a name could do to a terminal.

mod cluster;
mod status;

use std::fmt::Write;

use trivet_api::{ImageInfo, ImageList, OpTotal};

pub use cluster::{df, gateways, monitors, osd_df, osds, pg, pgs, pool, pools, settings, tree};
pub use status::{scrub, scrub_asked, status};

use crate::size::human_size;

/// The last second of the year 9999, since when dates are shown as the number they are.
const LAST_DATE: u64 = 253_402_300_799;
/// Seconds of a day.
const DAY: u64 = 86_400;
/// Between columns.
const GAP: &str = "  ";
/// Characters of a name that are shown however narrow the terminal is.
const LEAST_NAME: usize = 16;

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

/// The titles of columns; the flags say which are right-aligned.
type Header<'a> = [(&'a str, bool)];

/// Rows of cells, the columns as wide as their widest.
fn table(header: &Header, rows: &[Vec<String>]) -> String {
    let widths = widths(header, rows);
    let titles: Vec<String> = header.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let cells = row.iter().zip(header).zip(&widths);
        let cells: Vec<String> = cells
            .map(|((cell, (_, right)), width)| pad(cell, *right, *width))
            .collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

fn widths(header: &Header, rows: &[Vec<String>]) -> Vec<usize> {
    let width = |text: &str| text.chars().count();
    let widest = |column: usize| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0);
    let columns = header.iter().enumerate();
    columns.map(|(at, (title, _))| width(title).max(widest(at))).collect()
}

/// Has the first column leave room for the others in so many columns of a terminal.
fn fit_first(header: &Header, rows: &mut [Vec<String>], columns: usize) {
    let others = widths(header, rows).into_iter().skip(1);
    let taken: usize = others.map(|width| width + GAP.len()).sum();
    let room = columns.saturating_sub(taken).max(LEAST_NAME);
    for cell in rows.iter_mut().filter_map(|row| row.first_mut()) {
        *cell = without_middle(cell, room);
    }
}

/// The text with as many characters as there is room for; names often differ at their ends.
fn without_middle(text: &str, room: usize) -> String {
    let length = text.chars().count();
    if length <= room {
        return text.to_owned();
    }
    let tail = room.saturating_sub(1) / 2;
    let head = room.saturating_sub(1) - tail;
    let start = text.chars().take(head);
    start.chain(['…']).chain(text.chars().skip(length - tail)).collect()
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

/// `trivet image ls`; on a terminal with so many columns, a long name is told by its ends.
pub fn images(list: &ImageList, columns: Option<usize>) -> String {
    let header = [("NAME", false), ("SIZE", true), ("USED", true), ("ID", true)];
    let row = |image: &ImageInfo| {
        let used = image.used.map_or_else(|| "-".to_owned(), human_size);
        vec![one_line(&image.path), human_size(image.size), used, image.id.clone()]
    };
    let mut rows: Vec<_> = list.images.iter().map(row).collect();
    if let Some(columns) = columns {
        fit_first(&header, &mut rows, columns);
    }
    table(&header, &rows)
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
        ("pool", Some(one_line(&image.pool)).filter(|pool| !pool.is_empty())),
        (
            "used",
            image.used.map(|used| format!("{} ({used} bytes)", human_size(used))),
        ),
        ("objects", image.objects.map(|objects| objects.to_string())),
        ("reads", image.ops.map(|ops| operations(&ops.read))),
        ("writes", image.ops.map(|ops| operations(&ops.write))),
        ("discards", image.ops.map(|ops| operations(&ops.zero))),
        ("created", image.created.map(date)),
        ("modified", image.modified.map(date)),
        ("nbd export", Some(one_line(&image.nbd))),
        ("iscsi target", image.iscsi.as_deref().map(one_line)),
        ("nfs path", Some(one_line(&image.nfs))),
    ])
}

/// `12 (48.0 KiB, 250 us each)`.
fn operations(op: &OpTotal) -> String {
    match op.time_us.checked_div(op.count) {
        None => "0".to_owned(),
        Some(each) => format!("{} ({}, {each} us each)", op.count, human_size(op.bytes)),
    }
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
    use trivet_api::OpTotals;

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
        assert_eq!(images(&list, None), text);
        assert_eq!(images(&list, Some(80)), text);
        assert_eq!(images(&ImageList::default(), None), "NAME  SIZE  USED  ID\n");
    }

    #[test]
    fn a_long_name_fits_a_terminal_and_is_whole_elsewhere() {
        let long = format!("vms/{}.old", "ü".repeat(300));
        let list = ImageList {
            images: vec![ImageInfo::new(&long, "1000000000001", 1 << 30)],
        };
        assert!(images(&list, None).contains(&long));
        for (columns, width) in [(100, 100), (60, 60), (10, LEAST_NAME + 30)] {
            let text = images(&list, Some(columns));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert_eq!(widest, Some(width), "{text}");
            assert!(text.contains("\nvms/ü") && text.contains("ü.old "), "{text}");
        }
        for (room, text) in [(5, "abcde"), (4, "ab…e"), (3, "a…e"), (1, "…"), (0, "…")] {
            assert_eq!(without_middle("abcde", room), text);
        }
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
    fn what_an_image_takes_and_how_it_is_used() {
        let mut info = ImageInfo::new("a", "1", 1 << 20);
        (info.used, info.objects) = (Some(49_152), Some(2));
        let write = OpTotal {
            count: 12,
            bytes: 49_152,
            time_us: 3000,
        };
        info.ops = Some(OpTotals {
            write,
            ..OpTotals::default()
        });
        let text = "\
used          48.0 KiB (49152 bytes)
objects       2
reads         0
writes        12 (48.0 KiB, 250 us each)
discards      0
";
        assert!(image(&info).contains(text), "{}", image(&info));
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
