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
